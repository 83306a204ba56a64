"""Speed, and returns, against other libraries on HalfCheetah-v5: `python bench/libraries.py SUITE`.

Makes an environment of its own for the others (bench/requirements-libraries.txt), and then lets all train in turn,
several rounds, so that a slow minute of the machine hits all of them. The first two suites measure environment steps
trained on per second, where the first iteration (start-up, compilation) is not counted; the third measures whole runs.

- `evolution`: sb3-contrib ARS and EvoTorch. Each uses two cores: Workhorse two threads, the others two workers. All
  train a linear policy with 32 mirrored pairs (EvoTorch: a population of 64).
- `ppo`: Stable-Baselines3 and SBX with 8 environments and their defaults (2,048 steps each, 10 epochs of minibatches of
  64, on the processor), Workhorse with its recipe (64 slots of 32 steps, 10 epochs of minibatches of 64), and also with
  their sizes (8 slots of 2,048 steps). Two 64-unit layers everywhere.
- `whole`: the programs of `ppo` train a million steps from the start of the process to the end of training, imports
  and compilation included, each round with its own seed; then 100 episodes of the likeliest actions, on the raw reward
  and not timed. Workhorse's is the ordinary command without evaluations, which nobody else makes. What a round found is
  written at once: one is expected to take a quarter of an hour or more.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

import numpy as np
from record import head

HERE = Path(__file__).parent
TARGETS = {"evolution": "libraries.json", "ppo": "libraries-ppo.json", "whole": "libraries-whole.json"}

SB3 = """
import json, sys, time
from sb3_contrib import ARS
from sb3_contrib.common.vec_env import AsyncEval
from stable_baselines3.common.env_util import make_vec_env

class Enough(Exception):
    pass

class Timed(ARS):
    def _do_one_update(self, callback, async_eval):
        super()._do_one_update(callback, async_eval)
        self.marks.append((time.perf_counter(), self.num_timesteps))
        if self.marks[-1][0] - self.marks[0][0] > self.seconds:
            raise Enough

def main(seconds):
    env = make_vec_env("HalfCheetah-v5", n_envs=1)
    model = Timed("LinearPolicy", env, n_delta=32, n_top=4, delta_std=0.03, learning_rate=0.02, device="cpu")
    model.marks, model.seconds = [], seconds
    workers = AsyncEval([lambda: make_vec_env("HalfCheetah-v5", n_envs=1)] * 2, model.policy)
    try:
        model.learn(total_timesteps=10**9, async_eval=workers)
    except Enough:
        pass
    workers.close()
    (begun, first), (ended, last) = model.marks[0], model.marks[-1]
    print(json.dumps({"steps": last - first, "seconds": ended - begun}))

if __name__ == "__main__":
    main(float(sys.argv[1]))
"""

EVOTORCH = """
import json, sys, time
import torch
from evotorch.algorithms import PGPE
from evotorch.neuroevolution import GymNE

def main(seconds):
    torch.set_num_threads(1)
    problem = GymNE("HalfCheetah-v5", "Linear(obs_length, act_length, bias=False)", num_actors=2,
                    observation_normalization=True)
    searcher = PGPE(problem, popsize=64, center_learning_rate=0.01, stdev_learning_rate=0.1, stdev_init=0.03,
                    optimizer="clipup", optimizer_config={"max_speed": 0.02})
    searcher.step()
    begun, first = time.perf_counter(), int(searcher.status["total_interaction_count"])
    while time.perf_counter() - begun < seconds:
        searcher.step()
    steps, elapsed = int(searcher.status["total_interaction_count"]) - first, time.perf_counter() - begun
    print(json.dumps({"steps": steps, "seconds": elapsed}))

if __name__ == "__main__":
    main(float(sys.argv[1]))
"""

WORKHORSE = """
import json, sys, time
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan

def main(seconds):
    plan = Plan("HalfCheetah-v5", {}, "ars", {"num_directions": 32, "num_top_directions": 4}, 0)
    loop = make_loop(plan, plan.spec(), 2)
    progress, _, _ = loop.iterate(loop.start())
    begun, first = time.perf_counter(), int(progress.env_steps)
    while time.perf_counter() - begun < seconds:
        progress, _, _ = loop.iterate(progress)
    print(json.dumps({"steps": int(progress.env_steps) - first, "seconds": time.perf_counter() - begun}))

if __name__ == "__main__":
    main(float(sys.argv[1]))
"""


PPO = """
import json, sys, time
from {module} import PPO
from stable_baselines3.common.env_util import make_vec_env

class Enough(Exception):
    pass

class Timed(PPO):
    def train(self):
        super().train()
        self.marks.append((time.perf_counter(), self.num_timesteps))
        if self.marks[-1][0] - self.marks[0][0] > self.seconds:
            raise Enough

def main(seconds):
    model = Timed("MlpPolicy", make_vec_env("HalfCheetah-v5", n_envs=8), device="cpu")
    model.marks, model.seconds = [], seconds
    try:
        model.learn(total_timesteps=10**9)
    except Enough:
        pass
    (begun, first), (ended, last) = model.marks[0], model.marks[-1]
    print(json.dumps({{"steps": last - first, "seconds": ended - begun}}))

if __name__ == "__main__":
    main(float(sys.argv[1]))
"""

WORKHORSE_PPO = """
import json, sys, time
import jax
from workhorse.algorithms.recipes import recipe
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan

def main(seconds):
    theirs = {{"num_envs": 8, "rollout_steps": 2048, "held_out_envs": 1}}
    settings = dict(recipe("HalfCheetah-v5", "ppo").settings) | (theirs if {theirs} else {{}})
    plan = Plan("HalfCheetah-v5", {{}}, "ppo", settings, 0).with_budget(10**6)
    loop = make_loop(plan, plan.spec(), 2)
    progress, _, _ = loop.iterate(loop.start())
    jax.block_until_ready(progress.state)
    begun, first = time.perf_counter(), int(progress.env_steps)
    while time.perf_counter() - begun < seconds:
        progress, _, _ = loop.iterate(progress)
    jax.block_until_ready(progress.state)
    print(json.dumps({{"steps": int(progress.env_steps) - first, "seconds": time.perf_counter() - begun}}))

if __name__ == "__main__":
    main(float(sys.argv[1]))
"""

PPO_WHOLE = """
import json, sys, time
from {module} import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

def main(launched, seed):
    model = PPO("MlpPolicy", make_vec_env("HalfCheetah-v5", n_envs=8, seed=seed), device="cpu", seed=seed)
    model.learn(total_timesteps=10**6)
    seconds = time.time() - launched
    fresh = make_vec_env("HalfCheetah-v5", n_envs=8, seed=seed + 10**6)
    mean, _ = evaluate_policy(model, fresh, n_eval_episodes=100, deterministic=True)
    print(json.dumps({{"steps": model.num_timesteps, "seconds": seconds, "return": float(mean)}}))

if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
"""

WORKHORSE_PPO_WHOLE = """
import json, subprocess, sys, tempfile, time
from pathlib import Path
from workhorse.runs.folder import RunFolder
from workhorse.runs.metrics import read_metrics

def main(launched, seed):
    program = [sys.executable, "-m", "workhorse.cli.main"]
    with tempfile.TemporaryDirectory() as runs:
        folder = Path(runs) / "whole"
        words = ["train", "HalfCheetah-v5", "--algorithm", "ppo", "--env-steps", "1e6", "--seed", str(seed), "--quiet"]
        words += ["--evaluate-every", "0", "--final-episodes", "1", "--runs", runs, "--id", folder.name]
        subprocess.run([*program, *words], check=True, stdout=subprocess.DEVNULL)
        seconds = time.time() - launched
        subprocess.run([*program, "evaluate", str(folder)], check=True, stdout=subprocess.DEVNULL)
        newest = max(RunFolder.open(folder).evaluations.glob("*.json"), key=lambda file: file.stat().st_mtime)
        found = json.loads(newest.read_text())
        assert len(found["returns"]) == 100
        steps = int(read_metrics(folder)["env_steps"][-1])
    print(json.dumps({"steps": steps, "seconds": seconds, "return": found["mean"]}))

if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
"""


def prepared(folder: Path) -> Path:
    """A Python with the two libraries in it, made once."""
    python = folder / "bin" / "python"
    stamp = folder / "ready"
    requirements = HERE / "requirements-libraries.txt"
    if not stamp.exists() or stamp.read_text() != requirements.read_text():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True)
        stamp.write_text(requirements.read_text())
    return python


def outcome(python: Path | str, program: str, script: Path, words: list[str], single_threaded: bool) -> dict:
    """Run a program and return the object of JSON that it prints as its last line."""
    script.write_text(program)
    surroundings = dict(os.environ)
    if single_threaded:
        surroundings |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run([python, script, *words], env=surroundings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{script.name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def versions_of(python: Path) -> dict[str, str]:
    """Versions of ours here and of the other libraries in their environment."""
    from workhorse.core.machine import installed_versions

    others = ("sb3_contrib", "stable_baselines3", "sbx-rl", "evotorch", "torch", "ray")
    frozen = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    pairs = [line.split("==") for line in frozen.splitlines() if "==" in line]
    return installed_versions() | {name: version for name, version in pairs if name in others}


def whole(python: Path, folder: Path, rounds: int, goes_on: bool) -> None:
    """Whole runs in turn; the file is written after every round, and one that `goes_on` begins after those in it."""
    results = HERE / "results" / TARGETS["whole"]
    programs = {
        "workhorse": (sys.executable, WORKHORSE_PPO_WHOLE),
        "stable-baselines3": (python, PPO_WHOLE.format(module="stable_baselines3")),
        "sbx": (python, PPO_WHOLE.format(module="sbx")),
    }
    runs: dict[str, list[dict]] = {name: [] for name in programs}
    if goes_on:
        runs = json.loads(results.read_text())["runs"]
    for seed in range(len(runs["workhorse"]), rounds):
        for name, (interpreter, program) in programs.items():
            script = folder / f"train_whole_with_{name.replace('-', '_')}.py"
            found = outcome(interpreter, program, script, [str(time.time()), str(seed)], False)
            runs[name].append({"seed": seed} | found)
            print(f"seed {seed}: {name:<18} {found['seconds']:>6.0f} s, return {found['return']:>6,.0f}", flush=True)
        made_by = head(f"python bench/libraries.py whole --rounds {seed + 1}")
        results.write_text(json.dumps({**made_by, "versions": versions_of(python), "runs": runs}, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", choices=tuple(TARGETS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--environment", type=Path, default=Path(".bench-environment"))
    parser.add_argument("--go-on", action="store_true", help="whole: keep the rounds that are in the file")
    arguments = parser.parse_args()
    python = prepared(arguments.environment.resolve())
    (HERE / "results").mkdir(exist_ok=True)
    if arguments.suite == "whole":
        whole(python, arguments.environment.resolve(), arguments.rounds, arguments.go_on)
        return
    suites = {
        "evolution": {
            "workhorse": (sys.executable, WORKHORSE, False),
            "sb3-contrib": (python, SB3, True),
            "evotorch": (python, EVOTORCH, True),
        },
        "ppo": {
            "workhorse": (sys.executable, WORKHORSE_PPO.format(theirs=False), False),
            "workhorse, their sizes": (sys.executable, WORKHORSE_PPO.format(theirs=True), False),
            "stable-baselines3": (python, PPO.format(module="stable_baselines3"), False),
            "sbx": (python, PPO.format(module="sbx"), False),
        },
    }
    programs = suites[arguments.suite]
    speeds: dict[str, list[float]] = {name: [] for name in programs}
    for round_number in range(arguments.rounds):
        for name, (interpreter, program, single) in programs.items():
            script = arguments.environment.resolve() / f"train_with_{name}.py".replace(", ", "_").replace(
                " ", "_"
            ).replace("-", "_")
            found = outcome(interpreter, program, script, [str(arguments.seconds)], single)
            speeds[name].append(found["steps"] / found["seconds"])
            print(f"round {round_number + 1}: {name:<12} {speeds[name][-1]:>9,.0f} steps/s", flush=True)
    ours = np.array(speeds["workhorse"])
    ratios = {name: (ours / np.array(rates)).tolist() for name, rates in speeds.items() if "workhorse" not in name}
    (HERE / "results" / TARGETS[arguments.suite]).write_text(
        json.dumps(
            {
                **head(
                    f"python bench/libraries.py {arguments.suite} --rounds {arguments.rounds} "
                    f"--seconds {arguments.seconds:g}"
                ),
                "versions": versions_of(python),
                "steps_per_second": speeds,
                "ratios": ratios,
            },
            indent=1,
        )
    )
    for name, values in ratios.items():
        print(f"workhorse / {name}: {np.median(values):.1f}x [{min(values):.1f}, {max(values):.1f}]")


if __name__ == "__main__":
    main()
