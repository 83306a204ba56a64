"""Coverage of a study's intervals and error of its verdicts, by simulation: `python bench/coverage.py`.

For three shapes of scores: *normal* N(100, 15); *two modes*, half N(1000, 50) and half N(3000, 200); *one in four
fails*, a quarter N(100, 10) and the rest N(3000, 200). Every number is a share of simulated studies, with Clopper and
Pearson's 95 % interval. Beside what the package does stands what it did before: Tukey and McLaughlin's trimmed t for
the IQM, Student's t for the mean, Welch's t for the verdict.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from record import head
from scipy.special import stdtr, stdtrit

from workhorse.statistics.intervals import iqm_interval, mean_interval, proportion_interval, score_interval
from workhorse.statistics.permutation import LEAST_COMPARED, look_shares, permutation_p_values

HERE = Path(__file__).parent
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
MOST_SEEDS = 40
"""Seeds at which the budget of a simulated `until` is spent."""


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.normal(100, 15, shape)


def two_modes(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.where(rng.random(shape) < 0.5, rng.normal(1000, 50, shape), rng.normal(3000, 200, shape))


def one_in_four_fails(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return np.where(rng.random(shape) < 0.25, rng.normal(100, 10, shape), rng.normal(3000, 200, shape))


SHAPES: dict[str, tuple[Draw, float]] = {
    "normal": (normal, 100.0),
    "two modes": (two_modes, 2000.0),
    "one in four fails": (one_in_four_fails, 2275.0),
}


def share(hits: np.ndarray) -> list[float]:
    found = proportion_interval(int(hits.sum()), len(hits))
    return [found.value, found.low, found.high]


def trimmed_t(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tukey and McLaughlin's interval of the IQM, for every row."""
    count = samples.shape[1]
    cut = count // 4
    ascending = np.sort(samples, 1)
    kept = ascending[:, cut : count - cut]
    winsorised = np.clip(ascending, kept[:, :1], kept[:, -1:])
    rest = kept.shape[1]
    squares = ((winsorised - winsorised.mean(1, keepdims=True)) ** 2).sum(1)
    half = stdtrit(rest - 1, 0.975) * np.sqrt(squares / (rest * (rest - 1)))
    return kept.mean(1) - half, kept.mean(1) + half


def coverage(times: int) -> list[dict]:
    rng, rows = np.random.default_rng(0), []
    for shape, (draw, mean) in SHAPES.items():
        many = np.sort(draw(rng, (4_000_000,)))
        iqm = float(many[1_000_000:3_000_000].mean())
        for size in (5, 7, 10, 15, 20):
            samples = draw(rng, (times, size))
            ends = {
                "IQM, percentiles of resamples": (np.array([iqm_interval(row)[1:3] for row in samples]).T, iqm),
                "IQM, trimmed t (before)": (trimmed_t(samples), iqm),
                "mean, t or bootstrap": (np.array([score_interval(row)[1:3] for row in samples]).T, mean),
                "mean, Student t (before)": (np.array([mean_interval(row)[1:3] for row in samples]).T, mean),
            }
            for name, ((low, high), truth) in ends.items():
                covered = share((low <= truth) & (truth <= high))
                rows.append({"scores": shape, "interval": name, "runs": size, "covers": covered})
                print(shape, name, size, covered, flush=True)
    return rows


def welch(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the p values of Welch's t for every row."""
    own, others = x.var(1, ddof=1) / x.shape[1], y.var(1, ddof=1) / y.shape[1]
    freedom = (own + others) ** 2 / (own**2 / (x.shape[1] - 1) + others**2 / (y.shape[1] - 1))
    return 2 * stdtr(freedom, -np.abs(x.mean(1) - y.mean(1)) / np.sqrt(own + others))


def verdicts(times: int) -> list[dict]:
    """Equal variants, Holm over the pairs: a false verdict is any p below .05 / pairs. And the power at a shift."""
    rng, rows = np.random.default_rng(1), []
    for shape, (draw, _) in SHAPES.items():
        spread = draw(rng, (100_000,)).std()
        for size, studies in ((3, times), (5, times), (10, times // 2)):
            for pairs in (1, 3, 6):
                for shift in (0.0, 1.5):
                    x, y = draw(rng, (studies * pairs, size)) + shift * spread, draw(rng, (studies * pairs, size))
                    row = {"scores": shape, "seeds": size, "pairs": pairs, "shift_sd": shift}
                    level = 0.05 / pairs
                    row["welch"] = share(welch(x, y).reshape(studies, pairs).min(1) < level)
                    refused = size < LEAST_COMPARED
                    p = np.ones(len(x)) if refused else permutation_p_values(x, y)
                    row["permutation"] = None if refused else share(p.reshape(studies, pairs).min(1) < level)
                    rows.append(row)
                    print(row, flush=True)
    return rows


def until(times: int) -> list[dict]:
    """`until mean_return width < w`: seeds added by fives to each of two variants until its interval is narrow."""
    rng, rows = np.random.default_rng(2), []
    for shape, (draw, mean) in SHAPES.items():
        spread = draw(rng, (100_000,)).std()
        for first, width in ((5, 2.0), (5, 1.0), (10, 1.0)):
            sizes = list(range(first, MOST_SEEDS + 1, 5))
            for shift in (0.0, 1.0):
                x, y = draw(rng, (times, MOST_SEEDS)) + shift * spread, draw(rng, (times, MOST_SEEDS))
                runs = [np.array([ended(row, sizes, first, width * spread) for row in side]) for side in (x, y)]
                common, p = np.minimum(*runs), np.ones(times)
                for size, part in zip(sizes, look_shares(sizes), strict=True):
                    there = np.flatnonzero(common >= size)
                    if len(there):
                        p[there] = np.minimum(p[there], permutation_p_values(x[there, :size], y[there, :size]) / part)
                plain = np.array([welch(a[None, :n], b[None, :m])[0] for a, b, n, m in zip(x, y, *runs, strict=True)])
                row = {"scores": shape, "first": first, "width_sd": width, "shift_sd": shift}
                row |= {"seeds": float(np.mean(runs[0])), "welch": share(plain < 0.05), "looks": share(p < 0.05)}
                row |= {"first_only": share(permutation_p_values(x[:, :first], y[:, :first]) < 0.05)}
                for name, make in (("covers", score_interval), ("covers_before", student)):
                    ends = np.array([make(one[:n], first=first)[1:3] for one, n in zip(y, runs[1], strict=True)])
                    row[name] = share((ends[:, 0] <= mean) & (mean <= ends[:, 1]))
                rows.append(row)
                print(row, flush=True)
    return rows


def student(sample: np.ndarray, first: int) -> tuple:
    return mean_interval(sample)


def ended(scores: np.ndarray, sizes: list[int], first: int, width: float) -> int:
    """Seeds at which the interval of a variant is narrow, or the budget spent."""
    for size in sizes:
        found = score_interval(scores[:size], first=first)
        if found.high - found.low <= width:
            return size
    return sizes[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=4_000, help="simulated studies for each number")
    arguments = parser.parse_args()
    record = {
        **head(f"python bench/coverage.py --times {arguments.times}"),
        "times": arguments.times,
        "coverage": coverage(arguments.times),
        "verdicts": verdicts(arguments.times),
        "until": until(arguments.times // 4),
    }
    (HERE / "results" / "coverage.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
