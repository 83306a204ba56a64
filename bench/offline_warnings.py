"""Recall and false alarms of warnings of runs from a log: `python bench/offline_warnings.py --from-run RUN`.

Naive off-policy learning on narrow logs of Pendulum-v1, which invents values, against algorithms that stay near the
log and logs that are wide enough. Nothing is broken in the code of any of them, so that a run is judged by its outcome.
It has failed where its last evaluation has lost a fifth of what the log earns above random actions, or, on a log that
earns no more, where it is worse than the log. Recall is the share of failed runs that were warned of; a warning of a
run that has not failed is a false alarm, *also where its values are above the bound, which is true all the same*: these
are counted apart. The logs are made of RUN, a run of sac on Pendulum-v1, by `workhorse dataset make`.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from faults import judged
from record import head

import workhorse
from workhorse.data.opening import open_dataset
from workhorse.runs.warnings import RULES

HERE = Path(__file__).parent
TASK, UPDATES = "Pendulum-v1", 30_000
SMALL = {"hidden": (64, 64), "batch_size": 128}
RANDOM_RETURN = -1240.0
LOST, MARGIN = 0.2, 100.0
LOGS = {
    "expert": ("--kind", "expert", "--steps", "20000"),
    "expert, one action a state": ("--kind", "expert", "--steps", "20000", "--no-explore"),
    "medium": ("--kind", "medium", "--steps", "20000"),
    "medium-replay": ("--kind", "medium-replay",),
    "random": ("--kind", "random", "--steps", "20000"),
}  # fmt: skip


class Case(NamedTuple):
    """Runs of one algorithm on one log. `naive`: nothing keeps the policy near the log."""

    algorithm: str
    log: str
    naive: bool
    settings: dict[str, Any] = {}  # noqa: RUF012


NARROW = ("expert", "expert, one action a state", "medium")

CASES = [
    *(Case(algorithm, log, True) for log in NARROW for algorithm in ("ddpg", "td3", "sac")),
    Case("sac", "medium-replay", True),
    *(Case(algorithm, "random", True) for algorithm in ("ddpg", "td3", "sac")),
    *(Case("iql", log, False) for log in (*NARROW, "medium-replay", "random")),
    *(Case("td3+bc", log, False, {"value_weight": 0.5}) for log in (*NARROW, "random")),
]


def one(case: Case, seeds: list[int], place: Path) -> None:
    """A case's runs, in this process: a line of JSON each."""
    for seed in seeds:
        run = workhorse.offline(
            place / "logs" / case.log.replace(", ", "-").replace(" ", "-"), case.algorithm, evaluate_on=TASK, seed=seed,
            updates=UPDATES, evaluate_every=UPDATES // 10, final_episodes=50, runs=place / "runs", progress=False,
            threads=1, checkpoint_every_s=600.0, **SMALL, **case.settings,
        )  # fmt: skip
        rows, settings = run.metrics.to_dicts(), dict(run.settings)
        kept = {"rows": rows, "settings": settings}
        (place / f"{CASES.index(case)}-{seed}.json").write_text(json.dumps(kept))
        assert run.summary is not None and run.summary.episode_return is not None
        found = {"seed": seed, "return": float(run.summary.episode_return.value), "warnings": judged(rows, settings)}
        print(json.dumps(found), flush=True)


def failed(case: dict, run: dict) -> bool:
    """Tell whether a run's policy is worse than the log's own."""
    room = max(LOST * (case["log_return"] - RANDOM_RETURN), MARGIN)
    return run["return"] < case["log_return"] - room


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from-run", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--keep", default="/tmp/offline-warnings", help="a folder for logs, runs and metrics")
    parser.add_argument("--scratch", action="store_true", help="write no result: for choosing thresholds")
    parser.add_argument("--one", type=int, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    place = Path(arguments.keep)
    if arguments.one is not None:
        one(CASES[arguments.one], arguments.seeds, place)
        return
    (place / "logs").mkdir(parents=True, exist_ok=True)
    returns = {}
    for name, words in LOGS.items():
        out = place / "logs" / name.replace(", ", "-").replace(" ", "-")
        if not out.exists():
            command = [sys.executable, "-m", "workhorse", "dataset", "make", TASK, "--out", str(out), *words]
            subprocess.run([*command, "--from-run", arguments.from_run, "--quiet"], check=True)
        returns[name] = float(open_dataset(out).returns().mean())
    cases = []
    for number, case in enumerate(CASES):
        command = [sys.executable, __file__, "--one", str(number), "--from-run", arguments.from_run]
        command += ["--keep", str(place), "--seeds", *map(str, arguments.seeds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{case}: {done.stderr[-3000:]}")
        runs = [json.loads(line) for line in done.stdout.strip().splitlines()]
        cases.append({**case._asdict(), "log_return": returns[case.log], "runs": runs})
        for run in runs:
            run["failed"] = failed(cases[-1], run)
            names = [warned["name"] for warned in run["warnings"]]
            print(case.algorithm, case.log, f"{run['return']:.0f}", run["failed"], names, flush=True)
    seeds = " ".join(map(str, arguments.seeds))
    found = {
        **head(f"python bench/offline_warnings.py --from-run RUN --seeds {seeds}"), "task": TASK, "updates": UPDATES,
        "lost": LOST, "rules": [rule.name for rule in RULES], "cases": cases,
    }  # fmt: skip
    if not arguments.scratch:
        (HERE / "results" / "offline_warnings.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
