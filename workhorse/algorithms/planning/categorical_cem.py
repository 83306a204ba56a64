"""Cross-entropy method over plans of choices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.algorithms.demonstration_learner import CopyActor
from workhorse.algorithms.planning.choices import ChoicePlanner, held_choices
from workhorse.algorithms.planning.planner import shifted
from workhorse.core.algorithm import Action, Key
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.ranges import require_positive
from workhorse.core.types import Tried

__all__ = ["CategoricalCEM"]


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
class CategoricalCEM(ChoicePlanner):
    """Cross-entropy method with an independent distribution over the choices at each step.

        p'_t(c) = (1 - smoothing) share of elites with c at t + smoothing p_t(c)

    *Where all plans return the same, nothing was learnt, and p stays.* Steps repeat the choice before them with
    probability `stickiness`, see `ChoicePlanner`.
    The best plan that was tried is the one whose first choice is taken; it is tried again, shifted by a step, before
    the next. A new action starts from the shifted distribution, moved towards the uniform one by `forgetting`.

    Source: Rubinstein and Kroese 2004, "The cross-entropy method", chapter 2, with smoothing. The sticky draws are
    this project's.
    """

    name = "categorical-cem"
    summary = "cross-entropy method over plans of choices, before each action"

    num_elites: int = 8
    """Plans of a round that the next is drawn from."""
    smoothing: float = 0.1
    """Weight of the former distribution in the new one."""
    forgetting: float = 0.3
    """Weight of the uniform distribution in the one that a new action starts from."""

    def validate(self) -> None:
        super().validate()
        require_positive("CategoricalCEM", num_elites=self.num_elites)
        if self.num_plans <= self.num_elites:
            raise UsageError(
                f"CategoricalCEM.num_plans must exceed num_elites, else nothing is chosen: got {self.num_plans} and "
                f"{self.num_elites}."
            )
        for option in ("smoothing", "forgetting"):
            if not 0 <= getattr(self, option) <= 1:
                raise UsageError(f"CategoricalCEM.{option} must be in [0, 1]: got {getattr(self, option)}.")

    def begin(self, actor: CopyActor, slot: Int[Array, ""]) -> Choices:
        uniform = jnp.full((self.horizon, self.num_choices), 1.0 / self.num_choices, jnp.float32)
        return Choices(uniform, self.first_plan(), self._untried())

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
        probability = (1 - forget) * shifted(carry.probability) + forget / self.num_choices
        return carry.plan[0], Choices(probability, self.shifted_plan(carry.plan, key), self._untried())
