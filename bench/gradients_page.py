"""The page docs/gradients.md and its figure, made of what `bench/gradients.py` measured."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from workhorse.statistics.intervals import Interval, difference_interval, mean_interval

DOCS = Path(__file__).parent.parent / "docs"
OWN = 2048
"""Steps of an iteration."""

LITTLE = 0.1
"""A cosine, or a difference of two, that is next to nothing."""

BEFORE = """# Are deep policy gradients policy gradients?

Ilyas et al. 2020 ("A closer look at deep policy gradients", arXiv 1811.02553) asked whether what PPO and TRPO compute
is an estimate of the gradient of the reward, and found that at the sample sizes in use it hardly is. The code was never
published. Here the questions are asked again, with `workhorse diagnose`, of runs on the v5 tasks with the recipes of
this project, `trpo+` in iterations of 2,048 steps as `ppo`, twice its recipe's: a million steps, looked at before
iterations 0, 150, 300 and 450. What is measured, and how it differs from the paper, is in
[Diagnose a run](tutorial/diagnose.md).
"""

CLAIMS = """A run counts once, by its mean over iterations 150, 300 and 450 where nothing else is said. Intervals are
Student's t over the {count} runs, those of Humanoid, whose gradients alone were measured, only where it is about
gradients; so they speak of these tasks and algorithms together. A verdict is given only where the interval lies on one
side of the bound in brackets, else the question is open.
"""


# --- the claims ---


def claims_table(rows: list[dict[str, Any]]) -> list[str]:
    """Return a table of published claims, what is measured here, and a verdict by the interval, where there is one."""
    lines = ["| published | here | |", "|---|---|---|"]
    for published, here, verdict in claims(rows):
        lines.append(f"| {published} | {here} | **{verdict}** |")
    return lines


def claims(rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Every claim with its number and verdict."""
    return [*gradient_claims(rows), *value_claims(rows), *landscape_claims(rows), trust_claim(rows)]


def gradient_claims(rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    own = over_runs(rows, "gradients", later(cosine))
    fall = over_runs(rows, "gradients", lambda records: cosine(records[-1]) - cosine(records[0]))
    late = over_runs(rows, "gradients", lambda records: cosine(records[-1]) - cosine(records[1]))
    hopper, humanoid = (
        [later(cosine)(row["gradients"]) for row in rows if row["task"] == task]
        for task in ("Hopper-v5", "Humanoid-v5")
    )
    harder = difference_interval(humanoid, hopper)
    looks = [at(record, OWN) for row in rows for record in row["gradients"][1:]]
    none = sum(look["high"] < LITTLE for look in looks)
    scales = [number(record["noise_scale"]) for row in rows for record in row["gradients"][1:]]
    needed = float(np.median([np.inf if np.isnan(scale) else 9 * scale / OWN for scale in scales]))
    times = f"{needed:.0f} times" if np.isfinite(needed) else "more than was looked at"
    return [
        (
            "at the size in use estimates of the gradient hardly agree",
            f"mean cosine of two at {OWN:,} steps: {words(own)} (.5: as much signal as noise)",
            below(own, 0.5),
        ),
        (
            "some are all but uncorrelated",
            f"the interval of the cosine is below {LITTLE} in {none} of {len(looks)} looks",
            "seen" if none else "not seen",
        ),
        ("agreement falls as training goes on", f"iteration 450 less iteration 0: {words(fall)} (0)", below(fall)),
        ("... and goes on falling", f"iteration 450 less iteration 150: {words(late)} (0)", below(late)),
        (
            "it is less on harder tasks",
            f"Humanoid ({len(humanoid)} runs) less Hopper ({len(hopper)}): {words(harder)} (0)",
            below(harder),
        ),
        (
            "several times the steps in use are needed",
            f"for a cosine of .9, median over looks: {times}",
            "holds" if needed > 2 else "refuted",
        ),
    ]


def value_claims(rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    helps, more = (
        over_runs(rows, "baselines", later(step_of(baseline, other)))
        for baseline, other in (("agent", "none"), ("true", "agent"))
    )
    errors = {
        name: over_runs(rows, "values", later(lambda record, name=name: number(record["unseen"][name])))
        for name in ("own_error", "return_error")
    }
    learnt = over_runs(rows, "values", later(lambda record: number(record["learnt"]["return_error"])))
    returns, targets = errors["return_error"], errors["own_error"]
    sizes = sorted({largest(record)[0] for row in rows for record in row.get("baselines", [])})
    size = f"{sizes[0]:,} to {sizes[-1]:,}" if len(sizes) > 1 else f"{sizes[0]:,}"
    return [
        (
            "the agent's value function helps little beside no baseline",
            f"cosine of two at {size} steps, agent less none: {words(helps)} ({LITTLE})",
            below(helps, LITTLE),
        ),
        ("... and a true one helps much more", f"true less agent: {words(more)} ({LITTLE})", above(more, LITTLE)),
        (
            "on fresh states the value function is off by about 50 % of the return",
            f"mean of abs(V - G) / abs(G), G a return of about 700 steps, V one update later: {words(returns)} on "
            f"fresh states, {words(learnt)} on those just learnt from (.25 to .75)",
            "holds" if returns.low >= 0.25 and returns.high <= 0.75 else "less" if returns.high < 0.5 else "open",
        ),
        (
            "... while on its own targets it is right",
            f"the same of the targets of training, fresh: {words(targets)} (.25)",
            below(targets, 0.25),
        ),
    ]


def landscape_claims(rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    few, all_of_them = (
        over_runs(rows, "landscape", later(lambda record, place=place: number(record["surfaces"][place]["smoothness"])))
        for place in (0, -1)
    )
    jagged = below(few, 0.5)
    found = [
        (
            "the landscape is jagged by 2,000 pairs a point, and smooth by many",
            f"smoothness, the share of a point's difference from its neighbours that is no noise: {words(few)} by "
            f"2,000, {words(all_of_them)} by all (.5 between them)",
            above(all_of_them, 0.5) if jagged == "holds" else jagged,
        )
    ]
    said = {"ppo": "lowers", "trpo+": "raises"}
    for algorithm in dict.fromkeys(row["algorithm"] for row in rows):
        whole = [
            next(point for point in record["line"] if point["x"] == 1.0)["verdict"]
            for row in rows
            if row["algorithm"] == algorithm
            for record in row.get("landscape", [])[1:]
        ]
        counts = {verdict: whole.count(verdict) for verdict in ("raises", "lowers", "cannot be told")}
        other = "raises" if said[algorithm] == "lowers" else "lowers"
        found.append(
            (
                f"late in training a whole step of {algorithm} {said[algorithm]} the true reward",
                f"raises it in {counts['raises']}, lowers it in {counts['lowers']}, cannot be told in "
                f"{counts['cannot be told']} of {len(whole)} looks (a sign test at 5 %)",
                by_signs(counts[said[algorithm]], counts[other]),
            )
        )
    return found


def trust_claim(rows: list[dict[str, Any]]) -> tuple[str, str, str]:
    ppo = [
        {promise["quantity"]: promise for promise in row["trust_region"] if promise["batch"] == "held-out"}
        for row in rows
        if row["algorithm"] == "ppo"
    ]
    ratios = mean_interval([seen["greatest ratio"]["violations"] for seen in ppo])
    divergence = max(seen["mean KL"]["median"] for seen in ppo)
    return (
        "ppo's ratios leave the region that its clip means, while the mean KL stays small",
        f"held-out, over {len(ppo)} runs: above 1 + clip in {words(ratios, '.0%')} of iterations (half of them); "
        f"median of the mean KL at most {divergence:.3f} (.07, what trpo was allowed there)",
        above(ratios, 0.5) if divergence < 0.07 else "refuted",
    )


def number(value: float | None) -> float:
    """A number of a record; NaN where it says that there is none."""
    return float("nan") if value is None else float(value)


def cosine(record: dict[str, Any]) -> float:
    """Return the mean cosine of two gradients of the size in use."""
    return number(at(record, OWN)["cosine"])


def by_signs(for_it: int, against: int) -> str:
    """The verdict of a two-sided sign test."""
    if binomtest(for_it, for_it + against).pvalue > 0.05 if for_it + against else True:
        return "open"
    return "holds" if for_it > against else "refuted"


def over_runs(rows: list[dict[str, Any]], part: str, of: Callable[[list[dict[str, Any]]], float]) -> Interval:
    """Mean over runs of a number of each run's records; runs that have none are left out."""
    found = np.array([of(row[part]) for row in rows if part in row])
    return mean_interval(found[np.isfinite(found)])


def later(of: Callable[[dict[str, Any]], float]) -> Callable[[list[dict[str, Any]]], float]:
    """Mean of a number over all iterations but the first."""
    return lambda records: float(np.mean([of(record) for record in records[1:]]))


def at(record: dict[str, Any], samples: int) -> dict[str, Any]:
    """The row of the size next to this."""
    return min(record["gradients"], key=lambda row: abs(row["samples"] - samples))


def step_of(baseline: str, other: str) -> Callable[[dict[str, Any]], float]:
    """Return the gain of a baseline on another at the most steps, with the run's own trace."""

    def gain(record: dict[str, Any]) -> float:
        _, own = largest(record)
        return own[baseline]["cosine"] - own[other]["cosine"]

    return gain


def largest(record: dict[str, Any]) -> tuple[int, dict[str, dict[str, Any]]]:
    """The most steps of an estimate, and the rows of that size with the run's own trace, by baseline."""
    most = max(each["samples"] for each in record["rows"])
    own = (each for each in record["rows"] if (each["returns"], each["samples"]) == ("own", most))
    return most, {each["baseline"]: each for each in own}


def words(interval: Interval, form: str = ".2f") -> str:
    return f"{interval.value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


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
        for record in row.get("landscape", []):
            first, *others = record["line"]
            changes = " | ".join(f"{one['change']:+.0f} [{one['low']:+.0f}, {one['high']:+.0f}]" for one in others)
            few, many = (number(record["surfaces"][place]["smoothness"]) for place in (0, -1))
            lines.append(
                f"| {row['task']} | {row['algorithm']} | {row['seed']} | {record['iteration']} | "
                f"{first['reward']:.0f} | {changes} | {few:.2f} | {many:.2f} |"
            )
    return lines


def cell(record: dict[str, Any], samples: int) -> str:
    row = at(record, samples)
    return f"{number(row['cosine']):.2f} [{number(row['low']):.2f}, {number(row['high']):.2f}]"


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
        for record in row.get("baselines", []):
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
        for record in row.get("values", []):
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
        CLAIMS.format(count=len(rows)),
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
        "Mean of |V - target| / |target| on states never trained on. A single return is one of about 700 steps from "
        "the restored state, the truth the mean of several; both go on where the rollout ended.\n",
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
