"""Networks from an observation to what each choice is worth: plain or dueling, with or without noisy weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from workhorse.core.algorithm import Key
from workhorse.core.layers import Activation, Dense, PolicyNetwork
from workhorse.networks.layers import mlp_layers
from workhorse.networks.mlp import ACTIVATIONS, MLP

__all__ = ["QNetwork", "Streams"]


class Streams(eqx.Module):
    """Outputs of each choice, (A, n): n = 1 for a value, n atoms' logits for a distribution of it.

    Plain: one perceptron. Dueling: all hidden layers but the last are shared; then two streams, each with a hidden
    layer of its own, give V (n numbers) and W (A n numbers), and

        Q(s, a) = V(s) + W(s, a) - mean over a' of W(s, a').

    Without the mean only the sum would be defined, and not V and W apart.

    Attributes:
        trunk: hidden layers shared by both streams; None where there are none, or one stream alone.
        value: the stream of V; None where not dueling.
        advantage: the stream of W, or of Q where not dueling.
        choices: A.

    Source: Wang et al. 2016, "Dueling network architectures for deep reinforcement learning" (arXiv 1511.06581),
    equation 9.
    """

    trunk: MLP | None
    value: MLP | None
    advantage: MLP
    choices: int = eqx.field(static=True)

    @staticmethod
    def create(key: Key, inputs: int, hidden: tuple[int, ...], choices: int, atoms: int, dueling: bool) -> "Streams":
        """Return networks with `atoms` outputs a choice, their weights uniform in +- 1 / sqrt(inputs)."""
        keys = jax.random.split(key, 3)
        if not dueling:
            return Streams(None, None, MLP.uniform(keys[0], (inputs, *hidden, choices * atoms)), choices)
        shared, own = hidden[:-1], hidden[-1:]
        trunk = MLP.uniform(keys[1], (inputs, *shared)) if shared else None
        read = shared[-1] if shared else inputs
        value, advantage = (
            MLP.uniform(keys[2], (read, *own, atoms)),
            MLP.uniform(keys[0], (read, *own, choices * atoms)),
        )
        return Streams(trunk, value, advantage, choices)

    def __call__(self, x: Float[Array, "in"]) -> Float[Array, "A n"]:
        if self.trunk is not None:
            x = ACTIVATIONS[self.trunk.activation](self.trunk(x))
        advantage = self.advantage(x).reshape(self.choices, -1)
        if self.value is None:
            return advantage
        return self.value(x) + advantage - advantage.mean(0)

    def layers(self) -> PolicyNetwork:
        """Return one chain of layers with the same outputs, choice by choice, (A n,).

        The streams' hidden layers lie on top of each other, and one matrix adds what they give.
        """
        if self.value is None:
            return mlp_layers(self.advantage)
        before = () if self.trunk is None else (*mlp_layers(self.trunk), Activation(self.trunk.activation))
        pairs = zip(self.value.weights, self.value.biases, self.advantage.weights, self.advantage.biases, strict=True)
        *hidden, (of_value, value_bias, of_advantage, advantage_bias) = (tuple(map(np.asarray, row)) for row in pairs)
        each = of_advantage.reshape(self.choices, len(value_bias), -1)
        biases = advantage_bias.reshape(self.choices, -1)
        centred = (each - each.mean(0)).reshape(of_advantage.shape)
        bias = (value_bias + biases - biases.mean(0)).reshape(-1)
        value = np.tile(of_value, (self.choices, 1))
        if not hidden:
            return (*before, Dense(value + centred, bias))
        ((first, first_bias, second, second_bias),) = hidden
        both = Dense(np.concatenate([first, second]), np.concatenate([first_bias, second_bias]))
        return (*before, both, Activation(self.value.activation), Dense(np.concatenate([value, centred], 1), bias))


class QNetwork(eqx.Module):
    """Streams whose weights may have noise: mean + spread * noise, drawn anew where `drawn` is called.

    The noise of a weight from unit i to unit o is f(e_o) f(e_i), that of a bias f(e_o), with f(x) = sign(x) sqrt(|x|)
    and one normal number e for each unit: as many draws as units, not as weights.

    Attributes:
        mean: the streams without noise.
        spread: factor of the noise of each weight, in the same tree; None where weights have no noise.

    Source: Fortunato et al. 2018, "Noisy networks for exploration" (arXiv 1706.10295), equations 10 and 11. Every
    layer is noisy here.
    """

    mean: Streams
    spread: Streams | None

    @staticmethod
    def create(mean: Streams, noise_std: Float[Array, ""] | None) -> "QNetwork":
        """Return the network around streams; all spreads of a layer begin as noise_std / sqrt(its inputs)."""
        if noise_std is None:
            return QNetwork(mean, None)

        def spread(network: MLP) -> MLP:
            each = [noise_std / jnp.sqrt(jnp.float32(weight.shape[1])) for weight in network.weights]
            pairs = list(zip(each, network.weights, network.biases, strict=True))
            weights = tuple(jnp.full(weight.shape, std, jnp.float32) for std, weight, _ in pairs)
            return MLP(weights, tuple(jnp.full(bias.shape, std, jnp.float32) for std, _, bias in pairs), "relu")

        is_network = lambda node: isinstance(node, MLP)  # noqa: E731
        return QNetwork(mean, jax.tree.map(spread, mean, is_leaf=is_network))

    def drawn(self, key: Key) -> Streams:
        """Return streams with one draw of the noise; those without noise as they are."""
        if self.spread is None:
            return self.mean
        mean, spread = self.mean, self.spread
        keys = jax.random.split(key, 3)
        trunk = None if mean.trunk is None else _with_noise(mean.trunk, spread.trunk, keys[0])
        value = None if mean.value is None else _with_noise(mean.value, spread.value, keys[1])
        return Streams(trunk, value, _with_noise(mean.advantage, spread.advantage, keys[2]), mean.choices)


def _with_noise(mean: MLP, spread: MLP | None, key: Key) -> MLP:
    assert spread is not None
    weights, biases = [], []
    keys = jax.random.split(key, len(mean.weights))
    for layer, (weight, bias) in enumerate(zip(mean.weights, mean.biases, strict=True)):
        rows, columns = weight.shape
        unit = jax.random.normal(keys[layer], (rows + columns,), jnp.float32)
        noise = jnp.sign(unit) * jnp.sqrt(jnp.abs(unit))
        out, into = noise[:rows], noise[rows:]
        weights.append(weight + spread.weights[layer] * jnp.outer(out, into))
        biases.append(bias + spread.biases[layer] * out)
    return MLP(tuple(weights), tuple(biases), mean.activation)
