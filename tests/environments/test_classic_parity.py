"""Classic control equals Gymnasium over whole episodes, from equal states and actions.

Measured with Gymnasium 1.4 and JAX 0.10 on an x86-64 CPU: no difference at all in any observation, flag or reward,
Acrobot's 500 steps included, but for the last float32 bit of 0.001 u^2 in Pendulum's reward (2.4e-10: NumPy's float32
power is not always the rounded product). CartPole balanced for hundreds of steps is the exception: see its own test.
"""

import functools
import importlib
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete
from workhorse.environments import registry
from workhorse.environments.classic.acrobot import Acrobot


class Case(NamedTuple):
    """A task with options, those Gymnasium has as attributes, whether some episode
    terminates, and how much a reward may differ."""

    task: str
    options: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    reaches: bool = True
    reward_error: float = 0.0


CASES = {
    "cart_pole": Case("CartPole-v1"),
    "cart_pole_book": Case("CartPole-v1", {"sutton_barto_reward": True}),
    "cart_pole_short": Case("CartPole-v1", {"max_episode_steps": 7}, reaches=False),
    "pendulum": Case("Pendulum-v1", reaches=False, reward_error=3e-10),
    "pendulum_moon": Case("Pendulum-v1", {"g": 1.62}, reaches=False, reward_error=3e-10),
    "acrobot": Case("Acrobot-v1"),
    "acrobot_nips": Case("Acrobot-v1", *[{"book_or_nips": "nips", "dt": 0.1}] * 2, reaches=False),
    "mountain_car": Case("MountainCar-v0"),
    "mountain_car_fast": Case("MountainCar-v0", {"goal_velocity": 0.03}),
    "mountain_car_continuous": Case("MountainCarContinuous-v0"),
    "mountain_car_continuous_fast": Case("MountainCarContinuous-v0", {"goal_velocity": 0.02}),
}
EPISODES = 20
KEY = jax.random.key(0)


@functools.cache
def free_run(env: Any) -> Any:
    """All steps of an episode from its first state, by the actions alone."""
    return jax.jit(lambda state, actions: jax.lax.scan(lambda s, a: env.step(s, a, KEY), state, actions)[1])


@functools.cache
def forced_steps(env: Any) -> Any:
    """One step from each of many states; returns (states after, steps)."""
    return jax.jit(jax.vmap(lambda state, action: env.step(state, action, KEY)))


def gymnasium_env(case: Case) -> Any:
    options = {name: value for name, value in case.options.items() if name not in case.attributes}
    env = gymnasium.make(case.task, **options)
    for name, value in case.attributes.items():
        setattr(env.unwrapped, name, value)
    return env


def our_state(env: Any, physics: Any) -> Any:
    state, _ = env.reset(jax.random.key(0))
    return state._replace(physics=jnp.asarray(physics, jnp.float64))


def policy(theirs: Any, episode: int, rng: np.random.Generator) -> Any:
    """Random actions; in every fourth episode one that pumps energy, so that goals are reached."""

    def act(obs: np.ndarray) -> Any:
        space = theirs.action_space
        if episode % 4 == 0 and len(obs) == 2:
            push = 1 if obs[1] >= 0 else -1
            return push + 1 if isinstance(space, gymnasium.spaces.Discrete) else np.array([1.5 * push], np.float32)
        if episode % 4 == 0 and len(obs) == 6:
            return 2 if obs[4] < 0 else 0
        if isinstance(space, gymnasium.spaces.Discrete):
            return int(rng.integers(space.n))
        return rng.uniform(1.3 * space.low, 1.3 * space.high).astype(np.float32)

    return act


class Episode(NamedTuple):
    """What Gymnasium did: `physics` has one row more than the others, the state of the reset."""

    physics: np.ndarray
    actions: np.ndarray
    obs: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


def gymnasium_episode(theirs: Any, episode: int, act: Any = None) -> Episode:
    obs, _ = theirs.reset(seed=episode)
    act = act or policy(theirs, episode, np.random.default_rng(episode))
    physics, rows, ended = [np.array(theirs.unwrapped.state)], [], False
    while not ended:
        action = act(obs)
        obs, reward, terminated, truncated, _ = theirs.step(action)
        physics.append(np.array(theirs.unwrapped.state, np.float64))
        rows.append((action, obs, float(reward), terminated, truncated))
        ended = terminated or truncated
    return Episode(np.stack(physics), *map(np.array, zip(*rows, strict=True)))


def padded(actions: np.ndarray, length: int) -> np.ndarray:
    """Actions up to the clock's end, so that one compilation serves every episode."""
    return np.concatenate([actions, np.repeat(actions[-1:], length - len(actions), axis=0)])


@pytest.mark.parametrize("name", CASES)
def test_whole_episodes_equal_gymnasium(name: str) -> None:
    """Only the first state and the actions are shared: after it, both run freely to the end."""
    case = CASES[name]
    ours, theirs = registry.make(case.task, **case.options), gymnasium_env(case)
    limit, goals = ours.spec.max_episode_steps, 0
    assert limit is not None
    for number in range(EPISODES):
        episode = gymnasium_episode(theirs, number)
        n = len(episode.reward)
        steps = jax.device_get(free_run(ours)(our_state(ours, episode.physics[0]), padded(episode.actions, limit)))
        assert steps.obs.dtype == np.float32
        assert steps.reward.dtype == np.float64
        np.testing.assert_array_equal(steps.terminated[:n], episode.terminated)
        np.testing.assert_array_equal(steps.truncated[:n], episode.truncated)
        np.testing.assert_array_equal(steps.next_obs[:n], episode.obs)
        np.testing.assert_allclose(steps.reward[:n], episode.reward, rtol=0, atol=case.reward_error)
        goals += int(episode.terminated[-1])
    assert (goals > 0) == case.reaches


def test_every_step_of_a_balanced_cart_pole_equals_gymnasium() -> None:
    """500 steps, each from Gymnasium's own state: at most 1e-15 apart.

    Left free, the two part: sines differ in the last bit, multiply-adds are contracted, and an open-loop pole
    multiplies a difference by e^4 a second. Measured over six episodes: equal observations for 118 to 195 steps, 1e-9
    passed between steps 177 and 261, and so at 500 steps nothing is left of it (with contraction off, the same).
    """
    ours, theirs = registry.make("CartPole-v1"), gymnasium.make("CartPole-v1")
    for number in range(5):
        episode = gymnasium_episode(theirs, number, balance)
        assert episode.truncated[-1]
        states = our_state(ours, episode.physics[:-1])._replace(clock=jnp.arange(500, dtype=jnp.int32))
        after, steps = jax.device_get(forced_steps(ours)(states, episode.actions))
        np.testing.assert_allclose(after.physics, episode.physics[1:], rtol=0, atol=1e-15)
        np.testing.assert_allclose(steps.next_obs, episode.obs, rtol=1.2e-7, atol=0)
        np.testing.assert_array_equal(steps.reward, episode.reward)
        np.testing.assert_array_equal(steps.terminated, episode.terminated)
        np.testing.assert_array_equal(steps.truncated, episode.truncated)
        free = free_run(ours)(our_state(ours, episode.physics[0]), episode.actions)
        np.testing.assert_allclose(free.obs[:100], episode.obs[:100], rtol=0, atol=1e-9)


def balance(obs: np.ndarray) -> int:
    return int(obs[2] + 0.3 * obs[3] + 0.05 * obs[0] + 0.1 * obs[1] > 0)


@pytest.mark.parametrize("name", ["mountain_car_fast", "mountain_car_continuous_fast"])
def test_walls_goals_and_slow_arrivals_equal_gymnasium(name: str) -> None:
    """One step from 600 states about the left wall and the goal, where bounds and the goal's velocity decide."""
    case, rng = CASES[name], np.random.default_rng(0)
    ours, theirs = registry.make(case.task, **case.options), gymnasium_env(case)
    continuous = "Continuous" in case.task
    place = rng.choice([-1.19, 0.44 if continuous else 0.49, 0.59], 600)
    physics = np.stack([place + rng.uniform(-0.02, 0.01, 600), rng.uniform(-0.07, 0.07, 600)], axis=1)
    physics = physics.astype(np.float32) if continuous else physics
    actions = rng.uniform(-1.3, 1.3, (600, 1)).astype(np.float32) if continuous else rng.integers(3, size=600)
    states = our_state(ours, physics)._replace(clock=jnp.ones(600, jnp.int32))
    _, steps = jax.device_get(forced_steps(ours)(states, actions))
    theirs.reset(seed=0)
    slow = 0
    for row in range(600):
        theirs.unwrapped.state = physics[row]
        obs, reward, terminated, _, _ = theirs.unwrapped.step(actions[row])
        np.testing.assert_array_equal(steps.next_obs[row], obs)
        assert steps.terminated[row] == terminated
        # 100 - 0.1 u^2 may be contracted: the last bit of a hundred. Without the hundred there is but one rounding.
        assert abs(steps.reward[row] - reward) <= (np.spacing(100.0) if terminated else 0)
        slow += int(not terminated and obs[0] > 0.5 and obs[1] > 0)
    assert slow > 20
    assert 50 < steps.terminated.sum() < 550


RESETS = {
    "CartPole-v1": ([-0.05] * 4, [0.05] * 4),
    "Pendulum-v1": ([-np.pi, -1.0], [np.pi, 1.0]),
    "Acrobot-v1": ([-0.1] * 4, [0.1] * 4),
    "MountainCar-v0": ([-0.6, 0.0], [-0.4, 0.0]),
    "MountainCarContinuous-v0": ([-0.6, 0.0], [-0.4, 0.0]),
}


@pytest.mark.parametrize("task", RESETS)
def test_resets_are_uniform_in_gymnasiums_bounds(task: str) -> None:
    """Mean, spread, fourth moment and extremes of 20,000 draws; five standard errors."""
    count = 20_000
    states, obs = jax.vmap(registry.make(task).reset)(jax.random.split(jax.random.key(1), count))
    physics, (low, high) = np.asarray(states.physics), map(np.array, RESETS[task])
    assert physics.dtype == np.float64
    assert obs.dtype == np.float32
    assert np.all(states.clock == 0)
    assert np.all(physics >= low - 1e-8)
    assert np.all(physics <= high + 1e-8)
    moving = high > low
    assert np.all(physics[:, ~moving] == 0)
    unit = (physics[:, moving] - low[moving]) / (high - low)[moving]
    for power in (1, 2, 4):
        error = np.sqrt((1 / (2 * power + 1) - 1 / (power + 1) ** 2) / count)
        np.testing.assert_allclose(np.mean(unit**power, axis=0), 1 / (power + 1), atol=5 * error)
    assert np.all(unit.min(axis=0) < 1e-3)
    assert np.all(unit.max(axis=0) > 1 - 1e-3)
    correlation = np.corrcoef(unit.T) if unit.shape[1] > 1 else np.eye(1)
    np.testing.assert_allclose(correlation, np.eye(len(correlation)), atol=5 / np.sqrt(count))


@pytest.mark.parametrize("task", RESETS)
def test_reset_observations_equal_gymnasiums_for_equal_states(task: str) -> None:
    """To one float32 unit: Gymnasium's Acrobot takes the cosine of a float32, ours of the same number as a float64."""
    theirs, ours = gymnasium.make(task), registry.make(task)
    for seed in range(20):
        obs, _ = theirs.reset(seed=seed)
        expected = theirs.unwrapped.state
        state = our_state(ours, expected)
        if task in ("CartPole-v1", "MountainCar-v0", "MountainCarContinuous-v0"):
            np.testing.assert_array_equal(np.asarray(state.physics, np.float32), obs)
        else:
            module = importlib.import_module(type(ours).__module__)
            np.testing.assert_allclose(module._observe(state.physics), obs, rtol=0, atol=6e-8)


@pytest.mark.parametrize("task", RESETS)
def test_specs_hold_gymnasiums_spaces_and_clock(task: str) -> None:
    theirs, spec = gymnasium.make(task), registry.make(task).spec
    np.testing.assert_array_equal(np.float32(spec.observation.low), theirs.observation_space.low)
    np.testing.assert_array_equal(np.float32(spec.observation.high), theirs.observation_space.high)
    if isinstance(theirs.action_space, gymnasium.spaces.Discrete):
        assert spec.action == Discrete(int(theirs.action_space.n))
    else:
        assert spec.action == Box.of(theirs.action_space.low, theirs.action_space.high)
    assert spec.max_episode_steps == theirs.spec.max_episode_steps
    seconds = getattr(theirs.unwrapped, "dt", getattr(theirs.unwrapped, "tau", None))
    assert spec.step_seconds == seconds
    assert spec.options == ()


def test_torque_noise_is_uniform_and_of_the_given_size() -> None:
    """From rest, the elbow's speed after one short step is linear in the torque, so its draws can be read off."""
    env, quiet = Acrobot(torque_noise_max=0.5, dt=1e-3), Acrobot(dt=1e-3)
    state = our_state(env, np.zeros(4))
    step = jax.jit(jax.vmap(lambda key: env.step(state, 1, key)[0].physics[3]))
    speeds = np.asarray(step(jax.random.split(jax.random.key(0), 4000)))
    one = float(jax.jit(quiet.step)(state, jnp.int32(2), KEY)[0].physics[3])
    torque = speeds / one
    assert np.abs(torque).max() <= 0.5 + 1e-6
    assert np.abs(torque).max() > 0.49
    assert abs(torque.mean()) < 5 * 0.5 / np.sqrt(3 * 4000)
    assert abs(torque.var() - 0.25 / 3) < 0.01


@pytest.mark.parametrize(
    ("task", "options", "match"),
    [
        ("CartPole-v1", {"max_episode_steps": 0}, "CartPole-v1: max_episode_steps must be a whole number of"),
        ("CartPole-v1", {"max_episode_steps": 2.5}, "got 2.5"),
        ("Pendulum-v1", {"g": float("nan")}, "Pendulum-v1: g must be a finite number"),
        ("Pendulum-v1", {"max_episode_steps": True}, "got True"),
        ("Acrobot-v1", {"book_or_nips": "paper"}, "book_or_nips must be 'book' or 'nips', not 'paper'"),
        ("Acrobot-v1", {"torque_noise_max": -1.0}, "torque_noise_max must be at least 0"),
        ("Acrobot-v1", {"dt": 0.0}, "dt must be a positive number"),
        ("Acrobot-v1", {"max_episode_steps": -1}, "got -1"),
        ("MountainCar-v0", {"goal_velocity": float("inf")}, "goal_velocity must be a finite"),
        ("MountainCar-v0", {"max_episode_steps": 0}, "MountainCar-v0: max_episode_steps"),
        ("MountainCarContinuous-v0", {"goal_velocity": float("nan")}, "goal_velocity must be a finite"),
        ("MountainCarContinuous-v0", {"max_episode_steps": 0}, "MountainCarContinuous-v0: max_episode_steps"),
    ],
)
def test_options_out_of_range_are_refused(task: str, options: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        registry.make(task, **options)


def test_changed_options_stand_in_the_spec() -> None:
    spec = registry.make("CartPole-v1", sutton_barto_reward=True, max_episode_steps=None).spec
    assert spec.options == (("max_episode_steps", None), ("sutton_barto_reward", True))
    assert spec.max_episode_steps is None
