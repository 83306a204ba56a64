"""The distributions that stochastic policies draw actions from, one sample at a time."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from workhorse.core.algorithm import Key

__all__ = [
    "Bernoullis",
    "Categorical",
    "Categoricals",
    "DiagonalGaussian",
    "Distribution",
    "TanhGaussian",
    "divergence",
]

_HALF_LOG_2PI = float(0.5 * np.log(2 * np.pi))


class DiagonalGaussian(NamedTuple):
    """Independent normal components.

    Attributes:
        mean: of each component.
        log_std: natural logarithm of each standard deviation.
    """

    mean: Float[Array, "A"]
    log_std: Float[Array, "A"]

    def sample(self, key: Key) -> Float[Array, "A"]:
        """Draw mean + std * eps."""
        return self.mean + jnp.exp(self.log_std) * jax.random.normal(key, self.mean.shape, self.mean.dtype)

    def mode(self) -> Float[Array, "A"]:
        """Return the likeliest action: the mean."""
        return self.mean

    def log_prob(self, action: Float[Array, "A"]) -> Float[Array, ""]:
        """Return the log density: sum_i -(a_i - m_i)^2 / (2 s_i^2) - log s_i - log(2 pi) / 2.

        *Of the action drawn*, before it is clipped to the task's bounds.

        Example:
            >>> round(float(DiagonalGaussian(jnp.zeros(2), jnp.zeros(2)).log_prob(jnp.array([1.0, 0.0]))), 4)
            -2.3379
        """
        scaled = (action - self.mean) * jnp.exp(-self.log_std)
        return (-0.5 * scaled * scaled - self.log_std - _HALF_LOG_2PI).sum()

    def entropy(self) -> Float[Array, ""]:
        """Return the differential entropy, sum_i log s_i + (1 + log 2 pi) / 2. It may be negative."""
        return (self.log_std + 0.5 + _HALF_LOG_2PI).sum()

    def kl(self, other: "DiagonalGaussian") -> Float[Array, ""]:
        """Return KL(self || other) = sum_i log(s'_i / s_i) + (s_i^2 + (m_i - m'_i)^2) / (2 s'_i^2) - 1/2.

        Example:
            >>> one, other = DiagonalGaussian(jnp.zeros(1), jnp.zeros(1)), DiagonalGaussian(jnp.ones(1), jnp.zeros(1))
            >>> float(one.kl(other)), float(one.kl(one))
            (0.5, 0.0)
        """
        apart = (self.mean - other.mean) * jnp.exp(-other.log_std)
        share = jnp.exp(2 * (self.log_std - other.log_std))
        return (other.log_std - self.log_std + 0.5 * (share + apart * apart) - 0.5).sum()


class TanhGaussian(NamedTuple):
    """Independent components tanh(u), u normal: actions in (-1, 1).

    Attributes:
        mean: of u.
        log_std: natural logarithm of the standard deviation of u.
    """

    mean: Float[Array, "A"]
    log_std: Float[Array, "A"]

    @staticmethod
    def bounded(outputs: Float[Array, "out"], low: float, high: float) -> "TanhGaussian":
        """Return the distribution that 2 A outputs of a network stand for: means, then what gives the spreads.

        log_std = low + (high - low) (1 + tanh(x)) / 2, between `low` and `high` for every x.

        Example:
            >>> TanhGaussian.bounded(jnp.array([0.5, 0.0], jnp.float32), -5.0, 2.0)
            TanhGaussian(mean=Array([0.5], dtype=float32), log_std=Array([-1.5], dtype=float32))
        """
        mean, spread = jnp.split(outputs, 2)
        return TanhGaussian(mean, low + 0.5 * (high - low) * (1 + jnp.tanh(spread)))

    def mode(self) -> Float[Array, "A"]:
        """Return tanh of the mean, which is the median of each component."""
        return jnp.tanh(self.mean)

    def sample(self, key: Key) -> tuple[Float[Array, "A"], Float[Array, ""]]:
        """Draw an action and return it with its log density."""
        return self.at(jax.random.normal(key, self.mean.shape, self.mean.dtype))

    def at(self, noise: Float[Array, "A"]) -> tuple[Float[Array, "A"], Float[Array, ""]]:
        """Return the action tanh(u), u = mean + std * noise, and its log density."""
        unsquashed = self.mean + jnp.exp(self.log_std) * noise
        return jnp.tanh(unsquashed), self.log_prob(unsquashed)

    def log_prob(self, unsquashed: Float[Array, "A"]) -> Float[Array, ""]:
        """Return the log density of the action tanh(u) on (-1, 1), given u.

            sum_i log N(u_i; m_i, s_i) - log(1 - tanh(u_i)^2),   log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)).

        *The form with the softplus is exact for every u*: 1 - tanh(u)^2 itself is 0 in float32 from |u| = 9 on. Of an
        action alone the density cannot be told there, and so u is what is asked for.

        Example:
            >>> one = TanhGaussian(jnp.zeros(1), jnp.zeros(1))
            >>> round(float(one.log_prob(jnp.zeros(1))), 4), round(float(one.log_prob(jnp.full(1, 20.0))), 2)
            (-0.9189, -162.31)

        Source: Haarnoja et al. 2018, "Soft actor-critic" (arXiv 1801.01290), appendix C.
        """
        normal = DiagonalGaussian(self.mean, self.log_std).log_prob(unsquashed)
        return normal - (2 * (np.log(2).astype(np.float32) - unsquashed - jax.nn.softplus(-2 * unsquashed))).sum()


class Categorical(NamedTuple):
    """One of `count` choices.

    Attributes:
        logits: unnormalised log probabilities.
    """

    logits: Float[Array, "n"]

    def sample(self, key: Key) -> Int[Array, ""]:
        """Draw a choice, by the Gumbel trick."""
        return jax.random.categorical(key, self.logits)

    def mode(self) -> Int[Array, ""]:
        """Return the likeliest choice, the lowest one among equals."""
        return jnp.argmax(self.logits)

    def log_prob(self, action: Int[Array, ""]) -> Float[Array, ""]:
        """Return the log probability of a choice.

        Example:
            >>> round(float(Categorical(jnp.log(jnp.array([0.25, 0.75]))).log_prob(jnp.array(0))), 4)
            -1.3863
        """
        return jax.nn.log_softmax(self.logits)[action]

    def entropy(self) -> Float[Array, ""]:
        """Return -sum p log p, in nats."""
        log_p = jax.nn.log_softmax(self.logits)
        return -(jnp.exp(log_p) * log_p).sum()

    def kl(self, other: "Categorical") -> Float[Array, ""]:
        """Return KL(self || other) = sum p log(p / p')."""
        log_p, log_q = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        return (jnp.exp(log_p) * (log_p - log_q)).sum()


class Categoricals(NamedTuple):
    """Independent choices, as many as there are rows.

    Attributes:
        logits: unnormalised log probabilities, a row for each choice as `choices.grouped` makes them.
    """

    logits: Float[Array, "A n"]

    def sample(self, key: Key) -> Int[Array, "A"]:
        """Draw every choice, by the Gumbel trick."""
        return jax.random.categorical(key, self.logits)

    def mode(self) -> Int[Array, "A"]:
        """Return the likeliest choices, the lowest ones among equals."""
        return jnp.argmax(self.logits, axis=-1)

    def log_prob(self, action: Int[Array, "A"]) -> Float[Array, ""]:
        """Return the log probability of all choices together: the sum of theirs.

        Example:
            >>> from workhorse.math.choices import grouped
            >>> one = Categoricals(grouped(jnp.log(jnp.array([0.25, 0.75, 0.2, 0.3, 0.5])), (2, 3)))
            >>> round(float(jnp.exp(one.log_prob(jnp.array([1, 2])))), 4)
            0.375
        """
        return jnp.take_along_axis(jax.nn.log_softmax(self.logits), action[:, None], axis=-1).sum()

    def entropy(self) -> Float[Array, ""]:
        """Return the sum of the choices' entropies, in nats."""
        log_p = jax.nn.log_softmax(self.logits)
        return -(jnp.exp(log_p) * log_p).sum()

    def kl(self, other: "Categoricals") -> Float[Array, ""]:
        """Return KL(self || other), the sum over the choices."""
        log_p, log_q = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        return (jnp.exp(log_p) * (log_p - log_q)).sum()


class Bernoullis(NamedTuple):
    """Independent switches.

    Attributes:
        logits: log odds of each switch being on.
    """

    logits: Float[Array, "A"]

    def sample(self, key: Key) -> Int[Array, "A"]:
        """Draw every switch, 0 or 1."""
        return jax.random.bernoulli(key, jax.nn.sigmoid(self.logits)).astype(jnp.int8)

    def mode(self) -> Int[Array, "A"]:
        """Return the likeliest setting; a switch with even odds is off."""
        return (self.logits > 0).astype(jnp.int8)

    def log_prob(self, action: Int[Array, "A"]) -> Float[Array, ""]:
        """Return the log probability of all switches together: sum_i log sigmoid(l_i), or log sigmoid(-l_i) where off.

        Example:
            >>> round(float(jnp.exp(Bernoullis(jnp.log(jnp.array([3.0, 1.0]))).log_prob(jnp.array([1, 0])))), 4)
            0.375
        """
        return jax.nn.log_sigmoid(jnp.where(action > 0, self.logits, -self.logits)).sum()

    def entropy(self) -> Float[Array, ""]:
        """Return the sum of the switches' entropies, in nats."""
        return -jnp.stack([p * log_p for p, log_p in self._both()]).sum()

    def kl(self, other: "Bernoullis") -> Float[Array, ""]:
        """Return KL(self || other), the sum over the switches."""
        pairs = zip(self._both(), other._both(), strict=True)
        return jnp.stack([p * (log_p - log_q) for (p, log_p), (_, log_q) in pairs]).sum()

    def _both(self) -> list[tuple[Array, Array]]:
        """Return (probability, its logarithm) of on and of off, each exact where it is close to 0."""
        return [(jax.nn.sigmoid(logits), jax.nn.log_sigmoid(logits)) for logits in (self.logits, -self.logits)]


Distribution = DiagonalGaussian | Categorical | Categoricals | Bernoullis


def divergence(one: Distribution, other: Distribution) -> Float[Array, ""]:
    """Return KL(one || other) of two distributions of one kind."""
    same: Any = other
    return one.kl(same)
