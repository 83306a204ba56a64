"""Speed of off-policy learning against other libraries, and of one update: `python bench/off_policy_speed.py`.

Three parts, in turn within each round, so that a slow minute of the machine falls on all alike:

- `update`: milliseconds of one update of `sac` and `sac-n` with HalfCheetah's sizes, batch 256, two layers of 256, on
  one core, and of the matrix products that `sac` cannot do without, by NumPy on the same core: the floor.
- `machine`: seed-steps per second of the whole machine, SAC on HalfCheetah-v5, one update a step. Workhorse and
  single-threaded Stable-Baselines3 train two seeds at once, a process on a thread each; Stable-Baselines3 and SBX "as
  users start them" train one seed in a process that takes what threads it likes.
- `small`: steps per second of one process, DQN on CartPole-v1 (64 updates of 64 samples every 128 steps: a replay
  ratio of 32; two layers of 256) and SAC on Pendulum-v1 (one update of 256 samples a step).

Only steps after the warm-up and after the first programs were compiled are counted.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from libraries import prepared, versions_of
from record import head

TARGET = Path(__file__).parent / "results" / "off_policy_speed.json"

WORKHORSE = """
import json, sys, time
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan

task, algorithm, settings, seconds = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), float(sys.argv[4])
plan = Plan(task, {}, algorithm, settings, 0).with_budget(10**6)
loop = make_loop(plan, plan.spec(), 1)
progress = loop.start()
while int(progress.env_steps) < settings["warmup_env_steps"] + 300:
    progress, _, _ = loop.iterate(progress)
begun, first = time.perf_counter(), int(progress.env_steps)
while time.perf_counter() - begun < seconds:
    progress, _, _ = loop.iterate(progress)
print(json.dumps({"steps": int(progress.env_steps) - first, "seconds": time.perf_counter() - begun}))
"""

OTHERS = """
import importlib, json, sys, time
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

module, task, name = sys.argv[1], sys.argv[2], sys.argv[3]
settings, seconds, single = json.loads(sys.argv[4]), float(sys.argv[5]), sys.argv[6] == "1"
if single:
    import torch
    torch.set_num_threads(1)

class Timed(BaseCallback):
    begun = first = None
    def _on_step(self):
        if self.begun is None and self.num_timesteps >= settings["learning_starts"] + 300:
            self.begun, self.first = time.perf_counter(), self.num_timesteps
        return self.begun is None or time.perf_counter() - self.begun < seconds

watch = Timed()
kind, env = getattr(importlib.import_module(module), name), make_vec_env(task, n_envs=1)
model = kind("MlpPolicy", env, device="cpu", **settings)
model.learn(total_timesteps=10**9, callback=watch)
print(json.dumps({"steps": model.num_timesteps - watch.first, "seconds": time.perf_counter() - watch.begun}))
"""

UPDATE = """
import json, sys, time
import jax, jax.numpy as jnp, numpy as np
from workhorse.algorithms import registry
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Transitions

spec = EnvSpec("HalfCheetah-v5", Box.unbounded(17), Box((-1.0,) * 6, (1.0,) * 6), 1000)
algorithm = registry.make(sys.argv[1], spec, {})
rng, N = np.random.default_rng(0), algorithm.batch_size
normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
no, one = jnp.zeros(N, bool), jnp.ones(N, jnp.float32)
batch = Transitions(normal(N, 17), jnp.tanh(normal(N, 6)), normal(N), 0.99 * one, normal(N, 17), no, no,
                    jnp.ones(N, jnp.int32), jnp.arange(N), one, jnp.arange(N))

@jax.jit
def updates(state, key):
    def each(number, state):
        return algorithm.learn(state, batch, jax.random.fold_in(key, number))[0]
    return jax.lax.fori_loop(0, 24, each, state)

state = updates(algorithm.init(jax.random.key(0)), jax.random.key(1))
times = []
for number in range(20):
    begun = time.process_time()
    state = jax.block_until_ready(updates(state, jax.random.key(number)))
    times.append((time.process_time() - begun) / 24)
print(json.dumps({"ms": 1e3 * float(np.median(times))}))
"""

FLOOR = """
import json, time
import numpy as np

def gflops():
    a, b = np.ones((1024, 1024), np.float32), np.ones((1024, 1024), np.float32)
    a @ b
    begun = time.perf_counter()
    for _ in range(20):
        a @ b
    return 20 * 2 * 1024**3 / (time.perf_counter() - begun) / 1e9

# Products of SAC with 17 observations, 6 actions, 256-256, N = 256: a forward pass of a layer is 2 N in out; a backward
# pass is as much for its weights, and again for its inputs where something below them is learnt.
N = 256
actor, critic = [(17, 256), (256, 256), (256, 12)], [(23, 256), (256, 256), (256, 1)]
forward = lambda layers: sum(2 * N * a * b for a, b in layers)
inputs = lambda layers: sum(2 * N * a * b for a, b in layers[1:])
target = forward(actor) + 2 * forward(critic)
critics = 2 * (2 * forward(critic) + inputs(critic))
policy = 2 * forward(actor) + inputs(actor) + 2 * forward(critic) + 2 * forward(critic)
total = (target + critics + policy) / 1e9
print(json.dumps({"gflop": total, "gflop_per_s": max(gflops() for _ in range(5))}))
"""

SAC = {"warmup_env_steps": 1000, "learn_every": 16, "rollout_steps": 256}
DQN = {
    "warmup_env_steps": 1000, "learn_every": 128, "rollout_steps": 1024, "batch_size": 64, "replay_ratio": 32.0,
    "hidden": [256, 256],
}  # fmt: skip
SB3_SAC = {"learning_starts": 1000, "train_freq": 1, "gradient_steps": 1}
SB3_DQN = {
    "learning_starts": 1000, "train_freq": 128, "gradient_steps": 64, "batch_size": 64,
    "policy_kwargs": {"net_arch": [256, 256]},
}  # fmt: skip


def together(commands: list[list[str]], single_threaded: bool) -> list[dict]:
    """Run programs side by side and return what each printed as its last line."""
    surroundings = dict(os.environ)
    if single_threaded:
        surroundings |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(words, env=surroundings, **pipes) for words in commands]
    found = []
    for process in processes:
        out, err = process.communicate()
        if process.returncode:
            raise SystemExit(f"{process.args}\n{out[-2000:]}\n{err[-4000:]}")
        found.append(json.loads(out.strip().splitlines()[-1]))
    return found


def speed(rows: list[dict]) -> float:
    return sum(row["steps"] / row["seconds"] for row in rows)


def programs(ours: str, theirs: str, seconds: float) -> dict[str, dict[str, tuple[list[list[str]], bool]]]:
    """The programs of each part: command lines that run side by side, and whether on one thread each."""

    def workhorse(task: str, algorithm: str, settings: dict) -> list[str]:
        return [ours, "-c", WORKHORSE, task, algorithm, json.dumps(settings), str(seconds)]

    def other(module: str, task: str, name: str, settings: dict, single: bool) -> list[str]:
        return [theirs, "-c", OTHERS, module, task, name, json.dumps(settings), str(seconds), str(int(single))]

    cheetah, pendulum, pole = "HalfCheetah-v5", "Pendulum-v1", "CartPole-v1"
    return {
        "machine": {
            "workhorse, two seeds": ([workhorse(cheetah, "sac", SAC)] * 2, True),
            "stable-baselines3": ([other("stable_baselines3", cheetah, "SAC", SB3_SAC, False)], False),
            "sbx": ([other("sbx", cheetah, "SAC", SB3_SAC, False)], False),
            "stable-baselines3, two seeds, a thread each": (
                [other("stable_baselines3", cheetah, "SAC", SB3_SAC, True)] * 2,
                True,
            ),
        },
        "dqn": {
            "workhorse": ([workhorse(pole, "dqn", DQN)], True),
            "stable-baselines3": ([other("stable_baselines3", pole, "DQN", SB3_DQN, False)], False),
        },
        "pendulum": {
            "workhorse": ([workhorse(pendulum, "sac", SAC)], True),
            "stable-baselines3": ([other("stable_baselines3", pendulum, "SAC", SB3_SAC, False)], False),
        },
    }


def update_times(ours: str, rounds: int) -> dict:
    """Milliseconds of an update of each algorithm, every round, and the floor of `sac`."""
    times: dict[str, list[float]] = {"sac": [], "sac-n": []}
    floors = []
    for _ in range(rounds):
        for name, found in times.items():
            found.append(together([[ours, "-c", UPDATE, name]], True)[0]["ms"])
        floors.append(together([[ours, "-c", FLOOR]], True)[0])
    fastest = max(floor["gflop_per_s"] for floor in floors)
    gflop = floors[0]["gflop"]
    return {"ms": times, "gflop": gflop, "gflop_per_s": fastest, "floor_ms": 1e3 * gflop / fastest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--environment", type=Path, default=Path(".bench-environment"))
    arguments = parser.parse_args()
    theirs = prepared(arguments.environment.resolve())
    record = head(f"python bench/off_policy_speed.py --rounds {arguments.rounds} --seconds {arguments.seconds:g}")
    record |= {"versions": versions_of(theirs), "update": update_times(sys.executable, arguments.rounds)}
    print(json.dumps(record["update"]), flush=True)
    parts = programs(sys.executable, str(theirs), arguments.seconds)
    speeds: dict[str, dict[str, list[float]]] = {part: {name: [] for name in rows} for part, rows in parts.items()}
    for number in range(arguments.rounds):
        for part, rows in parts.items():
            for name, (commands, single) in rows.items():
                speeds[part][name].append(speed(together(commands, single)))
                print(f"round {number + 1}: {part:<9} {name:<46} {speeds[part][name][-1]:>9,.0f} steps/s", flush=True)
    ratios = {
        part: {
            name: (np.array(next(iter(rows.values()))) / np.array(rates)).tolist()
            for name, rates in list(rows.items())[1:]
        }
        for part, rows in speeds.items()
    }
    TARGET.write_text(json.dumps({**record, "steps_per_second": speeds, "ratios": ratios}, indent=1))
    for part, rows in ratios.items():
        for name, values in rows.items():
            print(f"{part}: workhorse / {name}: {np.median(values):.1f}x [{min(values):.1f}, {max(values):.1f}]")


if __name__ == "__main__":
    begun = time.perf_counter()
    main()
    print(f"{time.perf_counter() - begun:.0f} s")
