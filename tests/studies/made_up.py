"""Results that no run gave, with numbers that can be checked by hand."""

from dataclasses import replace

import numpy as np

from workhorse.robustness.results import Artefact, Floor, Sweep
from workhorse.studies.results import RunResult, StudyResults

STEPS = np.array([100.0, 200.0, 300.0])


def run(seed, score, task="Task-v0", variant="a", outcome="finished", curve=None, **more):
    curve = [0.0, score or 0.0, score or 0.0] if curve is None else curve
    return RunResult(
        task,
        variant,
        variant.split(" ")[0],
        {},
        seed,
        outcome,
        "" if outcome == "finished" else "it broke",
        score,
        () if score is None else (score - 1, score, score + 1),
        STEPS[: len(curve)],
        np.array(curve, float),
        310,
        300,
        1.0,
        0.5,
        **more,
    )


def study(runs, thresholds=None, floors=None, **more):
    tasks = dict.fromkeys(one.task for one in runs)
    floors = floors or {task: Floor((0.0, 2.0), (1.0, 1.0)) for task in tasks}
    thresholds = thresholds or dict.fromkeys(tasks, 100.0)
    return StudyResults(
        "made-up", "2026-01-01T00:00:00+00:00", "workhorse study", tuple(runs), floors, thresholds, **more
    )


def sweep(nominal, returns, name="gravity", values=(0.5, 1.0, 2.0), corners=None):
    values = np.array(values)
    table = np.array(returns, float)
    artefact = Artefact(name, "x", 1.0, values, table, table[:, None], np.zeros(len(values), int))
    return Sweep(nominal, (artefact,), corners or {}, 1, {})


def with_sweep(result, found):
    return replace(result, sweep=found)
