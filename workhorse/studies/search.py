"""Search for an algorithm's settings on a task with Optuna's TPE sampler, and check the winner on fresh seeds.

Settings are judged on tuning seeds, and the winner is run again on reporting seeds, which are different. Proposals are
asked for in batches of a fixed size and reported in order, and a continued search replays them, so that the number of
processes and of interruptions changes nothing.
"""

import zlib
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
        }
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=zlib.crc32(self._key.encode()))
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._asked: list[optuna.Trial] = []
        self._replay()

    def proposals(self) -> list[Proposal] | None:
        """Return the next settings to judge; None when there are enough and the winner is known."""
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
            scores = [self._score(job) for job in self.jobs(proposal)]
            self._tell(proposal.number, float(np.mean(scores)))
            self._record["trials"].append(
                {"settings": proposal.settings, "scores": scores, "value": float(np.mean(scores))}
            )
        values = [trial["value"] for trial in self._record["trials"]]
        if len(values) >= self._search.trials:
            self._record["winner"] = int(np.argmax(values))
        self._folder.write_record("searches", self._key, self._record)

    def reporting_jobs(self) -> list[TrainingJob]:
        """Return the winner's runs on seeds that the search never used."""
        settings = self._record["trials"][self._record["winner"]]["settings"]
        return [
            self._plan.job(self._task, self._algorithm, settings, seed, self._record["variant"])
            for seed in self._plan.seeds
        ]

    def _score(self, job: TrainingJob) -> float:
        record = self._folder.record("tuning", job.id)
        assert record is not None
        if record["score"] is not None:
            return float(record["score"])
        floor = self._folder.record("floors", cell_key(self._task)) or {}
        if "random" in floor:
            return float(np.mean(floor["random"]))
        found = [record["score"] for record in self._folder.records("tuning").values() if record["task"] == self._task]
        return min((float(score) for score in found if score is not None), default=0.0)

    def _ask(self, count: int) -> list[Proposal]:
        found = []
        for _ in range(count):
            trial = self._study.ask()
            self._asked.append(trial)
            settings = {name: self._suggest(trial, name, span) for name, span in self._search.ranges.items()}
            found.append(Proposal(len(self._asked) - 1, settings))
        return found

    def _tell(self, number: int, value: float) -> None:
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
