"""Record of a landscape: the surfaces of reward and surrogate, and the verdicts on its line, from what points gave."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workhorse.diagnostics.plane import Frozen, surrogates
from workhorse.diagnostics.points import PointEpisodes, episodes_of_halves
from workhorse.statistics.intervals import mean_interval
from workhorse.statistics.smoothness import smoothness

__all__ = [
    "LINE",
    "LandscapeStudy",
    "LinePoint",
    "Surface",
    "Surrogate",
    "landscape_study",
    "pair_sizes",
    "summary_of",
    "verdicts",
]

LINE = (0.0, 0.5, 1.0, 2.0)
"""Steps along which common random numbers are used; the first is what the others are compared with."""

Summary = dict[str, Any]
"""Mean return of a point by each amount of pairs, their standard errors, steps, episodes and failures: plain JSON."""


@dataclass(frozen=True)
class Surface:
    """The true reward by an amount of pairs a point.

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
    """The surrogate by an amount of pairs, the same at every point.

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
    """Reward and surrogate on the plane of one iteration.

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


def pair_sizes(pairs: int) -> list[int]:
    """Return the amounts of pairs that surfaces are made of, three a decade from 2,000 on; the last is all.

    Example:
        >>> pair_sizes(20_000)
        [2000, 5000, 10000, 20000]
    """
    rounds = [first * 10**power for power in range(3, 10) for first in (1, 2, 5)]
    return [size for size in rounds if 2000 <= size < pairs] + [pairs]


def summary_of(episodes: PointEpisodes, sizes: list[int]) -> Summary:
    """Return a point's mean and standard error by each amount of pairs, from the first of its episodes.

    The mean is that of the two halves' means; the error is sqrt(s^2 / n_1 + s^2 / n_2) / 2, s^2 the variance of all
    episodes about the mean of their half.
    """
    left, right = episodes.returns
    freedom = len(left) + len(right) - 2  # a mean of each half is taken off
    variance = (np.square(left - left.mean()).sum() + np.square(right - right.mean()).sum()) / freedom
    counts = [episodes_of_halves(episodes.first_lengths, size, 1) for size in sizes[:-1]] + [[len(left), len(right)]]
    return {
        "mean": [float(left[:one].mean() + right[:other].mean()) / 2 for one, other in counts],
        "error": [float(np.sqrt(variance * (1 / one + 1 / other)) / 2) for one, other in counts],
        "steps": episodes.steps,
        "episodes": len(left) + len(right),
        "failed": episodes.failed,
    }


def landscape_study(
    frozen: Frozen,
    iteration: int,
    axis: np.ndarray,
    pairs: int,
    slots: int,
    pieces: int,
    found: Callable[[int], Summary],
) -> LandscapeStudy:
    """Return the record of a plane whose points and line were played.

    Args:
        frozen: the plane.
        iteration: whose policy was frozen.
        axis: places of the points, the same for x and y.
        pairs: a point, about.
        slots: episodes of a point side by side.
        pieces: of each x of the line.
        found: summary of a point by its number: those of the plane row after row, then those of the line.
    """
    grid, sizes = len(axis), pair_sizes(pairs)
    plane = [found(number) for number in range(grid**2)]
    line = [[found(grid**2 + len(LINE) * piece + place) for piece in range(pieces)] for place in range(len(LINE))]
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
        verdicts(line, plain[grid**2 :, -1]),
        pieces * slots,
    )


def _surface(plane: Sequence[Summary], place: int, size: int, grid: int) -> Surface:
    reward, error = (np.array([one[name][place] for one in plane]) for name in ("mean", "error"))
    found = smoothness(reward.reshape(grid, grid), error.reshape(grid, grid))
    return Surface(size, _rows(reward, grid), _rows(error, grid), found.value, found.low, found.high)


def verdicts(line: Sequence[Sequence[Summary]], surrogate: np.ndarray) -> tuple[LinePoint, ...]:
    """Return each x of the line with its verdict, from differences to the pieces of x = 0, taken in pairs."""
    rewards = np.array([[one["mean"][-1] for one in pieces] for pieces in line])
    found = []
    for x, reward, value in zip(LINE, rewards, surrogate, strict=True):
        change = mean_interval(reward - rewards[0])  # in pairs: what the starts and the noise do cancels
        verdict = "raises" if change.low > 0 else "lowers" if change.high < 0 else "cannot be told"
        words = verdict if x else "-"
        found.append(LinePoint(x, float(reward.mean()), change.value, change.low, change.high, words, float(value)))
    return tuple(found)


def _rows(values: np.ndarray, grid: int) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, np.asarray(values)[: grid**2].reshape(grid, grid).tolist()))
