"""Figures of README and documentation from bench/results: `python bench/figures.py`."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from workhorse.statistics.intervals import mean_interval

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"
COLUMNS = 3
INK, LINE, BAND = "#1f2933", "#00796b", "#80cbc4"


def curve(axes: plt.Axes, result: dict, title: str, threshold: float | None, said: str) -> None:
    """Every seed as a thin line, the mean over seeds as a thick one, its 95 % interval as a band."""
    curves = [np.array(run["curve"]) for run in result["runs"] if run["curve"]]
    for points in curves:
        axes.plot(points[:, 0] / 1e6, points[:, 1], color=LINE, linewidth=0.6, alpha=0.5)
    count = min(len(points) for points in curves)
    steps = np.mean([points[:count, 0] for points in curves], axis=0) / 1e6
    intervals = [mean_interval([points[row, 1] for points in curves]) for row in range(count)]
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
    ("walker2d", "Walker2d-v5", 3830, "published ES threshold 3,830"),
]


def main() -> None:
    found = []
    for suite, *rest in PANELS:
        file = HERE / "results" / f"learning-{suite}.json"
        if file.exists():
            found.append((json.loads(file.read_text()), *rest))
    IMAGES.mkdir(exist_ok=True)
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
