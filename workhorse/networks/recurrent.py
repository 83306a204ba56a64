"""A recurrent network: a gated recurrent unit with a perceptron on top."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from workhorse.core.layers import GRU, PolicyNetwork
from workhorse.networks.layers import mlp_layers
from workhorse.networks.mlp import MLP

__all__ = ["Recurrent", "gru_layer", "recurrent_layers", "unroll"]


class Recurrent(eqx.Module):
    """h' = GRU(x, h);  y = network(h').

    Attributes:
        cell: the unit; its docstring has the equations.
        network: from the memory to the outputs.
    """

    cell: eqx.nn.GRUCell
    network: MLP

    def start(self) -> Float[Array, "H"]:
        """Return the memory at the start of an episode: zeros."""
        return jnp.zeros(self.cell.hidden_size, jnp.float32)

    def __call__(
        self, x: Float[Array, "D"], memory: Float[Array, "H"]
    ) -> tuple[Float[Array, "out"], Float[Array, "H"]]:
        """Return the outputs and the memory after an observation."""
        memory = self.cell(x, memory)
        return self.network(memory), memory


def unroll(
    network: Recurrent, x: Float[Array, "T N D"], memory: Float[Array, "N H"], fresh: Bool[Array, "T N"]
) -> tuple[Float[Array, "T N out"], Float[Array, "T N H"]]:
    """Run the network along T steps of N slots.

    Args:
        network: the network.
        x: what it reads.
        memory: before the first step.
        fresh: an episode begins at this step, with no memory of what came before.

    Returns:
        The outputs, and the memory that each step began with, zeros where it is fresh.
    """

    def step(memory: Array, given: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        x, fresh = given
        memory = jnp.where(fresh[:, None], 0.0, memory)
        outputs, after = jax.vmap(network)(x, memory)
        return after, (outputs, memory)

    return jax.lax.scan(step, memory, (x, fresh))[1]


def gru_layer(cell: eqx.nn.GRUCell) -> GRU:
    """Return the layer of a recurrent cell."""
    return GRU(cell.weight_ih, cell.weight_hh, cell.bias, cell.bias_n)


def recurrent_layers(network: Recurrent) -> PolicyNetwork:
    """Return the layers of a recurrent network."""
    return (gru_layer(network.cell), *mlp_layers(network.network))
