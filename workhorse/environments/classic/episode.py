"""What every small JAX task shares: the clock of an episode and the list of options that differ from the defaults."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from workhorse.core import numerics  # noqa: F401
from workhorse.core.errors import UsageError

__all__ = ["changed_options", "require_episode_limit", "tick"]


def tick(clock: Int[Array, ""], max_episode_steps: int | None) -> tuple[Int[Array, ""], Bool[Array, ""]]:
    """The clock after one more step, and whether it ran out: true from the `max_episode_steps`-th step on.

    Like Gymnasium's `TimeLimit`, the clock does not ask whether the task ended on the same step: both may be true.

    Args:
        clock: steps taken since the reset, int32.
        max_episode_steps: steps an episode may have; None for no limit.
    """
    clock = clock + 1
    limit = jnp.iinfo(clock.dtype).max if max_episode_steps is None else max_episode_steps
    return clock, clock >= limit


def require_episode_limit(task: str, max_episode_steps: int | None) -> None:
    """Raise `UsageError` unless the limit is a positive integer or None (no limit)."""
    if max_episode_steps is None:
        return
    if isinstance(max_episode_steps, bool) or not isinstance(max_episode_steps, int) or max_episode_steps < 1:
        raise UsageError(
            f"{task}: max_episode_steps must be a positive integer, or None for no limit, not {max_episode_steps!r}."
        )


def changed_options(task: Any) -> tuple[tuple[str, object], ...]:
    """The fields of a task's dataclass that differ from their defaults, as (name, value) sorted by name."""
    fields = sorted(dataclasses.fields(task), key=lambda field: field.name)
    pairs = ((field.name, getattr(task, field.name), field.default) for field in fields)
    return tuple((name, value) for name, value, default in pairs if value != default)
