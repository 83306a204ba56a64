"""Damaged and hostile run folders: a sentence and exit code 2, or a fallback that says so; nothing outside changes."""

import contextlib
import io
import os
import random
import re
import shutil
import signal
from pathlib import Path

import pytest

from workhorse.cli.main import main
from workhorse.runs.folder import RunFolder
from workhorse.runs.traffic import TrafficLog
from workhorse.runs.warnings import Warned, write_warnings
from workhorse.training.loop import Message

pytestmark = [
    pytest.mark.usefixtures("no_endless_wait"),
    pytest.mark.filterwarnings("ignore:os.fork"),  # the encoder is started by one; `workhorse video` imports no JAX
]

LIGHT = ["runs", "cost", "warnings", "report", "export"]
HEAVY = ["evaluate", "resume", "replay", "video"]


@pytest.fixture
def no_endless_wait():
    """A test that hangs is a failure, not an endless suite."""

    def fail(*_):
        raise AssertionError("the command hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def trained(root: Path, name: str, seed: int) -> Path:
    words = f"train CartPole-v1 --algorithm hill-climb --env-steps 400 --seed {seed} --id {name} --evaluate-every 100"
    assert said([*words.split(), "--runs", str(root), "--quiet"])[0] == 0
    folder = RunFolder.open(root / name)
    assert said(["evaluate", str(folder.path), "--episodes", "3"])[0] == 0
    write_warnings(folder, [Warned("a", 1, 100, "a sentence", "a remedy")])
    log = TrafficLog(folder.path, 0)
    log.append([Message(1, "w", "orders", 10, 20)])
    log.flush()
    return folder.path


@pytest.fixture(scope="module")
def originals(tmp_path_factory) -> tuple[Path, Path]:
    """Two runs of one task by one algorithm, for swapping."""
    root = tmp_path_factory.mktemp("runs")
    return trained(root, "victim", 0), trained(root, "other", 1)


def said(words: list[str]) -> tuple[int, str, str]:
    """Run a command; return its exit code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue()


def command(name: str, run: Path) -> list[str]:
    more = {
        "export": ["--to", "onnx", "--output", str(run.parent / "policy.onnx")],
        "evaluate": ["--episodes", "2", "--seed", "5"],
        "resume": ["--env-steps", "600", "--quiet"],
        "replay": ["--iteration", "2"],
        "video": ["--max-steps", "2"],
    }
    return ["runs", "--runs", str(run.parent)] if name == "runs" else [name, str(run), *more.get(name, [])]


def results(name: str, run: Path, out: str) -> str:
    """Return what a command found out, without what differs from call to call."""
    if name == "report":
        out = re.sub(r"(?s)<script.*?</script>", "", (run / "report.html").read_text()) if "report.html" in out else out
        return out
    return re.sub(r"\d+ s\b|\d+ min\b|wall time.*|core-hours.*|money.*", "", out)


def files(run: Path) -> list[Path]:
    """The files that the run keeps, of each kind those of one checkpoint."""
    newest = max((run / "checkpoints").iterdir(), key=lambda place: int(place.name)).name
    found = [place.relative_to(run) for place in sorted(run.rglob("*")) if place.is_file()]
    skipped = ("report", "run.log", "lock", "tensorboard", "milestones", "videos")
    return [
        place
        for place in found
        if not str(place).startswith(skipped) and not (place.parts[0] == "checkpoints" and place.parts[1] != newest)
    ]


def cut(place: Path, rng: random.Random, other: Path) -> None:
    place.write_bytes(place.read_bytes()[: rng.randrange(1, place.stat().st_size)])


def empty(place: Path, rng: random.Random, other: Path) -> None:
    place.write_bytes(b"")


def flip(place: Path, rng: random.Random, other: Path) -> None:
    content = bytearray(place.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    place.write_bytes(content)


def swap(place: Path, rng: random.Random, other: Path) -> None:
    shutil.copy(other, place)


def nest(place: Path, rng: random.Random, other: Path) -> None:
    place.write_text('{"a":' * 100_000 + "1" + "}" * 100_000)


def folder(place: Path, rng: random.Random, other: Path) -> None:
    place.unlink()
    place.mkdir()


def pipe(place: Path, rng: random.Random, other: Path) -> None:
    place.unlink()
    os.mkfifo(place)


def device(place: Path, rng: random.Random, other: Path) -> None:
    place.unlink()
    place.symlink_to("/dev/zero")


def gone(place: Path, rng: random.Random, other: Path) -> None:
    place.unlink()


DAMAGES = (cut, empty, flip, swap, nest, folder, pipe, device, gone)


def check(originals, tmp_path: Path, place: Path, damage, names: list[str], rng: random.Random) -> None:
    """Damage one file of a copy and run commands; each must give a sentence, or the result of the whole run."""
    victim, other = originals
    for name in names:
        shutil.rmtree(tmp_path, ignore_errors=True)
        tmp_path.mkdir()
        copy = shutil.copytree(victim, tmp_path / "victim")
        expected = results(name, copy, said(command(name, copy))[1])
        shutil.rmtree(copy)
        shutil.copytree(victim, copy)
        twin = other / place if (other / place).exists() else other / "status.json"
        damage(copy / place, rng, twin)
        code, out, err = said(command(name, copy))
        label = f"{name} after {damage.__name__} of {place}: {code} {out[:300]!r} {err[:1500]!r}"
        assert "Traceback" not in err and "panicked" not in err, label
        assert code in (0, 2), label
        if code == 2:
            assert err.splitlines()[-1].startswith(f"workhorse {name}: "), label  # after what was tried in vain
        elif results(name, copy, out) != expected:
            words = (
                place.name,
                "damaged",
                "estimated",
                "unknown",
                "unreadable",
                "No warning",
                "another run",
                "no policy",
            )
            assert any(word in out + err for word in words) or damage is gone, label


def test_a_sample_of_damages(originals, tmp_path):
    rng = random.Random(20)
    places = files(originals[0])
    for damage in DAMAGES:
        for place in rng.sample(places, 3):
            check(originals, tmp_path / "x", place, damage, rng.sample(LIGHT, 2), rng)


@pytest.mark.parametrize("place", ["ledger.json", "status.json", "policy/policy.json", "checkpoints", "manifest.json"])
def test_heavy_commands_on_some(originals, tmp_path, place):
    rng = random.Random(place)
    if place == "checkpoints":
        place = str(next(name for name in files(originals[0]) if name.name == "state.safetensors"))
    check(originals, tmp_path / "x", Path(place), rng.choice((flip, cut, swap)), ["evaluate", "resume"], rng)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_many_damages(originals, tmp_path, seed):
    rng = random.Random(seed)
    for place in files(originals[0]):
        check(originals, tmp_path / "x", place, rng.choice(DAMAGES), [*LIGHT, *HEAVY], rng)


# --- links out of the folder ---


def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    (place / "deep").mkdir(parents=True)
    for name in ("salaries.csv", "deep/thesis.json", "1.parquet", "state.safetensors"):
        (place / name).write_text("precious")
    return place


def snapshot(place: Path) -> dict[str, bytes]:
    return {str(one.relative_to(place)): one.read_bytes() for one in sorted(place.rglob("*")) if one.is_file()}


PARTS = (
    *("checkpoints", "milestones", "evaluations", "videos", "tensorboard", "policy", "report-data", "diagnostics"),
    *("traffic", "segments", "lock", "status.json", "ledger.json", "metrics.parquet", "warnings.json", "report.html"),
    *("run.log", "manifest.json", "policy/policy.json", "policy/policy.safetensors", "checkpoints/newest"),
    *("checkpoints/newest/meta.json", "checkpoints/newest/state.safetensors", "evaluations/new.json"),
)


def linked(run: Path, part: str, target: Path) -> None:
    newest = str(max(int(place.name) for place in (run / "checkpoints").iterdir()))
    place = run / part.replace("newest", newest)
    if place.is_dir():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.symlink_to(target)


@pytest.mark.parametrize("name", ["report", "cost", "export", "runs"])
def test_light_commands_touch_nothing_outside(originals, tmp_path, name):
    place = outside(tmp_path)
    before = snapshot(place)
    for part in PARTS:
        for target in (place, place / "salaries.csv", place / "new"):
            run = shutil.copytree(originals[0], tmp_path / "runs" / "victim")
            linked(run, part, target)
            code, _, err = said(command(name, run))
            assert code in (0, 2) and "Traceback" not in err, (part, target, err)
            assert snapshot(place) == before, (part, target)
            shutil.rmtree(run)


def test_a_report_takes_the_place_of_a_link_and_a_policy_is_not_read_through_one(originals, tmp_path):
    place = outside(tmp_path)
    before = snapshot(place)
    run = shutil.copytree(originals[0], tmp_path / "runs" / "victim")
    linked(run, "report-data", place)
    assert said(command("report", run))[0] == 0 and not (run / "report-data").is_symlink()
    assert list((run / "report-data").glob("*.csv")) and snapshot(place) == before
    shutil.move(run / "policy", tmp_path / "policy")  # whole, and the run's own
    (run / "policy").symlink_to(tmp_path / "policy")
    code, _, err = said(command("export", run))
    assert code == 2 and "got a link, and Workhorse follows no links in its folders" in err
    assert said(["export", str(tmp_path / "policy"), "--to", "onnx"])[0] == 0


@pytest.mark.parametrize("part", ["milestones", "lock", "report-data", "policy", "checkpoints/newest"])
def test_resume_touches_nothing_outside(originals, tmp_path, part):
    place = outside(tmp_path)
    before = snapshot(place)
    run = shutil.copytree(originals[0], tmp_path / "runs" / "victim")
    linked(run, part, place / "salaries.csv" if part == "lock" else place)
    metrics = (run / "metrics.parquet").read_bytes()
    code, _, err = said(command("resume", run))
    assert snapshot(place) == before
    if part in ("milestones", "lock"):
        assert (run / "metrics.parquet").read_bytes() == metrics, "refused before any work"
        assert code == 2 and "got a link, and Workhorse follows no links in its folders" in err
    else:
        assert code == 0, err
    if part == "policy":
        assert not (run / "policy").is_symlink() and (run / "policy" / "policy.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resume", "evaluate", "video", "replay"])
@pytest.mark.parametrize("part", PARTS)
def test_nothing_outside_is_touched(originals, tmp_path, name, part):
    place = outside(tmp_path)
    before = snapshot(place)
    for target in (place, place / "salaries.csv", place / "new"):
        run = shutil.copytree(originals[0], tmp_path / "runs" / "victim")
        linked(run, part, target)
        code, _, err = said(command(name, run))
        assert code in (0, 2) and "Traceback" not in err, (target, err)
        assert snapshot(place) == before, target
        shutil.rmtree(run)


# --- what is lost and not needed ---


def test_resume_without_its_policy_and_with_a_damaged_ledger(originals, tmp_path):
    run = shutil.copytree(originals[0], tmp_path / "runs" / "victim")
    (run / "policy" / "policy.json").unlink()
    (run / "ledger.json").write_text("{")
    code, out, err = said(["resume", str(run), "--env-steps", "500"])
    assert code == 0, err
    assert "ledger.json" in out + err and "it is estimated from the metrics" in out + err
    assert (run / "policy" / "policy.json").is_file()
    assert said(["cost", str(run)])[0] == 0 and said(["report", str(run)])[0] == 0


def test_an_evaluation_that_cannot_be_kept_is_printed(originals, tmp_path, monkeypatch):
    run = shutil.copytree(originals[0], tmp_path / "runs" / "victim")
    before = snapshot(run)

    def read_only(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "replace", read_only)
    code, out, err = said(["evaluate", str(run), "--episodes", "2", "--seed", "9"])
    assert code == 0 and re.search(r"return .* over 2 episodes", out), err
    assert "The evaluation is not kept in the run folder" in out and "read-only" in out
    assert snapshot(run) == before


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("report", "status.json"),
        ("cost", "ledger.json"),
        ("warnings", "metrics.parquet"),
        ("report", "evaluations"),
        ("evaluate", "checkpoints"),
        ("export", "policy"),
        ("resume", "manifest.json"),
    ],
)
def test_a_whole_file_of_another_run_is_noticed(originals, tmp_path, name, place):
    run = shutil.copytree(originals[0], tmp_path / "runs" / "victim")
    if (run / place).is_dir():
        shutil.rmtree(run / place)
        shutil.copytree(originals[1] / place, run / place)
    else:
        shutil.copy(originals[1] / place, run / place)
    code, out, err = said(command(name, run))
    assert code == (0 if name in ("report", "cost") else 2)
    assert re.search(r"another run|Expected a file of the run victim, begun .* got one of 'other, begun", out + err)


def test_sealing_works_on_policies_and_states(originals, tmp_path):
    run = shutil.copytree(originals[0], tmp_path / "runs" / "victim")
    policy = run / "policy" / "policy.json"
    policy.write_text(policy.read_text().replace('"task": "CartPole-v1"', '"task": "CartPole-v0"'))
    assert "does not have the checksum" in said(command("export", run))[2]
    assert said(["seal", str(run / "policy")])[1] == f"sealed {policy}\n"
    assert said(command("export", run))[0] == 0
    state = next((run / "checkpoints").glob("*/state.safetensors"))
    content = state.read_bytes()
    state.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert said(["seal", str(run)])[1] == f"sealed {state.with_name('meta.json')}\n"


def test_sealing_mends_no_damage(originals, tmp_path):
    run = shutil.copytree(originals[0], tmp_path / "runs" / "victim")
    file, status = run / "manifest.json", run / "status.json"
    status.write_text(status.read_text().replace("finished", "stopped"))
    before = status.read_bytes()
    for content, words in (("{", "cannot be read"), (file.read_text().replace('"seed": 0', '"seed": "x"'), "`seed`")):
        file.write_text(content)
        code, _, err = said(["seal", str(run)])
        assert code == 2 and words in err and status.read_bytes() == before
    shutil.copy(originals[0] / "manifest.json", file)
    metrics = run / "metrics.parquet"
    metrics.write_bytes(metrics.read_bytes()[:-10])
    assert "metrics.parquet" in said(["seal", str(run)])[2] and status.read_bytes() == before


def test_sealing_an_edit_on_purpose(originals, tmp_path):
    run = shutil.copytree(originals[0], tmp_path / "runs" / "victim")
    file = run / "manifest.json"
    file.write_text(file.read_text().replace('"seed": 0', '"seed": 1'))
    code, _, err = said(["resume", str(run)])
    assert code == 2 and "manifest.json" in err and "checksum" in err and "`workhorse seal`" in err
    assert said(["seal", str(run)]) == (0, f"sealed {file}\n", "")
    assert said(["seal", str(run)])[1] == f"Every file in {run} has its checksum; nothing was changed.\n"
    assert RunFolder.open(run).manifest().seed == 1
    for wrong, words in (
        (tmp_path, "found no manifest.json, study.json or policy.json"),
        (file, "Expected the folder"),
    ):
        assert words in said(["seal", str(wrong)])[2]
