"""Landscape of reward and surrogate, on the plane of the algorithm's step and a random direction.

The policy of an iteration is frozen. At a point (x, y) of the plane its parameters are

    theta + x * step + y * random,

where `step` is what the algorithm's update does to the policy on one fresh rollout of the run's size, so that x = 1 is
a whole update, and `random` is a normal vector brought to a length, 2 by default. The *true reward* is the mean
undiscounted raw return of the stochastic policy there, observations scaled as the frozen policy scales them; every
point has fresh randomness, so that the surface is as jagged as an optimiser would meet it. The *surrogate* is
E[rho A] over steps of the frozen policy, the same steps at every point, A normalised over them.

On the line y = 0 the true reward is measured with common random numbers: the same starts and the same noise of actions
at every x, and differences to x = 0 in pairs, which tells whether the step raises the reward.

Source: Ilyas et al. 2020, "A closer look at deep policy gradients" (arXiv 1811.02553), section 2.4, whose planes have x
and y in [0, 3] and 2,000 to 100,000 pairs a point, and "a random norm 2 Gaussian vector" as the other direction.

Differs from the paper: episodes are whole and their number is decided without looking at them (see `points`);
smoothness is a number with an interval, for several amounts of pairs from one measurement; and the line.
"""

from collections.abc import Iterator

import numpy as np

from workhorse.algorithms.policy_gradient.policy_gradient import PolicyGradient
from workhorse.core.digest import digest
from workhorse.core.errors import UsageError
from workhorse.core.machine import threads_or_cores
from workhorse.diagnostics import points
from workhorse.diagnostics.experience import ToldSteps, fresh_experience, policy_gradient_of
from workhorse.diagnostics.landscape_study import (
    LINE,
    LandscapeStudy,
    Summary,
    landscape_study,
    pair_sizes,
    summary_of,
)
from workhorse.diagnostics.plane import ADDRESSES, Frozen
from workhorse.diagnostics.points import Player, Point, PointEpisodes
from workhorse.diagnostics.store import Results
from workhorse.environments import registry as environments
from workhorse.environments.batch import as_batch
from workhorse.runs.history import History
from workhorse.runs.train import plan_of
from workhorse.training.plan import Plan

__all__ = ["REACH", "check_landscape", "env_steps_needed", "study_landscape"]

REACH = 3.0
"""Both axes go from 0 to this, in steps and in random vectors."""

LEAST_PIECES = 8
"""Pieces of the line, at least: its interval is over them."""

OTHER_ROOT = 2**30
"""Added to the run's seed for the addresses: fresh experience, and not that of another diagnosis."""


def env_steps_needed(grid: int, pairs: int, limit: int, rollout: int) -> int:
    """Return about the steps of a study, its line and its surrogate included, if episodes run to the clock.

    Args:
        grid, pairs: as of `study_landscape`.
        limit: steps to the clock.
        rollout: steps of the run's rollout.

    Example:
        >>> env_steps_needed(31, 20_000, 1000, 2048)
        21164528
    """
    slots = _slots_per_point(pairs, limit)  # each plays an episode at least, whatever the pairs
    line = max(_line_pairs(grid, pairs), LEAST_PIECES * slots * limit)
    return grid**2 * max(pairs, slots * limit) + len(LINE) * line + (1 + -(-pairs // rollout)) * rollout


def _line_pairs(grid: int, pairs: int) -> int:
    """Return the steps at each x of the line: a tenth of the plane's, and more where its pieces would be too few."""
    return grid**2 * pairs // (10 * len(LINE))


def check_landscape(
    history: History, grid: int, pairs: int, env_steps: int | None = None, random_length: float = 2.0
) -> PolicyGradient:
    """Return the algorithm, or raise the `UsageError` of `study_landscape` before any work."""
    refusal = "has no surrogate: `diagnose --only landscape` reads runs of reinforce, a2c, ppo and trpo."
    algorithm, limit = policy_gradient_of(history, "landscape", refusal), history.spec.max_episode_steps
    if limit is None:
        raise UsageError(
            f"{history.spec.task} has no clock here, so that an episode need never end, and a point waits for its "
            "episodes: `diagnose --only landscape` reads runs whose max_episode_steps is set."
        )
    if grid < 3:
        raise UsageError(f"--grid must be at least 3, the points of an axis: got {grid}.")
    if pairs < 1:
        raise UsageError(f"--pairs must be at least 1, the steps of a point: got {pairs}.")
    if not random_length > 0:
        raise UsageError(f"random_length must be above zero: got {random_length}.")
    needed = env_steps_needed(grid, pairs, limit, algorithm.rollout_steps * algorithm.num_slots)
    if env_steps is not None and env_steps < needed:
        raise UsageError(
            f"--budget must be at least {needed:,} steps, what {grid} x {grid} points of {pairs:,} pairs and their "
            f"line take: got {env_steps:,}. Raise it, leave it out, or lower --grid or --pairs."
        )
    return algorithm


def study_landscape(
    history: History,
    iteration: int,
    *,
    grid: int = 31,
    pairs: int = 20_000,
    random_length: float = 2.0,
    env_steps: int | None = None,
    threads: int = 0,
    progress: ToldSteps = lambda env_steps: None,
    unfinished: Results | None = None,
) -> LandscapeStudy:
    """Measure the plane of a run at one iteration.

    Args:
        history: the run.
        iteration: whose policy is frozen; its state must have been kept.
        grid: points an axis, at least 3.
        pairs: steps of each point, about: episodes are whole, and at least 4.
        random_length: norm of the random direction.
        env_steps: to be taken at most, about; None for what it takes.
        threads: simulation threads; no part of the result.
        progress: is told how many steps were just taken, and at once how many were taken before.
        unfinished: results from before, which are not measured again.

    Raises:
        UsageError: the run's algorithm has no surrogate, its task no clock, the state was not kept, or the steps do not
            suffice.
        NoStep: the algorithm does not move the policy.
    """
    algorithm = check_landscape(history, grid, pairs, env_steps, random_length)
    plan, limit = plan_of(history.manifest), history.spec.max_episode_steps or 1
    with fresh_experience(history, iteration, OTHER_ROOT, threads, first=ADDRESSES) as experience:
        frozen, root = Frozen.of(algorithm, experience, iteration, pairs, random_length), experience.root
    found = _Found(unfinished or Results(), f"{digest((frozen.step, frozen.random)):016x}")
    progress(frozen.env_steps + found.steps)
    slots = _slots_per_point(pairs, limit)
    width = points.WIDTH if history.spec.resume == "exact" else points.NARROW
    players = _players(plan, frozen, slots, width // slots, root, threads_or_cores(threads))
    axis = np.linspace(0.0, REACH, grid)
    try:
        plane = _plane(frozen, axis, pairs)
        points.play(players, found.missing(plane), lambda point, one: found.add(point, one, pairs), progress)
        pieces = _pieces(_line_pairs(grid, pairs), slots, found.mean_length(plane[0].number))
        line = _line(frozen, len(plane), pieces)
        points.play(players, found.missing(line), lambda point, one: found.add(point, one, pairs), progress)
    finally:
        for player in players:
            player.close()
    return landscape_study(frozen, iteration, axis, pairs, slots, pieces, found.summary)


def _slots_per_point(pairs: int, limit: int) -> int:
    """Return the slots of a point, even, in [4, 32]: those that its pairs fill if its episodes run to the clock."""
    return int(np.clip(pairs // limit // 2 * 2, 4, 32))


def _pieces(pairs: int, slots: int, mean_length: float) -> int:
    """Return the pieces of the line, of an episode a slot each."""
    return max(round(pairs / (slots * mean_length)), LEAST_PIECES)


def _players(plan: Plan, frozen: Frozen, slots: int, count: int, root: int, threads: int) -> list[Player]:
    """Return players of `count` points side by side: two, if there are threads, so that one steps as the other acts."""
    shares = [threads // 2, threads - threads // 2] if threads > 1 else [1]
    made: list[Player] = []
    for share in shares:
        env = environments.make(plan.task, count * slots, share, **plan.task_options)
        made.append(Player(frozen.algorithm, frozen.actor, as_batch(env, count * slots), slots, root))
    return made


def _plane(frozen: Frozen, axis: np.ndarray, pairs: int) -> list[Point]:
    """Return the points of the plane, each of its own randomness; row after row, a row for every y."""
    places = [(x, y) for y in axis for x in axis]
    return [Point(number, number, frozen.at(x, y), pairs) for number, (x, y) in enumerate(places)]


def _line(frozen: Frozen, first: int, pieces: int) -> list[Point]:
    """Return the pieces of every x of the line, an episode a slot: piece k has the same randomness at every x."""
    places = [(place, x, piece) for piece in range(pieces) for place, x in enumerate(LINE)]
    return [Point(first + len(LINE) * piece + place, first + piece, frozen.at(x, 0.0), 0) for place, x, piece in places]


class _Found:
    """Summaries of points by their numbers.

    Args:
        kept: where they are kept, for as long as they are of the same plane.
        of: digest of the plane.
    """

    def __init__(self, kept: Results, of: str) -> None:
        self._kept = kept
        if kept.found.get("of") != of:  # results of another plane, as after the run was trained anew
            kept.found.clear()
            kept.add("of", of)

    def missing(self, wanted: list[Point]) -> Iterator[Point]:
        """Yield the points that have no summary yet."""
        return (point for point in wanted if str(point.number) not in self._kept.found)

    def add(self, point: Point, episodes: PointEpisodes, pairs: int) -> None:
        """Add the summary of a point's episodes."""
        self._kept.add(str(point.number), summary_of(episodes, pair_sizes(pairs) if point.pairs else [0]))

    @property
    def steps(self) -> int:
        """Steps of all points."""
        return sum(one["steps"] for name, one in self._kept.found.items() if name != "of")

    def mean_length(self, number: int) -> float:
        """Return the mean steps of a point's episodes."""
        one = self.summary(number)
        return one["steps"] / one["episodes"]

    def summary(self, number: int) -> Summary:
        """Return the summary of a point."""
        return self._kept.found[str(number)]
