"""Does the surrogate look like the reward? Both on the plane of the algorithm's step and a random direction.

The policy of an iteration is frozen. At a point (x, y) of the plane its parameters are

    theta + x * step + y * random,

`step` what the algorithm's update does to the policy on one fresh rollout of the run's size, so that x = 1 is a whole
update, and `random` a normal vector brought to a length, 2 by default. The *true reward* is the mean undiscounted raw
return of the stochastic policy there, observations scaled as the frozen policy scales them; every point has fresh
randomness, so that the surface is as jagged as an optimiser would meet it. The *surrogate* is E[rho A] over steps of
the frozen policy, the same steps at every point, A normalised over them.

On the line y = 0 the true reward is measured with common random numbers: the same starts and the same noise of actions
at every x, and the differences to x = 0 in pairs, which says whether the step raises the reward.

Source: Ilyas et al. 2020, "A closer look at deep policy gradients" (arXiv 1811.02553), section 2.4, whose planes have x
and y in [0, 3] and 2,000 to 100,000 pairs a point, and "a random norm 2 Gaussian vector" for the other direction.

Differs from the paper: episodes are whole and their number is decided without looking at them (see `points`);
smoothness is a number with an interval, for several amounts of pairs from one measurement; and the line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from workhorse.core.digest import digest
from workhorse.core.errors import UsageError
from workhorse.diagnostics import points
from workhorse.diagnostics.host_points import HostPlayer
from workhorse.diagnostics.jax_points import JaxPlayer
from workhorse.diagnostics.plane import Frozen, surrogates
from workhorse.diagnostics.points import Episodes, Player, Point, episodes_of_halves
from workhorse.environments import registry as environments
from workhorse.environments.protocol import HostEnv
from workhorse.runs.history import History
from workhorse.runs.train import available_threads, plan_of
from workhorse.statistics.intervals import mean_interval
from workhorse.statistics.smoothness import smoothness

__all__ = [
    "LINE",
    "REACH",
    "LandscapeStudy",
    "LinePoint",
    "Surface",
    "Surrogate",
    "check_landscape",
    "env_steps_needed",
    "pair_sizes",
    "study_landscape",
]

REACH = 3.0
"""Both axes go from 0 to this, in steps and in random vectors."""

LINE = (0.0, 0.5, 1.0, 2.0)
"""Steps along which common random numbers are used; the first is what the others are compared with."""

LEAST_PIECES = 8
"""Pieces of the line, at least: its interval is over them."""

OTHER_ROOT = 2**30
"""What is added to the run's seed for the addresses: fresh experience, and not that of another diagnosis."""


class Unfinished(Protocol):
    """Where what has been found is kept while more is being looked for."""

    found: dict[str, Any]

    def add(self, name: str, record: Any) -> None: ...


@dataclass(frozen=True)
class Surface:
    """The true reward by so many pairs a point.

    Attributes:
        pairs: a point, about.
        reward, error: mean return and its standard error, a row for every y and a column for every x.
        smoothness, low, high: see `workhorse.statistics.smoothness`.
    """

    pairs: int
    reward: tuple[tuple[float, ...], ...]
    error: tuple[tuple[float, ...], ...]
    smoothness: float
    low: float
    high: float


@dataclass(frozen=True)
class Surrogate:
    """The surrogate by so many pairs, the same at every point.

    Attributes:
        pairs: in all.
        plain: E[rho A].
        clipped: PPO's E[min(rho A, clip(rho) A)]; None where the algorithm clips nothing.
    """

    pairs: int
    plain: tuple[tuple[float, ...], ...]
    clipped: tuple[tuple[float, ...], ...] | None


@dataclass(frozen=True)
class LinePoint:
    """The true reward at (x, 0) beside that at (0, 0), by common random numbers.

    Attributes:
        x: in steps.
        reward: mean return.
        change, low, high: mean difference to x = 0 with its 95 % interval.
        verdict: "raises", "lowers" or "cannot be told" of the reward; "-" of x = 0.
        surrogate: by the most pairs, whose value at x = 0 is 0.
    """

    x: float
    reward: float
    change: float
    low: float
    high: float
    verdict: str
    surrogate: float


@dataclass(frozen=True)
class LandscapeStudy:
    """What was found at one iteration.

    Attributes:
        iteration: whose policy was frozen.
        grid: points an axis; `axis` are their places, the same for x and y.
        pairs: a point, about.
        parameters: of the policy.
        step_length, random_length: norms of the two directions.
        slots: episodes of a point side by side.
        env_steps: steps taken for all of it.
        episodes, failed: of the plane; of those the ones whose simulation broke.
        surfaces: the true reward, fewest pairs first; the last one is of all.
        surrogates: likewise.
        line: by common random numbers, `line_episodes` at each.
    """

    iteration: int
    grid: int
    axis: tuple[float, ...]
    pairs: int
    parameters: int
    step_length: float
    random_length: float
    slots: int
    env_steps: int
    episodes: int
    failed: int
    surfaces: tuple[Surface, ...]
    surrogates: tuple[Surrogate, ...]
    line: tuple[LinePoint, ...]
    line_episodes: int

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; what is not finite is null."""
        return _plain(asdict(self))


def pair_sizes(pairs: int) -> list[int]:
    """Amounts of pairs that are looked at, three a decade from 2,000 on; the last is all.

    Example:
        >>> pair_sizes(20_000)
        [2000, 5000, 10000, 20000]
    """
    rounds = [first * 10**power for power in range(3, 10) for first in (1, 2, 5)]
    return [size for size in rounds if 2000 <= size < pairs] + [pairs]


def env_steps_needed(grid: int, pairs: int, limit: int, rollout: int) -> int:
    """About how many steps a study takes, its line and its surrogate included, if episodes run to the clock.

    Args:
        grid, pairs: as of `study_landscape`.
        limit: steps to the clock.
        rollout: steps of the run's rollout.

    Example:
        >>> env_steps_needed(31, 20_000, 1000, 2048)
        21164528
    """
    slots = _slots_per_point(pairs, limit)
    line = max(_line_pairs(grid, pairs), LEAST_PIECES * slots * limit)
    return grid**2 * max(pairs, slots * limit) + len(LINE) * line + (1 + -(-pairs // rollout)) * rollout


def _line_pairs(grid: int, pairs: int) -> int:
    """Steps at each x of the line, which takes a tenth of the plane's, and more where its pieces would be too few."""
    return grid**2 * pairs // (10 * len(LINE))


def check_landscape(
    history: History, grid: int, pairs: int, env_steps: int | None = None, random_length: float = 2.0
) -> None:
    """Raise the `UsageError` of `study_landscape` before any work."""
    if not plan_of(history.manifest).is_on_policy:
        raise UsageError(
            f"{history.manifest.algorithm} of {history.folder.path} has no surrogate: `diagnose --only landscape` "
            "reads runs of reinforce, a2c, ppo and trpo."
        )
    algorithm, limit = history.loop.algorithm, history.spec.max_episode_steps
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


def study_landscape(
    history: History,
    iteration: int,
    *,
    grid: int = 31,
    pairs: int = 20_000,
    random_length: float = 2.0,
    env_steps: int | None = None,
    threads: int = 0,
    progress: Callable[[int], None] = lambda env_steps: None,
    unfinished: Unfinished | None = None,
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
        unfinished: what was found before, which is not looked for again.

    Raises:
        UsageError: the run's algorithm has no surrogate, its task no clock, the state was not kept, or the steps do not
            suffice.
        NoStep: the algorithm does not move the policy.
    """
    check_landscape(history, grid, pairs, env_steps, random_length)
    plan, limit = plan_of(history.manifest), history.spec.max_episode_steps or 1
    state = history.measurable(iteration)
    with history.afresh(OTHER_ROOT, threads) as (loop, root):
        frozen = Frozen.of(loop, state, iteration, root, pairs, random_length)
    found = _Found(unfinished, f"{digest((frozen.step, frozen.random)):016x}")
    progress(frozen.env_steps + found.steps)
    slots = _slots_per_point(pairs, limit)
    is_batched = history.spec.resume == "exact"
    players = _players(plan, frozen, is_batched, slots, pairs, root, threads or available_threads())
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
    return _study(frozen, iteration, axis, pairs, slots, pieces, found)


def _slots_per_point(pairs: int, limit: int) -> int:
    """Slots of a point, even: no more than its pairs would fill if its episodes ran to the clock, within [4, 32]."""
    return int(np.clip(pairs // limit // 2 * 2, 4, 32))


def _pieces(pairs: int, slots: int, mean_length: float) -> int:
    """Pieces of the line, of an episode a slot each."""
    return max(round(pairs / (slots * mean_length)), LEAST_PIECES)


def _players(
    plan: Any, frozen: Frozen, is_batched: bool, slots: int, pairs: int, root: int, threads: int
) -> list[Player]:
    """Two, where there are threads for it: while one acts the other's simulations step."""
    shares = [threads // 2, threads - threads // 2] if threads > 1 else [1]
    count = (points.WIDTH if is_batched else points.NARROW) // slots
    made: list[Player] = []
    for share in shares:
        env = environments.make(plan.task, count * slots, share, **plan.task_options)
        if isinstance(env, HostEnv):
            made.append(HostPlayer(frozen.algorithm, frozen.actor, env, slots, root))
        else:
            made.append(JaxPlayer(frozen.algorithm, frozen.actor, env, slots, root, pairs))
    return made


def _plane(frozen: Frozen, axis: np.ndarray, pairs: int) -> list[Point]:
    """Every point of the plane, each of its own randomness; row after row, a row for every y."""
    places = [(x, y) for y in axis for x in axis]
    return [Point(number, number, frozen.at(x, y), pairs) for number, (x, y) in enumerate(places)]


def _line(frozen: Frozen, first: int, pieces: int) -> list[Point]:
    """The pieces of every x of the line, an episode a slot: piece k has the same randomness at every x."""
    places = [(place, x, piece) for piece in range(pieces) for place, x in enumerate(LINE)]
    return [Point(first + len(LINE) * piece + place, first + piece, frozen.at(x, 0.0), 0) for place, x, piece in places]


class _Found:
    """What was found of each point, by its number: plain numbers, so that they can be kept on the way.

    Of a point: the mean of each amount of pairs, their standard errors, steps, episodes and failures.
    """

    def __init__(self, unfinished: Unfinished | None, of: str) -> None:
        self._kept = unfinished or _Nowhere()
        if self._kept.found.get("of") != of:
            self._kept.found.clear()
            self._kept.add("of", of)

    def missing(self, wanted: list[Point]) -> Iterator[Point]:
        """Points of which nothing was found yet."""
        return (point for point in wanted if str(point.number) not in self._kept.found)

    def add(self, point: Point, episodes: Episodes, pairs: int) -> None:
        self._kept.add(str(point.number), _summary(episodes, pair_sizes(pairs) if point.pairs else [0]))

    @property
    def steps(self) -> int:
        """Steps taken for what was found."""
        return sum(one["steps"] for name, one in self._kept.found.items() if name != "of")

    def mean_length(self, number: int) -> float:
        """Mean steps of a point's episodes."""
        one = self[number]
        return one["steps"] / one["episodes"]

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self._kept.found[str(number)]


class _Nowhere:
    """Keeps what was found as long as this process lives."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def add(self, name: str, record: Any) -> None:
        self.found[name] = record


def _summary(episodes: Episodes, sizes: list[int]) -> dict[str, Any]:
    """A point's mean and standard error by each amount of pairs, from its first so many episodes.

    The mean is that of the two halves' means; the error is sqrt(s^2 / n_1 + s^2 / n_2) / 2, s^2 the variance of all
    episodes about the mean of their half.
    """
    left, right = episodes.returns
    freedom = len(left) + len(right) - 2
    variance = (np.square(left - left.mean()).sum() + np.square(right - right.mean()).sum()) / freedom
    counts = [episodes_of_halves(episodes.first_lengths, size, 1) for size in sizes[:-1]] + [[len(left), len(right)]]
    return {
        "mean": [float(left[:one].mean() + right[:other].mean()) / 2 for one, other in counts],
        "error": [float(np.sqrt(variance * (1 / one + 1 / other)) / 2) for one, other in counts],
        "steps": episodes.steps,
        "episodes": len(left) + len(right),
        "failed": episodes.failed,
    }


def _study(
    frozen: Frozen, iteration: int, axis: np.ndarray, pairs: int, slots: int, pieces: int, found: _Found
) -> LandscapeStudy:
    grid, sizes = len(axis), pair_sizes(pairs)
    plane = [found[number] for number in range(grid**2)]
    line = [[found[grid**2 + len(LINE) * piece + place] for piece in range(pieces)] for place in range(len(LINE))]
    where = [frozen.at(x, y) for y in axis for x in axis] + [frozen.at(x, 0.0) for x in LINE]
    plain, clipped = surrogates(frozen, np.stack(where), sizes)
    surfaces = tuple(_surface(plane, place, size, grid) for place, size in enumerate(sizes))
    return LandscapeStudy(
        iteration,
        grid,
        tuple(axis.tolist()),
        pairs,
        len(frozen.params),
        float(np.linalg.norm(frozen.step)),
        float(np.linalg.norm(frozen.random)),
        slots,
        frozen.env_steps + sum(one["steps"] for one in [*plane, *(one for pieces in line for one in pieces)]),
        sum(one["episodes"] for one in plane),
        sum(one["failed"] for one in plane),
        surfaces,
        tuple(
            Surrogate(
                size, _rows(plain[: grid**2, place], grid), None if clipped is None else _rows(clipped[place], grid)
            )
            for place, size in enumerate(sizes)
        ),
        _verdicts(line, plain[grid**2 :, -1]),
        pieces * slots,
    )


def _surface(plane: list[dict[str, Any]], place: int, size: int, grid: int) -> Surface:
    reward, error = (np.array([one[name][place] for one in plane]) for name in ("mean", "error"))
    found = smoothness(reward.reshape(grid, grid), error.reshape(grid, grid))
    return Surface(size, _rows(reward, grid), _rows(error, grid), found.value, found.low, found.high)


def _verdicts(line: list[list[dict[str, Any]]], surrogate: np.ndarray) -> tuple[LinePoint, ...]:
    """What the pieces of the line say, their differences to those of x = 0 taken in pairs."""
    rewards = np.array([[one["mean"][-1] for one in pieces] for pieces in line])
    found = []
    for x, reward, value in zip(LINE, rewards, surrogate, strict=True):
        change = mean_interval(reward - rewards[0])
        verdict = "raises" if change.low > 0 else "lowers" if change.high < 0 else "cannot be told"
        words = verdict if x else "-"
        found.append(LinePoint(x, float(reward.mean()), change.value, change.low, change.high, words, float(value)))
    return tuple(found)


def _rows(values: np.ndarray, grid: int) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, np.asarray(values)[: grid**2].reshape(grid, grid).tolist()))


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
