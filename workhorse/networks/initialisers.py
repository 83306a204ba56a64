"""Initial weights: orthogonal, uniform after Glorot, or uniform by the number of inputs."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from workhorse.core.algorithm import Key

__all__ = ["fan_in_uniform", "glorot_uniform", "orthogonal"]


def orthogonal(key: Key, fan_out: int, fan_in: int, gain: float) -> Float[Array, "out in"]:
    """A random matrix whose rows (or columns, whichever are fewer) are orthogonal, each of length `gain`.

    Example:
        >>> weight = orthogonal(jax.random.key(0), 2, 3, 2.0)
        >>> (weight @ weight.T).round(4).tolist()
        [[4.0, 0.0], [0.0, 4.0]]

    Source: Saxe, McClelland and Ganguli 2014, "Exact solutions to the nonlinear dynamics of learning in deep linear
    neural networks".
    """
    matrix = jax.random.normal(key, (max(fan_out, fan_in), min(fan_out, fan_in)), jnp.float32)
    q, r = jnp.linalg.qr(matrix)
    q = q * jnp.sign(jnp.diagonal(r))
    return jnp.abs(jnp.float32(gain)) * (q if fan_out >= fan_in else q.T)


def glorot_uniform(key: Key, fan_out: int, fan_in: int, gain: float = 1.0) -> Float[Array, "out in"]:
    """Uniform in +- gain * sqrt(6 / (fan_in + fan_out)).

    Source: Glorot and Bengio 2010, "Understanding the difficulty of training deep feedforward neural networks".
    """
    bound = gain * (6.0 / (fan_in + fan_out)) ** 0.5
    return jax.random.uniform(key, (fan_out, fan_in), jnp.float32, -bound, bound)


def fan_in_uniform(key: Key, shape: tuple[int, ...], fan_in: int) -> Float[Array, "..."]:
    """Uniform in +- 1 / sqrt(fan_in), for weights and biases alike.

    Source: the initialiser of PyTorch's `Linear`, with which public results of SAC, TD3 and DQN were made.
    """
    bound = fan_in**-0.5
    return jax.random.uniform(key, shape, jnp.float32, -bound, bound)
