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
from workhorse.algorithms import registry as algorithms
from workhorse.environments import registry as environments
from workhorse.training.evolve import Evolve, chunk_size
from workhorse.training.gather import HostGather, Lanes
from workhorse.training.learning import Learning
from workhorse.training.workforce import Local

members, slots = int(sys.argv[1]), int(sys.argv[2])
envs = [environments.make("Humanoid-v5", slots, 1, max_episode_steps=5) for _ in range(2)]
settings = {"num_pairs": members // 2, "policy": "mlp", "hidden": (265, 265)}
algorithm = algorithms.make("openai-es", envs[0].spec, settings)
lanes = Lanes([HostGather(algorithm, env, 0) for env in envs])
learning = Learning(algorithm, 0)
loop = Evolve(learning, Local(learning, lanes))
progress = loop.start()
progress, metrics, _ = loop.iterate(progress)
print(algorithm.num_params, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
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
