"""Search for an algorithm's settings on a task with Optuna's TPE sampler, and check the winner on fresh seeds.

Settings are judged on tuning seeds, and the winner is run again on reporting seeds, which are different. Proposals are
asked for in batches of a fixed size and reported in order, and a continued search replays them, so that the number of
processes and of interruptions changes nothing.

A setting survives if every one of its tuning runs finished. One that did not is told to the sampler as worse than all
that did, whatever the sign of the returns, and never wins.
"""

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

import numpy as np
import optuna

from workhorse.core.errors import UsageError
from workhorse.studies.folder import StudyFolder
from workhorse.studies.loading import cell_key
from workhorse.studies.plan import FIRST_TUNING_SEED, Range, TrainingJob

__all__ = ["BATCH", "Proposal", "Searching", "is_whole"]


def is_whole(annotation: object) -> bool:
    """Tell whether an option takes only whole numbers (or None).

    Example:
        >>> is_whole(int), is_whole(int | None), is_whole(float | None)
        (True, True, False)
    """
    kinds = set(get_args(annotation)) or {annotation}
    return int in kinds and float not in kinds


BATCH = 4
"""Number of settings proposed at a time; a constant, because later proposals depend on it."""


class Proposal(NamedTuple):
    """Setting that waits to be judged."""

    number: int
    settings: dict[str, Any]


class Searching:
    """Search whose state is a record in the study folder."""

    def __init__(self, folder: StudyFolder, task: str, algorithm: str) -> None:
        search = folder.plan.search
        assert search is not None
        self._folder, self._plan, self._search = folder, folder.plan, search
        self._task, self._algorithm = task, algorithm
        self._key = cell_key(task, algorithm)
        self.tuning_seeds = tuple(FIRST_TUNING_SEED + number for number in range(search.tuning_seeds))
        self._record = folder.record("searches", self._key) or {
            "variant": f"{algorithm} (tuned)",
            "tuning_seeds": list(self.tuning_seeds),
            "trials": [],
            "winner": None,
            "complete": False,
        }
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=zlib.crc32(self._key.encode()))
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._asked: list[optuna.Trial] = []
        self._replay()

    def proposals(self) -> list[Proposal] | None:
        """Return the next settings to judge; None when there are enough."""
        count = len(self._record["trials"])
        if count >= self._search.trials:
            return None
        return self._ask(min(BATCH, self._search.trials - count))

    def jobs(self, proposal: Proposal) -> list[TrainingJob]:
        """Return the runs by which a proposal is judged."""
        variant = f"{self._algorithm} trial {proposal.number}"
        return [
            self._plan.job(self._task, self._algorithm, proposal.settings, seed, variant) for seed in self.tuning_seeds
        ]

    def judge(self, proposals: list[Proposal]) -> None:
        """Write down the scores of the proposals, whose runs have all ended."""
        for proposal in proposals:
            runs = [self._ended(job) for job in self.jobs(proposal)]
            scores, outcomes = [run["score"] for run in runs], [run["outcome"] for run in runs]
            known = [score for score in scores if score is not None]
            value = float(np.mean(known)) if outcomes == ["finished"] * len(runs) else None
            self._tell(proposal.number, value)
            self._record["trials"].append(
                {"settings": proposal.settings, "scores": scores, "value": value, "outcomes": outcomes}
            )
        if len(self._record["trials"]) >= self._search.trials:
            self._record |= {"winner": self._best(), "complete": True}
        self._folder.write_record("searches", self._key, self._record)

    def _best(self) -> int | None:
        """Return the number of the best trial that survived; None where none did."""
        values = {
            number: trial["value"]
            for number, trial in enumerate(self._record["trials"])
            if trial["value"] is not None and self._survived(number, trial)
        }
        return max(values, key=lambda number: values[number]) if values else None

    def _survived(self, number: int, trial: Mapping[str, Any]) -> bool:
        """Tell whether every run of a trial finished; a search begun by an earlier version did not write that down."""
        jobs = self.jobs(Proposal(number, trial["settings"]))
        outcomes = trial["outcomes"] or [self._ended(job)["outcome"] for job in jobs]
        return all(outcome == "finished" for outcome in outcomes)

    @property
    def is_lost(self) -> bool:
        """Tell whether no setting survived."""
        return self._record["complete"] and self._record["winner"] is None

    def reporting_jobs(self) -> list[TrainingJob]:
        """Return the winner's runs on seeds that the search never used; none where no setting survived."""
        if self._record["winner"] is None:
            return []
        settings = self._record["trials"][self._record["winner"]]["settings"]
        return [
            self._plan.job(self._task, self._algorithm, settings, seed, self._record["variant"])
            for seed in self._plan.seeds
        ]

    def _ended(self, job: TrainingJob) -> dict[str, Any]:
        found = self._folder.ended("tuning", job)
        if found is None:
            raise UsageError(
                f"The record of the tuning run {job.id} is gone or damaged: continue the study with `workhorse study "
                f"{self._folder.path}`, which makes it again."
            )
        return found

    def _ask(self, count: int) -> list[Proposal]:
        found = []
        for _ in range(count):
            trial = self._study.ask()
            self._asked.append(trial)
            settings = {name: self._suggest(trial, name, span) for name, span in self._search.ranges.items()}
            found.append(Proposal(len(self._asked) - 1, settings))
        return found

    def _tell(self, number: int, value: float | None) -> None:
        """Tell the sampler what a trial is worth; a pruned one ranks below every other."""
        if value is None:
            self._study.tell(self._asked[number], state=optuna.trial.TrialState.PRUNED)
        else:
            self._study.tell(self._asked[number], value)

    def _replay(self) -> None:
        """Ask for the earlier proposals again and report their values, so that the sampler is in the same state."""
        told = self._record["trials"]
        for start in range(0, len(told), BATCH):
            batch = told[start : start + BATCH]
            proposals = self._ask(len(batch))
            for proposal, trial in zip(proposals, batch, strict=True):
                if proposal.settings != trial["settings"]:
                    raise UsageError(
                        f"The search of {self._key} cannot continue: trial {proposal.number} would now be "
                        f"{proposal.settings}, but was {trial['settings']}. Another version of Optuna is installed, or "
                        "the study file was edited; use the earlier version, or start a new study."
                    )
                self._tell(proposal.number, trial["value"])

    def _suggest(self, trial: optuna.Trial, name: str, span: Range) -> object:
        if span.choices:  # by index, because Optuna's choices cannot be lists
            return span.choices[trial.suggest_categorical(name, list(range(len(span.choices))))]
        assert span.low is not None and span.high is not None
        if self._is_whole(name):
            return trial.suggest_int(name, int(span.low), int(span.high), log=span.log)
        return trial.suggest_float(name, span.low, span.high, log=span.log)

    def _is_whole(self, name: str) -> bool:
        from workhorse.algorithms import registry

        return is_whole(registry.options(self._algorithm)[name].annotation)
