"""Kill -9 at random moments, resume, compare: `python bench/kill.py [--case ars|dqn|sac|offline] [--kills 20]`.

A run is killed at random moments, each time in a new process and resumed on one or two threads by chance, until it has
been killed `--kills` times; every iteration's digest is compared with those of a run that was left alone. The replays
of `dqn` (with priorities) and `sac` are so short that their rings wrap.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record import head

from workhorse.runs.folder import RunFolder
from workhorse.runs.metrics import read_metrics

EVERY = "--seed 5 --final-episodes 2 --evaluate-every 0 --checkpoint-every-s 0 --threads 1 --quiet"
CASES = {
    "offline": "offline LOG --algorithm iql --hidden 64 64 --evaluate-on Pendulum-v1 --updates 60e3",
    "ars": "train Hopper-v5 --algorithm ars --env-steps 400e3",
    "dqn": "train CartPole-v1 --algorithm dqn --prioritised --env-steps 100e3 --replay-capacity 5000",
    "sac": "train HalfCheetah-v5 --algorithm sac --env-steps 16e3 --warmup-env-steps 1000 --replay-capacity 4000",
}
LOG = "dataset make Pendulum-v1 --kind random --steps 20000 --threads 1"
PROGRAM = [sys.executable, "-m", "workhorse.cli.main"]


def digests(folder: Path) -> list[str]:
    metrics = read_metrics(folder)
    if metrics["iteration"].to_list() != list(range(1, len(metrics) + 1)):
        raise SystemExit("an iteration is missing or repeated in the metrics")
    return metrics["digest"].to_list()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, default="ars")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance, train = random.Random(arguments.seed), f"{CASES[arguments.case]} {EVERY}".split()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        if "LOG" in train:
            subprocess.run([*PROGRAM, *f"{LOG} --out {name}/log".split()], check=True, stdout=subprocess.DEVNULL)
            train[train.index("LOG")] = f"{name}/log"
        subprocess.run([*PROGRAM, *train, "--runs", name, "--id", "straight"], check=True, stdout=subprocess.DEVNULL)
        expected = digests(root / "straight")
        killed, words, moments = 0, [*train, "--runs", name, "--id", "killed"], []
        while True:
            process = subprocess.Popen([*PROGRAM, *words], stdout=subprocess.DEVNULL)
            status = RunFolder(root / "killed").status()
            before = status.iteration if status else -1
            while killed < arguments.kills and process.poll() is None:
                status = RunFolder(root / "killed").status()
                if status is not None and status.iteration > before:
                    time.sleep(chance.uniform(0, 2.0))
                    process.send_signal(signal.SIGKILL)
                    killed += 1
                    break
                time.sleep(0.01)
            code = process.wait()
            if code == 0:
                break
            if code != -signal.SIGKILL:
                raise SystemExit(f"the run ended with code {code}")
            status = RunFolder(root / "killed").status()
            moments.append(status.iteration if status else 0)
            words = ["resume", str(root / "killed"), "--threads", chance.choice("12"), "--quiet"]
        found = digests(root / "killed")
    same = sum(one == other for one, other in zip(expected, found, strict=False))
    print(f"killed {killed} times; {same} of {len(expected)} digests equal; {len(found)} iterations")
    case, chosen = ("", "") if arguments.case == "ars" else (f"-{arguments.case}", f"--case {arguments.case} ")
    target = Path(__file__).parent / "results" / f"kill{case}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(
        json.dumps(
            {
                **head(f"python bench/kill.py {chosen}--kills {arguments.kills}"),
                "run": f"workhorse {CASES[arguments.case]}",
                "kills": killed,
                "last_saved_iteration_at_each_kill": moments,
                "iterations": len(expected),
                "equal_digests": same,
            },
            indent=1,
        )
    )
    if found != expected or killed < arguments.kills:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
