"""Slots of a pure environment as a host environment: its contract, and the numbers of a plain loop over one slot."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.core.addresses import host_keys
from workhorse.core.errors import UsageError
from workhorse.core.randomness import draw, root_key
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Step
from workhorse.environments import registry
from workhorse.environments.batch import JaxBatch, as_batch, episode_keys
from workhorse.environments.check import check_env
from workhorse.environments.protocol import HostEnv

NOISY = {"torque_noise_max": 1.0, "max_episode_steps": 20}
EPISODES = np.array([4, 0, 7])


class Position(NamedTuple):
    x: Any
    clock: Any


class Fragile:
    """Matrix observations; a measure; noise from the step's key; broken by an action of 1 (reward) or -1 (x)."""

    spec = EnvSpec("Fragile-v0", Box((-9.0,) * 4, (9.0,) * 4, (2, 2)), Box((-1.0,), (1.0,)), 5)

    def reset(self, key):
        x = jax.random.uniform(key, (2, 2), jnp.float32)
        return Position(x, jnp.zeros((), jnp.int32)), x

    def step(self, state, action, key):
        x = jnp.where(action[0] <= -1, jnp.nan, state.x + jax.random.normal(key, (2, 2), jnp.float32))
        reward = jnp.where(action[0] >= 1, jnp.inf, jnp.sum(x).astype(jnp.float64))
        clock, never = state.clock + 1, jnp.zeros((), bool)
        return Position(x, clock), Step(x, reward, never, clock >= 5, x, {"clock": clock})


def fragile(slots: int = 3) -> JaxBatch:
    batch = JaxBatch(Fragile(), slots)
    batch.reset(episode_keys(batch, 0, "reset", np.arange(slots)))
    return batch


@pytest.mark.parametrize(
    ("id", "options"),
    [("CartPole-v1", {}), ("Acrobot-v1", NOISY), ("Pendulum-v1", {"max_episode_steps": 30})],
)
def test_the_contract_of_a_host_environment_holds(id, options):
    check_env(lambda: JaxBatch(registry.make(id, **options), 4))  # type: ignore[arg-type]


def test_numbers_are_those_of_a_plain_loop_over_one_slot():
    env: Any = registry.make("Acrobot-v1", **NOISY)
    batch = JaxBatch(env, len(EPISODES))
    obs = batch.reset(episode_keys(batch, 5, "evaluate", 0, EPISODES))
    actions = np.random.default_rng(0).integers(3, size=(20, len(EPISODES)))
    steps = [batch.step(row) for row in actions]
    advance = jax.jit(jax.vmap(env.step))  # of one slot, mapped: XLA fuses a program without the axis otherwise
    for slot, episode in enumerate(EPISODES):
        key = draw(root_key(5), "evaluate", 0, int(episode))
        state, first = jax.jit(jax.vmap(env.reset))(key[None])
        assert np.array_equal(obs[slot], first[0])
        for time, step in enumerate(steps, start=1):
            state, alone = advance(state, actions[time - 1, slot][None], jax.random.fold_in(key, time)[None])
            for name in ("obs", "reward", "terminated", "truncated", "next_obs"):
                assert np.array_equal(getattr(step, name)[slot], getattr(alone, name)[0]), (name, time)


def test_keys_may_be_typed_and_are_the_folded_ones():
    batch = fragile()
    data = episode_keys(batch, 3, "evaluate", 0, EPISODES)
    base = draw(root_key(3), "evaluate", 0)
    typed = jnp.stack([jax.random.fold_in(base, int(episode)) for episode in EPISODES])
    assert np.array_equal(data, jax.random.key_data(typed))
    assert np.array_equal(batch.reset(data), batch.reset(typed))
    assert episode_keys(batch, 3, "reset", np.arange(2)[:, None], np.arange(4)).shape == (2, 4, 2)
    assert np.array_equal(episode_keys(batch, 3, "reset", 1), jax.random.key_data(draw(root_key(3), "reset", 1)))
    with pytest.raises(TypeError, match="not uint64: use episode_keys"):
        batch.reset(host_keys(3, "evaluate", 0, EPISODES))


def test_a_host_environment_is_left_as_it_is():
    pendulum: Any = registry.make("InvertedPendulum-v5", 2, 1)
    try:
        assert as_batch(pendulum, 2) is pendulum
        assert np.array_equal(episode_keys(pendulum, 1, "reset", np.arange(2)), host_keys(1, "reset", np.arange(2)))
    finally:
        pendulum.close()
    batch = as_batch(Fragile(), 7)
    assert isinstance(batch, JaxBatch) and isinstance(batch, HostEnv) and batch.num_slots == 7


def test_slots_that_are_not_stepped_stand_still():
    batch, whole = fragile(), fragile()
    actions = np.zeros((3, 1), np.float32)
    expected = [whole.step(actions) for _ in range(3)]
    few = np.array([2, 0])
    for time in range(3):
        assert np.array_equal(batch.step(actions[few], few).next_obs, expected[time].next_obs[few])
    for time in range(3):  # slot 1 draws what it would have drawn, by the number of its own steps
        one = batch.step(actions[:1], np.array([1]))
        assert np.array_equal(one.next_obs[0], expected[time].next_obs[1])
        assert one.measures["clock"].tolist() == [time + 1]


@pytest.mark.parametrize("action", [1.0, -1.0])
def test_what_is_not_finite_fails_its_slot_alone(action):
    batch, sound = fragile(), fragile()
    idle = np.zeros((3, 1), np.float32)
    before = batch.step(idle).next_obs
    sound.step(idle)
    found = batch.step(np.array([[0.0], [action], [0.0]], np.float32))
    assert found.measures["failed"].tolist() == [False, True, False]
    assert (found.terminated.tolist(), found.truncated.tolist()) == ([False] * 3, [False, True, False])
    assert found.reward[1] == 0 and np.array_equal(found.next_obs[1], before[1])
    assert np.array_equal(found.next_obs[[0, 2]], sound.step(idle).next_obs[[0, 2]])


def test_an_ended_slot_starts_again_with_the_key_of_its_row():
    batch = fragile()
    for _ in range(4):
        batch.step(np.zeros((3, 1), np.float32))
    slots = np.array([2, 1])
    batch.reset(episode_keys(batch, 1, "reset", slots), slots)  # so that slot 0 alone ends now
    keys = episode_keys(batch, 2, "reset", np.arange(3))
    found = batch.step(np.zeros((3, 1), np.float32), None, keys)
    fresh = fragile().reset(keys)
    assert found.truncated.tolist() == [True, False, False]
    assert np.array_equal(found.obs[0], fresh[0]) and not np.array_equal(found.next_obs[0], fresh[0])
    assert np.array_equal(found.obs[1:], found.next_obs[1:])


def test_a_snapshot_goes_on_to_the_bit():
    batch = fragile()
    actions = np.zeros((3, 1), np.float32)
    batch.step(actions[:2], np.array([0, 2]))
    saved = batch.snapshot()
    assert sorted(saved) == ["keys", "obs", "states/clock", "states/x", "times"]
    expected = [batch.step(actions) for _ in range(3)]
    again = JaxBatch(Fragile(), 3)
    again.restore(saved)
    for step in expected:
        repeated = again.step(actions)
        assert all(np.array_equal(a, b) for a, b in zip(step[:5], repeated[:5], strict=True))
    with pytest.raises(UsageError, match="the snapshot of Fragile-v0"):
        JaxBatch(Fragile(), 4).restore(saved)
