"""A run folder is made once, opened strictly, locked by one process, and listed fast."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from workhorse.core.errors import UsageError
from workhorse.core.files import write_file, writing
from workhorse.runs import folder as folder_module
from workhorse.runs.folder import RunFolder, list_runs
from workhorse.runs.manifest import Manifest


def run(root, id=None, task="HalfCheetah-v5", algorithm="ars", seed=3) -> RunFolder:
    folder = RunFolder.create(root, id, task=task, algorithm=algorithm, seed=seed)
    folder.write_manifest(manifest(folder, task, algorithm, seed))
    return folder


def manifest(folder, task="HalfCheetah-v5", algorithm="ars", seed=3) -> Manifest:
    return Manifest.describe(
        id=folder.id,
        command=["workhorse"],
        task=task,
        task_options={},
        algorithm=algorithm,
        settings={},
        seed=seed,
        env_steps=100,
        slots=1,
        threads=1,
    )


def test_an_id_says_what_the_run_is_and_is_unique(tmp_path):
    first, second = (RunFolder.create(tmp_path / "runs", task="HalfCheetah-v5", algorithm="ars", seed=3) for _ in "ab")
    assert re.fullmatch(r"HalfCheetah-v5-ars-s3-\d{8}-\d{6}", first.id)
    assert first.id != second.id and second.path.is_dir()
    assert {path.name for path in first.path.iterdir()} == {"checkpoints", "evaluations", "videos", "tensorboard"}
    assert os.fspath(first) == str(tmp_path / "runs" / first.id)


def test_a_taken_id_gets_a_suffix(tmp_path, monkeypatch):
    class Clock(folder_module.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 11, 21, 14, 25, 1, tzinfo=tz)

    monkeypatch.setattr(folder_module, "datetime", Clock)
    ids = [RunFolder.create(tmp_path, task="ALE/Pong-v5", algorithm="dqn", seed=0).id for _ in range(3)]
    stem = "ALE-Pong-v5-dqn-s0-20261121-142501"
    assert ids == [stem, f"{stem}-2", f"{stem}-3"]


def test_an_explicit_id_that_exists_offers_to_resume(tmp_path):
    assert run(tmp_path, "mine").id == "mine"
    with pytest.raises(UsageError, match=r"Expected a new run id, but .*/mine exists: resume that run, or choose"):
        run(tmp_path, "mine")
    assert (tmp_path / "mine" / "manifest.json").exists()


@pytest.mark.parametrize("id", ["", "../up", "a/b", ".hidden", "with space", "a\n"])
def test_an_id_is_a_folder_name(tmp_path, id):
    with pytest.raises(UsageError, match=r"Expected a run id of letters"):
        run(tmp_path / "runs", id)
    assert not (tmp_path / "runs").exists()


def test_a_name_too_long_is_said(tmp_path):
    with pytest.raises(UsageError, match=r"the name is too long for the file system"):
        run(tmp_path, "a" * 300)


def test_opening(tmp_path):
    made = run(tmp_path)
    opened = RunFolder.open(made.path)
    assert opened.id == made.id and opened.manifest() == made.manifest()
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    for path, message in [
        ("nothing", "Expected a run folder in .*/nothing, which does not exist. `workhorse runs` lists"),
        ("file", "Expected a run folder, got the file .*/file"),
        ("other", "Expected a run in .*/other, which has no manifest.json: it is no run"),
    ]:
        with pytest.raises(UsageError, match=message):
            RunFolder.open(tmp_path / path)
    file = made.path / "manifest.json"
    text = file.read_text()
    file.write_text(text[:50])
    with pytest.raises(UsageError, match=r"Expected a manifest in JSON in .*manifest.json, but it cannot be read"):
        RunFolder.open(made.path)
    file.write_text(text.replace('"format": 4', '"format": 7'))
    with pytest.raises(UsageError, match=r"Expected manifest format 4 in .*manifest.json, got 7"):
        RunFolder.open(made.path)


def test_root_that_is_a_file(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(UsageError, match=r"expected a folder there, found a file"):
        run(tmp_path / "runs")
    with pytest.raises(UsageError, match=r"Expected a folder of runs, got the file"):
        list_runs(tmp_path / "runs")


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.ENOSPC, "is full"), (errno.EROFS, "read-only"), (errno.EACCES, "permission denied")],
)
def test_a_disk_that_cannot_be_written(tmp_path, monkeypatch, number, message):
    def failing(*_, **__):
        raise OSError(number, os.strerror(number))

    made = run(tmp_path)
    for name in ("mkdir", "fsync", "open"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing)
            if name == "mkdir":
                attempts = [lambda: run(tmp_path / "new")]
            else:
                attempts = [
                    lambda: made.write_manifest(manifest(made)),
                    lambda: made.write_status("running", iteration=1, env_steps=1),
                ]
            if name == "open":
                attempts = [lambda: made.lock().__enter__()]
            for attempt in attempts:
                with pytest.raises(UsageError, match=message):
                    attempt()
    assert RunFolder.open(made.path).manifest().id == made.id


def test_a_folder_half_made_is_taken_back(tmp_path, monkeypatch):
    mkdir, calls = os.mkdir, []

    def failing(*arguments, **options):
        calls.append(arguments)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        mkdir(*arguments, **options)

    monkeypatch.setattr(os, "mkdir", failing)
    with pytest.raises(UsageError, match=r"is full"):
        run(tmp_path, "mine")
    assert os.listdir(tmp_path) == []


def test_other_errors_of_the_disk_pass_through():
    with pytest.raises(OSError, match=r"Too many") as raised, writing("x", "y"):
        raise OSError(errno.EMFILE, "Too many open files")
    assert not isinstance(raised.value, UsageError)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_file(tmp_path / "a", b"old")

    def failing(_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match=r"full"):
        write_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old" and os.listdir(tmp_path) == ["a"]


HOLD = """
    import os, sys, time
    from workhorse.runs.folder import RunFolder
    with RunFolder(sys.argv[1]).lock():
        if "fork" in sys.argv and os.fork() == 0:
            time.sleep(60)
        print(os.getpid(), flush=True)
        time.sleep(60)
"""


def hold(folder, *arguments):
    command = [sys.executable, "-c", textwrap.dedent(HOLD), str(folder.path), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert int(process.stdout.readline()) == process.pid
    return process


def test_two_processes_cannot_train_in_one_folder(tmp_path):
    made = run(tmp_path)
    process = hold(made)
    try:
        assert made.is_locked()
        message = f"Expected to be the only process training in .*, but process {process.pid} is: wait for it"
        with pytest.raises(UsageError, match=message), made.lock():
            pass
    finally:
        process.kill()
        process.communicate()
    assert not made.is_locked()
    with made.lock():  # a killed process's lock is no obstacle
        assert made.is_locked()
        with pytest.raises(UsageError, match=f"process {os.getpid()} is"), made.lock():
            pass
    assert not made.is_locked()


def test_locking_removes_what_killed_processes_were_writing(tmp_path):
    made = run(tmp_path)
    (made.path / ".tmp-7-policy").mkdir()
    (made.path / ".tmp-7-policy" / "policy.json").write_text("{")
    (made.path / ".tmp-7-status.json").write_text("{")
    (made.path / ".replaced-policy").mkdir()
    with made.lock():
        assert sorted(path.name for path in made.path.glob(".*")) == [".replaced-policy"]
    assert RunFolder.open(made.path).id == made.id


def test_workers_that_outlive_a_killed_process_do_not_keep_its_lock(tmp_path):
    made = run(tmp_path)
    process = hold(made, "fork")
    try:
        process.kill()
        process.wait()
        with made.lock():
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the group is this test's own: start_new_session
        process.communicate()


def test_a_lock_outlasts_a_glance_of_the_listing(tmp_path):
    import fcntl

    made = run(tmp_path)
    (made.path / "lock").write_text("")
    with open(made.path / "lock") as glance:
        fcntl.flock(glance, fcntl.LOCK_SH)
        code = f"import fcntl, time; f = open({str(made.path / 'lock')!r}); fcntl.flock(f, fcntl.LOCK_SH); "
        process = subprocess.Popen([sys.executable, "-c", code + "print(1, flush=True); time.sleep(0.15)"], stdout=-1)
        assert process.stdout is not None
        process.stdout.readline()
        fcntl.flock(glance, fcntl.LOCK_UN)
        with made.lock():
            process.communicate()


def test_listing(tmp_path):
    assert list_runs(tmp_path / "none") == []
    new, running, dead, done, bad = (run(tmp_path, name, seed=i) for i, name in enumerate("abcde"))
    running.write_status("running", iteration=4, env_steps=4000, last_return=12.5)
    dead.write_status("running", iteration=2, env_steps=2000, last_return=float("nan"))
    done.write_status("finished", iteration=9, env_steps=9000)
    (bad.path / "manifest.json").write_text("{")
    (tmp_path / "no-run").mkdir()
    (tmp_path / "file").write_text("")
    old = replace(manifest(new), created="2020-01-01T00:00:00+00:00")
    new.write_manifest(old)
    with running.lock():
        rows = {row.id: row for row in list_runs(tmp_path)}
        assert list_runs(tmp_path)[-1].id == "a"
    assert {id: row.status for id, row in rows.items()} == {
        "a": "new",
        "b": "running",
        "c": "interrupted",
        "d": "finished",
        "e": "unreadable",
    }
    row = rows["b"]
    assert (row.task, row.algorithm, row.seed, row.env_steps, row.last_return) == (
        "HalfCheetah-v5",
        "ars",
        1,
        4000,
        12.5,
    )
    assert rows["c"].last_return is None and rows["a"].env_steps is None and rows["e"].seed is None
    assert rows["a"].age_s > 1e8 and 0 <= rows["b"].age_s < 100


def test_a_damaged_status_does_not_hide_a_run(tmp_path):
    made = run(tmp_path)
    for content in ("{", '{"state": "x", "colour": 1}', "[]"):
        (made.path / "status.json").write_text(content)
        assert made.status() is None and list_runs(tmp_path)[0].status == "unknown"


def test_a_listing_reads_two_small_files_of_each_run(tmp_path):
    made = run(tmp_path, "first")
    made.write_status("finished", iteration=1, env_steps=1)
    for i in range(20):
        (tmp_path / str(i)).mkdir()
        for name in ("manifest.json", "status.json", "metrics.parquet"):
            (tmp_path / str(i) / name).write_bytes((made.path / name).read_bytes() if "json" in name else b"PAR1")
    opened: list[str] | None = []  # files, without the folders that they are looked up in

    def watch(event, details):
        if event == "open" and opened is not None and Path(str(details[0])).suffix:
            opened.append(Path(str(details[0])).name)

    sys.addaudithook(watch)  # a hook stays for ever, and does nothing once `opened` is None
    assert len(list_runs(tmp_path)) == 21
    names, opened = opened, None
    assert set(names) == {"manifest.json", "status.json"} and len(names) <= 3 * 21  # the manifest is looked for first


@pytest.mark.parametrize("module", ["policy", "folder", "manifest"])
def test_importing_imports_neither_jax_nor_a_simulator(module):
    heavy = ["jax", "mujoco", "gymnasium", "polars", "torch", "tensorboardX", "ray", "equinox"]
    code = f"import sys, workhorse.runs.{module}; print([name for name in {heavy} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_status_is_strict_json(tmp_path):
    made = run(tmp_path)
    made.write_status("running", iteration=1, env_steps=2, last_return=float("inf"))
    record = json.loads((made.path / "status.json").read_text(), parse_constant=pytest.fail)
    assert record["last_return"] is None and made.status() is not None


def test_no_source_of_this_package_can_load_code():
    import workhorse.runs

    for source in Path(workhorse.runs.__path__[0]).glob("*.py"):
        for word in (
            "pickle.",
            "import pickle",
            "cloudpickle",
            "joblib",
            "marshal",
            "eval(",
            "exec(",
            "np.load",
            "dill",
        ):
            assert word not in source.read_text(), (source.name, word)
