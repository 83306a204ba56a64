"""Account of a run under way: what it has held so far, in every sitting, is written into its ledger.

The definitions are those of docs/tutorial/cost.md, and every command prints these numbers. *Wall time* is what the
clock shows from the moment the run's state is there to its last save, evaluations and checkpoints included. *Core time*
is the time for which cores were held, whatever they did.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from workhorse.core.files import is_there
from workhorse.core.machine import available_cores, describe_hardware
from workhorse.runs.cost import Ledger
from workhorse.runs.folder import RunFolder
from workhorse.training.loop import Loop

__all__ = ["Account"]


class Account:
    """Ledger of a run that goes on.

    On one machine the run holds a core for each thread, and no more than there are. A loop in a group or on a cluster
    says itself what it holds.

    Attributes:
        ledger: as of the last charge.
    """

    def __init__(self, folder: RunFolder, loop: Loop, threads: int, begins: bool, noted: Callable[[str], None]) -> None:
        fresh = begins and not is_there(folder.path / "ledger.json")
        self.ledger = Ledger() if fresh else Ledger.of(folder, noted)
        self._folder, self._loop = folder, loop
        # of this machine: a run may be resumed on another one than that of its manifest
        self._kind, self._cores = describe_hardware().cpu, min(threads, available_cores())
        self._charged_at = time.monotonic()

    def charge(self, env_steps: int) -> None:
        """Charge the time since the last charge."""
        now = time.monotonic()
        passed, self._charged_at = now - self._charged_at, now
        held = self._loop.core_seconds()
        for kind, core_seconds in ({self._kind: self._cores * passed} if held is None else held).items():
            self.ledger = self.ledger.charge(kind, 1, core_seconds)
        self.ledger = self.ledger.passed(passed, env_steps)

    def save(self, env_steps: int) -> None:
        """Charge the time since the last charge, and write the ledger."""
        self.charge(env_steps)
        self.ledger.write(self._folder.path)
