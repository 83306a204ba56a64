"""Return of `make train` after a minute: `python bench/minute.py [--seeds 10] [--seconds 60]`.

Each seed is the plain command, `workhorse train HalfCheetah-v5`, alone on the machine with a thread a core. It is
stopped with Ctrl-C `--seconds` after it said that it begins, compilation and its own evaluations included, and the
policy it leaves is evaluated over 100 noiseless episodes. A run that ends by itself before that counts with its last
policy.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from record import head

from workhorse.runs.folder import RunFolder
from workhorse.runs.metrics import read_metrics
from workhorse.statistics.intervals import mean_interval

TASK = "HalfCheetah-v5"
PROGRAM = [sys.executable, "-m", "workhorse.cli.main"]
RESULT = Path(__file__).parent / "results" / "minute.json"


def run_seed(seed: int, seconds: float, root: Path) -> dict:
    """Train for some seconds, then evaluate."""
    folder = root / f"minute-s{seed}"
    command = [*PROGRAM, "train", TASK, "--seed", str(seed), "--runs", str(root), "--id", folder.name]
    launched = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    first = process.stdout.readline()
    begun = time.monotonic()
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    if process.returncode not in (0, 130):
        raise RuntimeError(f"seed {seed} ended with exit code {process.returncode} after {first!r}")
    evaluation = [*PROGRAM, "evaluate", str(folder), "--episodes", "100"]
    subprocess.run(evaluation, check=True, stdout=subprocess.DEVNULL)
    metrics, run = read_metrics(folder), RunFolder.open(folder)
    record = json.loads(max(run.evaluations.glob("*.json"), key=lambda file: file.stat().st_mtime).read_text())
    return {
        "seed": seed,
        "mean": record["mean"],
        "worst": min(record["returns"]),
        "episodes": len(record["returns"]),
        "env_steps": int(metrics["env_steps"][-1]),
        "seconds_to_begin": begun - launched,
        "finished": process.returncode == 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    parser.add_argument("--into", type=Path, default=RESULT)
    arguments = parser.parse_args()
    rows = []
    for seed in range(arguments.seeds):
        rows.append(run_seed(seed, arguments.seconds, arguments.runs))
        row = rows[-1]
        print(f"seed {seed}: {row['mean']:.0f} after {row['env_steps']:,} steps", flush=True)
    interval = mean_interval(np.array([row["mean"] for row in rows]))
    arguments.into.write_text(
        json.dumps(
            {
                **head(f"python bench/minute.py --seeds {arguments.seeds} --seconds {arguments.seconds:g}"),
                "seconds": arguments.seconds,
                "mean_over_seeds": interval.value,
                "interval": [interval.low, interval.high],
                "runs": rows,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
