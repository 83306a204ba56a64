"""Time of a generation of ask and tell, against evosax and EvoTorch: `python bench/ask_tell.py --others PYTHON`.

PYTHON is the interpreter of a virtual environment in which evosax and evotorch are installed; this program installs
nothing. SNES and PGPE of each library search with one population, mirrored pairs in PGPE, in float32, with one thread
each, on

- `ellipsoid`: n = 1,000, condition 1e6, along the axes,
- `cartpole`: a linear policy (n = 4, to the right where its output is above 0), 500 steps an episode, written with the
  operations of the library's own array package, all members at once.

Every library does what its documentation recommends for speed: a generation of ours and of evosax is one compiled
program with the function in it, as in `evolution.maximise(..., jit=True)`; EvoTorch's is its `step` with a vectorised
function. Libraries take turns, so that a slow minute of the machine hits all of them. Compilation is not counted. It
prints the median milliseconds of a generation with a 95 % bootstrap interval, and the ratio of ours to the faster of
the others, round by round.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from record import head

HERE = Path(__file__).parent

JAX_FUNCTIONS = """
import jax, jax.numpy as jnp, json, sys, time
import numpy as np

SCALE = jnp.asarray(np.logspace(0, 6, 1000), jnp.float32)

def ellipsoid(points):
    return -(SCALE * points * points).sum(-1)

def cartpole(points):
    start = jax.random.uniform(jax.random.key(0), (4, len(points)), jnp.float32, -0.05, 0.05)
    def step(carry, _):
        (x, v, a, w), alive, total = carry
        force = jnp.where((points * jnp.stack([x, v, a, w], 1)).sum(1) > 0, 10.0, -10.0).astype(jnp.float32)
        cos, sin = jnp.cos(a), jnp.sin(a)
        push = (force + 0.05 * w * w * sin) / 1.1
        turn = (9.8 * sin - cos * push) / (0.5 * (4.0 / 3.0 - 0.1 * cos * cos / 1.1))
        go = push - 0.05 * turn * cos / 1.1
        x, v, a, w = x + 0.02 * v, v + 0.02 * go, a + 0.02 * w, w + 0.02 * turn
        total = total + alive
        alive = alive * (jnp.abs(x) < 2.4) * (jnp.abs(a) < 0.2095)
        return ((x, v, a, w), alive.astype(jnp.float32), total), None
    ones = jnp.ones(len(points), jnp.float32)
    return jax.lax.scan(step, (tuple(start), ones, 0 * ones), None, length=500)[0][2]

function, size = {"ellipsoid": (ellipsoid, 1000), "cartpole": (cartpole, 4)}[sys.argv[1]]
algorithm, population, generations = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

def timed(run, state):
    compiled = jax.jit(run).lower(state).compile()
    state, found = jax.block_until_ready(compiled(state))
    begun = time.perf_counter()
    state, found = jax.block_until_ready(compiled(state))
    print(json.dumps({"ms": (time.perf_counter() - begun) / generations * 1e3, "found": float(jnp.max(found))}))
"""

WORKHORSE = (
    JAX_FUNCTIONS
    + """
import workhorse.evolution as evolution

settings = {"num_pairs": population // 2} if algorithm == "pgpe" else {"population_size": population}
es = evolution.make(algorithm, size=size, **settings)

def generation(state, _):
    state, candidates = es.ask(state)
    fitness = function(candidates)
    return es.tell(state, fitness), fitness.max()

timed(lambda state: jax.lax.scan(generation, state, None, length=generations), es.init(0, start=0.5))
"""
)

EVOSAX = (
    JAX_FUNCTIONS
    + """
import optax
from evosax.algorithms import PGPE, SNES

start = jnp.full(size, 0.5)
es = (PGPE if algorithm == "pgpe" else SNES)(population_size=population, solution=start)
params = es.default_params

def generation(carry, _):
    key, state = carry
    key, asking, telling = jax.random.split(key, 3)
    candidates, state = es.ask(asking, state, params)
    fitness = -function(candidates)
    state, _ = es.tell(telling, candidates, fitness, state, params)
    return (key, state), -fitness.min()

state = es.init(jax.random.key(0), start, params)
timed(lambda carry: jax.lax.scan(generation, carry, None, length=generations), (jax.random.key(1), state))
"""
)

EVOTORCH = """
import json, logging, sys, time
logging.disable(logging.CRITICAL)
import torch
from evotorch import Problem
from evotorch.algorithms import PGPE, SNES
from evotorch.decorators import vectorized

torch.set_num_threads(1)
SCALE = torch.logspace(0, 6, 1000)

@vectorized
def ellipsoid(points):
    return -(SCALE * points * points).sum(-1)

@vectorized
def cartpole(points):
    x, v, a, w = (torch.rand(4, len(points)) - 0.5) * 0.1
    alive, total = torch.ones(len(points)), torch.zeros(len(points))
    for _ in range(500):
        force = torch.where((points * torch.stack([x, v, a, w], 1)).sum(1) > 0, 10.0, -10.0)
        cos, sin = torch.cos(a), torch.sin(a)
        push = (force + 0.05 * w * w * sin) / 1.1
        turn = (9.8 * sin - cos * push) / (0.5 * (4.0 / 3.0 - 0.1 * cos * cos / 1.1))
        go = push - 0.05 * turn * cos / 1.1
        x, v, a, w = x + 0.02 * v, v + 0.02 * go, a + 0.02 * w, w + 0.02 * turn
        total = total + alive
        alive = alive * (x.abs() < 2.4) * (a.abs() < 0.2095)
    return total

function, size = {"ellipsoid": (ellipsoid, 1000), "cartpole": (cartpole, 4)}[sys.argv[1]]
algorithm, population, generations = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
problem = Problem("max", function, solution_length=size, initial_bounds=(-1, 1), dtype=torch.float32)
if algorithm == "pgpe":
    es = PGPE(problem, popsize=population, center_learning_rate=0.075, stdev_learning_rate=0.1, stdev_init=0.1,
              optimizer="clipup", optimizer_config={"max_speed": 0.15})
else:
    es = SNES(problem, popsize=population, stdev_init=0.3)
for _ in range(3):
    es.step()
begun = time.perf_counter()
for _ in range(generations):
    es.step()
ms = (time.perf_counter() - begun) / generations * 1e3
print(json.dumps({"ms": ms, "found": float(es.status["pop_best_eval"])}))
"""

ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "NPROC": "1",
}


def outcome(python: Path | str, program: str, words: list[str]) -> float:
    """Run a program on one core and return the milliseconds of a generation that it prints."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "timed.py"
        script.write_text(program)
        core = {min(os.sched_getaffinity(0))} if hasattr(os, "sched_getaffinity") else None
        done = subprocess.run(
            [python, script, *words],
            env=os.environ | ONE_THREAD | {"PYTHONPATH": str(HERE.parent) if python == sys.executable else ""},
            preexec_fn=(lambda: os.sched_setaffinity(0, core)) if core else None,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"{words} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])["ms"]


def interval(values: np.ndarray) -> list[float]:
    """Return the median and its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (4000, len(values))), axis=1)
    return [float(np.median(values)), *np.quantile(medians, [0.025, 0.975]).tolist()]


def versions_of(python: Path) -> dict[str, str]:
    frozen = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    pairs = [line.split("==") for line in frozen.splitlines() if "==" in line]
    return {name: version for name, version in pairs if name in ("evosax", "evotorch", "torch", "jax")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--others", type=Path, required=True, help="python of an environment with evosax and evotorch")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--populations", type=int, nargs="+", default=[100, 1000])
    arguments = parser.parse_args()
    programs = {"workhorse": (sys.executable, WORKHORSE), "evosax": (arguments.others, EVOSAX)}
    programs["evotorch"] = (arguments.others, EVOTORCH)
    rows = []
    for task, generations in (("ellipsoid", 100), ("cartpole", 20)):
        for algorithm in ("snes", "pgpe"):
            for population in arguments.populations:
                words = [task, algorithm, str(population), str(generations if population < 500 else generations // 2)]
                found: dict[str, list[float]] = {name: [] for name in programs}
                for _ in range(arguments.rounds):
                    for name, (python, program) in programs.items():
                        found[name].append(outcome(python, program, words))
                times = {name: np.array(values) for name, values in found.items()}
                ratio = times["workhorse"] / np.minimum(times["evosax"], times["evotorch"])
                row = {"task": task, "algorithm": algorithm, "population": population, "ms": found}
                row |= {"median": {name: interval(values) for name, values in times.items()}, "ratio": interval(ratio)}
                rows.append(row)
                shown = ", ".join(f"{name} {m:.2f} [{lo:.2f}, {hi:.2f}]" for name, (m, lo, hi) in row["median"].items())
                m, lo, hi = row["ratio"]
                print(f"{task} {algorithm} {population}: {shown} ms; ratio {m:.2f} [{lo:.2f}, {hi:.2f}]", flush=True)
    command = f"python bench/ask_tell.py --others PYTHON --rounds {arguments.rounds}"
    results = {**head(command), "others": versions_of(arguments.others), "rows": rows}
    (HERE / "results" / "ask_tell.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
