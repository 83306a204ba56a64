"""The loop of off-policy learning: what is sampled happened, what is counted is absolute, what was given up is gone."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.algorithms import registry
from workhorse.core import machine
from workhorse.core.algorithm import OffPolicy
from workhorse.core.configuration import configuration
from workhorse.core.digest import digest, flatten_arrays, restore_arrays
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Step
from workhorse.data import replay
from workhorse.training import off_policy, replay_arrays
from workhorse.training.episodes import make_player
from workhorse.training.lanes import Lanes
from workhorse.training.loop import make_loop
from workhorse.training.off_policy import OffPolicyLoop, updates_due
from workhorse.training.plan import Plan
from workhorse.training.replay_measures import measures
from workhorse.training.rollouts import make_collector

sys.path.insert(0, str(Path(__file__).parents[1] / "environments"))
import weird_environments  # noqa: F401

LIMIT = 7


@dataclass(frozen=True)
class Chain:
    """An episode has a number and counts its steps; the clock cuts it at seven, a task of a fifth of them ends it."""

    spec = EnvSpec("Chain", Box.unbounded(2), Discrete(2), LIMIT)

    def reset(self, key):
        state = jnp.stack([jax.random.uniform(key, (), jnp.float32), jnp.float32(0)])
        return state, state

    def step(self, state, action, key):
        state = state + jnp.array([0, 1], jnp.float32)
        terminated = (state[0] < 0.2) & (state[1] >= 3)
        return state, Step(state, state[1].astype(jnp.float64), terminated, state[1] >= LIMIT, state, {})


class Seen(NamedTuple):
    updates: jax.Array
    wrong: jax.Array
    drawn: jax.Array
    ends: jax.Array
    env_steps: jax.Array


@configuration
class Watcher(OffPolicy):
    """Learns nothing; counts transitions of `Chain` that cannot have happened."""

    name = "watcher"
    summary = "counts transitions that cannot have happened"

    spec: object
    num_envs: int = 1
    rollout_steps: int = 16
    learn_every: int = 8
    replay_ratio: float = 8.0
    batch_size: int = 16
    warmup_env_steps: int = 32
    replay_capacity: int = 100
    n_steps: int = 1
    discount: float = 0.5
    prioritised: bool = False

    @property
    def priority_exponent(self):
        return 0.5 if self.prioritised else None

    def importance_exponent(self, state):
        return jnp.float32(0.4)

    def init(self, key):
        zero = jnp.zeros((), jnp.int64)
        return Seen(zero, zero, zero, zero, zero)

    def actor(self, state):
        return ()

    def act(self, actor, carry, obs, key, *, explore):
        return jax.random.randint(key, (), 0, 2), carry, ()

    def observe(self, state, rollout):
        return state._replace(env_steps=state.env_steps + rollout.reward.size)

    def learn(self, state, experience, key):
        steps = experience.steps
        ahead = jnp.stack([jnp.zeros(len(steps), jnp.float32), steps.astype(jnp.float32)], -1)
        begun = experience.obs[:, 1]
        last = begun + steps
        reward = jnp.zeros(len(steps))  # of the step to count c: c
        for number in range(1, self.n_steps + 1):
            reward += jnp.where(number <= steps, 0.5 ** (number - 1) * (begun + number), 0.0)
        terminated = (experience.obs[:, 0] < 0.2) & (last >= 3)
        right = (
            (experience.next_obs == experience.obs + ahead).all(-1)
            & jnp.isclose(experience.reward, reward, rtol=1e-5)
            & (experience.terminated == terminated)
            & (experience.truncated == (last >= LIMIT))
            & jnp.isclose(experience.discount, jnp.where(terminated, 0.0, 0.5**steps))
            & (
                (steps == self.n_steps)
                | terminated
                | (last >= LIMIT)
                | (experience.age // self.num_envs <= self.n_steps)
            )
        )
        after = state._replace(
            updates=state.updates + 1,
            wrong=state.wrong + (~right).sum(),
            drawn=state.drawn * 31 + (experience.index * jnp.arange(len(steps))).sum(),
            ends=state.ends + experience.truncated.sum() + 1000 * experience.terminated.sum(),
        )
        return after, 1.0 + (experience.index % 7), {"oldest": experience.age.max()}

    def policy_layers(self, actor):
        raise NotImplementedError

    def validate(self):
        """Every setting will do."""


def loop_of(root=0, **settings):
    algorithm = Watcher(spec=Chain.spec, **settings)
    collector = make_collector(algorithm, Chain(), root, algorithm.num_envs, algorithm.learn_every)
    return OffPolicyLoop(algorithm, root, collector, Lanes([make_player(algorithm, Chain(), 2, root)]))


def iterated(loop, iterations, progress=None):
    progress = progress or loop.start()
    metrics = {}
    for _ in range(iterations):
        progress, metrics, _ = loop.iterate(progress)
    return progress, metrics


@pytest.mark.parametrize("prioritised", [False, True])
@pytest.mark.parametrize("num_envs", [1, 8])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_every_sampled_transition_is_one_that_the_simulation_makes(prioritised, num_envs, n_steps):
    """Beyond several turns of the ring, at windows over ends and at the newest step."""
    loop = loop_of(num_envs=num_envs, n_steps=n_steps, prioritised=prioritised, replay_capacity=100 * num_envs)
    progress, metrics = iterated(loop, 30)
    seen = progress.state
    assert int(seen.wrong) == 0
    assert int(seen.ends) % 1000 and int(seen.ends) >= 1000, "both kinds of ends were sampled"
    assert int(seen.updates) == metrics["updates"] > 100
    assert metrics["oldest"] <= 100 * num_envs and 70 * num_envs < metrics["replay_rows"] <= 100 * num_envs


def test_where_final_observations_overflow_fewer_steps_are_sampled():
    """Episodes of 3 or 7 steps and a table for one in eight: most of the capacity, and nothing that never happened."""
    loop = loop_of(replay_capacity=800)
    progress, metrics = iterated(loop, 100)
    kept = int(progress.data.cursor.finals) - int(loop.arrays.rows.finals_before[int(progress.data.cursor.first) % 816])
    assert kept == loop.size.finals and metrics["replay_rows"] < 800
    assert int(progress.state.wrong) == 0


@pytest.mark.parametrize("ratio", [2.0, 3.0, 0.25])
def test_the_number_of_updates_is_a_function_of_the_steps_and_the_ratio_alone(ratio):
    """1 and 64 slots, whatever the length of an iteration: samples trained on per step after the warm-up."""
    found = {}
    for num_envs, rollout_steps, learn_every in ((1, 512, 32), (1, 256, 256), (64, 8, 1), (64, 16, 4)):
        loop = loop_of(
            num_envs=num_envs, rollout_steps=rollout_steps, learn_every=learn_every, replay_ratio=ratio,
            warmup_env_steps=300, replay_capacity=2048,
        )  # fmt: skip
        progress = loop.start()
        while int(progress.env_steps) < 2048:
            progress, metrics, _ = loop.iterate(progress)
            if int(progress.env_steps) % 1024 == 0:
                found.setdefault(int(progress.env_steps), set()).add((metrics["updates"], int(progress.state.updates)))
    for env_steps, counted in found.items():
        expected = int((env_steps - 300) * ratio / 16)
        assert counted == {(expected, expected)}


def test_warm_up_and_counters_are_of_the_whole_run():
    algorithm = Watcher(spec=Chain.spec, warmup_env_steps=100, replay_ratio=8.0)
    assert [updates_due(algorithm, steps) for steps in (0, 100, 101, 102, 200)] == [0, 0, 0, 1, 50]
    straight = loop_of(warmup_env_steps=100)
    progress, _ = iterated(straight, 12)
    other, (halfway, _) = loop_of(warmup_env_steps=100), iterated(loop_of(warmup_env_steps=100), 5)
    assert int(halfway.state.updates) == 0 < int(progress.state.updates) == (192 - 100) // 2
    with pytest.raises(RuntimeError, match="The replay holds 0 steps a slot, and the progress was made with 80"):
        other.iterate(halfway)


def compilations():
    programs = (off_policy._iterate, off_policy._learn, off_policy._measured, off_policy._tree, measures)
    return [program._cache_size() for program in programs]


def test_nothing_is_compiled_after_the_first_learning_iteration_however_many_updates_it_does():
    loop = loop_of(rollout_steps=64, learn_every=32)
    progress, _ = iterated(loop, 2)
    before = compilations()
    progress, _ = iterated(loop, 3, progress)
    assert compilations() == before
    _, metrics = iterated(loop_of(rollout_steps=64, learn_every=32, replay_ratio=2048.0, root=5), 2)
    assert compilations() == before and metrics["updates"] == 96 * 128, "nor for 256 times the updates"


# --- runs of the registry's algorithms ---

SMALL = {
    "hidden": (8,), "rollout_steps": 16, "learn_every": 8, "batch_size": 8, "warmup_env_steps": 32,
    "replay_capacity": 96, "replay_ratio": 4.0,
}  # fmt: skip
PLANS = {
    "pure": Plan("Pendulum-v1", {"max_episode_steps": 10}, "sac", {**SMALL, "num_envs": 2}, 3),
    "pure, prioritised": Plan(
        "CartPole-v1", {}, "dqn", {**SMALL, "num_envs": 2, "anneal_env_steps": 500, "prioritised": True}, 3,
    ),
    "host": Plan("Hopper-v5", {}, "sac", {**SMALL, "num_envs": 2, "n_steps": 3, "normalise_observations": True}, 3),
    "host, prioritised": Plan(
        "CartPole-v1", {"frame_stack": 2}, "dqn",
        {**SMALL, "num_envs": 2, "anneal_env_steps": 500, "prioritised": True}, 3,
    ),
}  # fmt: skip


def made(name):
    plan = PLANS[name]
    return make_loop(plan, plan.spec(), 1)


def restored(loop, progress, other):
    """Bring another loop to where this one stands, through arrays alone, as a checkpoint does."""
    stored = {name: array.copy() for name, array in flatten_arrays(progress).items()}
    parts = {}
    for name, segments in loop.segments().items():
        begin, end = segments.cursor(progress)
        half = (begin + end) // 2
        parts[name] = (begin, [segments.read(begin, half), segments.read(half, end)])
    for name, segments in other.segments().items():
        segments.restore(*parts[name])
    return restore_arrays(other.start(), stored)


@pytest.mark.parametrize("name", list(PLANS))
def test_a_loop_goes_on_from_arrays_to_the_same_bits(name):
    """State, running moments, tree, counters and replay, where the ring has wrapped."""
    loop, other = made(name), made(name)
    progress, _ = iterated(loop, 6)
    begun = restored(loop, progress, other)
    for _ in range(4):
        progress, metrics, _ = loop.iterate(progress)
        begun, same, _ = other.iterate(begun)
        assert digest(progress) == digest(begun)
        assert metrics == pytest.approx(same, nan_ok=True)
    first, count = int(progress.data.cursor.first), int(progress.data.cursor.count)
    assert first > 0 and count == 160
    for one in (loop, other):
        one.close()


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        (name, moment)
        for name in PLANS
        for moment in ("between rounds", "after the last")
        if name.startswith("host") or moment != "between rounds"  # a pure iteration is one program
    ],
)
def test_an_iteration_that_is_given_up_has_done_nothing(name, moment, monkeypatch):
    loop, straight = made(name), made(name)
    progress, _ = iterated(loop, 7)
    expected, _ = iterated(straight, 9)

    def interrupt(*given):
        monkeypatch.undo()
        raise KeyboardInterrupt

    if moment == "after the last":
        monkeypatch.setattr(loop, "_moved_on", interrupt)
    else:
        collect, rounds = loop.collector.collect, []

        def collected(*given):
            rounds.append(given)
            return interrupt() if len(rounds) == 2 else collect(*given)

        monkeypatch.setattr(loop.collector, "collect", collected)
    with pytest.raises(KeyboardInterrupt):
        loop.iterate(progress)
    begun = restored(loop, progress, other := made(name))
    assert digest(iterated(other, 2, begun)[0]) == digest(expected), "what was saved after it"
    assert digest(iterated(loop, 2, progress)[0]) == digest(expected), "and what it would go on to"
    for one in (loop, straight, other):
        one.close()


def test_running_moments_are_those_of_all_observations_acted_on():
    loop = made("host")
    progress, _ = iterated(loop, 3)
    acted_on = np.asarray(loop.arrays.rows.obs)[:48].reshape(96, -1).astype(np.float64)
    moments = progress.state.observations
    assert float(moments.count) == 96
    np.testing.assert_allclose(moments.mean, acted_on.mean(0), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(moments.deviation / 96, acted_on.var(0), rtol=1e-6, atol=1e-9)
    loop.close()


def test_priorities_are_of_the_steps_that_may_be_sampled_and_of_no_other():
    loop = made("pure, prioritised")
    progress, _ = iterated(loop, 9)
    leaves, cursor = np.asarray(progress.data.priorities), progress.data.cursor
    alive = np.arange(int(cursor.first) * 2, int(cursor.count) * 2) % len(leaves)
    assert set(np.flatnonzero(leaves).tolist()) == set(alive.tolist())
    assert len(np.unique(leaves[alive])) > 10


def test_an_evaluation_needs_no_replay():
    loop = made("pure")
    loop.evaluate(loop.start(), 2)
    assert not loop.arrays._results


def test_a_task_whose_episodes_begin_again_after_a_resume_has_a_seam_and_no_false_successor():
    """The step before is a truncated one, and its successor is the true one."""
    plan = Plan("weird/Declared-v0", {}, "sac", {**SMALL, "num_envs": 2}, 0)
    loop, other = (make_loop(plan, plan.spec(), 1) for _ in range(2))
    progress, _ = iterated(loop, 2)
    came_to = np.array(progress.data.slots.obs, np.float32)
    begun, _ = iterated(other, 1, restored(loop, progress, other))
    index, count = np.array([62, 63, 60]), begun.data.cursor
    found = replay.transitions(other.size, other.arrays.rows, count, index, jnp.ones(3), 3, jnp.float32(0.9))
    rows = other.arrays.rows
    assert np.abs(np.asarray(rows.obs[32]) - came_to).max() > 0.01, "another episode has begun"
    ended = np.asarray(rows.terminated | rows.truncated)[31]
    for slot in range(2):
        if not ended[slot]:
            np.testing.assert_array_equal(found.next_obs[slot], came_to[slot])
        assert bool((found.terminated | found.truncated)[slot]) and int(found.steps[slot]) == 1
    assert not ended.all() and int(found.steps[2]) <= 2
    for one in (loop, other):
        one.close()


# --- what cannot be ---

SPEC = EnvSpec("Box", Box.unbounded(3), Box((-1.0,), (1.0,)), 100)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learn_every": 7}, r"SAC.learn_every must divide rollout_steps.* got 7 and 256"),
        ({"warmup_env_steps": 100}, r"SAC.batch_size must not exceed warmup_env_steps.* got 256 and 100. Raise"),
        ({"replay_capacity": 255}, r"SAC.replay_capacity must be at least 256 steps.* got 255"),
        ({"num_envs": 64, "replay_capacity": 300, "n_steps": 5}, r"must be at least 320 steps, a batch and n_steps of"),
        ({"replay_ratio": 0.0}, r"SAC.replay_ratio must be"),
        ({"target_entropy": -1.0, "learn_temperature": False}, r"SAC.target_entropy has no effect without"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        registry.make("sac", SPEC, settings)


def test_slots_of_a_plan_are_those_of_the_algorithm():
    plan = replace(PLANS["pure"], slots=5)
    with pytest.raises(UsageError, match="sac acts in num_envs slots: set that, and leave slots=5 out"):
        make_loop(plan, plan.spec(), 1)


def test_a_replay_that_does_not_fit_is_refused_before_anything_is_made(monkeypatch):
    hardware = replace(machine.describe_hardware(), memory_bytes=2**30)
    monkeypatch.setattr(replay_arrays, "describe_hardware", lambda: hardware)
    plan = replace(PLANS["host"], settings={**PLANS["host"].settings, "replay_capacity": 100_000_000})
    with pytest.raises(UsageError) as refused:
        make_loop(plan, plan.spec(), 1)
    said = str(refused.value)
    assert "SAC.replay_capacity of 100,000,000 steps of Hopper-v5 needs" in said and "this machine has 1.0" in said
    fits = int(said.split("about ")[1].split(" steps")[0].replace(",", ""))
    for capacity, does_fit in ((0.95 * fits, True), (1.05 * fits, False)):
        algorithm = plan.make_algorithm(plan.spec())
        size = replace(algorithm, replay_capacity=int(capacity))
        assert (replay_arrays.replay_bytes(size) <= replay_arrays.MEMORY_SHARE * 2**30) == does_fit
