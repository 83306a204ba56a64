"""Policies of every kind of layer, head and space, for the tests of the artefact."""

import numpy as np

from workhorse.core.layers import (
    ACTIVATIONS,
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
    LayerNorm,
    Mode,
    Normalise,
    Squash,
    Stretch,
    perceptron,
)
from workhorse.core.spec import Box, Discrete, Goal, MultiBinary, MultiDiscrete
from workhorse.runs.policy import Policy

D, H, A, K = 5, 8, 3, 7
BOX = Box((-1.0, -0.5, -2.0), (1.0, 0.5, 0.1))
HALF_OPEN = Box((-np.inf, -1.0, -np.inf), (np.inf, np.inf, 1.0))
MATRIX = Box((-1.0,) * 6, (1.0, 2.0, 3.0, 1.0, 2.0, 3.0), (2, 3))
IMAGE = Box((0.0,) * 240, (255.0,) * 240, (10, 8, 3))


def network(outputs, seed=0, size=D, activation="tanh"):
    rng = np.random.default_rng(seed)
    # Small last weights: actions must lie within the bounds as often as at them.
    weights = [rng.normal(size=(H, size)), 0.3 * rng.normal(size=(outputs, H))]
    return perceptron(weights, [rng.normal(size=H), 0.3 * rng.normal(size=outputs)], activation)


def normaliser(seed=1, clip=1.5):
    rng = np.random.default_rng(seed)
    return Normalise(rng.normal(size=D), rng.uniform(0.1, 2, D), clip)


def cell(size, inputs, seed=2, bias=True):
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=shape) for shape in [(3 * size, inputs), (3 * size, size), (3 * size,), (size,)]]
    return GRU(*arrays) if bias else GRU(*arrays[:2])


def make(action=BOX, outputs=A, head=None, seed=0, hidden=(), metadata=None, **options):
    """A perceptron over D components, with further layers in front of it on demand."""
    layers = (normaliser(seed + 1), *hidden, *network(outputs, seed, **options), head or Mode())
    return Policy(layers, observation=Box.unbounded(D), action=action, task="Probe-v0", metadata=metadata)


def pixels():
    """A policy over images: every layer that reads one."""
    rng = np.random.default_rng(4)
    layers = (
        Normalise(np.array(0.0), np.array(255.0)),
        Convolution(rng.normal(size=(4, 3, 3, 2)), rng.normal(size=4), (2, 1), (1, 0, 0, 1)),
        BatchNorm(rng.normal(size=4), rng.uniform(0.5, 2, 4), rng.normal(size=4), rng.normal(size=4)),
        Activation("relu"),
        LayerNorm(rng.normal(size=(5, 8, 4)), rng.normal(size=(5, 8, 4))),
        Convolution(rng.normal(size=(2, 4, 2, 2))),
        Flatten(),
        LayerNorm(),
        Dense(rng.normal(size=(4, 56)), rng.normal(size=4)),
        Argmax(draws=True),
    )
    return Policy(layers, observation=IMAGE, action=Discrete(4), task="Pixels-v0")


def recurrent():
    """A policy with two cells, one without biases."""
    layers = (normaliser(), cell(6, D), Activation("tanh"), cell(4, 6, 3, bias=False), *network(A, 5, 4), Mode())
    return Policy(layers, observation=Box.unbounded(D), action=BOX, task="Memory-v0")


def goal():
    """A policy that reads the parts of a goal task as one vector."""
    space = Goal.of_parts(Box.unbounded(1), Box.unbounded(2))
    return Policy((*network(A), Mode()), observation=space, action=BOX, task="Reach-v0")


VARIANTS = {
    "box": make,
    "plain": lambda: Policy((*network(A), Mode()), observation=Box.unbounded(D), action=BOX, task="Probe-v0"),
    "unclipped": lambda: Policy(
        (normaliser(clip=None), *network(A), Mode()), observation=Box.unbounded(D), action=BOX, task="Probe-v0"
    ),
    "noisy": lambda: make(head=Mode(np.array([-1.0, 0.0, 0.5]))),
    "matrix": lambda: make(MATRIX, 6),
    "unbounded": lambda: make(HALF_OPEN),
    "linear": lambda: Policy((Dense(np.eye(3, D)), Mode()), observation=Box.unbounded(D), action=BOX, task="Probe-v0"),
    "squash": lambda: make(head=Squash()),
    "noisy-squash": lambda: make(MATRIX, 6, Squash(np.full(6, -0.5))),
    "stretch": lambda: make(head=Stretch()),
    "noisy-stretch": lambda: make(MATRIX, 6, Stretch(np.full(6, -0.5))),
    "half-open-stretch": lambda: make(HALF_OPEN, head=Stretch()),
    "bins": lambda: make(outputs=A * K, head=Bins(K)),
    "discrete": lambda: make(Discrete(4), 4, Argmax()),
    "atoms": lambda: Policy(
        (normaliser(), *network(4 * K), Expectation(np.linspace(-3, 2, K)), Argmax()),
        observation=Box.unbounded(D),
        action=Discrete(4),
        task="Probe-v0",
    ),
    "logits": lambda: make(Discrete(4), 4, Argmax(draws=True)),
    "multi-discrete": lambda: make(MultiDiscrete((2, 4, 3)), 9, Argmax(draws=True)),
    "multi-binary": lambda: make(MultiBinary(4), 4, Bits(draws=True)),
    "goal": goal,
    "pixels": pixels,
    "gru": recurrent,
    **{f"{name}": (lambda name=name: make(activation=name)) for name in ACTIVATIONS if name != "tanh"},
}
"""Makers of policies by name."""


def observations(policy, rows, seed=9):
    """A batch of observations that excites the policy."""
    rng = np.random.default_rng(seed)
    if policy.observation is IMAGE or policy.observation.shape == IMAGE.shape:
        return rng.integers(0, 256, (rows, *IMAGE.shape)).astype(np.uint8)
    return rng.normal(size=(rows, *policy.observation.shape)) * 3
