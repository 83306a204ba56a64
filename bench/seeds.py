"""Coverage of intervals and errors of tests, by simulation: `python bench/seeds.py`.

Coverage of every interval, compared with the plain percentile bootstrap; how often a test of A against A rejects;
where adaptive sampling stops, compared with the usual rule of thumb; and the speed of the stratified bootstrap compared
with `rliable`, in an environment that this script makes, in turn on the same scores.
"""

import argparse
import json
import subprocess
import time
import venv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from record import head

from workhorse.statistics.adaptive import Cell, interval_of, next_batch
from workhorse.statistics.aggregates import aggregate_interval, iqm
from workhorse.statistics.comparison import sequential_test, welch_test
from workhorse.statistics.intervals import (
    Interval,
    bootstrap_interval,
    mean_interval,
    proportion_interval,
)

HERE = Path(__file__).parent
SCORES = HERE.parent / "tests" / "statistics" / "data" / "atari100k.parquet"
SIZES = (3, 5, 10, 20)

RLIABLE = """
import json, sys, time
import numpy as np
from rliable import library, metrics
scores = np.load(sys.argv[1])
resamples = int(sys.argv[2])
begun = time.perf_counter()
point, interval = library.get_interval_estimates(
    {"a": scores}, lambda x: np.array([metrics.aggregate_iqm(x)]), reps=resamples)
print(json.dumps({"seconds": time.perf_counter() - begun, "value": float(point["a"][0]),
                  "low": float(interval["a"][0][0]), "high": float(interval["a"][1][0])}))
"""


def covering(
    make: Callable[[np.ndarray], Interval], draw: Callable[[int], np.ndarray], truth: float, times: int
) -> dict:
    """Share of intervals that hold the truth, by sample size."""
    found = {}
    for size in SIZES:
        inside = [interval.low <= truth <= interval.high for interval in (make(draw(size)) for _ in range(times))]
        found[size] = float(np.mean(inside))
    return found


def coverage(times: int) -> list[dict]:
    rng = np.random.default_rng(0)
    bimodal_iqm = float(iqm(bimodal(rng, 4_000_000)[:, None]))
    rows = []
    for name, draw, truth, middle in (
        ("normal", lambda n: rng.normal(size=n), 0.0, 0.0),
        ("one seed in four fails", lambda n: bimodal(rng, n), 0.75, bimodal_iqm),
        ("log-normal", lambda n: rng.lognormal(0, 0.75, n), float(np.exp(0.75**2 / 2)), None),
    ):
        if middle is None:
            middle = float(iqm(draw(4_000_000)[:, None]))
        for label, make, target in (
            ("mean, Student t", mean_interval, truth),
            ("mean, percentile bootstrap", lambda x: by_bootstrap(x, rng, "percentile"), truth),
            ("mean, BCa expanded", lambda x: by_bootstrap(x, rng, "bca"), truth),
            ("IQM, percentile bootstrap", lambda x: aggregate(x, rng, expand=False), middle),
            ("IQM, percentile expanded", lambda x: aggregate(x, rng, expand=True), middle),
        ):
            rows.append({"scores": name, "interval": label, "coverage": covering(make, draw, target, times)})
            print(name, label, rows[-1]["coverage"], flush=True)
    rows += atari_coverage(rng, times)
    rows.append({"scores": "10 % fail", "interval": "failure rate, Clopper-Pearson", "coverage": failures(rng, times)})
    return rows


def bimodal(rng: np.random.Generator, count: int) -> np.ndarray:
    """Runs that work score about 1, runs that fail about 0."""
    return (rng.random(count) > 0.25) + rng.normal(0, 0.1, count)


def by_bootstrap(sample: np.ndarray, rng: np.random.Generator, method: str) -> Interval:
    return bootstrap_interval(sample, lambda x: x.mean(-1), rng, resamples=1_000, method=method)


def aggregate(sample: np.ndarray, rng: np.random.Generator, expand: bool) -> Interval:
    return aggregate_interval(sample[:, None], iqm, rng, resamples=1_000, expand=expand)


def atari_coverage(rng: np.random.Generator, times: int) -> list[dict]:
    """Return the coverage of the IQM of 100 real runs on 26 games, by intervals from a few of them."""
    rows = []
    for algorithm in ("SPR", "CURL"):
        scores = atari(algorithm)
        truth = float(iqm(scores))
        for label, expand in (("IQM, percentile bootstrap", False), ("IQM, percentile expanded", True)):
            found = {}
            for size in SIZES:
                inside = 0
                for _ in range(times // 4):
                    sample = np.stack([rng.choice(column, size, replace=False) for column in scores.T], 1)
                    interval = aggregate_interval(sample, iqm, rng, resamples=500, expand=expand)
                    inside += interval.low <= truth <= interval.high
                found[size] = inside / (times // 4)
            rows.append({"scores": f"{algorithm}, 26 games", "interval": label, "coverage": found})
            print(algorithm, label, found, flush=True)
    return rows


def failures(rng: np.random.Generator, times: int) -> dict:
    found = {}
    for size in SIZES:
        inside = 0
        for _ in range(times):
            interval = proportion_interval(int(rng.binomial(size, 0.1)), size)
            inside += interval.low <= 0.1 <= interval.high
        found[size] = inside / times
    return found


def atari(algorithm: str) -> np.ndarray:
    rows = pl.read_parquet(SCORES).filter(pl.col("algorithm") == algorithm)
    wide = rows.sort("run").pivot("game", index="run", values="score").drop("run")
    return wide.select(sorted(wide.columns)).to_numpy()


def false_alarms(times: int) -> dict:
    """Return how often equal algorithms are called different at the 5 % level."""
    rng = np.random.default_rng(1)
    found = {}
    for name, draw in (("normal", lambda n: rng.normal(size=n)), ("one in four fails", lambda n: bimodal(rng, n))):
        once = np.mean([welch_test(draw(10), draw(10)).p_value < 0.05 for _ in range(times)])
        peeking = 0
        for _ in range(times):
            x, y = draw(25), draw(25)
            peeking += any(welch_test(x[:n], y[:n]).p_value < 0.05 for n in (5, 10, 15, 20, 25))
        looking = 0
        for _ in range(times // 2):
            x, y = np.split(draw(25), 5), np.split(draw(25), 5)
            looking += sequential_test(x, y, rng, resamples=500).decision in ("larger", "smaller")
        found[name] = {
            "Welch, one look at 10 runs a side": float(once),
            "Welch after every 5 runs, five looks": peeking / times,
            "sequential test, five looks": looking / (times // 2),
        }
        print(name, found[name], flush=True)
    return found


def stopping(times: int) -> list[dict]:
    """Success is rare: where sampling stops, and how far off the estimate is."""
    rng, rows = np.random.default_rng(2), []
    for rate in (0.05, 0.2, 0.5):
        naive, adaptive = [], []
        for _ in range(times):
            outcomes, last = [], None
            for _ in range(10):  # "ten batches of ten; stop when the estimate changes by less than 0.1"
                outcomes += list(rng.random(10) < rate)
                now = float(np.mean(outcomes))
                if last is not None and abs(now - last) < 0.1:
                    break
                last = now
            naive.append((len(outcomes), now, interval_of(outcomes, "proportion")))
            outcomes = []
            while (
                step := next_batch(
                    {"a": Cell(outcomes, 1.0)}, width=0.2, budget=100 - len(outcomes), estimand="proportion", batch=10
                )
            ).cell:
                outcomes += [float(value) for value in rng.random(step.runs) < rate]
            adaptive.append((len(outcomes), float(np.mean(outcomes)), interval_of(outcomes, "proportion")))
        for name, found in (("until the change is under 0.1", naive), ("until the interval is under 0.2", adaptive)):
            rows.append(
                {
                    "rate": rate,
                    "rule": name,
                    "runs": float(np.mean([one[0] for one in found])),
                    "says_never": float(np.mean([one[1] == 0 for one in found])),
                    "width": float(np.mean([one[2].high - one[2].low for one in found])),
                    "covers": float(np.mean([one[2].low <= rate <= one[2].high for one in found])),
                }
            )
            print(rows[-1], flush=True)
    return rows


def beside_rliable(folder: Path, resamples: int, theirs: int) -> dict:
    """Seconds for the interval of an IQM of 100 runs on 26 games; theirs are scaled to the same number of resamples."""
    python, stamp = folder / "bin" / "python", folder / "ready"
    if not stamp.exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "rliable==1.2.0", "pandas<3"], check=True)
        stamp.touch()
    scores, rounds = atari("SPR"), []
    np.save(folder / "scores.npy", scores)
    for turn in range(3):
        begun = time.perf_counter()
        ours = aggregate_interval(scores, iqm, np.random.default_rng(turn), resamples=resamples, expand=False)
        seconds = time.perf_counter() - begun
        command = [python, "-c", RLIABLE, folder / "scores.npy", str(theirs)]
        other = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        rounds.append(
            {
                "seconds": seconds,
                "interval": [ours.low, ours.high],
                "rliable_seconds": other["seconds"] * resamples / theirs,
                "rliable_interval": [other["low"], other["high"]],
            }
        )
        print(rounds[-1], flush=True)
    return {"resamples": resamples, "rliable_resamples": theirs, "rounds": rounds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=2_000)
    parser.add_argument("--environment", type=Path, default=Path(".bench-rliable"))
    arguments = parser.parse_args()
    record = {
        **head(f"python bench/seeds.py --times {arguments.times}"),
        "speed": beside_rliable(arguments.environment.resolve(), 50_000, 2_000),
        "coverage": coverage(arguments.times),
        "false_alarms": false_alarms(arguments.times),
        "stopping": stopping(arguments.times // 4),
    }
    (HERE / "results" / "seeds.json").write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
