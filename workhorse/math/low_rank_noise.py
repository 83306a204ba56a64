"""Gaussian noise of low rank for a network's matrices, regenerated from its address: never stored, never sent."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.core.algorithm import Key

__all__ = ["Factors", "Matrices", "factors", "weighted_matrices"]

HELD = 64
"""Most perturbations that are summed by one matrix product; the number is part of the result's bits."""


class Factors(NamedTuple):
    """Perturbation of one layer: left right^T is added to its matrix (m, n), `bias` to its vector, if it has one."""

    left: Float[Array, "m r"]
    right: Float[Array, "n r"]
    bias: Float[Array, "m"] | None

    @property
    def matrix(self) -> Float[Array, "m n"]:
        """Return left right^T."""
        return self.left @ self.right.T

    def scaled(self, scale: Float[Array, ""]) -> "Factors":
        """Return the factors of the perturbation times `scale`."""
        return Factors(scale * self.left, self.right, None if self.bias is None else scale * self.bias)


class Matrices(NamedTuple):
    """Shapes (m, n) of a network's matrices, each with its vector (m,) where there are biases."""

    shapes: tuple[tuple[int, int], ...]
    biases: bool


def factors(key: Key, index: Int[Array, ""] | int, matrices: Matrices, rank: int) -> tuple[Factors, ...]:
    """Perturbation number `index` of an iteration, layer by layer: E = A B^T / sqrt(r), full noise for biases, float32.

    A (m, r) and B (n, r) are standard normal, and `left` is A / sqrt(r). The entries of E have mean 0 and variance 1
    and are uncorrelated, so that a gradient's estimate is as unbiased as with full noise. They are *not* Gaussian: the
    kurtosis is 3 + 6 / r. All draws of a perturbation are one call, in the order of the layers: a call for each of
    them took a third longer.

    Args:
        key: the iteration's noise key.
        index: which perturbation, non-negative.
        matrices: shapes of the network's parameters.
        rank: r, at least 1; above min(m, n) it buys a law nearer to the Gaussian, for more draws.

    Example:
        >>> (layer,) = factors(jax.random.key(0), 7, Matrices(((2, 3),), biases=True), rank=1)
        >>> layer.left.shape, layer.right.shape, layer.bias.shape, layer.matrix.shape
        ((2, 1), (3, 1), (2,), (2, 3))

    Source: Sarkar et al. 2025, "Evolution strategies at the hyperscale" (arXiv 2511.16652), EGGROLL. Its code draws the
    same perturbations in every iteration unless told not to; here the key is the iteration's.
    """
    sizes = [((m + n) * rank, m * matrices.biases) for m, n in matrices.shapes]
    drawn = jax.random.normal(jax.random.fold_in(key, index), (sum(map(sum, sizes)),), jnp.float32)
    root, found, start = jnp.sqrt(jnp.float32(rank)), [], 0
    for (m, n), (size, biases) in zip(matrices.shapes, sizes, strict=True):
        left, right, bias = jnp.split(drawn[start : start + size + biases], (m * rank, size))
        found.append(Factors(left.reshape(m, rank) / root, right.reshape(n, rank), bias if biases else None))
        start += size + biases
    return tuple(found)


def weighted_matrices(
    key: Key, weights: Float[Array, "P"], matrices: Matrices, rank: int
) -> tuple[tuple[Float[Array, "_ _"], ...], tuple[Float[Array, "_"], ...]]:
    """Sums of weights[i] * E_i over an iteration's perturbations, a matrix a layer and a vector a bias.

    No E_i is formed: up to `HELD` of them at a time, in the order of i, are one product (diag(w) A)^T B a layer. So
    the sums have the same bits in every process, and memory does not grow with P beyond `HELD`.

    Example:
        >>> key, matrices = jax.random.key(0), Matrices(((2, 3), (4, 2)), biases=False)
        >>> (first, second), () = weighted_matrices(key, jnp.array([2.0, -1.0]), matrices, rank=2)
        >>> one, other = (factors(key, index, matrices, 2)[1].matrix for index in range(2))
        >>> first.shape, bool(jnp.allclose(second, 2 * one - other, atol=1e-5))
        ((2, 3), True)
    """
    count = weights.shape[0]
    rounds = -(-count // HELD)
    held = -(-count // rounds)
    padded = jnp.zeros(rounds * held, jnp.float32).at[:count].set(weights.astype(jnp.float32))

    def add_some(totals: tuple[list[Array], list[Array]], turn: Array) -> tuple[tuple[list[Array], list[Array]], None]:
        indices = turn * held + jnp.arange(held)
        layers, some = jax.vmap(lambda index: factors(key, index, matrices, rank))(indices), padded[indices]
        sums = [
            total + jnp.einsum("i,imr,inr->mn", some, layer.left, layer.right, optimize=[(0, 1), (0, 1)])
            for total, layer in zip(totals[0], layers, strict=True)
        ]
        biases = [layer.bias for layer in layers if layer.bias is not None]
        return (sums, [total + some @ bias for total, bias in zip(totals[1], biases, strict=True)]), None

    nothing = [jnp.zeros(shape, jnp.float32) for shape in matrices.shapes]
    no_bias = [jnp.zeros(m, jnp.float32) for m, _ in matrices.shapes] if matrices.biases else []
    sums, biases = jax.lax.scan(add_some, (nothing, no_bias), jnp.arange(rounds))[0]
    return tuple(sums), tuple(biases)
