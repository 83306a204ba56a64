"""Low-rank perturbations against full ones: `python bench/low_rank.py [--case CASE ...]`.

Cases, all but `learning` where none is named, all of openai-es, rank 1 against full noise:

- `update`: time of the weighted sums of an iteration, and of the whole update, 256 and 5,000 pairs;
- `acting`: time to act for one member, and for the bare network that all members share;
- `throughput`: training as a share of raw `mujoco.batch`, as in throughput.py, Humanoid-v5 with 256-256;
- `learning`: return of HalfCheetah-v5 with 64-64 after equal steps, in pairs of equal seeds. Every seed is an ordinary
  run in its own single-threaded process, as in learning.py, and may be stopped and gone on with.

In the first two, both sides take turns in this process, on one thread, and processor time is counted. Printed are
medians over rounds, and the ratio with a 95 % interval of its mean logarithm over rounds. Cases that are not named
stay in the results as they were.
"""

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import throughput as against_raw
from learning import SUITES, command_of, result_of, run_seed
from record import head

from workhorse.algorithms import registry
from workhorse.algorithms.evolution.isotropic_search import IsotropicSearch
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Returns
from workhorse.math import moments
from workhorse.statistics.intervals import mean_interval
from workhorse.training.population import PopulationPrograms

RESULTS = Path(__file__).parent / "results" / "low_rank.json"
PAIRS = 256
UPDATED = (PAIRS, 5_000)
"""Pairs of the update: small enough for its fixed costs to count, and those of the published cluster."""
NETWORKS = {
    "HalfCheetah 17-64-64-6": (17, 6, (64, 64)),
    "Humanoid 348-64-64-17": (348, 17, (64, 64)),
    "Humanoid 348-256-256-17": (348, 17, (256, 256)),
}
MEMBERS = (32, 128)
TURN_S = 0.1
"""Seconds that a side works in one round."""
SETTINGS = [
    *("HalfCheetah-v5", "--algorithm", "openai-es", "--policy", "mlp", "--hidden", "64", "64"),
    *("--num-pairs", "32", "--noise-std", "0.05", "--learning-rate", "0.02", "--final-episodes", "100"),
]
CASES = ("update", "acting", "throughput", "learning")
RANKS = {"low-rank-full": [], "low-rank-1": ["--perturbation-rank", "1"]}


def algorithm_of(network: str, rank: int | None, pairs: int = PAIRS) -> IsotropicSearch:
    size, actions, hidden = NETWORKS[network]
    spec = EnvSpec(network, Box.unbounded(size), Box((-1.0,) * actions, (1.0,) * actions), 1000)
    settings = {"policy": "mlp", "hidden": hidden, "num_pairs": pairs, "perturbation_rank": rank}
    made = registry.make("openai-es", spec, settings)
    assert isinstance(made, IsotropicSearch)
    return made


def in_turn(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the processor seconds that a call of each side takes, one number a round, the sides taking turns."""
    for call in sides.values():
        call()
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, call in sides.items():
            begun, calls, until = time.process_time(), 0, time.perf_counter() + TURN_S
            while time.perf_counter() < until:
                call()
                calls += 1
            found[name].append((time.process_time() - begun) / calls)
    return found


def compared(full: list[float], low: list[float]) -> dict[str, float | list[float]]:
    """Return how many times faster `low` is, over rounds."""
    logs = mean_interval(np.log(full) - np.log(low))
    return {"faster": float(np.exp(logs.value)), "interval": [float(np.exp(logs.low)), float(np.exp(logs.high))]}


def update(rounds: int) -> list[dict[str, Any]]:
    """Seconds of an iteration's sums alone, and of the whole update as a run does it."""
    return [row for pairs in UPDATED for network in NETWORKS for row in update_of(network, pairs, rounds)]


def update_of(network: str, pairs: int, rounds: int) -> list[dict[str, Any]]:
    fitness = np.random.default_rng(0).normal(size=2 * pairs).astype(np.float32)
    sides: dict[str, Callable[[], Any]] = {}
    for name, rank in (("full", None), ("rank 1", 1)):
        algorithm = algorithm_of(network, rank, pairs)
        programs = PopulationPrograms(algorithm, 0)
        state, block = programs.init(), jax.jit(algorithm.block)
        experience = Returns(fitness, 1000.0, moments.empty(algorithm.spec.observation.size, jnp.float64))
        key, weights = algorithm.noise_key(state), algorithm.weights(state, experience)
        sides[f"sums, {name}"] = lambda a=algorithm, k=key, w=weights, b=block: [
            jax.block_until_ready(b(k, w, number)) for number in range(a.num_blocks)
        ]
        sides[f"update, {name}"] = lambda p=programs, s=state, e=experience: p.update(s, 0, e)
    found, rows = in_turn(sides, rounds), []
    for part in ("sums", "update"):
        full, low = found[f"{part}, full"], found[f"{part}, rank 1"]
        row = {"network": network, "pairs": pairs, "part": part, "full_s": full, "low_s": low, **compared(full, low)}
        rows.append(row)
        print(
            f"{network:<24} {pairs:>5} pairs {part:<7} full {1e3 * np.median(full):8.2f} ms  "
            f"rank 1 {1e3 * np.median(low):7.2f} ms  "
            f"{row['faster']:.1f}x [{row['interval'][0]:.1f}, {row['interval'][1]:.1f}]",
            flush=True,
        )
    return rows


def acting(rounds: int) -> list[dict[str, Any]]:
    """Seconds to act for one member, and for the network without perturbations on as many observations."""
    rows = []
    for network in NETWORKS:
        for members in MEMBERS:
            sides: dict[str, Callable[[], Any]] = {}
            for name, rank in (("full", None), ("rank 1", 1)):
                algorithm = algorithm_of(network, rank)
                actor = algorithm.actor(algorithm.init(jax.random.key(0)))
                carry = jax.jit(jax.vmap(algorithm.begin, in_axes=(None, 0)))(actor, jnp.arange(members))
                obs = np.random.default_rng(0).normal(size=(members, algorithm.spec.observation.size))
                obs = jnp.asarray(obs, jnp.float32)
                act = jax.jit(lambda actor, carry, obs, a=algorithm: acted(a, actor, carry, obs))
                sides[name] = lambda f=act, a=actor, c=carry, o=obs: jax.block_until_ready(f(a, c, o))
            shared = jax.jit(lambda params, obs, a=algorithm: jax.vmap(a.to_network(params))(obs))
            sides["shared"] = lambda f=shared, a=actor, o=obs: jax.block_until_ready(f(a.params, o))
            found = {name: (np.array(seconds) / members).tolist() for name, seconds in in_turn(sides, rounds).items()}
            rows.append(
                {
                    "network": network,
                    "members": members,
                    **{f"{name.replace(' ', '_')}_s": seconds for name, seconds in found.items()},
                    **compared(found["full"], found["rank 1"]),
                }
            )
            full, low, bare = (1e6 * np.median(found[name]) for name in ("full", "rank 1", "shared"))
            low_end, high_end = rows[-1]["interval"]
            print(
                f"{network:<24} {members:>4} members: full {full:6.2f} us  rank 1 {low:6.2f} us  shared {bare:6.2f} us"
                f"  {rows[-1]['faster']:.2f}x [{low_end:.2f}, {high_end:.2f}]",
                flush=True,
            )
    return rows


def acted(algorithm: IsotropicSearch, actor: Any, carry: Any, obs: jax.Array) -> jax.Array:
    key = jax.random.key(0)
    return jax.vmap(lambda c, o: algorithm.act(actor, c, o, key, explore=True)[0])(carry, obs)


def throughput(repetitions: int) -> list[dict[str, Any]]:
    """Training / raw on Humanoid-v5 with 256-256, by the method of throughput.py."""
    wide = {"policy": "mlp", "hidden": (256, 256)}
    against_raw.POLICIES |= {"mlp-256-256": wide, "mlp-256-256, rank 1": {**wide, "perturbation_rank": 1}}
    rows = []
    for policy in ("mlp-256-256", "mlp-256-256, rank 1"):
        rows.append(against_raw.measure("Humanoid-v5", policy, 64, 2, repetitions))
        low, high = rows[-1]["ratio_range"]
        print(f"Humanoid-v5 {policy:<20} training / raw {rows[-1]['ratio']:.2f} [{low:.2f}, {high:.2f}]", flush=True)
    return rows


def learning(seeds: int, env_steps: int, processes: int, root: Path) -> dict[str, Any]:
    """Final returns of both, seed by seed, and the mean of their differences with an interval."""
    SUITES.update({suite: [*SETTINGS, "--env-steps", str(env_steps), *own] for suite, own in RANKS.items()})
    both = [(suite, seed) for seed in range(seeds) for suite in RANKS]
    with ThreadPoolExecutor(processes) as pool:
        folders = list(pool.map(lambda one: run_seed(one[0], one[1], root, 1), both))
    results = {suite: [result_of(folder) for folder in folders[place::2]] for place, suite in enumerate(RANKS)}
    full, low = (np.array([run["mean"] for run in results[suite]]) for suite in RANKS)
    difference = mean_interval(low - full)
    found = {
        "env_steps": env_steps,
        "commands": {suite: " ".join(command_of(suite, 0, 1)) for suite in RANKS},
        "difference": difference.value,
        "interval": [difference.low, difference.high],
        "runs": results,
    }
    print(
        f"rank 1 less full, {seeds} seeds, {env_steps:,} steps: {difference.value:.0f} "
        f"[{difference.low:.0f}, {difference.high:.0f}]; full {full.mean():.0f}, rank 1 {low.mean():.0f}"
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="+", default=["update", "acting", "throughput"], choices=CASES)
    parser.add_argument("--rounds", type=int, default=15, help="of update, acting and throughput")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--env-steps", type=int, default=2_000_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rounds, results = arguments.rounds, arguments.results
    found: dict[str, Any] = json.loads(results.read_text()) if results.exists() else {}
    measured: dict[str, Callable[[], Any]] = {
        "update": lambda: update(rounds),
        "acting": lambda: acting(rounds),
        "throughput": lambda: throughput(rounds),
        "learning": lambda: learning(arguments.seeds, arguments.env_steps, arguments.processes, arguments.runs),
    }
    for case in arguments.case:
        sizes = f"--seeds {arguments.seeds}" if case == "learning" else f"--rounds {rounds}"
        found[case] = {**head(f"python bench/low_rank.py --case {case} {sizes}"), "found": measured[case]()}
        results.parent.mkdir(exist_ok=True)
        results.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
