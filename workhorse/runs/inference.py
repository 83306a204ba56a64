"""Run a policy's layers in NumPy and float32. They are taken as sound: `runs.layer_checks` has seen them."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from workhorse.core.layers import (
    GRU,
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
    Squash,
    Stretch,
)  # fmt: skip
from workhorse.core.spec import ActionSpace, Box, MultiDiscrete

__all__ = ["bin_values", "box_bounds", "run_head", "run_hidden", "stretching"]

Generator = np.random.Generator


def run_hidden(
    layers: Sequence[Layer], batch: np.ndarray, states: Sequence[np.ndarray]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Run all layers before the head on a batch (N, ...), one state (N, H) for each recurrent layer.

    Returns:
        The outputs, which may overflow to infinity, and the new states.
    """
    left, after = list(states), []
    with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at the result
        for layer in layers:
            if isinstance(layer, GRU):
                batch = _gru(layer, batch, left.pop(0))
                after.append(batch)
            elif isinstance(layer, Pid):
                batch, state = _pid(layer, batch, left.pop(0))
                after.append(state)
            else:
                batch = _RUN[type(layer)](layer, batch)
    return batch, after


def _normalise(layer: Normalise, x: np.ndarray) -> np.ndarray:
    z = (x - layer.mean) / layer.scale
    if layer.clip is None:
        return z
    bound = np.float32(layer.clip)
    return np.clip(z, -bound, bound)


def _dense(layer: Dense, x: np.ndarray) -> np.ndarray:
    y = x @ layer.weight.T
    return y if layer.bias is None else y + layer.bias


def _convolution(layer: Convolution, x: np.ndarray) -> np.ndarray:
    top, bottom, left, right = layer.padding
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, layer.weight.shape[2:], axis=(1, 2))  # type: ignore[call-overload]
    windows = windows[:, :: layer.stride[0], :: layer.stride[1]]  # (N, down, across, channels, height, width)
    y = np.tensordot(windows, layer.weight, axes=((3, 4, 5), (1, 2, 3)))
    return y if layer.bias is None else y + layer.bias


def _layer_norm(layer: LayerNorm, x: np.ndarray) -> np.ndarray:
    axes = tuple(range(1, x.ndim))
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return _affine(layer, (x - mean) / np.sqrt(variance + np.float32(layer.epsilon)))


def _batch_norm(layer: BatchNorm, x: np.ndarray) -> np.ndarray:
    return _affine(layer, (x - layer.mean) / np.sqrt(layer.variance + np.float32(layer.epsilon)))


def _affine(layer: LayerNorm | BatchNorm, x: np.ndarray) -> np.ndarray:
    x = x if layer.weight is None else x * layer.weight
    return x if layer.bias is None else x + layer.bias


def _expectation(layer: Expectation, x: np.ndarray) -> np.ndarray:
    logits = x.reshape(len(x), x.shape[1] // len(layer.support), len(layer.support))  # a batch may be empty
    share = np.exp(logits - logits.max(axis=2, keepdims=True))
    return (share / share.sum(axis=2, keepdims=True)) @ layer.support


def _gru(layer: GRU, x: np.ndarray, state: np.ndarray) -> np.ndarray:
    inputs = x @ layer.input_weight.T
    inputs = inputs if layer.bias is None else inputs + layer.bias
    reset_in, update_in, candidate_in = np.split(inputs, 3, axis=1)
    reset_state, update_state, candidate_state = np.split(state @ layer.state_weight.T, 3, axis=1)
    if layer.candidate_bias is not None:
        candidate_state = candidate_state + layer.candidate_bias
    update = _sigmoid(update_in + update_state)
    candidate = np.tanh(candidate_in + _sigmoid(reset_in + reset_state) * candidate_state)
    return candidate + update * (state - candidate)


def _pid(layer: Pid, error: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    total, before, started = np.split(state, [error.shape[1], 2 * error.shape[1]], axis=1)
    total = np.clip(total + error, -layer.limit, layer.limit)
    change = started * (error - before)
    output = layer.proportional * error + layer.integral * total + layer.derivative * change
    return output, np.concatenate([total, error, np.ones_like(started)], axis=1)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * np.tanh(0.5 * x) + 0.5  # unlike 1 / (1 + exp(-x)) it overflows nowhere


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


_FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": _sigmoid,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "silu": lambda x: x * _sigmoid(x),
    "gelu": _gelu,
    "leaky_relu": lambda x: np.where(x >= 0, x, np.float32(0.01) * x),
}

_RUN: dict[type[Layer], Callable[[Any, np.ndarray], np.ndarray]] = {
    Normalise: _normalise,
    Flatten: lambda layer, x: x.reshape(len(x), math.prod(x.shape[1:])),
    Dense: _dense,
    Convolution: _convolution,
    LayerNorm: _layer_norm,
    BatchNorm: _batch_norm,
    Activation: lambda layer, x: _FUNCTIONS[layer.name](x),
    Expectation: _expectation,
}


def run_head(head: Layer, action: ActionSpace, outputs: np.ndarray, rng: Generator | None = None) -> np.ndarray:
    """Return the actions of a batch of outputs (N, out): the likeliest, or drawn where `rng` is given."""
    match head, action:
        case ((Mode() | Stretch() | Squash()), Box()):
            return _continuous(head, action, outputs, rng)
        case Bins(), Box():
            best = outputs.reshape(len(outputs), action.size, head.count).argmax(axis=2)
            return bin_values(action, head.count)[np.arange(action.size), best].reshape(-1, *action.shape)
        case Bits(), _ if head.draws and rng is not None:
            return (rng.random(outputs.shape) < _sigmoid(outputs)).astype(np.int8)
        case Bits(), _:
            return (outputs > 0).astype(np.int8)
        case Argmax(), _ if head.draws and rng is not None:
            # The largest of logits with Gumbel noise is a draw from their softmax.
            outputs = outputs + rng.gumbel(size=outputs.shape)
    if isinstance(action, MultiDiscrete):
        groups = np.split(outputs, np.cumsum(action.counts)[:-1], axis=1)
        return np.stack([group.argmax(axis=1) for group in groups], axis=1).astype(np.int64)
    return outputs.argmax(axis=1).astype(np.int64)


def _continuous(head: Mode | Stretch | Squash, action: Box, outputs: np.ndarray, rng: Generator | None) -> np.ndarray:
    if rng is not None and head.log_std is not None:
        outputs = outputs + np.exp(head.log_std) * rng.standard_normal(outputs.shape, np.float32)
    low, high, middle, half = box_bounds(action)
    if isinstance(head, Squash):
        outputs = middle + half * np.tanh(outputs)
    elif isinstance(head, Stretch):
        middle, half = stretching(action)
        with np.errstate(over="ignore"):
            outputs = middle + half * outputs
    return np.clip(outputs, low, high).reshape(-1, *action.shape)


@lru_cache(maxsize=16)  # a policy is asked thousands of times a second, and this is a third of an answer
def bin_values(action: Box, count: int) -> np.ndarray:
    """Return the values of the bins of each component, (A, count)."""
    return np.linspace(action.low, action.high, count, axis=1).astype(np.float32)


@lru_cache(maxsize=16)
def stretching(action: Box) -> tuple[np.ndarray, np.ndarray]:
    """Return what a `Stretch` adds to and multiplies by, (A,) each: see `Box.middle_and_half`."""
    middle, half = action.middle_and_half()
    return middle.reshape(-1), half.reshape(-1)


@lru_cache(maxsize=16)
def box_bounds(action: Box) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the lower and upper bounds, their middle and half their distance; the last two for bounded boxes only."""
    low, high = np.array(action.low), np.array(action.high)
    with np.errstate(invalid="ignore"):
        # Halves first: the distance of two float32 bounds may overflow.
        parts = (low, high, high / 2 + low / 2, high / 2 - low / 2)
    with np.errstate(over="ignore"):
        low, high, middle, half = (part.astype(np.float32) for part in parts)
    return low, high, middle, half
