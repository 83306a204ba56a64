"""Are deep policy gradients policy gradients? `python bench/gradients.py [--runs FOLDER]`.

PPO and TRPO on three tasks, a million steps in iterations of 2,048, and then `diagnose` at iterations 0, 150, 300 and
450 of each run: how far gradient estimates agree, what the value function is worth, what the trust region was. A run
that is there is not trained again, and what was diagnosed is not diagnosed again, so the script may be interrupted.
The page docs/gradients.md and its figure are made of the results by `python bench/gradients.py --page`.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from record import head

from workhorse.cli.main import main as workhorse
from workhorse.diagnostics.trust_region import trust_region
from workhorse.runs import checkpoint
from workhorse.runs.folder import RunFolder
from workhorse.runs.history import kept_iterations, opened

TASKS = ("Hopper-v5", "Walker2d-v5", "Humanoid-v5")
ALGORITHMS = {"ppo": [], "trpo+": ["--rollout-steps", "64", "--minibatch-size", "2048"]}
ITERATIONS = (0, 150, 300, 450)
HERE = Path(__file__).parent
RESULT = HERE / "results" / "gradients.json"


def trained(task: str, algorithm: str, seed: int, root: Path) -> Path:
    """A finished run, trained on one thread or gone on with."""
    folder = root / f"{algorithm}-{task.split('-')[0].lower()}-s{seed}"
    status = RunFolder(folder).status()
    if status is not None and status.state == "finished":
        return folder
    if (folder / "manifest.json").exists():
        words = ["resume", str(folder)]
    else:
        words = ["train", task, "--algorithm", algorithm, "--env-steps", "1e6", "--seed", str(seed)]
        words += [*ALGORITHMS[algorithm], "--runs", str(root), "--id", folder.name]
    subprocess.run([sys.executable, "-m", "workhorse.cli.main", *words, "--threads", "1", "--quiet"], check=True)
    return folder


def keep(folder: Path) -> None:
    """Compute the states of the iterations again that the run did not keep, each proved by its digest."""
    with opened(folder) as history:
        for iteration in ITERATIONS:
            if iteration not in kept_iterations(history.folder):
                checkpoint.save(history.folder, iteration, history.at(iteration), {}, "milestones")


def diagnosed(folder: Path, budget: int) -> dict[str, Any]:
    """What `diagnose` finds."""
    keep(folder)
    at = [str(iteration) for iteration in ITERATIONS]
    parts = ["gradients", "values", "baselines"]
    if workhorse(["diagnose", str(folder), "--at", *at, "--only", *parts, "--budget", str(budget)]):
        raise SystemExit(f"{folder} could not be diagnosed.")
    found: dict[str, Any] = {
        part: [json.loads((folder / "diagnostics" / f"{part}-{number}.json").read_bytes()) for number in ITERATIONS]
        for part in parts
    }
    found["trust_region"] = [promise._asdict() for promise in trust_region(RunFolder.open(folder))]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--budget", type=int, default=1_000_000, help="steps of each part at each iteration")
    parser.add_argument("--runs", type=Path, default=Path("runs/gradients"))
    parser.add_argument("--page", action="store_true", help="only write the page of what was measured")
    arguments = parser.parse_args()
    if arguments.page:
        write_page(json.loads(RESULT.read_text()))
        return
    jobs = [
        (task, algorithm, seed)
        for task in arguments.tasks
        for algorithm in ALGORITHMS
        for seed in range(arguments.seeds)
    ]
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda job: trained(*job, arguments.runs), jobs))
    rows = []
    for (task, algorithm, seed), folder in zip(jobs, folders, strict=True):
        found = diagnosed(folder, arguments.budget)
        rows.append({"task": task, "algorithm": algorithm, "seed": seed, **found})
    found = {
        **head(f"python bench/gradients.py --seeds {arguments.seeds} --budget {arguments.budget}"),
        "rows": rows,
    }
    RESULT.write_text(json.dumps(found, indent=1))
    write_page(found)


# --- the page ---

BEFORE = """# Are deep policy gradients policy gradients?

Ilyas et al. 2020 ("A closer look at deep policy gradients", arXiv 1811.02553) asked whether what PPO and TRPO compute
is an estimate of the gradient of the reward, and found that at the sample sizes in use it hardly is. The code was never
published. Here the questions are asked again, with `workhorse diagnose`, of runs with the recipes of this project on
the v5 tasks: a million steps in iterations of 2,048, looked at before iterations 0, 150, 300 and 450. What is measured,
and how it differs from the paper, is in [Diagnose a run](tutorial/diagnose.md).
"""


def cell(record: dict[str, Any], samples: int) -> str:
    row = min(record["gradients"], key=lambda row: abs(row["samples"] - samples))
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
            cells = (row["task"], row["algorithm"], row["seed"], record["iteration"], cell(record, 2048))
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
            most = max(each["samples"] for each in record["rows"])
            own = {
                each["baseline"]: each for each in record["rows"] if (each["returns"], each["samples"]) == ("own", most)
            }
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
        "| task | algorithm | seed | iteration | own targets | single returns | truth | explains of the truth |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        for record in row["values"]:
            shares = (record[name] for name in ("own_error", "return_error", "truth_error", "truth_explained"))
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
        "## Do estimates agree?\n",
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
        "\n## Is the trust region kept?\n",
        *trust_table(rows),
    ]
    (HERE.parent / "docs" / "gradients.md").write_text("\n".join(parts) + "\n")


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
    colours = dict(zip(ITERATIONS, ("#9ecae1", "#4292c6", "#08519c", "#041f4a"), strict=True))
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
        panel.axvline(2048, color="#1f2933", lw=0.8, ls="--")
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
    figure.savefig(HERE.parent / "docs" / "images" / "gradients.png", dpi=150)


if __name__ == "__main__":
    main()
