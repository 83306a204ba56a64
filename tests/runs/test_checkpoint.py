"""A checkpoint is there whole or not at all; damage is seen and passed over."""

import errno
import json
import os
import re
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from workhorse.core.digest import digest, flatten_arrays
from workhorse.core.errors import UsageError
from workhorse.runs import checkpoint
from workhorse.runs.checkpoint import load_newest, save, saved_iterations


def state(iteration: int):
    noise = np.random.default_rng(iteration)
    return {
        "learner": {"mean": jnp.asarray(noise.normal(size=(5, 3)), jnp.float32), "steps": iteration},
        "key": jax.random.key(iteration),
        "rows": noise.normal(size=40),
    }


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_saved_state_comes_back_bit_for_bit(tmp_path):
    tree, meta = state(7), {"env_steps": 10**12, "rate": 0.1 + 0.2, "names": ["a"], "none": None}
    target = save(tmp_path, 7, tree, meta)
    assert target == tmp_path / "checkpoints" / "7"
    iteration, back, read, notes = load_newest(tmp_path, state(0))
    assert (iteration, read, notes) == (7, meta, [])
    assert digest(back) == digest(tree) and back["learner"]["steps"] == 7


def test_the_files_are_readable_elsewhere(tmp_path):
    tree = state(1)
    target = save(tmp_path, 1, tree, {})
    assert sorted(path.name for path in target.iterdir()) == ["meta.json", "state.safetensors"]
    arrays = safetensors.numpy.load_file(target / "state.safetensors")
    for name, array in flatten_arrays(tree).items():
        assert arrays[name].tobytes() == array.tobytes() and arrays[name].shape == array.shape
    record = json.loads((target / "meta.json").read_text())
    assert record["digest"] == f"{digest(tree):016x}"


def test_every_dtype_and_shape_survives(tmp_path):
    kinds = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
    kinds += ["float16", "float32", "float64", "complex64"]
    tree = {kind: np.arange(6).reshape(2, 3).astype(kind).T for kind in kinds}
    tree |= {"scalar": np.array(3.0), "none": np.zeros((0, 2)), "nan": np.array([np.nan, -0.0, np.inf])}
    save(tmp_path, 0, tree, {})
    assert digest(load_newest(tmp_path, tree)[1]) == digest(tree)


def test_the_newest_two_are_kept_by_number(tmp_path):
    for iteration in (8, 9, 10, 11):
        save(tmp_path, iteration, state(iteration), {})
    assert saved_iterations(tmp_path) == [10, 11]
    assert load_newest(tmp_path, state(0))[0] == 11


def test_leftovers_of_a_crash_are_removed(tmp_path):
    save(tmp_path, 1, state(1), {})
    for leftover in (".tmp-99-2", f".tmp-{os.getpid()}-3", ".removed-1-1", ".damaged-0"):
        (tmp_path / "checkpoints" / leftover).mkdir()
        (tmp_path / "checkpoints" / leftover / "state.safetensors").write_bytes(b"half")
    assert load_newest(tmp_path, state(0))[0] == 1
    save(tmp_path, 3, state(3), {})
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["1", "3"]


def test_saving_an_iteration_again_replaces_it(tmp_path):
    save(tmp_path, 4, state(4), {"try": 1})
    save(tmp_path, 4, state(5), {"try": 2})
    _, tree, meta, _ = load_newest(tmp_path, state(0))
    assert meta == {"try": 2} and digest(tree) == digest(state(5))
    assert os.listdir(tmp_path / "checkpoints") == ["4"]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-9])


def empty(path):
    path.write_bytes(b"")


def flip_last(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def flip_first(path):
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(bytes(content))


DAMAGES = [truncate, empty, flip_last, flip_first, os.remove]


@pytest.mark.parametrize("name", ["state.safetensors", "meta.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_with_a_note(tmp_path, name, damage):
    for iteration in (1, 2):
        save(tmp_path, iteration, state(iteration), {"i": iteration})
    damage(tmp_path / "checkpoints" / "2" / name)
    iteration, tree, meta, notes = load_newest(tmp_path, state(0))
    assert iteration == 1 and meta == {"i": 1} and digest(tree) == digest(state(1))
    assert len(notes) == 1
    assert re.search(
        rf"The checkpoint of iteration 2 in .* is damaged \({name}.*so the one of iteration 1 is used\.", notes[0]
    )


def test_any_flipped_bit_is_seen(tmp_path):
    save(tmp_path, 1, {"a": np.arange(4.0)}, {"env_steps": 1000})
    place = tmp_path / "checkpoints" / "1"
    pristine = {path: path.read_bytes() for path in place.iterdir()}
    for path, content in pristine.items():
        for byte in range(0, len(content), 5):
            flipped = bytearray(content)
            flipped[byte] ^= 4
            path.write_bytes(bytes(flipped))
            try:
                _, tree, meta, _ = load_newest(tmp_path, {"a": np.zeros(4)})
            except UsageError:
                assert saved_iterations(tmp_path) == [1]
            else:  # white space between JSON tokens carries nothing
                assert meta == {"env_steps": 1000} and digest(tree) == digest({"a": np.arange(4.0)})
                assert path.name == "meta.json" and chr(content[byte]).isspace()
            path.write_bytes(content)


def test_a_damaged_checkpoint_does_not_count_among_the_kept(tmp_path):
    for iteration in (10, 20):
        save(tmp_path, iteration, state(iteration), {})
    truncate(tmp_path / "checkpoints" / "20" / "state.safetensors")
    assert load_newest(tmp_path, state(0), set_aside=False)[0] == 10
    assert saved_iterations(tmp_path) == [10, 20]
    assert load_newest(tmp_path, state(0))[0] == 10
    assert saved_iterations(tmp_path) == [10]
    save(tmp_path, 15, state(15), {})
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["10", "15"]


def test_a_future_that_was_given_up_is_removed(tmp_path):
    for iteration in (10, 20):
        save(tmp_path, iteration, state(iteration), {})
    save(tmp_path, 15, state(15), {})
    assert saved_iterations(tmp_path) == [10, 15]


def test_no_whole_checkpoint_is_an_error_that_lists_them(tmp_path):
    for iteration in (1, 2):
        save(tmp_path, iteration, state(iteration), {})
    truncate(tmp_path / "checkpoints" / "1" / "state.safetensors")
    os.remove(tmp_path / "checkpoints" / "2" / "meta.json")
    with pytest.raises(
        UsageError, match=r"all are damaged \(iteration 2: meta.json is missing; iteration 1: state.saf"
    ):
        load_newest(tmp_path, state(0))


def test_no_checkpoint_is_an_error(tmp_path):
    with pytest.raises(UsageError, match=r"Expected a checkpoint in .*checkpoints, found none.*Start a new run"):
        load_newest(tmp_path, state(0))


def test_another_format_is_an_error_and_not_damage(tmp_path, monkeypatch):
    save(tmp_path, 1, state(1), {})
    monkeypatch.setattr(checkpoint, "FORMAT", 9)
    with pytest.raises(UsageError, match=r"Expected checkpoint format 9 in .*, got 2: another version"):
        load_newest(tmp_path, state(0))


def test_another_structure_is_an_error_that_names_the_leaf(tmp_path):
    save(tmp_path, 1, {"mean": np.zeros(3)}, {})
    with pytest.raises(UsageError, match=r"Expected 'mean' in .*checkpoints/1 to be float64 of shape \(4,\), got"):
        load_newest(tmp_path, {"mean": np.zeros(4)})
    assert saved_iterations(tmp_path) == [1]


@pytest.mark.parametrize("meta", [{"a": float("nan")}, {"a": np.float32(1)}, {"a": object()}, {1: 0, "b": 0}])
def test_meta_that_json_cannot_hold_is_refused_before_anything_is_written(tmp_path, meta):
    with pytest.raises((TypeError, ValueError)):
        save(tmp_path, 1, state(1), meta)
    assert files(tmp_path) == []


def test_unstorable_dtype_is_refused_by_name(tmp_path):
    with pytest.raises(TypeError, match=r"Cannot store 'a': its dtype complex128"):
        save(tmp_path, 1, {"a": np.zeros(2, np.complex128)}, {})
    assert os.listdir(tmp_path / "checkpoints") == []
    with pytest.raises(ValueError, match=r"at least 0, got -1"):
        save(tmp_path, -1, state(1), {})


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "Could not write the checkpoint of iteration 2 to .*checkpoints: the disk .*is full. Free some"),
        (errno.EDQUOT, "the disk .*is full"),
        (errno.EROFS, "the file system is read-only. Choose a folder on a writable one"),
        (errno.EACCES, "permission denied. Choose a folder you may write to"),
    ],
)
@pytest.mark.parametrize("call", range(4))
def test_a_failing_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch, number, message, call):
    save(tmp_path, 1, state(1), {})
    before, calls, fsync = files(tmp_path), [], os.fsync

    def failing(descriptor):
        calls.append(descriptor)
        if len(calls) > call:
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(UsageError, match=message):
        save(tmp_path, 2, state(2), {})
    monkeypatch.undo()
    assert files(tmp_path) == before
    assert load_newest(tmp_path, state(0))[0] == 1


def test_a_broken_disk_keeps_its_traceback(tmp_path, monkeypatch):
    def failing(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match=r"Input/output") as raised:
        save(tmp_path, 2, state(2), {})
    assert not isinstance(raised.value, UsageError)


def test_a_lost_run_folder_or_a_file_in_the_way_is_said(tmp_path):
    with pytest.raises(UsageError, match=r"the folder is gone"):
        save(tmp_path / "gone", 1, state(1), {})
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(UsageError, match=r"expected a folder there, found a file"):
        save(tmp_path, 1, state(1), {})


KILLS = """
    import os, random, signal, sys, time
    import numpy as np
    from workhorse.runs import checkpoint

    folder, rounds = sys.argv[1], int(sys.argv[2])

    def state(i):
        return {"big": np.random.default_rng(i).normal(size=40_000), "i": i}

    def child(start, pipe):
        i = start
        while True:
            i += random.Random(i).choice([0, 1, 1, 3])     # sometimes the same iteration again
            checkpoint.save(folder, i, state(i), {"i": i})
            os.write(pipe, f"{i}\\n".encode())

    checkpoint.save(folder, 0, state(0), {"i": 0})
    newest, dice, acknowledged = 0, random.Random(5), 0
    for _ in range(rounds):
        read, write = os.pipe()
        process = os.fork()
        if process == 0:
            child(newest, write)
        os.close(write)
        said = os.fdopen(read)
        promised = [int(said.readline()) for _ in range(dice.randrange(5))]     # however slow the machine is just now
        time.sleep(dice.uniform(0.0, 0.05))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        promised += [int(line) for line in said.read().split()]
        acknowledged += len(promised)
        iteration, tree, meta, notes = checkpoint.load_newest(folder, state(0))
        assert iteration >= max(promised, default=newest), (iteration, promised, newest)
        assert np.array_equal(tree["big"], state(iteration)["big"]) and tree["i"] == meta["i"] == iteration
        assert notes == [], notes
        newest = iteration
    print(acknowledged)
"""

CRASHES = """
    import os, sys
    import numpy as np
    from workhorse.core import files
    from workhorse.runs import checkpoint, tensors

    import builtins, shutil

    folder = sys.argv[1]
    os.fsync = lambda descriptor: None      # a killed process does not lose the kernel's pages, and this is faster

    def state(i):
        return {"a": np.full(1000, float(i))}

    def crash_at(call):
        count = 0
        def counted(function):
            def wrapper(*arguments, **options):
                nonlocal count
                count += 1
                if count == call:
                    os._exit(9)
                result = function(*arguments, **options)
                count += 1
                if count == call:
                    os._exit(9)
                return result
            return wrapper
        for name in ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir"):
            setattr(os, name, counted(getattr(os, name)))
        builtins.open = counted(builtins.open)

    survived, outcomes = 0, set()
    for again in (False, True):         # a new iteration, and one that replaces a checkpoint of the same number
        for call in range(1, 200):
            shutil.rmtree(folder, ignore_errors=True)
            os.mkdir(folder)
            checkpoint.save(folder, 1, state(1), {})
            if again:                   # the only checkpoint is the one being replaced
                second = 1
            else:
                checkpoint.save(folder, 2, state(2), {})
                second = 3
            process = os.fork()
            if process == 0:
                crash_at(call)
                checkpoint.save(folder, second, state(100), {})
                os._exit(0)
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            iteration, tree, _, notes = checkpoint.load_newest(folder, state(0))
            value = tree["a"][0]
            assert notes == [] and (tree["a"] == value).all()
            assert (iteration, value) in ([(1, 1), (1, 100)] if again else [(2, 2), (3, 100)]), (call, iteration, value)
            outcomes.add((again, value))
            checkpoint.save(folder, 7, state(7), {})     # and the run can go on
            assert checkpoint.load_newest(folder, state(0))[0] == 7
            assert all(name.isdigit() or name == ".replaced-1" for name in os.listdir(folder + "/checkpoints"))
            if code == 0:
                break
            survived += 1
        assert code == 0
    assert len(outcomes) == 4, outcomes
    print(survived)
"""


def run_script(script: str, *arguments: str) -> str:
    """In a process of its own, because forking this one, whose JAX has threads, is not safe."""
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script), *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_kill_9_at_random_moments_leaves_a_whole_checkpoint(tmp_path):
    assert int(run_script(KILLS, str(tmp_path), "20")) > 20


def test_a_crash_before_or_after_any_call_to_the_system_leaves_a_whole_checkpoint(tmp_path):
    assert int(run_script(CRASHES, str(tmp_path / "run"))) > 30
