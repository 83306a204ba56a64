"""Improved cross-entropy method: coloured noise, elites that are kept, the best plan carried out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from workhorse.algorithms.demonstration_learner import CopyActor
from workhorse.algorithms.planning.planner import Copier, shifted
from workhorse.core.algorithm import Action, Key
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.ranges import require_non_negative, require_positive
from workhorse.core.spec import Box
from workhorse.core.types import Tried

__all__ = ["ICEM", "coloured_basis"]


class Elites(NamedTuple):
    """What a slot remembers.

    Attributes:
        mean, std: of the plans to draw, float32 (H, ...).
        plans: the K best of the last round, best first, float32 (K, H, ...).
        reward: theirs, of each step, float64 (K, H); NaN where they were not tried from the present state.
    """

    mean: Float[Array, "H ..."]
    std: Float[Array, "H ..."]
    plans: Float[Array, "K H ..."]
    reward: Float[Array, "K H"]


@configuration
class ICEM(Copier):
    """Cross-entropy method over plans, with noise that is correlated in time.

        plan_n = clip(mean + std * noise_n),      spectrum of the noise ~ frequency^-noise_exponent
        mean'  = (1 - momentum) mean(elites) + momentum mean,      std' likewise

    over rounds whose sizes fall evenly on a logarithmic scale. Some elites stay in the pool of the next round; as many
    of the former action's, shifted by a step, are tried in the first. In the last round one plan is the mean. The best
    plan that was tried is the one whose first action is taken.
    A new action starts with the standard deviation `init_std` around the shifted mean.

    Source: Pinneri et al. 2020, "Sample-efficient cross-entropy method for real-time planning" (arXiv 2008.06389), and
    its code: 40 plans, 25 in the last of 3 rounds, horizon 30, 10 elites, of which 3 are kept, momentum .1, noise
    exponent .25 for HalfCheetah and 2 to 3.5 for other tasks.
    """

    name = "icem"
    summary = "cross-entropy method over plans with coloured noise and kept elites, before each action"
    takes = "box"

    num_plans: int = 40
    """Plans drawn in the first round."""
    num_rounds: int = 3
    """Rounds of trials before an action."""
    num_elites: int = 10
    """Plans of a round that the next is drawn around."""
    last_plans: int = 25
    """Plans drawn in the last round."""
    num_kept: int = 3
    """Elites that stay in the pool, within an action's rounds and from one action to the next."""
    momentum: float = 0.1
    """Weight of the former mean and standard deviation."""
    init_std: float = 0.5
    """Standard deviation of the first round, in units of half the range of an action."""
    noise_exponent: float = 2.0
    """Exponent of the noise: 0 is independent from step to step, the higher the slower."""

    def validate(self) -> None:
        super().validate()
        positive = ("num_rounds", "num_elites", "last_plans", "init_std")
        require_positive("ICEM", **{option: getattr(self, option) for option in positive})
        require_non_negative("ICEM", noise_exponent=self.noise_exponent, num_kept=self.num_kept)
        if self.num_plans < self.num_elites:
            raise UsageError(
                f"ICEM.num_plans must be at least num_elites, which are chosen among them: got {self.num_plans} and "
                f"{self.num_elites}."
            )
        if not max(1, self.num_elites - self.num_kept) <= self.last_plans <= self.num_plans:
            raise UsageError(
                f"ICEM.last_plans must be between num_elites - num_kept, {self.num_elites - self.num_kept}, and "
                f"num_plans, {self.num_plans}: got {self.last_plans}."
            )
        if self.num_kept > self.num_elites:
            raise UsageError(f"ICEM.num_kept must not exceed num_elites: got {self.num_kept} and {self.num_elites}.")
        if not 0 <= self.momentum < 1:
            raise UsageError(f"ICEM.momentum must be in [0, 1): got {self.momentum}.")

    @property
    def round_sizes(self) -> tuple[int, ...]:
        sizes = np.geomspace(self.num_plans, self.last_plans, self.num_rounds).round().astype(int).tolist()
        return (sizes[0] + self.num_kept, *sizes[1:])

    def begin(self, actor: CopyActor, slot: Int[Array, ""]) -> Elites:
        assert isinstance(self.spec.action, Box)
        mean = self.clipped(jnp.zeros((self.horizon, *self.spec.action.shape), jnp.float32))
        elites = jnp.broadcast_to(mean, (self.num_elites, *mean.shape))
        return Elites(mean, self._first_std(), elites, jnp.full(elites.shape[:2], jnp.nan, jnp.float64))

    def _first_std(self) -> Float[Array, "H ..."]:
        assert isinstance(self.spec.action, Box)
        half = jnp.asarray(self.spec.action.middle_and_half()[1])
        return jnp.broadcast_to(jnp.asarray(self.init_std, jnp.float32) * half, (self.horizon, *half.shape))

    def propose(self, actor: CopyActor, carry: Elites, key: Key, *, round: Int[Array, ""], count: int) -> Action:
        """Return plans around the mean; in the first round also kept elites, in the last the mean."""
        basis = coloured_basis(self.horizon, self.noise_exponent)
        drawn = jax.random.normal(key, (count, self.horizon, carry.mean[0].size), jnp.float32)
        noise = jnp.einsum("hk,nka->nha", basis, drawn).reshape(count, *carry.mean.shape)
        plans = self.clipped(carry.mean + carry.std * noise)
        kept = carry.plans[: self.num_kept]
        plans = jnp.where(round == 0, plans.at[: len(kept)].set(kept), plans)
        return jnp.where(round == self.num_rounds - 1, plans.at[-1].set(carry.mean), plans)

    def refine(self, actor: CopyActor, carry: Elites, plans: Action, tried: Tried, *, round: Int[Array, ""]) -> Elites:
        returns, reward = self.returns(tried)
        kept = self.num_kept
        known = jnp.where(round == 0, -jnp.inf, carry.reward[:kept].sum(-1))  # those before were of another state
        plans, reward = jnp.concatenate([carry.plans[:kept], plans]), jnp.concatenate([carry.reward[:kept], reward])
        best = jnp.argsort(-jnp.concatenate([known, returns]))[: self.num_elites]
        elites, stay = plans[best], jnp.asarray(self.momentum, jnp.float32)
        mean = (1 - stay) * elites.mean(0) + stay * carry.mean
        std = (1 - stay) * elites.std(0) + stay * carry.std
        return Elites(mean, std, elites, reward[best])

    def plan(self, carry: Elites) -> tuple[Action, Float[Array, "H"]]:
        return carry.plans[0], carry.reward[0]

    def advance(self, carry: Elites, key: Key) -> tuple[Action, Elites]:
        """Take the best plan's first action; shift mean and elites, whose last actions are drawn around the mean's."""
        mean, std = shifted(carry.mean), self._first_std()
        last = jax.random.normal(key, carry.plans[:, 0].shape, jnp.float32)
        elites = jnp.concatenate([carry.plans[:, 1:], self.clipped(mean[-1] + std[-1] * last)[:, None]], axis=1)
        return carry.plans[0, 0], Elites(mean, std, elites, jnp.full_like(carry.reward, jnp.nan))


def coloured_basis(horizon: int, exponent: Float[Array, ""] | float) -> Float[Array, "H H"]:
    """Return B such that B e, e ~ N(0, I), is noise over H steps whose spectrum falls as frequency^-exponent.

        x_t = sum over j >= 0 of s_j (a_j cos(2 pi j t / H) + b_j sin(2 pi j t / H)),   s_j = max(j, 1)^(-exponent / 2)

    scaled so that each x_t has variance 1; with exponent 0 it is white.

    Source: Timmer and Koenig 1995, "On generating power law noise". The constant has the first frequency's power.
    """
    steps, frequency = np.arange(horizon), np.arange(horizon // 2 + 1)
    angle = 2 * np.pi * np.outer(steps, frequency) / horizon
    has_sine = (frequency > 0) & (2 * frequency < horizon)
    waves = np.concatenate([np.cos(angle), np.sin(angle)[:, has_sine]], axis=1)
    number = np.concatenate([frequency, frequency[has_sine]])
    # a frequency with both waves has the power of two; the others stand alone
    alone = np.where(has_sine[number], np.sqrt(2.0), 1.0)
    scale = jnp.asarray(np.maximum(number, 1), jnp.float32) ** (-jnp.asarray(exponent, jnp.float32) / 2)
    basis = jnp.asarray(waves * alone, jnp.float32) * scale
    return basis / jnp.sqrt(jnp.square(basis).sum(1, keepdims=True))
