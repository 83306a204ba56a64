"""Tables and sentences of a study's report: failures, all runs, risk, robustness, settings."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from workhorse.advice.line import rival_line
from workhorse.reports.markup import Markup, escape, link, paragraph, sentences, table
from workhorse.reports.study_cards import endings_text
from workhorse.reports.tuning_figures import setting_text
from workhorse.reports.wording import (
    cost_texts,
    count_text,
    duration_text,
    hours_text,
    interval_text,
    number_text,
    share_text,
    steps_text,
)
from workhorse.studies.cells import CellSummary, has_collapsed
from workhorse.studies.results import RunResult, StudyResults, Trial
from workhorse.studies.spending import Spending
from workhorse.studies.tuning import search_gap, tuning_value
from workhorse.studies.verdicts import Verdict

__all__ = [
    "all_runs",
    "failures",
    "reliability_table",
    "rival_sentences",
    "robustness_sentences",
    "robustness_table",
    "search_words",
    "sensitivity_words",
    "spending_table",
    "spending_text",
    "verdict_list",
]


_MOST_VERDICTS = 10


def verdict_list(found: Sequence[Verdict]) -> Markup:
    """Return the verdicts as a list, with shown differences marked and the others folded away if there are many."""

    def listed(some: Sequence[Verdict]) -> str:
        items = (f"<li{' class=shown' if one.better else ''}>{escape(one.sentence)}</li>" for one in some)
        return f'<ul class="verdicts box">{"".join(items)}</ul>' if some else ""

    if len(found) <= _MOST_VERDICTS:
        return Markup(listed(found))
    shown, rest = [one for one in found if one.better], [one for one in found if not one.better]
    summary = f"{len(rest):,} of {len(found):,} pairs are not shown to differ, or have too few runs"
    return Markup(f"{listed(shown)}<details><summary>{summary}</summary>{listed(rest)}</details>")


def failures(results: StudyResults, cells: Sequence[CellSummary], folder: Path) -> Markup:
    """Return a table of every failed run: how, why, and its folder."""
    rows = []
    for cell in cells:
        for run, score, success in zip(cell.runs, cell.scores, cell.successes, strict=True):
            kind = _failure(results, run, bool(success))
            if kind:
                why = run.reason or _why(cell, run, kind)
                place = link(run.folder, folder, run.folder.name if run.folder else "")
                rows.append((cell.task, cell.variant, run.seed, kind, why, number_text(float(score)), place))
    counts = "; ".join(f"{cell.variant} on {cell.task}: {endings_text(cell)}" for cell in cells)
    if not rows:
        return Markup(paragraph("Every seed succeeded and none collapsed.") + paragraph(f"{counts}.", "small"))
    columns = ("task", "variant", "seed", "outcome", "reason", "counts as", "run folder")
    return Markup(table(columns, rows, numbers=(2, 5)) + paragraph(f"{counts}.", "small"))


def all_runs(results: StudyResults, folder: Path) -> Markup:
    """Return a table of every planned run, also those that have not ended."""
    columns = (
        "task", "variant", "seed", "outcome", "return", "episodes", "training steps", "time", "core time",
        "broken episodes", "run folder",
    )  # fmt: skip
    rows = [
        (
            run.task,
            run.variant,
            run.seed,
            run.outcome,
            number_text(run.score),
            len(run.episode_returns),
            number_text(run.env_steps),
            duration_text(run.wall_s),
            hours_text(run.core_hours),
            run.failed_episodes,
            link(run.folder, folder, run.folder.name if run.folder else ""),
        )
        for run in results.runs
    ]
    inside = table(columns, rows, numbers=(2, 4, 5, 6, 7, 8, 9), kind="fine")
    return Markup(f"<details><summary>{count_text(len(rows), 'run')}</summary>{inside}</details>")


def spending_table(spent: Spending) -> Markup:
    """Return a table of what a study's core time went to, the time outside its runs in a row of its own."""
    whole, cost = spent.ledger.core_hours, cost_texts(spent.ledger)
    rows = [(name, hours_text(hours), share_text(hours / whole) if whole else "") for name, hours in _parts(spent)]
    words = f"In all {cost['core time']} in {cost['wall time']} on the clock; money: {cost['money']}."
    return Markup(table(("core time", "", "share"), rows, numbers=(1, 2)) + paragraph(words, "small"))


def spending_text(spent: Spending) -> str:
    """Return the same in a sentence."""
    cost = cost_texts(spent.ledger)
    parts = ", ".join(f"{name} {hours_text(hours)}" for name, hours in _parts(spent))
    return f"Core time {cost['core time']} in {cost['wall time']}, {cost['money']}: {parts}."


def _parts(spent: Spending) -> list[tuple[str, float]]:
    rows = [
        ("runs", spent.runs),
        ("trials of the search", spent.search),
        ("floors and changed tasks", spent.measurements),
        ("outside the runs (start-up, idle cores)", spent.outside),
    ]
    return [row for row in rows if row[1] or row[0] == "runs"]


def reliability_table(cells: Sequence[CellSummary]) -> Markup:
    """Dispersion and risk after Chan et al., in small print."""
    columns = (
        "task", "variant", "spread over time, a million steps", "short-term risk, a million steps",
        "greatest drawdown", "spread of seeds (IQR)", "worst twentieth of seeds", "spread of episodes (IQR)",
        "worst twentieth of episodes",
    )  # fmt: skip
    rows = []
    for cell in cells:
        over_time, short_term, *rest = cell.reliability
        numbers = (over_time * 1e6, short_term * 1e6, *rest)
        rows.append((cell.task, cell.variant, *(number_text(value) for value in numbers)))
    words = "After Chan et al. 2020, in the task's units of return: low spread and low loss are good. A dash: too "
    words += "few runs, evaluations or episodes. Below 40 seeds the worst twentieth is little more than the worst seed."
    return Markup(table(columns, rows, numbers=range(2, 9), kind="fine") + paragraph(words, "small"))


def robustness_table(cells: Sequence[CellSummary]) -> Markup:
    """Return a table of the smallest share that each artefact leaves of each variant; darker is less."""
    swept = [cell for cell in cells if cell.robustness is not None]
    if not swept:
        return Markup("")
    artefacts = dict.fromkeys(
        found.artefact for cell in swept if cell.robustness is not None for found in cell.robustness.retained
    )
    rows = [(artefact, *(_least(cell, artefact) for cell in swept)) for artefact in artefacts]
    return table(("smallest share left", *(cell.variant for cell in swept)), rows, kind="heat fine")


def robustness_sentences(cells: Sequence[CellSummary]) -> Markup:
    """Return sentences on the worst artefact and corner of each cell, and on artefacts that were not tried."""
    items: list[str] = []
    skipped: dict[str, str] = {}
    for cell in cells:
        found = cell.robustness
        if found is None:
            if any(run.sweep is not None for run in cell.runs):
                items.append(f"{cell.variant}: no policy earned more than the floor.")
            continue
        share = share_text(found.worst_share.value)
        ends = found.worst_share.low, found.worst_share.high
        interval = f" [{share_text(ends[0])}, {share_text(ends[1])}]" if np.isfinite(ends).all() else ""
        end = ", and the whole interval is below one half: this breaks it" if found.breaks else ""
        looked = f"{count_text(found.num_runs, 'policy').replace('policys', 'policies')} evaluated"
        left_out = f", {found.left_out} left out, which earned no more than the floor" if found.left_out else ""
        items.append(
            f"{cell.variant}: smallest share left under {found.worst_artefact}: {share}{interval}{end} "
            f"({looked}{left_out})."
        )
        if found.worst_corner:
            items.append(
                f"{cell.variant}: worst corner {found.worst_corner}: {share_text(found.worst_corner_share)} is left, "
                "mean over seeds."
            )
        skipped |= found.skipped
    for reason in dict.fromkeys(skipped.values()):
        names = ", ".join(name for name, why in skipped.items() if why == reason)
        items.append(f"Not tried, {names}: {reason}.")
    return sentences(items)


def sensitivity_words(results: StudyResults) -> Markup:
    """Return Adkins et al.'s numbers of the grid, or why there are none."""
    if not results.grid:
        return Markup("")
    found = tuning_value(results)
    if isinstance(found, str):
        return paragraph(f"No sensitivity: {found}.")
    options = list(results.grid.items())
    setting = ", ".join(
        f"{name} {values[place]}" for (name, values), place in zip(options, found.default_setting, strict=True)
    )
    return sentences(
        [
            f"Tuning to each task raises the normalised score by {share_text(found.sensitivity)}: "
            f"{share_text(found.tuned)} with each task's best setting, {share_text(found.default)} with one for all "
            f"({setting}).",
            f"Effective dimension: {found.effective_dimension} of {count_text(len(options), 'option')} must be tuned "
            "to each task for 95 % of that.",
            f"{found.diverged:.0%} of settings and tasks diverged; {found.considered:.0%} of settings nowhere.",
            "Normalised: 0 and 1 are the 5th and the 95th percentile of the settings' mean scores on a task. The best "
            "of many noisy means is biased upwards: choose settings on some seeds and report others.",
        ]
    )


def search_words(results: StudyResults, number: int) -> Markup:
    """Return the winner's score on tuning and on fresh seeds, and a table of all trials."""
    search = results.searches[number]
    found = search_gap(results, number)
    seeds = count_text(len(search.tuning_seeds), "tuning seed")
    if search.is_lost:
        words = f"No setting survived: each crashed or diverged on one of {seeds}. There is no winner."
    elif found is None and search.winner is None:
        words = "The search is under way."
    elif found is None:
        words = "The winner's runs on fresh seeds have not ended yet, so its score cannot be checked."
    elif found.failed:
        mean = "" if found.failed == found.fresh else f", the others returned {number_text(found.delivered)} on average"
        words = (
            f"The winner failed: {found.failed} of {count_text(found.fresh, 'fresh seed')} crashed or diverged{mean}. "
            f"It scored {number_text(found.promised)} on {seeds}."
        )
    else:
        fresh = count_text(len(results.cell(search.task, search.variant)), "fresh seed")
        gap = "too few seeds for an interval" if found.gap is None else interval_text(found.gap)
        words = (
            f"The winner scored {number_text(found.promised)} on {seeds}, {number_text(found.delivered)} on {fresh}. "
            f"Difference (the winner's curse): {gap}."
        )
    rows = [
        (
            trial.number,
            Markup(setting_text(trial.settings)),
            ", ".join(_tuning_score(trial, place) for place in range(len(trial.scores))),
            number_text(trial.value),
            "winner" if trial.number == search.winner else "" if trial.survived else "did not survive",
        )
        for trial in search.trials
    ]
    trials = table(("trial", "settings", "tuning seeds", "mean", ""), rows, numbers=(0, 2, 3), kind="fine")
    summary = f"{count_text(len(rows), 'trial')}, every setting tried"
    return Markup(paragraph(words) + f"<details><summary>{summary}</summary>{trials}</details>")


# --- within ---


def _tuning_score(trial: Trial, place: int) -> str:
    """Return what a tuning run returned, or how it ended."""
    outcome = trial.outcomes[place] if place < len(trial.outcomes) else "finished"
    return number_text(trial.scores[place]) if outcome == "finished" else outcome


def _failure(results: StudyResults, run: RunResult, success: bool) -> str:
    """Return how a run failed; empty where it did not."""
    if run.outcome in ("crashed", "diverged"):
        return run.outcome
    if has_collapsed(results, run):
        return "collapsed"
    return "" if success else "below the threshold"


def _why(cell: CellSummary, run: RunResult, kind: str) -> str:
    if kind == "collapsed":
        return f"fell from {number_text(float(np.nanmax(run.curve_returns)))} to {number_text(run.score)}"
    if cell.threshold is not None:
        return f"{number_text(run.score)} after {steps_text(run.env_steps)} steps; {number_text(cell.threshold)} needed"
    return f"not above every floor after {steps_text(run.env_steps)} steps"


def _least(cell: CellSummary, artefact: str) -> Markup:
    assert cell.robustness is not None
    found = next((one for one in cell.robustness.retained if one.artefact == artefact), None)
    if found is None:
        return Markup("\N{EN DASH}")
    place = found.worst
    share, low, high = found.share[place], found.low[place], found.high[place]
    interval = f" [{share_text(low)}, {share_text(high)}]" if np.isfinite((low, high)).all() else ""
    lost = round(100 * min(max(1 - float(share), 0.0), 1.0) * 0.5)
    at = number_text(float(found.values[place])) + (
        "\N{MULTIPLICATION SIGN}" if found.unit == "x" else f" {found.unit}"
    )
    return Markup(
        f'<div class="heat-cell" style="background: color-mix(in srgb, var(--bad) {lost}%, transparent)">'
        f"{share_text(float(share))}{interval} <span>at {escape(at)}</span></div>"
    )


def rival_sentences(results: StudyResults, cells: Sequence[CellSummary]) -> list[str]:
    """Return, for each task, the cheapest rival of its best variant."""
    found = []
    for task in dict.fromkeys(cell.task for cell in cells):
        best = max((cell for cell in cells if cell.task == task), key=lambda cell: cell.scores.mean())
        line = rival_line(task, results.task_options.get(task, {}), float(best.scores.mean()))
        found.append(f"Cheapest rival of {best.variant} on {task}: {line}.")
    return found
