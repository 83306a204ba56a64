"""From a network's outputs to an action of the task."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from workhorse.core.spec import Box, Discrete

__all__ = ["action_of", "num_outputs"]


def num_outputs(space: Box | Discrete, action_bins: int | None) -> int:
    """Outputs a network needs: a component's value each, a score a bin and component, or a score a choice."""
    if isinstance(space, Discrete):
        return space.count
    return space.size * (action_bins or 1)


def action_of(space: Box | Discrete, action_bins: int | None, outputs: Float[Array, "out"]) -> Array:
    """The action that a network's outputs mean.

    Discrete: the choice with the highest score. Continuous: the outputs themselves. Continuous in `action_bins` bins:
    of k values evenly spaced from a component's lower to its upper bound, the one with the highest score. *Continuous
    outputs are not clipped here*: action noise comes first.

    Example:
        >>> action_of(Box((-1.0,), (1.0,)), 3, jnp.array([0.1, 0.7, 0.2]))
        Array([0.], dtype=float32)

    Source: Salimans et al. 2017, section 4.1, bin the actions of Hopper and Swimmer ten ways.
    """
    if isinstance(space, Discrete):
        return jnp.argmax(outputs)
    if action_bins is None:
        return outputs
    values = jnp.asarray(np.linspace(space.low, space.high, action_bins, axis=-1), jnp.float32)
    choice = jnp.argmax(outputs.reshape(space.size, action_bins), axis=-1)
    return jnp.take_along_axis(values, choice[:, None], axis=-1)[:, 0]
