"""Rollouts on a pure environment: what is drawn for each of their steps."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.algorithms import registry
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Step
from workhorse.training.on_policy import JaxRollouts


@dataclass(frozen=True)
class Drawn:
    """Shows the number that its reset drew, pays the number that its step drew, and ends."""

    spec = EnvSpec("Drawn-v0", Box((0.0,), (1.0,)), Discrete(2), 1)

    def reset(self, key):
        return jnp.zeros((), jnp.int32), jax.random.uniform(key, (1,), jnp.float32)

    def step(self, state, action, key):
        obs, reward = jnp.zeros(1, jnp.float32), jax.random.uniform(key, (), jnp.float32).astype(jnp.float64)
        return state, Step(obs, reward, jnp.ones((), bool), jnp.ones((), bool), obs, {})


def test_where_an_episode_starts_has_nothing_to_do_with_what_ended_the_one_before():
    algorithm = registry.make("a2c", Drawn.spec, {"num_envs": 64, "rollout_steps": 64, "policy": "linear"})
    rollouts = JaxRollouts(algorithm, Drawn(), 0)
    actor, slots = algorithm.actor(algorithm.init(jax.random.key(0))), rollouts.start()
    rollout, *_ = rollouts.gather(actor, slots, 0)
    shown, paid = np.asarray(rollout.obs)[..., 0], np.asarray(rollout.reward)
    assert len(np.unique(np.concatenate([shown, paid]).astype(np.float32))) > 0.99 * 2 * shown.size
    together = np.corrcoef(paid[:-1].ravel(), shown[1:].ravel())[0, 1]
    assert abs(together) < 4 / np.sqrt(paid[:-1].size), "1 where a reset repeats the step's draws"
