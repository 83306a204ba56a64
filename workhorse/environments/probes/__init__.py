"""Small environments whose right answers are known in closed form, for tests of algorithms and loops.

Each docstring gives its answer, and each class a method that computes it.
"""

from workhorse.environments.probes.bandit import BanditProbe
from workhorse.environments.probes.clocks import ResetLeakProbe, TerminationProbe, TimeLimitProbe
from workhorse.environments.probes.context import ContextProbe
from workhorse.environments.probes.linear_quadratic import LinearQuadraticProbe
from workhorse.environments.probes.linear_quadratic_gaussian import LinearQuadraticGaussianProbe
from workhorse.environments.probes.memory import MemoryProbe
from workhorse.environments.probes.quadratic import QuadraticProbe
from workhorse.environments.probes.score_noise import ScoreNoiseProbe
from workhorse.environments.probes.slot_identity import SlotIdentityProbe
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
