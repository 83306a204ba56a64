"""`python -m bench` runs every benchmark, the quick ones first; hours on two cores. Each can be run alone as well."""

import subprocess
import sys
from pathlib import Path

PROGRAMS = [
    ["rules.py"],
    ["memory.py"],
    ["throughput.py"],
    ["throughput.py", "--slots", "256", "--policies", "linear"],
    ["libraries.py", "evolution"],
    ["libraries.py", "ppo"],
    ["libraries.py", "whole"],
    ["horizon.py"],
    ["classic.py"],
    ["action_box.py"],
    ["kill.py"],
    ["compile_cache.py"],
    ["minute.py"],
    ["learning.py", "half-cheetah-default", "--seeds", "20", "--first-seed", "20440"],
    ["evolution_classic.py"],
    ["evolution_classic.py", "--first-seed", "2000", "nsr-es"],
    ["evolution_classic.py", "--first-seed", "3000", "ga", "guided-es", "hill-climb"],
    ["low_rank.py"],
    ["low_rank.py", "--case", "learning"],
    ["ask_tell.py"],
    *(["intrinsic.py", "--case", case] for case in ("duplicates", "subspace", "widths", "tricks")),
    ["learning.py", "swimmer"],
    ["learning.py", "hopper"],
    ["learning.py", "half-cheetah-ars"],
    ["learning.py", "walker2d"],
    ["learning.py", "walker2d-pgpe", "--seeds", "4"],
    ["learning.py", "humanoid-pgpe", "--seeds", "2"],
    ["humanoid_arms.py"],
    [
        "search_signal.py",
        *(f"runs/bench/{name}" for name in ("few-small-bonus", "quick", "walker2d-pgpe-s0")),
    ],
    ["search_signal.py", "runs/bench/few-quick", "runs/bench/humanoid-pgpe-s0", "--pairs", "2304"],
    ["search_signal.py", "runs/bench/few-quick", "--scale", "2", "4"],
    ["learning.py", "half-cheetah-lag-1", "--seeds", "10", "--first-seed", "20440"],
    ["data_needed.py"],
    *(
        ["learning.py", f"{preset}-{task}", "--seeds", "10"]
        for preset in ("ppo", "trpo+", "ppo-m", "ppo-noclip", "trpo")
        for task in ("hopper", "walker2d", "halfcheetah")
    ),
    *(["learning.py", f"ppo-m-released-{task}", "--seeds", "10"] for task in ("hopper", "walker2d")),
    ["frame_skip.py"],
    ["batch_size.py"],
    ["faults.py"],
    ["gradients.py"],
    ["diagnosis.py"],
    ["cluster.py"],
    ["wire.py"],
    ["coordination.py"],
    ["simulation.py"],
    ["seeds.py"],
    ["coverage.py"],
    ["studies.py"],
    ["studies.py", "--case", "cluster"],
    ["figures.py"],
    ["tables.py"],
]

if __name__ == "__main__":
    for name, *words in PROGRAMS:
        print(f"== {name} {' '.join(words)}", flush=True)
        subprocess.run([sys.executable, Path(__file__).parent / name, *words], check=True)
