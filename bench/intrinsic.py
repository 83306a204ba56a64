"""Speed of evolution strategies by the number of parameters, and by the number that the task needs.

    python bench/intrinsic.py --case duplicates|widths|subspace|tricks [--seeds 10] [--tasks TASK ...] [--hidden 20]

Salimans et al. 2017 (section 3.2) say: not the parameters count but the intrinsic dimension; and that what helps
backpropagation helps them. Four cases on the tasks that are pure functions, each search compiled as one program:

- `duplicates`: every input is given k times, with the noise and the step divided by sqrt(k). Then the sum of the k
  weights has the law that one weight had before, so that the searches are equal in law. Steps to the threshold are
  compared over seeds by a permutation test.
- `widths`: a hidden layer of 16 to 1,024 units, perturbations and steps of one length whatever the width: the slope of
  log steps on log parameters. 0 is the claim, 1 the worst case.
- `subspace`: theta = theta_0 + P z with random columns of unit length; d90 is the least d whose score is 90 % of that
  of all parameters (Li et al. 2018, "Measuring the intrinsic dimension of objective landscapes").
- `tricks`: two hidden layers of 64 with another scale of the last layer, layer norm, or a residual connection, against
  the same without: the ratio of steps to the threshold, seeds paired.

Rows are written as they come; those of other tasks and sizes that the file has stay.
"""

import argparse
import functools
import json
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from record import head

import workhorse.evolution as evolution
from workhorse.core.spec import Box
from workhorse.environments import registry as environments
from workhorse.environments.protocol import HostEnv, JaxEnv
from workhorse.networks.heads import action_of, num_outputs
from workhorse.networks.mlp import MLP
from workhorse.statistics.intervals import mean_interval
from workhorse.statistics.permutation import permutation_test

RESULTS = Path(__file__).with_name("results")
PAIRS, JUDGED = 16, 32


class Task(NamedTuple):
    """A task, what scales its observations, the mean return that solves it, its floor, and the generations at most."""

    name: str
    scale: tuple[float, ...]
    threshold: float
    floor: float
    generations: int
    max_speed: float


TASKS = (
    Task("CartPole-v1", (1.0, 1.0, 0.1, 1.0), 475.0, 22.0, 60, 0.3),
    Task("Acrobot-v1", (1.0, 1.0, 1.0, 1.0, 3.0, 6.0), -100.0, -500.0, 60, 0.3),
    Task("Pendulum-v1", (1.0, 1.0, 4.0), -250.0, -1300.0, 400, 0.15),
    Task("MountainCarContinuous-v0", (1.0, 0.05), 90.0, 0.0, 100, 0.3),
)
ONE_MORE = Task("MountainCar-v0", (1.0, 0.05), -120.0, -200.0, 100, 0.3)


class Policy(NamedTuple):
    """How n searched numbers act: theta_0 + P z with its network; P is () where z are the parameters themselves."""

    start: jax.Array
    columns: jax.Array | tuple[()]


class Case(NamedTuple):
    """What a search is compiled for: a task, units of the hidden layers, copies of each input, numbers searched for."""

    task: Task
    hidden: tuple[int, ...] = ()
    copies: int = 1
    dimension: int | None = None
    algorithm: str = "pgpe"
    last_scale: float = 0.01
    layer_norm: bool = False
    residual: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        spec = environment(self.task.name).spec
        return (spec.observation.size * self.copies, *self.hidden, num_outputs(spec.action, None))

    def network(self, key: jax.Array) -> MLP:
        return MLP.create(key, self.sizes, bias=bool(self.hidden), last_scale=self.last_scale if self.hidden else 0.0)

    def output(self, network: MLP, x: jax.Array) -> jax.Array:
        if not (self.layer_norm or self.residual):
            return network(x)
        *hidden, last = zip(network.weights, network.biases, strict=True)
        for weight, bias in hidden:
            z = weight @ x + bias
            if self.layer_norm:
                z = (z - z.mean()) * jax.lax.rsqrt(z.var() + jnp.float32(1e-5))
            x = jnp.tanh(z) + (x if self.residual and x.shape == z.shape else 0)
        return last[0] @ x + last[1]

    @property
    def size(self) -> int:
        return sum(a * b + (b if self.hidden else 0) for a, b in pairwise(self.sizes))

    def policy(self, seed: int) -> Policy:
        key, other = jax.random.split(jax.random.key(10_000 + seed))
        start = ravel_pytree(self.network(key))[0]
        if self.dimension is None:
            return Policy(start, ())
        columns = jax.random.normal(other, (self.size, self.dimension), jnp.float32)
        return Policy(start, columns / jnp.linalg.norm(columns, axis=0))

    def strategy(self) -> evolution.AskTell:
        size = self.size if self.dimension is None else self.dimension
        speed = self.task.max_speed
        if self.algorithm == "pgpe":
            return evolution.make(
                "pgpe", size=size, num_pairs=PAIRS, max_speed=speed, learning_rate=speed / 2, radius=7.5 * speed
            )
        narrow = math.sqrt(self.copies)  # a step of ARS is linear in the noise: both shrink alike
        return evolution.make(
            "ars",
            size=size,
            num_directions=PAIRS,
            num_top_directions=PAIRS // 2,
            noise_std=0.3 / narrow,
            learning_rate=0.1 / narrow,
        )


@functools.cache
def environment(name: str) -> JaxEnv:
    env = environments.make(name, 1, 1)
    assert not isinstance(env, HostEnv)
    return env


def returns_of(case: Case, policy: Policy, points: jax.Array, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return and length of one episode of each point (P, n)."""
    env = environment(case.task.name)
    moved = points if isinstance(policy.columns, tuple) else points @ policy.columns.T
    unravel = ravel_pytree(case.network(jax.random.key(0)))[1]
    networks, scale = jax.vmap(unravel)(policy.start + moved), jnp.asarray(case.task.scale, jnp.float32)
    space, count = env.spec.action, len(points)

    def act(network: MLP, obs: jax.Array) -> jax.Array:
        seen = jnp.tile(jnp.clip(obs.astype(jnp.float32) / scale, -5, 5), case.copies)
        action = action_of(space, None, case.output(network, seen))
        if isinstance(space, Box):
            action = jnp.clip(action, *(jnp.asarray(bound, jnp.float32) for bound in (space.low, space.high)))
        return action

    def advance(loop):
        states, obs, alive, total, length = loop
        states, step = jax.vmap(env.step)(states, jax.vmap(act)(networks, obs), keys)
        total, length = total + jnp.where(alive, step.reward, 0.0), length + alive
        return states, step.next_obs, alive & ~(step.terminated | step.truncated), total, length

    start = (*jax.vmap(env.reset)(keys), jnp.ones(count, bool), jnp.zeros(count), jnp.zeros(count, jnp.int64))
    *_, total, length = jax.lax.while_loop(lambda loop: loop[2].any(), advance, start)
    return total, length


@functools.lru_cache(maxsize=4)
def compiled(case: Case):
    es = case.strategy()

    def run(key: jax.Array, policy: Policy) -> tuple[jax.Array, jax.Array]:
        def generation(carry, number):
            state, steps, _, best = carry

            def go(_):
                after, points = es.ask(state)
                address = jax.random.fold_in(key, number)
                pairs = jnp.arange(2 * PAIRS) // 2  # both members of a pair begin alike
                keys = jax.vmap(lambda pair: jax.random.fold_in(address, pair))(pairs)
                total, length = returns_of(case, policy, points, keys)
                after = es.tell(after, total.astype(jnp.float32))
                judges = jax.random.split(jax.random.fold_in(address, 10_000), JUDGED)
                score = returns_of(case, policy, jnp.tile(es.mean(after), (JUDGED, 1)), judges)[0].mean()
                taken = steps + length.sum()
                solved_at = jnp.where(score >= case.task.threshold, taken.astype(jnp.float64), jnp.inf)
                return after, taken, solved_at, jnp.maximum(best, score)

            return jax.lax.cond(jnp.isfinite(carry[2]), lambda _: carry, go, None), None

        nothing = (jnp.zeros((), jnp.int64), jnp.asarray(jnp.inf), jnp.asarray(-jnp.inf))
        first = (es.init(jax.random.fold_in(key, 1)), *nothing)
        (_, _, solved_at, best), _ = jax.lax.scan(generation, first, jnp.arange(case.task.generations))
        return solved_at, best

    return jax.jit(run)


def search(case: Case, seed: int) -> tuple[float, float]:
    """Return environment steps until the centre solved the task (inf: never), and its best score on the way."""
    solved_at, best = compiled(case)(jax.random.key(seed), case.policy(seed))
    return float(solved_at), float(best)


def duplicates(tasks: list[Task], seeds: int, _: list[int]) -> Iterator[dict]:
    for task in (task for task in tasks if task.name != "Pendulum-v1"):  # which no linear policy solves
        cases = {copies: Case(task, copies=copies, algorithm="ars") for copies in (1, 8)}
        found = {copies: [search(case, seed)[0] for seed in range(seeds)] for copies, case in cases.items()}
        both = [np.log([value for value in found[copies] if np.isfinite(value)]) for copies in (1, 8)]
        p = float(permutation_test(both[0], both[1]).p_value) if min(map(len, both)) > 1 else math.nan
        yield {"task": task.name, "steps": {str(k): v for k, v in found.items()}, "p": p}


def widths(tasks: list[Task], seeds: int, _: list[int]) -> Iterator[dict]:
    for task in tasks:
        cells = []
        for width in (16, 64, 256, 1024):
            case = Case(task, hidden=(width,))
            cells.append({"width": width, "parameters": case.size, "steps": [search(case, s)[0] for s in range(seeds)]})
            print(task.name, cells[-1], flush=True)
        yield {"task": task.name, "cells": cells, "slope": slope_of(cells)}


def slope_of(cells: list[dict]) -> list[float] | None:
    """Slope of log steps on log parameters, its 95 % interval and the seeds that solved all widths; None below 3."""
    sizes, slopes = [math.log(cell["parameters"]) for cell in cells], []
    for steps in zip(*(cell["steps"] for cell in cells), strict=True):
        if all(map(math.isfinite, steps)):
            slopes.append(float(np.polyfit(sizes, np.log(steps), 1)[0]))
    if len(slopes) < 3:
        return None
    interval = mean_interval(np.array(slopes))
    return [float(np.mean(slopes)), float(interval.low), float(interval.high), len(slopes)]


def subspace(tasks: list[Task], seeds: int, units: list[int]) -> Iterator[dict]:
    for task in tasks:
        for hidden in ((unit, unit) for unit in units):
            whole = Case(task, hidden)
            full = [search(whole, seed)[1] for seed in range(seeds)]
            aim = task.floor + 0.9 * (float(np.mean(full)) - task.floor)
            cells = []
            for dimension in (1, 2, 3, 4, 6, 8, 12, 16, 25, 50):
                case = whole._replace(dimension=dimension)
                cells.append({"d": dimension, "scores": [search(case, seed)[1] for seed in range(seeds)]})
                print(task.name, hidden, dimension, np.mean(cells[-1]["scores"]), "of", aim, flush=True)
            reached = [cell["d"] for cell in cells if np.mean(cell["scores"]) >= aim]
            d90 = min(reached, default=None)
            row = {"task": task.name, "hidden": list(hidden), "parameters": whole.size, "d90": d90}
            yield {**row, "aim": aim, "full": full, "cells": cells}


def tricks(tasks: list[Task], seeds: int, _: list[int]) -> Iterator[dict]:
    changes = {
        "last layer x 10": {"last_scale": 0.1},
        "last layer x 100": {"last_scale": 1.0},
        "layer norm": {"layer_norm": True},
        "residual": {"residual": True},
        "layer norm and residual": {"layer_norm": True, "residual": True},
    }
    for task in tasks:
        plain = [search(Case(task, (64, 64)), seed)[0] for seed in range(seeds)]
        for name, change in changes.items():
            steps = [search(Case(task, (64, 64))._replace(**change), seed)[0] for seed in range(seeds)]
            both = [(a, b) for a, b in zip(plain, steps, strict=True) if math.isfinite(a) and math.isfinite(b)]
            ratios = np.log([b / a for a, b in both])
            interval = mean_interval(ratios) if len(both) > 2 else None
            factor = (
                None if interval is None else [float(np.exp(v)) for v in (ratios.mean(), interval.low, interval.high)]
            )
            yield {"task": task.name, "change": name, "plain": plain, "steps": steps, "factor": factor}


def key_of(row: dict) -> tuple:
    """Return what a row of results is about."""
    return row["task"], row.get("change"), *row.get("hidden", ())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=("duplicates", "widths", "subspace", "tricks"), required=True)
    parser.add_argument("--seeds", type=int, default=10)
    known = {task.name: task for task in (*TASKS, ONE_MORE)}
    parser.add_argument("--tasks", nargs="+", choices=known)
    parser.add_argument("--hidden", nargs="+", type=int, default=[20, 200], help="units of both layers in a subspace")
    options = parser.parse_args()
    names = options.tasks or (known if options.case == "tricks" else [task.name for task in TASKS])
    target = RESULTS / f"intrinsic-{options.case}.json"
    rows = {key_of(row): row for row in json.loads(target.read_text())["rows"]} if target.exists() else {}
    command = f"python bench/intrinsic.py --case {options.case} --seeds {options.seeds}"
    for row in globals()[options.case]([known[name] for name in names], options.seeds, options.hidden):
        print({name: value for name, value in row.items() if name not in ("cells", "full")}, flush=True)
        rows[key_of(row)] = row
        target.write_text(json.dumps({**head(command), "rows": list(rows.values())}, indent=1) + "\n")


if __name__ == "__main__":
    main()
