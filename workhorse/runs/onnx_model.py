"""Write a policy as an ONNX model, which other languages and runtimes can run without us.

The model has the input `observation`, (batch, ...), and the output `action`. A recurrent policy has the inputs
`state_0`, `state_1`, ... and the outputs `next_state_0`, ... besides, (batch, H), zeros at the start of an episode.
Actions are the likeliest ones. Every layer becomes a few operators of version 17, which runtimes have had since 2022.
"""

import json
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

import workhorse
from workhorse.core.errors import UsageError
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
    Normalise,
    Pid,
    Squash,
    Stretch,
    state_size,
)
from workhorse.core.spec import ActionSpace, Box, Discrete, MultiBinary, MultiDiscrete
from workhorse.runs.inference import bin_values, box_bounds, stretching
from workhorse.runs.policy import Policy

__all__ = ["onnx_bytes"]

OPERATORS, LAYOUT = 17, 8
"""Versions of the operator set and of the file's layout: old ones, so that old runtimes can read the file."""


def onnx_bytes(policy: Policy) -> bytes:
    """Return the model file: equal policies give equal bytes.

    Raises:
        UsageError: the package `onnx` is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise UsageError(
            "Writing ONNX needs the package onnx, which is not installed: pip install 'workhorse[onnx]'."
        ) from error
    graph = _Graph(onnx, len(policy.observation.shape))
    inputs = [End("observation", np.float32, policy.observation.shape)]
    value, sizes = "observation", []
    for layer in policy.layers[:-1]:
        if size := state_size(layer):
            inputs.append(End(f"state_{len(sizes)}", np.float32, (size,)))
            value = _REMEMBERING[type(layer)](graph, layer, value, len(sizes))
            sizes.append(size)
        else:
            value = _LAYERS[type(layer)](graph, layer, value)
    _head(graph, policy.layers[-1], policy.action, value)
    states = [End(f"next_state_{i}", np.float32, (size,)) for i, size in enumerate(sizes)]
    outputs = [_action_end(policy.action), *states]
    return graph.file(inputs, outputs, {"task": policy.task, "metadata": json.dumps(policy.metadata, sort_keys=True)})


class End(NamedTuple):
    """Input or output of a model, with the shape of one sample."""

    name: str
    dtype: DTypeLike
    shape: tuple[int, ...]


class _Graph:
    """Nodes and constants so far. Names are numbers in the order of adding, so that equal policies give equal files."""

    def __init__(self, onnx: ModuleType, rank: int) -> None:
        self._onnx = onnx
        self.rank = rank  # axes of a sample: 3 for images, 1 once they are flat
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def add(self, operator: str, *inputs: str, output: str = "", outputs: int = 1, **attributes: object) -> Any:
        """Add a node; returns the name of its output, or the names of several."""
        names = [output] if output else [f"v{len(self._nodes)}_{i}" for i in range(outputs)]
        self._nodes.append(self._onnx.helper.make_node(operator, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, value: ArrayLike, dtype: DTypeLike = np.float32) -> str:
        """Add an array; returns its name."""
        name = f"c{len(self._constants)}"
        self._constants.append(self._onnx.numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def file(self, inputs: Sequence[End], outputs: Sequence[End], about: dict[str, str]) -> bytes:
        """Return the checked model with these at its ends."""
        helper = self._onnx.helper
        ends = [
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), ["batch", *shape])
                for name, dtype, shape in side
            ]
            for side in (inputs, outputs)
        ]
        model = helper.make_model(
            helper.make_graph(self._nodes, "policy", *ends, self._constants),
            opset_imports=[helper.make_opsetid("", OPERATORS)],
            ir_version=LAYOUT,
            producer_name="workhorse",
            producer_version=workhorse.__version__,
        )
        helper.set_model_props(model, about)
        self._onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)


def _normalise(graph: _Graph, layer: Normalise, x: str) -> str:
    z = graph.add("Div", graph.add("Sub", x, graph.constant(layer.mean)), graph.constant(layer.scale))
    if layer.clip is None:
        return z
    return graph.add("Clip", z, graph.constant(-layer.clip), graph.constant(layer.clip))


def _plus(graph: _Graph, x: str, bias: np.ndarray | None) -> str:
    return x if bias is None else graph.add("Add", x, graph.constant(bias))


def _flatten(graph: _Graph, layer: Flatten, x: str) -> str:
    graph.rank = 1
    return graph.add("Flatten", x, axis=1)


def _dense(graph: _Graph, layer: Dense, x: str) -> str:
    return _plus(graph, graph.add("MatMul", x, graph.constant(layer.weight.T)), layer.bias)


def _convolution(graph: _Graph, layer: Convolution, x: str) -> str:
    """ONNX has channels first."""
    top, bottom, left, right = layer.padding
    y = graph.add(
        "Conv",
        graph.add("Transpose", x, perm=[0, 3, 1, 2]),
        graph.constant(layer.weight),
        strides=list(layer.stride),
        pads=[top, left, bottom, right],
    )
    return _plus(graph, graph.add("Transpose", y, perm=[0, 2, 3, 1]), layer.bias)


def _layer_norm(graph: _Graph, layer: LayerNorm, x: str) -> str:
    # Written out: the operator LayerNormalization wants a weight, and here both may be left out.
    axes = list(range(1, graph.rank + 1))
    centred = graph.add("Sub", x, graph.add("ReduceMean", x, axes=axes, keepdims=1))
    variance = graph.add("ReduceMean", graph.add("Mul", centred, centred), axes=axes, keepdims=1)
    deviation = graph.add("Sqrt", graph.add("Add", variance, graph.constant(layer.epsilon)))
    return _affine(graph, layer, graph.add("Div", centred, deviation))


def _batch_norm(graph: _Graph, layer: BatchNorm, x: str) -> str:
    deviation = np.sqrt(layer.variance + np.float32(layer.epsilon))
    centred = graph.add("Sub", x, graph.constant(layer.mean))
    return _affine(graph, layer, graph.add("Div", centred, graph.constant(deviation)))


def _affine(graph: _Graph, layer: LayerNorm | BatchNorm, x: str) -> str:
    x = x if layer.weight is None else graph.add("Mul", x, graph.constant(layer.weight))
    return _plus(graph, x, layer.bias)


def _activation(graph: _Graph, layer: Activation, x: str) -> str:
    match layer.name:
        case "silu":
            return graph.add("Mul", x, graph.add("Sigmoid", x))
        case "gelu":  # an operator of its own only since version 20
            cube = graph.add("Mul", x, graph.add("Mul", x, x))
            inner = graph.add("Add", x, graph.add("Mul", cube, graph.constant(0.044715)))
            bent = graph.add("Tanh", graph.add("Mul", inner, graph.constant(math.sqrt(2 / math.pi))))
            half = graph.add("Mul", x, graph.constant(0.5))
            return graph.add("Mul", half, graph.add("Add", bent, graph.constant(1.0)))
        case "leaky_relu":
            return graph.add("LeakyRelu", x, alpha=0.01)
    return graph.add({"tanh": "Tanh", "relu": "Relu", "sigmoid": "Sigmoid", "elu": "Elu"}[layer.name], x)


def _expectation(graph: _Graph, layer: Expectation, x: str) -> str:
    logits = graph.add("Reshape", x, graph.constant([0, -1, len(layer.support)], np.int64))
    return graph.add("MatMul", graph.add("Softmax", logits, axis=2), graph.constant(layer.support))


def _gru(graph: _Graph, layer: GRU, x: str, number: int) -> str:
    """The operator runs a sequence, here of one step, and has the gates in another order: update, reset, candidate."""
    size = layer.state_weight.shape[1]
    order = np.concatenate([np.arange(size, 2 * size), np.arange(size), np.arange(2 * size, 3 * size)])
    bias = np.zeros(3 * size) if layer.bias is None else layer.bias[order]
    state_bias = np.zeros(3 * size)
    if layer.candidate_bias is not None:
        state_bias[2 * size :] = layer.candidate_bias
    first = graph.constant([0], np.int64)
    names = graph.add(
        "GRU",
        graph.add("Unsqueeze", x, first),
        graph.constant(layer.input_weight[None, order]),
        graph.constant(layer.state_weight[None, order]),
        graph.constant(np.concatenate([bias, state_bias])[None]),
        "",
        graph.add("Unsqueeze", f"state_{number}", first),
        outputs=2,
        hidden_size=size,
        linear_before_reset=1,
    )
    return graph.add("Squeeze", names[1], first, output=f"next_state_{number}")


def _pid(graph: _Graph, layer: Pid, error: str, number: int) -> str:
    size, axis = len(layer.proportional), graph.constant([1], np.int64)
    cuts = [graph.constant([end], np.int64) for end in (0, size, 2 * size, 2 * size + 1)]
    total, before, started = (graph.add("Slice", f"state_{number}", *ends, axis) for ends in pairwise(cuts))
    summed = graph.add("Max", graph.add("Add", total, error), graph.constant(-layer.limit))
    total = graph.add("Min", summed, graph.constant(layer.limit))
    change = graph.add("Mul", started, graph.add("Sub", error, before))
    parts = ((layer.proportional, error), (layer.integral, total), (layer.derivative, change))
    terms = [graph.add("Mul", part, graph.constant(gain)) for gain, part in parts]
    one = graph.add("Add", graph.add("Mul", started, graph.constant(0.0)), graph.constant(1.0))
    graph.add("Concat", total, error, one, output=f"next_state_{number}", axis=1)
    return graph.add("Add", graph.add("Add", terms[0], terms[1]), terms[2])


_REMEMBERING: dict[type[Layer], Callable[[_Graph, Any, str, int], str]] = {GRU: _gru, Pid: _pid}

_LAYERS: dict[type[Layer], Callable[[_Graph, Any, str], str]] = {
    Normalise: _normalise,
    Flatten: _flatten,
    Dense: _dense,
    Convolution: _convolution,
    LayerNorm: _layer_norm,
    BatchNorm: _batch_norm,
    Activation: _activation,
    Expectation: _expectation,
}


def _action_end(action: ActionSpace) -> End:
    match action:
        case Discrete():
            return End("action", np.int64, ())
        case MultiDiscrete():
            return End("action", np.int64, (action.size,))
        case MultiBinary():
            return End("action", np.int8, (action.size,))
    return End("action", np.float32, action.shape)


def _head(graph: _Graph, head: Layer, action: ActionSpace, y: str) -> None:
    """Add the nodes from the outputs to `action`."""
    match head, action:
        case Bits(), _:
            above = graph.add("Greater", y, graph.constant(0.0))
            graph.add("Cast", above, output="action", to=3)  # 3 is INT8 in ONNX's list of types
        case Argmax(), MultiDiscrete():
            axis, chosen = graph.constant([1], np.int64), []
            for ends in pairwise(np.cumsum([0, *action.counts])):
                group = graph.add("Slice", y, *(graph.constant([end], np.int64) for end in ends), axis)
                chosen.append(graph.add("ArgMax", group, axis=1, keepdims=1))
            graph.add("Concat", *chosen, output="action", axis=1)
        case Argmax(), _:
            graph.add("ArgMax", y, output="action", axis=1, keepdims=0)
        case Bins(), Box():
            scores = graph.add("Reshape", y, graph.constant([-1, action.size, head.count], np.int64))
            best = graph.add("ArgMax", scores, axis=2, keepdims=0)
            place = graph.add("Add", best, graph.constant(np.arange(action.size) * head.count, np.int64))
            values = graph.constant(bin_values(action, head.count).reshape(-1))
            _shaped(graph, graph.add("Gather", values, place, axis=0), action)
        case _, Box():
            low, high, middle, half = box_bounds(action)
            if isinstance(head, Squash):
                bent = graph.add("Mul", graph.add("Tanh", y), graph.constant(half))
                y = graph.add("Add", bent, graph.constant(middle))
            elif isinstance(head, Stretch):
                middle, half = stretching(action)
                y = graph.add("Add", graph.add("Mul", y, graph.constant(half)), graph.constant(middle))
            y = graph.add("Max", y, graph.constant(low))
            _shaped(graph, graph.add("Min", y, graph.constant(high)), action)


def _shaped(graph: _Graph, actions: str, action: Box) -> None:
    graph.add("Reshape", actions, graph.constant([-1, *action.shape], np.int64), output="action")
