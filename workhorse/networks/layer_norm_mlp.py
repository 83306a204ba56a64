"""Perceptrons whose hidden units are normalised over the layer."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from workhorse.core.algorithm import Key
from workhorse.networks.mlp import MLP

__all__ = ["LayerNormMLP"]

EPSILON = 1e-5
"""Constant added to a variance."""


class LayerNormMLP(eqx.Module):
    """h_0 = x;  h_k = relu(norm(W_k h_{k-1} + b_k));  y = W_L h_{L-1} + b_L, for one sample.

    norm(z) = scale (z - m) / sqrt(v + 1e-5) + shift, with the mean m and the variance v over the units of the layer.

    A critic of this kind stays bounded by the size of its last weights: however far an action is from all data, the
    hidden units cannot grow with it.

    Attributes:
        dense: weights and biases of all layers.
        scales, shifts: of each hidden layer's norm.

    Source: Ba et al. 2016, "Layer normalization" (arXiv 1607.06450); for critics, Ball et al. 2023, "Efficient online
    reinforcement learning with offline data" (arXiv 2302.02948).
    """

    dense: MLP
    scales: tuple[Float[Array, "_"], ...]
    shifts: tuple[Float[Array, "_"], ...]

    @staticmethod
    def uniform(key: Key, sizes: Sequence[int]) -> "LayerNormMLP":
        """Weights and biases uniform in +- 1 / sqrt(inputs); scales 1 and shifts 0."""
        hidden = sizes[1:-1]
        scales = tuple(jnp.ones(size, jnp.float32) for size in hidden)
        return LayerNormMLP(MLP.uniform(key, sizes), scales, tuple(jnp.zeros_like(scale) for scale in scales))

    def __call__(self, x: Float[Array, "in"]) -> Float[Array, "out"]:
        *hidden, (weight, bias) = zip(self.dense.weights, self.dense.biases, strict=True)
        for (into, offset), scale, shift in zip(hidden, self.scales, self.shifts, strict=True):
            z = into @ x + offset
            centred = z - z.mean()
            deviation = jax.lax.rsqrt(jnp.square(centred).mean() + jnp.float32(EPSILON))
            x = jax.nn.relu(scale * centred * deviation + shift)
        return weight @ x + bias
