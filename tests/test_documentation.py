"""What the documents say exists, exists: commands, options, links, files."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import workhorse
from workhorse import Policy
from workhorse.algorithms import registry
from workhorse.algorithms.other_names import our_name
from workhorse.cli.main import COMMANDS
from workhorse.runs.metrics import read_metrics

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def text(path: Path) -> str:
    return path.read_text()


def typed(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("workhorse")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder)


def command_lines() -> list[tuple[str, str]]:
    """(document, line) for everything in the documents that is typed as `workhorse ...`."""
    found = []
    for path in DOCUMENTS:
        code = [
            *re.findall(r"`(workhorse [^`\n]+)`", text(path)),
            *re.findall(r"(?m)^    (?:\w+=\w+ )?(workhorse .+)$", text(path)),
        ]
        found += [(str(path.relative_to(ROOT)), re.split(r"\s{2,}#", line)[0]) for line in code]
    return found


def test_the_documents_name_commands() -> None:
    assert {line.split()[1] for _, line in command_lines()} >= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    answer = typed(command, "--help")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip()


def test_every_command_typed_in_the_documents_exists() -> None:
    for document, line in command_lines():
        command = line.split()[1]
        if command.isupper() or command.startswith("-") or command.endswith(":"):
            continue  # a placeholder, an option of the program itself, or what it says: "workhorse train: ..."
        assert command in (*COMMANDS, "help"), f"{document}: {line}"


def test_every_option_typed_in_the_documents_exists() -> None:
    known = {command: typed(command, "--help").stdout for command in COMMANDS}
    options = {option for name in registry.entries() for option in registry.options(name)}
    known["train"] += " ".join(f"--{option.replace('_', '-')} --no-{option.replace('_', '-')}" for option in options)
    known["dataset"] += "".join(typed("dataset", one, "--help").stdout for one in ("make", "check", "show", "convert"))
    known["train"] += typed("train", "--algorithm", "own_algorithm:RandomSearch", "--help", folder=EXAMPLES).stdout
    for document, line in command_lines():
        command = line.split()[1]
        for option in re.findall(r"(?<=\s)--[a-z-]+", line):
            if option != "--help" and command in known:
                assert option in known[command], f"{document}: {line} has {option}"


def test_every_make_target_in_the_documents_exists() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", text(ROOT / "Makefile")))
    for path in DOCUMENTS:
        typed = re.findall(r"`make ([^`\n]+)`", text(path)) + re.findall(r"(?m)^    make ([^#\n]+)", text(path))
        for words in typed:
            names = [word for word in words.split() if re.fullmatch(r"[a-z-]+", word)]
            assert set(names) <= targets, f"{path.name}: make {words}"


def test_the_readme_shows_both_commands_and_pip_in_time() -> None:
    readme = text(ROOT / "README.md")
    first_screen = "\n".join(readme.splitlines()[:24])
    assert "make train" in first_screen
    assert "make test" in first_screen
    assert "pip install ." in readme


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(path: Path) -> None:
    prose = re.sub(r"(?s)```.*?```|`[^`\n]*`|<!--.*?-->", "", text(path))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue  # elsewhere: not looked at
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{path.name}: {target}"
        if anchor:
            headings = re.findall(r"(?m)^#+ (.+)$", text(there))
            assert anchor in {slug(heading) for heading in headings}, f"{path.name}: {target}"


def slug(heading: str) -> str:
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-")


def own_pages() -> set[str]:
    """The pages that `docs/navigation.py` puts into the menu: one for each class, but those of a folder with a page."""
    names: dict[str, str] = {}
    for row in registry.entries().values():
        folder = row.module.split(".")[-2]
        shared = (ROOT / "docs" / "algorithms" / f"{folder}.md").exists()
        names.setdefault(row.cls, folder if shared else row.name)
    return {f"algorithms/{name}.md" for name in names.values()}


def test_every_page_is_in_the_menu() -> None:
    menu = text(ROOT / "mkdocs.yml")
    assert "hooks: [docs/navigation.py]" in menu
    for path in (ROOT / "docs").rglob("*.md"):
        page = str(path.relative_to(ROOT / "docs"))
        assert page in menu or page in own_pages()


def test_every_algorithm_has_a_page_and_every_preset_is_named() -> None:
    assert all((ROOT / "docs" / page).exists() for page in own_pages())
    pages = "".join(map(text, (ROOT / "docs" / "algorithms").glob("*.md")))
    assert all(f"`{name}`" in pages for name in registry.entries())


def test_the_example_of_an_own_algorithm_is_the_one_explained() -> None:
    source = text(EXAMPLES / "own_algorithm.py")
    shown = re.findall(r"(?s)```python\n(.*?)```", text(ROOT / "docs" / "concepts" / "algorithms.md"))
    assert shown == [source[source.index("from typing") :]]


def test_the_example_of_an_own_algorithm_learns(tmp_path: Path) -> None:
    line = next(line for _, line in command_lines() if "own_algorithm" in line and "--env-steps" in line)
    words = [*line.split()[1:], "--runs", str(tmp_path), "--id", "own", "--evaluate-every", "0", "--quiet"]
    trained = typed(*words, folder=EXAMPLES)
    assert trained.returncode == 0, trained.stderr
    rows = read_metrics(tmp_path / "own")
    assert rows["env_steps"][-1] >= 2000
    assert rows["best_fitness"].max() > 2 * rows["training_return"].mean()
    action, _ = Policy.load(tmp_path / "own").predict([0.0, 0.0, 0.0, 0.0])
    assert action in (0, 1)
    refused = typed("train", "Pendulum-v1", *words[2:], folder=EXAMPLES)
    assert refused.returncode == 2
    assert "RandomSearch needs discrete actions" in refused.stderr


def test_python_in_the_documents_parses_and_imports_what_exists() -> None:
    snippets = [(path, code) for path in DOCUMENTS for code in re.findall(r"(?s)```python\n(.*?)```", text(path))]
    assert snippets
    for path, code in snippets:
        for node in ast.walk(ast.parse(code, filename=str(path))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("workhorse"):
                module = __import__(node.module, fromlist=[alias.name for alias in node.names])
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{path.name}: {node.module}.{alias.name}"


@pytest.mark.parametrize(
    "page", ["tutorial/python.md", pytest.param("from-stable-baselines3.md", marks=pytest.mark.slow)]
)
@pytest.mark.filterwarnings("ignore:.*runs in this process:UserWarning")
def test_the_python_of_a_page_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"(?s)```python\n(.*?)```", text(ROOT / "docs" / page))
    exec(compile("\n".join(blocks), page, "exec"), {"__name__": "a_notebook"})
    assert {workhorse.Run.open(path).state for path in (tmp_path / "runs").iterdir()} <= {"finished", "stopped"}


def test_the_python_of_ask_and_tell_finds_what_it_says() -> None:
    blocks = re.findall(r"(?s)```python\n(.*?)```", text(ROOT / "docs" / "concepts" / "ask-and-tell.md"))
    names: dict = {}
    for block in blocks:
        exec(compile(block, "ask-and-tell.md", "exec"), names)
        centre = names["found"].mean if "found" in names else names["es"].mean(names["state"])
        assert abs(centre[1:] - 1).max() < 0.05


def test_the_names_for_users_of_stable_baselines3_are_ours() -> None:
    """Every name in the table of settings is an option, and the hint after the old name says the new one."""
    page = text(ROOT / "docs" / "from-stable-baselines3.md")
    table = page[page.index("## Names of settings\n") : page.index("## Names of settings of SAC")]
    options = registry.options("ppo") | registry.options("a2c")
    rows = re.findall(r"(?m)^\| `(\w+)`[^|]*\| `(\w+)` \| ([^|]*) \| ([^|]*) \|", table)
    assert len(rows) >= 10
    for theirs, ours, ppo, a2c in rows:
        assert ours in options
        assert ours == theirs or our_name(theirs) == ours
        for algorithm, cell in (("ppo", ppo), ("a2c", a2c)):
            default = registry.options(algorithm).get(ours)
            if default is not None and re.fullmatch(r"[\d.e-]+", here := cell.partition(", ")[2]):
                assert float(here) == default.default, (ours, algorithm)


def test_the_names_of_off_policy_settings_are_ours() -> None:
    """The same of SAC, TD3 and DQN; a column's second number is the default here."""
    page = text(ROOT / "docs" / "from-stable-baselines3.md")
    table = page[page.index("## Names of settings of SAC") : page.index("## What differs")]
    columns = [registry.options(name) for name in ("sac", "td3", "dqn")]
    rows = re.findall(r"(?m)^\| `(\w+)[^|]*\| `(\w+)[^|]*\| ([^|]*) \| ([^|]*) \| ([^|]*) \|", table)
    assert len(rows) >= 18
    checked = 0
    for theirs, ours, *cells in rows:
        assert any(ours in options for options in columns), ours
        there = {name for options in columns for name in options if ours in options}
        assert ours == theirs or our_name(theirs, there) == ours or theirs in ("policy_kwargs", "ent_coef"), theirs
        for options, cell in zip(columns, cells, strict=True):
            if re.fullmatch(r"[\d.e-]+", here := cell.partition(", ")[2]):
                assert float(here) == options[ours].default, (theirs, cell)
                checked += 1
    assert checked >= 25


def test_no_page_fetches_anything_from_elsewhere() -> None:
    configuration = text(ROOT / "mkdocs.yml")
    assert re.search(r"(?m)^  font: false", configuration)
    assert not re.search(r"extra_(javascript|css)", configuration)
    for path in DOCUMENTS:
        assert not re.search(r"!\[[^\]]*\]\(https?:|<(script|img|link)[^>]+https?:", text(path)), path.name
