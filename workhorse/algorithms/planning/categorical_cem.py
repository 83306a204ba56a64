"""Cross-entropy method over plans of choices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.algorithms.planning.planner import Copier, CopyActor, shifted
from workhorse.core.algorithm import Action, Key
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.ranges import require_positive
from workhorse.core.spec import Discrete
from workhorse.core.types import Tried

__all__ = ["CategoricalCEM", "held_choices"]


class Choices(NamedTuple):
    """What a slot remembers.

    Attributes:
        probability: of each choice at each step of a plan, float32 (H, C).
        plan: the best plan that was tried, int32 (H,).
        reward: its rewards, float64 (H,); NaN where it was not tried from the present state.
    """

    probability: Float[Array, "H C"]
    plan: Int[Array, "H"]
    reward: Float[Array, "H"]


@configuration
class CategoricalCEM(Copier):
    """Cross-entropy method with an independent distribution over the choices at each step.

        p'_t(c) = (1 - smoothing) share of elites with c at t + smoothing p_t(c)

    *Where all plans return the same, nothing was learnt, and p stays.* With probability `stickiness` a step of a plan
    repeats the choice before it instead of drawing one: pushing one way for a while gets further than trembling does.
    The best plan that was tried is the one whose first choice is taken; it is tried again, shifted by a step, before
    the next. A new action starts from the shifted distribution, moved towards the uniform one by `forgetting`.

    Source: Rubinstein and Kroese 2004, "The cross-entropy method", chapter 2, with smoothing. The sticky draws are
    this project's.
    """

    name = "categorical-cem"
    summary = "cross-entropy method over plans of choices, before each action"
    takes = "discrete"

    num_plans: int = 50
    """Plans tried in a round."""
    num_rounds: int = 3
    """Rounds of trials before an action."""
    num_elites: int = 8
    """Plans of a round that the next is drawn from."""
    smoothing: float = 0.1
    """Weight of the former distribution in the new one."""
    forgetting: float = 0.3
    """Weight of the uniform distribution in the one that a new action starts from."""
    stickiness: float = 0.7
    """Probability that a step repeats the choice before it."""

    def validate(self) -> None:
        super().validate()
        require_positive("CategoricalCEM", num_rounds=self.num_rounds, num_elites=self.num_elites)
        if self.num_plans <= self.num_elites:
            raise UsageError(
                f"CategoricalCEM.num_plans must exceed num_elites, else nothing is chosen: got {self.num_plans} and "
                f"{self.num_elites}."
            )
        for option in ("smoothing", "forgetting", "stickiness"):
            if not 0 <= getattr(self, option) <= 1:
                raise UsageError(f"CategoricalCEM.{option} must be in [0, 1]: got {getattr(self, option)}.")

    @property
    def round_sizes(self) -> tuple[int, ...]:
        return (self.num_plans,) * self.num_rounds

    def begin(self, actor: CopyActor, slot: Int[Array, ""]) -> Choices:
        assert isinstance(self.spec.action, Discrete)
        count = self.spec.action.count
        uniform = jnp.full((self.horizon, count), 1.0 / count, jnp.float32)
        return Choices(uniform, jnp.zeros(self.horizon, jnp.int32), jnp.full(self.horizon, jnp.nan, jnp.float64))

    def propose(self, actor: CopyActor, carry: Choices, key: Key, *, round: Int[Array, ""], count: int) -> Action:
        """Return plans drawn from the distribution; the first is the best one so far."""
        drawn_key, held_key = jax.random.split(key)
        logits = jnp.log(carry.probability)
        drawn = jax.random.categorical(drawn_key, logits, shape=(count, self.horizon)).astype(jnp.int32)
        holds = jax.random.uniform(held_key, (count, self.horizon), jnp.float32)
        return held_choices(drawn, holds < jnp.asarray(self.stickiness, jnp.float32)).at[0].set(carry.plan)

    def refine(
        self, actor: CopyActor, carry: Choices, plans: Action, tried: Tried, *, round: Int[Array, ""]
    ) -> Choices:
        returns, reward = self.returns(tried)
        order = jnp.argsort(-returns)  # stable: of equal plans the first, which is the best so far
        elites = jax.nn.one_hot(plans[order[: self.num_elites]], carry.probability.shape[1], dtype=jnp.float32)
        stay = jnp.asarray(self.smoothing, jnp.float32)
        moved = (1 - stay) * elites.mean(0) + stay * carry.probability
        probability = jnp.where(returns.max() > returns.min(), moved, carry.probability)
        return Choices(probability, plans[order[0]], reward[order[0]])

    def plan(self, carry: Choices) -> tuple[Action, Float[Array, "H"]]:
        return carry.plan, carry.reward

    def advance(self, carry: Choices, key: Key) -> tuple[Action, Choices]:
        forget = jnp.asarray(self.forgetting, jnp.float32)
        count = carry.probability.shape[1]
        probability = (1 - forget) * shifted(carry.probability) + forget / count
        return carry.plan[0], Choices(probability, shifted(carry.plan), jnp.full_like(carry.reward, jnp.nan))


def held_choices(drawn: Int[Array, "... H"], holds: Array) -> Int[Array, "... H"]:
    """Return the choices with each replaced by the one before it, as it came out, where `holds`; the first one stays.

    Example:
        >>> held_choices(jnp.array([0, 1, 2, 1]), jnp.array([True, False, True, True])).tolist()
        [0, 1, 1, 1]
    """
    steps = jnp.arange(drawn.shape[-1])
    since = jax.lax.cummax(jnp.where(holds & (steps > 0), 0, steps), axis=drawn.ndim - 1)
    return jnp.take_along_axis(drawn, since, axis=-1)
