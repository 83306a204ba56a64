"""Perceptrons of one shape, their parameters stacked, so that all of them are one batched product of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.core.algorithm import Key
from workhorse.networks.initialisers import fan_in_uniform

__all__ = ["Ensemble"]

EPSILON = 1e-5
"""Constant added to a variance."""


class Ensemble(eqx.Module):
    """K times h_0 = x;  h_k = relu(norm(W_k h_{k-1} + b_k));  y = W_L h_{L-1} + b_L, each with parameters of its own.

    norm is the identity, or z -> scale (z - m) / sqrt(v + 1e-5) + shift with mean m and variance v over the units of
    the layer.

    Attributes:
        weights: one array (K, out, in) a layer, float32.
        biases: one array (K, out) a layer.
        scales, shifts: (K, out) of each hidden layer's norm; empty where there is none.
    """

    weights: tuple[Float[Array, "K _ _"], ...]
    biases: tuple[Float[Array, "K _"], ...]
    scales: tuple[Float[Array, "K _"], ...] = ()
    shifts: tuple[Float[Array, "K _"], ...] = ()

    @staticmethod
    def uniform(key: Key, count: int, sizes: Sequence[int], layer_norm: bool = False) -> Ensemble:
        """Weights and biases uniform in +- 1 / sqrt(inputs), those of each member drawn by themselves."""
        keys = jax.random.split(key, 2 * (len(sizes) - 1))
        pairs = list(pairwise(sizes))
        weights = tuple(fan_in_uniform(keys[2 * n], (count, b, a), a) for n, (a, b) in enumerate(pairs))
        biases = tuple(fan_in_uniform(keys[2 * n + 1], (count, b), a) for n, (a, b) in enumerate(pairs))
        if not layer_norm:
            return Ensemble(weights, biases)
        scales = tuple(jnp.ones_like(bias) for bias in biases[:-1])
        return Ensemble(weights, biases, scales, tuple(map(jnp.zeros_like, scales)))

    def __call__(self, x: Float[Array, "*K N in"]) -> Float[Array, "K N out"]:
        """Return every member's outputs on rows (N, in), or on rows of its own, (K, N, in)."""
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = jnp.einsum("ni,koi->kno" if x.ndim == 2 else "kni,koi->kno", x, weight) + bias[:, None]
            if layer < last:
                if self.scales:
                    centred = x - x.mean(-1, keepdims=True)
                    deviation = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + jnp.float32(EPSILON))
                    x = centred * deviation * self.scales[layer][:, None] + self.shifts[layer][:, None]
                x = jax.nn.relu(x)
        return x

    def values(self, obs: Float[Array, "N D"], action: Float[Array, "N A"]) -> Float[Array, "K N"]:
        """Return every member's value of actions, of an ensemble with one output."""
        return self(jnp.concatenate([obs, action], axis=1))[..., 0]

    def members(self, index: Int[Array, "k"]) -> Ensemble:
        """Return the ensemble of some members."""
        return jax.tree.map(lambda leaf: leaf[index], self)
