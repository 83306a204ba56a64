"""From a network's outputs to an action of the task."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from workhorse.core.spec import ActionSpace, Box, Discrete, EnvSpec, MultiBinary, MultiDiscrete
from workhorse.math.choices import grouped

__all__ = ["action_of", "num_outputs", "own_action", "task_action"]


def num_outputs(space: ActionSpace, action_bins: int | None = None) -> int:
    """Return the outputs a network needs.

    One for each component of a `Box` (or each bin of it) and each switch, and a score for each choice.
    """
    match space:
        case Discrete(count):
            return count
        case MultiDiscrete(counts):
            return sum(counts)
        case Box():
            return space.size * (action_bins or 1)
    return space.size


def action_of(space: ActionSpace, action_bins: int | None, outputs: Float[Array, "out"]) -> Array:
    """Return the action that a network's outputs mean.

    `Discrete`, `MultiDiscrete`: of each choice, the number of the highest score. `MultiBinary`: on where the output is
    above zero. `Box`: the outputs themselves; in `action_bins` bins, of that many values evenly spaced over a
    component's bounds, the one with the highest score. *The outputs of a `Box` are not clipped here*: action noise
    comes first.

    Example:
        >>> action_of(Box((-1.0,), (1.0,)), 3, jnp.array([0.1, 0.7, 0.2]))
        Array([0.], dtype=float32)
        >>> action_of(MultiDiscrete((2, 3)), None, jnp.array([0.1, 0.7, 0.2, 0.1, 0.9])).tolist()
        [1, 2]

    Source: Salimans et al. 2017, section 4.1, bin the actions of Hopper and Swimmer ten ways.
    """
    match space:
        case Discrete():
            return jnp.argmax(outputs)
        case MultiDiscrete(counts):
            return jnp.argmax(grouped(outputs, counts), axis=-1)
        case MultiBinary():
            return (outputs > 0).astype(jnp.int8)
    if action_bins is None:
        return outputs.reshape(space.shape)
    values = jnp.asarray(np.linspace(space.low, space.high, action_bins, axis=-1), jnp.float32)
    choice = jnp.argmax(outputs.reshape(space.size, action_bins), axis=-1)
    return jnp.take_along_axis(values, choice[:, None], axis=-1)[:, 0].reshape(space.shape)


def task_action(spec: EnvSpec, action: Array) -> Array:
    """Return an algorithm's action, of `spec.action`, as one of the task: the same where nothing is rescaled.

        middle + half * y,   clipped to the bounds middle -+ half

    *The clip is for rounding*: the ends of the task's box must not be passed by the last bit.

    Example:
        >>> spec = EnvSpec("Thermostat-v0", Box.unbounded(2), Box((5.0,), (35.0,)), 10).rescaled()
        >>> task_action(spec, jnp.array([-0.5])).tolist()
        [12.5]
    """
    if spec.unscaled is None:
        return action
    box, (middle, half) = spec.unscaled, spec.unscaled.middle_and_half()
    low, high = (jnp.asarray(bound, jnp.float32).reshape(box.shape) for bound in (box.low, box.high))
    return jnp.clip(middle + half * action.astype(jnp.float32), low, high)


def own_action(spec: EnvSpec, action: Array) -> Array:
    """Return an action of the task as an algorithm for `spec` counts it: the inverse of `task_action`.

    An action outside of the task's box is moved into it.

    Example:
        >>> spec = EnvSpec("Thermostat-v0", Box.unbounded(2), Box((5.0,), (35.0,)), 10).rescaled()
        >>> own_action(spec, jnp.array([12.5])).tolist()
        [-0.5]
    """
    if not isinstance(spec.action, Box):
        return action
    own, (middle, half) = action.astype(jnp.float32), (np.float32(0), np.float32(1))
    if spec.unscaled is not None:
        middle, half = spec.unscaled.middle_and_half()
    low, high = (
        jnp.asarray(bound, jnp.float32).reshape(spec.action.shape) for bound in (spec.action.low, spec.action.high)
    )
    return jnp.clip((own - middle) / np.where(half > 0, half, np.float32(1)), low, high)
