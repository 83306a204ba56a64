"""From a drive, one number for each component of the action, to an action; and both as layers of an artefact.

A drive of 0 stands for the middle of a component's range, -1 and 1 for its ends: the bounds of a `Box`, the first and
the last of several choices, off and on.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from workhorse.core.layers import Activation, Argmax, Bits, Dense, Flatten, Layer, Mode, PolicyNetwork
from workhorse.core.spec import ActionSpace, Box, Discrete, EnvSpec, MultiBinary, MultiDiscrete, idle_action

__all__ = [
    "STEEP",
    "action_layers",
    "drive_layers",
    "driven",
    "flattened",
    "middle_action",
    "num_drives",
    "resting_action",
    "sign_layers",
]

STEEP = 1e20
"""Slope of the tanh that stands for a sign in an artefact: it is -1 or 1 for every float32 beyond 1e-19, and 0 at 0."""


def num_drives(space: ActionSpace) -> int:
    """Return the number of components of a drive."""
    return 1 if isinstance(space, Discrete) else space.size


def driven(space: ActionSpace, drive: Float[Array, "A"]) -> Array:
    """Return the action of a drive.

        Box:         middle + half * drive, clipped to the bounds; middle 0 and half 1 where a bound is missing
        choices:     the first where drive < 0, the last where drive > 0, the middle one at 0
        MultiBinary: on where drive > 0

    Example:
        >>> driven(Discrete(3), jnp.array([-0.2])).tolist(), driven(Box((0.0,), (4.0,)), jnp.array([0.5])).tolist()
        (0, [3.0])
    """
    match space:
        case Discrete(count):
            return _chosen(count, drive[0])
        case MultiDiscrete(counts):
            return _chosen(np.array(counts), drive)
        case MultiBinary():
            return (drive > 0).astype(jnp.int8)
    middle, half = space.middle_and_half()
    low, high = (jnp.asarray(bound, jnp.float32).reshape(space.shape) for bound in (space.low, space.high))
    return jnp.clip(middle + half * drive.reshape(space.shape), low, high)


def _chosen(count: int | np.ndarray, drive: Float[Array, "..."]) -> Array:
    last, middle = jnp.asarray(count - 1, jnp.int32), jnp.asarray((count - 1) // 2, jnp.int32)
    return jnp.where(drive < 0, 0, jnp.where(drive > 0, last, middle))


def drive_layers(space: ActionSpace) -> PolicyNetwork:
    """Return the layers that `driven` is: they read a drive, and the last is the head."""
    if isinstance(space, Box):
        middle, half = (part.reshape(-1) for part in space.middle_and_half())
        is_unit = not middle.any() and (half == 1).all()
        return (Mode(),) if is_unit else (Dense(np.diag(half), middle), Mode())
    if isinstance(space, MultiBinary):
        return (Bits(),)
    counts = (space.count,) if isinstance(space, Discrete) else space.counts
    weight, bias = np.zeros((sum(counts), len(counts))), np.full(sum(counts), -2.0)
    for component, (begin, count) in enumerate(zip(np.cumsum((0, *counts)), counts, strict=False)):
        first, last = begin, begin + count - 1
        bias[begin + (count - 1) // 2] = 0.5  # above 0, which the ends score at rest, and below 1
        bias[[first, last]] = 0.0
        weight[first, component] -= 1.0
        weight[last, component] += 1.0
    return (*sign_layers(len(counts)), Dense(weight, bias), Argmax())


def sign_layers(size: int) -> tuple[Layer, ...]:
    """Return the layers of the sign of each of `size` numbers."""
    return (Dense(STEEP * np.eye(size)), Activation("tanh"))


def flattened(space: Box) -> tuple[Layer, ...]:
    """Return the layer that lays observations flat, where they are no vectors."""
    return (Flatten(),) if len(space.shape) > 1 else ()


def resting_action(spec: EnvSpec) -> np.ndarray:
    """Return the idle action of the task in the algorithm's own numbers.

    Example:
        >>> resting_action(EnvSpec("Pump-v0", Box.unbounded(2), Box((-1.0,), (3.0,)), 10).rescaled()).tolist()
        [-0.5]
    """
    idle = idle_action(spec.task_action)
    if spec.unscaled is None:
        return idle
    middle, half = spec.unscaled.middle_and_half()
    return np.where(half > 0, (idle - middle) / np.where(half > 0, half, 1), 0).astype(np.float32)


def middle_action(space: ActionSpace) -> np.ndarray:
    """Return the action of the drive 0."""
    return np.asarray(driven(space, jnp.zeros(num_drives(space), jnp.float32)))


def action_layers(spec: EnvSpec, action: np.ndarray) -> PolicyNetwork:
    """Return the layers of the policy that takes one action whatever it observes."""
    space, size = spec.action, spec.observation.size
    match space:
        case Box():
            head, outputs = Mode(), np.ravel(action)
        case MultiBinary():
            head, outputs = Bits(), np.ravel(action) - 0.5
        case Discrete(count):
            head, outputs = Argmax(), np.eye(count)[int(action)]
        case MultiDiscrete(counts):
            chosen = zip(counts, action, strict=True)
            head, outputs = Argmax(), np.concatenate([np.eye(count)[int(choice)] for count, choice in chosen])
    return (*flattened(spec.observation), Dense(np.zeros((len(outputs), size)), outputs), head)
