"""The loop of learning from a log: updates alone, a thousand in one compiled program, and no environment.

An iteration is `updates_per_iteration` updates. Where other loops count environment steps, this one counts updates.
Some episodes of the log are held out: nothing is learnt from them, and every iteration is measured on them.

The rows of update n are drawn from the address ("replay", n), so that a run that is resumed draws the same ones, and so
does one whose log is mapped from disk: there the rows of an iteration are gathered before the program runs, and here
within it.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree

from workhorse.algorithms.offline.log_learner import LogLearner
from workhorse.core.algorithm import Algorithm, Key, OffPolicy, State
from workhorse.core.errors import UsageError
from workhorse.core.machine import describe_hardware
from workhorse.core.randomness import draw, permutation, root_key
from workhorse.core.types import Rollout
from workhorse.data.dataset import CHUNK, Dataset, LogRows
from workhorse.data.opening import check_fits, check_learnable, open_dataset
from workhorse.environments import registry as environments
from workhorse.training.episodes import evaluation_of, make_player
from workhorse.training.lanes import Lanes
from workhorse.training.log_measures import Probe, log_measures, probe_of
from workhorse.training.log_share import as_transitions
from workhorse.training.loop import Evaluation, Failures, GoesOn, Loop, Progress
from workhorse.training.on_policy import EVALUATION_SLOTS
from workhorse.training.rollouts import actor_of
from workhorse.training.step_length import with_step_norm

if TYPE_CHECKING:
    from workhorse.training.plan import Plan

__all__ = ["OfflineLoop", "held_out_episodes", "opened_log"]

Number = int | np.integer | Int[Array, ""]
"""A count, on the host or traced."""

MEMORY_SHARE = 0.4
"""Share of the machine's memory up to which a log's rows are kept there; beyond it they stay on disk."""


def opened_log(plan: Plan, algorithm: Algorithm, least_episodes: int = 2) -> Dataset:
    """Return the log of a plan, checked: it is the one that the plan was made with, and fits the algorithm's task.

    Raises:
        UsageError: it is another one, or nothing can be learnt from it.
    """
    assert plan.sources is not None
    log = open_dataset(plan.sources.log)
    if log.digest() != plan.sources.log_digest:
        raise UsageError(
            f"The log in {plan.sources.log} is not the one that this run was begun with: its columns do not have the "
            f"digest {plan.sources.log_digest[:12]}. Put that log back, or begin a new run."
        )
    check_learnable(log, least_episodes)
    check_fits(log, algorithm.spec)
    return log


def held_out_episodes(seed: int, num_episodes: int, share: float) -> np.ndarray:
    """Return the numbers of the episodes that are held out, ascending: at least one, and never all.

    Example:
        >>> len(held_out_episodes(0, 100, 0.05)), len(held_out_episodes(0, 2, 0.05))
        (5, 1)
    """
    count = min(max(int(num_episodes * share), 1), num_episodes - 1)
    drawn = np.asarray(permutation(draw(root_key(seed), "held-out"), num_episodes))
    return np.sort(drawn[:count])


def steps_of(log: Dataset, episodes: np.ndarray) -> np.ndarray:
    """Return the numbers of the steps of episodes, ascending, int64."""
    return np.concatenate([np.arange(int(log.begins[one]), int(log.ends[one])) for one in episodes])


class LogParts(NamedTuple):
    """A log, the numbers of its steps that are learnt from, and of those held out."""

    log: Dataset
    train: np.ndarray
    held_out: np.ndarray


class OfflineLoop(Loop):
    """Iterations of an algorithm that learns from a log, which is opened by `prepare` or the first iteration.

    Attributes:
        plan: of the run.
    """

    num_slots = 1

    def __init__(self, algorithm: OffPolicy, plan: Plan, lanes: Lanes | None) -> None:
        self.algorithm: OffPolicy = algorithm
        self.plan = plan
        self.evaluates = lanes is not None
        self._lanes = lanes
        self._rows: LogRows | None = None

    @staticmethod
    def on_this_machine(plan: Plan, algorithm: Algorithm, threads: int) -> OfflineLoop:
        """Return the loop with this many simulation threads for evaluations, where the task can be acted in."""
        assert plan.sources is not None
        if not isinstance(algorithm, OffPolicy):
            raise UsageError(
                f"{plan.algorithm} learns from episodes of its own policy, and a log holds those of another: choose an "
                "algorithm that learns from a log or a replay, as iql, td3+bc, cql, bc or sac."
            )
        lanes = None
        if plan.sources.evaluate:
            shares = [threads // 2, threads - threads // 2] if threads > 1 else [1]
            judges = [environments.make(plan.task, EVALUATION_SLOTS, share, **plan.task_options) for share in shares]
            lanes = Lanes([make_player(algorithm, judge, EVALUATION_SLOTS, plan.seed) for judge in judges])
        return OfflineLoop(algorithm, plan, lanes)

    def prepare(self) -> None:
        self._parts  # noqa: B018  opened and checked

    @cached_property
    def _parts(self) -> LogParts:
        """The log, and which of its steps are learnt from."""
        assert self.plan.sources is not None
        log = opened_log(self.plan, self.algorithm)
        held_out = held_out_episodes(self.plan.seed, log.num_episodes, self.plan.sources.held_out)
        parts = LogParts(log, steps_of(log, self._learnt_from(log, held_out)), steps_of(log, held_out))
        if len(parts.train) < self.algorithm.batch_size:
            raise UsageError(
                f"{type(self.algorithm).__name__}.batch_size must not exceed the {len(parts.train):,} steps of the log "
                f"that are learnt from: got {self.algorithm.batch_size}. Lower batch_size."
            )
        return parts

    def _learnt_from(self, log: Dataset, held_out: np.ndarray) -> np.ndarray:
        """Return the numbers of the episodes that are learnt from: all others, or those that the algorithm wants."""
        others = np.setdiff1d(np.arange(log.num_episodes), held_out)
        if not isinstance(self.algorithm, LogLearner):
            return others
        weights = self.algorithm.row_weights(log.returns()[others], log.lengths[others])
        return others if weights is None else others[np.asarray(weights) > 0]

    def start(self) -> Progress:
        zero = np.zeros((), np.int64)
        return Progress(_init(self.algorithm, draw(root_key(self.plan.seed), "init")), zero, zero)

    def iterate(
        self, progress: Progress, goes_on: GoesOn = lambda env_steps: False
    ) -> tuple[Progress, dict[str, float], Failures]:
        assert self.plan.sources is not None
        algorithm, first, each = self.algorithm, int(progress.env_steps), self.plan.sources.updates_per_iteration
        train, root = self._parts.train, root_key(self.plan.seed)
        state = progress.state if first else self._observed(progress.state)
        drawn = _drawn(root, np.uint32(first), each, algorithm.batch_size, len(train))
        if self._is_in_memory:
            rows, index = self._all_rows(), drawn
        else:
            gathered = train[np.asarray(drawn).reshape(-1)]
            rows, index = self._read(gathered), np.arange(len(gathered)).reshape(drawn.shape)
        state, learnt = _updates(algorithm, state, rows, index, root, np.uint32(first), len(train))
        measured = _step_measured(algorithm, progress.state, state, learnt)
        measured |= log_measures(algorithm, state, self.probe, draw(root, "held-out", first), measured)
        metrics: dict[str, float] = {"steps": each, "updates": first + each, "log_rows": len(train)}
        metrics |= {name: value.item() for name, value in jax.device_get(measured).items()}
        return Progress(state, progress.iteration + 1, progress.env_steps + each), metrics, ()

    def evaluate(self, progress: Progress, num_episodes: int) -> Evaluation:
        if self._lanes is None:
            assert self.plan.sources is not None
            raise UsageError(
                f"A policy that was learnt from {self.plan.sources.log} alone cannot be played: begin the run with "
                "--evaluate-on TASK, or judge it from the log by `workhorse select`."
            )
        actor = actor_of(self.algorithm, progress.state)
        return evaluation_of(self._lanes.evaluate(actor, int(progress.iteration), num_episodes), num_episodes)

    def close(self) -> None:
        if self._lanes is not None:
            self._lanes.close()
        self._rows = None

    # --- rows ---

    def _read(self, numbers: np.ndarray) -> LogRows:
        algorithm = self.algorithm
        gamma = float(algorithm.discount)
        return self._parts.log.rows(numbers, n_steps=algorithm.n_steps, discount=gamma, spec=algorithm.spec)

    def _all_rows(self) -> LogRows:
        rows = self._rows or jax.tree.map(jnp.asarray, self._read(self._parts.train))
        self._rows = rows
        return rows

    @cached_property
    def _is_in_memory(self) -> bool:
        train, there = self._parts.train, describe_hardware().memory_bytes
        row = sum(column.nbytes for column in self._read(train[:1]))
        return not there or row * len(train) <= MEMORY_SHARE * there

    @cached_property
    def probe(self) -> Probe:
        """What every iteration is measured on."""
        parts, gamma = self._parts, float(self.algorithm.discount)
        return probe_of(parts.log, parts.train, parts.held_out, self._read, self.plan.seed, gamma)

    def _observed(self, state: State) -> State:
        """Return the state that has seen every step that is learnt from once: what normalises observations."""
        for begin in range(0, len(self._parts.train), CHUNK):
            state = _observe(self.algorithm, state, self._read(self._parts.train[begin : begin + CHUNK]))
        return state


# The compiled programs, of which the algorithm is an argument: see `workhorse.training.rollouts`.


@jax.jit
def _init(algorithm: Algorithm, key: Key) -> State:
    return algorithm.init(key)


@jax.jit
def _observe(algorithm: OffPolicy, state: State, rows: LogRows) -> State:
    one = jax.tree.map(lambda column: column[:, None], rows)
    steps = Rollout(one.obs, one.action, one.reward, one.terminated, one.truncated, one.next_obs, ())
    return algorithm.observe(state, steps)


@partial(jax.jit, static_argnums=(2, 3))
def _drawn(root: Key, first: Number, updates: int, count: int, rows: Number) -> Int[Array, "U N"]:
    """Return the numbers of the rows of each of some updates, uniformly and with replacement."""
    numbers = first + jnp.arange(updates, dtype=jnp.uint32)
    return jax.vmap(lambda number: jax.random.randint(draw(root, "replay", number), (count,), 0, rows))(numbers)


@jax.jit
def _updates(
    algorithm: OffPolicy, state: State, rows: LogRows, index: Int[Array, "U N"], root: Key, first: Number, total: Number
) -> tuple[State, PyTree]:
    """Do one update for each row of `index`; return the mean metrics."""

    def one(state: State, given: tuple[Any, Any]) -> tuple[State, PyTree]:
        number, chosen = given
        taken: LogRows = jax.tree.map(lambda column: column[chosen], rows)
        batch = as_transitions(taken, total)
        state, _, metrics = algorithm.learn(state, batch, draw(root, "update", number))
        return state, metrics | {"sampled_terminals": batch.terminated.mean(dtype=jnp.float32)}

    numbers = first + jnp.arange(len(index), dtype=jnp.uint32)
    state, metrics = jax.lax.scan(one, state, (numbers, index))
    return state, jax.tree.map(lambda values: values.astype(jnp.float64).mean(0), metrics)


@jax.jit
def _step_measured(algorithm: OffPolicy, before: State, after: State, metrics: PyTree) -> dict[str, jax.Array]:
    return with_step_norm(algorithm, before, after, metrics)
