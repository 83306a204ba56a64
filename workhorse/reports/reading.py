"""Glossary of a page: each term in two or three sentences."""

from collections.abc import Mapping

from workhorse.reports.markup import Markup, escape

__all__ = ["STUDY_WORDS", "reading", "run_words"]

STUDY_WORDS = {
    "Score": "The mean raw return of the last evaluation of one run, without exploration noise. A run that crashed or "
    "diverged has none; it counts as the random policy's mean return, or as the worst score of a run that finished on "
    "the task where that is lower, so that a crash never looks like a success.",
    "Interval": "The range of values that the seeds cannot rule out: about 95 of a hundred such intervals contain the "
    "true value. It is over seeds, on this task, with this budget. Below 3 runs there is none. Of a mean: the wider of "
    "Student's t and the bootstrap. Below 10 runs it holds only what they have shown: rare failures may be missing.",
    "max, min": "The end of an interval that was cut there, because the task gives no higher (or lower) return. The "
    "true value cannot lie beyond, so the cut interval holds it as often as the whole one.",
    "Success": "A run that finished at the task's threshold or above it. Without a threshold: above the upper ends of "
    "the intervals of all floors.",
    "Floor": "The greatest mean return of three policies that learn nothing: random actions, doing nothing, and the "
    "best constant action, which is chosen on other initial states than it is scored on. Chance is often not the best.",
    "Reliability, robustness, cost": "Letters from A to E, each by the rule under the cards. In brackets are the "
    "letters that the interval allows: A (to C) says that A is the estimate and C cannot be ruled out.",
    "Crashed, diverged, collapsed": "Crashed: the process raised or died. Diverged: trained to the end, but the "
    "score or the parameters are not finite. Collapsed: ended below half of its own best above the floor.",
    "IQM": "The interquartile mean: the mean without the lowest and the highest quarter. Outliers do not move it; it "
    "hides the worst seeds, which are therefore shown next to it.",
    "Tests": "Permutation test of every pair on every task, from 5 seeds of each on, corrected by Holm's rule over "
    "all of them: equal variants are called different in at most 5 % of studies, whatever the scores look like. "
    "Where seeds were added until intervals were narrow, the 5 % are shared over the looks. Where no difference is "
    "shown, the line says how many seeds a difference of the size seen would need.",
    "Steps to the threshold": "Kaplan and Meier's curve: runs that never got there count as needing more than their "
    "budget. Leaving them out would make an unreliable method look fast.",
    "Share left": "(return on the changed task - floor) / (return on the unchanged task - floor), for each policy as "
    "it was trained. A change breaks a variant when the whole interval of its worst value lies below one half.",
    "Across tasks": "(score - floor) / (threshold - floor). The tasks were chosen and not sampled, so an aggregate "
    "holds for these tasks only.",
}
"""Terms of a study's page."""

_RUN_WORDS = {
    "Return": "The sum of raw rewards of an episode, as the task pays them.",
    "Evaluation": "Episodes of the policy without exploration noise, from separate initial states.",
    "Interval": "Student's 95 % interval of the mean over the episodes of this one policy.",
    "Core time": "Number of cores times hours, busy or not; work that was lost and repeated counts twice.",
}

_OF_EPISODES = {
    "Training return": "The returns of the episodes that ended in an iteration, with exploration noise: their mean, "
    "lowest and highest. It is below the evaluation where noise does harm.",
    "Held-out slots": "Environments that the same policy acts in and that nothing is ever learnt from. An update that "
    "looks much better on the slots trained on than on these fits its own data.",
}

_OF_A_POPULATION = {
    "Training return": "The returns of a population's members, which are the policy with changed parameters: their "
    "mean, lowest and highest. It is below the evaluation where the changes do harm.",
}


def run_words(from_a_population: bool) -> Mapping[str, str]:
    """Return the terms of a run's page, by the kind of experience that it learnt from."""
    return _RUN_WORDS | (_OF_A_POPULATION if from_a_population else _OF_EPISODES)


def reading(words: Mapping[str, str]) -> Markup:
    """Return the glossary in columns."""
    inside = "".join(f"<div><h4>{escape(word)}</h4><p>{escape(meaning)}</p></div>" for word, meaning in words.items())
    return Markup(f'<div class="columns small">{inside}</div>')
