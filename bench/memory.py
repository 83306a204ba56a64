"""Peak memory against the population: `python bench/memory.py`.

Humanoid-v5 with an MLP of 265-265 units (167,479 parameters), one iteration with episodes cut at 5 steps, each
population in a process of its own; the figure is the process's peak resident memory.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from record import head

CHILD = """
import resource, sys
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan

members, slots = int(sys.argv[1]), int(sys.argv[2])
settings = {"num_pairs": members // 2, "policy": "mlp", "hidden": (265, 265)}
plan = Plan("Humanoid-v5", {"max_episode_steps": 5}, "openai-es", settings, 0, slots)
loop = make_loop(plan, plan.spec(), 2)
loop.iterate(loop.start())
print(loop.algorithm.num_params, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, default=32)
    arguments = parser.parse_args()
    rows = []
    for members in (64, 512, 4096):
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(members), str(arguments.slots)],
            capture_output=True,
            text=True,
            check=True,
        )
        params, peak = map(int, done.stdout.split())
        rows.append({"members": members, "params": params, "peak_bytes": peak})
        print(f"{members:>5} members, {params:,} parameters: peak {peak / 2**20:,.0f} MiB", flush=True)
    growth = rows[-1]["peak_bytes"] / rows[0]["peak_bytes"] - 1
    print(f"growth from {rows[0]['members']} to {rows[-1]['members']} members: {growth:+.1%}")
    target = Path(__file__).parent / "results" / "memory.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(
        json.dumps(
            {
                **head("python bench/memory.py"),
                "rows": rows,
                "growth": growth,
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
