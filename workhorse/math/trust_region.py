"""Solving for a step within a trust region: conjugate gradient on a matrix that is only ever multiplied by."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

__all__ = ["backtracking", "conjugate_gradient"]


def conjugate_gradient(
    multiply: Callable[[Float[Array, "n"]], Float[Array, "n"]],
    target: Float[Array, "n"],
    iterations: int,
    tolerance: float = 1e-10,
) -> Float[Array, "n"]:
    """An approximate solution of M x = target for a symmetric positive definite M, from x = 0.

    Each iteration multiplies by M once; n of them are exact but for rounding. It stops moving once the squared residual
    is below `tolerance` of the target's, so that x is proportional to the target, however small that is, and at a
    direction v with v' M v <= 0, which rounding or an estimated M may make.

    Args:
        multiply: v to M v.
        target: the right-hand side.
        iterations: how many at most.
        tolerance: on |target - M x|^2 / |target|^2.

    Example:
        >>> matrix = jnp.array([[4.0, 1.0], [1.0, 3.0]])
        >>> found = conjugate_gradient(lambda v: matrix @ v, jnp.array([1.0, 2.0]), 2)
        >>> [round(float(value), 4) for value in found]
        [0.0909, 0.6364]

    Source: Hestenes and Stiefel 1952, "Methods of conjugate gradients for solving linear systems".
    """

    def step(_: Int[Array, ""], state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        x, residual, direction, squared = state
        product = multiply(direction)
        curvature = direction @ product
        moving = (squared > enough) & (curvature > 0)
        length = jnp.where(moving, squared / jnp.where(curvature > 0, curvature, 1.0), 0.0)
        x, residual = x + length * direction, residual - length * product
        after = residual @ residual
        direction = jnp.where(moving, residual + (after / jnp.where(squared > 0, squared, 1.0)) * direction, direction)
        return x, residual, direction, jnp.where(moving, after, squared)

    whole = target @ target
    enough = tolerance * whole
    start = (jnp.zeros_like(target), target, target, whole)
    return jax.lax.fori_loop(0, iterations, step, start)[0]


def backtracking(
    accepts: Callable[[Float[Array, "n"]], Bool[Array, ""]],
    step: Float[Array, "n"],
    halvings: int,
    shrink: float = 0.5,
) -> tuple[Float[Array, "n"], Bool[Array, ""], Int[Array, ""]]:
    """The longest of step, shrink * step, shrink^2 * step, ... that is accepted; no step at all where none is.

    Args:
        accepts: whether a step may be taken.
        step: the full one.
        halvings: how often it may be shrunk.
        shrink: by what factor, in (0, 1).

    Returns:
        The step, whether one was accepted, and how often it was shrunk.

    Example:
        >>> found, accepted, times = backtracking(lambda s: jnp.abs(s).max() <= 0.3, jnp.ones(2), 5)
        >>> found.tolist(), bool(accepted), int(times)
        ([0.25, 0.25], True, 2)
    """

    factor = jnp.asarray(shrink, step.dtype)

    def unaccepted(state: tuple[Array, Array]) -> Array:
        times, accepted = state
        return ~accepted & (times < halvings)

    def shorter(state: tuple[Array, Array]) -> tuple[Array, Array]:
        times = state[0] + 1
        return times, accepts(step * factor**times)

    times, accepted = jax.lax.while_loop(unaccepted, shorter, (jnp.zeros((), jnp.int32), accepts(step)))
    return jnp.where(accepted, step * factor**times, jnp.zeros_like(step)), accepted, times
