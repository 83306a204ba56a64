"""Small environments whose right answers are known in closed form, for tests of algorithms and loops.

Each docstring gives its answer, and each class a method that computes it.
"""

from workhorse.environments.probes.estimators import BanditProbe, ContextProbe, QuadraticProbe, ScoreNoiseProbe
from workhorse.environments.probes.linear import LinearQuadraticGaussianProbe, LinearQuadraticProbe
from workhorse.environments.probes.loops import (
    MemoryProbe,
    ResetLeakProbe,
    SlotIdentityProbe,
    TerminationProbe,
    TimeLimitProbe,
)
from workhorse.environments.probes.tabular import TabularProbe

__all__ = [
    "BanditProbe",
    "ContextProbe",
    "LinearQuadraticGaussianProbe",
    "LinearQuadraticProbe",
    "MemoryProbe",
    "QuadraticProbe",
    "ResetLeakProbe",
    "ScoreNoiseProbe",
    "SlotIdentityProbe",
    "TabularProbe",
    "TerminationProbe",
    "TimeLimitProbe",
]
