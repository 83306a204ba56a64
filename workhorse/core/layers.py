"""The layers a policy artefact is a list of: named, plain arrays, run by NumPy alone."""

from typing import Any, NamedTuple, TypeAlias

__all__ = ["Activation", "Argmax", "Bins", "Bits", "Dense", "GRU", "Layer", "Mode", "Normalise", "PolicyNetwork"]


class Normalise(NamedTuple):
    """z = clip((x - mean) / scale, -clip, clip); without a clip where it is None."""

    mean: Any
    scale: Any
    clip: float | None


class Dense(NamedTuple):
    """y = weight x + bias, weight (out, in); without a bias where it is None."""

    weight: Any
    bias: Any


class Activation(NamedTuple):
    """An element-wise function by name: "tanh", "relu"."""

    name: str


class GRU(NamedTuple):
    """A gated recurrent cell with state h (H,); gates in the order reset, update, candidate.

    r, u = sigmoid(W x + U h + b);  c = tanh(W_c x + b_c + r * (U_c h + b_n));  h' = c + u * (h - c).

    Attributes:
        input_weight: W, (3 H, in).
        state_weight: U, (3 H, H).
        bias: b, (3 H,).
        candidate_bias: b_n, (H,).
    """

    input_weight: Any
    state_weight: Any
    bias: Any
    candidate_bias: Any


class Mode(NamedTuple):
    """A `Box` action: the outputs, clipped to the task's bounds."""


class Argmax(NamedTuple):
    """A `Discrete` or `MultiDiscrete` action: in each group of outputs the place of the highest; ties go to the first."""


class Bits(NamedTuple):
    """A `MultiBinary` action: 1 where the output is above zero."""


class Bins(NamedTuple):
    """A bounded `Box` action: in each component the highest-scored of `count` values evenly spaced over its bounds."""

    count: int


Layer: TypeAlias = Normalise | Dense | Activation | GRU | Mode | Argmax | Bits | Bins
PolicyNetwork: TypeAlias = tuple[Layer, ...]
