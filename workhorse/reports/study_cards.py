"""Cards of a study: score, success and grades of every variant on every task."""

from collections.abc import Sequence

import numpy as np

from workhorse.reports.markup import Markup, definitions, escape, paragraph, table
from workhorse.reports.palette import NUM_SERIES, variant_colours
from workhorse.reports.wording import (
    MOST_POSSIBLE,
    core_unit,
    count_text,
    ends_text,
    hours_text,
    interval_text,
    number_text,
    rate_text,
    steps_text,
)
from workhorse.studies.cells import CellSummary, Grade
from workhorse.studies.results import RunResult, StudyResults

__all__ = ["answer", "endings_text", "grade_rules", "is_cut", "task_cards"]

_MOST_CARDS = 6
"""Number of variants on a task above which a table is easier to read than cards."""

_MOST_PIPS = 60


def answer(results: StudyResults, cells: Sequence[CellSummary]) -> str:
    """Return the study in one line: successes and failures."""
    ended, waiting = sum(len(cell.runs) for cell in cells), sum(not run.ended for run in results.runs)
    later = f"{count_text(waiting, 'run')} not ended yet" if waiting else ""
    if not ended:
        return f"No run has ended yet: {later or 'none was planned'}."
    succeeded = sum(int(cell.successes.sum()) for cell in cells)
    if len(cells) == 1:
        (cell,) = cells
        head = f"{cell.variant} on {cell.task}: {rate_text(succeeded, ended, cell.success)} seeds succeed"
    else:
        tasks = dict.fromkeys(cell.task for cell in cells)
        where = next(iter(tasks)) if len(tasks) == 1 else count_text(len(tasks), "task")
        head = f"{succeeded:,} of {count_text(ended, 'run')} on {where} succeed"
    counts = [sum(getattr(cell, name) for cell in cells) for name in _ENDINGS]
    return f"{head}; {', '.join([*_endings(counts), *filter(None, [later])])}."


def task_cards(results: StudyResults, task: str, cells: Sequence[CellSummary]) -> Markup:
    """The variants on a task: cards, or a table where there are many.

    Args:
        results: of the study.
        task: which.
        cells: of that task.
    """
    rule = f"Success: {cells[0].rule}." if cells else ""
    head = f'<div class="task"><h3>{escape(task)}</h3>{paragraph(rule, "rule")}</div>'
    if len(cells) > _MOST_CARDS:
        return Markup(head + _card_table(cells))
    colours = variant_colours(results.variants)
    cards = "".join(_card(cell, colours[cell.variant]) for cell in cells)
    return Markup(f'{head}<div class="cards">{cards}</div>')


def grade_rules(cells: Sequence[CellSummary]) -> Markup:
    """Return the meaning of the letters in small print."""
    if not cells:
        return Markup("")
    first = cells[0]
    grades = (first.reliability_grade, first.robustness_grade, first.cost_grade)
    text = " ".join(f"{name}: {grade.rule}." for name, grade in zip(_GRADES, grades, strict=True))
    return paragraph(f"{text} In brackets: the range that the interval allows. A dash: nothing to grade.", "small")


def endings_text(cell: CellSummary) -> str:
    """Return the numbers of runs of a cell that crashed, diverged, collapsed, or have not ended yet."""
    waiting = [f"{cell.num_unfinished:,} not ended yet"] if cell.num_unfinished else []
    return ", ".join([*_endings([getattr(cell, name) for name in _ENDINGS]), *waiting])


# --- within ---

_ENDINGS = {"num_crashed": "crashed", "num_diverged": "diverged", "num_collapsed": "collapsed"}
_GRADES = ("Reliability", "Robustness", "Cost")


def _endings(counts: Sequence[int]) -> list[str]:
    """Return the failures in words; crashes are always mentioned."""
    words = zip(_ENDINGS.values(), counts, strict=True)
    return [f"{number:,} {word}" for word, number in words if number or word == "crashed"]


def _card(cell: CellSummary, colour: int) -> Markup:
    return Markup(
        f'<article class="card" style="--tone: var(--series-{colour % NUM_SERIES})">'
        f'<h4>{escape(cell.variant)}</h4><div class="halves"><div><p class="score">{_score(cell)}</p>'
        f'<p class="small">{escape(_score_note(cell))}</p>'
        f"{_pips(cell)}<p class='rate'><b>{escape(_rate(cell))}</b> succeed</p>"
        f"{_grade_tiles(cell)}</div>{definitions(_facts(cell))}</div></article>"
    )


def _score(cell: CellSummary) -> Markup:
    if cell.mean is None:
        return Markup(escape(number_text(float(cell.scores.mean()))))
    ends = ends_text(cell.mean, bounds=cell.bounds)
    return Markup(f"{escape(number_text(cell.mean.value))} <span>{escape(ends)}</span>")


def _score_note(cell: CellSummary) -> str:
    if cell.mean is None:
        return f"mean; no interval: {cell.too_few}"
    doubt = f"; less sure than that, because {cell.doubt}" if cell.doubt else ""
    cuts = f"; {MOST_POSSIBLE}" if is_cut(cell) else ""
    return f"mean of {count_text(len(cell.runs), 'seed')}, 95 % interval{doubt}{cuts}"


def is_cut(cell: CellSummary) -> bool:
    """Tell whether an interval of the score ends at the greatest or the least possible return."""
    found = [interval for interval in (cell.mean, cell.iqm) if interval is not None]
    return any(" max" in text or " min" in text for text in (ends_text(one, bounds=cell.bounds) for one in found))


def _rate(cell: CellSummary) -> str:
    return rate_text(int(cell.successes.sum()), len(cell.runs), cell.success)


def _pips(cell: CellSummary) -> Markup:
    """A mark a seed: filled, open, or a cross."""
    if len(cell.runs) > _MOST_PIPS:
        return Markup("")
    pips = []
    for run, success in zip(cell.runs, cell.successes, strict=True):
        kind = " broken" if run.outcome in ("crashed", "diverged") else " good" if success else ""
        word = run.outcome if kind == " broken" else "succeeded" if success else "did not succeed"
        pips.append(f'<span class="pip{kind}" title="seed {run.seed}: {word}"></span>')
    return Markup(f'<p class="pips" role="img" aria-label="{escape(_rate(cell))} seeds succeed">{"".join(pips)}</p>')


def _grade_tiles(cell: CellSummary) -> Markup:
    grades = (cell.reliability_grade, cell.robustness_grade, cell.cost_grade)
    tiles = "".join(_tile(name, grade) for name, grade in zip(_GRADES, grades, strict=True))
    return Markup(f'<ul class="grades">{tiles}</ul>')


def _tile(name: str, grade: Grade) -> str:
    letter, _, rest = grade.text.partition(" ")
    shown = "\N{EN DASH}" if letter == "-" else letter
    return (
        f'<li title="{escape(grade.rule)}"><small>{escape(name.lower())}</small> <b>{escape(shown)}</b> '
        f"<span>{escape(rest)}</span></li>"
    )


def _facts(cell: CellSummary) -> dict[str, object]:
    endings = ", ".join(_endings([getattr(cell, name) for name in _ENDINGS]))
    facts: dict[str, object] = {
        "worst seed": _worst_seed(cell),
        "median, best": f"{number_text(cell.median)}, {number_text(cell.best)}",
    }
    if cell.iqm is not None:
        facts["IQM"] = interval_text(cell.iqm, bounds=cell.bounds)
    if cell.steps_to_threshold is not None:
        facts["half there by"] = _half_by(cell)
    broken = cell.num_crashed or cell.num_diverged or cell.num_collapsed
    facts["ended badly"] = Markup(f'<span class="bad">{escape(endings)}</span>') if broken else endings
    if cell.num_unfinished:
        facts["not ended yet"] = f"{cell.num_unfinished:,}"
    facts["steps a run"] = number_text(round(cell.cost.env_steps))
    return facts | _prices(cell)


def _half_by(cell: CellSummary) -> str:
    assert cell.steps_to_threshold is not None
    value, low, high, _ = cell.steps_to_threshold
    if not np.isfinite(value):
        return "not reached"
    if cell.too_few:
        return steps_text(value)
    return f"{steps_text(value)} [{steps_text(low)}, {steps_text(high)}]"


def _worst_seed(cell: CellSummary) -> str:
    place = int(np.argmin(cell.scores))
    run: RunResult = cell.runs[place]
    ending = "" if run.outcome == "finished" else f", {run.outcome}"
    return f"{number_text(cell.worst)} (seed {run.seed}{ending})"


def _prices(cell: CellSummary) -> dict[str, object]:
    """Core time of a run with its interval, and of a success, in the unit that suits the run."""
    hours, price = cell.cost.core_hours, cell.cost.core_hours_per_success
    mean = float(np.mean([run.core_hours for run in cell.runs]))
    unit, scale = core_unit(mean)
    text = number_text(mean * scale, 3)
    if hours is not None:
        text = f"{text} [{number_text(hours.low * scale, 3)}, {number_text(hours.high * scale, 3)}]"
    success = number_text(price * scale, 3) if np.isfinite(price) else "none succeeded"
    return {f"{unit} a run": text, f"{unit} a success": success}


def _success_price(cell: CellSummary) -> str:
    price = cell.cost.core_hours_per_success
    return hours_text(price) if np.isfinite(price) else "no seed succeeded"


def _card_table(cells: Sequence[CellSummary]) -> Markup:
    columns = (
        "variant", "return", "seeds that succeed", "worst", "reliability", "robustness", "cost", "ended badly",
        "core time a success",
    )  # fmt: skip
    rows = [
        (
            cell.variant,
            _return_text(cell),
            _rate(cell),
            number_text(cell.worst),
            *(_letter(grade) for grade in (cell.reliability_grade, cell.robustness_grade, cell.cost_grade)),
            endings_text(cell),
            _success_price(cell),
        )
        for cell in cells
    ]
    notes = paragraph(_table_notes(cells), "small")
    return Markup(f'<div class="box">{table(columns, rows, numbers=(1, 2, 3, 8), kind="fine")}{notes}</div>')


def _return_text(cell: CellSummary) -> str:
    if cell.mean is None:
        return f"{number_text(float(cell.scores.mean()))} ({cell.too_few})"
    return interval_text(cell.mean, bounds=cell.bounds) + ("*" if cell.doubt else "")


def _table_notes(cells: Sequence[CellSummary]) -> str:
    """Return what the marks in the table mean."""
    doubts = dict.fromkeys(cell.doubt for cell in cells if cell.doubt)
    notes = [f"* Less sure than 95 %: {'; '.join(doubts)}."] if doubts else []
    return " ".join([*notes, *([f"{MOST_POSSIBLE}."] if any(map(is_cut, cells)) else [])])


def _letter(grade: Grade) -> Markup:
    text = "\N{EN DASH}" if grade.text == "-" else grade.text
    return Markup(f'<span title="{escape(grade.rule)}">{escape(text)}</span>')
