"""The loop of on-policy learning with demonstrations: they are shown to the algorithm before the first iteration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from workhorse.core.algorithm import Algorithm, State
from workhorse.core.errors import UsageError
from workhorse.core.types import Demonstrations
from workhorse.data.dataset import Dataset
from workhorse.training.loop import Progress
from workhorse.training.offline import opened_log
from workhorse.training.on_policy import OnPolicyLoop

if TYPE_CHECKING:
    from workhorse.training.plan import Plan

__all__ = ["DemonstratedOnPolicy"]


class DemonstratedOnPolicy(OnPolicyLoop):
    """`OnPolicyLoop` whose algorithm was shown a log. The demonstrations are part of its state from then on."""

    _plan: Plan
    _log: Dataset | None = None

    @staticmethod
    def of(plan: Plan, loop: OnPolicyLoop) -> DemonstratedOnPolicy:
        """Return the loop of a plan that names a log, out of one that knows none."""
        made = DemonstratedOnPolicy(loop.algorithm, loop.root, loop.collector, loop.lanes)
        made._plan = plan
        return made

    def prepare(self) -> None:
        algorithm: Any = self.algorithm
        log = opened_log(self._plan, algorithm, least_episodes=1)  # none of them is held out
        if log.num_steps > algorithm.memory_size:
            raise UsageError(
                f"{type(algorithm).__name__}.memory_size must hold the {log.num_steps:,} steps of the log "
                f"{log.card.name}: got {algorithm.memory_size:,}. Raise it, or give fewer demonstrations."
            )
        self._log = log

    def start(self) -> Progress:
        """Return the progress before the first iteration; only where learning was prepared is the log in it."""
        progress = super().start()
        if self._log is None:
            return progress
        rows = self._log.rows(np.arange(self._log.num_steps), n_steps=1, discount=1.0, spec=self.algorithm.spec)
        shown = Demonstrations(rows.obs, rows.action, np.ones(len(rows.obs), bool))
        return progress._replace(state=_shown(self.algorithm, progress.state, shown))


@jax.jit
def _shown(algorithm: Algorithm, state: State, shown: Demonstrations) -> State:
    given: Any = algorithm
    return given.shown(state, shown)
