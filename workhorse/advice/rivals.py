"""What earns a return without learning, or with next to none: every rival of a learner, at the same price.

A rival is an ordinary algorithm. Its price counts everything: the trials of its search, the simulator's steps of a
plan, and the cores while it ran. It is chosen on the episodes of the stream "reset" and scored on those of "evaluate".
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from workhorse.advice.films import film_rival
from workhorse.algorithms.recipes import recipe
from workhorse.core.algorithm import Planner
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.environments import registry
from workhorse.environments.batch import as_batch
from workhorse.environments.protocol import Simulator
from workhorse.robustness.basin import measure_basin
from workhorse.runs.export import artefact_of
from workhorse.statistics.intervals import Interval, mean_interval
from workhorse.training.loop import Evaluation, Loop, Progress, make_loop
from workhorse.training.plan import Plan

__all__ = [
    "RIVALS",
    "Contender",
    "Outcome",
    "cheapest_within",
    "contender_for",
    "contenders",
    "frontier",
    "run_contender",
    "run_rivals",
]


TRIED_STEPS = 20
"""Steps of an episode by which the price of a planner is foreseen."""
BASIN_STATES = 100
"""Initial states, at each width, from which linear control is tried."""


@dataclass(frozen=True)
class Contender:
    """A rival as it is run.

    Attributes:
        algorithm: its name.
        kind: what it is, in a word: floor, rule, linear, search, plan or tree.
        env_steps: of its search, at most; 0 for a planner, which searches while it acts.
        settings: that differ from its defaults: those of the task's recipe, where there is one.
    """

    algorithm: str
    kind: str
    env_steps: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a rival earned, and its whole price.

    Attributes:
        contender: which.
        seed: root of its draws.
        returns: of the episodes that it is scored on; empty where it failed.
        lengths: their steps.
        steps_before: simulator steps before it could act.
        core_s_before: core-seconds until then, compilation among them.
        steps_per_episode: simulator steps of an episode, those of plans among them.
        core_s_per_episode: core-seconds of an episode.
        real_time_factor: simulated seconds per second while it acted; None where the task has no such time.
        planning_error: greatest distance between a planned and an executed return; None where nothing is planned.
        in_words: the rule that was found, where it can be said.
        failure: why it has no result, in a sentence; "" where it has one.
    """

    contender: Contender
    seed: int
    returns: tuple[float, ...] = ()
    lengths: tuple[int, ...] = ()
    steps_before: int = 0
    core_s_before: float = 0.0
    steps_per_episode: float = 0.0
    core_s_per_episode: float = 0.0
    real_time_factor: float | None = None
    planning_error: float | None = None
    in_words: str = ""
    failure: str = ""

    @property
    def interval(self) -> Interval:
        """Mean return with its 95 % interval over episodes."""
        return mean_interval(self.returns)

    @property
    def steps(self) -> float:
        """Simulator steps until the end of the first episode: the price of having a return at all."""
        return self.steps_before + self.steps_per_episode

    @property
    def core_s(self) -> float:
        """Core-seconds until the end of the first episode."""
        return self.core_s_before + self.core_s_per_episode

    def record(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)

    @staticmethod
    def of(record: Mapping[str, Any]) -> "Outcome":
        """Return what `record` wrote."""
        row = dict(record)
        contender = Contender(**row.pop("contender"))
        returns, lengths = tuple(row.pop("returns")), tuple(row.pop("lengths"))
        return Outcome(contender, returns=returns, lengths=lengths, **row)


RIVALS: tuple[tuple[str, str, int], ...] = (
    ("zero", "floor", 1),
    ("random", "floor", 1),
    ("constant", "floor", 100_000),
    ("lqr", "linear", 1),
    ("signed-rules", "rule", 300_000),
    ("random-search", "search", 200_000),
    ("pid", "search", 200_000),
    ("cem", "search", 300_000),
    ("icem", "plan", 0),
    ("mppi", "plan", 0),
    ("predictive-sampling", "plan", 0),
    ("ilqr", "plan", 0),
    ("categorical-cem", "plan", 0),
    ("uct", "tree", 0),
    ("iw", "tree", 0),
)
"""Algorithm, kind and most steps of a search, the cheapest first."""

_FOR_BOXES = ("pid", "predictive-sampling", "mppi", "icem", "ilqr")
_FOR_CHOICES = ("categorical-cem", "uct", "iw")


def contenders(spec: EnvSpec) -> list[Contender]:
    """Return the rivals that can take a task's actions, the cheapest first."""
    left_out = _FOR_CHOICES if isinstance(spec.action, Box) else _FOR_BOXES if isinstance(spec.action, Discrete) else ()
    return [contender_for(spec.task, *row) for row in RIVALS if row[0] not in left_out]


def contender_for(task: str, algorithm: str, kind: str, env_steps: int) -> Contender:
    """Return a rival with the settings of the task's recipe, where there is one."""
    known = recipe(task, algorithm)
    return Contender(algorithm, kind, env_steps, {} if known is None else dict(known.settings))


def run_contender(
    task: str,
    options: Mapping[str, Any],
    contender: Contender,
    *,
    episodes: int = 20,
    budget_s: float = float("inf"),
    threads: int = 0,
    seed: int = 0,
    film: Path | None = None,
) -> Outcome:
    """Run a rival on a task: its search first, then episodes with other initial states.

    Args:
        task, options: as for `environments.registry.make`.
        contender: which.
        episodes: to be scored on; fewer, but one at least, where a planner would need more than the budget.
        budget_s: core-seconds, after which its search ends.
        threads: simulation threads.
        seed: root of all draws.
        film: file for a film of the first episode that it is scored on; no part of the price.
    """
    plan = Plan(task, options, contender.algorithm, contender.settings, seed)
    begun = time.process_time()
    try:
        spec = plan.spec()
        too_dear = _too_dear(plan, spec, contender, budget_s, threads)
        if too_dear:
            return Outcome(contender, seed, core_s_before=time.process_time() - begun, failure=too_dear)
        loop = make_loop(plan, spec, threads)
    except UsageError as error:
        return Outcome(contender, seed, failure=str(error))
    try:
        progress, outcome = _outcome(loop, spec, contender, episodes, begun, budget_s, seed)
        if contender.kind == "linear" and outcome.returns:
            outcome = replace(outcome, in_words=_basin(loop, progress, task, options, seed))
        if film is not None:
            film_rival(loop, progress, task, options, seed, film)
        return outcome
    except UsageError as error:
        return Outcome(contender, seed, core_s_before=time.process_time() - begun, failure=str(error))
    finally:
        loop.close()


def _too_dear(plan: Plan, spec: EnvSpec, contender: Contender, budget_s: float, threads: int) -> str:
    """Return why a planner is not run in MuJoCo, where one episode of it would take more than the budget."""
    clock = spec.max_episode_steps or 0
    is_mujoco = plan.task in registry.TASKS and registry.TASKS[plan.task].kind == "mujoco"
    if contender.kind != "plan" or not is_mujoco or not np.isfinite(budget_s) or clock <= 2 * TRIED_STEPS:
        return ""
    short = replace(plan, task_options={**plan.task_options, "max_episode_steps": TRIED_STEPS})
    loop = make_loop(short, short.spec(), threads)
    try:
        loop.evaluate(loop.start(), 1)  # compiles
        begun = time.process_time()
        length = int(loop.evaluate(loop.start(), 1).lengths[0])
        needed = (time.process_time() - begun) / length * clock
    finally:
        loop.close()
    if needed <= budget_s:
        return ""
    return (
        f"not run: an episode may take {needed:,.0f} core-seconds, more than its share of the budget, {budget_s:,.0f}; "
        f"give a larger one"
    )


def _outcome(
    loop: Loop, spec: EnvSpec, contender: Contender, episodes: int, begun: float, budget_s: float, seed: int
) -> tuple[Progress, Outcome]:
    progress = loop.start()
    while int(progress.env_steps) < contender.env_steps and time.process_time() - begun < budget_s:
        progress, _, _ = loop.iterate(progress)
    per_action = 1 + getattr(loop.algorithm, "steps_per_action", 0)
    before = time.process_time() - begun
    found, seconds = _scored(loop, progress, episodes, budget_s - before)
    steps = float(found.lengths.mean()) * per_action
    tell = getattr(loop.algorithm, "in_words", None)
    factor = found.measures.get("real_time_factor")
    if factor is None and spec.step_seconds:
        factor = float(found.lengths.sum()) * spec.step_seconds / max(seconds, 1e-9)
    return progress, Outcome(
        contender,
        seed,
        tuple(map(float, found.returns)),
        tuple(map(int, found.lengths)),
        int(progress.env_steps),
        before,
        steps,
        seconds / len(found.returns),
        factor,
        found.measures.get("planning_error"),
        "" if tell is None else tell(progress.state),
        "; ".join(found.failures[:1]),
    )


def _basin(loop: Loop, progress: Progress, task: str, options: Mapping[str, Any], seed: int) -> str:
    """Return from how many initial states a policy holds, as the task draws them and wider; no part of the price."""
    policy = artefact_of(loop.algorithm, loop.algorithm.actor(progress.state), {})
    env = as_batch(registry.make(task, BASIN_STATES, 1, **options), BASIN_STATES)
    try:
        if policy is None or not isinstance(env, Simulator) or env.spec.max_episode_steps is None:
            return ""
        found = measure_basin(env, policy, seed, states=BASIN_STATES)
    finally:
        env.close()
    first, *wider = (f"{share.value:.0%}" for share in found.shares())
    rest = (f"{share} of those {factor:g}x as wide" for share, factor in zip(wider, found.factors[1:], strict=True))
    return ", ".join([f"stays up from {first} of initial states", *rest])


def _scored(loop: Loop, progress: Progress, episodes: int, budget_s: float) -> tuple[Evaluation, float]:
    """Return the evaluation and its core-seconds; that of a planner has as many episodes as the budget allows."""
    begun = time.process_time()
    if isinstance(loop.algorithm, Planner) and np.isfinite(budget_s):
        first, took = loop.evaluate(progress, 1), time.process_time() - begun
        if took < budget_s / 3:  # most of it may have been compilation
            again = time.process_time()
            first, took = loop.evaluate(progress, 1), time.process_time() - again
        episodes = int(min((budget_s - (time.process_time() - begun)) // max(took, 1e-9), episodes))
        if episodes <= 1:
            return first, took
    begun = time.process_time()
    return loop.evaluate(progress, episodes), time.process_time() - begun


def run_rivals(
    task: str,
    options: Mapping[str, Any],
    *,
    budget_s: float = 120.0,
    episodes: int = 20,
    threads: int = 0,
    seed: int = 0,
    only: Sequence[str] = (),
    films: Path | None = None,
    told: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Run every rival that can take a task, the cheapest first, under one budget of core-seconds.

    Each gets an equal share of what those before it left. What is left out for want of budget says so in `failure`.
    With `films`, a folder, each that plays is filmed.

    Raises:
        UsageError: the budget is no positive number, a rival's name is unknown, or the task cannot be made.
    """
    if not budget_s > 0:
        raise UsageError(f"The budget of rivals must be a positive number of core-seconds: got {budget_s!r}.")
    if episodes < 1:
        raise UsageError(f"The number of episodes must be at least 1: got {episodes}.")
    known = [row[0] for row in RIVALS]
    for name in only:
        if name not in known:
            raise UsageError(f"There is no rival {name!r}; the rivals are {', '.join(known)}.")
    env = as_batch(registry.make(task, 1, 1, **options), 1)
    is_simulator, spec = isinstance(env, Simulator), env.spec
    env.close()
    chosen = [one for one in contenders(spec) if not only or one.algorithm in only]
    left, outcomes = budget_s, list[Outcome]()
    for place, contender in enumerate(chosen):
        if left <= 0:
            outcome = Outcome(contender, seed, failure=f"not run: the budget of {budget_s:g} core-seconds was spent")
        elif not is_simulator and contender.kind in ("linear", "plan", "tree"):
            outcome = Outcome(contender, seed, failure="not run: the task's own code cannot be put into a state")
        else:
            begun = time.process_time()
            share = left / (len(chosen) - place)
            outcome = run_contender(
                task,
                options,
                contender,
                episodes=episodes,
                budget_s=share,
                threads=threads,
                seed=seed,
                film=None if films is None or not is_simulator else films / f"{contender.algorithm}.mp4",
            )
            left -= time.process_time() - begun
        outcomes.append(outcome)
        told(outcome)
    return outcomes


def frontier(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the rivals that none cheaper in core-seconds equals, the cheapest first."""
    best, kept = -np.inf, list[Outcome]()
    for outcome in sorted((one for one in outcomes if one.returns), key=lambda one: one.core_s):
        if outcome.interval.value > best:
            best = outcome.interval.value
            kept.append(outcome)
    return kept


def cheapest_within(outcomes: Sequence[Outcome], result: float, floor: float, share: float = 0.05) -> Outcome | None:
    """Return the cheapest rival that earns what a learner earned, within a share of what that is above the floor.

    Args:
        outcomes: of the rivals.
        result: the learner's mean return.
        floor: mean return of the best policy that does nothing of use; a rival must reach
            result - share * |result - floor|.
        share: 5 % by default.

    Example:
        >>> rivals = [Outcome(Contender("a", "rule", 1), 0, (90.0,)), Outcome(Contender("b", "rule", 1), 0, (96.0,))]
        >>> cheapest_within(rivals, 100.0, 0.0).contender.algorithm
        'b'
        >>> cheapest_within(rivals, 120.0, 0.0) is None
        True
    """
    enough = result - share * abs(result - floor)
    reached = [one for one in outcomes if one.returns and one.interval.value >= enough]
    return min(reached, key=lambda one: one.core_s, default=None)
