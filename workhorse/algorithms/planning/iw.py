"""Width-based search: plans branch where something new was seen."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.algorithms.demonstration_learner import CopyActor
from workhorse.algorithms.planning.choices import ChoicePlanner
from workhorse.core.algorithm import Action, Key
from workhorse.core.configuration import configuration
from workhorse.core.ranges import require_positive
from workhorse.core.types import Tried

__all__ = ["IW", "Frontier"]

UNSEEN = 2**30
"""Depth of a feature that was not seen yet."""


class Frontier(NamedTuple):
    """What a slot remembers.

    Attributes:
        plan: the best plan that was tried, int32 (H,).
        reward: its rewards, float64 (H,); NaN where it was not tried from the present state.
        plans: all plans of this search, int32 (M, H); those to come are zeros.
        reach: step up to which each has been new at every step, int32 (M,); 0 for those to come.
        depth: least depth at which each feature was seen, int32 (D, F).
        low, high: range of the observations of the first round, float32 (D,).
    """

    plan: Int[Array, "H"]
    reward: Float[Array, "H"]
    plans: Int[Array, "M H"]
    reach: Int[Array, "M"]
    depth: Int[Array, "D F"]
    low: Float[Array, "D"]
    high: Float[Array, "D"]


@configuration
class IW(ChoicePlanner):
    """Rollout-IW(1): a state is new where some feature of it was never seen as early in a plan.

    A feature is one observation component in one bin; it has the least depth t at which any plan of this search has
    seen it. State t of a plan is new where t is less than that depth for one of its features, and is no worse than new
    where t equals it. A plan *reaches* as far as its states have been no worse than new up to a last new one. *Where it
    was new is where others branch off*: a plan to try follows an earlier one, drawn evenly from all that reach
    anywhere, up to a step drawn evenly from those it reached, and draws the rest, see `ChoicePlanner`. So plans go
    where no plan has been before, without asking for a reward. The best plan by return is carried out, and is tried
    again, shifted by a step, as the first of the next search; of equal plans the one that reaches furthest is taken.

    Bins divide the range that a component had in the first round, and go on beyond it to either side.

    Source: Lipovetzky and Geffner 2012, "Width and serialization of classical planning problems"; Bandres, Bonet and
    Geffner 2018, "Planning with pixels in (almost) real time" (arXiv 1801.03354), for the search by roll-outs. Differs
    from it by batches of plans of one length: what lies beyond the reach counts in a return, and cuts off nothing.
    """

    name = "iw"
    summary = "width-based search: plans branch where an observation was new, before each action"
    watches = True

    num_bins: int = 16
    """Bins of an observation component within the range of the first round."""

    def validate(self) -> None:
        super().validate()
        require_positive("IW", num_bins=self.num_bins)

    def begin(self, actor: CopyActor, slot: Int[Array, ""]) -> Frontier:
        return self._fresh(self.first_plan())

    def _fresh(self, plan: Int[Array, "H"]) -> Frontier:
        """Return what a search begins with."""
        total, size = self.num_plans * self.num_rounds, self.spec.observation.size
        return Frontier(
            plan,
            self._untried(),
            jnp.zeros((total, self.horizon), jnp.int32),
            jnp.zeros(total, jnp.int32),
            jnp.full((size, 3 * self.num_bins), UNSEEN, jnp.int32),
            jnp.zeros(size, jnp.float32),
            jnp.ones(size, jnp.float32),
        )

    def propose(self, actor: CopyActor, carry: Frontier, key: Key, *, round: Int[Array, ""], count: int) -> Action:
        """Return plans that follow an earlier one as far as it was new, or less far, and go their own way then."""
        stem_key, place_key, own_key = jax.random.split(key, 3)
        logits = jnp.where(carry.reach > 0, 0.0, -jnp.inf).astype(jnp.float32)
        stems = jax.random.categorical(stem_key, jnp.where(round == 0, 0.0, logits), shape=(count,))
        reach = jnp.where(round == 0, 0, carry.reach[stems])
        branch = jnp.floor(jax.random.uniform(place_key, (count,), jnp.float32) * (reach + 1)).astype(jnp.int32)
        plans = self.completed(own_key, carry.plans[stems], branch)
        return jnp.where(round == 0, plans.at[0].set(carry.plan), plans)

    def refine(
        self, actor: CopyActor, carry: Frontier, plans: Action, tried: Tried, *, round: Int[Array, ""]
    ) -> Frontier:
        returns, reward = self.returns(tried)
        obs = tried.next_obs.reshape(*plans.shape, -1).astype(jnp.float32)
        low, high = (
            jnp.where(round == 0, found, known)
            for found, known in ((obs.min((0, 1)), carry.low), (obs.max((0, 1)), carry.high))
        )
        bins = self._bins(obs, low, high)
        depth, reach = self._explored(carry.depth, bins, tried.terminated)
        known = jax.lax.dynamic_update_slice_in_dim(carry.plans, plans, round * len(plans), 0)
        reached = jax.lax.dynamic_update_slice_in_dim(carry.reach, reach, round * len(plans), 0)
        # of equal returns the one that reaches furthest; the former best is among the plans of the first round
        first = jnp.where(round == 0, -jnp.inf, carry.reward.sum())
        best = jnp.lexsort((-reach, -returns))[0]
        better = returns[best] > first
        plan = jnp.where(better, plans[best], carry.plan)
        return Frontier(plan, jnp.where(better, reward[best], carry.reward), known, reached, depth, low, high)

    def _bins(self, obs: Float[Array, "N H D"], low: Float[Array, "D"], high: Float[Array, "D"]) -> Int[Array, "N H D"]:
        """Return the bin of each component; a third of the bins is below the range, and a third is above it."""
        width = jnp.where(high > low, high - low, 1.0)
        place = jnp.floor((obs - low) / width * jnp.float32(self.num_bins)) + self.num_bins
        return jnp.clip(place, 0, 3 * self.num_bins - 1).astype(jnp.int32)

    def _explored(
        self, depth: Int[Array, "D F"], bins: Int[Array, "N H D"], ended: Array
    ) -> tuple[Int[Array, "D F"], Int[Array, "N"]]:
        """Return the depths after plans were looked at one after the other, and how far each one reaches."""
        size, steps = jnp.arange(bins.shape[-1]), jnp.arange(bins.shape[1])

        def one(depth: Array, given: tuple[Array, Array]) -> tuple[Array, Array]:
            bins, ended = given
            is_new = (steps[:, None] < depth[size, bins]).any(-1)
            # along its stem a plan repeats what was seen, at the same depth
            within = jnp.cumsum(ended) - ended == 0
            same = (steps[:, None] <= depth[size, bins]).any(-1)
            reach = jnp.where(is_new & within, steps + 1, 0)
            gap = jnp.cumsum(~(same & within)) > 0
            reach = jnp.where(gap, 0, reach).max()
            seen = jnp.where((steps < reach)[:, None], steps[:, None], UNSEEN)
            return depth.at[size, bins].min(seen.astype(jnp.int32)), reach.astype(jnp.int32)

        return jax.lax.scan(one, depth, (bins, ended))

    def plan(self, carry: Frontier) -> tuple[Action, Float[Array, "H"]]:
        return carry.plan, carry.reward

    def advance(self, carry: Frontier, key: Key) -> tuple[Action, Frontier]:
        return carry.plan[0], self._fresh(self.shifted_plan(carry.plan, key))
