"""The layers that a policy artefact is a list of: plain arrays under names, which NumPy alone can run.

Every layer reads one sample, a vector or an image (height, width, channels); the equations leave out the batch axis.
The arrays are JAX's inside an algorithm and NumPy's, float32, in a `runs.policy.Policy`. The last layer is the head,
which turns outputs into an action of the task.
"""

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, TypeAlias

from workhorse.core.spec import ActionSpace, Box, MultiBinary

__all__ = [
    "ACTIVATIONS",
    "GRU",
    "HEADS",
    "KINDS",
    "Activation",
    "Argmax",
    "BatchNorm",
    "Bins",
    "Bits",
    "Convolution",
    "Dense",
    "Expectation",
    "Flatten",
    "Layer",
    "LayerNorm",
    "Mode",
    "Normalise",
    "Pid",
    "PolicyNetwork",
    "Squash",
    "Stretch",
    "head_for",
    "perceptron",
    "state_size",
]

Tensor: TypeAlias = Annotated[Any, "an array of finite real numbers"]
"""A field that is stored among the tensors; all other fields stand in policy.json."""


class Normalise(NamedTuple):
    """z = clip((x - mean) / scale, -clip, clip); without a bound where `clip` is None.

    `mean` and `scale` have the input's shape or one that broadcasts to it, such as () or one number a channel.
    """

    mean: Tensor
    scale: Tensor
    clip: float | None = None


class Flatten(NamedTuple):
    """Lay an image out as a vector, row by row, the channels of a pixel side by side."""


class Dense(NamedTuple):
    """y = weight x + bias, weight (out, in)."""

    weight: Tensor
    bias: Tensor | None = None


class Convolution(NamedTuple):
    """y[i, j, o] = bias[o] + sum over h, w, c of weight[o, c, h, w] x[i * stride + h, j * stride + w, c].

    Attributes:
        weight: (out, in, height, width), as in Equinox, PyTorch and ONNX.
        bias: (out,).
        stride: steps between windows, down and across.
        padding: zeros added to x at the top, the bottom, the left and the right.
    """

    weight: Tensor
    bias: Tensor | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)


class LayerNorm(NamedTuple):
    """y = (x - m) / sqrt(v + epsilon) * weight + bias, with the mean m and variance v of all components of x."""

    weight: Tensor | None = None
    bias: Tensor | None = None
    epsilon: float = 1e-5


class BatchNorm(NamedTuple):
    """y = (x - mean) / sqrt(variance + epsilon) * weight + bias, with one stored number each a channel."""

    mean: Tensor
    variance: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None
    epsilon: float = 1e-5


class Activation(NamedTuple):
    """A function of each component, by its name in `ACTIVATIONS`."""

    name: str


class Expectation(NamedTuple):
    """Means of distributions over atoms: y_a = sum over k of softmax(x_a)_k support_k, a y for each n components of x.

    Component a n + k of x is the logit of atom k in distribution a.

    Attributes:
        support: value of each atom, (n,).
    """

    support: Tensor


class GRU(NamedTuple):
    """A gated recurrent cell that puts out its state h, zero at the start of an episode.

    r = sigmoid(W_r x + b_r + U_r h);  u = sigmoid(W_u x + b_u + U_u h)
    c = tanh(W_c x + b_c + r * (U_c h + candidate_bias));  h' = c + u * (h - c)

    These are the equations of `equinox.nn.GRUCell`, whose arrays fit as they are.

    Attributes:
        input_weight: W_r, W_u, W_c on top of each other, (3 H, in).
        state_weight: U_r, U_u, U_c likewise, (3 H, H).
        bias: b_r, b_u, b_c, (3 H,).
        candidate_bias: (H,).
    """

    input_weight: Tensor
    state_weight: Tensor
    bias: Tensor | None = None
    candidate_bias: Tensor | None = None


class Pid(NamedTuple):
    """PID controllers, one for each error e that it reads; they remember I, e_before, and whether there was a step.

    I' = clip(I + e, -limit, limit);  y = proportional e + integral I' + derivative (e - e_before)

    In the first step of an episode the last term is 0.

    Attributes:
        proportional, integral, derivative: gains, (A,); the last two are per step.
        limit: most that errors add up to, above zero, (A,).
    """

    proportional: Tensor
    integral: Tensor
    derivative: Tensor
    limit: Tensor


class Mode(NamedTuple):
    """`Box` action: the outputs, clipped to the bounds. With `log_std`, noise exp(log_std) * normal can be drawn."""

    log_std: Tensor | None = None


class Stretch(NamedTuple):
    """`Box` action of a policy that acts in [-1, 1]: middle + half * y, clipped to the bounds middle -+ half.

    In a component that lacks a bound it is the output, clipped. `log_std`: of noise added to y.
    """

    log_std: Tensor | None = None


class Squash(NamedTuple):
    """Bounded `Box` action: middle + half * tanh(y), for bounds middle -+ half. `log_std`: of noise added to y."""

    log_std: Tensor | None = None


class Argmax(NamedTuple):
    """`Discrete` action: the place of the highest output, the first of equals; `MultiDiscrete`: one in each group.

    Attributes:
        draws: the outputs are logits by which actions can be drawn.
    """

    draws: bool = False


class Bits(NamedTuple):
    """`MultiBinary` action: 1 where the output is above zero.

    Attributes:
        draws: the outputs are logits of ones, by which actions can be drawn.
    """

    draws: bool = False


class Bins(NamedTuple):
    """Bounded `Box` action: in each component the highest-scored of `count` values evenly spaced over its bounds.

    The outputs are the scores, component by component; the first of equals is taken.
    """

    count: int


Layer: TypeAlias = (
    Normalise | Flatten | Dense | Convolution | LayerNorm | BatchNorm | Activation | Expectation | GRU | Pid | Mode
    | Stretch | Squash | Argmax | Bits | Bins
)  # fmt: skip
PolicyNetwork: TypeAlias = tuple[Layer, ...]
"""A policy: layers in the order in which they run, exactly one head among them, the last."""

HEADS = (Mode, Stretch, Squash, Argmax, Bits, Bins)
KINDS: dict[str, type[Layer]] = {
    "normalise": Normalise,
    "flatten": Flatten,
    "dense": Dense,
    "convolution": Convolution,
    "layer_norm": LayerNorm,
    "batch_norm": BatchNorm,
    "activation": Activation,
    "expectation": Expectation,
    "gru": GRU,
    "pid": Pid,
    "mode": Mode,
    "stretch": Stretch,
    "squash": Squash,
    "argmax": Argmax,
    "bits": Bits,
    "bins": Bins,
}
"""Layers by the name of their kind in policy.json."""

ACTIVATIONS = ("tanh", "relu", "sigmoid", "elu", "silu", "gelu", "leaky_relu")
"""Names in `jax.nn`, whose defaults hold: elu's alpha is 1, leaky_relu's slope 0.01, gelu the approximation by tanh."""


def state_size(layer: Layer) -> int:
    """Return how many numbers a layer remembers from step to step, all zero at the start of an episode."""
    match layer:
        case GRU():
            return layer.state_weight.shape[-1]
        case Pid():
            return 2 * len(layer.proportional) + 1
    return 0


def perceptron(weights: Sequence[Tensor], biases: Sequence[Tensor | None], activation: str) -> PolicyNetwork:
    """Return dense layers with an activation between them, and none after the last."""
    layers: list[Layer] = []
    for weight, bias in zip(weights, biases, strict=True):
        layers += [Activation(activation)] * bool(layers) + [Dense(weight, bias)]
    return tuple(layers)


def head_for(
    space: ActionSpace, *, action_bins: int | None = None, log_std: Tensor | None = None, draws: bool = False
) -> Layer:
    """Return the head of a policy whose outputs are values of a `Box` action's components, or scores of choices."""
    if isinstance(space, Box):
        return Mode(log_std) if action_bins is None else Bins(action_bins)
    return Bits(draws) if isinstance(space, MultiBinary) else Argmax(draws)
