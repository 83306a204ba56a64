"""The section "Learning from logs" of docs/benchmarks.md, from bench/results: see bench/tables.py.

A cell whose file is missing is printed as not measured, with the command that would measure it.
"""

import json
from pathlib import Path

import numpy as np
from offline import ALGORITHMS, KINDS, SUITES

from workhorse.statistics.intervals import mean_interval, proportion_interval

__all__ = ["offline_section"]

RESULTS = Path(__file__).parent / "results"
AFTER = 3
"""Evaluations after the best one over which the held-out error is compared with that at the best one."""


def read(name: str) -> dict | None:
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def origin(found: dict) -> str:
    machine = found["machine"]
    return f"`{found['made_by']}`, {found['date']}, {machine['cores']} cores of {machine['cpu']}."


def offline_section() -> list[str]:
    """Return the lines of the section of docs/benchmarks.md."""
    parts = [phenomenon(), algorithms(), speed(), into_the_task(), checker(), confusion(), demonstrations()]
    parts += [selection(), kills()]
    return [line for part in parts for line in [*part, ""]][:-1]


def phenomenon() -> list[str]:
    found = read("offline-phenomenon")
    if found is None:
        return ["**Better, then worse**: not measured, `python bench/offline.py phenomenon`."]
    lines = [
        "**Better, then worse.** Plain DDPG, one critic, on fixed episodes of an expert on Pendulum-v1, where no "
        "reward "
        "is above 0. *Fell*: at the end less than .8 of the best evaluation's gain over random actions is left. "
        "*Held-out "
        f"error*: squared error to the targets on episodes that are held out, the mean of the {AFTER} evaluations "
        "after the "
        "best one over that at the best one, and over that on the rows that are learnt from. To reach: fell in at "
        "least half "
        f"of the runs at both sizes, values above the bound, no rise of the error. {origin(found)}",
        "",
        "| rows | the log returns | best evaluation | last | fell | values above 0 | held-out error after / at the "
        "best, "
        "median | it did not rise | held-out / learnt from |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in found["cells"]:
        runs = cell["runs"]
        best, last = (mean_interval([run[name] for run in runs]) for name in ("best", "final"))
        above = sum(run["measures"]["policy_value"][-1] > 0 for run in runs)
        changes, ratios = zip(*(errors(run) for run in runs), strict=True)
        fell, flat = sum(cell["fell"]), sum(change <= 1 for change in changes)
        rows = "1,000,000" if cell["log"].endswith("1000000") else "100,000"
        lines.append(
            f"| {rows} | {cell['log_return']:.0f} | {shown(best)} | {shown(last)} | {fell} of {len(runs)} | {above} of "
            f"{len(runs)} | {np.median(changes):.2f} | {flat} of {len(runs)} | {np.median(ratios):.2f} |"
        )
    return lines


def errors(run: dict) -> tuple[float, float]:
    """Return how the held-out error changes after a run's best evaluation, and what it is beside the error learnt."""
    best = int(np.argmax([value for _, value in run["curve"]]))
    held_out, trained = (np.array(run["measures"][name]) for name in ("held_out_error", "trained_error"))
    after = slice(best + 1, best + 1 + AFTER)
    return float(held_out[after].mean() / held_out[best]), float(held_out[after].mean() / trained[after].mean())


def shown(interval: object) -> str:
    value, low, high = interval.value, interval.low, interval.high  # type: ignore[attr-defined]
    if not np.isfinite(low):
        return f"{value:,.0f}"
    return f"{value:,.0f} [{low:,.0f}, {high:,.0f}]"


def algorithms() -> list[str]:
    """Return the table of algorithms: paired differences to bc over seeds."""
    lines = [
        "**Algorithms on logs of our own**, 3 seeds, 100,000 updates, two hidden layers of 64: the score of the "
        "last policy "
        "over 20 episodes, 0 for random actions and 100 for the run's last policy, the mean over seeds, and in "
        "brackets "
        "the difference to `bc` with its 95 % interval, paired by seed. To reach: none below `bc` by more than its "
        "interval, "
        "each above it on at least one kind. Ten points are noise.",
        "",
        f"| log | its own episodes | {' | '.join(ALGORITHMS)} |",
        "|---|---|" + "---|" * len(ALGORITHMS),
    ]
    missing = []
    for task in ("hopper", "halfcheetah", "walker2d"):
        for kind in KINDS:
            name = f"{task}-{kind}"
            assert name in SUITES
            found = read(f"offline-{name}")
            cells = {cell["algorithm"]: cell for cell in found["cells"]} if found else {}
            log = score_of_log(next(iter(cells.values()))) if cells else ""
            words = [cell_text(cells, algorithm) for algorithm in ALGORITHMS]
            lines.append(f"| {name} | {log} | {' | '.join(words)} |")
            if any(word == "not measured" for word in words):
                missing.append(f"`python bench/offline.py {name}`")
    if missing:
        lines += ["", f"Not measured, for want of hours: {', '.join(missing)}."]
    return lines


def score(cell: dict, value: float) -> float:
    low, high = cell["references"]["random"], cell["references"]["expert"]
    return 100 * (value - low) / (high - low)


def score_of_log(cell: dict) -> str:
    return f"{score(cell, cell['log_return']):.0f}"


def cell_text(cells: dict[str, dict], algorithm: str) -> str:
    """Return a cell's mean score, and its paired difference to bc."""
    cell = cells.get(algorithm)
    if cell is None or not cell["runs"]:
        return "not measured"
    found = {run["seed"]: score(cell, run["final"]) for run in cell["runs"]}
    told = f"{np.mean(list(found.values())):.0f}"
    cloned = {run["seed"]: score(cells["bc"], run["final"]) for run in cells.get("bc", {"runs": []})["runs"]}
    seeds = sorted(set(found) & set(cloned))
    if algorithm == "bc" or len(seeds) < 2:
        return told
    difference = mean_interval([found[seed] - cloned[seed] for seed in seeds])
    return f"{told} ({difference.value:+.0f} [{difference.low:+.0f}, {difference.high:+.0f}])"


def speed() -> list[str]:
    found = read("offline-speed")
    if found is None:
        return ["**Updates a second**: not measured, `python bench/offline_speed.py --python PY --corl FOLDER`."]
    lines = [
        "**Updates a second** on one core, 256-256, batches of 256, Hopper's sizes, in turn; the ratio is paired by "
        "round. "
        f"To reach: 2x the faster of the others. {origin(found)}",
        "",
        "| algorithm | Workhorse | CORL | d3rlpy | Workhorse / the faster [least, most] |",
        "|---|---|---|---|---|",
    ]
    for algorithm, rates in found["updates_per_second"].items():
        ours, others = np.array(rates["workhorse"]), np.maximum(rates["corl"], rates["d3rlpy"])
        ratio = ours / others
        told = " | ".join(f"{np.median(rates[party]):.0f}" for party in ("workhorse", "corl", "d3rlpy"))
        lines.append(f"| {algorithm} | {told} | {np.median(ratio):.2f} [{ratio.min():.2f}, {ratio.max():.2f}] |")
    return lines


def into_the_task() -> list[str]:
    found = read("offline-online")
    if found is None:
        return ["**From a log into the task**: not measured, `python bench/offline_online.py`."]
    lines = [
        "**From a log into the task.** Pendulum-v1, a log of 100,000 steps that was made as `medium` and is *nearly "
        "that "
        "of an expert*: the run kept no earlier state, so that its policy has come 99 % of the way and returns -159 "
        "without noise (its episodes -221). 20,000 updates, then 6,000 steps in the task, evaluated every 1,000 "
        "over 50 "
        "episodes. The runs were stopped before all had been done. A dip is an evaluation that is worse than the "
        "start by more than "
        f"10 % of what the start is above random actions. To reach: none in 80 % of runs. {origin(found)}",
        "",
        "| algorithm | return at the start | worst on the way | at the end | runs without a dip |",
        "|---|---|---|---|---|",
    ]
    for name, rows in found["found"].items():
        if name.startswith("from nothing"):
            continue
        if not rows:
            lines.append(f"| {name} | not measured: `python bench/offline_online.py` | | | |")
            continue
        columns = [shown(mean_interval([row[key] for row in rows])) for key in ("begin", "worst", "end")]
        share = proportion_interval(sum(not row["dips"] for row in rows), len(rows))
        kept = f"{sum(not row['dips'] for row in rows)} of {len(rows)} [{share.low:.2f}, {share.high:.2f}]"
        lines.append(f"| {name} | {' | '.join(columns)} | {kept} |")
    steps = {name.split(", ")[1]: rows for name, rows in found["found"].items() if name.startswith("from nothing")}
    lines += ["", f"Steps to a return of {found['threshold']:.0f}, evaluated every 250:"]
    for name, rows in steps.items():
        told = [f"{row['steps']:,}" if row["steps"] else "> 8,000" for row in rows]
        lines.append(f"`{name}` {', '.join(told)};")
    if all(row["steps"] for rows in steps.values() for row in rows) and len(steps) == 2:
        ratio = np.array([row["steps"] for row in steps["rlpd"]]) / [row["steps"] for row in steps["sac"]]
        interval = mean_interval(ratio)
        lines.append(
            f"`rlpd` needs {interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}] of the steps of `sac`."
        )
    lines[-1] += " To reach: .5."
    return lines


def checker() -> list[str]:
    found = read("log-checker")
    if found is None:
        return ["**The log checker**: not measured, `python bench/log_checker.py`."]
    return [
        f"**The log checker.** {found['faults']} planted faults and {found['healthy']} healthy logs: with the task "
        f"{found['caught_with_task']} caught and {found['false_alarms_with_task']} false alarms, without it "
        f"{found['caught_without_task']} and {found['false_alarms_without_task']}. To reach: 14 and at most 1. It is "
        "the third "
        "scored attempt: after each of two, rules were changed and other logs of the same kinds drawn. "
        f"`python bench/{found['made_by'].removeprefix('python bench/')}`, {found['date']}."
    ]


def confusion() -> list[str]:
    found = read("confusion")
    if found is None:
        return ["**Causal confusion**: not measured, `python bench/confusion.py mountain-car`."]
    return [
        "**Causal confusion.** Tables and figure are in [Causal confusion](concepts/causal-confusion.md). To reach: "
        "showing the "
        "previous action costs 30 % of the return on two tasks, and 80 % of that comes back in 20 episodes. With "
        "plain cloning "
        "it is reached on MountainCar alone, in a setting that was added after a look (38 % [32, 46], of which 124 % "
        "[114, 137] came back); Hopper shows no drop with plain cloning (-5 % [-19, 2]): **missed**. Pong was not "
        "measured: "
        f"`python bench/confusion.py pong`. `{found['made_by']}`, {found['date']}."
    ]


def demonstrations() -> list[str]:
    found = read("demonstrations-pendulum")
    if found is None:
        return ["**Demonstrations**: not measured, `python bench/demonstrations.py pendulum --seeds 3`."]
    lines = [
        "**Demonstrations.** Pendulum-v1, return by the number of demonstrations, 3 seeds, 30 episodes each. "
        f"{origin(found)} "
        f"Cells that were not measured, {len(found['not_measured'])} of them, are in the file with their commands.",
        "",
        "| learner | demonstrations | return [95 % over seeds] | price at 2.50 a demonstration, USD |",
        "|---|---|---|---|",
    ]
    for cell in found["cells"]:
        low, high = cell["interval"]
        name = f"{cell['learner']}, {cell['steps']:,} steps" if cell["steps"] else cell["learner"]
        lines.append(
            f"| {name} | {cell['count'] or '-'} | {cell['mean']:,.0f} [{low:,.0f}, {high:,.0f}] | "
            f"{cell['price']:,.2f} |"
        )
    return lines


def selection() -> list[str]:
    lines = [
        "**Selection without the task.** Seven of our runs on hopper-medium-replay, `workhorse select LOG RUNS "
        "--updates 5000`, 2026-11-30, run once by hand: fitted Q ranks them with a correlation of .89, and its choice "
        "lacks 61 % of what lies between the best and the worst (a random choice 66 %). To reach: at most 10 %: "
        "**missed** "
        "there. Importance sampling rests on one or two episodes and says nothing."
    ]
    found = read("offline_selection")
    if found is not None:
        told = [
            f"{log['log']}: correlation {log['rankings']['fitted Q']['correlation']:.2f}, regret "
            f"{log['rankings']['fitted Q']['regret']:.0%} "
            f"(random choice {log['rankings']['fitted Q']['regret_of_chance']:.0%})"
            for log in found["logs"]
        ]
        lines += [
            "",
            f"On Pendulum-v1, {found['runs']} policies of one seed, by fitted Q: {'; '.join(told)}. Some of them "
            "learnt from "
            "these logs, and about half had failed, which is easy to see. These numbers come from a script that did "
            "what "
            f"the command does, and are rounded. {origin(found)}",
        ]
    return lines


def kills() -> list[str]:
    found = read("kill-offline")
    if found is None:
        return ["**Kills**: not measured, `python bench/kill.py --case offline --kills 10`."]
    return [
        f"**Killed at random moments, and resumed.** `{found['run']}` was killed {found['kills']} times: "
        f"{found['equal_digests']} of {found['iterations']} digests are those of the run that was left alone. "
        f"{origin(found)}"
    ]
