"""From the networks that are trained to the named layers of a policy artefact."""

import numpy as np
from jaxtyping import Array, Float

from workhorse.core.layers import GRU, Dense, Flatten, Normalise, PolicyNetwork, perceptron
from workhorse.core.spec import Box
from workhorse.networks.mlp import MLP

__all__ = ["mlp_layers", "scaled_layers"]


def mlp_layers(network: MLP) -> PolicyNetwork:
    """Return the layers of a perceptron."""
    return perceptron(network.weights, network.biases or (None,) * len(network.weights), network.activation)


def scaled_layers(
    space: Box,
    mean: Float[Array, "D"] | Float[np.ndarray, "D"],
    inverse_scale: Float[Array, "D"] | Float[np.ndarray, "D"],
    clip: float | None,
    layers: PolicyNetwork,
) -> PolicyNetwork:
    """Return layers that read flat observations, with the normaliser z = clip((x - mean) * inverse_scale) before them.

    A constant component, whose `inverse_scale` is 0, must read as zero, which no division does. The weights that read
    it become zero instead. A first layer without weights gets it divided by the largest float32.
    """
    inverse = np.asarray(inverse_scale)
    constant = inverse == 0
    first, *others = layers
    scale = 1.0 / np.where(constant, np.float32(1), inverse)
    if isinstance(first, Dense):
        first = first._replace(weight=_without(first.weight, constant))
    elif isinstance(first, GRU):
        first = first._replace(input_weight=_without(first.input_weight, constant))
    else:
        scale = np.where(constant, np.finfo(np.float32).max, scale)
    flat = (Flatten(),) if len(space.shape) > 1 else ()
    return (*flat, Normalise(np.asarray(mean), scale, clip), first, *others)


def _without(weight: Float[Array, "out D"] | Float[np.ndarray, "out D"], constant: np.ndarray) -> np.ndarray:
    kept = np.array(weight)
    kept[:, constant] = 0.0
    return kept
