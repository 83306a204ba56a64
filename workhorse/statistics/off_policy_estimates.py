"""Estimates of what a policy would earn, from episodes that another policy played.

All of them estimate the same number: the discounted return of an episode, cut where the log's episodes are cut,

    J = E_pi[ sum_t gamma^t r_t ].

With rho_t = pi(a_t|s_t) / mu(a_t|s_t) and W_t = rho_0 ... rho_t, W_{-1} = 1, over episodes i:

    ordinary               mean_i W_T G
    per decision           mean_i sum_t gamma^t W_t r_t
    weighted per decision  sum_t gamma^t sum_i W_t r_t / sum_i W_t
    doubly robust          mean_i sum_t gamma^t [ W_t (r_t - Q(s_t, a_t)) + W_{t-1} V(s_t) ]
    weighted doubly robust the same, W_t and W_{t-1} divided by their means over the episodes

The first, the second and the fourth are unbiased where mu is known and acts wherever pi does, the fourth *whatever Q
is* as long as V(s) = E_pi Q(s, a). The weighted ones are biased, consistent, and usually far better. An episode that
has ended keeps the weight that it ended with.

Source: Precup, Sutton, Singh 2000, "Eligibility traces for off-policy policy evaluation"; Jiang and Li 2016, "Doubly
robust off-policy value evaluation for reinforcement learning" (arXiv 1511.03722); Thomas and Brunskill 2016,
"Data-efficient off-policy policy evaluation for reinforcement learning" (arXiv 1604.00923).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from workhorse.statistics.intervals import Interval

__all__ = [
    "ESTIMATORS", "Estimate", "PlayedEpisodes", "Ranking", "effective_sample_size", "estimate", "padded", "ranking",
]  # fmt: skip

RESAMPLES = 1000
"""Bootstrap resamples of the episodes behind an interval."""

LARGEST = 600.0
"""Largest logarithm of a weight: beyond it a double overflows."""

ESTIMATORS = (
    "ordinary", "per decision", "weighted per decision", "doubly robust", "weighted doubly robust",
)  # fmt: skip


class PlayedEpisodes(NamedTuple):
    """Episodes of the log, one a row, padded with zeros after their ends.

    Attributes:
        log_ratio: log pi(a_t|s_t) - log mu(a_t|s_t), (E, T).
        reward: r_t, (E, T).
        action_value: Q(s_t, a_t) of the policy that is judged, (E, T); zeros where there is none.
        state_value: E_pi Q(s_t, a), (E, T).
    """

    log_ratio: Float[np.ndarray, "E T"]
    reward: Float[np.ndarray, "E T"]
    action_value: Float[np.ndarray, "E T"]
    state_value: Float[np.ndarray, "E T"]


class Estimate(NamedTuple):
    """An estimate.

    Attributes:
        interval: the estimate with a 95 % percentile bootstrap interval over episodes.
        effective: effective sample size, in episodes: see `effective_sample_size`.
    """

    interval: Interval
    effective: float


def padded(values: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Return values of steps that lie one after the other as rows of episodes, (E, T), zeros after their ends.

    Example:
        >>> padded(np.array([1.0, 2.0, 3.0]), np.array([0, 2])).tolist()
        [[1.0, 2.0], [3.0, 0.0]]
    """
    ends = np.append(begins[1:], len(values))
    found = np.zeros((len(begins), int((ends - begins).max())))
    for row, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        found[row, : end - begin] = values[begin:end]
    return found


def effective_sample_size(weight: Float[np.ndarray, "E"]) -> float:
    """Return (sum W)^2 / sum W^2: the number of equal weights whose mean would vary as much.

    Example:
        >>> effective_sample_size(np.ones(5)), effective_sample_size(np.array([1.0, 0.0, 0.0]))
        (5.0, 1.0)
    """
    largest = float(np.max(weight, initial=0.0))
    if largest == 0:
        return 0.0
    scaled = np.asarray(weight, np.float64) / largest
    return float(scaled.sum() ** 2 / np.square(scaled).sum())


def estimate(episodes: PlayedEpisodes, method: str, discount: float, rng: np.random.Generator) -> Estimate:
    """Estimate the discounted return of a policy from episodes of another.

    Args:
        episodes: of the log.
        method: one of `ESTIMATORS`.
        discount: gamma.
        rng: of the bootstrap.

    Example:
        >>> no = np.zeros((2, 2))
        >>> same = PlayedEpisodes(no, np.array([[1.0, 1.0], [3.0, 1.0]]), no, no)
        >>> found = estimate(same, "ordinary", 0.5, np.random.default_rng(0))
        >>> found.interval.value, found.effective
        (2.5, 2.0)
    """
    if method not in ESTIMATORS:
        raise ValueError(f"method must be one of {', '.join(ESTIMATORS)}: got {method!r}.")
    count = len(episodes.reward)
    parts = _parts(episodes, method, discount)
    value = float(_of_counts(parts, np.ones((1, count)))[0])
    again = [  # a part at a time, so that a million episodes need no table of a thousand columns
        _of_counts(parts, rng.multinomial(count, np.full(count, 1 / count), RESAMPLES // 20).astype(np.float64))
        for _ in range(20)
    ]
    low, high = np.quantile(np.concatenate(again), [0.025, 0.975])
    log_weight = np.cumsum(episodes.log_ratio, axis=1)
    if method in ("ordinary", "doubly robust", "per decision"):
        effective = effective_sample_size(_exp(log_weight[:, -1]))
    else:
        powers = discount ** np.arange(log_weight.shape[1])
        sizes = [effective_sample_size(_exp(column - column.max())) for column in log_weight.T]
        effective = float(np.average(sizes, weights=powers))
    return Estimate(Interval(value, float(low), float(high), "percentile bootstrap over episodes"), effective)


class _Ratio(NamedTuple):
    """A sum of terms, each sum_i c_i numerator_i / sum_i c_i denominator_i, (E, K) both."""

    numerator: np.ndarray
    denominator: np.ndarray


def _of_counts(parts: list[_Ratio], counts: np.ndarray) -> np.ndarray:
    """Return the estimate of each resample, whose episodes are there `counts` times, (R, E)."""
    total = np.zeros(len(counts))
    for part in parts:
        below = counts @ part.denominator
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(below > 0, (counts @ part.numerator) / below, 0.0)
        total += terms.sum(1)
    return total


def _parts(episodes: PlayedEpisodes, method: str, discount: float) -> list[_Ratio]:
    """Return the ratios of which the estimate is the sum."""
    log_weight = np.cumsum(np.asarray(episodes.log_ratio, np.float64), axis=1)
    powers = discount ** np.arange(log_weight.shape[1])
    reward, ones = powers * episodes.reward, np.ones((len(log_weight), 1))
    if method == "ordinary":
        return [_Ratio(_exp(log_weight[:, -1:]) * reward.sum(1, keepdims=True), ones)]
    if method == "per decision":
        return [_Ratio((_exp(log_weight) * reward).sum(1, keepdims=True), ones)]
    scaled = _exp(log_weight - log_weight.max(0))  # a factor common to all episodes has no effect on a weighted mean
    if method == "weighted per decision":
        return [_Ratio(scaled * reward, scaled)]
    before = np.concatenate([np.zeros_like(ones), log_weight[:, :-1]], axis=1)
    left = powers * (episodes.reward - episodes.action_value)
    known = powers * episodes.state_value
    if method == "doubly robust":
        return [_Ratio((_exp(log_weight) * left + _exp(before) * known).sum(1, keepdims=True), ones)]
    earlier = _exp(before - before.max(0))
    return [_Ratio(scaled * left, scaled), _Ratio(earlier * known, earlier)]


def _exp(log_weight: np.ndarray) -> np.ndarray:
    return np.exp(np.minimum(log_weight, LARGEST))


class Ranking(NamedTuple):
    """How well estimates rank policies whose returns are known.

    Attributes:
        correlation: of ranks, Spearman's; NaN where all estimates or all truths are equal.
        regret: at 1: what the policy with the highest estimate lacks of the best, as a share of what the worst lacks.
        regret_of_chance: the same of a policy chosen at random, on average.
    """

    correlation: float
    regret: float
    regret_of_chance: float


def ranking(estimates: Float[np.ndarray, "P"], truth: Float[np.ndarray, "P"]) -> Ranking:
    """Compare the ranking of policies by estimates with the truth.

    Example:
        >>> found = ranking(np.array([1.0, 5.0, 3.0]), np.array([10.0, 20.0, 30.0]))
        >>> [round(number, 3) for number in found]
        [0.5, 0.5, 0.5]
    """
    estimates, truth = np.asarray(estimates, np.float64), np.asarray(truth, np.float64)
    span = truth.max() - truth.min()
    best = truth[estimates == estimates.max()].mean()  # where several share the highest, one of them at random
    ranks = [_ranks(one) for one in (estimates, truth)]
    spread = ranks[0].std() * ranks[1].std()
    correlation = (
        float(((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())).mean() / spread) if spread else np.nan
    )
    if span == 0:
        return Ranking(correlation, 0.0, 0.0)
    return Ranking(correlation, float((truth.max() - best) / span), float((truth.max() - truth.mean()) / span))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 0, equal values sharing the mean of theirs."""
    below = (values[:, None] > values).sum(1)
    return below + ((values[:, None] == values).sum(1) - 1) / 2
