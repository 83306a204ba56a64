"""The tables of docs/benchmarks.md and docs/reference/warnings.md from bench/results: `python bench/tables.py`."""

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from evolution_tables import evolution_section
from off_policy_tables import off_policy
from offline_tables import offline_section
from rival_tables import frontier_rows, rivals_section
from scipy.stats import linregress, t

from workhorse.statistics.intervals import difference_interval, mean_interval, proportion_interval

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- tables: made by bench/tables.py -->", "<!-- end of tables -->"

LEARNING = {
    "half-cheetah-default": ("HalfCheetah-v5, default recipe (`make train`)", 2386, "published ES threshold"),
    "half-cheetah-openai-es": ("HalfCheetah-v5, openai-es, on its seeds of choice", 2386, "published ES threshold"),
    "half-cheetah-ars": ("HalfCheetah-v5, ARS as published, 20M steps", 4398, "best public replication, v3"),
    "hopper": ("Hopper-v5", 3320, "best public replication, v3"),
    "swimmer": ("Swimmer-v5", 241, "best public replication, v3"),
    "walker2d": ("Walker2d-v5, ARS, 20M steps", 3830, "published ES threshold; report only"),
    "walker2d-pgpe": ("Walker2d-v5, PGPE, 20M steps", 3830, "published ES threshold"),
}
REFERENCE_SIZE = 2048
"""Steps an iteration whose noise scale predicts the cosine at the others."""

FASTER = {"stable-baselines3": 8, "sbx": 4}
TARGET_RATIO = {"linear": 0.9, "mlp-64-64": 0.75}


def read(name: str) -> dict | None:
    file = HERE / "results" / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def origin(found: dict) -> str:
    machine = found["machine"]
    return f"`{found['made_by']}`, {found['date']}, {machine['cores']} cores of {machine['cpu']}."


def throughput() -> list[str]:
    lines = []
    for slots in (64, 256):
        found = read(f"throughput-{slots}")
        if found is None:
            lines += [f"{slots} members: not measured yet; `python bench/throughput.py --slots {slots}`.", ""]
            continue
        lines += [
            f"**{slots} members.** {origin(found)}",
            "",
            "| task | policy | training, steps/s | raw `mujoco.batch`, steps/s | ratio, median [range] | to reach |",
            "|---|---|---|---|---|---|",
        ]
        for row in found["rows"]:
            goal = TARGET_RATIO[row["policy"]]
            low, high = row["ratio_range"]
            word = "reached" if row["ratio"] >= goal else "**missed**"
            lines.append(
                f"| {row['task']} | {row['policy']} | {row['training_per_s']:,.0f} | {row['raw_per_s']:,.0f} | "
                f"{row['ratio']:.2f} [{low:.2f}, {high:.2f}] | {goal}: {word} |"
            )
        lines.append("")
    return lines[:-1]


def libraries() -> list[str]:
    found = read("libraries")
    if found is None:
        return ["Not measured yet."]
    lines = [origin(found), "", "| | steps/s, each round | Workhorse is faster by | to reach |", "|---|---|---|---|"]
    for name, speeds in found["steps_per_second"].items():
        said = ", ".join(f"{speed:,.0f}" for speed in speeds)
        ratios = sorted(found["ratios"].get(name, []))
        middle = f"{ratios[len(ratios) // 2]:.1f}x [{ratios[0]:.1f}, {ratios[-1]:.1f}]" if ratios else ""
        goal = "" if not ratios else "5x: reached" if ratios[len(ratios) // 2] >= 5 else "5x: **missed**"
        version = found["versions"].get(name.replace("-", "_"), found["versions"].get(name, ""))
        lines.append(f"| {name} {version} | {said} | {middle} | {goal} |")
    return lines


def learning() -> list[str]:
    lines = [
        "| task | seeds | steps | mean return over seeds [95 %] | worst, best seed | seeds above | to reach |",
        "|---|---|---|---|---|---|---|",
    ]
    for suite, (title, goal, origin_of_goal) in LEARNING.items():
        found = read(f"learning-{suite}")
        if found is None:
            lines.append(f"| {title} | | | not measured yet | | | {goal:,} ({origin_of_goal}) |")
            continue
        means = sorted(run["mean"] for run in found["runs"])
        low, high = found["interval"]
        steps = max(run["env_steps"] for run in found["runs"]) / 1e6
        above = sum(mean > goal for mean in means)
        lines.append(
            f"| {title} | {len(means)} | {steps:.1f}M | {found['mean_over_seeds']:,.0f} [{low:,.0f}, {high:,.0f}] | "
            f"{means[0]:,.0f}, {means[-1]:,.0f} | {above} of {len(means)} | {goal:,} ({origin_of_goal}) |"
        )
    return [
        *lines,
        "",
        "Made by `python bench/learning.py SUITE`; every seed's return, curve and digest is in `bench/results/`.",
        *minute(),
    ]


PUBLISHED = {  # Tianshou's table, MuJoCo v3, 10 seeds, a million steps
    "ppo": {"HalfCheetah-v5": 5784, "Hopper-v5": 2609, "Walker2d-v5": 3589},
    "trpo+": {"HalfCheetah-v5": 4471, "Hopper-v5": 2046, "Walker2d-v5": 3827},
}
ENGSTROM = {  # Engstrom et al. 2020, table 2 and 3, MuJoCo v2, at least 80 agents
    "ppo": {"Walker2d-v5": "3,292 [3,157, 3,426]", "Hopper-v5": "2,513 [2,391, 2,632]"},
    "ppo-m": {"Walker2d-v5": "2,735 [2,602, 2,866]", "Hopper-v5": "2,142 [2,008, 2,279]"},
    "ppo-noclip": {"Walker2d-v5": "2,867 [2,701, 3,024]", "Hopper-v5": "2,371 [2,316, 2,424]"},
    "trpo": {"Walker2d-v5": "2,791 [2,709, 2,873]", "Hopper-v5": "2,043 [1,948, 2,136]"},
    "trpo+": {"Walker2d-v5": "3,050 [2,976, 3,126]", "Hopper-v5": "2,466 [2,381, 2,549]"},
    "AAI": {"Walker2d-v5": "242", "Hopper-v5": "99"},
    "ACLI": {"Walker2d-v5": "557", "Hopper-v5": "421"},
}
ENGSTROM["ppo-m-released"] = ENGSTROM["ppo-m"]


def policy_gradients() -> list[str]:
    lines = [
        "**Against the best public table** (Tianshou, MuJoCo v3, 10 seeds). A million steps, final evaluation over 100 "
        "episodes of the likeliest action; settings chosen on seeds 100 and 101, shown on others. "
        "`python bench/learning.py SUITE --seeds 10`, where SUITE is as ppo-hopper.",
        "",
        "| algorithm | task | seeds | mean return over seeds [95 %] | worst, best seed | to reach |",
        "|---|---|---|---|---|---|",
    ]
    for algorithm, goals in PUBLISHED.items():
        for task, goal in goals.items():
            scores = gradient_scores(algorithm, task)
            if scores is None:
                lines.append(f"| {algorithm} | {task} | | not measured yet | | {goal:,} |")
                continue
            found = mean_interval(np.array(scores))
            word = "reached" if found.value >= goal else "**missed**"
            lines.append(
                f"| {algorithm} | {task} | {len(scores)} | {found.value:,.0f} [{found.low:,.0f}, {found.high:,.0f}] | "
                f"{min(scores):,.0f}, {max(scores):,.0f} | {goal:,}: {word} |"
            )
    return [
        *lines,
        "",
        "![Return against steps, the mean over seeds with its 95 % interval](images/policy_gradients.png)",
        "",
        *classic(),
        "",
        *ppo_speed(),
        "",
        *whole_runs(),
        "",
        *switches(),
        "",
        *horizon(),
        "",
        *frame_skips(),
        "",
        *batch_sizes(),
    ]


def frame_skips() -> list[str]:
    found = read("frame-skip")
    if found is None:
        return ["**Frame-skip.** Not measured yet."]
    lines = [
        "**Frame-skip.** Simulated seconds of training, all slots together, until an evaluation of 16 episodes, one "
        "after every iteration, reaches 95 % of the most there is, acting on every 1st to 4th step of the physics; "
        "median over seeds [least, most], "
        f"and how many seeds reached it. {origin(found)}",
        "",
        "| task | algorithm | skip 1 | 2 | 3 | 4 | slope of log time on log skip [95 %] |",
        "|---|---|---|---|---|---|---|",
    ]
    for task in dict.fromkeys(row["task"] for row in found["rows"]):
        for algorithm in dict.fromkeys(row["algorithm"] for row in found["rows"]):
            rows = [row for row in found["rows"] if (row["task"], row["algorithm"]) == (task, algorithm)]
            cells = [skip_cell(row["simulated_s"]) for row in sorted(rows, key=lambda row: row["skip"])]
            lines.append(f"| {task} | {algorithm} | {' | '.join(cells)} | {skip_slope(rows)} |")
    return [
        *lines,
        "",
        "A slope of 0 says that the time does not depend on the skip, a slope of 1 that the number of steps does not. "
        "Runs that never reached it are left out of it, so that where some did not, it may be too small; the budgets "
        f"were {skip_budgets(found)}. The claim is of Salimans et al. 2017: evolution strategies do not care. "
        f"{skip_verdict(found['rows'])}",
    ]


def skip_budgets(found: dict) -> str:
    return ", ".join(
        f"{task['budget'][algorithm] * task['physics_seconds']:,.0f} s by {algorithm} on {task['id']}"
        for task in found["tasks"]
        for algorithm in task["budget"]
    )


def skip_cell(seconds: list[float | None]) -> str:
    there = [value for value in seconds if value is not None]
    if not there:
        return f"never (0 of {len(seconds)})"
    return f"{np.median(there):,.0f} [{min(there):,.0f}, {max(there):,.0f}] ({len(there)} of {len(seconds)})"


def skip_verdict(rows: list[dict]) -> str:
    """Say of each task if the interval of the slope of evolution strategies has 0 in it, and all runs are in it.

    Where at one skip every run reached it and at another none did, the skip matters whatever the slope of the rest.
    """
    said = []
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if (row["task"], row["algorithm"]) == (task, "openai-es")]
        missing = sum(value is None for row in own for value in row["simulated_s"])
        apart = {all(row["simulated_s"]) - (not any(row["simulated_s"])) for row in own} >= {1, -1}
        slope, half = skip_fit(own)
        word = (
            "is refuted" if apart or abs(slope) > half else "cannot be told" if missing or not half <= 0.5 else "holds"
        )
        said.append(f"on {task} it {word}")
    return f"As measured here, {', '.join(said)}."


def skip_slope(rows: list[dict]) -> str:
    slope, half = skip_fit(rows)
    return "-" if np.isnan(slope) else f"{slope:.2f} [{slope - half:.2f}, {slope + half:.2f}]"


def skip_fit(rows: list[dict]) -> tuple[float, float]:
    """Slope of log time on log skip, and half of its 95 % interval; NaN by fewer than six runs."""
    points = [(np.log(row["skip"]), np.log(value)) for row in rows for value in row["simulated_s"] if value]
    if len(points) < 6:
        return float("nan"), float("nan")
    skips, times = np.transpose(points)
    found: Any = linregress(skips, times)
    return found.slope, t.ppf(0.975, len(points) - 2) * found.stderr


def batch_sizes() -> list[str]:
    found = read("batch_size")
    if found is None:
        return ["**Sample size and reliability.** Not measured yet."]
    count = len(found["rows"][0]["means"])
    lines = [
        f"**Sample size and reliability.** Share of {count} seeds that solve the task at equal total steps, against "
        "the steps of an iteration, with one learning rate for all sizes and with one that grows with their "
        "square root; "
        "beside it the cosine of two gradient estimates of that size, as the runs' own meters measured it and as "
        f"the noise scale measured at {REFERENCE_SIZE:,} predicts it. {origin(found)}",
        "",
        "| task, steps in all | steps an iteration | solved, same rate [95 %] | solved, scaled rate [95 %] | "
        "noise scale | cosine, measured | predicted |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, about in found["tasks"].items():
        for size in dict.fromkeys(row["size"] for row in found["rows"]):
            same, scaled = (
                next(row for row in found["rows"] if (row["task"], row["size"], row["scaled"]) == (task, size, flag))
                for flag in (False, True)
            )
            shares = [solved_share(row["means"], about["solved"]) for row in (same, scaled)]
            scale, reference = noise_scale(same), reference_scale(found["rows"], task)
            cells = (
                f"{task}, {about['env_steps']:,}",
                f"{size:,}",
                *shares,
                f"{scale:,.0f}",
                f"{1 / (1 + scale / size):.2f}",
                f"{1 / (1 + reference / size):.2f}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    sizes = sorted({row["size"] for row in found["rows"]})
    ends = [
        sum(
            mean >= found["tasks"][row["task"]]["solved"]
            for row in found["rows"]
            if row["size"] == size
            for mean in row["means"]
        )
        for size in (sizes[0], sizes[-1])
    ]
    runs = sum(len(row["means"]) for row in found["rows"] if row["size"] == sizes[0])
    word, lesson = "and", "."
    if ends[1] < ends[0]:
        word, lesson = "but", ": at equal steps a larger batch pays for its agreement with fewer updates."
    return [
        *lines,
        "",
        "![Share of seeds that solve a task against the steps of an iteration](images/batch_size.png)",
        "",
        f"From {sizes[0]:,} steps an iteration to {sizes[-1]:,} estimates agree far more, {word} of {runs} runs "
        f"{ends[0]} and {ends[1]} solve their task{lesson}",
    ]


def noise_scale(row: dict) -> float:
    """Steps by which two gradient estimates have a cosine of a half, over the iterations and seeds of a batch size."""
    signal, noise = np.mean(row["signals"]), np.mean(row["noises"])
    return row["size"] * noise / signal if signal > 0 else float("inf")


def reference_scale(rows: list[dict], task: str) -> float:
    """The noise scale of the size by which all others are predicted."""
    wanted = (task, REFERENCE_SIZE, False)
    return noise_scale(next(row for row in rows if (row["task"], row["size"], row["scaled"]) == wanted))


def solved_share(means: list[float], threshold: float) -> str:
    good = sum(mean >= threshold for mean in means)
    interval = proportion_interval(good, len(means))
    return f"{good / len(means):.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def suite_of(algorithm: str, task: str) -> str:
    return f"learning-{algorithm}-{task.split('-')[0].lower()}"


def gradient_runs(algorithm: str, task: str) -> list[dict]:
    found = read(suite_of(algorithm, task))
    return found["runs"] if found else []


def gradient_scores(algorithm: str, task: str) -> list[float] | None:
    return [run["mean"] for run in gradient_runs(algorithm, task)] or None


def classic() -> list[str]:
    found = read("classic")
    if found is None:
        return ["**Classic tasks.** Not measured yet."]
    lines = [
        "**Classic tasks.** PPO with its recipe, ten seeds in one process that compiles once; the time is that of the "
        "whole process, imports and compilation included. Solved: the mean of 100 episodes is at least this. "
        f"{origin(found)}",
        "",
        "| task | steps | seconds | mean return over seeds [95 %] | worst, best seed | solved | seeds that solve it |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        scores = np.array(row["means"])
        interval = mean_interval(scores)
        good = int((scores >= row["solved"]).sum())
        rate = proportion_interval(good, len(scores))
        mean = f"{interval.value:,.1f} [{interval.low:,.1f}, {interval.high:,.1f}]"
        ends, share = (
            f"{scores.min():,.1f}, {scores.max():,.1f}",
            f"{good} of {len(scores)} [{rate.low:.2f}, {rate.high:.2f}]",
        )
        seconds = f"{np.median(row['seconds']):.0f}"
        cells = (row["task"], f"{row['env_steps']:,}", seconds, mean, ends, f"{row['solved']:g}", share)
        lines.append(f"| {' | '.join(cells)} |")
    pole = found["rows"][0]
    time = mean_interval(np.array(pole["seconds"]))
    word = "reached" if time.value <= 20 and min(pole["means"]) >= 500 else "**missed**"
    rounds = ", ".join(f"{seconds:.1f}" for seconds in pole["seconds"])
    return [
        *lines,
        "",
        f"CartPole-v1, ten seeds at 500 within 20 s: {word}. Its rounds took {rounds} s, the mean {time.value:.1f} s "
        f"[{time.low:.1f}, {time.high:.1f}]. *It depends on the day*: on 2026-11-21 it took 21.3 s [18.8, 23.7], and "
        "in three pairs of runs on 2026-11-22 the version before one thread a program and permutations by sorts of one "
        "array took 20.4, 18.1 and 19.2 s, this one 18.9, 17.1 and 19.1. Compiling programs side by side and larger "
        "minibatches had brought it down from 23 to 30 s. What did not help: one program over five seeds at a time "
        "(`vmap`; 30 s), longer rollouts, and fewer epochs (18 to 21 s, some with a seed below 500).",
    ]


def ppo_speed() -> list[str]:
    found = read("libraries-ppo")
    if found is None:
        return ["**Beside other libraries.** Not measured yet."]
    lines = [
        "**Beside other libraries.** PPO on HalfCheetah-v5, two 64-unit layers, 10 epochs of minibatches of 64; "
        f"start-up and compilation not counted. {origin(found)}",
        "",
        "| | steps/s, each round | Workhorse is faster by, median [range] | to reach |",
        "|---|---|---|---|",
    ]
    for name, speeds in found["steps_per_second"].items():
        said = ", ".join(f"{speed:,.0f}" for speed in speeds)
        lines.append(f"| {name} | {said} | {faster(name, found['ratios'].get(name))} |")
    return lines


def faster(name: str, ratios: list[float] | None) -> str:
    """Two cells: how many times faster than a library we are, and the goal; empty for ourselves."""
    if ratios is None or name not in FASTER:
        return " | "
    middle = statistics.median(ratios)
    word = "reached" if middle >= FASTER[name] else "**missed**"
    return f"{middle:.1f}x [{min(ratios):.1f}, {max(ratios):.1f}] | {FASTER[name]}x: {word}"


def whole_runs() -> list[str]:
    found = read("libraries-whole")
    if found is None:
        return ["**Whole runs of them.** Not measured yet."]
    ours = found["runs"]["workhorse"]
    lines = [
        "**Whole runs of them.** A million steps of HalfCheetah-v5 from the start of the process to the end of "
        "training, imports and compilation included, in turn and each alone on the machine; the others with 8 "
        "environments and their defaults, which scale neither observations nor rewards. Returns are of 100 episodes "
        "of the last policy's likeliest actions, one seed a run. Of ours 8 to 10 s are imports and compilation: "
        f"that is what a run of one iteration takes. {origin(found)}",
        "",
        "| | seconds, each run | return, each run | Workhorse is faster by, median [range] | to reach |",
        "|---|---|---|---|---|",
    ]
    for name, runs in found["runs"].items():
        seconds = ", ".join(f"{run['seconds']:,.0f}" for run in runs)
        returns = ", ".join(f"{run['return']:,.0f}" for run in runs)
        ratios = [run["seconds"] / own["seconds"] for run, own in zip(runs, ours, strict=True)]
        word = ""
        if name in FASTER:
            better = min(run["return"] for run in ours) >= max(run["return"] for run in runs)
            word = ", and every return of ours is above every one of theirs" if better else "; returns overlap"
        lines.append(f"| {name} | {seconds} | {returns} | {faster(name, ratios)}{word} |")
    return lines


def switches() -> list[str]:
    """The table of Engstrom et al.: what the clip does, and what the other optimisations do."""
    lines = [
        "**Is it the algorithm, or its code?** The table of Engstrom et al. 2020: `ppo-m` and `trpo` have every "
        "code-level optimisation off, `ppo-noclip` has them and no clip; value clipping is on in none. Steps, "
        "networks, learning rate and recomputed advantages are those of each family's recipe, the same with the "
        "switches on and off, where the paper tuned each variant; `ppo-noclip` alone has the paper's step size, "
        "6e-5, because at PPO's 3e-4 six of six seeds on Hopper-v5 returned 104 to 472. `ppo-m-released` is PPO-M "
        "as the paper's repository trains it, whose configurations keep observations and advantages normalised "
        "([Policy gradients](algorithms/policy-gradients.md)). Returns are of 100 episodes of the likeliest "
        "actions; the paper's are of training's own, noisy episodes, which are given beside ours where they were "
        "kept (mean over seeds, last 50,000 steps). AAI is what the algorithm changes, max(|PPO - TRPO+|, |PPO-M - "
        "TRPO|); ACLI is what its code changes, max(|PPO - PPO-M|, |TRPO+ - TRPO|); intervals of these by bootstrap "
        "over seeds.",
        "",
        "| a million steps | Hopper-v5 | seeds | published, v2 | Walker2d-v5 | seeds | published, v2 |",
        "|---|---|---|---|---|---|---|",
    ]
    tasks = ("Hopper-v5", "Walker2d-v5")
    scores = {(name, task): gradient_scores(name, task) for name in ENGSTROM if name.islower() for task in tasks}
    for name in ("ppo", "ppo-m", "ppo-m-released", "ppo-noclip", "trpo", "trpo+"):
        cells = []
        for task in tasks:
            found = scores[name, task]
            if found is None:
                cells += ["not measured yet", "", ENGSTROM[name][task]]
                continue
            interval = mean_interval(np.array(found))
            text = f"{interval.value:,.0f} [{interval.low:,.0f}, {interval.high:,.0f}]"
            kept = [run.get("training_return") for run in gradient_runs(name, task)]
            training = [value for value in kept if value is not None]
            if len(training) == len(kept):
                text += f"; in training {np.mean(training):,.0f}"
            cells += [text, str(len(found)), ENGSTROM[name][task]]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    pairs = {
        "AAI": (("ppo", "trpo+"), ("ppo-m", "trpo")),
        "ACLI": (("ppo", "ppo-m"), ("trpo+", "trpo")),
    }
    for index, differences in pairs.items():
        cells = []
        for task in tasks:
            groups = [scores[name, task] for pair in differences for name in pair]
            if any(group is None for group in groups):
                cells += ["not measured yet", "", ENGSTROM[index][task]]
                continue
            value, low, high = greatest_difference([np.array(group) for group in groups])
            cells += [f"{value:,.0f} [{low:,.0f}, {high:,.0f}]", "", ENGSTROM[index][task]]
        lines.append(f"| {index} | {' | '.join(cells)} |")
    apart = []
    for task in tasks:
        found, released = scores["ppo", task], scores["ppo-m-released", task]
        if found is not None and released is not None:
            gap = difference_interval(np.array(found), np.array(released))
            apart.append(f"{gap.value:,.0f} [{gap.low:,.0f}, {gap.high:,.0f}] on {task}")
    if apart:
        lines += [
            "",
            f"PPO less `ppo-m-released`: {' and '.join(apart)} (Welch's interval). What `ppo-m` and `ppo-m-released` "
            "differ in (normalised observations and advantages, tanh, the step size, advantages computed once, wider "
            "actions at the start) is most of our ACLI; which of these it is was not measured.",
        ]
    return lines


def greatest_difference(groups: list[np.ndarray], resamples: int = 10_000) -> tuple[float, float, float]:
    """max(|a - b|, |c - d|) of four means, with a percentile bootstrap over the seeds. It is never below zero."""
    rng = np.random.default_rng(0)
    means = [group[rng.integers(len(group), size=(resamples, len(group)))].mean(1) for group in groups]

    def greatest(a: float, b: float, c: float, d: float) -> float:
        return np.maximum(np.abs(a - b), np.abs(c - d))

    low, high = np.percentile(greatest(*means), [2.5, 97.5])
    return float(greatest(*(group.mean() for group in groups))), float(low), float(high)


def horizon() -> list[str]:
    found = read("horizon")
    if found is None:
        return ["**A longer horizon.** Not measured yet."]
    lines = [
        "**A longer horizon.** One iteration on Pendulum-v1 with episodes of T steps in 64 slots, two 64-unit layers, "
        f"one thread; peak memory of the whole process. {origin(found)}",
        "",
        "| | T | steps | peak memory, MiB | time a step, us |",
        "|---|---|---|---|---|",
    ]
    for row in found["cost"]:
        micro = 1e6 * statistics.median(row["seconds_per_step"])
        peak = row["peak_bytes"] / 2**20
        lines.append(f"| {row['algorithm']} | {row['horizon']:,} | {row['steps']:,} | {peak:,.0f} | {micro:.2f} |")
    growth = {
        name: (rows[-1]["peak_bytes"] - rows[0]["peak_bytes"]) / (rows[-1]["steps"] - rows[0]["steps"])
        for name in ("openai-es", "ppo")
        for rows in [[row for row in found["cost"] if row["algorithm"] == name]]
    }
    is_flat = growth["openai-es"] < 0.1 * growth["ppo"]
    lines += [
        "",
        'The claim "no backward pass, no activations stored" (Salimans et al. 2017) '
        f"{'holds' if is_flat else 'is refuted'}: from the shortest horizon to the longest openai-es grows by "
        f"{growth['openai-es']:,.0f} bytes a step, ppo by {growth['ppo']:,.0f}.",
        "",
        "**Variance of one episode's gradient estimate**, over the variance of returns, against T: the slope of its "
        f"logarithm, {found['variance'][0]['episodes']:,} episodes each, bootstrap over episodes. The claims: linear "
        "in T (slope 1) for scores of actions, flat (slope 0) for perturbed parameters.",
        "",
        "| task | estimator | T | slope [95 %] | claim |",
        "|---|---|---|---|---|",
    ]
    for row in found["variance"]:
        low, high = row["interval"]
        claim = 1 if row["estimator"] == "reinforce" else 0
        is_near = low <= claim <= high or abs(row["slope"] - claim) < 0.05
        word = "holds" if is_near else "steeper" if low > claim else "flatter"
        lines.append(
            f"| {row['task']} | {row['estimator']} | {row['horizons'][0]} to {row['horizons'][-1]} | "
            f"{row['slope']:.2f} [{low:.2f}, {high:.2f}] | {claim}: {word} |"
        )
    real = next(row for row in found["variance"] if row["task"] != "score noise" and row["estimator"] == "reinforce")
    if real["interval"][0] > 1:
        lines += [
            "",
            "On the real task scores grow faster than linearly: there they depend on observations, and those of one "
            "episode on each other.",
        ]
    return lines


def diagnosis() -> list[str]:
    found = read("diagnosis")
    if found is None:
        return ["Not measured yet."]
    goals = {("Hopper-v5", "gradients"): 180, ("HalfCheetah-v5", "landscape"): 600}
    what = {"gradients": "ten estimates of up to 102,400 steps", "landscape": "31 x 31 points of 20,000 steps"}
    lines = [
        "Time of a `workhorse diagnose` command of one policy, start-up and compilation included, on all cores; raw "
        f"stepping of the task by `mujoco.batch`, before and after it, beside it. {origin(found)}",
        "",
        "| task | `--only` | what | steps | seconds | to reach | steps/s | raw stepping, steps/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        goal = goals[row["task"], row["part"]]
        raw = ", ".join(f"{one:,.0f}" for one in row["raw_per_s"])
        lines.append(
            f"| {row['task']} | {row['part']} | {what[row['part']]} | {row['steps']:,} | {row['seconds']:,.0f} | "
            f"{goal}: {'reached' if row['seconds'] <= goal else '**missed**'} | "
            f"{row['steps'] / row['seconds']:,.0f} | {raw} |"
        )
    return lines


def minute() -> list[str]:
    found = read("minute")
    if not found:
        return []
    goal = LEARNING["half-cheetah-default"][1]
    means = sorted(run["mean"] for run in found["runs"])
    above, (low, high) = sum(mean > goal for mean in means), found["interval"]
    steps = [run["env_steps"] / 1e6 for run in found["runs"]]
    word = "reached" if above >= 0.9 * len(means) else "**missed**"
    ended = sum(run["finished"] for run in found["runs"])
    early = f" ({ended} had ended by themselves)" if ended else ""
    return [
        "",
        f"**In a minute.** `make train` on all cores, stopped {found['seconds']:.0f} s after it said that it begins"
        f"{early}: the policies return {found['mean_over_seeds']:,.0f} [{low:,.0f}, {high:,.0f}] over {len(means)} "
        f"seeds, after {min(steps):.1f} to {max(steps):.1f}M steps; {above} of {len(means)} are above {goal:,} "
        f"(to reach: 9 of 10: {word}). Every seed: {', '.join(f'{mean:,.0f}' for mean in means)}. {origin(found)}",
    ]


def second_start() -> list[str]:
    found = read("compile_cache")
    if not found:
        return []
    lines = [
        f"Processor time to the first iteration, Python's start included. {origin(found)}",
        "",
        "| task | algorithm | first start, s | second start, s | second / first | to reach: a third | bits |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        first, second = min(row["first_s"]), min(row["second_s"])
        share, bits = second / first, "equal" if row["same_bits"] else "**differ**"
        times = f"{first:.1f} | {second:.1f} | {share:.2f} | {reached(share < 1 / 3)}"
        lines.append(f"| {row['task']} | {row['algorithm']} | {times} | {bits} |")
    lines += [
        "",
        "Of a second start, .9 s are Python's imports, and the rest is tracing of some 30 programs and the iteration ",
    ]
    lines[-1] += "itself, which with finite differences on HalfCheetah-v5 is most of it. Neither is kept."
    return lines


def other() -> list[str]:
    lines = []
    kill, memory = read("kill"), read("memory")
    if kill:
        lines += [
            f"**Killed and resumed.** {kill['kills']} kills with signal 9 at random moments of one run, resumed on "
            f"one or two threads by chance: {kill['equal_digests']} of {kill['iterations']} digests equal those of a "
            f"run left alone. {origin(kill)}",
            "",
        ]
    if memory:
        first, last = memory["rows"][0], memory["rows"][-1]
        lines += [
            f"**Memory.** With {first['params']:,} parameters the peak is {first['peak_bytes'] / 2**20:,.0f} MiB at "
            f"{first['members']} members and {last['peak_bytes'] / 2**20:,.0f} MiB at {last['members']:,}: "
            f"{memory['growth']:+.1%} (to reach: at most +10 %). {origin(memory)}",
        ]
    return lines or ["Not measured yet."]


def action_box() -> list[str]:
    found = read("action_box")
    if found is None:
        return ["Not measured yet."]
    lines = [
        "The same task in two boxes: one number is chosen ten times an episode, and the best one lies .3 of the "
        f"half-width above the middle. Mean distance from it, in half-widths, after {found['env_steps']:,} steps; a "
        "policy that never leaves the lower bound has 1.3. Mean over seeds, worst seed in brackets; `rescale_actions` "
        "is the default. "
        f"{origin(found)}",
        "",
        "| algorithm | [-1, 1] | [5, 35] | [5, 35] without `rescale_actions` |",
        "|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["algorithm"] for row in found["rows"]):
        rows = [row["distance"] for row in found["rows"] if row["algorithm"] == name]
        lines.append(f"| {name} | " + " | ".join(f"{statistics.mean(one):.2f} ({max(one):.2f})" for one in rows) + " |")
    return lines


def cluster() -> list[str]:
    lines = []
    found = read("cluster")
    if found:
        goals = {"2 Ray workers / 1": 1.8, "Ray / in process, 2 threads": 0.9, "gain of workers / of threads": 0.95}
        lines += [
            f"**Speed.** {found['task']}; the arrangements take turns, {len(found['rounds'])} rounds. {origin(found)}",
            "",
            "| arrangement | steps/s, each round |",
            "|---|---|",
        ]
        for name in found["rounds"][0]:
            lines.append(f"| {name} | {', '.join(f'{speeds[name]:,.0f}' for speeds in found['rounds'])} |")
        lines += ["", "| ratio, round by round | mean [95 %] | to reach |", "|---|---|---|"]
        for name, ratio in found["ratios"].items():
            low, high = ratio["interval"]
            goal = goals.get(name)
            verdict = "" if goal is None else f"{goal}: {'reached' if ratio['value'] >= goal else '**missed**'}"
            lines.append(f"| {name} | {ratio['value']:.2f} [{low:.2f}, {high:.2f}] | {verdict} |")
        lines.append("")
    return lines + wire() + coordination() + projection()


def wire() -> list[str]:
    found = read("wire")
    if not found:
        return []
    lines = [
        "**Bytes on the wire.** A head and two worker nodes in network namespaces; interface counters, a worker and "
        f"iteration, with what the idle cluster says to itself taken off. CartPole, 16 pairs in 4 chunks. "
        f"{origin(found)}",
        "",
        "| exchange | parameters | seconds an iteration | a worker receives [95 %] | of it our messages | "
        "a worker sends [95 %] | of it our messages |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        cells = [f"{statistics.median(window['seconds_per_iteration'] for window in row['windows']):.2f}"]
        for way in ("received", "sent"):
            interval = mean_interval([window[way] for window in row["windows"]])
            ours = statistics.median(window[f"ours_{way}"] for window in row["windows"])
            cells += [f"{interval.value:,.0f} [{interval.low:,.0f}, {interval.high:,.0f}]", f"{ours:,.0f}"]
        lines.append(f"| {row['exchange']} | {row['num_params']:,} | {' | '.join(cells)} |")
    chatter = [row["chatter_bytes_per_second"] for row in found["rows"]]
    heard = [f"{min(c[way] for c in chatter):,.0f} to {max(c[way] for c in chatter):,.0f}" for way in chatter[0]]
    return [*lines, "", f"An idle worker node received {heard[0]} bytes a second and sent {heard[1]}.", ""]


def coordination() -> list[str]:
    found = read("coordination")
    if not found:
        return []
    lines = [
        f"**Coordination.** Processor time of an iteration, simulated workers. {origin(found)}",
        "",
        "| workers | who has what to do, 1 chunk a worker | 4 chunks a worker | the whole coordinator, messages "
        "included, 1 chunk a worker (17 / 348 observations) |",
        "|---|---|---|---|",
    ]

    def said(rows: list[dict]) -> str:
        return " / ".join(
            f"{1e3 * row['cpu_s']['value']:.1f} ms [{1e3 * row['cpu_s']['low']:.1f}, {1e3 * row['cpu_s']['high']:.1f}]"
            for row in rows
        )

    for workers in dict.fromkeys(row["workers"] for row in found["rows"]):
        cells = [
            said([row for row in found["rows"] if row["workers"] == workers and row["chunks_per_worker"] == chunks])
            for chunks in (1, 4)
        ]
        whole = said([row for row in found["whole"] if row["workers"] == workers])
        lines.append(f"| {workers:,} | {cells[0]} | {cells[1]} | {whole} |")
    rows = {(row["workers"], row["chunks_per_worker"]): row["cpu_s"]["value"] for row in found["rows"]}
    target = found["target"]["cpu_s"]
    verdicts = [
        f"{name} {'reached' if value <= target else '**missed**'}"
        for name, value in (
            ("with 1 chunk a worker", rows[1440, 1]),
            ("with 4", rows[1440, 4]),
            ("messages included", max(row["cpu_s"]["value"] for row in found["whole"] if row["workers"] == 1440)),
        )
    ]
    lines += ["", f"To reach: at most {1e3 * target:.0f} ms at 1,440 workers: {', '.join(verdicts)}."]
    for row in found.get("nodes", []):
        verdict = "reached" if row["cpu_s"]["value"] <= target else "**missed**"
        lines += [
            "",
            f"**A worker a node**: {row['workers']} workers of {row['lanes']} lanes, "
            f"{row['chunks'] * row['episodes_per_chunk']:,} episodes in {row['chunks']} chunks, observations of "
            f"{row['observation_size']}: {row['messages_per_iteration']:.0f} orders an iteration, {said([row])} with "
            f"encoding; {1e3 * target:.0f} ms {verdict}.",
        ]
    return [*lines, ""]


def projection() -> list[str]:
    found = read("simulation")
    if not found:
        return []
    best: dict[tuple[str, str, str], float] = {}
    for row in found["published"]:
        key = row["variant"], row["policy"], row["phase"]
        best[key] = max(best.get(key, 0.0), row["efficiency_beside_18"])
    phases = list(dict.fromkeys(row["phase"] for row in found["published"]))
    lines = [
        "**Beyond this machine, by simulation.** Efficiency at 1,440 cores beside 18 for the published Humanoid set-up "
        "(10,000 episodes an iteration; published: 82 %), the best of the chunk sizes tried. To reach: 90 %. "
        f"{origin(found)}",
        "",
        f"| variant | policy | {' | '.join(f'{phase} in training' for phase in phases)} |",
        "|---|---|" + "---|" * len(phases),
    ]
    for variant, policy in dict.fromkeys((row["variant"], row["policy"]) for row in found["published"]):
        cells = [f"{best[variant, policy, phase]:.0%}" for phase in phases]
        lines.append(f"| {variant} | {policy} | {' | '.join(cells)} |")
    lines += ["", *workers_of_several_cores(found["nodes"], phases)] if "nodes" in found else []
    lines += ["", "Assumptions:", ""] + [f"- {sentence}" for sentence in found["assumptions"]]
    if found.get("check"):
        lines += ["", found["check"]["sentence"]]
    return [*lines, "", "![Efficiency against cores, simulated](images/scaling.png)"]


def workers_of_several_cores(rows: list[dict], phases: list[str]) -> list[str]:
    """The model of node processes: efficiency beside 18 cores, seconds, share of cores' time that is work, price."""
    lines = [
        "The same with workers of several cores. A cell is the best efficiency beside 18 cores of all sizes of chunk "
        "(to reach: 90 %); then, for the size of chunk with the quickest iteration: its seconds, the share of all "
        "cores' time that is episodes and update, and the price of the published 657 minutes of 18 cores at 0.04 USD a "
        "core-hour (published: 12 USD).",
        "",
        f"| policy | cores a worker | update | lag | {' | '.join(phases)} |",
        "|---|---|---|---|" + "---|" * len(phases),
    ]
    keys = ("policy", "cores_per_worker", "noise", "lag")
    for key in dict.fromkeys(tuple(row[name] for name in keys) for row in rows):
        cells = []
        for phase in phases:
            own = [row for row in rows if tuple(row[name] for name in keys) == key and row["phase"] == phase]
            quickest = min(own, key=lambda row: row["iteration_s_1440"])
            most = max(row["efficiency_beside_18"] for row in own)
            cells.append(
                f"{most:.0%}; {quickest['iteration_s_1440']:.2f} s, {quickest['useful_share_of_cores']:.0%}, "
                f"{next(iter(quickest['money'].values())):.0f} USD"
            )
        lines.append(f"| {' | '.join(map(str, key))} | {' | '.join(cells)} |")
    return lines


def seeds() -> list[str]:
    found = read("seeds")
    if found is None:
        return ["Not measured yet."]
    parts = speed_of_bootstrap(found["speed"]), coverage(found), errors_of_tests(found), stopping(found)
    return [origin(found), "", *(line for part in parts for line in part)]


def of_a_study() -> list[str]:
    """Coverage and false verdicts of what a study prints, from `coverage.py`."""
    found = read("coverage")
    if found is None:
        return ["Not measured yet."]
    sizes = sorted({row["runs"] for row in found["coverage"]})
    lines = [
        f"{origin(found)} Seeds 0, 1 and 2 of the generator; {found['times']:,} simulated studies for each number, "
        "half of them at 10 seeds in the second table and a quarter in the third; in brackets Clopper and Pearson's "
        "95 % interval of the number.",
        "",
        "**Coverage of nominal 95 % intervals.** To reach: .93 to .97, or a mark beside the number on the page.",
        "",
        f"| scores | interval | {' | '.join(f'{size} runs' for size in sizes)} |",
        "|---" * (2 + len(sizes)) + "|",
    ]
    cells = {(row["scores"], row["interval"], row["runs"]): row["covers"] for row in found["coverage"]}
    for scores, name in dict.fromkeys((row["scores"], row["interval"]) for row in found["coverage"]):
        shares = " | ".join(three(cells[scores, name, size]) for size in sizes)
        lines.append(f"| {scores} | {name} | {shares} |")
    lines += [
        "",
        "**Equal variants called different, in any pair; and a difference of 1.5 standard deviations seen.** To "
        "reach: at most .06. Below 5 seeds there is no verdict.",
        "",
        "| scores | seeds of each | pairs | false, permutation | false, Welch (before) | seen, permutation | "
        "seen, Welch |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found["verdicts"]:
        if row["shift_sd"] == 0:
            same = ("scores", "seeds", "pairs")
            seen = next(one for one in found["verdicts"] if one["shift_sd"] and all(one[k] == row[k] for k in same))
            columns = row["permutation"], row["welch"], seen["permutation"], seen["welch"]
            shares = " | ".join("refused" if one is None else three(one) for one in columns)
            lines.append(f"| {row['scores']} | {row['seeds']} | {row['pairs']} | {shares} |")
    lines += [
        "",
        "**After `until mean_return width < w`**, w in standard deviations of the scores, seeds added by fives, at "
        "most 40. False: equal variants called different. Seen: a difference of one standard deviation. Covers: the "
        "mean's interval.",
        "",
        "| scores | first seeds | w | seeds | false, looks | false, Welch (before) | seen, looks | seen, first "
        "seeds only | seen, Welch | covers | covers, Student t (before) |",
        "|---" * 11 + "|",
    ]
    for row in found["until"]:
        if row["shift_sd"] == 0:
            same = ("scores", "first", "width_sd")
            seen = next(one for one in found["until"] if one["shift_sd"] and all(one[k] == row[k] for k in same))
            columns = row["looks"], row["welch"], seen["looks"], seen["first_only"], seen["welch"]
            shares = " | ".join(three(one) for one in (*columns, row["covers"], row["covers_before"]))
            lines.append(f"| {row['scores']} | {row['first']} | {row['width_sd']:g} | {row['seeds']:.0f} | {shares} |")
    return lines


def three(interval: list[float]) -> str:
    """A share with its interval, three digits each."""
    value, low, high = (f"{number:.3f}".removeprefix("0") for number in interval)
    return f"{value} [{low}, {high}]"


def speed_of_bootstrap(found: dict) -> list[str]:
    ours, theirs = (mean_interval([turn[key] for turn in found["rounds"]]) for key in ("seconds", "rliable_seconds"))
    ratio = mean_interval([turn["rliable_seconds"] / turn["seconds"] for turn in found["rounds"]])
    scaled = f"scaled from {found['rliable_resamples']:,} resamples"
    return [
        f"**Speed.** {found['resamples']:,} stratified resamples of the IQM of 100 runs on 26 games: "
        f"{ours.value:.2f} s [{ours.low:.2f}, {ours.high:.2f}], to reach 2 s: {reached(ours.value <= 2)}. "
        f"`rliable`, in turn with it on the same scores: {theirs.value:.1f} s ({scaled}), {ratio.value:.0f} times as "
        f"long [{ratio.low:.0f}, {ratio.high:.0f}], to reach 10: {reached(ratio.value >= 10)}.",
        "",
    ]


def coverage(found: dict) -> list[str]:
    lines = [
        "**Coverage of nominal 95 % intervals, by simulation.** To reach from 5 runs on: .93 to .97.",
        "",
        "| scores | interval | 3 runs | 5 | 10 | 20 |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["coverage"]:
        cells = " | ".join(f"{share:.3f}".lstrip("0") for share in row["coverage"].values())
        lines.append(f"| {row['scores']} | {row['interval']} | {cells} |")
    return [*lines, ""]


def errors_of_tests(found: dict) -> list[str]:
    names = list(next(iter(found["false_alarms"].values())))
    lines = [
        "**A against A at the 5 % level: how often a difference is seen.** To reach: at most 6 %.",
        "",
        f"| scores | {' | '.join(names)} |",
        "|---" * (1 + len(names)) + "|",
    ]
    for name, shares in found["false_alarms"].items():
        lines.append(f"| {name} | {' | '.join(f'{share:.1%}' for share in shares.values())} |")
    return [*lines, ""]


def stopping(found: dict) -> list[str]:
    lines = [
        "**When to stop.** Success with a fixed chance, sampled by batches of ten, at most 100 runs.",
        "",
        "| chance of success | stopping rule | runs | never saw a success | mean width | interval covers |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["stopping"]:
        lines.append(
            f"| {row['rate']:.0%} | {row['rule']} | {row['runs']:.0f} | {row['says_never']:.1%} | {row['width']:.2f} | "
            f"{row['covers']:.1%} |"
        )
    return lines


WARNINGS = """# Warnings

A run reads its own metrics and warns of what looks wrong: once, with the iteration, on the terminal, in
`warnings.json` of its folder and on its page. Nothing stops, unless `--stop-on-warning` is given.

    workhorse warnings               # all rules
    workhorse warnings no-gradient   # one of them, explained
    workhorse warnings runs/<id>     # what a run's metrics warn of, by the rules of today

A rule reads metrics and nothing else, so a resumed run gives the warnings that it would have given, and a run from
before the rules can be asked too. A condition must hold for several iterations in a row. *A warning is a reason to
look and never proof.* `--no-measure-health` and `--no-measure-gradients` leave out metrics that some rules read. The
former made no measurable difference to an update of `ppo` on HalfCheetah-v5, and one of `trpo+` 5 % longer (median of
14 updates with and without it in turn, on a busy machine).

The scales of actions and observations are looked at before the first iteration too, unnormalised observations with the
same bound of 20, and seeds that stand apart are named by a study: `action-scale` and `outlier-seed` are not part of the
measurement below. Neither are the newest rules, `actions-at-one-bound` and `standstill`, which evolution has too.
"""


def warnings_page() -> str:
    from workhorse.runs.warnings import OTHER_RULES, RULES

    lines = [WARNINGS, "## What they are worth", "", *faults("faults", ON_POLICY), ""]
    lines += ["### Off-policy", "", *faults("faults_off_policy", OFF_POLICY), ""]
    lines += ["### From a log", "", *offline_warnings(), "", "## The rules", ""]
    for rule in (*RULES, *OTHER_RULES):
        lines += [f"### {rule.name}", "", rule.meaning, ""]
        lines += [f"- **{head.capitalize()}:** {text}" for head, text in rule.explained.items()]
        lines += [""]
    return "\n".join(lines).rstrip() + "\n"


ON_POLICY = (
    "Intervals are exact, 95 %, as if runs were independent. Thresholds were set on seeds 100 and 101, and changed "
    "once more after a look at seeds 0 to 2 (recall .89, 2 of 30 healthy runs warned) and at 46 runs of PPO and TRPO "
    "on MuJoCo tasks, of which the rules that their metrics suffice for now warn of nothing."
)
OFF_POLICY = (
    "Runs of dqn with 20,000 steps, and of sac, td3 and ddpg with 12,000, with small networks. Thresholds were set on "
    "seed 100; that of value-above-returns was lowered from 2 to 1.2 deviations after a look at the third fault on "
    "seeds 3 and 4, which it misses all the same. The policy of the healthy run that was warned of returned -500 "
    "without noise in three evaluations in a row, where the worst episodes of training returned -214."
)


def faults(name: str, about: str) -> list[str]:
    found = read(name)
    if found is None:
        return ["Not measured yet."]
    broken = [case for case in found["cases"] if case["kind"] == "fault"]
    healthy = [case for case in found["cases"] if case["kind"] == "healthy"]

    def names(run: dict) -> set[str]:
        return {warned["name"] for warned in run["warnings"]}

    def share(hits: int, of: int) -> str:
        if not of:
            return "-"
        interval = proportion_interval(hits, of)
        return f"{hits} of {of} [{interval.low:.2f}, {interval.high:.2f}]"

    runs = [(case, run) for case in broken for run in case["runs"]]
    sound = [run for case in healthy for run in case["runs"]]
    meant = [(case, run) for case, run in runs if case["expected"]]
    hit = sum(bool(names(run) & set(case["expected"])) for case, run in meant)
    alarmed = sum(bool(run["warnings"]) for run in sound)
    some = sum(bool(run["warnings"]) for _, run in runs)
    recall = hit / len(meant) >= 0.8 and alarmed / len(sound) <= 0.05
    lines = [
        f"{len(broken)} faults and {len(healthy)} healthy set-ups, {len(broken[0]['runs'])} seeds of each, "
        f"{origin(found)} {about}",
        "",
        f"The warning that is meant for a fault came in {share(hit, len(meant))} of its runs; some warning in "
        f"{share(some, len(runs))}. Healthy runs that were warned of anything: {share(alarmed, len(sound))}. To reach: "
        f"at least .8, and at most .05 a healthy run: {'reached' if recall else '**missed**'}.",
        "",
        "| warning | came in runs of faults meant for it | in runs of other faults | in healthy runs |",
        "|---|---|---|---|",
    ]
    came = {name for _, run in runs for name in names(run)} | {name for run in sound for name in names(run)}
    meant_for = {name for case in broken for name in case["expected"]}
    for name in (name for name in found["rules"] if name in came | meant_for):
        own = [run for case, run in runs if name in case["expected"]]
        other = [run for case, run in runs if name not in case["expected"]]
        cells = (share(sum(name in names(run) for run in part), len(part)) for part in (own, other, sound))
        lines.append(f"| [{name}](#{name}) | {' | '.join(cells)} |")
    cries = [
        f"{', '.join(sorted(names(run)))} on {case['task']} ({case['name']}; return {run['return']:.4g})"
        for case in healthy
        for run in case["runs"]
        if run["warnings"]
    ]
    if cries:
        lines += ["", f"Warnings in healthy set-ups: {'; '.join(cries)}."]
    lines += ["", "| fault | task | meant for it | came (runs) |", "|---|---|---|---|"]
    for case in broken:
        counts = {name: sum(name in names(run) for run in case["runs"]) for name in found["rules"]}
        said = ", ".join(f"{name} ({count})" for name, count in counts.items() if count) or "nothing"
        lines.append(f"| {case['name']} | {case['task']} | {', '.join(case['expected']) or '-'} | {said} |")
    return lines


FROM_A_LOG = (
    "Nothing is broken in any of these runs: naive off-policy learning on narrow logs of Pendulum-v1 fails by itself. "
    "A run has failed where it lost a fifth of what its log earns above random actions, or at least 100. Thresholds "
    "were set on seeds 100 and 101. Intervals are exact, 95 %, as if runs were independent."
)


def offline_warnings() -> list[str]:
    found = read("offline_warnings")
    if found is None:
        return ["Not measured yet: `python bench/offline_warnings.py --from-run RUN`."]
    runs = [(case, run) for case in found["cases"] for run in case["runs"]]
    own = {"value-above-bound", "values-leave-returns", "unsupported-actions", "no-overfitting"}

    def names(run: dict) -> set[str]:
        return {warned["name"] for warned in run["warnings"]} & own

    def share(hits: int, of: int) -> str:
        interval = proportion_interval(hits, of)
        return f"{hits} of {of} [{interval.low:.2f}, {interval.high:.2f}]"

    failed = [run for _, run in runs if run["failed"]]
    sound = [run for _, run in runs if not run["failed"]]
    proven = sum("value-above-bound" in names(run) for run in sound)
    hits, alarms = sum(bool(names(run)) for run in failed), sum(bool(names(run)) for run in sound)
    lines = [
        f"{len(runs)} runs of {len(found['cases'])} pairs of an algorithm and a log, of one or two seeds, "
        f"{found['updates']:,} updates, {origin(found)} {FROM_A_LOG}",
        "",
        f"Failed runs that were warned of: {share(hits, len(failed))}. Others that were: {share(alarms, len(sound))}, "
        f"{proven} of them by values above the bound, which is true of them.",
        "",
        "| warning | in failed runs | in others |",
        "|---|---|---|",
    ]
    for name in (name for name in found["rules"] if name in own):
        cells = (share(sum(name in names(run) for run in part), len(part)) for part in (failed, sound))
        lines.append(f"| [{name}](#{name}) | {' | '.join(cells)} |")
    lines += [
        "",
        "| algorithm | log, and what it earns | returns | failed | warned of (iterations) |",
        "|---|---|---|---|---|",
    ]
    for case in found["cases"]:
        said = "; ".join(
            ", ".join(f"{one['name']} {one['iteration']}" for one in run["warnings"]) or "nothing"
            for run in case["runs"]
        )
        returns = ", ".join(f"{run['return']:.0f}" for run in case["runs"])
        count = sum(run["failed"] for run in case["runs"])
        name = case["algorithm"] + "".join(f", {setting} {value}" for setting, value in case["settings"].items())
        lines.append(f"| {name} | {case['log']}, {case['log_return']:.0f} | {returns} | {count} | {said} |")
    return lines


def reached(well: bool) -> str:
    return "reached" if well else "**missed**"


def main() -> None:
    sections = [
        ("## How close training comes to the simulator", throughput()),
        ("## Beside other libraries", libraries()),
        ("## Learning", learning()),
        ("## Policy gradients", policy_gradients()),
        ("## Off-policy learning", off_policy()),
        ("## Rivals and the adviser", rivals_section()),
        ("## Learning from logs", offline_section()),
        ("## Evolution at scale", evolution_section()),
        ("## Actions in a box far from zero", action_box()),
        ("## Diagnoses", diagnosis()),
        ("## The second start", second_start()),
        ("## Resume and memory", other()),
        ("## On a cluster", cluster()),
        ("## What intervals and tests are worth", seeds()),
        ("## What a study's intervals and verdicts are worth", of_a_study()),
    ]
    body = "\n\n".join(title + "\n\n" + "\n".join(lines) for title, lines in sections)
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}")
    print(PAGE)
    rivals_page = PAGE.parent / "do-you-need-rl.md"
    before, _, rest = rivals_page.read_text().partition(BEGIN)
    rivals_page.write_text(f"{before}{BEGIN}\n\n" + "\n".join(frontier_rows()) + f"\n\n{END}{rest.partition(END)[2]}")
    print(rivals_page)
    page_of_warnings = PAGE.parent / "reference" / "warnings.md"
    page_of_warnings.write_text(warnings_page())
    print(page_of_warnings)


if __name__ == "__main__":
    main()
