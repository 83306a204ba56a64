"""Core time of a study by what it was spent on, with what its machine held outside the runs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from workhorse.core.files import list_folder
from workhorse.core.machine import describe_hardware
from workhorse.runs.cost import Ledger
from workhorse.runs.manifest import utc_now
from workhorse.studies.folder import StudyFolder
from workhorse.studies.record_kinds import Kind
from workhorse.studies.training_job import ledger_of

__all__ = ["Sitting", "Spending", "spending"]


class Spending(NamedTuple):
    """Core-hours of a study.

    Attributes:
        runs: of the runs that are reported: training, evaluations, checkpoints.
        search: of the trials of a search for settings.
        measurements: of policies that learn nothing, and of trained policies on changed tasks.
        outside: held, and none of those: start-up of processes, and cores without work.
        ledger: of all of it, for a price. Its wall time is that of the study's sittings, in which runs go side by side.
    """

    runs: float
    search: float
    measurements: float
    outside: float
    ledger: Ledger


class Sitting:
    """One stretch of work on a study by one process, which holds `cores` cores until it ends.

    Written down again and again, so that little is lost where the process is killed.

    Args:
        folder: of the study.
        cores: of this machine; 0 where the work is done on a cluster.
        away: returns the core-seconds that workers of a cluster were held so far, by kind of core.
    """

    def __init__(self, folder: StudyFolder, cores: int, away: Callable[[], Mapping[str, float]] = dict) -> None:
        self._folder, self._cores, self._away = folder, cores, away
        self._name = f"{len(list_folder(folder.path / 'records' / 'sittings', '*.json', folder.path)):05}"
        self._begun, self._created = time.monotonic(), utc_now()
        self._elsewhere_s = self._elsewhere_hours = 0.0

    def elsewhere(self, seconds: float, core_hours: float) -> None:
        """Count a run on the whole cluster: while it goes on, its cores are held and not this machine's."""
        self._elsewhere_s += seconds
        self._elsewhere_hours += core_hours

    def save(self) -> None:
        """Write down what was held so far."""
        passed = time.monotonic() - self._begun
        away = dict(self._away())
        here = self._cores * max(passed - self._elsewhere_s, 0.0) / 3600
        held = here + self._elsewhere_hours + sum(away.values()) / 3600
        record = {"begun": self._created, "wall_s": passed, "cores": self._cores, "held_core_hours": held}
        record["core_seconds"] = away
        self._folder.write_record("sittings", self._name, record)


def spending(folder: StudyFolder) -> Spending:
    """Return what a study has cost so far. For a study from before sittings were kept, nothing is outside its runs."""

    def hours(*kinds: Kind, name: str = "core_hours") -> float:
        return float(sum(record.get(name, 0.0) for kind in kinds for record in folder.records(kind).values()))

    runs, search, measurements = hours("runs"), hours("tuning"), hours("floors", "sweeps")
    held = hours("sittings", name="held_core_hours")
    outside = max(held - runs - search - measurements, 0.0)
    ledger, seconds = Ledger().passed(hours("sittings", name="wall_s"), 0), 3600 * (runs + search)
    kinds: list[Kind] = ["runs", "tuning"]
    for one in (ledger_of(folder.path / kind / id) for kind in kinds for id in folder.records(kind)):
        for kind, core_seconds in one.core_seconds.items():  # on a cluster they may be of several kinds
            ledger, seconds = ledger.charge(kind, 1, core_seconds), seconds - core_seconds
    rest = max(seconds, 0.0) + 3600 * (measurements + outside)
    for kind, core_seconds in _held_away(folder).items():  # a cluster's idle cores are of its own kinds
        more = min(max(core_seconds - ledger.core_seconds.get(kind, 0.0), 0.0), rest)
        ledger, rest = ledger.charge(kind, 1, more), rest - more
    ledger = ledger.charge(describe_hardware().cpu, 1, rest)
    return Spending(runs, search, measurements, outside, ledger)


def _held_away(folder: StudyFolder) -> Mapping[str, float]:
    """Return the core-seconds that workers of a cluster were held, by kind of core."""
    found: Counter[str] = Counter()
    for sitting in folder.records("sittings").values():
        found.update(sitting["core_seconds"])
    return found
