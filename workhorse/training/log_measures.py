"""Measures of an iteration on held-out episodes of a log: what values claim beside what the log shows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from workhorse.core.algorithm import Key, OffPolicy, State
from workhorse.core.randomness import draw, permutation, root_key
from workhorse.data.dataset import Dataset, LogRows
from workhorse.training.replay_measures import gives_values
from workhorse.training.rollouts import actor_of

__all__ = ["Probe", "log_measures", "probe_of"]

PLACES = 1024
"""Held-out steps at which values are asked, at most."""


class Probe(NamedTuple):
    """What an iteration is measured on.

    Attributes:
        rows: held-out steps, leading axis K.
    """

    rows: LogRows


def probe_of(
    log: Dataset, train: np.ndarray, held_out: np.ndarray, read: Callable[[np.ndarray], LogRows], seed: int
) -> Probe:
    """Return what every iteration of a run is measured on, drawn once.

    Args:
        log: the whole log.
        train, held_out: numbers of its steps.
        read: returns rows by the numbers of steps, in the algorithm's own numbers.
        seed: of the run.
    """
    order = np.asarray(permutation(draw(root_key(seed), "held-out", 1), len(held_out)))
    return Probe(jax.tree.map(jnp.asarray, read(held_out[np.sort(order[:PLACES])])))


def log_measures(algorithm: OffPolicy, state: State, probe: Probe, key: Key) -> dict[str, Array]:
    """Return measures on the probe.

    `data_value` is the mean value of the log's own actions, `policy_value` that of the policy's in the same states,
    `action_gap` the second less the first.
    """
    if not gives_values(algorithm):
        return {}
    return _measured(algorithm, state, probe, key)


@jax.jit
def _measured(algorithm: OffPolicy, state: State, probe: Probe, key: Key) -> dict[str, Array]:
    actor, rows = actor_of(algorithm, state), probe.rows
    carry = algorithm.begin(actor, jnp.int32(-1))
    act = jax.vmap(lambda obs: algorithm.act(actor, carry, obs, key, explore=False)[0])
    value = jax.vmap(partial(algorithm.action_value, state))
    of_data, of_policy = value(rows.obs, rows.action), value(rows.obs, act(rows.obs))
    return {
        "data_value": of_data.mean(),
        "policy_value": of_policy.mean(),
        "action_gap": (of_policy - of_data).mean(),
    }
