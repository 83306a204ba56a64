"""Variants of a pure task that are harder, or only different: delayed rewards, noise, distractors, longer steps.

They are options that every classic task takes beside its own, and the adviser's forecasts are scored on tasks that are
made by them: `workhorse train CartPole-v1 --task-option reward_at_end=true`.
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.core.algorithm import Key
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Step
from workhorse.environments.protocol import JaxEnv

__all__ = ["Change", "Variant", "VariantState"]


@dataclass(frozen=True)
class Change:
    """What differs from the task as it is. The default of each option changes nothing.

    The clock counts the task's own steps, of which `action_repeat` make one of the variant. Whatever is delayed is paid
    in full by the end of an episode, so that an episode's return is that of the task.

    Attributes:
        reward_at_end: pay the sum of an episode's rewards in its last step, and 0 before.
        reward_delay: steps by which each reward is paid late.
        reward_above: pay 1 where the task's reward is above this number, else 0; None pays the task's.
        reward_scale: factor of every reward, applied first.
        reward_shift: added to every reward, after the factor.
        observation_noise: standard deviation of Gaussian noise on each component that the task observes.
        distractors: components of standard Gaussian noise appended to each observation.
        hidden: numbers of the observation's components that are left out.
        action_delay: steps by which each action takes effect late; until then the idle action does.
        action_repeat: steps of the task that each action is taken for, whose rewards are summed.
        random_actions: probability that a step takes a random action instead.

    Raises:
        UsageError: a number is out of range.
    """

    reward_at_end: bool = False
    reward_delay: int = 0
    reward_above: float | None = None
    reward_scale: float = 1.0
    reward_shift: float = 0.0
    observation_noise: float = 0.0
    distractors: int = 0
    hidden: tuple[int, ...] = ()
    action_delay: int = 0
    action_repeat: int = 1
    random_actions: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        least = {"reward_delay": 0, "distractors": 0, "action_delay": 0, "action_repeat": 1}
        for name, value in least.items():
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, int) or given < value:
                raise UsageError(f"The task's option {name} must be a whole number of at least {value}: got {given!r}.")
        for name, most in (("observation_noise", np.inf), ("random_actions", 1.0)):
            if not 0 <= getattr(self, name) <= most:
                raise UsageError(f"The task's option {name} must be in [0, {most:g}]: got {getattr(self, name)!r}.")
        if not np.isfinite([self.reward_scale, self.reward_shift, self.reward_above or 0.0]).all():
            raise UsageError("The task's options reward_scale, reward_shift and reward_above must be finite.")

    @staticmethod
    def names() -> list[str]:
        """Return the options' names."""
        return [one.name for one in fields(Change)]


class VariantState(NamedTuple):
    """State of the task, the rewards that are owed, the actions on their way.

    Attributes:
        inner: of the task.
        owed: rewards not yet paid, the oldest first, float64 (reward_delay,) or (1,) for all of an episode's.
        waiting: actions not yet taken, the oldest first, (action_delay, ...).
    """

    inner: Any
    owed: Any
    waiting: Any


@dataclass(frozen=True)
class Variant:
    """A pure task with a `Change`: a `JaxEnv`.

    Noise of step t is drawn from the key of that step, and that of the first observation from the reset's.
    """

    env: JaxEnv
    change: Change

    @property
    def spec(self) -> EnvSpec:
        return self._spec

    @cached_property
    def _spec(self) -> EnvSpec:
        spec, change = self.env.spec, self.change
        if bad := [place for place in change.hidden if not 0 <= place < spec.observation.size]:
            raise UsageError(
                f"{spec.task}: the option hidden names component {bad[0]}, but an observation has the components 0 to "
                f"{spec.observation.size - 1}."
            )
        noisy = change.observation_noise > 0
        kept = [place for place in range(spec.observation.size) if place not in change.hidden]
        low, high = (
            tuple(sign * np.inf if noisy else float(bound[place]) for place in kept)
            + (sign * np.inf,) * change.distractors
            for sign, bound in ((-1, spec.observation.low), (1, spec.observation.high))
        )
        if not low:
            raise UsageError(f"{spec.task}: the option hidden leaves nothing to observe; leave a component out of it.")
        own = tuple(
            (one.name, getattr(change, one.name)) for one in fields(change) if getattr(change, one.name) != one.default
        )
        return replace(
            spec,
            observation=Box(low, high),
            max_episode_steps=(
                None if spec.max_episode_steps is None else -(-spec.max_episode_steps // change.action_repeat)
            ),
            step_seconds=None if spec.step_seconds is None else spec.step_seconds * change.action_repeat,
            options=tuple(sorted((*spec.options, *own))),
        )

    def reset(self, key: Key) -> tuple[VariantState, Any]:
        """Start an episode of the task."""
        inner, obs = self.env.reset(key)
        owed = jnp.zeros(1 if self.change.reward_at_end else self.change.reward_delay, jnp.float64)
        idle = self._idle()
        waiting = jnp.broadcast_to(idle, (self.change.action_delay, *idle.shape))
        return VariantState(inner, owed, waiting), self._observed(obs, key)

    def step(self, state: VariantState, action: Any, key: Key) -> tuple[VariantState, Step]:
        """Take the action that is due, `action_repeat` times or until the task ends, and pay what is due."""
        change = self.change
        if change.random_actions:
            chance, drawn = jax.random.split(jax.random.fold_in(key, 1))
            action = jnp.where(jax.random.uniform(chance) < change.random_actions, self._random(drawn), action)
        waiting = state.waiting
        if change.action_delay:
            queue = jnp.concatenate([waiting, jnp.asarray(action, waiting.dtype)[None]])
            action, waiting = queue[0], queue[1:]
        inner, step = self.env.step(state.inner, action, key)
        reward = jnp.asarray(step.reward, jnp.float64)
        for repeat in range(1, change.action_repeat):
            ended = step.terminated | step.truncated
            after, again = self.env.step(inner, action, jax.random.fold_in(key, repeat + 1))
            inner, step = jax.tree.map(
                lambda old, new, ended=ended: jnp.where(ended, old, new), (inner, step), (after, again)
            )
            reward = reward + jnp.where(ended, 0.0, again.reward)
        owed, reward = self._paid(state.owed, reward, step.terminated | step.truncated)
        obs = self._observed(step.next_obs, key)
        return VariantState(inner, owed, waiting), step._replace(obs=obs, next_obs=obs, reward=reward)

    def _paid(self, owed: Any, reward: Any, ended: Any) -> tuple[Any, Any]:
        change = self.change
        if change.reward_above is not None:
            reward = (reward > change.reward_above).astype(jnp.float64)
        reward = change.reward_scale * reward + change.reward_shift
        if change.reward_at_end:
            owed = owed + reward
            return owed, jnp.where(ended, owed[0], 0.0)
        if not change.reward_delay:
            return owed, reward
        queue = jnp.concatenate([owed, reward[None]])
        return queue[1:], jnp.where(ended, queue.sum(), queue[0])

    def _observed(self, obs: Any, key: Key) -> Any:
        change = self.change
        if not (change.observation_noise or change.distractors or change.hidden):
            return obs
        noise, distraction = jax.random.split(jax.random.fold_in(key, 0))
        if change.observation_noise:
            obs = obs + jnp.asarray(change.observation_noise, obs.dtype) * jax.random.normal(
                noise, obs.shape, obs.dtype
            )
        if change.hidden:
            obs = obs[np.array([place for place in range(obs.shape[0]) if place not in change.hidden])]
        return jnp.concatenate([obs, jax.random.normal(distraction, (change.distractors,), obs.dtype)])

    def _idle(self) -> Any:
        space = self.env.spec.action
        if isinstance(space, Box):
            middle = np.clip(0.0, space.low, space.high).reshape(space.shape)
            return jnp.asarray(middle, jnp.float32)
        return jnp.zeros((), jnp.int32)

    def _random(self, key: Key) -> Any:
        space = self.env.spec.action
        if isinstance(space, Box):
            return jax.random.uniform(key, space.shape, jnp.float32, jnp.asarray(space.low), jnp.asarray(space.high))
        assert isinstance(space, Discrete)  # as in every classic task
        return jax.random.randint(key, (), 0, space.count)
