"""Logs made of our own runs: what they hold is what the task did, and their cards say how they were made."""

import json
import math
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

import workhorse
from workhorse.api.datasets import make
from workhorse.cli.main import main
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete
from workhorse.data.coverage import coverage_of
from workhorse.data.dataset import Dataset
from workhorse.data.log_folder import read_log_folder, write_log_folder
from workhorse.runs import kept_policies
from workhorse.runs.history import opened
from workhorse.runs.kept_policies import ActingPolicy, medium_policy, replay_until
from workhorse.training.recording import slots_for


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two short runs, of an algorithm with a replay and of one without."""
    folder = tmp_path_factory.mktemp("runs")
    short = {"progress": False, "runs": folder, "final_episodes": 4, "evaluate_every": 0, "threads": 1, "seed": 3}
    workhorse.train(
        "Pendulum-v1", "sac", env_steps=1024, hidden=(8,), warmup_env_steps=256, batch_size=64, num_envs=4,
        rollout_steps=64, learn_every=64, rescale_actions=True, id="sac", **short,
    )  # fmt: skip
    workhorse.train("CartPole-v1", "ars", env_steps=2000, num_directions=4, num_top_directions=2, id="ars", **short)
    return folder


def next_of_pendulum(obs, action):
    """The equations of Gymnasium's Pendulum-v1, written out once more."""
    angle, velocity = np.arctan2(obs[:, 1], obs[:, 0]), obs[:, 2]
    force = np.clip(action[:, 0], -2, 2)
    velocity_after = np.clip(velocity + (15 * np.sin(angle) + 3 * force) * 0.05, -8, 8)
    angle_after = angle + 0.05 * velocity_after
    reward = -(angle**2 + 0.1 * velocity**2 + 0.001 * force**2)
    return np.stack([np.cos(angle_after), np.sin(angle_after), velocity_after], 1), reward


def is_of_pendulum(log):
    index = np.arange(log.num_steps)
    wanted, reward = next_of_pendulum(np.asarray(log.obs, np.float64), np.asarray(log.action, np.float64))
    np.testing.assert_allclose(log.next_obs(index), wanted, atol=2e-5)
    np.testing.assert_allclose(log.reward, reward, atol=1e-4)


def test_every_step_of_a_random_log_has_its_true_successor_and_reward(tmp_path):
    log = make("Pendulum-v1", "random", tmp_path / "log", steps=4500, seed=5, threads=1)
    is_of_pendulum(log)
    assert log.num_steps == 4500
    assert log.action.min() < -1.9 and log.action.max() > 1.9
    assert not log.terminated.any()
    whole = log.truncated[log.ends - 1]
    assert set(log.lengths[whole]) == {200}
    assert log.is_broken_off(log.ends - 1).tolist() == (~whole).tolist()
    assert 0 < (~whole).sum() <= slots_for(4500, 200) == 2
    np.testing.assert_allclose(log.log_prob, -math.log(4), rtol=1e-6)


def test_ends_of_a_task_are_terminations_and_their_observations_are_no_resets(tmp_path):
    for task, final in (("CartPole-v1", (2, 0.2095)), ("InvertedPendulum-v5", (1, 0.2))):
        log = make(task, "random", tmp_path / task, steps=700, seed=1, threads=1)
        ended = log.terminated[log.ends - 1]
        component, bound = final
        is_out = np.abs(log.final_obs[:, component]) > bound
        is_out |= np.abs(log.final_obs[:, 0]) > 2.4 if task == "CartPole-v1" else False
        assert ended.sum() > 10
        assert is_out[ended].all() and not is_out[~ended].any()
        assert (np.abs(np.asarray(log.obs)[log.begins]) <= 0.0501).all()
        assert not log.truncated.any()


def test_equal_seeds_give_equal_logs_and_others_do_not(tmp_path, runs):
    for task, kind, run in (("CartPole-v1", "random", None), ("Hopper-v5", "random", None),
                            ("Pendulum-v1", "expert", runs / "sac")):  # fmt: skip
        logs = [
            make(task, kind, tmp_path / f"{task}{kind}{number}", steps=600, seed=seed, from_run=run, threads=threads)
            for number, (seed, threads) in enumerate([(1, 1), (1, 2), (2, 1)])
        ]
        one, same, other = (log.digest() for log in logs)
        assert one == same != other
        assert logs[0].card.digest == one


def test_medium_expert_is_half_of_each_and_the_halves_begin_differently(tmp_path, runs, monkeypatch):
    monkeypatch.setattr(
        "workhorse.api.datasets.medium_policy", lambda history, *_: kept_policies.acting_policy(history, 0, 2)
    )
    log = make("Pendulum-v1", "medium-expert", tmp_path / "log", steps=801, from_run=runs / "sac", threads=1)
    is_of_pendulum(log)
    assert log.num_steps == 801 and log.begins[[0, 2, 3]].tolist() == [0, 400, 401]
    assert [one["steps"] for one in log.card.made["policies"]] == [401, 400]
    assert not np.array_equal(log.obs[0], log.obs[401])


def test_the_card_says_how_a_log_was_made(tmp_path, runs):
    log = make("Pendulum-v1", "expert", tmp_path / "log", steps=600, seed=7, from_run=runs / "sac", threads=1)
    card = read_log_folder(tmp_path / "log").card
    assert card == log.card
    made = card.made
    assert (made["seed"], made["run"], made["run_seed"], made["algorithm"]) == (7, "sac", 3, "sac")
    assert made["explores"] and made["policies"][0]["env_steps"] == 1024
    assert len(made["manifest"]) == 64 and len(made["policies"][0]["digest"]) == 16
    assert (card.task, card.kind, card.max_episode_steps) == ("Pendulum-v1", "expert", 200)
    assert card.references.keys() == {"random", "expert"}
    assert -1600 < card.references["random"] < -900
    assert card.references["expert"] == made["policies"][0]["return"]
    assert card.returns["mean"] == pytest.approx(log.returns().mean())
    assert sum(card.returns["counts"]) == card.num_episodes == log.num_episodes
    assert card.coverage["observation_most"][0] == pytest.approx(np.asarray(log.obs)[:, 0].max())
    assert made["versions"]["jax"]


def test_log_densities_are_those_of_the_actions_in_the_tasks_numbers(tmp_path, runs):
    log = make("Pendulum-v1", "expert", tmp_path / "log", steps=600, from_run=runs / "sac", threads=1)
    exact = make("Pendulum-v1", "expert", tmp_path / "x", steps=600, from_run=runs / "sac", threads=1, explore=False)
    assert exact.log_prob is None and "without noise" in " ".join(exact.card.notes)
    with opened(runs / "sac", 1) as history:
        progress = history.kept(kept_policies.newest_iteration(history))
        algorithm = history.loop.algorithm
        actor = algorithm.actor(progress.state)
        outputs = np.stack(
            [np.asarray(actor.policy(algorithm.seen(actor.scaling, jnp.asarray(row)))) for row in log.obs[:50]]
        )
    mean, raw = outputs[:, 0].astype(np.float64), outputs[:, 1].astype(np.float64)
    log_std = -5 + 3.5 * (1 + np.tanh(raw))
    share = np.asarray(log.action[:50, 0], np.float64) / 2
    drawn = np.arctanh(share)
    density = -0.5 * ((drawn - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
    density -= np.log(1 - share**2) + np.log(2)  # of tanh, and of the task's half range
    inside = np.abs(share) < 0.99
    assert inside.sum() > 20
    np.testing.assert_allclose(np.asarray(log.log_prob[:50])[inside], density[inside], atol=2e-3)


def test_a_replay_is_taken_step_by_step_up_to_the_policy(runs):
    with opened(runs / "sac", 1) as history:
        for iteration, steps in ((2, 512), (4, 1024)):
            columns = replay_until(history, ActingPolicy(iteration, steps, None, 0.0))
            log = Dataset.of("replay", history.spec.observation, history.spec.task_action, **columns._asdict())
            is_of_pendulum(log)
            assert log.num_steps == steps
            each = steps // 4
            wanted = [slot * each + begin for slot in range(4) for begin in range(0, each, 200)]
            assert log.begins.tolist() == wanted
            assert np.abs(log.action).max() > 1.2  # the task's numbers, not those in [-1, 1]


def test_medium_is_the_first_milestone_that_has_come_far_enough(runs, monkeypatch):
    returns = {0: 5.0, 1: 29.0, 2: 31.0, 3: 90.0}
    monkeypatch.setattr(kept_policies.checkpoint, "saved_iterations", lambda folder, place="": list(returns))
    monkeypatch.setattr(
        kept_policies, "acting_policy", lambda history, number, episodes: ActingPolicy(number, 0, None, returns[number])
    )
    with opened(runs / "sac", 1) as history:
        assert medium_policy(history, 0.0, 90.0, 1 / 3).iteration == 2
        assert medium_policy(history, 0.0, 90.0, 0.3).iteration == 1
        assert medium_policy(history, 0.0, 90.0, 0.9).iteration == 3
        with pytest.raises(UsageError, match=r"No milestone of .* returns the 99.0 that is 99% of the way from random"):
            medium_policy(history, 0.0, 100.0, 0.99)
        with pytest.raises(UsageError, match=r"returns 3.0, no more than the 4.0 of random actions"):
            medium_policy(history, 4.0, 3.0, 1 / 3)
        returns.clear()
        with pytest.raises(UsageError, match=r"keeps no milestones"):
            medium_policy(history, 0.0, 90.0, 1 / 3)


def test_a_population_acts_by_its_unperturbed_policy(tmp_path, runs):
    log = make("CartPole-v1", "expert", tmp_path / "log", steps=3000, from_run=runs / "ars", threads=1)
    policy = workhorse.Policy.load(runs / "ars")
    chosen, _ = policy.predict(np.asarray(log.obs))
    assert (chosen == log.action).mean() > 0.999


WRONG = {
    "Pendulum-v1 --kind good --out {new}": "--kind must be one of expert, medium, medium-expert, medium-replay, random",
    "Pendulum-v1 --kind random --out {runs}": "is there already: choose another name for --out, or remove it.",
    "Pendulum-v1 --kind random --out {new} --steps 0": "--steps must be at least 1: got 0.",
    "Pendulum-v1 --kind medium-expert --out {new} --steps 1": "--steps must be at least 2: got 1.",
    "Pendulum-v1 --kind medium-replay --out {new} --steps 9": "leave --steps out.",
    "Pendulum-v1 --kind random --out {new} --no-explore": "leave --no-explore out.",
    "Pendulum-v1 --kind medium --out {new} --medium 1.5": "in (0, 1): got 1.5.",
    "CartPole-v1 --kind expert --out {new} --from-run {runs}/sac": "Pendulum-v1, and the log is to be of CartPole-v1",
    "Pendulum-v1 --kind expert --out {new} --from-run {runs}/sac --task-option g=5.0": "of Pendulum-v1 with g=5.0",
    "Nothing-v1 --kind random --out {new}": "Unknown task",
    "Pendulum-v1 --kind random --out {new} --seed -1": "The seed must be in [0, 2**32): got -1.",
}  # fmt: skip


@pytest.mark.parametrize("words", WRONG)
def test_what_cannot_be_made_is_one_sentence(words, runs, tmp_path, capsys):
    command = ["dataset", "make", *words.format(new=tmp_path / "new", runs=runs).split()]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert WRONG[words] in said and said.startswith("workhorse dataset: ")
    assert list(tmp_path.iterdir()) == []


def test_actions_of_the_command_are_named_where_one_is_unknown(capsys):
    assert main(["dataset", "mak"]) == 2
    assert "Expected make, check, show or convert, got 'mak'. Did you mean make?" in capsys.readouterr().err


def test_a_run_without_replay_or_states_is_refused(runs, tmp_path, monkeypatch):
    with (
        opened(runs / "ars", 1) as history,
        pytest.raises(UsageError, match="which keeps no replay that medium-replay"),
    ):
        replay_until(history, ActingPolicy(0, 0, None, 0.0))
    bare = tmp_path / "bare"
    shutil.copytree(runs / "ars", bare)
    shutil.rmtree(bare / "checkpoints")
    shutil.rmtree(bare / "milestones")
    with pytest.raises(UsageError, match="keeps no state at all"):
        make("CartPole-v1", "expert", tmp_path / "log", steps=100, from_run=bare, threads=1)
    assert not (tmp_path / "log").exists()


def test_the_command_writes_what_the_function_makes(tmp_path, runs, capsys):
    words = f"Pendulum-v1 --kind expert --out {tmp_path / 'a'} --from-run {runs / 'sac'} --steps 600 --seed 4 --quiet"
    assert main(["dataset", "make", *words.split()]) == 0
    assert "600 steps in 3 episodes" in capsys.readouterr().out
    same = make("Pendulum-v1", "expert", tmp_path / "b", from_run=runs / "sac", steps=600, seed=4)
    assert json.loads((tmp_path / "a" / "card.json").read_text())["digest"] == same.card.digest


def test_a_log_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    log = Dataset.of(
        "one", Box.unbounded(1), Discrete(2), obs=np.zeros((3, 1)), action=np.array([0, 1, 1]), reward=np.ones(3),
        terminated=np.array([False, True, False]), truncated=np.zeros(3, bool), final_obs=np.ones((2, 1)),
        begins=np.array([0, 2]),
    )  # fmt: skip

    def fails(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("workhorse.data.log_folder.write_file", fails)  # the card, which comes last
    with pytest.raises(KeyboardInterrupt):
        write_log_folder(log, tmp_path / "log")
    assert list(tmp_path.iterdir()) == []


def test_coverage_of_actions_counts_bins_and_bounds():
    action = np.array([[-2.0], [-1.99], [0.05], [2.0]])
    log = Dataset.of(
        "four", Box.unbounded(1), Box((-2.0,), (2.0,)), obs=np.array([[1e6], [1e6 + 1], [1e6 + 2], [1e6 + 3]]),
        action=action, reward=np.ones(4), terminated=np.zeros(4, bool), truncated=np.zeros(4, bool),
        final_obs=np.ones((1, 1)), begins=np.array([0]),
    )  # fmt: skip
    found = coverage_of(log)
    assert found["action_bins"] == [3 / 20]
    assert found["actions_at_bounds"] == 0.5
    assert found["observation_std"][0] == pytest.approx(np.std([0, 1, 2, 3]))
