"""Plan of a study: tasks, algorithms, seeds, settings, budgets; `study_file` reads and checks it."""

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from workhorse.algorithms.recipes import DEFAULT_ENV_STEPS, recipe
from workhorse.algorithms.settings import merged_settings
from workhorse.studies.rules import Budget, Until

__all__ = ["FIRST_TUNING_SEED", "TrainingJob", "Range", "Search", "StudyPlan", "variant_name"]

FIRST_TUNING_SEED = 2**31
"""First seed for tuning. Seeds below are for reporting, so that none is used for both."""


@dataclass(frozen=True)
class Range:
    """Values that a search may try for an option: those between two ends, or a list of choices.

    Attributes:
        low, high: both ends included; None for choices.
        log: whether to sample the logarithm uniformly.
        choices: the values; empty for a range.
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Search:
    """Search for settings, separate for every algorithm on every task.

    Attributes:
        ranges: by option.
        trials: number of settings to try.
        tuning_seeds: number of runs by which each is judged.
    """

    ranges: Mapping[str, Range]
    trials: int = 20
    tuning_seeds: int = 3


@dataclass(frozen=True)
class TrainingJob:
    """One run that a study asks for.

    Attributes:
        task, algorithm, seed: of the run.
        variant: the name of its column in the study.
        setting: the options that set the variant apart.
        settings: all options that differ from the algorithm's defaults.
        env_steps: the budget.
        task_options: of the task.
    """

    task: str
    algorithm: str
    variant: str
    seed: int
    setting: Mapping[str, Any]
    settings: Mapping[str, Any]
    env_steps: int
    task_options: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The run folder's name: the same job has the same one in every sitting."""
        words = f"{self.task}-{self.variant}-s{self.seed}"
        return re.sub(r"[^\w.+=@-]+", "-", words).strip("-")


@dataclass(frozen=True)
class StudyPlan:
    """A study, checked.

    Attributes:
        tasks, algorithms: crossed with each other.
        seeds: for reporting, each below `FIRST_TUNING_SEED`.
        env_steps: by task; a task that is missing has its recipe's budget.
        settings: options by algorithm, on top of the recipes'.
        task_options: by task.
        grid: values by option, crossed; each combination is a variant.
        search: of settings; None for none. Its winners are variants beside the untuned algorithms.
        thresholds: by task, from which return on a run is a success.
        perturbations: values by artefact; None for no sweep, empty for the default ranges.
        until: what has to be known before the study ends; None: when every seed has run.
        budget: what it may take; None for no limit.
        evaluations: of a run, evenly over its budget.
        evaluation_episodes, final_episodes: episodes of each, and of the last.
    """

    tasks: tuple[str, ...]
    algorithms: tuple[str, ...]
    seeds: tuple[int, ...]
    env_steps: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    task_options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    search: Search | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    perturbations: Mapping[str, tuple[float, ...]] | None = None
    until: Until | None = None
    budget: Budget | None = None
    evaluations: int = 10
    evaluation_episodes: int = 16
    final_episodes: int = 100

    def cells(self) -> list[tuple[str, str, Mapping[str, Any]]]:
        """Return (task, algorithm, setting) of every cell known beforehand, task by task."""
        names, lists = list(self.grid), list(self.grid.values())
        settings = [dict(zip(names, values, strict=True)) for values in itertools.product(*lists)]
        return [
            (task, algorithm, setting) for task in self.tasks for algorithm in self.algorithms for setting in settings
        ]

    def job(
        self, task: str, algorithm: str, setting: Mapping[str, Any], seed: int, variant: str | None = None
    ) -> TrainingJob:
        """Return the run of one seed of a cell."""
        known = recipe(task, algorithm)
        settings = merged_settings(algorithm, known, {**self.settings.get(algorithm, {}), **setting})
        steps = self.env_steps.get(task) or (known.env_steps if known else DEFAULT_ENV_STEPS)
        options = self.task_options.get(task, {})
        name = variant or variant_name(algorithm, setting)
        return TrainingJob(task, algorithm, name, seed, dict(setting), settings, steps, dict(options))

    def jobs(self) -> list[TrainingJob]:
        """Return every run known beforehand, seed after seed: a study stopped early has as many of each cell."""
        return [
            self.job(task, algorithm, setting, seed) for seed in self.seeds for task, algorithm, setting in self.cells()
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON, with the entries of a study file."""
        record = {name: value for name, value in asdict(self).items() if value is not None}
        record["until"] = self.until and self.until.text
        record["budget"] = self.budget and self.budget.text
        if self.perturbations is not None:
            record["perturbations"] = dict(self.perturbations) or True
        search = record.pop("search", None)
        if search:
            record["search"] = {
                name: list(found["choices"]) or {"low": found["low"], "high": found["high"], "log": found["log"]}
                for name, found in search["ranges"].items()
            }
            record |= {"trials": search["trials"], "tuning_seeds": search["tuning_seeds"]}
        return json.loads(json.dumps({name: value for name, value in record.items() if value not in (None, {}, ())}))


def variant_name(algorithm: str, setting: Mapping[str, Any]) -> str:
    """Return the name of a variant: the algorithm with the settings that set it apart.

    Example:
        >>> variant_name("ars", {}), variant_name("ars", {"noise_std": 0.02, "hidden": (64, 64)})
        ('ars', 'ars (noise_std 0.02, hidden 64-64)')
    """
    if not setting:
        return algorithm
    return f"{algorithm} ({', '.join(f'{name} {_text(value)}' for name, value in setting.items())})"


def _text(value: object) -> str:
    return "-".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
