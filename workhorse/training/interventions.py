"""Find which factors of an observation a policy should see, by acting with them: targeted intervention.

Demonstrations alone cannot tell a cause of the expert's action from a consequence of its last one. Acting can: either
the return of whole episodes is regressed on the mask (`by_execution`), or an expert is asked about the states in which
the policies of different masks disagree most (`by_queries`).

Source: de Haan, Jayaraman and Levine 2019, "Causal confusion in imitation learning" (arXiv 1905.11979), algorithms 2
and 3. Deviations are named at each function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from workhorse.core.errors import UsageError

__all__ = ["MOST_FACTORS", "Candidates", "Execution", "Queries", "all_masks", "by_execution", "by_queries"]

MOST_FACTORS = 12
"""Factors up to which all masks are listed."""

RIDGE = 1.0
"""Weight of the squared weights in the regression of returns, as in the code published with the source."""

TEMPERATURE = 0.3
"""tau, in standard deviations of the returns seen; the source's 10 is about that on MountainCar."""


def all_masks(factors: int) -> np.ndarray:
    """Return every mask of some factors, float32 (2^F, F): the first sees nothing, the last all.

    Raises:
        UsageError: there are too many.

    Example:
        >>> all_masks(2).tolist()
        [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    if not 1 <= factors <= MOST_FACTORS:
        raise UsageError(
            f"Masks of 1 to {MOST_FACTORS} factors can be listed, got {factors}: put components together with the "
            "option factors."
        )
    bits = np.arange(2**factors)[:, None] >> np.arange(factors)[::-1]
    return (bits & 1).astype(np.float32)


@dataclass(frozen=True)
class Execution:
    """What episodes of masked policies told.

    Attributes:
        masks: of each episode, (N, F).
        returns: of each episode, (N,).
        weights: what each factor adds to the return, by a linear fit, (F,).
        chances: probability that it adds something, (F,), of the same fit.
        mask: 1 for each factor that adds something, float32 (F,).
    """

    masks: np.ndarray
    returns: np.ndarray
    weights: np.ndarray
    chances: np.ndarray
    mask: np.ndarray


def by_execution(
    play: Callable[[np.ndarray, int], float], factors: int, episodes: int, rng: np.random.Generator
) -> Execution:
    """Play one episode after another under drawn masks, and keep the factors that raise the return.

        G ~ Bernoulli(sigmoid(w / tau)),   w = ridge regression of the returns on the masks,   at last G = 1[w > 0]

    Differs from the source by the unit of tau, which is the standard deviation of the returns seen, so that rewards of
    any size do.

    Args:
        play: returns the return of one episode, by its mask (F,) and number.
        factors: F.
        episodes: N.
        rng: of the masks.

    Example:
        >>> found = by_execution(lambda mask, _: float(mask[0] - mask[1]), 2, 20, np.random.default_rng(0))
        >>> found.mask.tolist()
        [1.0, 0.0]
    """
    masks, returns = np.zeros((episodes, factors), np.float32), np.zeros(episodes)
    weights = np.zeros(factors)
    for number in range(episodes):
        spread = float(returns[:number].std()) if number else 0.0
        odds = np.clip(weights / (TEMPERATURE * spread), -30, 30) if spread > 0 else np.zeros(factors)
        masks[number] = rng.random(factors) < 1 / (1 + np.exp(-odds))
        returns[number] = play(masks[number], number)
        weights, _ = _regressed(masks[: number + 1], returns[: number + 1])
    weights, deviations = _regressed(masks, returns)
    chances = np.array([_normal_share(weight, sd) for weight, sd in zip(weights, deviations, strict=True)])
    return Execution(masks, returns, weights, chances, (weights > 0).astype(np.float32))


class Candidates(Protocol):
    """Policies of M masks, as `by_queries` sees them."""

    def log_likelihood(self, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Return log p(action | obs) of K pairs by the policy of each mask, (K, M)."""
        ...

    def disagreement(self, obs: np.ndarray, chances: np.ndarray) -> np.ndarray:
        """Return how much the policies disagree in K states, (K,), where mask m has the probability `chances[m]`."""
        ...


@dataclass(frozen=True)
class Queries:
    """What an expert's answers told.

    Attributes:
        chances: posterior probability of each mask after each answer, (N + 1, M), the first before any.
        mask: the likeliest, float32 (F,).
        obs: states that were asked about, (N, ...).
        actions: the answers, (N, ...).
    """

    chances: np.ndarray
    mask: np.ndarray
    obs: np.ndarray
    actions: np.ndarray


def by_queries(
    candidates: Candidates,
    masks: np.ndarray,
    visit: Callable[[np.ndarray, int], np.ndarray],
    expert: Callable[[np.ndarray], np.ndarray],
    queries: int,
    rng: np.random.Generator,
) -> Queries:
    """Ask an expert where the policies of the masks disagree most, and weigh the masks by its answers.

        p(G) ~ product over the answers of p_G(a | o),   the prior being equal

    Before each question one episode is visited under a mask that is drawn from the posterior; its state of greatest
    disagreement is asked about. Differs from the source, which samples masks from a linear model, by listing them all.

    Args:
        candidates: the policies.
        masks: their masks, (M, F).
        visit: returns the observations of one episode, (T, ...), by its mask (F,) and number.
        expert: returns the expert's actions (K, ...), in the task's own numbers, by observations (K, ...).
        queries: N.
        rng: of the masks that are visited under.
    """
    evidence = np.zeros(len(masks))
    chances, asked, answers = [_softmax(evidence)], [], []
    for number in range(queries):
        visited = visit(masks[rng.choice(len(masks), p=chances[-1])], number)
        at = int(np.argmax(candidates.disagreement(visited, chances[-1])))
        answer = np.asarray(expert(visited[at : at + 1]))
        evidence = evidence + candidates.log_likelihood(visited[at : at + 1], answer)[0]
        chances.append(_softmax(evidence))
        asked.append(visited[at])
        answers.append(answer[0])
    best = masks[int(np.argmax(chances[-1]))].astype(np.float32)
    return Queries(np.array(chances), best, np.array(asked), np.array(answers))


def _regressed(masks: np.ndarray, returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights of a ridge regression with a free intercept, and their posterior deviations, (F,) each."""
    count, factors = masks.shape
    centred, around = masks - masks.mean(0), returns - returns.mean()
    inverse = np.linalg.inv(centred.T.astype(np.float64) @ centred + RIDGE * np.eye(factors))
    weights = inverse @ (centred.T @ around)
    noise = np.square(around - centred @ weights).sum() / max(count - 1, 1)
    return weights, np.sqrt(noise * np.diag(inverse))


def _normal_share(mean: float, deviation: float) -> float:
    """Return the probability that a normal number is above zero; 1/2 where nothing is known."""
    if deviation <= 0:
        return 0.5 if mean == 0 else float(mean > 0)
    return 0.5 * (1 + math.erf(mean / deviation / math.sqrt(2)))


def _softmax(values: np.ndarray) -> np.ndarray:
    grown = np.exp(values - values.max())
    return grown / grown.sum()
