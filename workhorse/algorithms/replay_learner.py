"""Base of every algorithm that learns from a replay: counts, scaling, random actions at first, target networks."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from workhorse.core.algorithm import Key, Metrics, OffPolicy, State
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.ranges import require_positive
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Moments, Rollout, Transitions
from workhorse.math import moments

__all__ = [
    "ADAM",
    "ReplayLearner",
    "adam_step",
    "moved_towards",
    "random_action",
    "saturated_share",
    "where_due",
]

Learnt = TypeVar("Learnt")

ADAM = optax.scale_by_adam()
"""Turns gradients into directions of length about one a parameter."""

SATURATED = 0.99
"""Absolute value of an action in [-1, 1] from which on it counts as saturated."""

WIDEST_HALF = 100.0
"""Half-width of an action's bounds above which a squashed policy is refused."""

OBSERVATION_CLIP = 10.0
"""Bound of a scaled component of an observation."""


@configuration
class ReplayLearner(OffPolicy):
    """Settings that every algorithm with a replay has, and what they mean.

    A state has at least the fields `observations` (moments of the observations acted on, float64), `env_steps` (int64)
    and `updates` (int64); `observe` keeps the first two and every `learn` adds one to the last.
    """

    takes: ClassVar[Literal["box", "discrete", "both"]]
    """Kind of actions that the algorithm can take."""

    spec: EnvSpec
    num_envs: int = 1
    """Slots that act, side by side."""
    rollout_steps: int = 256
    """Steps of each slot an iteration."""
    learn_every: int = 16
    """Steps of each slot with one policy; then the updates that have become due are done."""
    replay_ratio: float = 256.0
    """Samples trained on for each environment step after the warm-up, whatever the number of slots."""
    batch_size: int = 256
    """Transitions of an update."""
    warmup_env_steps: int = 5_000
    """Environment steps with random actions, before the first update."""
    replay_capacity: int = 1_000_000
    """Steps that the replay keeps, those of all slots together; the oldest are forgotten."""
    n_steps: int = 1
    """Steps whose rewards are summed before the value of what comes next is asked."""
    hidden: tuple[int, ...] = (256, 256)
    """Units of each hidden layer of every network."""
    learning_rate: float = 3e-4
    """Step size of Adam."""
    discount: float = 0.99
    """Weight of a reward one step later, gamma."""
    target_rate: float = 0.005
    """Share of the way that target networks go towards the learning ones at each update."""
    reward_scale: float = 1.0
    """Factor of every reward, where it is learnt from; the replay keeps the raw ones."""
    normalise_observations: bool = False
    """Centre and scale observations by the running moments of those acted on."""

    def validate(self) -> None:
        """Raise a `UsageError` where a field is out of range or the task's actions cannot be taken."""
        name = type(self).__name__
        layers = {f"hidden[{layer}]": units for layer, units in enumerate(self.hidden)}
        positive = (
            "num_envs", "rollout_steps", "learn_every", "replay_ratio", "batch_size", "warmup_env_steps",
            "replay_capacity", "n_steps", "learning_rate", "reward_scale",
        )  # fmt: skip
        require_positive(name, **{option: getattr(self, option) for option in positive}, **layers)
        if not 0 <= self.discount <= 1:
            raise UsageError(f"{name}.discount must be in [0, 1]: got {self.discount}.")
        if not 0 < self.target_rate <= 1:
            raise UsageError(f"{name}.target_rate must be in (0, 1]: got {self.target_rate}.")
        if self.rollout_steps % self.learn_every:
            raise UsageError(
                f"{name}.learn_every must divide rollout_steps, because an iteration is a whole number of rounds: got "
                f"{self.learn_every} and {self.rollout_steps}."
            )
        if self.batch_size > self.warmup_env_steps:
            raise UsageError(
                f"{name}.batch_size must not exceed warmup_env_steps, because the first batch is drawn from the steps "
                f"of the warm-up: got {self.batch_size} and {self.warmup_env_steps}. Raise warmup_env_steps to at "
                f"least {self.batch_size}, or lower batch_size."
            )
        least = max(self.batch_size, self.num_envs * max(self.n_steps, 2))
        if self.replay_capacity < least:
            raise UsageError(
                f"{name}.replay_capacity must be at least {least:,} steps, a batch and n_steps of every slot: got "
                f"{self.replay_capacity:,}."
            )
        self._validate_action(name)

    def _validate_action(self, name: str) -> None:
        action, task = self.spec.action, self.spec.task
        if self.takes == "discrete":
            if not isinstance(action, Discrete):
                raise UsageError(
                    f"{name} needs discrete actions, one of a number of choices, but those of {task} are "
                    f"{'continuous' if isinstance(action, Box) else 'several at once'}: choose sac, td3 or ppo."
                )
            return
        if self.takes == "both" and isinstance(action, Discrete):
            return
        if not isinstance(action, Box):
            if self.takes == "both":
                raise UsageError(
                    f"{name} needs continuous actions or one of a number of choices, but those of {task} are several "
                    "choices at once: choose ppo, which learns in the task itself."
                )
            raise UsageError(
                f"{name} needs continuous actions, but those of {task} are choices: choose sac-discrete or dqn."
            )
        bounds = np.array([self.spec.task_action.low, self.spec.task_action.high])  # type: ignore[union-attr]
        half = (bounds[1] - bounds[0]) / 2
        if not np.isfinite(half).all() or half.max() > WIDEST_HALF:
            at = int(np.argmax(np.where(np.isfinite(half), half, np.inf)))
            raise UsageError(
                f"{name} squashes actions into their bounds, so that they must be finite and of the size that the task "
                f"uses, at most {WIDEST_HALF:g} to either side of the middle: component {at} of {task} has "
                f"[{bounds[0, at]:g}, {bounds[1, at]:g}]. Give it narrower limits, as with the wrapper "
                "gymnasium.wrappers:RescaleAction, or choose ppo."
            )
        if set(action.low) != {-1.0} or set(action.high) != {1.0}:
            raise UsageError(
                f"{name} acts in [-1, 1], so that rescale_actions has to be True for {task}, whose bounds are others."
            )

    @property
    def action_size(self) -> int:
        """Components of an action, or the number of choices."""
        return self.spec.action.size if isinstance(self.spec.action, Box) else self.spec.action.count  # type: ignore[union-attr]

    # --- observations and rewards ---

    def scaling(self, observations: Moments) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
        """Return (mean, inverse scale) by which observations are read."""
        if not self.normalise_observations:
            size = self.spec.observation.size
            return jnp.zeros(size, jnp.float32), jnp.ones(size, jnp.float32)
        return observations.mean.astype(jnp.float32), moments.inverse_scale(observations).astype(jnp.float32)

    def seen(self, scaling: tuple[Array, Array], obs: Float[Array, "..."]) -> Float[Array, "D"]:
        """Return one observation as the networks read it: flat, and scaled where that is asked for."""
        flat = obs.reshape(-1).astype(jnp.float32)
        if not self.normalise_observations:
            return flat
        bound = jnp.float32(OBSERVATION_CLIP)
        return jnp.clip((flat - scaling[0]) * scaling[1], -bound, bound)

    def both_seen(self, state: State, experience: Transitions) -> tuple[Float[Array, "N D"], Float[Array, "N D"]]:
        """Return the observations and the successors of a batch as the networks read them."""
        read = jax.vmap(partial(self.seen, self.scaling(state.observations)))
        return read(experience.obs), read(experience.next_obs)

    def artefact_scaling(self, scaling: tuple[Array, Array]) -> tuple[Array, Array, float | None]:
        """Return mean, inverse scale and clip as the artefact of the policy holds them."""
        return (*scaling, OBSERVATION_CLIP if self.normalise_observations else None)

    def observe(self, state: State, rollout: Rollout) -> State:
        """Return the state after steps (T, B) were taken: `env_steps` counted, moments of observations merged."""
        count = rollout.reward.size
        fresh = moments.of(rollout.obs.reshape(count, -1))
        return state._replace(
            observations=moments.merge(state.observations, fresh), env_steps=state.env_steps + jnp.int64(count)
        )

    def counters(self) -> dict[str, Any]:
        """Return the fields of a new state that count: `observations`, `env_steps`, `updates`."""
        zero = jnp.zeros((), jnp.int64)
        unseen = moments.empty(self.spec.observation.size, jnp.float64)
        return {"observations": unseen, "env_steps": zero, "updates": zero}

    def is_warming_up(self, state: State) -> Bool[Array, ""]:
        """Return True while actions are random."""
        return state.env_steps < self.warmup_env_steps


def random_action(spec: EnvSpec, key: Key) -> Float[Array, "..."] | Int[Array, ""]:
    """Draw an action uniformly from the space."""
    if isinstance(spec.action, Discrete):
        return jax.random.randint(key, (), 0, spec.action.count)
    assert isinstance(spec.action, Box)
    low, high = (
        jnp.asarray(bound, jnp.float32).reshape(spec.action.shape) for bound in (spec.action.low, spec.action.high)
    )
    return jax.random.uniform(key, spec.action.shape, jnp.float32, low, high)


def moved_towards(target: PyTree, params: PyTree, rate: Float[Array, ""] | float) -> PyTree:
    """Return target + rate * (params - target), leaf by leaf.

    Example:
        >>> float(moved_towards(jnp.zeros(()), jnp.ones(()), 0.25))
        0.25
    """
    rate = jnp.asarray(rate, jnp.float32)
    return jax.tree.map(lambda old, new: old + rate * (new - old), target, params)


def adam_step(params: PyTree, gradient: PyTree, memory: PyTree, rate: Float[Array, ""] | float) -> tuple[Any, Any]:
    """Return parameters after a step of Adam down a gradient, and its memory."""
    direction, memory = ADAM.update(gradient, memory)
    rate = jnp.asarray(rate, jnp.float32)
    return jax.tree.map(lambda leaf, step: leaf - rate * step, params, direction), memory


def where_due(
    state: Learnt, updates: Int[Array, ""], every: int, move: Callable[[Learnt], tuple[Learnt, Metrics]]
) -> tuple[Learnt, Metrics]:
    """Return the state after `move` where the number of updates is a multiple of `every`, else as it was.

    *The work is left out, not only its result.* The metrics are 0 where it is, and `every` times what they are where it
    is not, so that the mean over all updates is that over those in which something moved.
    """
    if every == 1:
        return move(state)
    shapes = jax.eval_shape(move, state)[1]
    unmoved = {name: jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}
    state, metrics = jax.lax.cond(updates % every == 0, move, lambda state: (state, unmoved), state)
    return state, {name: every * value for name, value in metrics.items()}


def saturated_share(action: Float[Array, "..."]) -> Float[Array, ""]:
    """Return the share of components of actions in [-1, 1] that are within 1 % of a bound.

    Example:
        >>> float(saturated_share(jnp.array([0.995, -0.5])))
        0.5
    """
    return (jnp.abs(action) > SATURATED).mean(dtype=jnp.float32)
