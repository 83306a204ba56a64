"""Learning from a log alone, and from a log beside steps of the task: rows, held-out episodes, bits, refusals."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.logs import random_log, written_log
from workhorse import UsageError
from workhorse.api.offline import resolve_offline
from workhorse.core.digest import digest
from workhorse.core.randomness import root_key
from workhorse.core.spec import Box
from workhorse.core.types import Transitions
from workhorse.data.dataset import Dataset
from workhorse.data.log_folder import read_log_folder
from workhorse.runs import train
from workhorse.runs.metrics import read_metrics
from workhorse.training import offline
from workhorse.training.log_share import LogShare, as_transitions, with_log
from workhorse.training.loop import make_loop
from workhorse.training.offline import held_out_episodes
from workhorse.training.plan import Plan
from workhorse.training.sources import Sources

SMALL = {"hidden": (8,), "batch_size": 16}


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return written_log(tmp_path_factory.mktemp("logs") / "pendulum", "Pendulum-v1")


def plan_for(log, algorithm="td3+bc", settings=None, **sources):
    about = Sources("offline", str(log), read_log_folder(log).digest(), **{"updates_per_iteration": 6} | sources)
    return Plan("Pendulum-v1", {}, algorithm, settings or SMALL, 3, sources=about)


def loop_for(log, **others):
    plan = plan_for(log, **others)
    return make_loop(plan, plan.spec(), 1)


def three_iterations(loop):
    progress = loop.start()
    for _ in range(3):
        progress, metrics, _ = loop.iterate(progress)
    loop.close()
    return progress, metrics


class TestRows:
    def log(self):
        """Two episodes of 3 and 2 steps, the first terminated, the second broken off; observations are numbers."""
        return Dataset.of(
            "two", Box.unbounded(1), Box((0.0,), (10.0,)), obs=np.array([[0.0], [1], [2], [10], [11]]),
            action=np.array([[0.0], [5], [10], [5], [0]]), reward=np.array([1.0, 2, 4, 8, 16]),
            terminated=np.array([0, 0, 1, 0, 0], bool), truncated=np.zeros(5, bool), final_obs=np.array([[3.0], [12]]),
            begins=np.array([0, 3]),
        )  # fmt: skip

    def rows(self, n_steps=1):
        log = self.log()
        return log.rows(np.arange(5), n_steps=n_steps, discount=0.5, spec=log.spec().rescaled())

    def test_every_step_has_its_true_successor(self):
        assert self.rows().next_obs.ravel().tolist() == [1, 2, 3, 11, 12]

    def test_actions_are_in_the_algorithms_numbers(self):
        rows = self.rows()
        assert rows.action.ravel().tolist() == [-1, 0, 1, 0, -1]
        assert rows.next_action.ravel().tolist() == [0, 1, 1, -1, -1]  # the last once more where an episode is over

    def test_only_a_termination_ends_what_is_bootstrapped(self):
        rows = self.rows()
        assert rows.discount.tolist() == [0.5, 0.5, 0, 0.5, 0.5]
        assert rows.terminated.tolist() == [False, False, True, False, False]
        assert rows.truncated.tolist() == [False, False, False, False, True]  # a recording that broke off

    def test_returns_to_go_are_discounted_within_an_episode(self):
        assert self.rows().return_to_go.tolist() == [1 + 1 + 1, 2 + 2, 4, 8 + 8, 16]

    def test_a_window_of_steps_ends_with_its_episode(self):
        rows = self.rows(n_steps=2)
        assert rows.reward.tolist() == [2, 4, 4, 16, 16]
        assert rows.steps.tolist() == [2, 2, 1, 2, 1]
        assert rows.discount.tolist() == [0.25, 0, 0, 0.25, 0.5]
        assert rows.next_obs.ravel().tolist() == [2, 3, 3, 12, 12]

    def test_episodes_taken_out_keep_their_rows(self):
        part = self.log().of_episodes(np.array([1]))
        assert part.obs.ravel().tolist() == [10, 11] and part.final_obs.tolist() == [[12.0]]
        assert part.begins.tolist() == [0] and part.card.num_steps == 2


class TestHeldOut:
    def test_held_out_rows_are_never_trained_on(self, log, monkeypatch):
        """The rows of an update are replaced by their numbers, of which those of held-out episodes must be absent."""
        seen = []
        original = offline._updates

        def spied(algorithm, state, rows, index, root, first, total):
            seen.append(np.asarray(rows.index)[np.asarray(index)])
            return original(algorithm, state, rows, index, root, first, total)

        monkeypatch.setattr(offline, "_updates", spied)
        loop = loop_for(log, held_out=0.4)
        loop.iterate(loop.start())
        dataset = read_log_folder(log)
        held_out = held_out_episodes(3, dataset.num_episodes, 0.4)
        drawn = dataset.episode_of(np.concatenate(seen).ravel())
        assert len(held_out) == 3 and not set(drawn) & set(held_out)
        assert set(drawn) == set(range(dataset.num_episodes)) - set(held_out)
        loop.close()

    def test_other_seeds_hold_out_others(self):
        assert held_out_episodes(0, 100, 0.1).tolist() != held_out_episodes(1, 100, 0.1).tolist()


class TestBits:
    def test_rows_on_disk_give_the_bits_of_rows_in_memory(self, log, monkeypatch):
        here, metrics = three_iterations(loop_for(log))
        monkeypatch.setattr(offline, "MEMORY_SHARE", 0.0)
        there, same = three_iterations(loop_for(log))
        assert digest(here) == digest(there) and metrics == pytest.approx(same, nan_ok=True)

    def test_the_length_of_an_iteration_is_no_part_of_what_is_learnt(self, log):
        long, short = loop_for(log, updates_per_iteration=6), loop_for(log, updates_per_iteration=3)
        one, _, _ = long.iterate(long.start())
        other, _, _ = short.iterate(short.start())
        other, _, _ = short.iterate(other)
        assert digest(one.state) == digest(other.state)

    def test_a_run_stopped_and_resumed_has_the_digests_of_one_that_was_not(self, log, tmp_path):
        given = {"settings": SMALL, "evaluate_on": "Pendulum-v1", "updates": 40, "final_episodes": 2, "threads": 1}
        whole = resolve_offline(log, "td3+bc", **given, runs=tmp_path, id="whole")
        whole = dataclasses.replace(whole, sources=dataclasses.replace(whole.sources, updates_per_iteration=10))
        folder, _ = whole.start(command=())
        part, _ = dataclasses.replace(whole, env_steps=20, id="part").start(command=())
        train.resume(part.path, env_steps=40)
        wanted = read_metrics(folder.path)["digest"].to_list()
        assert len(wanted) == 4 and read_metrics(part.path)["digest"].to_list() == wanted


class TestMixed:
    def batch(self, count):
        columns = {name: np.zeros(count, np.float32) for name in Transitions._fields}
        shaped = {"obs": np.zeros((count, 3), np.float32), "next_obs": np.zeros((count, 3), np.float32)}
        action = np.zeros((count, 1), np.float32)
        return Transitions(**columns | shaped | {"action": action, "next_action": action, "index": np.arange(count)})

    def test_a_batch_has_as_many_rows_of_the_log_as_are_asked_for_behind_its_own(self):
        log = random_log("Pendulum-v1")
        rows = log.rows(np.arange(log.num_steps), n_steps=1, discount=0.9, spec=log.spec().rescaled())
        share = LogShare(jax.tree.map(jnp.asarray, rows), jnp.ones(5, jnp.float32))
        mixed = with_log(self.batch(3), share, root_key(0))
        index = np.asarray(mixed.index)
        assert index[:3].tolist() == [0, 1, 2] and (index[3:] < 0).all()
        steps = -1 - index[3:]
        np.testing.assert_array_equal(mixed.obs[3:], np.asarray(log.obs)[steps].astype(np.float32))
        np.testing.assert_array_equal(mixed.next_obs[3:], log.next_obs(steps).astype(np.float32))

    def test_the_newest_step_of_a_log_has_age_one(self):
        log = random_log("Pendulum-v1")
        rows = log.rows(np.array([log.num_steps - 1]), n_steps=1, discount=0.9, spec=log.spec().rescaled())
        assert as_transitions(rows, log.num_steps).age.tolist() == [1]

    @pytest.mark.parametrize("algorithm", ["td3+bc", pytest.param("sac", marks=pytest.mark.slow)])
    def test_a_run_in_the_task_goes_on_from_a_log_and_resumes_to_the_same_bits(self, log, tmp_path, algorithm):
        first = resolve_offline(log, algorithm, settings=SMALL, updates=10, threads=1, runs=tmp_path, id="log")
        first.start(command=())
        plan = {
            "task": "Pendulum-v1", "algorithm": algorithm, "threads": 1, "root": tmp_path,
            "settings": SMALL | {"rollout_steps": 32, "warmup_env_steps": 32, "replay_capacity": 500},
            "schedule": train.Schedule(final_episodes=2, milestones=0),
            "sources": Sources("mixed", str(log), read_log_folder(log).digest(), begun_from=str(tmp_path / "log")),
        }  # fmt: skip
        whole, _ = train.start(**plan, env_steps=128, id="whole")
        part, _ = train.start(**plan, env_steps=64, id="part")
        train.resume(part.path, env_steps=128)
        wanted = read_metrics(whole.path)["digest"].to_list()
        assert read_metrics(part.path)["digest"].to_list() == wanted and len(wanted) == 4
        plan["sources"] = dataclasses.replace(plan["sources"], log="", log_digest="")
        alone, _ = train.start(**plan, env_steps=64, id="alone")
        assert read_metrics(alone.path)["digest"][0] == wanted[0], "the first 32 steps are acted by the same policy"
        assert read_metrics(alone.path)["digest"][1] != wanted[1], "the log makes a difference"

    def test_it_begins_with_the_other_runs_state(self, log, tmp_path):
        first = resolve_offline(log, "td3+bc", settings=SMALL, updates=10, threads=1, runs=tmp_path, id="log")
        first.start(command=())
        sources = Sources("mixed", begun_from=str(tmp_path / "log"))
        run = {"task": "Pendulum-v1", "threads": 1, "root": tmp_path, "env_steps": 6000, "sources": sources}
        run["schedule"] = train.Schedule(final_episodes=2, milestones=1)
        with pytest.raises(UsageError, match=r"Expected a run of sac to begin from in .*log, got one of td3\+bc"):
            train.start(**run, algorithm="sac", settings=SMALL, id="other")
        with pytest.raises(UsageError, match="is not like that of this run: begin with the same task and options"):
            train.start(**run, algorithm="td3+bc", settings=SMALL | {"hidden": (9,)}, id="wider")


class TestRefusals:
    def start(self, log, tmp_path, **others):
        given = {"settings": SMALL, "updates": 10, "threads": 1, "runs": tmp_path} | others
        return resolve_offline(log, given.pop("algorithm", "td3+bc"), **given).start(command=())

    def test_a_log_that_was_exchanged(self, log, tmp_path):
        place = shutil.copytree(log, tmp_path / "log")
        folder, _ = self.start(place, tmp_path / "runs", id="one")
        shutil.rmtree(place)
        written_log(place, "Pendulum-v1", seed=9)
        with pytest.raises(UsageError, match="is not the one that this run was begun with"):
            train.resume(folder.path, env_steps=20)

    def test_an_algorithm_of_episodes(self, log, tmp_path):
        with pytest.raises(UsageError, match="openai-es learns from episodes of its own policy"):
            self.start(log, tmp_path, algorithm="openai-es", settings={})

    def test_a_batch_larger_than_the_log(self, log, tmp_path):
        with pytest.raises(UsageError, match=r"batch_size must not exceed the \d+ steps of the log"):
            self.start(log, tmp_path, settings={"batch_size": 4000})

    def test_another_task(self, log, tmp_path):
        with pytest.raises(UsageError, match=r"has observations of shape \(3,\), but those of MountainCarContinuous"):
            self.start(log, tmp_path, evaluate_on="MountainCarContinuous-v0")

    def test_a_run_from_elsewhere_reads_no_log_of_its_choice(self, log, tmp_path, monkeypatch):
        folder, _ = self.start(log, tmp_path, id="one")
        monkeypatch.setattr("workhorse.runs.trust.is_trusted", lambda key: False)
        with pytest.raises(UsageError, match="was not begun here by you: see what that is, then say --trust"):
            train.resume(folder.path, env_steps=20)

    def test_nothing_is_left_behind(self, log, tmp_path):
        with pytest.raises(UsageError):
            self.start(log, tmp_path / "runs", settings={"batch_size": 4000})
        assert not (tmp_path / "runs").exists()
