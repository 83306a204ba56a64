"""How a network acts whose matrices are perturbed by low-rank noise: members share the matrices."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float

from workhorse.math.low_rank_noise import Factors
from workhorse.networks.mlp import ACTIVATIONS, MLP

__all__ = ["perturbed_output"]

ROWS = 8
"""Rows of the shared products are a multiple of this: one row alone takes another kernel, with other bits, and so do up
to seven rows of a small matrix (seen with JAX 0.10 on widths 1 to 64)."""


@custom_vmap
def perturbed_output(network: MLP, perturbation: tuple[Factors, ...], x: Float[Array, "in"]) -> Float[Array, "out"]:
    """Return the output y of a network each of whose matrices W is W + left right^T.

        h_k = activation(W_k h_{k-1} + left_k (right_k^T h_{k-1}) + b_k + bias_k)

    Mapped over members with the network held fixed, W_k h_{k-1} of all of them is one matrix product, and a member
    brings only its factors. *A member's bits do not depend on how many are mapped over*: they are padded to a multiple
    of `ROWS`.

    Args:
        network: the network that the members share.
        perturbation: what one member adds to each layer.
        x: input.
    """
    return _padded(network, *jax.tree.map(lambda leaf: leaf[None], (perturbation, x)))[0]


@perturbed_output.def_vmap
def _over_members(
    axis_size: int, in_batched: list[Any], network: MLP, perturbation: tuple[Factors, ...], x: Array
) -> tuple[Array, bool]:
    def for_each(given: Any, batched: Any) -> Any:
        return jax.tree.map(
            lambda leaf, has: leaf if has else jnp.broadcast_to(leaf, (axis_size, *leaf.shape)), given, batched
        )

    if any(jax.tree.leaves(in_batched[0])):  # networks of their own have nothing to share
        members = for_each((network, perturbation, x), tuple(in_batched))
        return jax.lax.map(lambda member: perturbed_output(*member), members), True
    return _padded(network, *for_each((perturbation, x), tuple(in_batched[1:]))), True


def _padded(network: MLP, perturbation: tuple[Factors, ...], x: Float[Array, "B in"]) -> Float[Array, "B out"]:
    count = x.shape[0]
    more = -count % ROWS
    rows = jax.tree.map(
        lambda leaf: jnp.pad(leaf, [(0, more)] + [(0, 0)] * (leaf.ndim - 1)) if more else leaf, (perturbation, x)
    )
    return _outputs(network, *rows)[:count]


def _outputs(network: MLP, perturbation: tuple[Factors, ...], x: Float[Array, "B in"]) -> Float[Array, "B out"]:
    last = len(network.weights) - 1
    for layer, (weight, change) in enumerate(zip(network.weights, perturbation, strict=True)):
        along = _along(change.right, x)
        x = (weight @ x.T).T  # in x @ weight.T, rows beyond the 48th had other bits than the first (from 348 to 256)
        for column in range(along.shape[1]):
            x = x + _rounded(change.left[:, :, column] * along[:, column, None])
        if change.bias is not None:
            x = x + (network.biases[layer] + change.bias)
        if layer < last:
            x = ACTIVATIONS[network.activation](x)
    return x


def _rounded(product: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return a product rounded to float32 before it is added to anything.

    A compiler may make a product and a sum one operation that rounds once, and does so in some programs but not in
    others. It cannot where the product is clipped in between, here to the greatest finite numbers.
    """
    most = jnp.finfo(jnp.float32).max
    return jnp.clip(product, -most, most)


def _along(right: Float[Array, "B n r"], x: Float[Array, "B n"]) -> Float[Array, "B r"]:
    """Return right^T x of each row.

    For a vector alone XLA makes a sum whose order depends on the number of rows. So `ROWS` rows are multiplied with
    each other's factors by a matrix product, of which the diagonal is kept: as fast, and the same bits anywhere.
    """
    count, n, rank = right.shape
    groups = (count // ROWS, ROWS)
    products = jnp.einsum("gin,gjnr->gijr", x.reshape(*groups, n), right.reshape(*groups, n, rank))
    return jnp.einsum("giir->gir", products).reshape(count, rank)
