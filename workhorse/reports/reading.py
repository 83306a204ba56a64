"""Glossary of a page: each term in two or three sentences."""

from collections.abc import Mapping

from workhorse.reports.markup import Markup, escape

__all__ = ["STUDY_WORDS", "reading", "run_words"]

STUDY_WORDS = {
    "Score": "The mean raw return of the last evaluation of one run, without exploration noise. A run that crashed or "
    "diverged has none; its score is then the mean return of the random policy.",
    "Interval": "The range of values that the seeds cannot rule out: about 95 of a hundred such intervals contain the "
    "true value. It is over seeds, on this task, with this budget. Below 3 runs there is none.",
    "Success": "A run that finished at the task's threshold or above it. Without a threshold: above the upper ends of "
    "the intervals of both floors, the random policy and doing nothing.",
    "Reliability, robustness, cost": "Letters from A to E, each by the rule under the cards. In brackets are the "
    "letters that the interval allows: A (to C) says that A is the estimate and C cannot be ruled out.",
    "Crashed, diverged, collapsed": "Crashed: the process raised or died. Diverged: trained to the end, but the "
    "score or the parameters are not finite. Collapsed: ended below half of its own best above the random policy.",
    "IQM": "The interquartile mean: the mean without the lowest and the highest quarter. Outliers do not move it; it "
    "hides the worst seeds, which are therefore shown next to it.",
    "Tests": "Welch's test of the mean scores of every pair on every task, corrected by Holm's rule over all of them. "
    "Where it shows no difference, the line says how many seeds a difference of the size seen would need.",
    "Steps to the threshold": "Kaplan and Meier's curve: runs that never got there count as needing more than their "
    "budget. Leaving them out would make an unreliable method look fast.",
    "Share left": "(return on the changed task - random) / (return on the unchanged task - random), for each policy as "
    "it was trained. A change breaks a variant when the whole interval of its worst value lies below one half.",
    "Across tasks": "(score - random) / (threshold - random). The tasks were chosen and not sampled, so an aggregate "
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
