"""Checks of numbers that a user gave: one sentence that names the field, what was expected, and what came."""

import math

from workhorse.core.errors import UsageError

__all__ = ["require_minibatches", "require_non_negative", "require_positive"]


def require_positive(owner: str, **values: int | float) -> None:
    """Raise a `UsageError` naming the first value that is not a finite number above zero."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise UsageError(f"{owner}.{name} must be a finite number above 0: got {value}.")


def require_non_negative(owner: str, **values: int | float) -> None:
    """Raise a `UsageError` naming the first value that is not a finite number of at least zero."""
    for name, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{owner}.{name} must be a finite number of at least 0: got {value}.")


def require_minibatches(owner: str, steps: int, minibatch_size: int) -> None:
    """Raise a `UsageError` where the steps of a rollout are not a whole number of minibatches."""
    if steps % minibatch_size:
        raise UsageError(
            f"{owner}.minibatch_size must divide the {steps} steps of a rollout (num_envs * rollout_steps): got "
            f"{minibatch_size}."
        )
