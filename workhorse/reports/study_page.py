"""The page of a study."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from workhorse.reports.again import command_again, reproduce
from workhorse.reports.curve_figures import learning_curves, steps_to_threshold
from workhorse.reports.figure import Figure
from workhorse.reports.markup import Markup, escape, paragraph, sentences
from workhorse.reports.page import Page
from workhorse.reports.palette import NUM_SERIES
from workhorse.reports.perturbation_figures import perturbations
from workhorse.reports.reading import STUDY_WORDS, reading
from workhorse.reports.score_figures import aggregate_intervals, performance_profiles, score_strips, success_rates
from workhorse.reports.study_cards import answer, grade_rules, task_cards
from workhorse.reports.study_tables import (
    all_runs,
    failures,
    reliability_table,
    rival_sentences,
    robustness_sentences,
    robustness_table,
    search_words,
    sensitivity_words,
    spending_table,
    verdict_list,
)
from workhorse.reports.tuning_figures import search_trials, tornadoes
from workhorse.reports.videos import study_videos
from workhorse.reports.wording import count_text
from workhorse.studies.across_tasks import aggregate_scores
from workhorse.studies.cells import CellSummary, summarise
from workhorse.studies.folder import StudyFolder, is_study
from workhorse.studies.outliers import outlying_seeds
from workhorse.studies.results import StudyResults
from workhorse.studies.spending import spending
from workhorse.studies.verdicts import unequal_steps, verdicts

__all__ = ["write_study_report"]


def write_study_report(results: StudyResults, folder: Path) -> Path:
    """Write a study's page, report.html, and the tables of its figures, report-data/*.csv.

    Args:
        results: the study as it stands; it need not be finished.
        folder: where the page is written; links to run folders are relative to it.

    Returns:
        The page.

    Raises:
        UsageError: the folder cannot be written.
    """
    cells = summarise(results)
    page = Page(f"{results.name}: study")
    page.begin(f"Study {results.name}, {results.created[:10]}", answer(results, cells), _about(results, cells))
    _add_answers(page, results, cells)
    _add_training(page, results, cells)
    _add_robustness(page, results, cells)
    _add_settings(page, results)
    page.add("reliability", "Risk and spread", reliability_table(cells) if cells else Markup(""))
    page.add("failures", "Failures", failures(results, cells, folder) if cells else Markup(""))
    page.add("outliers", "Seeds that stand apart", sentences(outlying_seeds(cells), "text"))
    page.add("runs", "All runs", all_runs(results, folder))
    if is_study(folder):
        page.add("cost", "Core time", spending_table(spending(StudyFolder.open(folder))))
    page.add("videos", "Videos", study_videos(cells, folder))
    page.add("notes", "Notes", sentences(results.notes, "text"))
    page.add("reproduce", "Make it again", _again(results))
    page.add("reading", "How to read this page", reading(STUDY_WORDS))
    return page.write(folder)


def _again(results: StudyResults) -> Markup:
    try:
        command = command_again(shlex.split(results.command))
    except ValueError:  # a quotation without its end: not what Workhorse wrote
        command = results.command
    return reproduce(command, results.versions, results.machine)


def _about(results: StudyResults, cells: Sequence[CellSummary]) -> Markup:
    seeds = sorted({len(cell.runs) for cell in cells}) or [0]
    number = f"{seeds[0]} to {count_text(seeds[-1], 'seed')}" if len(seeds) > 1 else count_text(seeds[0], "seed")
    variants = results.variants if len(results.variants) <= 6 else ()
    names = f" ({', '.join(variants)})" if variants else ""
    text = f"{count_text(len(results.variants), 'variant')}{names} on {', '.join(results.tasks)}; {number} each. "
    text += "Every seed counts: one that crashed or diverged is a failure, with the random policy's return, "
    text += "or the worst score of a seed that finished where that is lower."
    return paragraph(text, "lead")


def _add_answers(page: Page, results: StudyResults, cells: Sequence[CellSummary]) -> None:
    cards = [task_cards(results, task, here) for task in results.tasks if (here := _of(cells, task))]
    page.add("scores-and-grades", "Scores and grades", *cards, grade_rules(cells))
    steps = sentences(unequal_steps(cells), "text")
    page.add("rivals", "What would do without learning", sentences(rival_sentences(results, cells)))
    page.add("tests", "What the tests say", verdict_list(verdicts(results, cells)), steps)


def _add_training(page: Page, results: StudyResults, cells: Sequence[CellSummary]) -> None:
    if not cells:
        return
    curves = [learning_curves(results, task, _of(cells, task)) for task in results.tasks]
    page.add("learning", "Learning curves", _grid(page, [figure for figure in curves if figure is not None]))
    page.add(
        "seeds",
        "Seed by seed",
        page.draw(success_rates(results, cells)),
        page.draw(score_strips(results, cells)),
        page.draw(steps_to_threshold(results, cells)),
    )
    page.add("across-tasks", "Across tasks", *_across_tasks(page, results))


def _across_tasks(page: Page, results: StudyResults) -> list[Markup]:
    found = aggregate_scores(results)
    if isinstance(found, str):
        return [paragraph(f"No number over all tasks ({found}).")]
    profiles = (
        performance_profiles(results, found) if len(found) <= NUM_SERIES else None
    )  # lines that cannot be told apart
    return [page.draw(aggregate_intervals(results, found)), page.draw(profiles)]


def _add_robustness(page: Page, results: StudyResults, cells: Sequence[CellSummary]) -> None:
    parts = []
    for task in results.tasks:
        here = _of(cells, task)
        words = robustness_sentences(here)
        figure = page.draw(perturbations(results, task, here), words + robustness_table(here))
        if figure:
            parts.append(figure)
        elif words:
            parts.append(Markup(f"<h3>{escape(task)}</h3>{words}"))
    page.add("perturbations", "Changed tasks: what is left", *parts)


def _add_settings(page: Page, results: StudyResults) -> None:
    page.add("settings", "What settings are worth", page.draw(tornadoes(results), sensitivity_words(results)))
    searches = [
        page.draw(search_trials(results, number), search_words(results, number))
        for number, search in enumerate(results.searches)
        if search.trials
    ]
    page.add("search", "Search for settings", *searches)


def _grid(page: Page, figures: Sequence[Figure]) -> Markup:
    inside = "".join(page.draw(figure) for figure in figures)
    if len(figures) < 2 or any(len(figure.panels) > 1 for figure in figures):
        return Markup(inside)
    return Markup(f'<div class="figures{" three" if len(figures) % 3 == 0 else ""}">{inside}</div>')


def _of(cells: Sequence[CellSummary], task: str) -> list[CellSummary]:
    return [cell for cell in cells if cell.task == task]
