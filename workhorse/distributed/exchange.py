"""The two exchanges: scalars from which every worker rebuilds the update, or the parameters themselves."""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import numpy as np

from workhorse.core.algorithm import Population
from workhorse.core.types import Moments, Returns
from workhorse.distributed.messages import encode_state, encode_update

__all__ = ["Exchange", "ExchangeCost", "choose"]

Exchange = Literal["auto", "scalars", "parameters"]


class ExchangeCost(NamedTuple):
    """Bytes that a worker is sent in an iteration, on top of its orders.

    Attributes:
        scalars: the fitness of every member of a first batch, and the observation moments.
        parameters: the actor: parameters, and how observations are scaled.
    """

    scalars: int
    parameters: int

    @staticmethod
    def of(algorithm: Population) -> ExchangeCost:
        """Measure both costs for an algorithm, on messages of its sizes."""
        size = algorithm.spec.observation.size
        fitness = np.zeros(algorithm.num_members, np.float32)
        seen = Moments(np.zeros(()), np.zeros(size), np.zeros(size))
        behaviour = np.zeros((algorithm.num_members, algorithm.behaviour_size), np.float16)
        returns = Returns(fitness, 0.0, seen, behaviour)
        actor = jax.jit(lambda key: algorithm.actor(algorithm.init(key)))(jax.random.key(0))
        return ExchangeCost(len(encode_update(0, returns)), len(encode_state(actor)))


def choose(wanted: Exchange, cost: ExchangeCost) -> Literal["scalars", "parameters"]:
    """Choose the cheaper exchange in bytes, unless one was asked for.

    Example:
        >>> choose("auto", ExchangeCost(scalars=360, parameters=1200))
        'scalars'
    """
    if wanted != "auto":
        return wanted
    return "scalars" if cost.scalars <= cost.parameters else "parameters"
