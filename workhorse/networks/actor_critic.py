"""A stochastic policy and a value function, two networks apart."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from workhorse.core.algorithm import Key
from workhorse.core.spec import Box, Discrete
from workhorse.math.distributions import Categorical, DiagonalGaussian, Distribution
from workhorse.networks.initialisers import glorot_uniform, orthogonal
from workhorse.networks.mlp import MLP

__all__ = ["ActorCritic", "StochasticPolicy", "perceptron"]

HIDDEN_GAIN = 2**0.5


class StochasticPolicy(eqx.Module):
    """From a scaled observation to the distribution of the action.

    Attributes:
        network: outputs the mean of each component, or a score for each choice.
        log_std: logarithm of each component's standard deviation, the same everywhere; None for discrete actions.
    """

    network: MLP
    log_std: Float[Array, "A"] | None

    def __call__(self, observation: Float[Array, "D"]) -> Distribution:
        outputs = self.network(observation)
        return Categorical(outputs) if self.log_std is None else DiagonalGaussian(outputs, self.log_std)


class ActorCritic(NamedTuple):
    """The two networks: they share nothing, so that the value's loss cannot move the policy."""

    policy: StochasticPolicy
    value: MLP

    @staticmethod
    def create(
        key: Key,
        observation_size: int,
        action: Box | Discrete,
        hidden: Sequence[int],
        *,
        activation: str,
        is_orthogonal: bool,
        log_std: float | Float[Array, ""],
    ) -> "ActorCritic":
        """Networks that have learnt nothing.

        Orthogonal: gain sqrt(2) in hidden layers, 0.01 in the policy's last one, 1 in the value's. Otherwise Glorot's
        uniform weights throughout. Biases are zero.
        """
        policy_key, value_key = jax.random.split(key)
        outputs = action.count if isinstance(action, Discrete) else action.size
        std = None if isinstance(action, Discrete) else jnp.full(action.size, log_std, jnp.float32)
        policy = perceptron(policy_key, (observation_size, *hidden, outputs), activation, is_orthogonal, last_gain=0.01)
        value = perceptron(value_key, (observation_size, *hidden, 1), activation, is_orthogonal, last_gain=1.0)
        return ActorCritic(StochasticPolicy(policy, std), value)


def perceptron(key: Key, sizes: Sequence[int], activation: str, is_orthogonal: bool, last_gain: float) -> MLP:
    """A perceptron with biases."""
    keys = jax.random.split(key, len(sizes) - 1)
    weights = []
    for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        gain = last_gain if layer == len(sizes) - 2 else HIDDEN_GAIN
        make = orthogonal(keys[layer], fan_out, fan_in, gain) if is_orthogonal else None
        weights.append(glorot_uniform(keys[layer], fan_out, fan_in) if make is None else make)
    return MLP(tuple(weights), tuple(jnp.zeros(size, jnp.float32) for size in sizes[1:]), activation)
