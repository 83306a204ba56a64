"""Studies that no machine ran, as full of trouble as real ones: crashes, collapses, two seeds, hostile names."""

from dataclasses import replace

import numpy as np

from workhorse.robustness.results import Artefact, Floor, Sweep
from workhorse.studies.results import RunResult, SearchResult, StudyResults, Trial

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">&'"
STEPS = np.arange(1, 13) * 100_000.0
TASKS = ("HalfCheetah-v5", "Hopper-v5", "CartPole-v1")
HOSTILE_TASK = f"Task {HOSTILE}"
LEVELS = {
    "HalfCheetah-v5": (-280.0, 2386.0, 4200.0),
    "Hopper-v5": (18.0, 1000.0, 2900.0),
    "CartPole-v1": (22.0, 475.0, 500.0),
    HOSTILE_TASK: (0.0, 50.0, 100.0),
}
"""Random return, success threshold, and what good seeds reach."""

ARTEFACTS = {"body mass": "x", "friction": "x", "gravity": "x", "observation noise": "sd", "action delay": "steps"}


def curve(rng, floor, top, rate):
    """A learning curve that saturates, with noise."""
    rise = 1 - np.exp(-rate * STEPS / 400_000)
    return floor + (top - floor) * rise + rng.normal(0, 0.03 * (top - floor), len(STEPS))


def run(task, variant, seed, rng, quality=1.0, outcome="finished", folder=None, **more):
    """One run; a crashed one stops in the middle."""
    floor, _, top = LEVELS[task]
    returns = curve(rng, floor, floor + (top - floor) * quality * rng.uniform(0.75, 1.1), rng.uniform(0.8, 2.0))
    made = {"score": float(returns[-1]), "episode_returns": tuple(rng.normal(returns[-1], 40.0, 20).tolist())}
    steps, reason = STEPS, ""
    if outcome in ("crashed", "diverged"):
        steps, returns, made = STEPS[:5], returns[:5], {"score": None, "episode_returns": ()}
        reason = "the worker process died with signal 9" if outcome == "crashed" else "the score is not finite"
    elif outcome == "unfinished":
        steps, returns, made = STEPS[:0], returns[:0], {"score": None, "episode_returns": ()}
    name = f"{task}-{variant.split(' ')[0]}-s{seed}"
    return RunResult(
        task=task, variant=variant, algorithm=variant.split(" ")[0], settings=more.pop("settings", {}), seed=seed,
        outcome=outcome, reason=reason, curve_steps=steps, curve_returns=returns,
        env_steps=int(steps[-1]) if len(steps) else 0,
        wall_s=180.0 + 9 * seed, core_hours=0.05 + 0.002 * seed,
        folder=None if folder is None else folder / "runs" / name,
        **(made | more),
    )  # fmt: skip


def sweep(rng, nominal, floor, weak):
    """A policy that loses more the farther the task is changed."""

    weak *= rng.uniform(0.6, 1.5)

    def left(values, by):
        share = np.exp(-2.2 * by * np.abs(values - 1) ** 1.5) + rng.normal(0, 0.02, len(values))
        return floor + (nominal - floor) * share

    artefacts = []
    for place, (name, unit) in enumerate(ARTEFACTS.items()):
        values = np.array([0.5, 0.75, 1.0, 1.25, 1.5]) if unit == "x" else np.array([0.0, 1.0, 2.0, 3.0])
        scale = values if unit == "x" else 1 + values / 3
        returns = left(scale, weak * (0.4 + 0.35 * place))
        at = np.argmin(np.abs(scale - 1))
        returns[at] = nominal
        artefacts.append(
            Artefact(name, unit, float(values[at]), values, returns, returns[:, None], np.zeros(len(values), int))
        )
    corners = {
        "gravity 1.5 x, friction 0.5 x": float(left(np.array([2.2]), weak)[0]),
        "gravity 0.5 x, friction 1.5 x": nominal,
    }
    return Sweep(nominal, tuple(artefacts), corners, 20, {"time limit": "the task has no clock"})


def study(folder=None, seeds=10, qualities=(0.95, 0.62)):
    """2 algorithms x 3 tasks x 10 seeds, one crashed, one diverged, one collapsed; one cell of 2 runs."""
    rng = np.random.default_rng(7)
    runs = []
    for task in TASKS:
        for variant, quality in zip(("ars", "openai-es"), qualities, strict=True):
            count = 2 if (task, variant) == ("CartPole-v1", "openai-es") else seeds
            for seed in range(count):
                outcome = {("HalfCheetah-v5", "ars", 3): "crashed", ("Hopper-v5", "openai-es", 5): "diverged"}
                found = run(task, variant, seed, rng, quality, outcome.get((task, variant, seed), "finished"), folder)
                if (task, variant, seed) == ("Hopper-v5", "ars", 7):
                    returns = np.concatenate([found.curve_returns[:8], [900.0, 600.0, 420.0, 300.0]])
                    found = replace(found, curve_returns=returns, score=300.0)
                if found.score is not None and task != "CartPole-v1":
                    weak = 1.0 if variant == "ars" else 2.2
                    found = replace(found, sweep=sweep(rng, found.score, LEVELS[task][0], weak))
                runs.append(found)
    runs.append(run("CartPole-v1", "openai-es", 2, rng, outcome="unfinished"))
    if folder is not None:
        for one in runs:
            if one.folder is not None:
                (one.folder / "videos").mkdir(parents=True, exist_ok=True)
    return results(runs, name="locomotion")


def results(runs, **more):
    """A study of these runs."""
    tasks = dict.fromkeys(one.task for one in runs)
    rng = np.random.default_rng(1)
    about = {
        "name": "made-up",
        "created": "2026-01-02T03:04:05+00:00",
        "command": "workhorse study locomotion.yaml --workers 2 --id locomotion",
        "floors": {
            task: Floor(
                tuple(rng.normal(LEVELS[task][0], 5, 40).tolist()),
                tuple(rng.normal(LEVELS[task][0] + 60, 2, 40).tolist()),
            )
            for task in tasks
        },
        "thresholds": {task: LEVELS[task][1] for task in tasks},
        "threshold_sources": dict.fromkeys(tasks, "Gymnasium's reward_threshold"),
        "versions": {"python": "3.11.7", "jax": "0.10.2", "mujoco": "4.0.0"},
        "machine": "2 cores of AMD EPYC, Linux",
        "notes": ("53 of 54 runs have ended; 1 crashed and 1 diverged.",),
    }
    return StudyResults(**(about | {"runs": tuple(runs)} | more))


def grid_study():
    """A grid of 3 x 3 settings on two tasks, 3 seeds each."""
    rng = np.random.default_rng(3)
    grid = {"learning_rate": (0.01, 0.02, 0.04), "noise_std": (0.02, 0.05, 0.1)}
    runs = []
    for task in ("HalfCheetah-v5", "Hopper-v5"):
        for rate in grid["learning_rate"]:
            for noise in grid["noise_std"]:
                quality = 1 - 12 * abs(rate - 0.02) - 5 * abs(noise - 0.05)
                variant = f"ars (learning_rate {rate}, noise_std {noise})"
                setting = {"learning_rate": rate, "noise_std": noise}
                runs += [run(task, variant, seed, rng, quality, settings=setting) for seed in range(3)]
    return results(runs, name="grid", grid=grid)


def search_study():
    """A search of 12 trials, and its winner on 5 fresh seeds."""
    rng = np.random.default_rng(5)
    trials = []
    for number in range(12):
        scores = tuple(rng.normal(2500 + 300 * np.sin(number), 350, 3).tolist())
        trials.append(
            Trial(number, {"learning_rate": round(float(rng.uniform(0.005, 0.05)), 4)}, scores, float(np.mean(scores)))
        )
    winner = max(trials, key=lambda trial: trial.value).number
    runs = [run("HalfCheetah-v5", "ars (tuned)", seed, rng, 0.7) for seed in range(5)]
    found = SearchResult(
        "HalfCheetah-v5", "ars", (1000, 1001, 1002), tuple(range(5)), tuple(trials), winner, "ars (tuned)"
    )
    return results(runs, name="search", searches=(found,))


def hostile_study():
    """Names, notes, reasons and settings that would like to be code."""
    rng = np.random.default_rng(9)
    task = HOSTILE_TASK
    runs = [run(task, f"ars ({HOSTILE})", seed, rng, settings={HOSTILE: HOSTILE}) for seed in range(3)]
    runs.append(replace(run(task, f"ars ({HOSTILE})", 3, rng, outcome="crashed"), reason=HOSTILE))
    runs += [run(task, "ars", seed, rng) for seed in range(3)]
    runs = [one if one.score is None else replace(one, sweep=sweep(rng, one.score, 0.0, 1.0)) for one in runs]
    trial = Trial(0, {HOSTILE: HOSTILE}, (1.0,), 1.0)
    search = SearchResult(task, HOSTILE, (1000,), (0, 1, 2), (trial,), 0, "ars")
    return results(
        runs, name=f"study {HOSTILE}", command=f"workhorse study {HOSTILE}", notes=(HOSTILE,), machine=HOSTILE,
        versions={HOSTILE: HOSTILE}, searches=(search,), grid={HOSTILE: (HOSTILE,)}, threshold_sources={task: HOSTILE},
    )  # fmt: skip
