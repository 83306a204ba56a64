"""Compiled programs on disk: kept where only this user can write, bounded, and never the reason for other bits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from workhorse.core import compilation
from workhorse.core.compilation import CACHE_VARIABLE, compiled_folder, prune

PROGRAM = """
import sys
{before}
from workhorse.core import numerics
import jax, jax.numpy as jnp
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("/cache_hits") else None)
value = jax.jit(lambda x: jnp.tanh(x @ x.T).sum() / 3)(jnp.arange(60.0).reshape(6, 10) / 100)
print(float(value).hex(), len(hits) > 0, jax.config.jax_compilation_cache_dir)
"""


def started(cache: Path | str, before: str = "", **surroundings: str) -> subprocess.Popen[str]:
    """Start the program in a new process with its own folder of compiled programs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(before=before)],
        env={**kept, CACHE_VARIABLE: str(cache), **surroundings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[str, bool, str]:
    """Return the value's bits, whether a program was found on disk, and JAX's folder. Nothing may be said meanwhile."""
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0 and errors == "", errors
    bits, found, folder = output.split()
    return bits, found == "True", folder


def answer(cache: Path | str, before: str = "", **surroundings: str) -> tuple[str, bool, str]:
    return ended(started(cache, before, **surroundings))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_the_folder_is_in_the_users_cache_and_only_the_user_can_look_into_it(home):
    folder = compiled_folder()
    assert folder is not None and folder.is_relative_to(home / "cache" / "workhorse" / "compiled")
    for part in (folder, folder.parent, folder.parents[1], folder.parents[2]):
        assert part.stat().st_mode & 0o777 == 0o700, part
    assert compiled_folder() == folder, "it is found again"


@pytest.mark.parametrize("word", ["off", "0", "OFF"])
def test_it_can_be_switched_off(home, monkeypatch, word):
    monkeypatch.setenv(CACHE_VARIABLE, word)
    assert compiled_folder() is None
    assert not list(home.iterdir())


def test_without_a_home_that_can_be_written_there_is_none(home, monkeypatch):
    (home / "file").write_text("")
    for place in ("/proc/none", str(home / "file" / "within")):
        monkeypatch.setenv(CACHE_VARIABLE, place)
        assert compiled_folder() is None
    monkeypatch.setenv(CACHE_VARIABLE, str(home / "here"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert compiled_folder() is None


@pytest.mark.parametrize("mode", [0o777, 0o720, 0o702])
@pytest.mark.parametrize("linked", [False, True])
def test_a_folder_that_others_can_write_to_is_not_used(home, mode, linked):
    folder = compiled_folder()
    assert folder is not None
    for part in (folder, folder.parent):
        place = part
        if linked:  # the folder itself lies elsewhere
            place = part.rename(home / part.name)
            part.symlink_to(place)
        place.chmod(mode)
        assert compiled_folder() is None, part
        place.chmod(0o700)
        assert compiled_folder() == folder


def test_a_folder_of_another_user_is_not_used(home, monkeypatch):
    assert compiled_folder() is not None
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    assert compiled_folder() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "new"))
    if os.getuid() != 0:  # what root owns is above every folder
        assert compiled_folder() is None
        assert not (home / "new").exists(), "no folder may be left in another user's home"


def test_the_folder_is_one_of_the_versions_the_processor_and_the_number_of_threads(home, monkeypatch):
    folders = [compiled_folder()]
    monkeypatch.setenv("PJRT_NPROC", "3")
    folders.append(compiled_folder())
    monkeypatch.setattr(compilation, "_processor", lambda: "another")
    folders.append(compiled_folder())
    monkeypatch.setattr(compilation.metadata, "version", lambda name: f"9.{len(name)}")
    folders.append(compiled_folder())
    assert None not in folders and len(set(folders)) == 4
    assert "9.3-9.6" in str(folders[-1])


def test_the_processor_is_told_by_its_instructions(monkeypatch):
    if sys.platform == "linux":
        assert "flags" in compilation._processor() or "Features" in compilation._processor()
        assert "MHz" not in compilation._processor(), "what changes from start to start is no part of it"


def test_the_programs_used_longest_ago_are_deleted(home):
    folder = compiled_folder()
    assert folder is not None
    other, strange = folder.parent / "jax-of-old", folder.parent / "strange"
    for place in (other, strange):
        place.mkdir()
    for age, place in enumerate([strange, folder, other, folder, other]):  # the first is the newest
        path = place / f"{age}-cache"
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 - age, 1e9 - age))

    def left():
        return sorted(int(path.name.partition("-")[0]) for path in folder.parent.glob("*/*-cache"))

    prune(folder, most_bytes=400)
    assert left() == [0, 1, 2, 3, 4]
    prune(folder, most_bytes=399)
    assert left() == [0, 1, 2, 3]
    prune(folder, most_programs=2)
    assert left() == [0, 1, 2]
    prune(folder, most_bytes=100)
    assert left() == [0, 1], "files of others stay"
    assert not other.exists() and strange.exists() and folder.exists()


def test_a_second_start_compiles_nothing_and_no_folder_changes_the_bits(tmp_path):
    bits, found, folder = answer("off")
    assert not found and folder == "None"
    both = [started(tmp_path / "kept") for _ in range(2)]  # at once, into an empty folder
    assert [ended(process)[0] for process in both] == [bits, bits]
    again, found, folder = answer(tmp_path / "kept")
    assert again == bits and found
    for path in Path(folder).iterdir():
        assert path.stat().st_size > 0 and path.name.endswith("-cache"), "an entry is all that lies there"


def test_damaged_programs_are_compiled_anew(tmp_path):
    bits, _, folder = answer(tmp_path / "kept")
    paths = sorted(Path(folder).iterdir())
    whole = {path: path.read_bytes() for path in paths}
    assert len(paths) > 2
    for path in paths:
        data = whole[path]
        path.write_bytes(bytes([*data[:-9], data[-9] ^ 4, *data[-8:]]))
    assert answer(tmp_path / "kept")[:2] == (bits, False)
    for number, path in enumerate(paths):
        path.unlink()
        if number % 3 == 0:
            path.mkdir()
        else:
            path.write_bytes(whole[path][: (number % 3 - 1) * len(whole[path]) // 2])
    assert answer(tmp_path / "kept")[:2] == (bits, False)


def test_a_folder_given_to_jax_stays_and_a_jax_that_computes_already_is_left_alone(tmp_path):
    given = answer(tmp_path / "kept", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "given"))[2]
    assert given == str(tmp_path / "given")
    computed = answer(tmp_path / "kept", before="import jax; jax.numpy.zeros(3)")[2]
    assert computed == "None", "it may compute with another number of threads, and other bits"
    imported = answer(tmp_path / "kept", before="import jax")[2]
    assert imported.startswith(str(tmp_path / "kept"))


TRAINING = """
import json, sys
from workhorse.runs import train
from workhorse.runs.metrics import read_metrics
algorithm, task, root, settings = sys.argv[1:]
folder, summary = train.start(
    task=task, algorithm=algorithm, settings=json.loads(settings), env_steps=64, root=root, id="run",
    task_options={"max_episode_steps": 20}, schedule=train.Schedule(32, evaluation_episodes=2, final_episodes=2),
)
print(*read_metrics(folder)["digest"], *map(float.hex, summary.episode_returns))
"""
SMALL = {
    "ppo": {"num_envs": 2, "rollout_steps": 16, "minibatch_size": 16, "hidden": [8]},
    "openai-es": {"num_pairs": 4},
}


@pytest.mark.parametrize(
    ("algorithm", "task"),
    [
        pytest.param("ppo", "CartPole-v1", marks=pytest.mark.slow),
        pytest.param("ppo", "Hopper-v5", marks=pytest.mark.slow),
        ("openai-es", "CartPole-v1"),
    ],
)
def test_a_run_has_the_same_bits_with_an_empty_a_full_and_no_cache(tmp_path, algorithm, task):
    found = []
    for number, cache in enumerate(["off", tmp_path / "kept", tmp_path / "kept"]):
        command = [sys.executable, "-c", TRAINING, algorithm, task, str(tmp_path / f"runs-{number}")]
        command.append(json.dumps(SMALL[algorithm]))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
        surroundings = {**kept, CACHE_VARIABLE: str(cache)}
        done = subprocess.run(command, env=surroundings, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout.split())
    assert len(found[0]) >= 3
    assert found[0] == found[1] == found[2]
