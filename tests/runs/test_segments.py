"""Append-only data of a run: what is new is written, what was written stays, and a run without it goes no further."""

import dataclasses
import itertools
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from workhorse.core.digest import digest
from workhorse.core.errors import UsageError
from workhorse.core.randomness import draw, root_key
from workhorse.runs import checkpoint, segments, train
from workhorse.runs import fork as fork_module
from workhorse.runs import history as history_module
from workhorse.runs.folder import RunFolder
from workhorse.runs.fork import fork
from workhorse.runs.history import opened
from workhorse.runs.metrics import read_metrics
from workhorse.runs.policy import Policy
from workhorse.training.loop import Evaluation, Loop, Progress, make_loop

KEPT = 50
"""Rows that the probe's log holds."""


class Log:
    """Rows 0, 1, 2, ... of which the newest `KEPT` are held; row n is (n, n squared)."""

    def __init__(self):
        self.begin, self.rows = 0, np.zeros((0, 2))

    def append(self, count):
        end = self.begin + len(self.rows)
        numbers = np.arange(end, end + count, dtype=float)
        self.rows = np.concatenate([self.rows, np.stack([numbers, numbers**2], -1)])[-KEPT:]
        self.begin = end + count - len(self.rows)

    def cursor(self, progress):
        end = int(progress.data["end"])
        return max(end - KEPT, 0), end

    def read(self, begin, end):
        return {"rows": self.rows[begin - self.begin : end - self.begin]}

    def restore(self, begin, parts):
        self.begin, self.rows = begin, np.concatenate([np.zeros((0, 2)), *(part["rows"] for part in parts)])


class GrowingLoop(Loop):
    """A loop whose every iteration appends rows and learns from the oldest one that is still held."""

    def __init__(self, algorithm, root):
        self.algorithm, self.num_slots, self.root, self.log = algorithm, 1, root, Log()

    def start(self):
        zero = np.zeros((), np.int64)
        return Progress(self.algorithm.init(draw(root_key(self.root), "init")), zero, zero, {"end": zero})

    def iterate(self, progress, goes_on=lambda env_steps: False):
        count = 3 + int(progress.iteration) % 4
        assert self.log.begin + len(self.log.rows) == int(progress.data["end"]), "the log is not the run's"
        self.log.append(count)
        oldest = self.log.rows[max(len(self.log.rows) - KEPT, 0), 1]
        state = progress.state._replace(params=progress.state.params + np.float32(oldest))
        after = Progress(state, progress.iteration + 1, progress.env_steps + 10, {"end": progress.data["end"] + count})
        return after, {"steps": 10, "oldest": float(oldest)}, ()

    def evaluate(self, progress, num_episodes):
        return Evaluation(np.zeros(num_episodes), np.ones(num_episodes, np.int32), ())

    def segments(self):
        return {"log": self.log}


def make(plan, spec, threads, manifest=None):
    return GrowingLoop(plan.make_algorithm(spec), plan.seed)


SCHEDULE = train.Schedule(final_episodes=1, checkpoint_every_s=0, milestones=4)


def begin(root, id, env_steps, observer=None):
    return train.start(
        task="CartPole-v1",
        algorithm="hill-climb",
        settings={},
        env_steps=env_steps,
        root=root,
        id=id,
        schedule=SCHEDULE,
        make=make,
        observer=observer,
    )[0]


def digests(folder):
    return read_metrics(folder)["digest"].to_list()


def files(folder):
    return {path.name: path.stat() for path in (folder.path / "segments" / "log").iterdir()}


def test_a_run_in_two_sittings_has_the_bits_of_one_and_rewrites_nothing(tmp_path):
    straight = begin(tmp_path, "straight", 400)
    halves = begin(tmp_path, "halves", 200)
    before = files(halves)
    train.resume(halves.path, env_steps=400, make=make)
    assert digests(halves) == digests(straight) and len(set(digests(straight))) > 20
    after = files(halves)
    for name in before.keys() & after.keys():
        assert (after[name].st_ino, after[name].st_mtime_ns) == (before[name].st_ino, before[name].st_mtime_ns)
    named = [name.removesuffix(".safetensors").split("-") for name in after]
    spans = sorted((int(begin), int(end)) for begin, end in named)
    assert all(one[1] == other[0] for one, other in itertools.pairwise(spans)), "no gap and no overlap"
    held = sum(3 + iteration % 4 for iteration in range(40))
    assert spans[-1][1] == held and spans[0][0] <= held - KEPT, "all that is needed"
    assert spans[0][0] >= held - KEPT - 2 * 12, "and hardly more: old rows are removed with the last checkpoint of them"


def test_a_checkpoint_writes_what_is_new(tmp_path):
    sizes = []

    class Watching(train.Observer):
        def iterated(self, row):
            place = tmp_path / "run" / "segments" / "log"
            sizes.append({path.name: path.stat().st_size for path in place.iterdir()} if place.exists() else {})

    begin(tmp_path, "run", 300, Watching())
    new = [set(after) - set(before) for before, after in itertools.pairwise(sizes[1:])]
    assert all(len(names) == 1 for names in new), "one file a checkpoint"
    bytes_written = [sizes[number + 2][next(iter(names))] for number, names in enumerate(new)]
    assert max(bytes_written) < 300, "six rows of two numbers and a header, however long the log"


@pytest.fixture
def made_of_growing_loops(monkeypatch):
    monkeypatch.setattr(history_module, "make_run_loop", make)
    monkeypatch.setattr(train, "make_run_loop", make)
    monkeypatch.setattr(fork_module, "make_loop", make)


def test_states_are_computed_again_from_the_start_or_from_a_checkpoint(tmp_path, made_of_growing_loops):
    folder = begin(tmp_path, "run", 200)
    expected = digests(folder)
    milestones = checkpoint.saved_iterations(folder, "milestones")
    for iteration in milestones:
        assert "segments" not in checkpoint.saved_meta(folder, iteration, "milestones")
    with opened(folder.path) as history:
        iterations = []
        iterate = history.loop.iterate
        history.loop.iterate = lambda progress: iterations.append(int(progress.iteration)) or iterate(progress)
        assert int(history.at(milestones[1]).iteration) == milestones[1]
        assert not iterations, "a milestone can be looked at"
        state = history.at(milestones[1] + 1).state
        assert f"{digest(state):016x}" == expected[milestones[1]]
        assert iterations == list(range(milestones[1] + 1)), "but not gone on from: the log was empty at the start"
        iterations.clear()
        assert checkpoint.saved_iterations(folder) == [19, 20]
        history.once_more(history.to_go_on_from(19))
        assert iterations == [19], "a checkpoint has the log"
        iterations.clear()
        history.to_go_on_from(3)
        assert iterations == [0, 1, 2], "an emptied log, not the one of iteration 20"
        newest = max((folder.path / "segments" / "log").iterdir(), key=lambda path: int(path.name.split("-")[0]))
        newest.write_bytes(newest.read_bytes()[:-1])
        iterations.clear()
        assert int(history.to_go_on_from(20).iteration) == 20
        assert iterations == [19], "from the older checkpoint, where the newest one is damaged"


def test_a_fork_has_a_copy_of_the_log_and_goes_on_with_it(tmp_path, made_of_growing_loops):
    folder = begin(tmp_path, "run", 200)
    made = fork(folder.path, 12, {"noise_std": 0.2}, range(1), tmp_path / "forks")
    shutil.rmtree(folder.path / "segments")
    straight = digests(folder)
    for forked in (made.unchanged[0], made.changed[0]):
        train.resume(forked.path, make=make)
        assert digests(forked) == straight[12:], "the probe's iterations draw nothing, so that its seed changes nothing"
    with opened(made.unchanged[0].path) as history:
        assert f"{digest(history.at(15).state):016x}" == straight[14]
        shutil.rmtree(made.unchanged[0].path / "checkpoints/12")
        assert f"{digest(history.at(15).state):016x}" == straight[14], "its first milestone has the log too"
        shutil.rmtree(made.unchanged[0].path / "segments")
        assert int(history.at(12).iteration) == 12
        with pytest.raises(UsageError, match=r"begins at iteration 13, as a fork does, .* no whole state with its log"):
            history.at(15)


def test_many_new_rows_go_into_several_files(tmp_path, monkeypatch):
    expected = digests(begin(tmp_path, "straight", 200))
    monkeypatch.setattr(segments, "PART_BYTES", 40)  # two rows of two numbers
    folder = begin(tmp_path, "run", 100)
    spans = [list(map(int, path.name.split(".")[0].split("-"))) for path in (folder.path / "segments/log").iterdir()]
    assert max(end - begin for begin, end in spans) == 2
    monkeypatch.undo()
    train.resume(folder.path, env_steps=200, make=make)
    assert digests(folder) == expected


def test_an_evaluation_needs_no_segments(tmp_path, monkeypatch):
    folder = begin(tmp_path, "run", 100)
    shutil.rmtree(folder.path / "segments")
    monkeypatch.setattr(train, "make_run_loop", make)
    assert len(train.evaluate_run(folder.path, episodes=3)[1].returns) == 3


@pytest.mark.parametrize("harm", ["missing", "flipped", "short", "swapped"])
def test_a_damaged_segment_makes_its_checkpoint_damaged(tmp_path, harm):
    folder = begin(tmp_path, "run", 200)
    straight = begin(tmp_path, "straight", 300)
    place = folder.path / "segments" / "log"
    newest = max(place.iterdir(), key=lambda path: int(path.name.split("-")[0]))
    content = newest.read_bytes()
    match harm:
        case "missing":
            newest.unlink()
        case "flipped":
            newest.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
        case "short":
            newest.write_bytes(content[:-8])
        case "swapped":
            other = min(place.iterdir(), key=lambda path: int(path.name.split("-")[0]))
            newest.write_bytes(other.read_bytes())
    noted = []

    class Noting(train.Observer):
        def noted(self, sentence):
            noted.append(sentence)

    train.resume(folder.path, env_steps=300, make=make, observer=Noting())
    assert any("is damaged" in sentence and newest.name in sentence for sentence in noted)
    assert digests(folder) == digests(straight), "from the checkpoint before"


def test_a_run_whose_log_is_gone_refuses_to_go_on(tmp_path):
    folder = begin(tmp_path, "run", 100)
    shutil.rmtree(folder.path / "segments")
    with pytest.raises(UsageError, match=r"Expected a whole checkpoint .*safetensors is missing"):
        train.resume(folder.path, env_steps=200, make=make)


def test_rows_of_a_future_that_was_given_up_are_not_gone_on_with(tmp_path):
    """A crash between the rows and the checkpoint that names them leaves a file; the next save removes it."""
    folder = begin(tmp_path, "run", 100)
    place = folder.path / "segments" / "log"
    (place / "9000-9010.safetensors").write_bytes(b"left by a crash")
    train.resume(folder.path, env_steps=200, make=make)
    assert "9000-9010.safetensors" not in {path.name for path in place.iterdir()}
    assert digests(folder) == digests(begin(tmp_path, "straight", 200))


def test_the_least_time_between_checkpoints_is_the_loops_to_say(tmp_path):
    class Seldom(GrowingLoop):
        checkpoint_every_s = 3600.0

    saved = []

    class Watching(train.Observer):
        def iterated(self, row):
            saved.append(checkpoint.saved_iterations(tmp_path / "run"))

    train.start(
        task="CartPole-v1", algorithm="hill-climb", settings={}, env_steps=100, root=tmp_path, id="run",
        schedule=SCHEDULE, make=lambda plan, spec, threads: Seldom(plan.make_algorithm(spec), 0), observer=Watching(),
    )  # fmt: skip
    assert saved[-1] == [0] and checkpoint.saved_iterations(tmp_path / "run") == [0, 10]


# --- folders written before this layout ---

OLD = Path(__file__).with_name("old_runs")


@pytest.fixture(params=["openai-es", "ppo"])
def old(request, tmp_path):
    """A run of format 1, stopped half way, beside the digests and the policy that the code of then went on to."""
    shutil.copytree(OLD / request.param, tmp_path / request.param)
    expected = (OLD / f"{request.param}.digests").read_text().split()
    return RunFolder.open(tmp_path / request.param), expected, OLD / f"{request.param}.after"


def test_a_run_of_the_old_layout_is_read_to_the_same_bits(old):
    folder, expected, _ = old
    manifest = folder.manifest()
    assert manifest.settings["hidden"] and manifest.slots == (2 if manifest.algorithm == "openai-es" else 3)
    rows = read_metrics(folder)
    assert "training_return" in rows.columns and not [name for name in rows.columns if "population" in name]
    assert rows["digest"].to_list() == expected[: len(rows)]
    with opened(folder.path) as history:
        for iteration in checkpoint.saved_iterations(folder, "milestones"):
            state = history.kept(iteration).state
            assert iteration == 0 or f"{digest(state):016x}" == expected[iteration - 1]
    found, _, interval = train.evaluate_run(folder.path, episodes=2)
    assert found.path == folder.path and np.isfinite(interval.value)


def test_a_run_of_the_old_layout_goes_on_as_it_did_then(old):
    """To the same numbers: other bits are what another kind of processor may have. A resume between changes none."""
    folder, expected, after = old
    twice = RunFolder.open(shutil.copytree(folder.path, folder.path.with_name("twice")))
    train.resume(folder.path, env_steps=160)
    found = digests(folder)
    assert len(found) == len(expected)
    np.testing.assert_allclose(weights(folder.path / "policy"), weights(after), rtol=1e-5, atol=1e-6)
    train.resume(twice.path, env_steps=120)
    train.resume(twice.path, env_steps=160)
    assert digests(twice) == found
    assert folder.manifest().env_steps == 80, "the manifest says how the run began"


def weights(folder):
    """Every number of a policy's layers."""
    arrays = [leaf for leaf in jax.tree.leaves(Policy.load(folder).layers) if isinstance(leaf, np.ndarray)]
    return np.concatenate([array.ravel() for array in arrays])


def test_the_leaves_of_an_old_state_have_new_names(old):
    folder, _, _ = old
    plan = train.plan_of(folder.manifest())
    loop = make_loop(plan, plan.spec(), 1)
    progress, _ = checkpoint.load(folder, 0, loop.start())
    loop.close()
    assert int(progress.iteration) == 0 and jax.tree.leaves(progress.state)
    assert progress.data == () if plan.algorithm == "openai-es" else progress.data.slots.obs.shape == (3, 4)


def test_going_on_upon_another_kind_of_processor_is_said(tmp_path, monkeypatch):
    folder = begin(tmp_path, "run", 100)
    noted = []

    class Noting(train.Observer):
        def noted(self, sentence):
            noted.append(sentence)

    train.resume(folder.path, env_steps=200, make=make, observer=Noting())
    assert not noted
    here = train.describe_hardware()
    known = here.instruction_sets
    for there, apart in (((*known, "new"), ["new"]), ((), sorted(known))):  # more than the run began with, and fewer
        other = dataclasses.replace(here, instruction_sets=there)
        monkeypatch.setattr(train, "describe_hardware", lambda other=other: other)
        train.resume(folder.path, env_steps=300, make=make, observer=Noting())
        assert f"another kind of processor ({', '.join(apart)} on one side only)" in noted.pop() and not noted
