"""What each kind of a study's records holds; a record that holds something else is damaged, and its work done again."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from workhorse.core.errors import UsageError
from workhorse.core.records import AtLeastZero, Check, CountFromZero, build
from workhorse.robustness.results import from_record

__all__ = ["KINDS", "Kind", "check_record", "describe_loss"]

Kind = Literal["runs", "tuning", "floors", "sweeps", "searches", "choices", "batches", "sittings"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Returns = Annotated[tuple[float, ...], Check(bool, "a list of at least one number")]


@dataclass(frozen=True)
class _Ended:
    """How a run ended."""

    outcome: Literal["finished", "diverged", "crashed"]
    reason: str
    score: float | None
    episode_returns: tuple[float, ...]
    env_steps: CountFromZero
    wall_s: AtLeastZero
    core_hours: AtLeastZero
    failed_episodes: CountFromZero
    task: str
    variant: str
    algorithm: str
    seed: CountFromZero
    setting: Mapping[str, Any]


@dataclass(frozen=True)
class _Floors:
    random: Returns
    nothing: Returns
    constant: tuple[float, ...]
    action: tuple[float, ...]
    trial_episodes: CountFromZero
    trial_steps: CountFromZero
    core_hours: AtLeastZero


@dataclass(frozen=True)
class _Failed:
    """A floor or a sweep that could not be measured."""

    failed: str
    core_hours: AtLeastZero


@dataclass(frozen=True)
class _Trial:
    settings: Mapping[str, Any]
    scores: tuple[float | None, ...]
    value: float | None
    outcomes: tuple[str, ...]


@dataclass(frozen=True)
class _Search:
    variant: str
    tuning_seeds: tuple[CountFromZero, ...]
    trials: tuple[_Trial, ...]
    winner: CountFromZero | None
    complete: bool


@dataclass(frozen=True)
class _Choice:
    sentence: str


@dataclass(frozen=True)
class _SeedBatch:
    task: str
    algorithm: str
    variant: str
    setting: Mapping[str, Any]
    seeds: tuple[CountFromZero, ...]
    why: str


@dataclass(frozen=True)
class _Sitting:
    begun: str
    wall_s: AtLeastZero
    cores: CountFromZero
    held_core_hours: AtLeastZero
    core_seconds: Mapping[str, AtLeastZero]


def check_record(kind: Kind, record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a record in its present form, with the fields that an earlier version did not write.

    Raises:
        UsageError: a field is missing, unknown, of another type, or contradicts another.
    """
    found = dict(record)
    if kind == "searches":
        found.setdefault("complete", found.get("winner") is not None)
        trials = found.get("trials")
        for trial in trials if isinstance(trials, list) else ():
            if isinstance(trial, dict):
                trial.setdefault("outcomes", [])
    if kind == "floors" and "failed" not in found:
        found = {"constant": [], "action": [], "trial_episodes": 0, "trial_steps": 0} | found
    if kind == "sittings":
        found.setdefault("core_seconds", {})
    if kind == "sweeps" and "failed" not in found:
        sweep = {name: value for name, value in found.items() if name != "core_hours"}
        from_record(sweep, where)
        build(_Failed, {"failed": "", "core_hours": found.get("core_hours")}, where)
        return found
    build(_Failed if "failed" in found else _SCHEMAS[kind], found, where)
    problem = _CONTRADICTIONS.get(kind, lambda found: "")(found)
    if problem:
        raise UsageError(f"Expected a record without contradictions in {where}, but {problem}. Restore it from a copy.")
    return found


def describe_loss(kind: Kind) -> str:
    """Return what becomes of a study without one of its records, as a sentence."""
    return _LOST[kind]


def _contradictory_end(found: Mapping[str, Any]) -> str:
    if (found["outcome"] == "finished") != (found["score"] is not None):
        return f"the run {found['outcome']} with the score {found['score']}"
    return ""


def _contradictory_search(found: Mapping[str, Any]) -> str:
    winner, trials, seeds = found["winner"], found["trials"], len(found["tuning_seeds"])
    for number, trial in enumerate(trials):
        scores, outcomes, value = trial["scores"], trial["outcomes"], trial["value"]
        if len(scores) != seeds or len(outcomes) not in (0, seeds):
            return f"trial {number} has {len(scores)} scores and {len(outcomes)} outcomes of {seeds} tuning seeds"
        failed = None in scores or any(outcome != "finished" for outcome in outcomes)
        if (value is None) != failed or (
            value is not None and not math.isclose(value, sum(scores) / seeds, abs_tol=1e-9)
        ):
            return f"trial {number} has the scores {scores} and the value {value}"
    if winner is not None and (winner >= len(trials) or trials[winner]["value"] is None):
        return f"trial {winner} of {len(trials)} cannot have won"
    if found["complete"] and winner is None and any(trial["value"] is not None for trial in trials):
        return "it is complete and has no winner, though a trial survived"
    return ""


_SCHEMAS: dict[Kind, type] = {
    "runs": _Ended,
    "tuning": _Ended,
    "floors": _Floors,
    "searches": _Search,
    "choices": _Choice,
    "batches": _SeedBatch,
    "sittings": _Sitting,
}
_CONTRADICTIONS: dict[Kind, Callable[[Mapping[str, Any]], str]] = {
    "runs": _contradictory_end,
    "tuning": _contradictory_end,
    "searches": _contradictory_search,
}
_AGAIN = "`workhorse study` on this folder"
_LOST: dict[Kind, str] = {
    "runs": f"Without it the run counts as not ended; {_AGAIN} takes its end from the run folder again",
    "tuning": f"Without it the tuning run counts as not ended; {_AGAIN} takes its end from the run folder again",
    "floors": f"Without it the returns of policies that learn nothing are unknown; {_AGAIN} measures it again",
    "sweeps": f"Without it this policy's robustness is unknown; {_AGAIN} measures it again",
    "searches": f"Without it the search is not shown; {_AGAIN} makes the record again from the tuning runs",
    "choices": "Without it a sentence is missing from the page",
    "sittings": "Without it the study's time outside its runs is too short",
    "batches": "Without it the seeds that `until` added are not known: restore it from a copy",
}
