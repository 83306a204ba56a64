"""A random action at every step: what a policy that knows nothing earns."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from workhorse.algorithms.rules.drive import action_layers, flattened, middle_action
from workhorse.algorithms.rules.zero import Clock, Untrained
from workhorse.core.algorithm import Key
from workhorse.core.configuration import configuration
from workhorse.core.layers import Dense, PolicyNetwork, head_for
from workhorse.core.spec import Box, Discrete, MultiBinary, MultiDiscrete
from workhorse.networks.heads import num_outputs

__all__ = ["RandomAction"]


@configuration
class RandomAction(Untrained):
    """Uniform between two bounds and over choices; standard normal, clipped to the bound there may be, elsewhere.

    It is random in evaluations as well, from the address of the episode and the step. *Its artefact cannot draw
    continuous actions*: no layer draws uniformly, so that it holds the middle action. Choices it draws uniformly, with
    `deterministic=False`.
    """

    name = "random"
    summary = "a random action at every step"

    def act(
        self, actor: tuple[()], carry: tuple[()], obs: Array, key: Key, *, explore: bool
    ) -> tuple[Array, tuple[()], None]:
        space = self.spec.action
        match space:
            case Discrete(count):
                return jax.random.randint(key, (), 0, count), carry, None
            case MultiDiscrete(counts):
                return jax.random.randint(key, (len(counts),), 0, jnp.array(counts)), carry, None
            case MultiBinary(size):
                return jax.random.randint(key, (size,), 0, 2).astype(jnp.int8), carry, None
        low, high = (np.array(bound, np.float32).reshape(space.shape) for bound in (space.low, space.high))
        with np.errstate(over="ignore", invalid="ignore"):
            bounded = np.isfinite(high - low)
        start, span = np.where(bounded, low, 0), np.where(bounded, high - low, 0)
        uniform_key, normal_key = jax.random.split(key)
        zero, one = jnp.float32(0), jnp.float32(1)  # Python's would pass through float64
        drawn = start + span * jax.random.uniform(uniform_key, space.shape, jnp.float32, zero, one)
        normal = jax.random.normal(normal_key, space.shape, jnp.float32)
        return jnp.clip(jnp.where(bounded, drawn, normal), low, high), carry, None

    def policy_layers(self, actor: tuple[()]) -> PolicyNetwork:
        space, size = self.spec.action, self.spec.observation.size
        if isinstance(space, Box):
            return action_layers(self.spec, middle_action(space))
        blind = Dense(np.zeros((num_outputs(space), size)))  # equal logits: every choice is as likely as any other
        return (*flattened(self.spec.observation), blind, head_for(space, draws=True))

    def in_words(self, state: Clock) -> str:
        """Return the policy in plain words."""
        return "act at random"
