"""The tables of docs/benchmarks.md from bench/results: `python bench/tables.py`."""

import json
import statistics
from pathlib import Path

from workhorse.statistics.intervals import mean_interval

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- tables: made by bench/tables.py -->", "<!-- end of tables -->"

LEARNING = {
    "half-cheetah-default": ("HalfCheetah-v5, default recipe (`make train`)", 2386, "published ES threshold"),
    "half-cheetah-ars": ("HalfCheetah-v5, ARS, 20M steps", 4398, "best public replication, v3"),
    "hopper": ("Hopper-v5", 3320, "best public replication, v3"),
    "swimmer": ("Swimmer-v5", 241, "best public replication, v3"),
    "walker2d": ("Walker2d-v5, 20M steps", 3830, "published ES threshold; report only"),
}
TARGET_RATIO = {"linear": 0.85, "mlp-64-64": 0.75}


def read(name: str) -> dict | None:
    file = HERE / "results" / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def origin(found: dict) -> str:
    machine = found["machine"]
    return f"`{found['made_by']}`, {found['date']}, {machine['cores']} cores of {machine['cpu']}."


def throughput() -> list[str]:
    found = read("throughput")
    if found is None:
        return ["Not measured yet."]
    lines = [
        origin(found),
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
    return lines


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


def minute() -> list[str]:
    found = read("minute")
    if not found:
        return []
    goal = LEARNING["half-cheetah-default"][1]
    means = sorted(run["mean"] for run in found["runs"])
    above, (low, high) = sum(mean > goal for mean in means), found["interval"]
    steps = [run["env_steps"] / 1e6 for run in found["runs"]]
    word = "reached" if above >= 0.9 * len(means) else "**missed**"
    return [
        "",
        f"**In a minute.** `make train` on all cores, stopped {found['seconds']:.0f} s after it said that it begins: "
        f"the policies return {found['mean_over_seeds']:,.0f} [{low:,.0f}, {high:,.0f}] over {len(means)} seeds, after "
        f"{min(steps):.1f} to {max(steps):.1f}M steps; {above} of {len(means)} are above {goal:,} (to reach: 9 of 10: "
        f"{word}). Every seed: {', '.join(f'{mean:,.0f}' for mean in means)}. {origin(found)}",
    ]


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


def cluster() -> list[str]:
    lines = []
    found = read("cluster")
    if found:
        goals = {"2 Ray workers / 1": 1.8, "Ray / in process, 2 threads": 0.9}
        lines += [
            f"**Speed.** {found['speed']['resamples']:,} stratified resamples of the IQM of 100 runs on 26 games: "
            f"{ours.value:.2f} s [{ours.low:.2f}, {ours.high:.2f}], to reach 2 s: {reached(ours.value <= 2)}. `rliable`, in "
            f"turn with it on the same scores: {theirs.value:.1f} s (scaled from {found['speed']['rliable_resamples']:,} "
            f"resamples), {ratio.value:.0f} times as long [{ratio.low:.0f}, {ratio.high:.0f}], to reach 10: "
            f"{reached(ratio.value >= 10)}.",
            "",
            "**Coverage of nominal 95 % intervals, by simulation.** To reach from 5 runs on: .93 to .97.",
            "",
            "| scores | interval | 3 runs | 5 | 10 | 20 |",
            "|---|---|---|---|---|---|",
        ]
    for row in found["coverage"]:
        cells = " | ".join(f"{share:.3f}".lstrip("0") for share in row["coverage"].values())
        lines.append(f"| {row['scores']} | {row['interval']} | {cells} |")
    lines += [
        "",
        "**A against A at the 5 % level: how often a difference is seen.** To reach: at most 6 %.",
        "",
        "| scores | " + " | ".join(next(iter(found["false_alarms"].values()))) + " |",
        "|---" * (1 + len(next(iter(found["false_alarms"].values())))) + "|",
    ]
    for name, shares in found["false_alarms"].items():
        lines.append(f"| {name} | " + " | ".join(f"{share:.1%}" for share in shares.values()) + " |")
    lines += [
        "",
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


def reached(well: bool) -> str:
    return "reached" if well else "**missed**"


def main() -> None:
    sections = [
        ("## How close training comes to the simulator", throughput()),
        ("## Beside other libraries", libraries()),
        ("## Learning", learning()),
        ("## Resume and memory", other()),
        ("## On a cluster", cluster()),
        ("## What intervals and tests are worth", seeds()),
    ]
    body = "\n\n".join(title + "\n\n" + "\n".join(lines) for title, lines in sections)
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}")
    print(PAGE)


if __name__ == "__main__":
    main()
