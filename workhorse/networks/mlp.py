"""Linear policies and multi-layer perceptrons: one module, a pytree of float32 arrays."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from workhorse.core.algorithm import Key
from workhorse.networks.initialisers import fan_in_uniform

__all__ = ["ACTIVATIONS", "MLP"]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"tanh": jnp.tanh, "relu": jax.nn.relu}
"""Activations of hidden units, by name."""


class MLP(eqx.Module):
    """h_0 = x;  h_k = activation(W_k h_{k-1} + b_k) for the hidden layers;  y = W_L h_{L-1} + b_L.

    Without hidden layers it is linear. Biases may be left out: a linear policy with a bias was seen to get stuck in a
    local optimum of Swimmer (Stable-Baselines3-contrib, issue 42).

    Attributes:
        weights: one matrix (out, in) a layer, float32.
        biases: one vector (out,) a layer, or an empty tuple.
        activation: of the hidden units, a name in `ACTIVATIONS`.
    """

    weights: tuple[Float[Array, "_ _"], ...]
    biases: tuple[Float[Array, "_"], ...]
    activation: str = eqx.field(static=True, default="tanh")

    @staticmethod
    def create(key: Key, sizes: Sequence[int], bias: bool, last_scale: float) -> "MLP":
        """Rows of Gaussian weights scaled to length 1 (hidden layers) or `last_scale` (last layer); zero biases.

        `last_scale=0` makes the policy's output zero at the start. *A row* holds the weights into one unit.

        Source: the initialiser of the code published with Salimans et al. 2017 (there 0.01 for the last layer).
        """
        keys = jax.random.split(key, len(sizes) - 1)
        weights = []
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            rows = jax.random.normal(keys[layer], (fan_out, fan_in), jnp.float32)
            rows = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
            weights.append(rows * jnp.float32(last_scale if layer == len(sizes) - 2 else 1.0))
        biases = tuple(jnp.zeros(size, jnp.float32) for size in sizes[1:]) if bias else ()
        return MLP(tuple(weights), biases)

    @staticmethod
    def uniform(key: Key, sizes: Sequence[int], activation: str = "relu") -> "MLP":
        """Weights and biases uniform in +- 1 / sqrt(inputs), see `initialisers.fan_in_uniform`."""
        keys = jax.random.split(key, 2 * (len(sizes) - 1))
        pairs = list(pairwise(sizes))
        weights = tuple(fan_in_uniform(keys[2 * n], (b, a), a) for n, (a, b) in enumerate(pairs))
        biases = tuple(fan_in_uniform(keys[2 * n + 1], (b,), a) for n, (a, b) in enumerate(pairs))
        return MLP(weights, biases, activation)

    def __call__(self, x: Float[Array, "in"]) -> Float[Array, "out"]:
        return self.layers(x)[-1]

    def layers(self, x: Float[Array, "in"]) -> list[Float[Array, "_"]]:
        """Return the outputs of each layer: the hidden units' activations, and last y."""
        found, last = [], len(self.weights) - 1
        for layer, weight in enumerate(self.weights):
            x = weight @ x
            if self.biases:
                x = x + self.biases[layer]
            if layer < last:
                x = ACTIVATIONS[self.activation](x)
            found.append(x)
        return found
