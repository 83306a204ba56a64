"""Check a policy's layers against each other and the task's spaces.

The checks are strict, since layers may come from a file that somebody else wrote: every array finite, every size
fitting its neighbours'. Running them (`runs.inference`) then takes all of that for granted.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, get_args, get_type_hints

import numpy as np
from numpy.typing import ArrayLike

from workhorse.core.errors import UsageError
from workhorse.core.layers import (
    ACTIVATIONS,
    GRU,
    HEADS,
    KINDS,
    Activation,
    Argmax,
    BatchNorm,
    Bins,
    Bits,
    Convolution,
    Dense,
    Expectation,
    Flatten,
    Layer,
    LayerNorm,
    Mode,
    Normalise,
    Pid,
    PolicyNetwork,
    Squash,
    Stretch,
    Tensor,
)  # fmt: skip
from workhorse.core.observations import ObservationFormat
from workhorse.core.records import read_value
from workhorse.core.spec import ActionFormat, ActionSpace, Box, Discrete, MultiBinary, MultiDiscrete, has_elements

__all__ = ["ARRAYS", "PLAIN_FIELDS", "brief", "check_formats", "check_space", "checked_layers", "kind_of"]

Shape = tuple[int, ...]


def _names(layer: type[Layer], of_arrays: bool) -> tuple[str, ...]:
    hints = get_type_hints(layer, include_extras=True)
    return tuple(name for name, hint in hints.items() if (Tensor in (hint, *get_args(hint))) is of_arrays)


ARRAYS = {layer: _names(layer, True) for layer in KINDS.values()}
"""Names of the fields that hold arrays, by the kind of layer."""

PLAIN_FIELDS = {layer: _names(layer, False) for layer in KINDS.values()}
"""Names of the other fields."""

_NAMES = {layer: kind for kind, layer in KINDS.items()}


def kind_of(layer: Layer) -> str:
    """Return the name of the layer's kind."""
    return _NAMES[type(layer)]


def checked_layers(layers: Sequence[Layer], observation: Box, action: ActionSpace, task: str) -> PolicyNetwork:
    """Return the layers with read-only float32 copies of their arrays.

    Raises:
        UsageError: a field has the wrong type, sizes do not fit each other or the spaces, or the order is impossible.
    """
    if not layers or not isinstance(layers[-1], HEADS):
        raise UsageError(
            f"Expected the layers of the policy of {task} to end with a head ({', '.join(_NAMES[h] for h in HEADS)}), "
            f"got {_label(layers[-1]) if layers else 'no layers'}: add the head that makes an action of the outputs."
        )
    check_space(observation, "observations", task)
    check_space(action, "actions", task)
    shape, found = observation.shape, []
    for number, layer in enumerate(layers):
        if type(layer) not in _NAMES:
            raise UsageError(
                f"Expected layer {number} of the policy of {task} to be one of {', '.join(KINDS)}, got "
                f"{type(layer).__name__}: this version knows no other."
            )
        place = f"layer {number} ({kind_of(layer)}) of the policy of {task}"
        if isinstance(layer, HEADS) and number < len(layers) - 1:
            raise UsageError(f"Expected one head, after all other layers, got {place} before others: leave it out.")
        layer = _checked_fields(layer, place)
        if isinstance(layer, HEADS):
            _check_head(layer, shape, action, place)
        else:
            shape = _SHAPES[type(layer)](layer, shape, place)
        found.append(layer)
    return tuple(found)


def brief(space: ActionSpace) -> str:
    """Return a space as a message names it: the bounds of an image would fill pages."""
    text = str(space)
    return text if len(text) <= 200 else f"{type(space).__name__}(shape={getattr(space, 'shape', None)})"


def check_space(space: ActionSpace, what: str, task: str) -> None:
    """Refuse a space without elements.

    Raises:
        UsageError: it has no components or choices, or a lower bound that is not below the upper one.
    """
    if not has_elements(space):
        raise UsageError(f"Expected {what} of the policy of {task} from a space that is not empty, got {brief(space)}.")


def check_formats(
    observation: Box, action: ActionSpace, seen: ObservationFormat | None, written: ActionFormat | None, task: str
) -> None:
    """Refuse formats of observations and actions that are of another size than the spaces.

    Raises:
        UsageError: one of them does not fit.
    """
    if seen is not None and (not seen.is_consistent or seen.size != observation.size):
        raise UsageError(
            f"Expected an observation format of {observation.size} components for the policy of {task}, got another: "
            "use the one of its environment's spec."
        )
    size = 1 if isinstance(action, Discrete) else action.size
    kinds = "iuf" if isinstance(action, Box) else "iu"
    if written is None:
        return
    is_known = written.dtype in _NUMBERS and np.dtype(written.dtype).kind in kinds
    if not is_known or min(written.shape, default=1) < 1 or math.prod(written.shape) != size:
        raise UsageError(
            f"Expected an action format of {size} numbers for the policy of {task}, got {written.dtype[:20]!r} of "
            f"shape {str(written.shape)[:40]}: use the one of its environment's spec."
        )
    if written.start and (isinstance(action, Box) or len(written.start) != size):
        raise UsageError(
            f"Expected a start for each of {size} choices for the policy of {task}, got {len(written.start)}: use the "
            "action format of its environment's spec."
        )


_NUMBERS = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)} | {
    "float16",
    "float32",
    "float64",
}
"""Names of the dtypes that an action may have; NumPy would make others of a name in a file."""


def _label(layer: object) -> str:
    return _NAMES.get(type(layer), type(layer).__name__)  # type: ignore[arg-type]


def _checked_fields(layer: Layer, place: str) -> Layer:
    """Return the layer with float32 arrays and plain Python values of the types it declares."""
    kind, hints = type(layer), get_type_hints(type(layer), include_extras=True)
    values = {}
    for name in PLAIN_FIELDS[kind]:
        value = getattr(layer, name)
        value = value.item() if isinstance(value, np.generic) else value
        values[name] = read_value(hints[name], value, f"`{name}`", place, "Correct it.")
    for name in ARRAYS[kind]:
        value = getattr(layer, name)
        is_left_out = value is None and type(None) in get_args(hints[name])
        values[name] = None if is_left_out else _float32(value, name, place)
    return kind(**values)


def _float32(array: ArrayLike | None, name: str, place: str) -> np.ndarray:
    """Return a float32 copy that nobody else writes to."""
    try:
        copy = np.array(array)
    except ValueError:
        copy = np.array(None)
    if copy.dtype.kind not in "biuf" or 0 in copy.shape:
        raise UsageError(
            f"Expected {name} of {place} to be an array of real numbers, got {copy.dtype} of shape {copy.shape}: "
            "correct it."
        )
    with np.errstate(over="ignore"):
        copy = np.ascontiguousarray(copy, np.float32).reshape(copy.shape)
    if not np.isfinite(copy).all():
        raise UsageError(
            f"Expected finite numbers in {name} of {place}, got NaN or infinity: training has diverged. Export from an "
            "earlier checkpoint."
        )
    copy.flags.writeable = False
    return copy


def _refuse(name: str, place: str, wanted: object, got: object) -> NoReturn:
    raise UsageError(f"Expected {name} of {place} {wanted}, got {got}: the layers do not fit each other.")


def _check_shape(array: np.ndarray | None, shape: Shape, name: str, place: str) -> None:
    if array is not None and array.shape != shape:
        _refuse(name, place, f"to have shape {shape}", array.shape)


def _check_broadcast(array: np.ndarray, shape: Shape, name: str, place: str) -> None:
    ending = shape[len(shape) - array.ndim :] if array.ndim <= len(shape) else None
    if ending is None or any(size not in (1, whole) for size, whole in zip(array.shape, ending, strict=True)):
        _refuse(name, place, f"to fit the shape {shape} of its input", array.shape)


def _normalise_shape(layer: Normalise, shape: Shape, place: str) -> Shape:
    _check_broadcast(layer.mean, shape, "mean", place)
    _check_broadcast(layer.scale, shape, "scale", place)
    if not (layer.scale > 0).all():
        raise UsageError(
            f"Expected scale of {place} above zero, got {layer.scale.min()}: use 1 where an observation never varies."
        )
    if layer.clip is not None and layer.clip <= 0:
        raise UsageError(f"Expected clip of {place} above zero, got {layer.clip}: use None for no bound.")
    return shape


def _flatten_shape(layer: Flatten, shape: Shape, place: str) -> Shape:
    return (math.prod(shape),)


def _dense_shape(layer: Dense, shape: Shape, place: str) -> Shape:
    if layer.weight.ndim != 2 or layer.weight.shape[1:] != shape:
        _refuse("weight", place, f"to have shape (out, {', '.join(map(str, shape))})", layer.weight.shape)
    _check_shape(layer.bias, layer.weight.shape[:1], "bias", place)
    return layer.weight.shape[:1]


def _convolution_shape(layer: Convolution, shape: Shape, place: str) -> Shape:
    if len(shape) != 3 or layer.weight.ndim != 4 or layer.weight.shape[1] != shape[2]:
        wanted = f"to be (out, channels, height, width) over an image (height, width, channels), here {shape}"
        _refuse("weight", place, wanted, layer.weight.shape)
    count, _, *kernel = layer.weight.shape
    _check_shape(layer.bias, (count,), "bias", place)
    top, bottom, left, right = layer.padding
    padded = (shape[0] + top + bottom, shape[1] + left + right)
    # A margin as wide as the kernel would see nothing but zeros: such a file only wants to exhaust the memory.
    if any(not 0 <= margin < kernel[side // 2] for side, margin in enumerate(layer.padding)):
        _refuse("padding", place, f"to be at least 0 and smaller than the kernel {tuple(kernel)}", layer.padding)
    if min(layer.stride) < 1 or any(size < width for size, width in zip(padded, kernel, strict=True)):
        _refuse("stride", place, f"of at least 1 and a kernel within the image {padded}", (layer.stride, tuple(kernel)))
    down, across = ((size - width) // step + 1 for size, width, step in zip(padded, kernel, layer.stride, strict=True))
    return (down, across, count)


def _layer_norm_shape(layer: LayerNorm, shape: Shape, place: str) -> Shape:
    _check_shape(layer.weight, shape, "weight", place)
    _check_shape(layer.bias, shape, "bias", place)
    if layer.epsilon <= 0:
        _refuse("epsilon", place, "to be above zero", layer.epsilon)
    return shape


def _batch_norm_shape(layer: BatchNorm, shape: Shape, place: str) -> Shape:
    for name in ("mean", "variance", "weight", "bias"):
        _check_shape(getattr(layer, name), shape[-1:], name, place)
    if not layer.epsilon > 0 or not (layer.variance >= 0).all():
        _refuse("epsilon", place, "to be above zero, and no variance below", (layer.epsilon, layer.variance.min()))
    return shape


def _activation_shape(layer: Activation, shape: Shape, place: str) -> Shape:
    if layer.name not in ACTIVATIONS:
        raise UsageError(
            f"Expected an activation among {', '.join(ACTIVATIONS)}, got {layer.name!r} in {place}: this version knows "
            "no other."
        )
    return shape


def _expectation_shape(layer: Expectation, shape: Shape, place: str) -> Shape:
    if layer.support.ndim != 1 or len(shape) != 1 or shape[0] % len(layer.support):
        _refuse("support", place, f"to be a vector whose length divides the inputs, {shape}", layer.support.shape)
    return (shape[0] // len(layer.support),)


def _gru_shape(layer: GRU, shape: Shape, place: str) -> Shape:
    size = layer.state_weight.shape[-1] if layer.state_weight.ndim else 0
    if len(shape) != 1:
        _refuse("the input", place, "to be a vector", f"shape {shape}")
    _check_shape(layer.state_weight, (3 * size, size), "state_weight", place)
    _check_shape(layer.input_weight, (3 * size, *shape), "input_weight", place)
    _check_shape(layer.bias, (3 * size,), "bias", place)
    _check_shape(layer.candidate_bias, (size,), "candidate_bias", place)
    return (size,)


def _pid_shape(layer: Pid, shape: Shape, place: str) -> Shape:
    if len(shape) != 1:
        _refuse("the input", place, "to be a vector", f"shape {shape}")
    for name in ("proportional", "integral", "derivative", "limit"):
        _check_shape(getattr(layer, name), shape, name, place)
    if not (layer.limit > 0).all():
        _refuse("limit", place, "to be above zero", layer.limit.min())
    return shape


_SHAPES: dict[type[Layer], Callable[[Any, Shape, str], Shape]] = {
    Normalise: _normalise_shape,
    Flatten: _flatten_shape,
    Dense: _dense_shape,
    Convolution: _convolution_shape,
    LayerNorm: _layer_norm_shape,
    BatchNorm: _batch_norm_shape,
    Activation: _activation_shape,
    Expectation: _expectation_shape,
    GRU: _gru_shape,
    Pid: _pid_shape,
}


def _check_head(head: Layer, shape: Shape, action: ActionSpace, place: str) -> None:
    """Refuse a head that cannot make the task's actions of that many outputs."""
    spaces = {Argmax: Discrete | MultiDiscrete, Bits: MultiBinary}.get(type(head), Box)
    if not isinstance(action, spaces):
        raise UsageError(
            f"Expected {place} to fit the task's actions, got {brief(action)}: its actions are of another kind."
        )
    each = 1
    if isinstance(head, Bins | Squash):
        with np.errstate(over="ignore"):
            bounded = isinstance(action, Box) and np.isfinite(np.array([action.low, action.high], np.float32)).all()
        each = head.count if isinstance(head, Bins) else 1
        if not bounded or (isinstance(head, Bins) and each < 2):
            raise UsageError(
                f"Expected {place} to have bounded actions and at least 2 bins where it has bins, got {head} with "
                f"{brief(action)}: use a mode head."
            )
    match action:
        case Discrete():
            needed = action.count
        case MultiDiscrete():
            needed = sum(action.counts)
        case _:
            needed = action.size * each
    if shape != (needed,):
        raise UsageError(
            f"Expected {place} to read {needed} outputs for {brief(action)}, got shape {shape}: the network is another "
            "task's."
        )
    if isinstance(head, Mode | Stretch | Squash):
        _check_shape(head.log_std, (needed,), "log_std", place)
        if head.log_std is not None and (head.log_std > 80).any():  # exp(log_std) must fit in float32
            _refuse("log_std", place, "to be at most 80", head.log_std.max())
