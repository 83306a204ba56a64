"""The loop of off-policy learning: steps of all slots go into a replay, updates are drawn from it.

An iteration is several rounds. In each, every slot takes `learn_every` steps with the policy as it is; then the updates
that have become due are done in one compiled program. On a pure environment the whole iteration is one program.

The number of updates after `n` environment steps is floor((n - warmup_env_steps) * replay_ratio / batch_size), whatever
the number of slots, the length of an iteration, or the sittings in which the run was trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from workhorse.core.algorithm import Algorithm, Key, OffPolicy, State
from workhorse.core.errors import UsageError
from workhorse.core.randomness import draw, root_key
from workhorse.core.types import Rollout, Transitions
from workhorse.data import replay
from workhorse.data.priorities import PriorityTree, grown
from workhorse.data.replay import Cursor, ReplayRows, Size
from workhorse.environments import registry as environments
from workhorse.environments.protocol import JaxEnv
from workhorse.training.action_bounds import counted, ends_of, one_sided
from workhorse.training.episodes import evaluation_of, make_player
from workhorse.training.lanes import Lanes
from workhorse.training.log_share import LogShare, log_share, with_log
from workhorse.training.loop import Evaluation, Failures, GoesOn, Loop, Progress, Segments
from workhorse.training.offline import opened_log
from workhorse.training.on_policy import EVALUATION_SLOTS, episode_metrics
from workhorse.training.replay_arrays import ReplayArrays, check_replay_memory, size_of
from workhorse.training.replay_measures import highest_entropy, measures
from workhorse.training.rollouts import (
    Collector,
    Ended,
    JaxCollector,
    Slots,
    actor_of,
    collect_program,
    make_collector,
)
from workhorse.training.step_length import with_step_norm

if TYPE_CHECKING:
    from workhorse.training.plan import Plan

__all__ = ["OffPolicyLoop", "ReplayData", "updates_due"]


class ReplayData(NamedTuple):
    """Data that the loop keeps between iterations, beside the steps of the replay, which are its segments.

    Attributes:
        slots: where the slots stand.
        cursor: which steps of the replay may be sampled.
        priorities: of the steps, float32; None where sampling is uniform.
    """

    slots: Slots
    cursor: Cursor
    priorities: Any = None


class _Learnt(NamedTuple):
    """Sums of the metrics of updates, and how many there were."""

    sums: PyTree
    count: jax.Array


def updates_due(algorithm: OffPolicy, env_steps: int) -> int:
    """Return the number of updates of a run after this many environment steps."""
    trained_on = max(env_steps - algorithm.warmup_env_steps, 0) * float(algorithm.replay_ratio)
    return int(trained_on / algorithm.batch_size + 1e-9)


class OffPolicyLoop(Loop):
    """Iterations of an algorithm that learns from a replay.

    Everything is in the progress but the replay's arrays, which are the loop's own: see `ReplayArrays`.

    Attributes:
        root: the run's seed.
        collector: collects the steps.
        size: of the replay.
        arrays: of the replay.
    """

    def __init__(
        self, algorithm: OffPolicy, root: int, collector: Collector, lanes: Lanes, plan: Plan | None = None
    ) -> None:
        self.algorithm: OffPolicy = algorithm
        self._plan = plan
        self.root, self.num_slots = root, algorithm.num_envs
        self.collector, self.size = collector, size_of(algorithm)
        self.arrays = ReplayArrays(self.size, algorithm.spec)
        self._lanes = lanes

    @staticmethod
    def on_this_machine(plan: Plan, algorithm: Algorithm, threads: int) -> OffPolicyLoop:
        """Return the loop with this many simulation threads, for the steps and then for evaluations."""
        assert isinstance(algorithm, OffPolicy)
        if plan.slots not in (None, algorithm.num_envs):
            raise UsageError(f"{plan.algorithm} acts in num_envs slots: set that, and leave slots={plan.slots} out.")
        check_replay_memory(algorithm)
        env = environments.make(plan.task, algorithm.num_envs, threads, **plan.task_options)
        shares = [threads // 2, threads - threads // 2] if threads > 1 else [1]
        judges = [environments.make(plan.task, EVALUATION_SLOTS, share, **plan.task_options) for share in shares]
        lanes = Lanes([make_player(algorithm, judge, EVALUATION_SLOTS, plan.seed) for judge in judges])
        collector = make_collector(algorithm, env, plan.seed, algorithm.num_envs, algorithm.learn_every)
        return OffPolicyLoop(algorithm, plan.seed, collector, lanes, plan)

    def prepare(self) -> None:
        self._log  # noqa: B018  opened and checked

    @cached_property
    def _log(self) -> LogShare | None:
        """The log that a share of each batch is drawn from; None where there is none."""
        plan, algorithm = self._plan, self.algorithm
        if plan is None or plan.sources is None or not plan.sources.log:
            return None
        if algorithm.priority_exponent is not None:
            raise UsageError(f"{plan.algorithm} draws by priority, which steps of a log have none of: leave --log out.")
        return log_share(opened_log(plan, algorithm), algorithm)

    def start(self) -> Progress:
        zero = np.zeros((), np.int64)
        state = _init(self.algorithm, draw(root_key(self.root), "init"))
        slots = self.collector.start(actor_of(self.algorithm, state))
        priorities = None if self.algorithm.priority_exponent is None else replay.empty_leaves(self.size)
        return Progress(state, zero, zero, ReplayData(slots, Cursor.start(), priorities))

    def iterate(
        self, progress: Progress, goes_on: GoesOn = lambda env_steps: False
    ) -> tuple[Progress, dict[str, float], Failures]:
        algorithm, before = self.algorithm, int(progress.env_steps)
        self.arrays.require(progress.data.cursor)
        rounds = algorithm.rollout_steps // algorithm.learn_every
        each = algorithm.learn_every * algorithm.num_envs
        due = [updates_due(algorithm, before + each * number) for number in range(rounds + 1)]
        if isinstance(self.collector, JaxCollector):
            after, ended, learnt, at_ends, failures = self._on_device(progress, due)
        else:
            after, ended, learnt, at_ends, failures = self._on_host(progress, due)
        data: ReplayData = after.data
        steps = rounds * each
        metrics: dict[str, float] = {"steps": steps, "failed_episodes": len(failures)}
        metrics |= episode_metrics(ended, algorithm.num_envs, algorithm.spec.max_episode_steps)
        if (ends := ends_of(algorithm.spec.action)) is not None:
            metrics["actions_at_one_bound"] = one_sided(ends, at_ends, steps)
        metrics |= {
            "updates": due[-1],
            "replay_rows": (int(data.cursor.count) - int(data.cursor.first)) * self.size.num_slots,
        }
        found = jax.device_get(measures(self.size, algorithm, after.state, self.arrays.rows, data.cursor))
        if not due[-1]:  # values that nothing was learnt of say nothing
            found = {name: value for name, value in found.items() if not name.startswith("recent_")}
        metrics |= {name: value.item() for name, value in found.items()}
        if due[-1] > due[0]:
            found = _measured(algorithm, progress.state, after.state, learnt)
            metrics |= {name: value.item() for name, value in jax.device_get(found).items()}
        if "temperature" in metrics:
            metrics["highest_entropy"] = highest_entropy(algorithm.spec.action)
        return after, metrics, failures

    def _on_device(self, progress: Progress, due: list[int]) -> tuple[Progress, Ended, Any, Any, Failures]:
        """Do an iteration on a pure environment as one program."""
        assert isinstance(self.collector, JaxCollector)
        data: ReplayData = progress.data
        number = int(progress.iteration) * (len(due) - 1)
        rounds = number + np.arange(len(due) - 1)
        result = self.arrays.given_to(
            partial(_iterate, self.collector.env, self.size, self.algorithm),
            progress.state, data, root_key(self.root), rounds.astype(np.uint32), np.array(due), self._log,
        )  # fmt: skip
        state, slots, cursor, priorities, ended, learnt, at_ends = result
        after = ReplayData(slots, jax.tree.map(np.asarray, cursor), priorities)
        return self._moved_on(progress, state, after), ended, learnt, at_ends, ()

    def _on_host(self, progress: Progress, due: list[int]) -> tuple[Progress, Ended, Any, Any, Failures]:
        """Do an iteration on a host environment, round by round."""
        algorithm, state, data = self.algorithm, progress.state, progress.data
        slots, cursor, tree = data.slots, data.cursor, _grown(data.priorities)
        root, learnt, at_ends = root_key(self.root), None, 0
        over, failures = list[Ended](), tuple[str, ...]()
        for number, (done, wanted) in enumerate(pairwise(due)):
            place = int(progress.iteration) * (len(due) - 1) + number
            came_to = slots.obs
            steps, slots, ended, failed = self.collector.collect(actor_of(algorithm, state), slots, place)
            steps = steps._replace(extras=(), carry=())
            # a task whose episodes cannot be taken up again has begun new ones
            is_broken = int(progress.env_steps) > 0 and not np.array_equal(steps.obs[0], came_to, equal_nan=True)
            state, cursor, tree, sums, ends = self.arrays.given_to(
                partial(_learn, self.size, algorithm),
                state, cursor, tree, steps, slots.obs, (is_broken, came_to), root, done, wanted, self._log,
            )  # fmt: skip
            over, failures = [*over, ended], failures + failed
            learnt = sums if learnt is None else jax.tree.map(np.add, jax.device_get(learnt), jax.device_get(sums))
            at_ends = at_ends + np.asarray(ends) if ends != () else at_ends
        leaves = None if tree is None else np.asarray(tree.leaves)
        after = ReplayData(slots, jax.tree.map(np.asarray, cursor), leaves)
        ended = Ended(*(np.concatenate(column) for column in zip(*over, strict=True)))
        return self._moved_on(progress, state, after), ended, learnt, at_ends, failures

    def _moved_on(self, progress: Progress, state: State, data: ReplayData) -> Progress:
        """Return the progress an iteration later."""
        self.arrays.hold(int(data.cursor.count), int(data.cursor.finals))
        steps = self.algorithm.rollout_steps * self.algorithm.num_envs
        return Progress(state, progress.iteration + 1, progress.env_steps + steps, data)

    def evaluate(self, progress: Progress, num_episodes: int) -> Evaluation:
        actor = actor_of(self.algorithm, progress.state)
        return evaluation_of(self._lanes.evaluate(actor, int(progress.iteration), num_episodes), num_episodes)

    def sample(self, progress: Progress, num_episodes: int) -> Evaluation:
        if not self.algorithm.is_stochastic:
            return super().sample(progress, num_episodes)
        actor, iteration = actor_of(self.algorithm, progress.state), int(progress.iteration)
        return evaluation_of(self._lanes.evaluate(actor, iteration, num_episodes, explore=True), num_episodes)

    def observations(self, progress: Progress) -> np.ndarray:
        return np.asarray(progress.data.slots.obs)

    def segments(self) -> Mapping[str, Segments]:
        return self.arrays.segments()

    def notes(self) -> Sequence[str]:
        return self.collector.notes()

    def close(self) -> None:
        self.collector.close()
        self._lanes.close()
        self.arrays.clear()


def _grown(priorities: Any) -> PriorityTree | None:
    return None if priorities is None else _tree(priorities)


# The compiled programs, of which the algorithm is an argument: see `workhorse.training.rollouts`.

_tree = jax.jit(grown)


@jax.jit
def _init(algorithm: Algorithm, key: Key) -> State:
    return algorithm.init(key)


@jax.jit
def _measured(algorithm: OffPolicy, before: State, after: State, learnt: _Learnt) -> dict[str, jax.Array]:
    """Return the means of the updates' metrics, and how far the policy moved."""
    means = jax.tree.map(lambda total: total / learnt.count, learnt.sums)
    return with_step_norm(algorithm, before, after, means)


def _updated(
    size: Size,
    algorithm: OffPolicy,
    state: State,
    rows: ReplayRows,
    cursor: Cursor,
    tree: Any,
    root: Key,
    due: Any,
    done: Any,
    log: LogShare | None,
) -> tuple[State, Any, _Learnt]:
    """Do the updates of the numbers `done` to `due` - 1, with a share of each batch from the log where there is one."""
    of_log = 0 if log is None else len(log.weight)

    def one(number: jax.Array, carry: tuple[State, Any, PyTree]) -> tuple[State, Any, PyTree]:
        state, tree, sums = carry
        batch = replay.sampled(
            size,
            rows,
            cursor,
            tree,
            draw(root, "replay", number),
            count=algorithm.batch_size - of_log,
            n_steps=algorithm.n_steps,
            discount=jnp.asarray(algorithm.discount, jnp.float32),
            importance_exponent=None if tree is None else algorithm.importance_exponent(state),
        )
        if log is not None:
            batch = with_log(batch, log, draw(root, "replay", number, 1))
        state, priority, metrics = algorithm.learn(state, batch, draw(root, "update", number))
        metrics = metrics | _of_batch(batch)
        if tree is not None:
            tree = replay.reprioritised(tree, batch.index, priority ** jnp.float32(algorithm.priority_exponent))
        return state, tree, jax.tree.map(lambda total, value: total + value, sums, metrics)

    number = jax.ShapeDtypeStruct((), jnp.uint32)
    shapes = jax.eval_shape(
        lambda n, s, t: _metrics_of(size, algorithm, s, rows, cursor, t, root, n), number, state, tree
    )
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float64), shapes)
    begin, end = jnp.asarray(done, jnp.uint32), jnp.asarray(due, jnp.uint32)
    state, tree, sums = jax.lax.fori_loop(begin, end, one, (state, tree, zeros))
    return state, tree, _Learnt(sums, (end - begin).astype(jnp.float64))


def _metrics_of(
    size: Size,
    algorithm: OffPolicy,
    state: State,
    rows: ReplayRows,
    cursor: Cursor,
    tree: Any,
    root: Key,
    number: jax.Array,
) -> PyTree:
    """Return an update's metrics; only their shapes are asked for."""
    weight, index = jnp.ones(algorithm.batch_size, jnp.float32), jnp.zeros(algorithm.batch_size, jnp.int64)
    gamma = jnp.asarray(algorithm.discount, jnp.float32)
    batch = replay.transitions(size, rows, cursor, index, weight, algorithm.n_steps, gamma)
    return algorithm.learn(state, batch, draw(root, "update", number))[2] | _of_batch(batch)


def _of_batch(batch: Transitions) -> dict[str, jax.Array]:
    """Return metrics of what an update was given."""
    return {"sampled_terminals": batch.terminated.mean(dtype=jnp.float32)}


def _round(
    size: Size,
    algorithm: OffPolicy,
    rows: ReplayRows,
    state: State,
    cursor: Cursor,
    tree: Any,
    steps: Rollout,
    newest: Any,
    left: Any,
    root: Key,
    done: Any,
    due: Any,
    log: LogShare | None,
) -> tuple[ReplayRows, State, Cursor, Any, _Learnt, Any]:
    """Write the steps of a round to the replay, and do the updates of the numbers `done` to `due` - 1."""
    state = algorithm.observe(state, steps)
    rows, cursor, tree = replay.written(size, rows, cursor, tree, steps, newest, left)
    ends = ends_of(algorithm.spec.action)
    at_ends = () if ends is None else counted(ends, steps.action)
    state, tree, learnt = _updated(size, algorithm, state, rows, cursor, tree, root, due, done, log)
    return rows, state, cursor, tree, learnt, at_ends


@partial(jax.jit, static_argnums=0, donate_argnums=(2, 5))
def _learn(
    size: Size,
    algorithm: OffPolicy,
    rows: ReplayRows,
    state: State,
    cursor: Cursor,
    tree: Any,
    steps: Rollout,
    newest: Any,
    left: Any,
    root: Key,
    done: Any,
    due: Any,
    log: LogShare | None,
) -> tuple[ReplayRows, Any]:
    """Do a round's learning; the replay's arrays first."""
    rows, *rest = _round(size, algorithm, rows, state, cursor, tree, steps, newest, left, root, done, due, log)
    return rows, tuple(rest)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def _iterate(
    env: JaxEnv,
    size: Size,
    algorithm: OffPolicy,
    rows: ReplayRows,
    state: State,
    data: ReplayData,
    root: Key,
    rounds: Any,
    due: Any,
    log: LogShare | None,
) -> tuple[ReplayRows, Any]:
    """Do an iteration on a pure environment: rounds of steps and learning; the replay's arrays first."""

    def one(carry: PyTree, given: PyTree) -> tuple[PyTree, PyTree]:
        rows, state, slots, cursor, tree = carry
        number, done, due = given
        actor = algorithm.actor(state)
        steps, slots, ended = collect_program(env, algorithm, algorithm.learn_every, actor, slots, root, number)
        steps = steps._replace(extras=(), carry=())
        rows, state, cursor, tree, learnt, at_ends = _round(
            size, algorithm, rows, state, cursor, tree, steps, slots.obs, None, root, done, due, log
        )
        return (rows, state, slots, cursor, tree), (ended, learnt, at_ends)

    tree = None if data.priorities is None else grown(data.priorities)
    cursor = jax.tree.map(jnp.asarray, data.cursor)
    start = (rows, state, data.slots, cursor, tree)
    (rows, state, slots, cursor, tree), (ended, learnt, at_ends) = jax.lax.scan(one, start, (rounds, due[:-1], due[1:]))
    ended = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), ended)
    learnt, at_ends = jax.tree.map(lambda leaf: leaf.sum(0), (learnt, at_ends))
    leaves = None if tree is None else tree.leaves
    return rows, (state, slots, cursor, leaves, ended, learnt, at_ends)
