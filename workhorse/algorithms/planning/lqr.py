"""Linear-quadratic regulator: the best linear feedback near a state in which the task can rest."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from workhorse.core.algorithm import Algorithm, Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.layers import Dense, Flatten, PolicyNetwork, head_for
from workhorse.core.ranges import require_non_negative, require_positive
from workhorse.core.spec import ActionSpace, Box, Discrete, MultiDiscrete
from workhorse.core.types import Linearisation
from workhorse.networks.heads import action_of, num_outputs

__all__ = ["LQR", "LQRActor", "LQRState", "num_components", "riccati", "scores_of_levels"]

DOUBLINGS = 16
"""Riccati steps, as a power of two: a horizon of 65,536 steps, past which no gain of a stable loop changes."""


class LQRActor(NamedTuple):
    """The policy: outputs = weight obs + bias, float32."""

    weight: Float[Array, "out D"]
    bias: Float[Array, "out"]


class LQRState(NamedTuple):
    """The policy, and the reward at rest that its target pays, -inf before there is one."""

    policy: LQRActor
    reward: Float[Array, ""]


@configuration
class LQR(Algorithm):
    """u = u* - K pinv(C) (obs - obs*),  with the gain K that minimises the sum of dx' Q dx + du' R du over all time.

        K = (R + B' P B)^-1 B' P A,     P = Q + A' P A - A' P B K     (the discrete Riccati equation)

    dx = x - x* and du = u - u* are distances from the target, A, B and C the task's derivatives there. Q is diagonal:
    `position_cost` and `velocity_cost`, *but only for coordinates that observations tell*; R is `action_cost`. The
    policy is one affine layer, whose outputs are clipped to the bounds of the actions.

    A choice among n is n values evenly spaced from -1 to 1, and the one nearest to u is taken: it has the greatest of
    the scores v u - v^2 / 2.

    Each iteration looks for a target from other random poses, and a policy is replaced by one whose target pays a
    higher reward at rest. It is local: `workhorse.robustness.basin` measures from which states it holds.

    Source: Kalman 1960, "Contributions to the theory of optimal control". The Riccati equation is solved by doubling
    (Chu, Fan, Lin and Wang 2004, "Structure-preserving algorithms for periodic discrete-time algebraic Riccati
    equations"). Differs by acting on observations and not on the state.
    """

    name = "lqr"
    summary = "linear-quadratic regulator around a state of rest, from differences of the task's own step"
    consumes = Linearisation

    position_cost: float = 1.0
    """Cost of a position's squared distance from the target."""
    velocity_cost: float = 0.1
    """Cost of a squared velocity."""
    action_cost: float = 0.1
    """Cost of an action's squared distance from the one that holds the target."""
    target: tuple[float, ...] | None = None
    """State to hold, the task's positions and then its velocities; None looks for the state of rest that pays most."""
    num_candidates: int = 16
    """States from which an iteration looks for a target, half of them initial states, the others random poses."""
    difference: float = 1e-5
    """Distance of the states and actions whose steps are compared."""

    def validate(self) -> None:
        costs = {"position_cost": self.position_cost, "velocity_cost": self.velocity_cost}
        require_non_negative("LQR", **costs)
        require_positive(
            "LQR", action_cost=self.action_cost, num_candidates=self.num_candidates, difference=self.difference
        )
        if self.target is not None and not (self.target and np.isfinite(self.target).all()):
            raise UsageError(f"LQR.target must be finite numbers, the task's coordinates: got {self.target}.")

    def init(self, key: Key) -> LQRState:
        outputs, bias = num_outputs(self.spec.action), scores_of_levels(self.spec.action)[1]
        weight = jnp.zeros((outputs, self.spec.observation.size), jnp.float32)
        return LQRState(LQRActor(weight, jnp.asarray(bias, jnp.float32)), jnp.asarray(-jnp.inf, jnp.float64))

    def actor(self, state: LQRState) -> LQRActor:
        return state.policy

    def act(
        self, actor: LQRActor, carry: tuple[()], obs: Float[Array, "..."], key: Key, *, explore: bool
    ) -> tuple[Array, tuple[()], None]:
        """Return the action of the affine policy; there is no other to explore with."""
        space = self.spec.action
        action = action_of(space, None, actor.weight @ obs.reshape(-1).astype(jnp.float32) + actor.bias)
        if isinstance(space, Box):
            low, high = (jnp.asarray(bound, jnp.float32).reshape(space.shape) for bound in (space.low, space.high))
            action = jnp.clip(action, low, high)
        return action, carry, None

    def update(self, state: LQRState, experience: Linearisation, key: Key) -> tuple[LQRState, Metrics]:
        """Return the policy of the new target, where it pays more at rest than the old one and its gain is finite."""
        near = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), experience)
        a, b, c = near.state_matrix, near.action_matrix, near.observation_matrix
        told = jnp.linalg.pinv(c, rtol=1e-4)
        size = len(a)
        costs = jnp.where(jnp.arange(size) < size - size // 2, self.position_cost, self.velocity_cost)
        seen = told @ c  # projects on what observations tell
        action_costs = self.action_cost * jnp.eye(b.shape[1])
        p = riccati(a, b, seen.T @ (costs[:, None] * seen), action_costs)
        gain = jnp.linalg.solve(action_costs + b.T @ p @ b, b.T @ p @ a) @ told
        levels, bias = scores_of_levels(self.spec.action)
        policy = LQRActor(
            (levels @ -gain).astype(jnp.float32),
            (levels @ (near.action + gain @ near.obs) + bias).astype(jnp.float32),
        )
        is_better = (near.reward > state.reward) & jnp.isfinite(policy.weight).all() & jnp.isfinite(policy.bias).all()
        new = LQRState(policy, near.reward)
        after = jax.tree.map(lambda one, other: jnp.where(is_better, one, other), new, state)
        return after, {
            "improved": is_better.astype(jnp.float64),
            "controllability_rank": _controllability_rank(a, b),
            "spectral_radius": jnp.abs(jnp.linalg.eigvals(a - b @ gain @ c)).max(),
            "target_drift": near.drift,
            "target_reward": near.reward,
        }

    def policy_layers(self, actor: LQRActor) -> PolicyNetwork:
        flat = (Flatten(),) if len(self.spec.observation.shape) > 1 else ()
        return (*flat, Dense(actor.weight, actor.bias), head_for(self.spec.action))


def riccati(
    a: Float[Array, "X X"], b: Float[Array, "X U"], q: Float[Array, "X X"], r: Float[Array, "U U"]
) -> Float[Array, "X X"]:
    """Return the solution P of P = Q + A' P A - A' P B (R + B' P B)^-1 B' P A, float64.

    Each doubling squares the horizon's transition: after k of them, P is the cost of 2^k steps. *Where no feedback
    keeps the cost finite, it is that of `DOUBLINGS` doublings, or not a number.*

    Example:
        >>> one = jnp.ones((1, 1))
        >>> riccati(one, one, one, one).tolist()  # the golden ratio
        [[1.618033988749895]]
    """

    def double(carried: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
        a, g, h = carried
        both = jnp.linalg.solve(jnp.eye(len(a)) + g @ h, jnp.concatenate([a, g], axis=1))
        through, reached = both[:, : len(a)], both[:, len(a) :]
        h = h + a.T @ h @ through
        g = g + a @ reached @ a.T
        return (a @ through, (g + g.T) / 2, (h + h.T) / 2), None

    (_, _, p), _ = jax.lax.scan(double, (a, b @ jnp.linalg.solve(r, b.T), q), None, DOUBLINGS)
    return p


def num_components(space: ActionSpace) -> int:
    """Return the numbers U of an action laid flat: components of a box, choices, switches."""
    return 1 if isinstance(space, Discrete) else len(space.counts) if isinstance(space, MultiDiscrete) else space.size


def scores_of_levels(space: ActionSpace) -> tuple[np.ndarray, np.ndarray]:
    """Return W (out, U) and b (out,): the head of a policy turns W u + b into the action nearest to u.

    Example:
        >>> [part.tolist() for part in scores_of_levels(Discrete(3))]
        [[[-1.0], [0.0], [1.0]], [-0.5, 0.0, -0.5]]
    """
    if not isinstance(space, Discrete | MultiDiscrete):
        return np.eye(space.size), np.zeros(space.size)
    counts = (space.count,) if isinstance(space, Discrete) else space.counts
    values = [np.linspace(-1.0, 1.0, count) if count > 1 else np.zeros(1) for count in counts]
    weight = np.zeros((sum(counts), len(counts)))
    for component, (value, end) in enumerate(zip(values, np.cumsum(counts), strict=True)):
        weight[end - len(value) : end, component] = value
    return weight, -(weight.sum(axis=1) ** 2) / 2 + 0.0


def _controllability_rank(a: Float[Array, "X X"], b: Float[Array, "X U"]) -> Float[Array, ""]:
    """Return the dimension of the space that actions can reach: the rank of [B, AB, ..., A^(X-1) B]."""

    def advance(reached: Array, _: None) -> tuple[Array, Array]:
        reached = reached / jnp.maximum(jnp.linalg.norm(reached, axis=0), 1e-300)  # a direction is enough
        return a @ reached, reached

    _, blocks = jax.lax.scan(advance, b, None, len(a))
    rows = jnp.moveaxis(blocks, 0, 1).reshape(len(a), -1)
    return jnp.linalg.matrix_rank(rows, rtol=1e-7).astype(jnp.float64)
