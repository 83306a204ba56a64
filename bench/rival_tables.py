"""The tables of rivals and of the adviser, from bench/results/ and from what is shipped; used by tables.py."""

import json
from pathlib import Path

import numpy as np
from planning import ROWS, Row

from workhorse.advice.rivals import Outcome
from workhorse.advice.store import TaskRivals, shipped_rivals
from workhorse.algorithms.recipes import recipes
from workhorse.statistics.intervals import mean_interval, proportion_interval

__all__ = ["frontier_rows", "rivals_section"]

RESULTS = Path(__file__).parent / "results"


def rivals_section() -> list[str]:
    """Return the lines of the section of docs/benchmarks.md."""
    parts = [shipped(), linear(), planners(), planning_speed(), rules(), adviser()]
    return [line for part in parts for line in [*part, ""]][:-1]


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"


def read(name: str) -> dict | None:
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def origin(found: dict) -> str:
    machine = found["machine"]
    command = f"python bench/{found['made_by'].removeprefix('python bench/')}"
    return f"`{command}`, {found['date']}, {machine['cores']} cores of {machine['cpu']}."


def learned(task: str) -> tuple[str, float] | None:
    """Return the best measured recipe of a learner on a task, and its mean return over seeds."""
    rows = [row for row in recipes() if row.task == task and row.reaches]
    told = [(row.algorithm, float(row.reaches.split()[0].replace(",", ""))) for row in rows]
    return max(told, key=lambda one: one[1], default=None)


def frontier_rows() -> list[str]:
    """Return a table of the shipped tasks: floor, best rival, best learner, and the cheapest rival that equals it."""
    lines = [
        "| task | floor | best without learning [95 % over episodes] | its price | best learner, mean over seeds | "
        "cheapest rival within 5 % of the learner |",
        "|---|---|---|---|---|---|",
    ]
    for found in shipped_rivals():
        best, learner = found.best, learned(found.task)
        assert best is not None
        earned = f"{best.contender.algorithm} {number(best.interval.value)} {ends(best)}"
        enough = "no recipe was measured" if learner is None else cheapest(found, learner[1])
        told = "-" if learner is None else f"{learner[0]} {number(learner[1])}"
        lines.append(f"| {found.task} | {number(found.floor)} | {earned} | {price(best)} | {told} | {enough} |")
    return lines


def ends(one: Outcome) -> str:
    low, high = one.interval.low, one.interval.high
    return f"[{number(low)}, {number(high)}]" if np.isfinite([low, high]).all() else f"({len(one.returns)} episode)"


def price(one: Outcome) -> str:
    return f"{number(one.core_s)} core-s, {one.steps:,.0f} steps"


def cheapest(found: TaskRivals, result: float) -> str:
    rival = found.cheapest_within(result)
    if rival is None:
        return f"none found for {found.budget_s:g} core-seconds"
    return f"**{rival.contender.algorithm}** {number(rival.interval.value)}: {price(rival)}"


def shipped() -> list[str]:
    if not shipped_rivals():
        return ["**Rivals of the shipped tasks**: not measured: `python bench/rivals.py`"]
    one = shipped_rivals()[0]
    return [
        "**Rivals of the shipped tasks.** All of them under one budget, one seed; each is chosen on some episodes and "
        "scored on others. The price is that of a first episode from nothing, with search, compilation and plans. The "
        "learner is the best recipe that was measured above.",
        "",
        *frontier_rows(),
        "",
        f"Made by `python bench/rivals.py`, {one.date}, {one.machine}, one thread.",
    ]


LINEAR = {"CartPole-v1": 500.0, "InvertedPendulum-v5": 1000.0, "InvertedDoublePendulum-v5": 9350.0}
"""Return to reach by linear-quadratic control."""


def linear() -> list[str]:
    lines = [
        "**Linear-quadratic control**, 20 episodes.",
        "",
        "| task | return [95 %] | simulator steps before it acts | where it holds | to reach |",
        "|---|---|---|---|---|",
    ]
    for found in shipped_rivals():
        for one in found.outcomes:
            if one.contender.algorithm == "lqr" and found.task in LINEAR and one.returns:
                well = "reached" if one.interval.value >= LINEAR[found.task] else "**missed**"
                lines.append(
                    f"| {found.task} | {number(one.interval.value)} {ends(one)} | {one.steps_before:,} | "
                    f"{one.in_words} | >= {number(LINEAR[found.task])}: {well} |"
                )
    return lines


def planners() -> list[str]:
    found = read("planning")
    if found is None:
        return ["**Planners**: not measured: `python bench/planning.py`"]
    lines = [
        "**Planners**, whole episodes with the true simulator. Intervals are over seeds. The real-time factor is of "
        "this machine and of whatever else ran on it.",
        "",
        "| what | planner | seeds | return [95 %] | planning steps an action | real time | upright, solved | "
        "published | to reach |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in ROWS.items():
        lines.append(planner_row(name, row, found["rows"].get(name, {}).get("seeds", [])))
    return [*lines, "", f"Ends of the task are minded. Made by {origin(found)}"]


def planner_row(name: str, row: Row, seeds: list[dict]) -> str:
    """Return a planner's row; one that was not measured has its command."""
    if not seeds:
        command = f"not measured: `python bench/planning.py --only {name}`"
        return f"| {name} | {row.algorithm} | | {command} | | | | {row.published or '-'} | |"
    means = [float(np.mean(one["returns"])) for one in seeds]
    interval = mean_interval(means)
    shown = f"{number(interval.value)} [{number(interval.low)}, {number(interval.high)}]"
    if len(means) < 3:
        shown = ", ".join(map(number, means))
    factors = [one["real_time_factor"] for one in seeds if one["real_time_factor"]]
    shares = [one[kind] for one in seeds for kind in ("upright", "solved") if kind in one]
    well = ""
    if row.wanted is not None:
        well = f">= {number(row.wanted)}: {'reached' if interval.value >= row.wanted else '**missed**'}"
    elif shares:
        well = f">= 95 % solved: {'reached' if np.mean(shares) >= 0.95 else '**missed**'}"
    return (
        f"| {name} | {row.algorithm} | {len(means)} | {shown} | {seeds[0]['planning_steps_per_action']:,} | "
        f"{f'{np.mean(factors):.2g}x' if factors else '-'} | {f'{np.mean(shares):.0%}' if shares else '-'} | "
        f"{row.published or '-'} | {well} |"
    )


def planning_speed() -> list[str]:
    found = read("planning_speed")
    if found is None:
        return ["**Speed of planning**: not measured: `python bench/planning_speed.py`"]
    lines = [
        "**Speed of planning**, against the faster of `mujoco.batch` stepping and rolling out the same plans.",
        "",
        "| task | planning steps/s | raw steps/s | ratio | to reach |",
        "|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        raw = max(row["raw_step_per_s"], row["raw_rollout_per_s"])
        well = "reached" if row["ratio"] >= 0.9 else "**missed**"
        lines.append(
            f"| {row['task']} | {row['planning_steps_per_s']:,.0f} | {raw:,.0f} | {row['ratio']:.3f} | .9: {well} |"
        )
    return [*lines, "", f"Made by {origin(found)}"]


KINDS = ("random", "zero", "constant", "signed-rules", "pid")


def rules() -> list[str]:
    found = read("rules")
    if found is None:
        return ["**Rules**: not measured: `python bench/rules.py`"]
    lines = [
        "**Rules and floors.** Each is chosen on some episodes and shown on others, one seed; the interval is over "
        "episodes. PID is left out where there are more than three loops.",
        "",
        "| task | " + " | ".join(KINDS) + " | what the rule says |",
        "|---|" + "---|" * (len(KINDS) + 1),
    ]
    for task in found["tasks"]:
        cells = [rule_cell(task["rows"].get(kind)) for kind in KINDS]
        said = task["rows"].get("signed-rules", {}).get("choice", "")
        lines.append(f"| {task['task']} | {' | '.join(cells)} | {said} |")
    took = f"{found['core_s']:.0f} core-seconds, {found['seconds']:.0f} s by the clock beside other work"
    return [*lines, "", f"To reach: 60 s in all: **missed** ({took}). Made by {origin(found)}"]


def rule_cell(row: dict | None) -> str:
    if row is None:
        return "-"
    low, high = row["interval"]
    return f"{number(row['mean'])} [{number(low)}, {number(high)}]"


def adviser() -> list[str]:
    found = read("adviser")
    if found is None:
        return ["**Adviser**: not measured: `python bench/adviser.py fit`"]
    lines = [
        "**The adviser's forecasts**, each family of variants forecast by a model that was fitted on the other "
        "families alone. Right: the class that is advised is the cheapest that works, by the rule of "
        "`workhorse/advice/labels.py`. Constant: the commonest answer, and the base rate, of the other families.",
        "",
        "| forecasts | right [95 %] | works as advised | constant answer right | Brier score by class | constant's | "
        "to reach |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found["scores"]:
        share = proportion_interval(one["right"], one["forecasts"])
        scores = ", ".join(f"{group} {value:.3f}" for group, value in one["brier"].items())
        constant = ", ".join(f"{group} {value:.3f}" for group, value in one["constant_brier"].items())
        mean = float(np.mean(list(one["brier"].values())))
        right = "reached" if one["right"] >= 49 / 60 * one["forecasts"] else "**missed**"
        brier = "reached" if mean <= 0.15 else "**missed**"
        lines.append(
            f"| {one['forecasts']}, {one['name']} | {one['right']} [{share.low:.0%}, {share.high:.0%}] | "
            f"{one['works_as_advised']} | {one['constant_right']} | {scores} | {constant} | "
            f"49 of 60: {right}; .15 in the mean: {brier} ({mean:.3f}) |"
        )
    first = found["scores"][0]
    wrong = [
        f"{name} ({answer}, advised {advice})"
        for name, answer, advice in zip(first["variants"], first["answers"], first["advice"], strict=True)
        if answer != advice
    ]
    seconds = found["seconds"]
    took = (
        f"A card took {seconds['median']:.0f} s in the median and {seconds['most']:.0f} s at most, beside other work."
    )
    return [*lines, "", f"Wrong {first['name']}: {'; '.join(wrong)}. {took} Made by {origin(found)}"]
