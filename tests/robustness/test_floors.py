"""Returns of policies that learn nothing."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Step
from workhorse.robustness import floors

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


def test_bounds_on_one_side_are_kept():
    found = floors.measure_floor("weird/Answer-v0", {"acted": "above"}, episodes=20)  # an action outside raises
    assert found.nothing == (0.0,) * 20
