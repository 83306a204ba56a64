"""Laws of the source tree: who imports whom, what importing costs, what is pinned."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "workhorse"
HEAVY = ("jax", "mujoco", "gymnasium")
LIGHT_MODULES = (
    "workhorse",
    "workhorse.algorithms.registry",
    "workhorse.cli.main",
    "workhorse.core.addresses",
    "workhorse.core.errors",
    "workhorse.core.spec",
    "workhorse.environments.registry",
    "workhorse.runs.policy",
)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_light_modules_import_no_jax_and_no_simulator(module: str) -> None:
    answer = python(f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "[]"


def test_the_check_for_heavy_imports_can_fail() -> None:
    answer = python("import sys, workhorse.core.numerics; print('jax' in sys.modules)")
    assert answer.stdout.strip() == "True", answer.stderr


def test_the_import_contract_holds() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_every_layer_that_exists_is_named_in_the_contract() -> None:
    layers = " ".join(configuration()["tool"]["importlinter"]["contracts"][0]["layers"])
    named = set(re.findall(r"\w+", layers))
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} <= named


def test_contributing_shows_the_layers_of_the_contract() -> None:
    layers = configuration()["tool"]["importlinter"]["contracts"][0]["layers"]
    shown = re.findall(r"^    ([a-z |]+)$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    start = shown.index(layers[0])
    assert shown[start : start + len(layers)] == layers, "CONTRIBUTING.md should show:\n" + "\n".join(layers)
    table = re.findall(r"^\| (`.*?`) \| ", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert set(re.findall(r"\w+", " ".join(layers))) <= set(re.findall(r"`(\w+)`", " ".join(table)))


def test_every_import_of_jax_comes_with_our_set_up_of_it() -> None:
    """A module that imports JAX must import `core.numerics` too, itself or through a module of ours that does."""
    modules = {module_name(path): tree for path, tree in sources()}
    uses = {name: imported(tree) for name, tree in modules.items()}

    def reaches_numerics(name: str, seen: frozenset[str] = frozenset()) -> bool:
        package = name.rpartition(".")[0]  # importing a module imports its package first
        ours = {module for module in (*uses.get(name, ()), package) if module in modules} - seen
        return "workhorse.core.numerics" in ours or any(reaches_numerics(other, seen | ours) for other in ours)

    without = [
        name
        for name, names in uses.items()
        if name != "workhorse.core.numerics"
        and any(module.split(".")[0] in ("jax", "equinox", "optax") for module in names)
        and not reaches_numerics(name)
    ]
    assert without == []


def test_nothing_is_pickled() -> None:
    forbidden = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    found = [
        (str(path), name) for path, tree in sources() for name in imported(tree) if name.split(".")[0] in forbidden
    ]
    assert found == []


OPENERS = {
    "core/files.py",  # the one place that opens files of run, study and policy folders
    "advice/forecast.py",  # files of the package itself, these four
    "advice/labels.py",
    "advice/store.py",
    "advice/variants.py",
    "algorithms/recipes.py",  # files of the package itself
    "algorithms/registry.py",  # sources
    "core/compilation.py",  # the user's cache of compiled programs
    "core/machine.py",  # /proc
    "reports/page.py",  # scripts and styles of the package
    "runs/cost.py",  # price books, which no run folder brings
    "runs/metric_words.py",  # a file of the package
    "studies/pool.py",  # the log of a worker process
    "studies/study_file.py",  # a study file that the user names
    "cli/main.py",  # /dev/null
    "cli/video.py",  # /dev/null
    "environments/gymnasium_worker.py",  # /dev/null
    "environments/mujoco/contact_batch.py",  # libraries of MuJoCo
    "runs/folder.py",  # lists the folders in `runs`, which is nobody's run
}
"""Modules that open files by themselves, and which."""

OPENING = re.compile(
    r"\.(read|write)_(bytes|text)\(|(?<![\w.])(?<!def )open\(|\bos\.(open|replace|link|symlink)\(|\.open\((\"|'|mode)|"
    r"rmtree\(|\.unlink\(|\.(r?glob|iterdir)\(|(scan|sink|write)_parquet\((?!content)|pl\.read_\w+\((?!io\.)|load_file\(|save_file\("
)


def test_files_of_folders_are_opened_in_one_place() -> None:
    """Every other way to open them could be led out of the folder by a link."""
    found = {
        str(path.relative_to(PACKAGE))
        for path, _ in sources()
        for line in path.read_text().splitlines()
        if OPENING.search(line) and not line.strip().startswith((">>>", "#"))
    }
    assert found == OPENERS, "one more opens files, or an entry of the list is no longer needed"


def test_constraints_are_names_and_versions_and_nothing_else() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line


def test_every_dependency_is_pinned() -> None:
    project = configuration()["project"]
    named = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    pinned = {canonical(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert [name for name in named if canonical(name) not in pinned] == []


def test_what_is_installed_through_others_is_pinned_too() -> None:
    from importlib.metadata import PackageNotFoundError, requires

    from packaging.requirements import Requirement

    pinned = {canonical(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    missing = set()
    for name in pinned:
        try:
            needs = requires(name) or []
        except PackageNotFoundError:
            continue  # a pin for another extra or platform
        for need in map(Requirement, needs):
            applies = need.marker is None or need.marker.evaluate({"extra": ""})
            if applies and canonical(need.name) not in pinned:
                missing.add(need.name)
    assert missing <= {"setuptools"}


def test_the_version_is_said_once() -> None:
    import workhorse

    assert "version" in configuration()["project"]["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", workhorse.__version__)


# The numbers below are where a good redesign landed: readable beats short, so they are limits and no goals.


def test_class_names_are_unique() -> None:
    """One name a thing: a reader who searches for a class finds one."""
    places: dict[str, list[str]] = {}
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_functions_are_at_most_60_lines() -> None:
    long = [
        (str(path.relative_to(ROOT)), node.name, lines)
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (lines := (node.end_lineno or 0) - node.lineno + 1 - docstring_lines(node)) > 60
    ]
    assert long == []


def test_at_most_8_files_have_over_400_lines() -> None:
    long = [str(path.relative_to(ROOT)) for path, _ in sources() if path.read_text().count("\n") > 400]
    assert len(long) <= 8, long


@pytest.mark.parametrize(("folder", "most"), [("", 0.03), ("training", 0.05), ("diagnostics", 0.05)])
def test_few_parameters_are_typed_as_any(folder: str, most: float) -> None:
    hints = [
        argument.annotation
        for path, tree in sources()
        if path.is_relative_to(PACKAGE / folder)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        if argument.arg not in ("self", "cls")
    ]
    bare = sum(isinstance(hint, ast.Name) and hint.id == "Any" for hint in hints)
    assert bare <= most * len(hints), f"{bare} of {len(hints)}"


def docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """A function of many options needs a long docstring, which is not what makes it hard to read."""
    return 0 if ast.get_docstring(node) is None else (node.body[0].end_lineno or 0) - node.body[0].lineno + 1


def configuration() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def canonical(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()


def sources() -> list[tuple[Path, ast.Module]]:
    found = [(path, ast.parse(path.read_text())) for path in sorted(PACKAGE.rglob("*.py"))]
    assert len(found) > 10
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.Module) -> set[str]:
    """Every module an `import` or `from` names; `from a import b` gives a, and a.b where that is a module."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            if node.module.startswith("workhorse"):
                names |= {f"{node.module}.{alias.name}" for alias in node.names if is_module(node.module, alias.name)}
    return names


def is_module(package: str, name: str) -> bool:
    path = ROOT.joinpath(*package.split("."), name)
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def test_the_package_is_found_where_the_tests_expect_it() -> None:
    found = importlib.util.find_spec("workhorse")
    assert found and found.origin and Path(found.origin).parent == PACKAGE
