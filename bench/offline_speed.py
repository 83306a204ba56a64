"""Updates a second from a log beside CORL and d3rlpy: `python bench/offline_speed.py --python PY --corl FOLDER`.

All three do the same: batches of 256 out of 100,000 rows with Hopper's sizes (11 and 3), two hidden layers of 256, on
one core, in turn, each round in a process of its own; what is compiled or allocated at first is not counted. PY is a
Python that has torch and d3rlpy (`pip install torch d3rlpy`), FOLDER a checkout of CORL, of which the classes of
`algorithms/offline/td3_bc.py` and `iql.py` are used: its scripts import d4rl, which cannot be installed, and so
stand-ins take the place of what only their command lines need. The rows are noise, which changes no time.
"""

from __future__ import annotations

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
import argparse
import json
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np

ROWS, OBS, ACTIONS, BATCH, UPDATES = 100_000, 11, 3, 256, 2_000
PARTIES = ("workhorse", "corl", "d3rlpy")


def noise() -> dict[str, np.ndarray]:
    """Return rows of episodes of 1,000 steps."""
    rng = np.random.default_rng(0)
    return {
        "obs": rng.normal(size=(ROWS, OBS)).astype(np.float32),
        "action": rng.uniform(-1, 1, (ROWS, ACTIONS)).astype(np.float32),
        "reward": rng.normal(size=ROWS).astype(np.float32),
        "next_obs": rng.normal(size=(ROWS, OBS)).astype(np.float32),
        "end": (np.arange(ROWS) % 1000 == 999),
    }


def workhorse(algorithm: str) -> float:
    import jax

    from workhorse.algorithms import registry
    from workhorse.core.randomness import root_key
    from workhorse.core.spec import Box, EnvSpec
    from workhorse.data.dataset import LogRows
    from workhorse.training import offline

    spec = EnvSpec("Hopper-v5", Box.unbounded(OBS), Box((-1.0,) * ACTIONS, (1.0,) * ACTIONS), 1000)
    learner = registry.make(algorithm, spec, {"hidden": (256, 256), "batch_size": BATCH})
    rows, given = np.arange(ROWS), noise()
    log = LogRows(
        given["obs"], given["action"], given["reward"], 0.99 * ~given["end"].astype(bool), given["next_obs"],
        given["end"], np.zeros(ROWS, bool), np.ones(ROWS, np.int32), rows, given["action"], given["reward"],
    )  # fmt: skip
    log = jax.tree.map(jax.numpy.asarray, log._replace(discount=log.discount.astype(np.float32)))
    state, root = offline._init(learner, root_key(0)), root_key(0)

    def done(state: object, first: int) -> object:
        index = offline._drawn(root, np.uint32(first), 1000, BATCH, ROWS)
        return jax.block_until_ready(offline._updates(learner, state, log, index, root, np.uint32(first), ROWS)[0])

    state = done(state, 0)
    begin = time.perf_counter()
    for first in range(0, UPDATES, 1000):
        state = done(state, first)
    return UPDATES / (time.perf_counter() - begin)


def corl(algorithm: str, folder: Path) -> float:
    import torch

    for name in ("d4rl", "gym", "pyrallis", "wandb"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["gym"].Env = object
    sys.modules["pyrallis"].wrap = lambda: lambda function: function
    torch.set_num_threads(1)
    sys.path.insert(0, str(folder / "algorithms" / "offline"))
    given = noise()
    if algorithm == "td3+bc":
        import td3_bc as source

        actor = source.Actor(OBS, ACTIONS, 1.0)
        critics = [source.Critic(OBS, ACTIONS), source.Critic(OBS, ACTIONS)]
        optimisers = [torch.optim.Adam(one.parameters(), lr=3e-4) for one in (actor, *critics)]
        trainer = source.TD3_BC(
            1.0, actor, optimisers[0], critics[0], optimisers[1], critics[1], optimisers[2], policy_noise=0.2
        )
    else:
        import iql as source

        actor, value, critic = (
            source.GaussianPolicy(OBS, ACTIONS, 1.0),
            source.ValueFunction(OBS),
            source.TwinQ(OBS, ACTIONS),
        )
        optimisers = [torch.optim.Adam(one.parameters(), lr=3e-4) for one in (actor, critic, value)]
        trainer = source.ImplicitQLearning(
            1.0, actor, optimisers[0], critic, optimisers[1], value, optimisers[2], device="cpu"
        )
    buffer = source.ReplayBuffer(OBS, ACTIONS, ROWS, "cpu")
    names = ("observations", "actions", "rewards", "next_observations", "terminals")
    columns = (given[name] for name in ("obs", "action", "reward", "next_obs", "end"))
    buffer.load_d4rl_dataset(dict(zip(names, columns, strict=True)))

    def done(count: int) -> None:
        for _ in range(count):
            trainer.train(buffer.sample(BATCH))

    done(100)
    begin = time.perf_counter()
    done(UPDATES)
    return UPDATES / (time.perf_counter() - begin)


def d3rlpy(algorithm: str) -> float:
    import d3rlpy
    import torch

    torch.set_num_threads(1)
    given = noise()
    log = d3rlpy.dataset.MDPDataset(
        given["obs"], given["action"], given["reward"], given["end"].astype(np.float32), np.zeros(ROWS, np.float32)
    )
    made = d3rlpy.algos.TD3PlusBCConfig if algorithm == "td3+bc" else d3rlpy.algos.IQLConfig
    learner = made(batch_size=BATCH).create(device=False)
    learner.build_with_dataset(log)

    def done(count: int) -> None:
        for _ in range(count):
            learner.update(log.sample_transition_batch(BATCH))

    done(100)
    begin = time.perf_counter()
    done(UPDATES)
    return UPDATES / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--corl", type=Path, default=Path())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        party, algorithm = arguments.one
        rate = {
            "workhorse": workhorse, "d3rlpy": d3rlpy, "corl": lambda name: corl(name, arguments.corl)
        }[party](algorithm)  # fmt: skip
        print(json.dumps(rate))
        return
    from record import head

    found: dict[str, dict[str, list[float]]] = {}
    for algorithm in ("td3+bc", "iql"):
        rates = found[algorithm] = {party: [] for party in PARTIES}
        for _ in range(arguments.rounds):
            for party in PARTIES:
                python = sys.executable if party == "workhorse" else arguments.python
                words = [python, __file__, "--corl", str(arguments.corl), "--one", party, algorithm]
                command = ["taskset", "-c", str(arguments.core), *words]
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                if party != "workhorse":
                    environment.pop("PYTHONPATH", None)
                answer = subprocess.run(command, capture_output=True, text=True, env=environment)
                if answer.returncode:
                    raise SystemExit(answer.stderr[-2000:])
                rates[party].append(json.loads(answer.stdout.splitlines()[-1]))
        print(algorithm, {party: [round(rate) for rate in values] for party, values in rates.items()}, flush=True)
    results = Path(__file__).parent / "results" / "offline-speed.json"
    results.write_text(
        json.dumps({**head("python bench/offline_speed.py"), "updates_per_second": found}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
