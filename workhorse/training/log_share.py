"""Rows of a log as a batch, alone or beside steps of a replay."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from workhorse.core.algorithm import Key, OffPolicy
from workhorse.core.errors import UsageError
from workhorse.core.machine import describe_hardware
from workhorse.core.types import Transitions
from workhorse.data.dataset import Dataset, LogRows

__all__ = ["LOG_SHARE", "LogShare", "as_transitions", "log_share", "with_log"]

LOG_SHARE = 0.5
"""Share of each batch that is drawn from the log, for an algorithm without an option of its own.

Source: Ball et al. 2023, "Efficient online reinforcement learning with offline data" (arXiv 2302.02948), section 4.1.
"""

MEMORY_SHARE = 0.4
"""Share of the machine's memory that a log's rows may take beside a replay."""


class LogShare(NamedTuple):
    """A log's rows, and the weight in a batch of each that is drawn: *its length says how many are*."""

    rows: LogRows
    weight: Float[Array, "n"]


def log_share(log: Dataset, algorithm: OffPolicy) -> LogShare:
    """Return all rows of a log, in memory, of which an algorithm draws a share of each batch.

    Raises:
        UsageError: they do not fit.
    """
    gamma, there = float(algorithm.discount), describe_hardware().memory_bytes

    def read(numbers: np.ndarray) -> LogRows:
        return log.rows(numbers, n_steps=algorithm.n_steps, discount=gamma, spec=algorithm.spec)

    needed = sum(column.nbytes for column in read(np.zeros(1, np.int64))) * log.num_steps
    if there and needed > MEMORY_SHARE * there:
        raise UsageError(
            f"The log {log.card.name} takes {needed / 2**30:,.1f} GiB beside the replay, and this machine has "
            f"{there / 2**30:,.1f}: give a part of it."
        )
    count = round(algorithm.batch_size * float(getattr(algorithm, "log_share", LOG_SHARE)))
    return LogShare(jax.tree.map(jnp.asarray, read(np.arange(log.num_steps))), jnp.ones(count, jnp.float32))


def as_transitions(rows: LogRows, total: int | np.integer | Int[Array, ""]) -> Transitions:
    """Return rows of a log as a batch; the last of the log's `total` steps has age 1."""
    return Transitions(
        rows.obs, rows.action, rows.reward, rows.discount, rows.next_obs, rows.terminated, rows.truncated, rows.steps,
        rows.index, jnp.ones(rows.reward.shape, jnp.float32), total - rows.index, rows.next_action, rows.return_to_go,
    )  # fmt: skip


def with_log(batch: Transitions, log: LogShare, key: Key) -> Transitions:
    """Return the batch and rows of the log behind it, drawn uniformly, in the dtypes of the batch.

    *A row of the log has a negative `index`*, -1 for the log's first step, so that none is taken for a step of the
    replay.
    """
    total = len(log.rows.reward)
    chosen = jax.random.randint(key, log.weight.shape, 0, total)
    drawn: LogRows = jax.tree.map(lambda column: column[chosen], log.rows)
    more = as_transitions(drawn, total)._replace(index=-1 - drawn.index, weight=log.weight)
    return jax.tree.map(lambda own, other: jnp.concatenate([own, other.astype(own.dtype)]), batch, more)
