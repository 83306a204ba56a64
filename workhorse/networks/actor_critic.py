"""A stochastic policy and a value function, two networks apart."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from workhorse.core.algorithm import Key
from workhorse.core.spec import ActionSpace, Box, Discrete, MultiDiscrete
from workhorse.math.choices import grouped
from workhorse.math.distributions import Bernoullis, Categorical, Categoricals, DiagonalGaussian, Distribution
from workhorse.networks.heads import num_outputs
from workhorse.networks.initialisers import glorot_uniform, orthogonal
from workhorse.networks.mlp import MLP
from workhorse.networks.recurrent import Recurrent

__all__ = ["ActorCritic", "StochasticPolicy", "perceptron"]

HIDDEN_GAIN = 2**0.5


class StochasticPolicy(eqx.Module):
    """Function from a scaled observation to the distribution of the action.

    Attributes:
        network: outputs the mean of each component of a `Box`, a score for each choice, the log odds of each switch.
        log_std: logarithm of each component's standard deviation, the same everywhere; None for other actions.
        action: the kind of actions.
    """

    network: MLP | Recurrent
    log_std: Float[Array, "A"] | None
    action: ActionSpace = eqx.field(static=True)

    def __call__(self, observation: Float[Array, "D"]) -> Distribution:
        assert isinstance(self.network, MLP), "a policy with memory is asked by `recall`"
        return self.distribution(self.network(observation))

    def recall(
        self, observation: Float[Array, "D"], memory: Float[Array, "H"]
    ) -> tuple[Distribution, Float[Array, "H"]]:
        """Return the distribution of the action of a policy with memory, and the memory afterwards."""
        assert isinstance(self.network, Recurrent)
        outputs, memory = self.network(observation, memory)
        return self.distribution(outputs), memory

    def distribution(self, outputs: Float[Array, "out"]) -> Distribution:
        """Return the distribution that the network's outputs stand for."""
        if self.log_std is not None:
            return DiagonalGaussian(outputs, self.log_std)
        match self.action:
            case Discrete():
                return Categorical(outputs)
            case MultiDiscrete(counts):
                return Categoricals(grouped(outputs, counts))
        return Bernoullis(outputs)


class ActorCritic(NamedTuple):
    """Two networks that share nothing, so that the value's loss cannot move the policy."""

    policy: StochasticPolicy
    value: MLP | Recurrent

    @staticmethod
    def create(
        key: Key,
        observation_size: int,
        action: ActionSpace,
        hidden: Sequence[int],
        *,
        activation: str,
        is_orthogonal: bool,
        is_recurrent: bool = False,
        log_std: float | Float[Array, ""],
    ) -> "ActorCritic":
        """Make networks that have learnt nothing.

        Orthogonal: gain sqrt(2) in hidden layers, 0.01 in the policy's last one, 1 in the value's. Otherwise Glorot's
        uniform weights throughout. Biases are zero. Recurrent: the first of `hidden` is a gated recurrent unit, with
        Equinox's own uniform weights and biases.
        """
        policy_key, value_key = jax.random.split(key)
        std = jnp.full(action.size, log_std, jnp.float32) if isinstance(action, Box) else None

        def network(key: Key, outputs: int, last_gain: float) -> MLP | Recurrent:
            if not is_recurrent:
                return perceptron(key, (observation_size, *hidden, outputs), activation, is_orthogonal, last_gain)
            cell_key, key = jax.random.split(key)
            cell = eqx.nn.GRUCell(observation_size, hidden[0], dtype=jnp.float32, key=cell_key)
            return Recurrent(cell, perceptron(key, (*hidden, outputs), activation, is_orthogonal, last_gain))

        policy, value = network(policy_key, num_outputs(action), 0.01), network(value_key, 1, 1.0)
        return ActorCritic(StochasticPolicy(policy, std, action), value)


def perceptron(key: Key, sizes: Sequence[int], activation: str, is_orthogonal: bool, last_gain: float) -> MLP:
    """Make a perceptron with biases."""
    keys = jax.random.split(key, len(sizes) - 1)
    weights = []
    for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        gain = last_gain if layer == len(sizes) - 2 else HIDDEN_GAIN
        make = orthogonal(keys[layer], fan_out, fan_in, gain) if is_orthogonal else None
        weights.append(glorot_uniform(keys[layer], fan_out, fan_in) if make is None else make)
    return MLP(tuple(weights), tuple(jnp.zeros(size, jnp.float32) for size in sizes[1:]), activation)
