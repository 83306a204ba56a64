"""Measure the assumptions of a policy gradient on a run, keep what was measured, and measure nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from workhorse.algorithms.registry import algorithm_class
from workhorse.core.algorithm import OffPolicy
from workhorse.core.digest import digest
from workhorse.core.errors import UsageError, unknown
from workhorse.diagnostics import action_values, baselines, gradients, landscape, log_values, store, values
from workhorse.diagnostics.plane import NoStep
from workhorse.diagnostics.trust_region import Promise, trust_region
from workhorse.runs.folder import RunFolder
from workhorse.runs.history import History, kept_iterations, opened
from workhorse.training.off_policy import OffPolicyLoop

__all__ = ["DEFAULT_BUDGET", "Diagnosis", "DiagnosisLines", "DiagnosisObserver", "Question", "Topic", "diagnose"]

Topic = Literal["gradients", "values", "baselines", "trust-region", "landscape", "log"]

USUAL: tuple[Topic, ...] = ("gradients", "values", "trust-region")

DEFAULT_BUDGET = 1_000_000
"""Environment steps for gradients, values and baselines, each, at an iteration."""


@dataclass(frozen=True)
class Question:
    """What to measure of a run.

    Attributes:
        at: iterations, among those whose state was kept; empty for the first, the last and two between.
        only: parts; empty for gradients, values and trust region, as far as the run allows.
        budget: environment steps for each part at each iteration; None for the usual.
        estimates: independent estimates of each gradient.
        grid: points of the landscape along each axis.
        pairs: environment steps at each point of the landscape.
        threads: simulation threads; 0 for one a core.
    """

    at: Sequence[int] = ()
    only: Sequence[Topic] = ()
    budget: int | None = None
    estimates: int = 10
    grid: int = 31
    pairs: int = 20_000
    threads: int = 0

    @property
    def steps(self) -> int:
        """Environment steps of gradients, values and baselines."""
        return DEFAULT_BUDGET if self.budget is None else self.budget

    def asked(self, part: store.Part) -> dict[str, int]:
        """Return the options that the result of a part depends on."""
        if part == "landscape":
            return {"grid": self.grid, "pairs": self.pairs}
        if part == "log":
            return {}
        return {"budget": self.steps} | ({"pairs": 5} if part == "values" else {"estimates": self.estimates})


@dataclass(frozen=True)
class Diagnosis:
    """What was measured of a run.

    Attributes:
        promises: limits of the trust region beside what was seen.
        records: the measurements by part and iteration, as they are kept in the run folder: plain JSON.
        left_out: a sentence for each part that this run does not allow.
    """

    promises: tuple[Promise, ...] = ()
    records: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        parts = [f"  {part} at iterations {', '.join(map(str, found))}" for part, found in self.records.items()]
        promises = [f"  {promise.sentence}" for promise in self.promises]
        return "\n".join(["Diagnosis:", *promises, *parts, *(f"  left out: {sentence}" for sentence in self.left_out)])


class DiagnosisObserver:
    """Is told what is measured; does nothing."""

    def promised(self, promises: Sequence[Promise]) -> None:
        """The trust region was looked at."""

    def measured(self, part: store.Part, record: dict[str, Any]) -> None:
        """A part was measured at an iteration, now or earlier."""

    def noted(self, sentence: str) -> None:
        """Something a user should know, as a part that is left out."""

    def progress(self, what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """Return what follows a measurement: a function that is told of environment steps taken, out of `total`."""
        return nullcontext(lambda env_steps: None)


class DiagnosisLines(DiagnosisObserver):
    """Prints a line before each measurement."""

    def noted(self, sentence: str) -> None:
        print(sentence)

    def progress(self, what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        print(f"Measuring {what}, up to {total:,} environment steps", flush=True)
        return super().progress(what, total)


def diagnose(folder: RunFolder, question: Question, observer: DiagnosisObserver) -> Diagnosis:
    """Measure what is asked of a run.

    Raises:
        UsageError: a part that was named cannot be measured, none can, or an iteration's state was not kept.
        KeyboardInterrupt: on Ctrl-C; measurements are kept.
    """
    for name in question.only:
        if name not in get_args(Topic):
            raise unknown("part", name, list(get_args(Topic)), "workhorse diagnose --help")
    wanted = question.only or _usual(folder, observer)
    if _learns_from_log(folder):  # its values are held against the log
        wanted = tuple("log" if name == "values" else name for name in wanted)
    found = Diagnosis(_promises(folder, question, observer) if "trust-region" in wanted else ())
    parts: list[store.Part] = [
        part for part in ("gradients", "values", "baselines", "landscape", "log") if part in wanted
    ]
    if not parts:
        observer.promised(found.promises)
        return found
    with opened(folder.path, question.threads) as history:
        at = question.at or _spread(kept_iterations(folder))
        for iteration in at or (0,):
            history.measurable(iteration)
        parts, errors = _possible(history, parts, question)
        found.left_out.extend(map(str, errors))
        for error in errors:
            observer.noted(f"Left out: {error}")
        observer.promised(found.promises)
        for iteration in at:
            for part in parts:
                try:
                    record = _measured(history, part, iteration, question, observer)
                except NoStep as error:
                    if question.at:  # the user named this iteration
                        raise
                    observer.noted(str(error))
                    continue
                found.records.setdefault(part, {})[iteration] = record
                observer.measured(part, record)
    return found


def _learns_from_log(folder: RunFolder) -> bool:
    sources = folder.manifest().sources
    return sources is not None and sources.use == "offline"


def _usual(folder: RunFolder, observer: DiagnosisObserver) -> tuple[Topic, ...]:
    """Return the parts that are measured where none is named."""
    name = folder.manifest().algorithm
    if _learns_from_log(folder):
        observer.noted(f"{name} learns from a log, so that its values are held against steps of it that were held out.")
        return ("log",)
    if not issubclass(algorithm_class(name), OffPolicy):
        return USUAL
    observer.noted(
        f"{name} learns from a replay, so that the values of its actions are measured. Gradients, trust region, "
        "baselines and landscape are of policy gradients."
    )
    return ("values",)


def _promises(folder: RunFolder, question: Question, observer: DiagnosisObserver) -> tuple[Promise, ...]:
    """Return the limits of the trust region beside what was seen; none for a run without metrics, unless asked for."""
    if not (question.only or folder.has_metrics):
        observer.noted(f"Left out: the trust region, because {folder.path} has no metrics yet.")
        return ()
    return tuple(trust_region(folder))


def _possible(
    history: History, parts: list[store.Part], question: Question
) -> tuple[list[store.Part], list[UsageError]]:
    """Return the parts that this run allows to measure, and why it does not allow the others.

    Raises:
        UsageError: a part that was named cannot be measured, or none can.
    """
    checks: dict[store.Part, Callable[[], object]] = {
        "gradients": lambda: gradients.check_gradients(history, question.steps, question.estimates),
        "values": lambda: _check_values(history, question.steps),
        "baselines": lambda: baselines.check_baselines(history, question.steps, question.estimates),
        "landscape": lambda: landscape.check_landscape(history, question.grid, question.pairs, question.budget),
        "log": lambda: log_values.check_log_values(history),
    }
    gradients.check_estimates(question.estimates)
    possible, errors = [], []
    for part in parts:
        try:
            checks[part]()
            possible.append(part)
        except UsageError as error:
            errors.append(error)
    if errors and (question.only or not possible):
        raise errors[0]
    return possible, errors


def _check_values(history: History, env_steps: int) -> object:
    """Check that values can be measured: those of actions of an off-policy run, those of states of another."""
    of_actions = isinstance(history.loop, OffPolicyLoop)
    return (action_values.check_action_values if of_actions else values.check_values)(history, env_steps)


def _measured(
    history: History, part: store.Part, iteration: int, question: Question, observer: DiagnosisObserver
) -> dict[str, Any]:
    """Return the record of a part at an iteration, measured now or kept from before."""
    asked = question.asked(part)
    record = store.read(history.folder, part, iteration, asked)
    if record is not None:
        return record
    seen = f"{digest(history.measurable(iteration).state):016x}"
    if part == "log":
        found: object = log_values.study_log_values(history, iteration)
    else:
        measure = _landscape if part == "landscape" else _by_budget
        found = measure(history, part, iteration, question, observer)
    return store.write(history.folder, part, {**store.plain_json(found), "digest": seen}, asked)


def _by_budget(
    history: History, part: store.Part, iteration: int, question: Question, observer: DiagnosisObserver
) -> object:
    """Measure the gradients, the values or the baselines within the budget."""
    with observer.progress(f"{part} of iteration {iteration}", question.steps) as progress:
        given: dict[str, Any] = {"env_steps": question.steps, "threads": question.threads, "progress": progress}
        if part == "values":
            of_actions = isinstance(history.loop, OffPolicyLoop)
            return (action_values.study_action_values if of_actions else values.study_values)(
                history, iteration, **given
            )
        study = gradients.study_gradients if part == "gradients" else baselines.study_baselines
        return study(history, iteration, estimates=question.estimates, **given)


def _landscape(
    history: History, part: store.Part, iteration: int, question: Question, observer: DiagnosisObserver
) -> object:
    """Measure a plane, from where an earlier measurement was stopped."""
    unfinished = store.Unfinished(history.folder, part, iteration, question.asked(part))
    longest = history.spec.max_episode_steps or 1
    needed = landscape.env_steps_needed(question.grid, question.pairs, longest, 1)
    with observer.progress(f"landscape of iteration {iteration}", needed) as progress:
        try:
            found = landscape.study_landscape(
                history,
                iteration,
                grid=question.grid,
                pairs=question.pairs,
                env_steps=question.budget,
                threads=question.threads,
                progress=progress,
                unfinished=unfinished,
            )
        except KeyboardInterrupt:
            unfinished.keep()
            raise
    unfinished.forget()
    return found


def _spread(kept: list[int]) -> list[int]:
    """Return the first, the last and two iterations between."""
    return sorted({kept[round(place * (len(kept) - 1) / 3)] for place in range(4)}) if kept else []
