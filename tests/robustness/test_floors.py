"""Returns of policies that learn nothing."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Step
from workhorse.environments import batch
from workhorse.robustness import floors
from workhorse.robustness.results import Floor

sys.path.insert(0, str(Path(__file__).parents[1] / "environments"))
import weird_environments  # noqa: F401


class NoisyPay:
    """Pays a standard normal number at every step of sixteen."""

    spec = EnvSpec("NoisyPay-v0", Box((0.0,), (1.0,)), Discrete(2), 16)

    def reset(self, key):
        return jnp.zeros((), jnp.int32), jnp.zeros(1, jnp.float32)

    def step(self, state, action, key):
        obs, reward = jnp.zeros(1, jnp.float32), jax.random.normal(key, dtype=jnp.float64)
        return state + 1, Step(obs, reward, jnp.zeros((), bool), state + 1 >= 16, obs, {})


class Aim:
    """Pays 1 - |a - 0.7| less a little noise of the initial state's, at each of four steps; a in [-1, 1]."""

    spec = EnvSpec("Aim-v0", Box((0.0,), (1.0,)), Box((-1.0,), (1.0,)), 4)

    def reset(self, key):
        return (jnp.zeros((), jnp.int32), jax.random.normal(key, dtype=jnp.float64)), jnp.zeros(1, jnp.float32)

    def step(self, state, action, key):
        (time, luck), obs = state, jnp.zeros(1, jnp.float32)
        reward = (1 - jnp.abs(action[0] - 0.7) + 0.01 * luck).astype(jnp.float64)
        return (time + 1, luck), Step(obs, reward, jnp.zeros((), bool), time + 1 >= 4, obs, {})


def of_aim(monkeypatch, **more):
    monkeypatch.setattr(floors.registry, "make", lambda task, *arguments, **options: Aim())
    return floors.measure_floor("Aim-v0", {}, **more)


def test_the_best_constant_action_is_searched_and_its_trials_are_counted(monkeypatch):
    found = of_aim(monkeypatch, episodes=40)
    assert found.action == pytest.approx((0.7,), abs=0.05)
    assert np.mean(found.constant) == pytest.approx(4.0, abs=0.2) and len(found.constant) == 40
    assert np.mean(found.nothing) == pytest.approx(1.2, abs=0.05)
    assert found.greatest == ("best constant action", pytest.approx(np.mean(found.constant)))
    assert (found.trial_episodes, found.trial_steps) == (192, 768)


def test_the_constant_action_is_chosen_on_other_episodes_than_it_is_scored_on(monkeypatch):
    asked = []

    def noted(env, root, stream, *indices):
        keys = batch.episode_keys(env, root, stream, *indices)
        asked.append((stream, {row.tobytes() for row in keys}))
        return keys

    monkeypatch.setattr(floors, "episode_keys", noted)
    of_aim(monkeypatch, episodes=40)
    scored = [keys for stream, keys in asked if stream == "evaluate"]
    tried = [keys for stream, keys in asked if stream == "reset"]
    assert len(scored) == len(tried) == 3 and scored[0] == scored[1] == scored[2], "all three floors from equal states"
    assert len(set().union(*tried)) == 192 and not set().union(*tried) & scored[0]


@pytest.mark.parametrize(("task", "name", "mean"), [("CartPole-v1", "random policy", 22), ("Pendulum-v1", None, None)])
def test_the_greatest_floor_of_a_task(task, name, mean):
    found = floors.measure_floor(task, {}, episodes=60)
    best, value = found.greatest
    assert value == max(float(np.mean(returns)) for returns in found.policies.values())
    if name is not None:
        assert best == name and value == pytest.approx(mean, abs=4)


def test_a_floor_from_before_the_third_one_has_two():
    assert Floor((0.0,), (1.0,)).policies == {"random policy": (0.0,), "doing nothing": (1.0,)}
    assert Floor((0.0,), (1.0,)).greatest == ("doing nothing", 1.0)


def test_a_noisy_task_draws_anew_at_every_step(monkeypatch):
    monkeypatch.setattr(floors.registry, "make", lambda task, *arguments, **options: NoisyPay())
    found = floors.measure_floor("NoisyPay-v0", {}, episodes=1000)
    assert np.var(found.random) == pytest.approx(16, rel=0.2), "256 if one number were paid sixteen times"


@pytest.mark.parametrize(
    ("acted", "nothing", "random"),
    [("discrete", 0, 1 / 3), ("choices", 0.5, (0.5 + 1 / 3 + 0.25 + 0.5) / 4), ("switches", 0.5, 0.5)],
)
def test_each_kind_of_action_has_a_floor(acted, nothing, random):
    found = floors.measure_floor("weird/Answer-v0", {"acted": acted}, episodes=60)
    assert found.nothing == (nothing,) * 60
    assert np.mean(found.random) == pytest.approx(random, abs=0.2)
    assert np.std(found.random) > 0.1
    assert np.mean(found.constant) >= nothing, "the best choice of all"


def test_bounds_on_one_side_are_kept():
    found = floors.measure_floor("weird/Answer-v0", {"acted": "above"}, episodes=20)  # an action outside raises
    assert found.nothing == (0.0,) * 20
