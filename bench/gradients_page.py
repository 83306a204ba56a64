"""The page docs/gradients.md and its figure, made of what `bench/gradients.py` measured."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from workhorse.statistics.intervals import Interval, difference_interval, mean_interval, proportion_interval

DOCS = Path(__file__).parent.parent / "docs"
OWN = 2048
"""Steps of an iteration."""

BEFORE = """# Are deep policy gradients policy gradients?

Ilyas et al. 2020 ("A closer look at deep policy gradients", arXiv 1811.02553) asked whether what PPO and TRPO compute
is an estimate of the gradient of the reward, and found that at the sample sizes in use it hardly is. The code was never
published. Here the questions are asked again, with `workhorse diagnose`, of runs with the recipes of this project on
the v5 tasks: a million steps in iterations of 2,048, looked at before iterations 0, 150, 300 and 450. What is measured,
and how it differs from the paper, is in [Diagnose a run](tutorial/diagnose.md).
"""


# --- the claims ---


def claims_table(rows: list[dict[str, Any]]) -> list[str]:
    """What was published, what is measured here, and whether it holds up: by the interval, where there is one."""
    lines = ["| published | here | |", "|---|---|---|"]
    for published, here, verdict in claims(rows):
        lines.append(f"| {published} | {here} | **{verdict}** |")
    return lines


def claims(rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Every claim with its number and verdict. Intervals are over runs."""
    own = over_runs(rows, "gradients", later(lambda record: at(record, OWN)["cosine"]))
    fall = over_runs(rows, "gradients", lambda records: at(records[-1], OWN)["cosine"] - at(records[0], OWN)["cosine"])
    late = over_runs(rows, "gradients", lambda records: at(records[-1], OWN)["cosine"] - at(records[1], OWN)["cosine"])
    by_task = {
        task: [later(lambda record: at(record, OWN)["cosine"])(row["gradients"]) for row in rows if row["task"] == task]
        for task in ("Hopper-v5", "Humanoid-v5")
    }
    harder = difference_interval(by_task["Humanoid-v5"], by_task["Hopper-v5"])
    records = [record for row in rows for record in row["gradients"][1:]]
    chance = sum(at(record, OWN)["p_value"] > 0.05 for record in records)
    scales = [record["noise_scale"] for record in records]
    needed = [np.inf if scale is None else 9 * scale / OWN for scale in scales]
    steps = {
        (baseline, other): over_runs(rows, "baselines", later(step_of(baseline, other)))
        for baseline, other in (("agent", "none"), ("true", "agent"))
    }
    learnt = over_runs(rows, "values", later(lambda record: record["learnt"]["return_error"]))
    unseen = over_runs(rows, "values", later(lambda record: record["unseen"]["return_error"]))
    targets = over_runs(rows, "values", later(lambda record: record["unseen"]["own_error"]))
    apart = over_runs(
        rows, "values", later(lambda record: record["unseen"]["return_error"] - record["unseen"]["own_error"])
    )
    jagged, smooth = (
        over_runs(rows, "landscape", later(lambda record, place=place: record["surfaces"][place]["smoothness"]))
        for place in (0, -1)
    )
    smoothed = over_runs(
        rows,
        "landscape",
        later(lambda record: record["surfaces"][-1]["smoothness"] - record["surfaces"][0]["smoothness"]),
    )
    found = [
        (
            "at the size in use estimates of the gradient hardly agree",
            f"mean cosine at {OWN:,} steps, iterations 150 to 450: {words(own)} (.5 is as much signal as noise)",
            below(own, 0.5),
        ),
        (
            "some are uncorrelated",
            f"no agreement at {OWN:,} steps (sign flips, p > .05) in {share(chance, len(records))} of looks",
            "holds" if chance else "not seen",
        ),
        ("agreement falls as training goes on", f"iteration 450 less iteration 0: {words(fall)}", below(fall)),
        ("... and goes on falling", f"iteration 450 less iteration 150: {words(late)}", below(late)),
        ("it is less on harder tasks", f"Humanoid less Hopper, iterations 150 to 450: {words(harder)}", below(harder)),
        (
            "several times the steps in use are needed",
            f"for a cosine of .9, median of iterations 150 to 450: {np.median(needed):.0f} times",
            "holds" if np.median(needed) > 2 else "refuted",
        ),
        (
            "the agent's value function helps little beside no baseline",
            f"cosine at {most_steps(rows):,} steps, agent less none: {words(steps['agent', 'none'])}",
            "little"
            if steps["agent", "none"].high < 0.1
            else "refuted"
            if steps["agent", "none"].low > 0.1
            else "open",
        ),
        (
            "... and a true one helps much more",
            f"true less agent: {words(steps['true', 'agent'])}",
            above(steps["true", "agent"]),
        ),
        (
            "on fresh states the value function is off by about 50 % of the return",
            f"mean of abs(V - return) / abs(return): {words(unseen)} fresh, {words(learnt)} on the steps just learnt",
            "holds" if unseen.low <= 0.5 <= unseen.high else "less" if unseen.high < 0.5 else "more",
        ),
        (
            "... while on its own targets it is right",
            f"mean of abs(V - target) / abs(target), fresh: {words(targets)}; by returns less by targets: "
            f"{words(apart)}",
            above(apart),
        ),
        (
            "the landscape is jagged by 2,000 pairs a point, and smooth by more",
            f"smoothness {words(jagged)} by 2,000, {words(smooth)} by all",
            above(smoothed),
        ),
    ]
    for algorithm in dict.fromkeys(row["algorithm"] for row in rows):
        whole = [
            next(point for point in record["line"] if point["x"] == 1.0)["verdict"]
            for row in rows
            if row["algorithm"] == algorithm
            for record in row["landscape"][1:]
        ]
        counts = {verdict: whole.count(verdict) for verdict in ("raises", "lowers", "cannot be told")}
        found.append(
            (
                "late in training a step of ppo lowers the true reward; one of trpo, by enough pairs, does not",
                f"{algorithm}, iterations 150 to 450: raises {counts['raises']}, lowers {counts['lowers']}, cannot be "
                f"told {counts['cannot be told']} of {len(whole)}",
                "seen" if counts["lowers"] > counts["raises"] else "not seen",
            )
        )
    ppo = [
        {promise["quantity"]: promise for promise in row["trust_region"] if promise["batch"] == "held-out"}
        for row in rows
        if row["algorithm"] == "ppo"
    ]
    ratios = mean_interval([seen["greatest ratio"]["violations"] for seen in ppo])
    divergence = max(seen["mean KL"]["median"] for seen in ppo)
    found.append(
        (
            "ppo's ratios leave the region that its clip means, while the mean KL stays small",
            f"held-out, above 1 + clip in {words(ratios, '.0%')} of iterations; median KL at most {divergence:.3f}",
            above(ratios, 0.5),
        )
    )
    return found


def over_runs(rows: list[dict[str, Any]], part: str, number: Callable[[list[dict[str, Any]]], float]) -> Interval:
    """Mean over runs of a number of each run's records."""
    return mean_interval([number(row[part]) for row in rows])


def later(number: Callable[[dict[str, Any]], float]) -> Callable[[list[dict[str, Any]]], float]:
    """Mean of a number over all iterations but the first."""
    return lambda records: float(np.mean([number(record) for record in records[1:]]))


def at(record: dict[str, Any], samples: int) -> dict[str, Any]:
    """The row of the size next to this."""
    return min(record["gradients"], key=lambda row: abs(row["samples"] - samples))


def step_of(baseline: str, other: str) -> Callable[[dict[str, Any]], float]:
    """What a baseline gains on another at the most steps, with the run's own trace."""

    def gain(record: dict[str, Any]) -> float:
        _, own = largest(record)
        return own[baseline]["cosine"] - own[other]["cosine"]

    return gain


def largest(record: dict[str, Any]) -> tuple[int, dict[str, dict[str, Any]]]:
    """The most steps of an estimate, and the rows of that size with the run's own trace, by baseline."""
    most = max(each["samples"] for each in record["rows"])
    own = (each for each in record["rows"] if (each["returns"], each["samples"]) == ("own", most))
    return most, {each["baseline"]: each for each in own}


def most_steps(rows: list[dict[str, Any]]) -> int:
    return max(largest(record)[0] for row in rows for record in row["baselines"])


def words(interval: Interval, form: str = ".2f") -> str:
    return f"{interval.value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def share(events: int, trials: int) -> str:
    interval = proportion_interval(events, trials)
    return f"{events} of {trials} [{interval.low:.0%}, {interval.high:.0%}]"


def below(interval: Interval, limit: float = 0.0) -> str:
    return "holds" if interval.high < limit else "refuted" if interval.low > limit else "open"


def above(interval: Interval, limit: float = 0.0) -> str:
    return "holds" if interval.low > limit else "refuted" if interval.high < limit else "open"


# --- the tables ---


def landscape_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| task | algorithm | seed | iteration | return | half a step | a step | two | smoothness by 2,000 | by all |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for record in row["landscape"]:
            first, *others = record["line"]
            changes = " | ".join(f"{one['change']:+.0f} [{one['low']:+.0f}, {one['high']:+.0f}]" for one in others)
            few, many = record["surfaces"][0]["smoothness"], record["surfaces"][-1]["smoothness"]
            lines.append(
                f"| {row['task']} | {row['algorithm']} | {row['seed']} | {record['iteration']} | "
                f"{first['reward']:.0f} | {changes} | {few:.2f} | {many:.2f} |"
            )
    return lines


def cell(record: dict[str, Any], samples: int) -> str:
    row = at(record, samples)
    return f"{row['cosine']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def gradients_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| task | algorithm | seed | iteration | cosine at 2,048 [95 %] | at the most steps measured | steps for "
        ".5 | for .9 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for record in row["gradients"]:
            most, scale = record["gradients"][-1]["samples"], record["noise_scale"]
            needed = ("-", "-") if scale is None else (f"{scale:,.0f}", f"{9 * scale:,.0f}")
            cells = (row["task"], row["algorithm"], row["seed"], record["iteration"], cell(record, OWN))
            lines.append(f"| {' | '.join(map(str, cells))} | {cell(record, most)} at {most:,} | {' | '.join(needed)} |")
    return lines


def baselines_table(rows: list[dict[str, Any]]) -> list[str]:
    names = ("none", "constant", "agent", "true")
    lines = [
        f"| task | algorithm | seed | iteration | {' | '.join(names)} | true over agent [95 %] | variance, agent "
        "/ constant |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for record in row["baselines"]:
            most, own = largest(record)
            cosines = " | ".join(f"{own[name]['cosine']:.2f}" for name in names)
            step = next(s for s in record["steps"] if _is(s, "own", most, "true", "agent"))
            less = next(s for s in record["steps"] if _is(s, "whole", most, "agent", "constant"))
            lines.append(
                f"| {row['task']} | {row['algorithm']} | {row['seed']} | {record['iteration']} | {cosines} | "
                f"{step['difference']:+.2f} [{step['low']:.2f}, {step['high']:.2f}] | {less['ratio']:.2g} "
                f"[{less['ratio_low']:.2g}, {less['ratio_high']:.2g}] |"
            )
    return lines


def _is(step: dict[str, Any], returns: str, samples: int, baseline: str, other: str) -> bool:
    return (step["returns"], step["samples"], step["baseline"], step["other"]) == (returns, samples, baseline, other)


def values_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| task | algorithm | seed | iteration | own targets | single returns | truth | explains of the truth | off "
        "from the truth after the update, on steps learnt from | on fresh ones |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for record in row["values"]:
            shares = [record[name] for name in ("own_error", "return_error", "truth_error", "truth_explained")]
            shares += [record[name]["truth_error"] for name in ("learnt", "unseen")]
            cells = " | ".join("-" if share is None else f"{share:.2f}" for share in shares)
            lines.append(f"| {row['task']} | {row['algorithm']} | {row['seed']} | {record['iteration']} | {cells} |")
    return lines


def trust_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| task | algorithm | seed | mean KL, held-out, median | greatest ratio, held-out, median | above 1 + "
        "clip, or max_kl |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        seen = {promise["quantity"]: promise for promise in row["trust_region"] if promise["batch"] == "held-out"}
        kl, ratio = seen["mean KL"], seen["greatest ratio"]
        limited = ratio if ratio["limit"] is not None else kl
        share = "-" if limited["limit"] is None else f"{limited['violations']:.0%} of iterations"
        lines.append(
            f"| {row['task']} | {row['algorithm']} | {row['seed']} | {kl['median']:.3f} | {ratio['median']:.2f} | "
            f"{share} |"
        )
    return lines


def write_page(found: dict[str, Any]) -> None:
    """The page and its figure."""
    rows, machine = found["rows"], found["machine"]
    draw(rows)
    parts = [
        BEFORE,
        f"`{found['made_by']}`, {found['date']}, {machine['cores']} cores of {machine['cpu']}.\n",
        "![Cosine of two gradient estimates against their size](images/gradients.png)\n",
        "## What was claimed, and what was found\n",
        *claims_table(rows),
        "\n## Do estimates agree?\n",
        *gradients_table(rows),
        "\n## What does the value function do for it?\n",
        "Cosine of two estimates at the most steps measured, with the run's own trace, by what is subtracted: "
        "nothing, the "
        "mean return, the run's value function, and a fresh network fitted to the frozen policy's returns. The "
        "last column "
        "is of whole returns, where only the baseline differs.\n",
        *baselines_table(rows),
        "\n## How wrong is the value function?\n",
        "Mean of |V - target| / |target| on states never trained on. The truth is a mean over returns from the "
        "restored "
        "state.\n",
        *values_table(rows),
        "\n## Does a step raise the true reward?\n",
        "The change of the mean return by half an update, a whole one and two, on common random numbers, and how "
        "smooth the "
        "plane is by 2,000 pairs a point and by all of them (1: no noise between neighbours; a grid of 5 x 5).\n",
        *landscape_table(rows),
        "\n## Is the trust region kept?\n",
        *trust_table(rows),
    ]
    (DOCS / "gradients.md").write_text("\n".join(parts) + "\n")


def draw(rows: list[dict[str, Any]]) -> None:
    """Cosine against steps, a panel for each task and algorithm, a colour for each iteration."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    tasks, algorithms = (list(dict.fromkeys(row[name] for row in rows)) for name in ("task", "algorithm"))
    size = (4.2 * len(tasks), 3.0 * len(algorithms))
    figure, axes = plt.subplots(
        len(algorithms), len(tasks), figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    iterations = [record["iteration"] for record in rows[0]["gradients"]]
    colours = dict(zip(iterations, ("#9ecae1", "#4292c6", "#08519c", "#041f4a"), strict=True))
    for row in rows:
        panel = axes[algorithms.index(row["algorithm"])][tasks.index(row["task"])]
        for record in row["gradients"]:
            x, y, low, high = (
                [each[name] for each in record["gradients"]] for name in ("samples", "cosine", "low", "high")
            )
            colour = colours[record["iteration"]]
            panel.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)
            panel.plot(
                x, y, color=colour, lw=1.4, label=f"iteration {record['iteration']}" if row["seed"] == 0 else None
            )
        panel.axvline(OWN, color="#1f2933", lw=0.8, ls="--")
        panel.set_xscale("log")
        panel.set_ylim(-0.3, 1)
        panel.set_title(f"{row['task']}, {row['algorithm']}", fontsize=10, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    for panel in axes[-1]:
        panel.set_xlabel("steps of an estimate", fontsize=9)
    for line in axes:
        line[0].set_ylabel("mean cosine of two", fontsize=9)
    axes[0][0].legend(fontsize=8, frameon=False)
    figure.savefig(DOCS / "images" / "gradients.png", dpi=150)
