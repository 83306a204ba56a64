"""Compare two studies where they can be compared, and say where they cannot."""

import json
from typing import NamedTuple

from workhorse.core.errors import UsageError
from workhorse.studies.cells import CellSummary, failure_score, summarise
from workhorse.studies.results import StudyResults
from workhorse.studies.verdicts import Verdict, compare_cells

__all__ = ["Between", "compare_studies"]


class Between(NamedTuple):
    """Comparison of two studies.

    Attributes:
        cells: the compared cells, in pairs.
        verdicts: one a pair, corrected over all of them.
        notes: what was left out, a sentence each.
    """

    cells: tuple[CellSummary, ...]
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]


def compare_studies(
    ours: StudyResults, theirs: StudyResults, variant: str | None = None, any_version: bool = False
) -> Between:
    """Compare each variant of one study with the same variant of the other, task by task.

    If each study has only one variant, these are compared, whatever their names.

    Args:
        ours, theirs: the studies.
        variant: compare only this one.
        any_version: compare even if the versions of the packages that compute differ.

    Raises:
        UsageError: no task, no variant or no result in common, unequal budgets or thresholds on a task, or versions
            that differ.
    """
    tasks = [task for task in ours.tasks if task in theirs.tasks]
    if not tasks:
        raise UsageError(
            f"{ours.name} ({', '.join(ours.tasks)}) and {theirs.name} ({', '.join(theirs.tasks)}) share no task, and "
            "scores of different tasks cannot be compared."
        )
    for task in tasks:
        options = [json.dumps(study.task_options.get(task, {}), sort_keys=True) for study in (ours, theirs)]
        if options[0] != options[1]:
            raise UsageError(
                f"{task} has the options {options[0]} in {ours.name} and {options[1]} in {theirs.name}: they are not "
                "the same task."
            )
    changed = _changed_versions(ours, theirs)
    if changed and not any_version:
        raise UsageError(
            f"{ours.name} and {theirs.name} were made with different versions ({changed}), which may cause a "
            "difference: run one of them again, or compare anyway with --any-version."
        )
    our_name, their_name = f"{ours.name}: ", f"{theirs.name}: "
    if our_name == their_name:
        our_name, their_name = "A: ", "B: "
    pairs = []
    for task in tasks:
        for left, right in _variants(ours, theirs, variant):
            # a failure counts as no more than a failure of the other study, or a crash might look better there
            lowest = min(failure_score(ours, task), failure_score(theirs, task))
            found = _cell(ours, task, left, lowest), _cell(theirs, task, right, lowest)
            if found[0] is None or found[1] is None:
                continue
            _check_equal_terms(found[0], found[1])
            pairs.append((found[0]._replace(variant=our_name + left), found[1]._replace(variant=their_name + right)))
    if not pairs:
        raise UsageError(f"{ours.name} and {theirs.name} have no cell in common whose runs have ended.")
    notes = [f"Versions differ: {changed}."] if changed else []
    for study, other in ((ours, theirs), (theirs, ours)):
        alone = [task for task in study.tasks if task not in other.tasks]
        if alone:
            notes.append(f"Left out, because {other.name} does not have it: {', '.join(alone)}.")
    cells = tuple(cell for pair in pairs for cell in pair)
    return Between(cells, compare_cells(pairs), tuple(notes))


def _variants(ours: StudyResults, theirs: StudyResults, variant: str | None) -> list[tuple[str, str]]:
    if variant is not None:
        for study in (ours, theirs):
            if variant not in study.variants:
                raise UsageError(f"{study.name} has no variant {variant!r}; it has {', '.join(study.variants)}.")
        return [(variant, variant)]
    shared = [name for name in ours.variants if name in theirs.variants]
    if shared:
        return [(name, name) for name in shared]
    if len(ours.variants) == len(theirs.variants) == 1:
        return [(ours.variants[0], theirs.variants[0])]
    raise UsageError(
        f"{ours.name} and {theirs.name} have no variant in common ({', '.join(ours.variants)}; "
        f"{', '.join(theirs.variants)}), and more than one each: compare studies of one variant, or within one study."
    )


def _cell(study: StudyResults, task: str, variant: str, failure: float) -> CellSummary | None:
    found = [cell for cell in summarise(study, {task: failure}) if (cell.task, cell.variant) == (task, variant)]
    return found[0] if found else None


def _check_equal_terms(ours: CellSummary, theirs: CellSummary) -> None:
    budgets = [sorted({run.budget for run in cell.runs}) for cell in (ours, theirs)]
    if budgets[0] != budgets[1]:
        texts = [" or ".join(f"{steps:,}" for steps in found) for found in budgets]
        raise UsageError(
            f"The runs on {ours.task} had {texts[0]} and {texts[1]} training steps, and scores after unequal budgets "
            "cannot be compared. Give both studies the same env_steps."
        )
    if ours.threshold != theirs.threshold:
        raise UsageError(
            f"Success on {ours.task} begins at {ours.threshold} in one study and at {theirs.threshold} in the other: "
            "give both the same threshold."
        )


def _changed_versions(ours: StudyResults, theirs: StudyResults) -> str:
    names = [
        name for name in {**ours.versions, **theirs.versions} if ours.versions.get(name) != theirs.versions.get(name)
    ]
    return ", ".join(
        f"{name} {ours.versions.get(name, 'none')} and {theirs.versions.get(name, 'none')}" for name in names
    )
