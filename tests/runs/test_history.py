"""Time travel: iterations come out again as they did, and a planted difference is found where it was planted."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from workhorse.cli.main import main
from workhorse.core.digest import digest
from workhorse.core.errors import UsageError
from workhorse.runs import checkpoint, train
from workhorse.runs.folder import RunFolder
from workhorse.runs.fork import fork
from workhorse.runs.history import bisect, kept_iterations, opened
from workhorse.runs.metrics import read_metrics

SETTINGS = {"num_envs": 4, "rollout_steps": 16, "minibatch_size": 32, "num_epochs": 1, "hidden": (8,)}
QUICK = train.Schedule(final_episodes=4, checkpoint_every_s=1000, milestones=2)
ITERATIONS = 6


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder, _ = train.start(
        task="CartPole-v1",
        algorithm="ppo",
        settings=SETTINGS,
        env_steps=ITERATIONS * 64,
        seed=3,
        threads=1,
        schedule=QUICK,
        root=tmp_path_factory.mktemp("runs"),
        id="original",
    )
    return folder


def digests(folder):
    metrics = read_metrics(folder.path)
    return dict(zip(metrics["iteration"].to_list(), metrics["digest"].to_list(), strict=True))


def test_every_iteration_comes_out_as_it_did(run):
    assert kept_iterations(run) == [0, 3, 6]
    seen = []
    with opened(run.path, 1) as history:
        state = history.at(5, lambda progress, metrics: seen.append((int(progress.iteration), metrics["entropy"])))
        assert f"{digest(state.state):016x}" == digests(run)[5]
        assert digest(history.kept(3)) == digest(history.at(3))
        with pytest.raises(UsageError, match=r"keeps no state of iteration 4: the nearest are 3 and 6 of 0, 3, 6"):
            history.kept(4)
        with pytest.raises(UsageError, match=r"must be in \[0, 6\]"):
            history.at(7)
    assert [number for number, _ in seen] == [4, 5]
    measured = dict(zip(*read_metrics(run.path).select("iteration", "entropy").to_dict().values(), strict=True))
    assert seen == [(number, measured[number]) for number in (4, 5)]


def test_an_iteration_that_comes_out_differently_is_said(run, monkeypatch):
    with opened(run.path, 1) as history:
        history._digests[2] = "0" * 16
        with pytest.raises(UsageError, match=r"Iteration 2 of .* but the run's was 0000000000000000: other versions"):
            history.at(2)


def test_a_fork_without_a_change_is_the_run_itself_and_a_change_is_found_where_it_was_made(run, tmp_path):
    made = fork(run.path, 4, {"discount": 0.5}, range(3, 4), tmp_path, threads=1)
    for folder in (made.unchanged[3], made.changed[3]):
        train.resume(folder.path, threads=1)
    assert digests(made.unchanged[3]) == {number: digests(run)[number] for number in (5, 6)}
    assert bisect(run.path, made.unchanged[3].path, 1) is None
    found = bisect(made.unchanged[3].path, made.changed[3].path, 1)
    assert found.iteration == 5
    assert found.earlier == ()
    assert "state/params/value/weights/0" in found.leaves
    assert "state/observations/mean" not in found.leaves, "the steps of iteration 5 were taken before the change acts"
    assert RunFolder.open(made.changed[3].path).manifest().settings["discount"] == 0.5


@pytest.mark.parametrize("lag", [0, 1])
def test_forks_of_a_population_draw_their_own_perturbations_and_a_pair_the_same(tmp_path, lag):
    """Equal noise in all of them would make an interval over them too narrow."""
    settings = {"num_pairs": 4, "lag": lag}
    given = {"threads": 1, "schedule": QUICK, "root": tmp_path, "id": "es", "env_steps": 2_000, "seed": 3}
    es, _ = train.start(task="CartPole-v1", algorithm="openai-es", settings=settings, **given)
    made = fork(es.path, 3, {"learning_rate": 0.5}, range(2, 5), tmp_path, threads=1)
    members, due = {}, {}
    for word, folders in (("unchanged", made.unchanged), ("changed", made.changed)):
        for seed, folder in folders.items():
            with opened(folder.path, 1) as history:
                state, algorithm = history.kept(3).state, history.loop.algorithm
            actor = algorithm.actor(state)
            members[word, seed] = [
                np.asarray(algorithm.displace(actor, jax.numpy.int32(m)) - state.params) for m in (0, 2)
            ]
            due[seed] = np.asarray(state.pending.fitness) if lag else np.ones(1)
    for seed in (2, 3, 4):
        np.testing.assert_array_equal(members["unchanged", seed], members["changed", seed])
        assert due[seed].any() == (not lag or seed == 3), "the fitness of perturbations of another root"
    drawn = np.array([np.concatenate(members["unchanged", seed]) for seed in (2, 3, 4)])
    assert np.abs(np.corrcoef(drawn) - np.eye(3)).max() < 0.8 and (drawn[0] != drawn[1]).all()
    goes_on = train.resume(made.unchanged[3].path, threads=1)[0]
    assert digests(goes_on) == {at: word for at, word in digests(es).items() if at > 3}, (
        "its own seed is the run itself"
    )


def test_an_option_that_only_a_new_run_reads_is_no_change(tmp_path):
    given = {"threads": 1, "schedule": QUICK, "root": tmp_path, "id": "snes", "env_steps": 400}
    run, _ = train.start(task="CartPole-v1", algorithm="snes", settings={"population_size": 8}, **given)
    with pytest.raises(UsageError, match=r"A fork of snes keeps the state that noise_std set at the start"):
        fork(run.path, 1, {"noise_std": 0.9}, range(1), tmp_path, threads=1)


def test_a_planted_leaf_is_named(run, tmp_path):
    folder = fork(run.path, 4, {"trace": 0.95}, range(3, 4), tmp_path, threads=1).unchanged[3]
    with opened(run.path, 1) as history:
        state, meta = checkpoint.load(folder, 4, history.at(4), "checkpoints")
    policy = state.state.params.policy
    weights = policy.network.weights[0].at[0, 0].add(1e-3)
    network = dataclasses.replace(policy.network, weights=(weights, *policy.network.weights[1:]))
    params = state.state.params._replace(policy=dataclasses.replace(policy, network=network))
    for place in ("checkpoints", "milestones"):
        checkpoint.save(folder, 4, state._replace(state=state.state._replace(params=params)), meta, place)
    train.resume(folder.path, threads=1)
    found = bisect(run.path, folder.path, 1)
    assert (found.iteration, found.earlier) == (5, ("state/params/policy/network/weights/0",))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": (16,)}, "hidden would change the shape of the state"),
        ({"discnt": 0.5}, "Unknown option of ppo 'discnt'"),
        ({"discount": 1.5}, r"discount must be in \[0, 1\]"),
        ({"discount": "abc"}, "discount must be a number: got 'abc'"),
        ({"num_epochs": 1.5}, "num_epochs must be a whole number: got 1.5"),
    ],
)
def test_what_cannot_be_forked(run, tmp_path, settings, message):
    with pytest.raises(UsageError, match=message):
        fork(run.path, 3, settings, range(1), tmp_path, threads=1)
    assert not list(tmp_path.iterdir())


def test_a_fork_outlives_its_checkpoints_and_is_gone_on_with(run, tmp_path):
    made = fork(run.path, 4, {"trace": 0.9}, range(1), tmp_path, threads=1)
    folder, _ = train.resume(made.changed[0].path, threads=1)
    for checkpoint_of_the_start in (folder.path / "checkpoints").glob("4"):
        shutil.rmtree(checkpoint_of_the_start)
    again = fork(run.path, 4, {"trace": 0.9}, range(1), tmp_path, threads=1)
    assert again.changed[0].path == folder.path and len(read_metrics(folder)) == 2, "as far as it had come"
    with pytest.raises(UsageError, match="of a fork with other settings"):
        fork(run.path, 4, {"trace": 0.8}, range(1), tmp_path, threads=1)
    with opened(folder.path, 1) as history:
        assert digest(history.at(6).state) == int(digests(folder)[6], 16)
        shutil.rmtree(folder.path / "milestones")
        with pytest.raises(UsageError, match="begins at iteration 5, as a fork does"):
            history.at(5)


def test_a_fork_beyond_the_annealing_is_refused_unless_it_changes_it(run, tmp_path):
    with pytest.raises(UsageError, match=r"fall to zero at 384 steps.*--set anneal_env_steps=640"):
        fork(run.path, 4, {"trace": 0.9}, range(1), tmp_path, env_steps=640, threads=1)
    assert fork(run.path, 4, {"anneal_env_steps": 640}, range(1), tmp_path, env_steps=640, threads=1).changed


def test_a_damaged_milestone_is_passed_over(run, tmp_path):
    folder = shutil.copytree(run.path, tmp_path / "copy")
    for place in (folder / "milestones" / "3", folder / "checkpoints" / "3"):
        if place.exists():
            (place / "state.safetensors").write_bytes(b"no state")
    with opened(folder, 1) as history:
        assert digest(history.at(4).state) == int(digests(run)[4], 16)


def test_a_state_of_another_run_is_not_taken_for_this_ones(run, tmp_path):
    folder = RunFolder.open(shutil.copytree(run.path, tmp_path / "mixed"))
    with opened(run.path, 1) as history:
        state = history.kept(3)
    other = state._replace(state=state.state._replace(iteration=state.state.iteration + 1))
    checkpoint.save(folder, 3, other, {}, "milestones", later="kept")
    assert kept_iterations(folder) == [0, 3, 6]
    with opened(folder.path, 1) as history:
        with pytest.raises(UsageError, match=r"The state of iteration 3 in .*mixed is \w+, but the metrics say \w+"):
            history.kept(3)
        assert digest(history.at(3)) == digest(state), "from an older one that is the run's"


def test_a_run_that_had_diverged_is_not_measured(run, tmp_path):
    folder = RunFolder.open(shutil.copytree(run.path, tmp_path / "diverged"))
    folder.metrics.unlink()
    with opened(folder.path, 1) as history:
        state = history.kept(3)
        assert digest(history.measurable(3)) == digest(state)
        params = jax.tree.map(lambda leaf: leaf * np.nan, state.state.params)
        checkpoint.save(folder, 3, state._replace(state=state.state._replace(params=params)), {}, later="kept")
        checkpoint.save(folder, 3, state._replace(state=state.state._replace(params=params)), {}, "milestones")
        assert np.isnan(jax.tree.leaves(history.kept(3).state.params)[0]).all()
        with pytest.raises(UsageError, match=r"Parameters of iteration 3 of .* are not finite: the run had diverged"):
            history.measurable(3)


def test_runs_with_nothing_in_common_are_not_said_to_agree(run, tmp_path):
    short, _ = train.start(
        task="CartPole-v1", algorithm="ppo", settings=SETTINGS, env_steps=64, threads=1, schedule=QUICK, root=tmp_path
    )
    folder = fork(run.path, 4, {"trace": 0.9}, range(1), tmp_path, threads=1).changed[0]
    train.resume(folder.path, threads=1)
    with pytest.raises(UsageError, match="have no iteration in common"):
        bisect(short.path, folder.path, 1)


def test_runs_of_other_kinds_are_not_compared(run, tmp_path):
    other, _ = train.start(
        task="CartPole-v1", algorithm="openai-es", settings={}, env_steps=20_000, threads=1, schedule=QUICK,
        root=tmp_path,
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"is ppo on CartPole-v1 and .* openai-es on CartPole-v1"):
        bisect(run.path, other.path, 1)


def test_the_commands(run, tmp_path, capsys):
    assert main(["replay", str(run.path), "--iteration", "2", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert f"digest {digests(run)[2]}, identical" in said and "entropy" in said
    words = ["fork", str(run.path), "--iteration", "5", "--set", "discount=.5", "--seeds", "2", "--runs", str(tmp_path)]
    assert main([*words, "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert "seed 1:" in said and "discount 0.5 from iteration 5 on changes the return by" in said
    one, other = (str(tmp_path / f"original-i5-{word}-s0") for word in ("unchanged", "changed"))
    assert main(["bisect", one, other, "--threads", "1"]) == 0
    assert "differ first after iteration 6" in capsys.readouterr().out
    for beyond in ("-1", "7", "9"):
        assert main(["replay", str(run.path), "--iteration", beyond]) == 2
        assert f"must be in [0, 6], the iterations of {run.path}: got {beyond}." in capsys.readouterr().err
    assert main(["fork", str(run.path), "--iteration", "5"]) == 2
    assert main(["fork", str(run.path), "--iteration", "5", "--set", "discount"]) == 2
    assert "A change by --set must be written name=value, as in discount=.98" in capsys.readouterr().err
    assert main(["bisect", str(run.path), str(tmp_path / "none")]) == 2
