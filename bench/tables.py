"""The tables of docs/benchmarks.md from bench/results: `python bench/tables.py`."""

import json
from pathlib import Path

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


def main() -> None:
    sections = [
        ("## How close training comes to the simulator", throughput()),
        ("## Beside other libraries", libraries()),
        ("## Learning", learning()),
        ("## Resume and memory", other()),
    ]
    body = "\n\n".join(title + "\n\n" + "\n".join(lines) for title, lines in sections)
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}")
    print(PAGE)


if __name__ == "__main__":
    main()
