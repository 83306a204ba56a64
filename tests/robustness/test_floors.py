"""What a policy that learns nothing earns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Step
from workhorse.robustness import floors


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
