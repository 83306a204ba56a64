"""Figures of README and documentation from bench/results: `python bench/figures.py`."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from tables import noise_scale, read, reference_scale

from workhorse.statistics.intervals import Interval, mean_interval, proportion_interval

IMAGES = Path(__file__).parent.parent / "docs" / "images"
COLUMNS = 3
INK, LINE, BAND = "#1f2933", "#00796b", "#80cbc4"


def over_seeds(curves: list[np.ndarray]) -> tuple[np.ndarray, list[Interval]]:
    """Million steps of evaluations, and the mean return over seeds at each."""
    count = min(len(points) for points in curves)
    steps = np.mean([points[:count, 0] for points in curves], axis=0) / 1e6
    return steps, [mean_interval([points[row, 1] for points in curves]) for row in range(count)]


def curve(axes: Axes, result: dict, title: str, threshold: float | None, said: str) -> None:
    """Every seed as a thin line, the mean over seeds as a thick one, its 95 % interval as a band."""
    curves = [np.array(run["curve"]) for run in result["runs"] if run["curve"]]
    for points in curves:
        axes.plot(points[:, 0] / 1e6, points[:, 1], color=LINE, linewidth=0.6, alpha=0.5)
    steps, intervals = over_seeds(curves)
    axes.fill_between(steps, [i.low for i in intervals], [i.high for i in intervals], color=BAND, alpha=0.5, lw=0)
    axes.plot(steps, [i.value for i in intervals], color=LINE, linewidth=2)
    if threshold is not None:
        axes.axhline(threshold, color=INK, linewidth=0.8, linestyle="--")
        axes.text(
            0.98, threshold, said, fontsize=8, color=INK, ha="right", va="bottom", transform=axes.get_yaxis_transform()
        )
    axes.set_title(f"{title}, {len(curves)} seeds", fontsize=11, color=INK, loc="left")
    axes.set_xlabel("million environment steps", fontsize=9)
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


PANELS = [
    ("half-cheetah-default", "HalfCheetah-v5, default recipe", 2386, "published ES threshold 2,386"),
    ("half-cheetah-ars", "HalfCheetah-v5, ARS", 4398, "best public replication 4,398 (v3)"),
    ("hopper", "Hopper-v5", 3320, "best public replication 3,320 (v3)"),
    ("swimmer", "Swimmer-v5", 241, "best public replication 241 (v3)"),
    ("walker2d", "Walker2d-v5, ARS", 3830, "published ES threshold 3,830"),
    ("walker2d-pgpe", "Walker2d-v5, PGPE", 3830, "published ES threshold 3,830"),
]


GRADIENTS = {"ppo": LINE, "trpo+": "#ef6c00", "ppo-m": "#5e35b1", "ppo-noclip": "#c2185b", "trpo": "#6d4c41"}
GRADIENT_TASKS = ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5")


def policy_gradients() -> None:
    """A panel a task: of every algorithm that was measured there, the mean over seeds and its 95 % interval."""
    figure, panels = plt.subplots(1, len(GRADIENT_TASKS), figsize=(12.6, 3.8), layout="constrained")
    handles = {}
    for panel, task in zip(panels, GRADIENT_TASKS, strict=True):
        for name, colour in GRADIENTS.items():
            found = read(f"learning-{name}-{task.split('-')[0].lower()}")
            if found is None:
                continue
            curves = [np.array(run["curve"]) for run in found["runs"] if run["curve"]]
            steps, intervals = over_seeds(curves)
            panel.fill_between(steps, [i.low for i in intervals], [i.high for i in intervals], color=colour, alpha=0.15)
            (handles[name],) = panel.plot(steps, [i.value for i in intervals], color=colour, lw=1.8)
        panel.set_title(task, fontsize=11, color=INK, loc="left")
        panel.set_xlabel("million environment steps", fontsize=9)
        panel.set_xlim(left=0)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    panels[0].set_ylabel("return, likeliest action, raw reward", fontsize=9)
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=5, fontsize=9, frameon=False)
    figure.savefig(IMAGES / "policy_gradients.png", dpi=150)
    print(IMAGES / "policy_gradients.png")


def batch_sizes(found: dict) -> None:
    """A panel a task: seeds that solve it, of runs with one learning rate and with a scaled one, and the cosine."""
    width = len(found["tasks"])
    figure, panels = plt.subplots(1, width, figsize=(4.2 * width, 3.6), sharey=True, layout="constrained")
    for panel, (task, about) in zip(panels, found["tasks"].items(), strict=True):
        for scaled, colour, label in (
            (False, LINE, "solved, one learning rate"),
            (True, "#ef6c00", "solved, rate times root of the size"),
        ):
            rows = [row for row in found["rows"] if (row["task"], row["scaled"]) == (task, scaled)]
            counts = [sum(mean >= about["solved"] for mean in row["means"]) for row in rows]
            shares = [proportion_interval(n, len(row["means"])) for n, row in zip(counts, rows, strict=True)]
            sizes = [row["size"] * (1.05 if scaled else 1) for row in rows]
            value = np.array([share.value for share in shares])
            ends = [value - [share.low for share in shares], [share.high for share in shares] - value]
            style = {"lw": 1.8, "elinewidth": 0.8, "capsize": 2, "marker": "o", "ms": 3.5}
            panel.errorbar(sizes, value, ends, color=colour, label=label, **style)
        rows = [row for row in found["rows"] if (row["task"], row["scaled"]) == (task, False)]
        measured = [noise_scale(row) for row in rows]
        predicted = [reference_scale(found["rows"], task)] * len(rows)
        for scales, marker, label in ((measured, "x", "cosine, measured"), (predicted, "", "predicted by one size")):
            cosines = [1 / (1 + scale / row["size"]) for scale, row in zip(scales, rows, strict=True)]
            style = {"ls": "", "marker": marker, "ms": 5} if marker else {"ls": ":", "lw": 1.2}
            panel.plot([row["size"] for row in rows], cosines, color=INK, label=label, **style)
        panel.set_xscale("log", base=2)
        panel.set_xticks([row["size"] for row in rows], [f"{row['size']:,}" for row in rows], rotation=40)
        panel.set_ylim(-0.03, 1.03)
        panel.set_title(f"{task}, {about['env_steps']:,} steps", fontsize=11, color=INK, loc="left")
        panel.set_xlabel("steps an iteration", fontsize=9)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    panels[0].set_ylabel("share of seeds; cosine", fontsize=9)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize=8, frameon=False
    )
    figure.savefig(IMAGES / "batch_size.png", dpi=150)
    print(IMAGES / "batch_size.png")


def logs(found: dict) -> None:
    """Learning from a fixed log the naive way: returns that come up and fall, and values above what can be."""
    figure, grid = plt.subplots(2, 2, figsize=(9, 5.4), sharex=True, sharey="row", squeeze=False)
    for column, cell in enumerate(found["cells"]):
        rows = "1,000,000" if cell["log"].endswith("1000000") else "100,000"
        above, below = grid[0, column], grid[1, column]
        for run in cell["runs"]:
            points = np.array(run["curve"])
            above.plot(points[:, 0] / 1000, points[:, 1], color=LINE, linewidth=0.8, alpha=0.7)
            below.plot(points[:, 0] / 1000, run["measures"]["policy_value"], color="#c2185b", linewidth=0.8, alpha=0.7)
        for value, words in ((cell["references"]["expert"], "the expert"), (cell["references"]["random"], "random")):
            above.axhline(value, color=INK, linewidth=0.8, linestyle="--")
            above.text(0.98, value, words, fontsize=8, ha="right", va="bottom", transform=above.get_yaxis_transform())
        below.axhline(0, color=INK, linewidth=1, linestyle="--")
        below.text(
            0.98, -1, "no value can be above 0", fontsize=8, ha="right", va="top", transform=below.get_yaxis_transform()
        )
        below.set_yscale("symlog", linthresh=10)
        above.set_title(f"{rows} rows, {len(cell['runs'])} seeds", fontsize=11, color=INK, loc="left")
        below.set_xlabel("thousand updates", fontsize=9)
    grid[0, 0].set_ylabel("return in the task", fontsize=9)
    grid[1, 0].set_ylabel("value of the policy's actions", fontsize=9)
    for axes in grid.ravel():
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    figure.tight_layout()
    figure.savefig(IMAGES / "log_naive.png", dpi=130)
    plt.close(figure)
    print(IMAGES / "log_naive.png")


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    policy_gradients()
    sizes = read("batch_size")
    if sizes is not None:
        batch_sizes(sizes)
    naive = read("offline-phenomenon")
    if naive is not None:
        logs(naive)
    found = [
        (result, title, threshold, said)
        for suite, title, threshold, said in PANELS
        if (result := read(f"learning-{suite}")) is not None
    ]
    rows = -(-len(found) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(4.2 * COLUMNS, 3.2 * rows), squeeze=False, layout="constrained")
    for panel, (result, title, threshold, said) in zip(axes.flat, found, strict=False):
        curve(panel, result, title, threshold, said)
    for panel in axes.flat[len(found) :]:
        panel.set_visible(False)
    for line in axes:
        line[0].set_ylabel("return, noiseless, raw reward", fontsize=9)
    figure.savefig(IMAGES / "learning_curve.png", dpi=150)
    print(IMAGES / "learning_curve.png")


if __name__ == "__main__":
    main()
