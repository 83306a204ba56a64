"""The section "Off-policy learning" of docs/benchmarks.md, from bench/results: see bench/tables.py.

A cell whose file is missing is printed as not measured, with the command that would measure it.
"""

import json
from pathlib import Path

import numpy as np
from equal_cpu import ALGORITHMS, TASKS

from workhorse.statistics.intervals import mean_interval, proportion_interval

RESULTS = Path(__file__).parent / "results"

# suite of bench/learning.py: (seeds asked for, the return to reach, the target in words)
CELLS: dict[str, tuple[int, float, str]] = {
    "dqn-cartpole": (10, 500.0, "500 at <= 50k, 10 of 10"),
    "dqn-acrobot": (10, -85.0, ">= -85 at 100k"),
    "dqn-mountaincar": (10, -110.0, ">= -110 at 120k, 9 of 10"),
    "ddpg-pendulum": (10, -170.0, "-150 +- 20 at 20k, 10 of 10"),
    "td3-pendulum": (10, -170.0, "-150 +- 20 at 20k, 10 of 10"),
    "sac-pendulum": (10, -170.0, "-150 +- 20 at 20k, 10 of 10"),
    "sac-n-pendulum": (10, -170.0, "-150 +- 20 at 20k, 10 of 10"),
    "sac-halfcheetah": (3, 5500.0, ">= 5,500 at 100k, mean of 3"),
    "sac-n-hopper": (5, 2000.0, ">= 2,000 at 100k, mean of 5"),
    "sac-n-halfcheetah": (5, 6500.0, ">= 6,500 at 100k, mean of 5"),
    "sac-n-ant": (5, 1500.0, ">= 1,500 at 100k, mean of 5"),
    "sac-n-hopper-300k": (3, 3200.0, ">= 3,200 at 300k, no seed below 1,600"),
}
NEEDED = {"dqn-cartpole": 10, "dqn-mountaincar": 9, **dict.fromkeys(("ddpg-pendulum", "td3-pendulum"), 10)}
NEEDED |= dict.fromkeys(("sac-pendulum", "sac-n-pendulum"), 10)
"""Seeds that must reach it; elsewhere the mean over seeds must."""
COLLAPSED = 0.5
"""A seed has collapsed whose last return is below this share of its own best evaluation."""


def read(name: str) -> dict | None:
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def origin(found: dict) -> str:
    machine = found["machine"]
    return f"`{found['made_by']}`, {found['date']}, {machine['cores']} cores of {machine['cpu']}."


def off_policy() -> list[str]:
    """The lines of the whole section."""
    parts = [learning(), speeds(), checkpoints(), kills(), pendulum_claim(), back_claim(), equal_cpu()]
    return [line for part in parts for line in [*part, ""]][:-1]


def learning() -> list[str]:
    lines = [
        "**Returns.** Final evaluation over 100 noiseless episodes at the budget's end; settings chosen on seeds 100 "
        "to 104, shown on seeds from 0 on. A seed has collapsed if its last return is below half of its own best "
        "evaluation (of returns above zero).",
        "",
        "| suite | task | seeds | mean return over seeds [95 %] | worst, best seed | seeds there | collapsed | "
        "to reach |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for suite, (seeds, goal, words) in CELLS.items():
        found = read(f"learning-{suite}")
        if found is None:
            command = f"`python bench/learning.py {suite} --seeds {seeds}`"
            lines.append(f"| {suite} | | | not measured: {command} | | | | {words} |")
            continue
        means = np.array([run["mean"] for run in found["runs"]])
        interval = mean_interval(means)
        there, count = int((means >= goal).sum()), len(means)
        well = there >= NEEDED[suite] if suite in NEEDED else interval.value >= goal
        enough = "" if count >= seeds else f" ({count} of {seeds} seeds)"
        gone = sum(collapsed(run) for run in found["runs"])
        lines.append(
            f"| {suite} | {task_of(found)} | {count} | "
            f"{number(interval.value)} [{number(interval.low)}, {number(interval.high)}] | "
            f"{number(means.min())}, {number(means.max())} | {there} of {count} | {gone} | "
            f"{words}: {'reached' if well else '**missed**'}{enough} |"
        )
    return [*lines, "", "Made by `python bench/learning.py SUITE`."]


def task_of(found: dict) -> str:
    return found["command"].split()[2]


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}"


def collapsed(run: dict) -> bool:
    best = max([mean for _, mean in run["curve"]] + [run["mean"]])
    return best > 0 and run["mean"] < COLLAPSED * best


def speeds() -> list[str]:
    found = read("off_policy_speed")
    if found is None:
        return ["**Speed.** Not measured: `python bench/off_policy_speed.py`."]
    update = found["update"]
    of_sac, of_sac_n = (np.median(update["ms"][name]) for name in ("sac", "sac-n"))
    faster = of_sac < update["floor_ms"]
    goals = {
        ("machine", "stable-baselines3"): 3.0,
        ("machine", "sbx"): 3.0,
        ("machine", "stable-baselines3, two seeds, a thread each"): 1.7,
        ("dqn", "stable-baselines3"): 10.0,
        ("pendulum", "stable-baselines3"): 10.0,
    }
    lines = [
        f"**Speed.** {origin(found)} One update with HalfCheetah's sizes on one core: `sac` {of_sac:.1f} ms "
        f"(to reach: 9.5: {'reached' if of_sac <= 9.5 else '**missed**'}), `sac-n` {of_sac_n:.1f} ms (19: "
        f"{'reached' if of_sac_n <= 19 else '**missed**'}). The matrix products that `sac` cannot do without are "
        f"{update['gflop']:.2f} GFLOP; at the {update['gflop_per_s']:.0f} GFLOP/s that NumPy reaches on this core they "
        f"take {update['floor_ms']:.1f} ms{', so that XLA multiplies faster than NumPy' if faster else ''}.",
        "",
        "| what | steps/s, each round | Workhorse is faster by | to reach |",
        "|---|---|---|---|",
    ]
    titles = {
        "machine": "SAC, HalfCheetah-v5, the whole machine",
        "dqn": "DQN, CartPole-v1, one process",
        "pendulum": "SAC, Pendulum-v1, one process",
    }
    for part, rows in found["steps_per_second"].items():
        for name, rates in rows.items():
            said, ratios = ", ".join(f"{rate:,.0f}" for rate in rates), found["ratios"][part].get(name)
            if ratios is None:
                lines.append(f"| {titles[part]}: {name} | {said} | | |")
                continue
            goal, middle = goals[part, name], float(np.median(ratios))
            word = "reached" if middle >= goal else "**missed**"
            lines.append(
                f"| {titles[part]}: {name} | {said} | {middle:.1f}x [{min(ratios):.1f}, {max(ratios):.1f}] | "
                f"{goal:g}x: {word} |"
            )
    return lines


def checkpoints() -> list[str]:
    found = read("replay-checkpoint")
    if found is None:
        return ["**A checkpoint of a large replay.** Not measured: `python bench/replay_checkpoint.py`."]
    new, state, share = found["save_bytes"]["median"] / 1e6, found["state_bytes"] / 1e6, found["share_of_the_run"]
    return [
        f"**A checkpoint of a large replay.** {origin(found)} A replay of {found['replay_rows']:,} steps of "
        f"Humanoid-v5 ({found['replay_bytes'] / 1e9:.2f} GB): the first save writes "
        f"{found['first_save_bytes'] / 1e9:.2f} GB in {found['first_save_s']:.1f} s; after each "
        f"{found['new_steps']:,} new steps a save writes {new:.1f} MB, of which {state:.1f} MB are the networks, in "
        f"{found['save_s']['median']:.2f} s (at most {found['save_s']['most']:.2f}). That is {share:.1%} of the "
        f"{found['training_s']:.1f} s that `sac` trains for these steps (to reach: 2 %: "
        f"{'reached' if share <= 0.02 else '**missed**'}). Loading it all takes {found['load_s']:.1f} s."
    ]


def kills() -> list[str]:
    said = []
    for case in ("dqn", "sac"):
        found = read(f"kill-{case}")
        if found is None:
            said.append(f"`{case}`: not measured, `python bench/kill.py --case {case} --kills 20`.")
            continue
        same, count = found["equal_digests"], found["iterations"]
        said.append(
            f"`{found['run'].split(' --seed')[0]}` was killed {found['kills']} times: {same} of {count} digests are "
            f"those of the run that was left alone. {origin(found)}"
        )
    return [f"**Killed at random moments, and resumed.** {' '.join(said)}"]


def pendulum_claim() -> list[str]:
    title = "**NAF on Pendulum: three of ten within 200k steps, most of the others by 800k?**"
    plain = read("naf-pendulum-plain-200000")
    if plain is None:
        return [f"{title} Not measured: `python bench/naf.py pendulum --seeds 30`."]
    lines = [
        f"{title} {origin(plain)} A run works from its first evaluation of 100 episodes that reaches the threshold. "
        "Intervals are Clopper and Pearson's.",
        "",
        "| change | threshold | within | seeds that work [95 %] |",
        "|---|---|---|---|",
    ]
    for file in sorted(RESULTS.glob("naf-pendulum-*.json"), key=lambda file: ("plain" not in file.name, file.name)):
        found = json.loads(file.read_text())
        for row in found["counts"]:
            low, high = row["interval"]
            lines.append(
                f"| {found['variant']} | {row['threshold']:g} | {row['within']:,} | {row['worked']} of {row['of']} "
                f"[{low:.0%}, {high:.0%}] |"
            )
    row = next(row for row in plain["counts"] if row["threshold"] == -200 and row["within"] == 200_000)
    low, high = row["interval"]
    verdict = "**holds**" if low <= 0.3 <= high else "**fails**"
    return [
        *lines,
        "",
        f"That three of ten work within 200,000 steps {verdict} for this implementation, at the threshold of -200: the "
        f"share is {row['worked']} of {row['of']}, [{low:.0%}, {high:.0%}].",
    ]


def back_claim() -> list[str]:
    title = "**NAF on HalfCheetah ends running on its back?**"
    found = read("naf-back")
    if found is None:
        return [f"{title} Not measured: `python bench/naf.py back --seeds 5 --env-steps 300_000`."]
    lines = [
        f"{title} {origin(found)} {found['env_steps']:,} steps of training, {found['episodes']} episodes of the "
        "trained policy; on its back is a torso more than a quarter turn from level.",
        "",
        "| algorithm | seeds | share of steps on the back, each seed | return, each seed | seeds mostly on the back |",
        "|---|---|---|---|---|",
    ]
    shares: dict[str, tuple[int, int]] = {}
    for name in dict.fromkeys(row["algorithm"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["algorithm"] == name]
        mostly = sum(row["share"] > 0.5 for row in rows)
        shares[name] = mostly, len(rows)
        interval = proportion_interval(mostly, len(rows))
        each, returns = [f"{row['share']:.0%}" for row in rows], [f"{row['mean']:,.0f}" for row in rows]
        lines.append(
            f"| {name} | {len(rows)} | {', '.join(each)} | {', '.join(returns)} | {mostly} of {len(rows)} "
            f"[{interval.low:.0%}, {interval.high:.0%}] |"
        )
    mostly, count = shares["naf"]
    interval = proportion_interval(mostly, count)
    verdict = "holds" if interval.low > 0.5 else "fails" if interval.high < 0.5 else "is open"
    return [*lines, "", f"That most runs of NAF end there **{verdict}** with {mostly} of {count} seeds."]


def equal_cpu() -> list[str]:
    title = "**What an equal price buys.**"
    found = read("equal_cpu")
    if found is None:
        return [f"{title} Not measured: `python bench/equal_cpu.py`."]
    lines = [
        f"{title} {origin(found)} Mean return of each seed after this many CPU seconds of one core, imports and "
        "compilation included; a seed counts as failed below half of the best algorithm's median seed.",
        "",
        "| task | CPU seconds | algorithm | median return | each seed | failed | environment steps |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = found["rows"]
    for task in TASKS:
        for seconds in (60.0, 600.0):
            here = [row for row in rows if (row["task"], row["seconds"]) == (task, seconds)]
            if not here:
                command = f"`python bench/equal_cpu.py --seconds {seconds:g}`"
                lines.append(f"| {task} | {seconds:g} | not measured: {command} | | | | |")
            lines += [price_row(task, seconds, name, here) for name in ALGORITHMS if here]
    return lines


def price_row(task: str, seconds: float, name: str, here: list[dict]) -> str:
    """The row of one algorithm for one price."""
    own = [row for row in here if row["algorithm"] == name]
    if not own:
        return f"| {task} | {seconds:g} | {name} | not measured | | | |"
    by_name = [[row["mean"] for row in here if row["algorithm"] == other] for other in ALGORITHMS]
    best = max(float(np.median(means)) for means in by_name if means)
    failed = sum(row["mean"] < 0.5 * best for row in own)
    median, steps = (float(np.median([row[key] for row in own])) for key in ("mean", "env_steps"))
    each = ", ".join(number(row["mean"]) for row in own)
    return f"| {task} | {seconds:g} | {name} | {number(median)} | {each} | {failed} of {len(own)} | {steps:,.0f} |"
