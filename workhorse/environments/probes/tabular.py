"""A probe of policy gradients: a decision process small enough to solve, with an end and a clock."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int
from scipy.special import softmax

from workhorse.core import numerics  # noqa: F401
from workhorse.core.algorithm import Key
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec, changed_options
from workhorse.core.types import Step
from workhorse.environments.classic.episode import require_episode_limit, tick

__all__ = ["TabularProbe", "TabularState"]

Vector = tuple[float, ...]
Matrix = tuple[Vector, ...]


class TabularState(NamedTuple):
    """`place` is the state's number; `clock` counts steps."""

    place: Int[Array, ""]
    clock: Int[Array, ""]


@dataclass(frozen=True)
class TabularProbe:
    """Some states, some actions, a table of what follows; by default three states and two actions.

    *Known answers*, for a policy with the table of scores z, so that pi(a | s) = softmax(z_s)_a:

        V = r_pi + discount P_pi V                                `values`
        A(s, a) = r(s, a) + discount P(s, a) . V - V(s)           `advantages`
        n(s)  visits of s in an episode, up to the clock          `visits`
        (n(s) / |n|) pi(a | s) A(s, a)                            `gradient`, with respect to z(s, a)

    The last one is what an estimator finds whose values are V and whose steps are those of slots that go on from
    episode to episode: states count as often as they are visited, *without discount*. Without a clock and with a
    discount of 1 it is the gradient of `expected_return` over the mean length of an episode, |n|.

    Observation: float32 (S,), one at the state's place and zero elsewhere; all zero once the task has ended. Action:
    a column, from 0. Truncated after `max_episode_steps`.

    Attributes:
        transitions: P, (S, A, S), as nested tuples; what a row lacks of 1 is the probability that the task ends.
        rewards: r, (S, A), paid for certain.
        start: probability that an episode starts at each state, (S,).
        max_episode_steps: the clock; None for no clock.

    Raises:
        UsageError: the shapes do not fit together, a row is no distribution, or `max_episode_steps` is not a positive
            integer or None.

    Source: Sutton et al. 2000, "Policy gradient methods for reinforcement learning with function approximation".
    """

    transitions: tuple[Matrix, ...] = (
        ((0.1, 0.6, 0.2), (0.5, 0.1, 0.1)),
        ((0.3, 0.1, 0.4), (0.0, 0.2, 0.7)),
        ((0.2, 0.2, 0.2), (0.8, 0.1, 0.0)),
    )
    rewards: Matrix = ((1.0, -1.0), (0.0, 2.0), (3.0, 0.5))
    start: Vector = (0.5, 0.3, 0.2)
    max_episode_steps: int | None = 8

    def __post_init__(self) -> None:
        require_episode_limit("TabularProbe", self.max_episode_steps)
        states, actions = np.shape(self.rewards)
        shapes = np.shape(self.transitions), np.shape(self.start)
        if shapes != ((states, actions, states), (states,)):
            raise UsageError(
                f"TabularProbe: transitions and start must have the shapes (S, A, S) and (S,) where rewards have "
                f"(S, A) = ({states}, {actions}), not {shapes[0]} and {shapes[1]}."
            )
        totals = np.sum(self.transitions, -1)
        lowest = min(np.min(self.transitions), np.min(self.start))
        if lowest < 0 or totals.max() > 1 + 1e-9 or abs(np.sum(self.start) - 1) > 1e-9:
            raise UsageError(
                "TabularProbe: rows of transitions must be probabilities that add up to at most 1, start to exactly 1: "
                f"got {lowest:g} as the lowest entry, {totals.max():g} and {np.sum(self.start):g} as the sums."
            )

    @cached_property
    def spec(self) -> EnvSpec:
        states, actions = np.shape(self.rewards)
        observation = Box((0.0,) * states, (1.0,) * states)
        return EnvSpec(
            "TabularProbe", observation, Discrete(actions), self.max_episode_steps, options=changed_options(self)
        )

    def values(self, scores: np.ndarray, discount: float) -> np.ndarray:
        """V, (S,), of the policy with these scores, (S, A): of a task without a clock."""
        followed, paid = self._under(scores)
        return np.linalg.solve(np.eye(len(paid)) - discount * followed, paid)

    def advantages(self, scores: np.ndarray, discount: float) -> np.ndarray:
        """A, (S, A)."""
        value = self.values(scores, discount)
        return np.array(self.rewards) + discount * np.array(self.transitions) @ value - value[:, None]

    def visits(self, scores: np.ndarray) -> np.ndarray:
        """Mean visits of each state in an episode, (S,); their sum is the mean length of an episode."""
        followed, paid = self._under(scores)
        now = np.array(self.start)
        if self.max_episode_steps is None:
            return np.linalg.solve(np.eye(len(paid)) - followed.T, now)
        total = np.zeros_like(now)
        for _ in range(self.max_episode_steps):
            total, now = total + now, followed.T @ now
        return total

    def expected_return(self, scores: np.ndarray) -> float:
        """The mean sum of an episode's rewards, *without discount*, to its end or to the clock."""
        return float(self.visits(scores) @ self._under(scores)[1])

    def gradient(self, scores: np.ndarray, discount: float) -> np.ndarray:
        """The policy gradient with respect to the scores, (S, A), per step of slots that go on."""
        visits = self.visits(scores)
        share = (visits / visits.sum())[:, None]
        return share * softmax(scores, -1) * self.advantages(scores, discount)

    def _under(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P_pi, (S, S), and r_pi, (S,)."""
        policy = softmax(scores, -1)
        followed = np.einsum("sa,san->sn", policy, np.array(self.transitions))
        return followed, (policy * np.array(self.rewards)).sum(-1)

    def reset(self, key: Key) -> tuple[TabularState, Float32[Array, "S"]]:
        """A state drawn from `start`."""
        place = jax.random.categorical(key, jnp.log(jnp.array(self.start))).astype(jnp.int32)
        return TabularState(place, jnp.zeros((), jnp.int32)), self._shown(place)

    def step(self, state: TabularState, action: Int[Array, ""], key: Key) -> tuple[TabularState, Step]:
        """Pay, and draw what follows."""
        rows = np.array(self.transitions)
        chances = np.concatenate([rows, np.maximum(1.0 - rows.sum(-1, keepdims=True), 0.0)], -1)  # the last: the end
        following = jax.random.categorical(key, jnp.log(jnp.array(chances))[state.place, action]).astype(jnp.int32)
        terminated = following == len(self.start)
        reward = jnp.array(self.rewards, jnp.float64)[state.place, action]
        clock, truncated = tick(state.clock, self.max_episode_steps)
        obs = self._shown(following)
        return TabularState(following, clock), Step(obs, reward, terminated, truncated, obs, {})

    def _shown(self, place: Int[Array, ""]) -> Float32[Array, "S"]:
        return (jnp.arange(len(self.start)) == place).astype(jnp.float32)
