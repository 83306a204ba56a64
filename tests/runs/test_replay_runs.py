"""Runs with a replay: they go on from disk to the same bits, or say why they do not."""

import itertools
import shutil

import numpy as np
import pytest

from workhorse.cli.main import main
from workhorse.core.digest import digest
from workhorse.core.errors import UsageError
from workhorse.runs import checkpoint, train
from workhorse.runs.budget import budget_notes, check_warmup
from workhorse.runs.fork import fork
from workhorse.runs.history import bisect, opened
from workhorse.runs.metrics import read_metrics
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan
from workhorse.training.rollouts import HostCollector

SMALL = {
    "num_envs": 2, "hidden": (8,), "rollout_steps": 16, "learn_every": 8, "batch_size": 8, "warmup_env_steps": 48,
    "replay_capacity": 120, "replay_ratio": 4.0,
}  # fmt: skip
RUNS = {
    "dqn": ("CartPole-v1", {**SMALL, "anneal_env_steps": 640, "n_steps": 2, "prioritised": True}),
    "sac": ("Hopper-v5", {**SMALL, "normalise_observations": True}),
}
"""Pure and prioritised; on a host, with running moments. The ring wraps after four iterations of 32 steps."""
ITERATIONS = 12
SCHEDULE = train.Schedule(final_episodes=2, checkpoint_every_s=0, milestones=3)


def begin(root, id, algorithm, iterations=ITERATIONS, observer=None, **changed):
    task, settings = RUNS[algorithm]
    return train.start(
        task=task, algorithm=algorithm, settings={**settings, **changed}, env_steps=32 * iterations, seed=3, threads=1,
        schedule=SCHEDULE, root=root, id=id, observer=observer,
    )[0]  # fmt: skip


def digests(folder):
    return read_metrics(folder)["digest"].to_list()


@pytest.fixture(scope="module", params=list(RUNS))
def straight(request, tmp_path_factory):
    """A run that was left alone, and its algorithm."""
    return begin(tmp_path_factory.mktemp("runs"), "straight", request.param), request.param


@pytest.fixture(scope="module")
def prioritised_run(tmp_path_factory):
    return begin(tmp_path_factory.mktemp("runs"), "dqn", "dqn")


class Noting(train.Observer):
    def __init__(self):
        self.said = []

    def noted(self, sentence):
        self.said.append(sentence)


def test_a_run_in_three_sittings_has_the_bits_of_one(straight, tmp_path):
    """The first resume is within the warm-up, which is not begun again; at the second one the ring has wrapped."""
    whole, algorithm = straight
    folder = begin(tmp_path, "parts", algorithm, 2)
    assert read_metrics(folder)["updates"].to_list()[0] == 0 < read_metrics(folder)["updates"].to_list()[1]
    for iterations in (6, ITERATIONS):
        train.resume(folder.path, env_steps=32 * iterations, threads=1)
    assert digests(folder) == digests(whole) and len(set(digests(whole))) == ITERATIONS
    columns = ["updates", "replay_rows", "value", "critic_loss", "env_steps"]
    for name in columns:
        assert read_metrics(folder)[name].to_list() == read_metrics(whole)[name].to_list(), name
    updates = read_metrics(whole)["updates"].to_list()
    assert updates == [max(32 * number - 48, 0) // 2 for number in range(1, ITERATIONS + 1)]


def test_ctrl_c_in_the_middle_of_an_iteration_saves_what_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    """After the first round of an iteration, which has overwritten rows of the ring that are not sampled any more."""
    whole = begin(tmp_path, "straight", "sac")
    collect, rounds = HostCollector.collect, []

    def interrupted(*given):
        rounds.append(given)
        if len(rounds) == 2 * 8 + 2:
            raise KeyboardInterrupt
        return collect(*given)

    monkeypatch.setattr(HostCollector, "collect", interrupted)
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path, "stopped", "sac")
    monkeypatch.undo()
    assert checkpoint.saved_iterations(tmp_path / "stopped")[-1] == 8
    folder, _ = train.resume(tmp_path / "stopped", threads=1)
    assert digests(folder) == digests(whole)


def segments_of(folder):
    return sorted((folder.path / "segments/replay").iterdir(), key=lambda path: int(path.name.split("-")[0]))


def flip(file):
    content = file.read_bytes()
    file.write_bytes(content[:-9] + bytes([content[-9] ^ 4]) + content[-8:])


def test_a_flipped_bit_is_named_and_the_checkpoint_before_is_used_where_it_does_not_need_it(tmp_path):
    whole, folder = begin(tmp_path, "straight", "dqn"), begin(tmp_path, "run", "dqn", 8)
    newest = segments_of(folder)[-1]
    flip(newest)
    observer = Noting()
    train.resume(folder.path, env_steps=32 * ITERATIONS, threads=1, observer=observer)
    assert any(f"{newest.name}" in said and "so the one of iteration 7 is used" in said for said in observer.said)
    assert digests(folder) == digests(whole)


@pytest.mark.parametrize("harm", ["flipped", "missing"])
def test_without_its_replay_a_run_refuses_to_go_on_and_names_the_file(tmp_path, harm):
    folder = begin(tmp_path, "run", "dqn", 8)
    needed = segments_of(folder)[2]
    flip(needed) if harm == "flipped" else needed.unlink()
    before = {path: path.stat().st_mtime_ns for path in (folder.path / "checkpoints").rglob("*")}
    with pytest.raises(UsageError, match=f"all are damaged .*{needed.name}.*or start a new run"):
        train.resume(folder.path, env_steps=32 * ITERATIONS, threads=1)
    assert before == {path: path.stat().st_mtime_ns for path in (folder.path / "checkpoints").rglob("*")}
    shutil.rmtree(folder.path / "segments")
    with pytest.raises(UsageError, match=r"Expected a whole checkpoint in .*safetensors is missing"):
        train.resume(folder.path, env_steps=32 * ITERATIONS, threads=1)
    assert len(train.evaluate_run(folder.path, episodes=2, threads=1)[1].returns) == 2, "the policy needs no replay"


def test_a_checkpoint_writes_the_rows_that_are_new(tmp_path):
    sizes = []

    class Watching(train.Observer):
        def iterated(self, row):
            sizes.append({path.name: path.stat().st_size for path in (tmp_path / "run/segments/replay").glob("*")})

    begin(tmp_path, "run", "sac", observer=Watching())
    new = [[size for name, size in after.items() if name not in before] for before, after in itertools.pairwise(sizes)]
    assert all(len(one) == 1 for one in new[1:])
    row = 2 * (11 * 4 + 3 * 4 + 4 + 1 + 1 + 4) + 8 + 1
    assert all(16 * row < size < 16 * row + 1500 for (size,) in new[1:]), "16 rows and a header"


# --- what is computed again ---


def test_any_iteration_is_computed_again(straight):
    folder, _ = straight
    expected = digests(folder)
    kept = checkpoint.saved_iterations(folder, "milestones")
    assert kept == [0, 4, 8, 12] and checkpoint.saved_iterations(folder) == [11, 12]
    with opened(folder.path, 1) as history:
        for iteration in (6, 11, 3, 12, 1):  # back and forth, from the start and from checkpoints
            state = history.to_go_on_from(iteration).state
            assert f"{digest(state):016x}" == expected[iteration - 1]
        progress = history.once_more(history.to_go_on_from(7))
        assert f"{digest(progress.state):016x}" == expected[7]
        assert int(history.at(8).iteration) == 8


def test_the_command_repeats_an_iteration(prioritised_run, capsys):
    assert main(["replay", str(prioritised_run.path), "--iteration", "6", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert f"digest {digests(prioritised_run)[5]}, identical" in said and "updates" in said


@pytest.mark.parametrize("change", [{"discount": 0.5}, {"replay_capacity": 118}, {"n_steps": 1}])
def test_a_fork_goes_on_with_the_replay_and_a_change_is_found_where_it_was_made(prioritised_run, tmp_path, change):
    """Also of the size of the replay, for its rows on disk do not depend on it."""
    made = fork(prioritised_run.path, 7, change, range(3, 4), tmp_path, threads=1)
    unchanged, changed = made.unchanged[3], made.changed[3]
    for folder in (unchanged, changed):
        train.resume(folder.path, threads=1)
    assert digests(unchanged) == digests(prioritised_run)[7:], "the run itself"
    assert read_metrics(changed)["replay_rows"][0] >= 100, "the replay was there"
    assert bisect(prioritised_run.path, unchanged.path, 1) is None
    found = bisect(unchanged.path, changed.path, 1)
    assert found.iteration == 8 and found.earlier == ()
    with opened(unchanged.path, 1) as history:  # its checkpoints are of later iterations by now
        shutil.rmtree(unchanged.path / "checkpoints/7", ignore_errors=True)
        assert f"{digest(history.once_more(history.to_go_on_from(8)).state):016x}" == digests(prioritised_run)[8]
    assert not [name for name in found.leaves if "observations" in name or "env_steps" in name]


def test_two_runs_part_where_a_setting_first_acts(prioritised_run, tmp_path):
    """The learning rate acts at the first update, which is in the second iteration."""
    other = begin(tmp_path, "other", "dqn", learning_rate=2e-3)
    found = bisect(prioritised_run.path, other.path, 1)
    assert found.iteration == 2
    assert any("network" in name for name in found.leaves)
    assert not [name for name in found.leaves if "env_steps" in name or "updates" in name]


# --- budgets and memory ---


def test_a_budget_shorter_than_the_warm_up_is_refused_before_anything_is_written(tmp_path):
    task, settings = RUNS["dqn"]
    with pytest.raises(UsageError, match=r"dqn learns nothing within 40 steps: its first 48 .* at least 50, or"):
        train.start(task=task, algorithm="dqn", settings=settings, env_steps=40, root=tmp_path / "runs", id="run")
    assert not (tmp_path / "runs").exists()
    folder = begin(tmp_path, "run", "dqn", 2)
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.path.rglob("*") if path.name != "lock")
    with pytest.raises(UsageError, match="dqn learns nothing within 49 steps"):
        train.resume(folder.path, env_steps=49, threads=1)
    assert before == sorted((path, path.stat().st_mtime_ns) for path in folder.path.rglob("*") if path.name != "lock")


def algorithm_of(name="dqn", **changed):
    task, settings = RUNS[name]
    plan = Plan(task, {}, name, {**settings, **changed}, 0)
    return plan.make_algorithm(plan.spec())


@pytest.mark.parametrize("num_envs", [1, 2, 8])
def test_the_least_budget_is_the_same_for_any_number_of_slots(num_envs):
    algorithm = algorithm_of(num_envs=num_envs, batch_size=10, replay_ratio=4.0)
    check_warmup(algorithm, 51)
    with pytest.raises(UsageError, match="at least 51, or lower warmup_env_steps"):
        check_warmup(algorithm, 50)


def test_what_a_run_takes_is_said_before_it_begins(tmp_path):
    observer = Noting()
    begin(tmp_path, "run", "dqn", 2, observer)
    assert "The replay of 120 steps takes 1 MiB of memory." in observer.said
    large = budget_notes(algorithm_of("sac", replay_capacity=50_000_000), 10**6, SCHEDULE)
    assert any("The replay of 50,000,000 steps takes" in said and "GiB of memory" in said for said in large)
    short = budget_notes(algorithm_of(num_envs=64, replay_capacity=4096), 100, SCHEDULE)
    assert any("takes 1,024 steps, more than --env-steps 100: the run will train 1,024" in said for said in short)


def test_a_loop_of_another_progress_refuses(prioritised_run):
    plan = train.plan_of(prioritised_run.manifest())
    loop = make_loop(plan, plan.spec(), 1)
    milestone, _ = checkpoint.load(prioritised_run, 8, loop.start())
    with pytest.raises(RuntimeError, match=r"The replay holds 0 steps a slot, and the progress was made with 128"):
        loop.iterate(milestone)
    assert np.isfinite(loop.evaluate(milestone, 2).returns).all()
    loop.close()
