"""The clock of an episode, which every small JAX task has."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from workhorse.core import numerics  # noqa: F401
from workhorse.core.errors import UsageError

__all__ = ["require_episode_limit", "tick"]


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
