"""Perceptrons whose units are normalised: over the batch, with running statistics for use later, or over the layer.

Written for a batch at once (N, in), unlike the other networks, because a batch norm needs the batch.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from workhorse.core.algorithm import Key
from workhorse.core.layers import Activation, BatchNorm, Dense, Layer, LayerNorm, PolicyNetwork
from workhorse.networks.initialisers import orthogonal
from workhorse.networks.unit_norm import unit_rows, unit_rows_with_bias

__all__ = ["NormalisedMLP", "Statistics", "batch_statistics", "running", "with_unit_weights"]

EPSILON = {"batch": 1e-3, "layer": 1e-5}
"""Constant added to a variance, by the kind of normalisation."""


class Statistics(NamedTuple):
    """Mean and variance of each unit over a batch, or running ones over many."""

    mean: Float[Array, "n"]
    variance: Float[Array, "n"]


AllStatistics: TypeAlias = tuple[Statistics, ...]
"""Statistics of every batch norm of a network, from the input on; none where it has layer norms."""


class NormalisedMLP(eqx.Module):
    """h_0 = norm(x);  h_k = relu(norm(W_k h_{k-1}));  y = W_L h_{L-1} + b_L.

    A batch norm is z -> scale (z - m) / sqrt(v + 1e-3) + shift, with a mean m and a variance v for each unit: those of
    the batch while it is trained, running ones when it is used. A layer norm takes both over the units of one sample,
    and there is none of the input then, whose components have no common unit.

    Attributes:
        scales, shifts: of each norm, from the input on.
        weights: one matrix (out, in) a layer, without biases but for the last.
        bias: of the last layer.
        norm: "batch" or "layer".
    """

    scales: tuple[Float[Array, "_"], ...]
    shifts: tuple[Float[Array, "_"], ...]
    weights: tuple[Float[Array, "_ _"], ...]
    bias: Float[Array, "out"]
    norm: Literal["batch", "layer"] = eqx.field(static=True, default="batch")

    @staticmethod
    def create(key: Key, sizes: Sequence[int], norm: Literal["batch", "layer"] = "batch") -> "NormalisedMLP":
        """Return a network with orthogonal weights, each row of length one; scales 1, shifts and bias 0."""
        keys = jax.random.split(key, len(sizes) - 1)
        weights = tuple(
            unit_rows(orthogonal(one, fan_out, fan_in, 1.0))
            for one, (fan_in, fan_out) in zip(keys, pairwise(sizes), strict=True)
        )
        normed = sizes[:-1] if norm == "batch" else sizes[1:-1]
        scales = tuple(jnp.ones(size, jnp.float32) for size in normed)
        shifts = tuple(jnp.zeros(size, jnp.float32) for size in normed)
        return NormalisedMLP(scales, shifts, weights, jnp.zeros(sizes[-1], jnp.float32), norm)

    def start(self) -> AllStatistics:
        """Return the running statistics before the first batch: mean 0, variance 1."""
        if self.norm == "layer":
            return ()
        return tuple(Statistics(jnp.zeros_like(scale), jnp.ones_like(scale)) for scale in self.scales)

    def __call__(self, x: Float[Array, "N in"], statistics: AllStatistics) -> Float[Array, "N out"]:
        """Return the outputs with running statistics."""
        if self.norm == "layer":
            return self.head(self.hidden(x)[0][0])
        last = len(self.weights) - 1
        for layer, given in enumerate(statistics):
            x = self._normalised(layer, x, given)
            if layer:
                x = jax.nn.relu(x)
            if layer < last:
                x = x @ self.weights[layer].T
        return self.head(x)

    def hidden(
        self, *blocks: Float[Array, "_ in"], frozen: bool = False
    ) -> tuple[tuple[Float[Array, "_ H"], ...], AllStatistics]:
        """Return the last hidden units of blocks of samples, and the statistics of all blocks together.

        Args:
            blocks: of samples, *which are normalised as one batch*.
            frozen: let no gradient through the last block; it only takes part in the statistics.
        """
        statistics: list[Statistics] = []
        found = list(blocks)
        for layer in range(len(self.weights)):
            if frozen:
                found[-1] = jax.lax.stop_gradient(found[-1])
            if self.norm == "batch":
                given = batch_statistics(*found)
                statistics.append(given)
                found = [self._normalised(layer, block, given) for block in found]
            elif layer:
                found = [self._by_layer(layer - 1, block) for block in found]
            if layer:
                found = [jax.nn.relu(block) for block in found]
            if layer < len(self.weights) - 1:
                found = [block @ self.weights[layer].T for block in found]
        return tuple(found), tuple(statistics)

    def head(self, hidden: Float[Array, "N H"]) -> Float[Array, "N out"]:
        """Return the outputs for the last hidden units."""
        return hidden @ self.weights[-1].T + self.bias

    def with_unit_weights(self) -> "NormalisedMLP":
        """Return the network with every unit's weight vector at length one, in the last layer with its bias."""
        *hidden, last = self.weights
        last, bias = unit_rows_with_bias(last, self.bias)
        return NormalisedMLP(self.scales, self.shifts, (*map(unit_rows, hidden), last), bias, self.norm)

    def layers(self, statistics: AllStatistics, outputs: int) -> PolicyNetwork:
        """Return the first `outputs` outputs as the layers of an artefact."""
        found: list[Layer] = []
        inputs = len(self.weights) - len(self.scales)  # norms that are missing: that of the input, or none
        for layer, weight in enumerate(self.weights):
            at = layer - inputs
            if at >= 0 and self.norm == "batch":
                mean, variance = statistics[at]
                found.append(BatchNorm(mean, variance, self.scales[at], self.shifts[at], EPSILON["batch"]))
            elif at >= 0:
                found.append(LayerNorm(self.scales[at], self.shifts[at], EPSILON["layer"]))
            if layer:
                found.append(Activation("relu"))
            found.append(
                Dense(weight) if layer < len(self.weights) - 1 else Dense(weight[:outputs], self.bias[:outputs])
            )
        return tuple(found)

    def _normalised(self, layer: int, x: Float[Array, "N n"], statistics: Statistics) -> Float[Array, "N n"]:
        factor = self.scales[layer] * jax.lax.rsqrt(statistics.variance + EPSILON["batch"])
        return (x - statistics.mean) * factor + self.shifts[layer]

    def _by_layer(self, layer: int, x: Float[Array, "N n"]) -> Float[Array, "N n"]:
        apart = x - x.mean(1, keepdims=True)
        spread = jax.lax.rsqrt(jnp.square(apart).mean(1, keepdims=True) + EPSILON["layer"])
        return apart * spread * self.scales[layer] + self.shifts[layer]


def batch_statistics(*blocks: Float[Array, "_ n"]) -> Statistics:
    """Return mean and variance (divided by the count) of each column over the rows of all blocks.

    Example:
        >>> [part.tolist() for part in batch_statistics(jnp.zeros((1, 1)), jnp.full((1, 1), 2.0))]
        [[1.0], [1.0]]
    """
    count = sum(len(block) for block in blocks)
    mean = sum(block.sum(0) for block in blocks) / count
    variance = sum(jnp.square(block - mean).sum(0) for block in blocks) / count
    return Statistics(mean, variance)  # type: ignore[arg-type]


def running(before: PyTree, batch: PyTree, momentum: Float[Array, ""] | float) -> PyTree:
    """Return statistics momentum * before + (1 - momentum) * batch.

    Example:
        >>> one, other = Statistics(jnp.zeros(1), jnp.ones(1)), Statistics(jnp.ones(1), jnp.full(1, 3.0))
        >>> [part.tolist() for part in running(one, other, 0.5)]
        [[0.5], [2.0]]
    """
    kept = jnp.asarray(momentum, jnp.float32)
    return jax.tree.map(lambda old, new: kept * old + (1 - kept) * new, before, batch)


def with_unit_weights(networks: PyTree) -> PyTree:
    """Return a tree with every `NormalisedMLP` in it at unit weights; other leaves stay."""
    return jax.tree.map(
        lambda part: part.with_unit_weights() if isinstance(part, NormalisedMLP) else part,
        networks,
        is_leaf=lambda part: isinstance(part, NormalisedMLP),
    )
