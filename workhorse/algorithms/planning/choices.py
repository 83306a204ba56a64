"""Base of the planners of choices: how plans are drawn, and what is carried out where nothing tells plans apart."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from workhorse.algorithms.planning.planner import Copier
from workhorse.core.algorithm import Key
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.ranges import require_positive
from workhorse.core.spec import Discrete

__all__ = ["ChoicePlanner", "held_choices"]


@configuration
class ChoicePlanner(Copier):
    """A planner of one choice a step.

    With probability `stickiness` a drawn step repeats the choice before it instead of drawing one evenly: pushing one
    way for a while gets further than trembling does. *The plan before the first search, and the choice that is added to
    a shifted plan, are drawn in the same way*: so that a task in which no plan earns more than another is explored.
    """

    takes = "discrete"

    horizon: int = 50
    """Steps of a plan."""
    num_plans: int = 32
    """Plans tried in a round."""
    num_rounds: int = 4
    """Rounds of trials before an action."""
    stickiness: float = 0.8
    """Probability that a drawn step repeats the choice before it."""

    def validate(self) -> None:
        super().validate()
        name = type(self).__name__
        require_positive(name, num_plans=self.num_plans, num_rounds=self.num_rounds)
        if not 0 <= self.stickiness <= 1:
            raise UsageError(f"{name}.stickiness must be in [0, 1]: got {self.stickiness}.")

    @property
    def round_sizes(self) -> tuple[int, ...]:
        return (self.num_plans,) * self.num_rounds

    @property
    def num_choices(self) -> int:
        """Choices of a step."""
        assert isinstance(self.spec.action, Discrete)
        return self.spec.action.count

    def first_plan(self) -> Int[Array, "H"]:
        """Return the plan before the first search of an episode, always the same."""
        return self.completed(jax.random.key(0), jnp.zeros((1, self.horizon), jnp.int32), jnp.zeros(1, jnp.int32))[0]

    def shifted_plan(self, plan: Int[Array, "H"], key: Key) -> Int[Array, "H"]:
        """Return a plan a step later, with a drawn choice at its end."""
        begun = jnp.concatenate([plan[1:], plan[-1:]])
        return self.completed(key, begun[None], jnp.full(1, self.horizon - 1), follows=True)[0]

    def completed(
        self, key: Key, begun: Int[Array, "N H"], depth: Int[Array, "N"], *, follows: bool = False
    ) -> Int[Array, "N H"]:
        """Return plans that follow `begun` for `depth` steps and are drawn from there on.

        Args:
            key: what is drawn from.
            begun: plans.
            depth: steps of each that stay.
            follows: the first drawn step may repeat the choice before it too; else it is drawn evenly.
        """
        drawn_key, held_key = jax.random.split(key)
        drawn = jax.random.randint(drawn_key, begun.shape, 0, self.num_choices, jnp.int32)
        holds = jax.random.uniform(held_key, begun.shape, jnp.float32) < jnp.asarray(self.stickiness, jnp.float32)
        steps, least = jnp.arange(self.horizon), depth[:, None]
        holds = holds & ((steps >= least) if follows else (steps > least))
        return held_choices(jnp.where(steps < least, begun, drawn), holds)

    def _untried(self) -> Any:
        """Return rewards of a plan that was not tried."""
        return jnp.full(self.horizon, jnp.nan, jnp.float64)


def held_choices(drawn: Int[Array, "... H"], holds: Array) -> Int[Array, "... H"]:
    """Return the choices with each replaced by the one before it, as it came out, where `holds`; the first one stays.

    Example:
        >>> held_choices(jnp.array([0, 1, 2, 1]), jnp.array([True, False, True, True])).tolist()
        [0, 1, 1, 1]
    """
    steps = jnp.arange(drawn.shape[-1])
    since = jax.lax.cummax(jnp.where(holds & (steps > 0), 0, steps), axis=drawn.ndim - 1)
    return jnp.take_along_axis(drawn, since, axis=-1)
