"""Time of `workhorse diagnose`, compared with the simulator alone: `python bench/diagnosis.py`.

PPO is trained for 300,000 steps; then a policy from the middle is diagnosed by the command a user would type, on all
cores, start-up and compilation included. Raw stepping is measured before and after, as `throughput.py` does.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import head
from throughput import measure

from workhorse.runs.folder import RunFolder
from workhorse.runs.history import kept_iterations

WORDS = {
    "gradients": ["--only", "gradients", "--estimates", "10", "--budget", "1_088_000"],
    "landscape": ["--only", "landscape", "--grid", "31", "--pairs", "20_000"],
}
JOBS = (("Hopper-v5", "gradients"), ("HalfCheetah-v5", "landscape"))
STEPS = {"gradients": 1_088_000, "landscape": 31 * 31 * 20_000}
RESULT = Path(__file__).parent / "results" / "diagnosis.json"


def workhorse(*words: str) -> float:
    """Wall seconds of a command."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "workhorse.cli.main", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def raw_steps_per_second(task: str, threads: int) -> float:
    return measure(task, "mlp-64-64", 64, threads, 3)["raw_per_s"]


def timed(task: str, part: str, threads: int, root: Path) -> dict:
    folder = root / task
    if not folder.exists():
        workhorse("train", task, "--algorithm", "ppo", "--env-steps", "300_000", "--runs", str(root), "--id", task)
    kept = kept_iterations(RunFolder.open(folder))
    middle = kept[len(kept) // 2]  # at the end the learning rate is zero, and there is no step to look along
    raw = [raw_steps_per_second(task, threads)]
    seconds = workhorse("diagnose", str(folder), "--at", str(middle), *WORDS[part])
    raw.append(raw_steps_per_second(task, threads))
    return {"task": task, "part": part, "steps": STEPS[part], "seconds": seconds, "raw_per_s": raw}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="of raw stepping")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as root:
        for task, part in JOBS:
            rows.append(timed(task, part, arguments.threads, Path(root)))
            row = rows[-1]
            print(task, part, f"{row['seconds']:.0f} s, raw {', '.join(f'{one:,.0f}' for one in row['raw_per_s'])}/s")
    RESULT.write_text(json.dumps({**head("python bench/diagnosis.py"), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
