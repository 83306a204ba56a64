"""How to read a page: each word in two or three sentences."""

from __future__ import annotations

from collections.abc import Mapping

from workhorse.reports.markup import Markup, escape

__all__ = ["RUN_WORDS", "STUDY_WORDS", "reading"]

STUDY_WORDS = {
    "Score": "The mean raw return of the last evaluation of one run, without exploration noise. A run that crashed or "
    "diverged has none; it counts with the mean return of the random policy.",
    "Interval": "The range of values that the seeds cannot rule out, at 95 %: of a hundred such intervals about 95 "
    "hold what is estimated. It is over seeds, on this task, with this budget. Below 3 runs none is drawn.",
    "Success": "A run that finished at the task's threshold or above it. Without a threshold: above the upper ends of "
    "the intervals of both floors, the random policy and doing nothing.",
    "Reliability, robustness, cost": "Letters from A to E, each by the rule under the cards. In brackets stand the "
    "letters that the interval leaves open: A (to C) says that A is the estimate and C cannot be ruled out.",
    "Crashed, diverged, collapsed": "Crashed: the process raised or died. Diverged: trained to the end, but the "
    "score or the parameters are not finite. Collapsed: ended below half of its own best above the random policy.",
    "IQM": "The interquartile mean: the mean without the lowest and the highest quarter. Outliers do not move it; it "
    "hides the worst seeds, so they stand beside it.",
    "Tests": "Welch's test of the mean scores of every pair on every task, corrected by Holm's rule over all of them. "
    "Where it shows no difference, the line says how many seeds a difference of the size seen would need.",
    "Steps to the threshold": "Kaplan and Meier's curve: runs that never got there count as needing more than their "
    "budget. To leave them out would make an unreliable method look fast.",
    "Share left": "(return on the changed task - random) / (return on the unchanged task - random), for each policy as "
    "it was trained. A change breaks a variant when the whole interval of its worst value lies below one half.",
    "Across tasks": "(score - random) / (threshold - random). The tasks are a choice and no sample: an aggregate is "
    "about these tasks alone.",
}
"""The words of a study's page."""

RUN_WORDS = {
    "Return": "The sum of raw rewards of an episode, as the task pays them.",
    "Evaluation": "Episodes of the policy itself, without exploration noise, from initial states of their own.",
    "Population": "What the perturbed members of an iteration earned: their mean, their least and their greatest. It "
    "lies below the evaluation where noise does harm.",
    "Interval": "Student's 95 % interval of the mean over the episodes of this one policy.",
    "Core time": "Cores held times hours, busy or not; work that was lost and done again is paid for twice.",
}
"""The words of a run's page."""


def reading(words: Mapping[str, str]) -> Markup:
    """The words with what they mean, in columns."""
    inside = "".join(f"<div><h4>{escape(word)}</h4><p>{escape(meaning)}</p></div>" for word, meaning in words.items())
    return Markup(f'<div class="columns small">{inside}</div>')
