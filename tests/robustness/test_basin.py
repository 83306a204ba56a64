"""Share of states from which a policy holds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.core.errors import UsageError
from workhorse.core.layers import Dense, Mode
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Step
from workhorse.environments.batch import JaxBatch
from workhorse.environments.registry import make
from workhorse.robustness.basin import measure_basin
from workhorse.runs.policy import Policy


class Cliff:
    """x' = x + 0.5 u with a clock of 10; it ends where |x| > 3. It begins anywhere in [1, 2)."""

    def __init__(self, noise: float = 0.0, clock: int | None = 10) -> None:
        self.noise = noise
        self.spec = EnvSpec("Cliff-v0", Box.unbounded(1), Box((-9.0,), (9.0,)), clock)

    def reset(self, key):
        x = jax.random.uniform(key, (1,), jnp.float64, 1, 2)
        return x, x

    def step(self, state, action, key):
        x = state + 0.5 * action + self.noise * jax.random.normal(key, (1,))
        return x, Step(x, -jnp.abs(x[0]), jnp.abs(x[0]) > 3, jnp.zeros((), bool), x, {})


def acting(weight, bias=0.0):
    layers = (Dense(np.array([[weight]], np.float32), np.array([bias], np.float32)), Mode())
    return Policy(layers, observation=Box.unbounded(1), action=Box((-9.0,), (9.0,)), task="Cliff-v0")


def test_the_shares_are_those_of_a_task_that_can_be_counted_by_hand():
    """With no action a state stays where it is: those within 3 hold."""
    env, count = JaxBatch(Cliff(), 16), 200
    found = measure_basin(env, acting(0.0), 3, states=count, factors=(1, 2, 4), target=(0.0,), tolerance=1e9)
    starts = measured_starts(env, 3, count)
    assert found.held == tuple(int((factor * starts <= 3).sum()) for factor in (1, 2, 4))
    assert found.held[0] == count > found.held[1] > found.held[2] == 0
    assert found.states == count and found.limit == 10
    share = found.shares()[1]
    assert share.value == found.held[1] / count and share.low < share.value < share.high


def measured_starts(env, root, count):
    from workhorse.environments.batch import episode_keys

    size = env.num_slots
    numbers = [np.arange(begin, begin + size) for begin in range(0, count, size)]
    parts = [env.reset(episode_keys(env, root, "evaluate", 0, chunk)) for chunk in numbers]
    return np.concatenate(parts)[:count, 0]


def test_states_are_widened_around_their_mean_where_there_is_no_target():
    env, count = JaxBatch(Cliff(), 16), 160
    found = measure_basin(env, acting(0.0), 0, states=count, factors=(5,))
    starts = measured_starts(env, 0, count)
    wider = starts.mean() + 5 * (starts - starts.mean())
    assert found.held == (int((np.abs(wider) <= 3).sum()),)


def test_the_first_action_is_the_one_for_the_initial_state_and_later_ones_are_for_what_is_seen():
    """x1 = f x0 - 0.5 x0, then half of it at each step: after three steps (f - 0.5) x0 / 4."""
    env = JaxBatch(Cliff(), 8)
    starts = np.sort(measured_starts(env, 0, 8))
    edge = 1.5 * starts[3:5].mean() / 4
    found = measure_basin(env, acting(-1.0), 0, states=8, factors=(2,), target=(0.0,), tolerance=edge, limit=3)
    assert found.held == (4,) and found.limit == 3


def test_what_ended_does_not_come_back():
    """The policy throws a state out and would bring it back at once."""
    env = JaxBatch(Cliff(), 8)
    found = measure_basin(env, acting(-8.0, 30.0), 0, states=8, factors=(1,), limit=2)
    assert found.held == (0,) and found.env_steps == 8


def test_a_state_that_noise_has_thrown_out_does_not_come_back():
    """A random walk of ten steps that ends outside 3, played by itself."""
    rng, walks, alive = np.random.default_rng(0), np.random.default_rng(1).uniform(1, 2, 20_000), np.ones(20_000, bool)
    for _ in range(10):
        walks += 0.7 * rng.standard_normal(len(walks))
        alive &= np.abs(walks) <= 3
    found = measure_basin(JaxBatch(Cliff(noise=0.7), 16), acting(0.0), 0, states=800, factors=(1,))
    assert found.shares()[0].value == pytest.approx(alive.mean(), abs=0.06)


def test_noise_differs_from_step_to_step():
    """Ten draws of one size add up to sqrt(10) of it and not to 10."""
    env = JaxBatch(Cliff(noise=0.2), 16)
    found = measure_basin(env, acting(0.0), 0, states=400, factors=(1e-9,), target=(0.0,), tolerance=0.2 * 10**0.5)
    assert found.shares()[0].value == pytest.approx(0.683, abs=0.07)


def test_a_cart_of_mujoco_holds_as_in_an_evaluation():
    """Pushing against the pole's fall holds a second from all states of the task's own, and not from wide ones."""
    env = make("InvertedPendulum-v5", 10, 1)
    weight = np.array([[0.3, 8.0, 0.4, 1.3]], np.float32)
    policy = Policy(
        (Dense(weight), Mode()), observation=env.spec.observation, action=env.spec.action, task=env.spec.task
    )
    found = measure_basin(env, policy, 0, states=25, factors=(1, 100), limit=60)
    assert found.held[0] == 25 and found.held[1] < 15
    env.close()


@pytest.mark.parametrize(
    ("options", "clock", "message"),
    [
        ({"states": 0}, 10, r"needs states and factors above 0: got states=0"),
        ({"factors": (1, 0)}, 10, r"factors above 0: got states=1000, factors=\(1, 0\)"),
        ({}, None, r"Cliff-v0 has no clock and limit=None: give a limit of at least 1 step"),
        ({"target": (0.0, 1.0), "tolerance": 1.0}, 10, r"must have the 1 coordinates of Cliff-v0: got 2"),
        ({"target": (0.0,)}, 10, r"target and tolerance go together, the latter above 0: got \(0.0,\) and None"),
        ({"target": (0.0,), "tolerance": -1.0}, 10, r"the latter above 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(options, clock, message):
    with pytest.raises(UsageError, match=message):
        measure_basin(JaxBatch(Cliff(clock=clock), 4), acting(0.0), 0, **options)
