"""Iterative linear-quadratic regulator: a plan is improved by Newton-like steps along derivatives of the task."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from workhorse.algorithms.demonstration_learner import CopyActor
from workhorse.algorithms.planning.planner import Copier, shifted
from workhorse.core.algorithm import Action, Key
from workhorse.core.configuration import configuration
from workhorse.core.ranges import require_positive
from workhorse.core.spec import Box
from workhorse.core.types import Derivatives, Tried

__all__ = ["ILQR", "Feedback", "OptimisedPlan"]

LEAST_REGULARISATION, MOST_REGULARISATION = 1e-6, 1e6
CHANGE = 4.0
"""Factor by which the regularisation falls after an improvement, and rises without one."""
ACTIVE_SETS = 4
"""Guesses of which components of an action lie at a bound."""


class OptimisedPlan(NamedTuple):
    """A slot's plan.

    Attributes:
        plan: actions, float32 (H, ...).
        reward: of each step as it was tried, float64 (H,); NaN where it was not.
        regularisation: added to the curvature with respect to the action, float64.
    """

    plan: Float[Array, "H ..."]
    reward: Float[Array, "H"]
    regularisation: Float[Array, ""]


class Feedback(NamedTuple):
    """Change of a plan: u = plan_t + factor * change_t + gain_t (x - x_t), float64 (H, U) and (H, U, X)."""

    change: Float[Array, "H U"]
    gain: Float[Array, "H U X"]


@configuration
class ILQR(Copier):
    """A few Newton-like steps of the whole plan before each action.

    Along the plan the task is replaced by its derivatives, the dynamics by linear and the rewards by quadratic ones,
    and the best change of every action and its feedback on the state follow from the end backwards:

        Q_uu = c_uu + B' V B + regularisation I,   k = -Q_uu^-1 Q_u,   K = -Q_uu^-1 Q_ux      (c: the cost, -reward)

    with Q_u = c_u + B' v and Q_ux = c_ux + B' V A, where v and V are the slope and the curvature of the cost to go, 0
    at the end of the plan. Curvatures of the cost are made positive by leaving out their negative directions. k stays
    within the bounds of the action, and a component at a bound has no feedback. Then plans with several parts of the
    change are tried *with feedback*, and the best is taken; the unchanged one is among them, so that none gets worse.

    The derivatives are differences of the task's own step (`workhorse.training.optimised_episodes`).

    Source: Li and Todorov 2004, "Iterative linear quadratic regulator design for nonlinear biological movement
    systems"; bounds after Tassa, Mansard and Todorov 2014, "Control-limited differential dynamic programming", with the
    sets of components at a bound guessed a fixed number of times.
    """

    name = "ilqr"
    summary = "improve a plan by Newton-like steps along derivatives of the task, before each action"
    takes = "box"

    horizon: int = 20
    """Steps of a plan."""
    num_rounds: int = 3
    """Newton-like steps of the whole plan before an action."""
    num_factors: int = 10
    """Parts of a change that are tried, evenly spaced in their logarithm from 1 to 0.001, beside none of it."""
    difference: float = 1e-4
    """Distance of the states and actions whose steps are compared."""

    def validate(self) -> None:
        super().validate()
        require_positive("ILQR", num_rounds=self.num_rounds, num_factors=self.num_factors, difference=self.difference)

    @property
    def factors(self) -> Float[np.ndarray, "N"]:
        """Parts of a change that are tried, 0 first."""
        return np.concatenate([[0.0], np.logspace(0, -3, self.num_factors)])

    @property
    def round_sizes(self) -> tuple[int, ...]:
        return (1 + self.num_factors,) * self.num_rounds

    @property
    def trials_at_a_step(self) -> int:
        """Steps of the simulator for the derivatives at one step of the plan."""
        assert isinstance(self.spec.action, Box)
        both = self.spec.physics_size + self.spec.action.size
        return 1 + 2 * both + both * (both - 1) // 2

    @property
    def steps_per_action(self) -> int:
        # the former plan is tried once more, for the states that it comes to
        each = self.horizon * (self.trials_at_a_step + 1 + self.num_factors)
        return self.horizon + self.num_rounds * each

    def begin(self, actor: CopyActor, slot: Int[Array, ""]) -> OptimisedPlan:
        """Return the plan that stands still: zeros, moved into the bounds."""
        assert isinstance(self.spec.action, Box)
        still = self.clipped(jnp.zeros((self.horizon, *self.spec.action.shape), jnp.float32))
        return OptimisedPlan(still, jnp.full(self.horizon, jnp.nan, jnp.float64), jnp.ones((), jnp.float64))

    def feedback(self, carry: OptimisedPlan, near: Derivatives, counts: Bool[Array, "H"]) -> Feedback:
        """Return the best change of a plan for the task that its derivatives describe.

        Args:
            carry: the plan.
            near: derivatives along it.
            counts: false for steps whose reward counts for nothing, after an end.
        """
        space = self.spec.action
        assert isinstance(space, Box)
        actions = carry.plan.reshape(self.horizon, -1).astype(jnp.float64)
        low, high = jnp.asarray(space.low) - actions, jnp.asarray(space.high) - actions
        size = near.state_matrix.shape[-1]
        slope = jnp.where(counts[:, None], -near.reward_slope, 0.0)
        curvature = jnp.where(counts[:, None, None], _positive(-near.reward_curvature), 0.0)

        def back(ahead: tuple[Array, Array], here: tuple[Array, ...]) -> tuple[tuple[Array, Array], Feedback]:
            a, b, slope, curvature, low, high = here
            both, (v, value) = jnp.concatenate([a, b], axis=1), ahead
            q, qq = slope + both.T @ v, curvature + both.T @ value @ both
            q_u, q_uu, q_ux = q[size:], qq[size:, size:], qq[size:, :size]
            regular = q_uu + carry.regularisation * jnp.eye(len(q_u))
            k, gain = _bounded_step(regular, q_u, q_ux, low, high)
            v = q[:size] + gain.T @ (q_uu @ k + q_u) + q_ux.T @ k
            value = qq[:size, :size] + gain.T @ q_uu @ gain + gain.T @ q_ux + q_ux.T @ gain
            return (v, (value + value.T) / 2), Feedback(k, gain)

        end = jnp.zeros(size, jnp.float64), jnp.zeros((size, size), jnp.float64)
        along = near.state_matrix, near.action_matrix, slope, curvature, low, high
        return jax.lax.scan(back, end, along, reverse=True)[1]

    def refine(
        self, actor: CopyActor, carry: OptimisedPlan, plans: Action, tried: Tried, *, round: Int[Array, ""]
    ) -> OptimisedPlan:
        """Return the plan of the highest return; the first of `plans` is the one there was."""
        returns, reward = self.returns(tried)
        best = jnp.argmax(returns)
        changed = carry.regularisation * jnp.where(best > 0, 1 / CHANGE, CHANGE)
        changed = jnp.clip(changed, LEAST_REGULARISATION, MOST_REGULARISATION)
        return OptimisedPlan(plans[best], reward[best], changed)

    def propose(self, actor: CopyActor, carry: OptimisedPlan, key: Key, *, round: Int[Array, ""], count: int) -> Action:
        """Return the plan as it is: without derivatives there is nothing to change it by."""
        return jnp.broadcast_to(carry.plan, (count, *carry.plan.shape))

    def plan(self, carry: OptimisedPlan) -> tuple[Action, Float[Array, "H"]]:
        return carry.plan, carry.reward

    def advance(self, carry: OptimisedPlan, key: Key) -> tuple[Action, OptimisedPlan]:
        return carry.plan[0], carry._replace(plan=shifted(carry.plan))


def _positive(curvature: Float[Array, "H Z Z"]) -> Float[Array, "H Z Z"]:
    """Return symmetric matrices without their negative eigenvalues."""
    values, vectors = jnp.linalg.eigh((curvature + curvature.swapaxes(-1, -2)) / 2)
    return (vectors * jnp.maximum(values, 0.0)[..., None, :]) @ vectors.swapaxes(-1, -2)


def _bounded_step(
    curvature: Float[Array, "U U"],
    slope: Float[Array, "U"],
    mixed: Float[Array, "U X"],
    low: Float[Array, "U"],
    high: Float[Array, "U"],
) -> tuple[Float[Array, "U"], Float[Array, "U X"]]:
    """Return the k in [low, high] that minimises k' curvature k / 2 + slope' k, and the gain of its free components."""
    k, is_free = jnp.clip(jnp.zeros_like(slope), low, high), jnp.ones_like(slope, bool)
    for _ in range(ACTIVE_SETS):
        # the free ones solve their equations with the others where they are
        held = jnp.where(is_free, 0.0, k)
        system = jnp.where(is_free[:, None] & is_free, curvature, jnp.eye(len(slope)))
        solved = jnp.linalg.solve(system, jnp.where(is_free, -(slope + curvature @ held), held))
        k = jnp.clip(solved, low, high)
        pull = slope + curvature @ k
        is_free = ~(((k <= low) & (pull > 0)) | ((k >= high) & (pull < 0)))
    system = jnp.where(is_free[:, None] & is_free, curvature, jnp.eye(len(slope)))
    return k, jnp.linalg.solve(system, jnp.where(is_free[:, None], -mixed, 0.0))
