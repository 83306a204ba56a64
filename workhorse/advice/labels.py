"""Labels of the variants: which approaches work, by a rule that was fixed before any forecast.

An approach works on a task if at least 4 of its 5 seeds come within a fifth of the best that anything reached there:

    return >= floor + 0.8 * (best - floor)

`floor` is the best of random actions, no action and the best constant action; `best` the highest mean return of any
approach. Nothing works where `best` is not above the floor. Approaches are put into classes, the cheapest first:
`simple` (rules, linear control, guessing and other searches of linear policies), `plan` (with the simulator), `es`
(evolution strategies), `gradient` (policy gradients and learning from a replay). A task's answer is the cheapest class
that works, or `none`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["CLASSES", "Label", "label_of", "read_labels"]

FILE = Path(__file__).parent / "labels.json"

CLASSES: Mapping[str, tuple[str, ...]] = {
    "simple": ("zero", "random", "constant", "lqr", "signed-rules", "random-search", "pid", "cem"),
    "plan": ("predictive-sampling", "mppi", "icem", "ilqr", "categorical-cem", "uct", "iw"),
    "es": ("openai-es", "ars"),
    "gradient": ("ppo", "dqn", "sac"),
}
"""Approaches of each class, the classes in the order of their price."""
FLOORS = ("zero", "random", "constant")
ENOUGH = 0.8
SEEDS_NEEDED = 0.8
LEAST_GAIN = 0.02
"""Gain above the floor, as a share of the floor's size, that is none."""


class Label(NamedTuple):
    """Label of a task: which classes of approaches work on it.

    Attributes:
        name: of the variant.
        family: its family.
        floor, best: mean returns, see above.
        works: each class that was measured, and whether an approach of it works.
        returns: mean return over seeds of each approach.
        num_working: seeds of each approach that reach the line, and seeds there were.
    """

    name: str
    family: str
    floor: float
    best: float
    works: Mapping[str, bool]
    returns: Mapping[str, float]
    num_working: Mapping[str, tuple[int, int]]

    def answer(self, classes: tuple[str, ...]) -> str:
        """Return the cheapest of some classes that works, or none."""
        return next((name for name in CLASSES if name in classes and self.works.get(name)), "none")


def label_of(name: str, family: str, returns: Mapping[str, list[float]]) -> Label:
    """Return the label of a variant from the returns of each seed of each approach.

    Example:
        >>> label = label_of("a/b", "a", {"zero": [0.0], "cem": [5.0] * 5, "ppo": [10.0, 9.0, 9.0, 8.5, 1.0]})
        >>> label.works, label.answer(("simple", "gradient"))  # the mean of ppo is 7.5, 80 % of it 6
        ({'simple': False, 'gradient': True}, 'gradient')
        >>> label_of("a/b", "a", {"zero": [0.0], "cem": [5.0] * 5, "ppo": [6.0] * 5}).answer(("simple", "gradient"))
        'simple'
    """
    means = {approach: float(np.mean(seeds)) for approach, seeds in returns.items()}
    floor = max((means[approach] for approach in FLOORS if approach in means), default=min(means.values()))
    best = max(means.values())
    gain = best - floor
    line = floor + ENOUGH * gain if gain > LEAST_GAIN * max(abs(floor), 1e-9) else np.inf
    working = {approach: (int((np.array(seeds) >= line).sum()), len(seeds)) for approach, seeds in returns.items()}
    works = {
        group: any(working[one][0] >= SEEDS_NEEDED * working[one][1] for one in members if one in working)
        for group, members in CLASSES.items()
        if any(one in working for one in members)
    }
    return Label(name, family, floor, best, works, means, working)


def read_labels() -> list[Label]:
    """Return the labels of all variants that were measured, in the order of the label set."""
    if not FILE.exists():
        return []
    table = json.loads(FILE.read_text())["variants"]
    return [label_of(name, name.split("/")[0], returns) for name, returns in table.items()]
