"""Targeted intervention: a model whose right graph is known, plain loops, and rules that must hold."""

import numpy as np
import pytest

from workhorse.core.errors import UsageError
from workhorse.training.interventions import all_masks, by_execution, by_queries


class LinearPolicies:
    """Least squares of an action on (s, z) for each mask: the same demonstrations, four policies, noise known."""

    def __init__(self, seen: np.ndarray, action: np.ndarray, noise: float) -> None:
        self.noise = noise
        self.gains = np.array([np.linalg.lstsq(seen * mask, action, rcond=None)[0] for mask in all_masks(2)])

    def log_likelihood(self, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        return -np.square(obs @ self.gains.T - np.reshape(action, (-1, 1))) / (2 * self.noise**2)

    def disagreement(self, obs: np.ndarray, chances: np.ndarray) -> np.ndarray:
        told = obs @ self.gains.T
        return np.square(told - (told @ chances)[:, None]) @ chances


NOISE = 0.1


def demonstrated(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The expert does a = s + noise. The nuisance z equals s on demonstrations, up to a rounding."""
    s = rng.standard_normal(count)
    return np.stack([s, s + 1e-3 * rng.standard_normal(count)], axis=1), s + NOISE * rng.standard_normal(count)


def asked(seed: int, queries: int, believed: float = NOISE):
    rng = np.random.default_rng(seed)
    seen, action = demonstrated(rng, 300)
    policies = LinearPolicies(seen, action, believed)

    def visit(mask: np.ndarray, number: int) -> np.ndarray:
        return rng.standard_normal((50, 2))  # the policy acts: z no longer follows s

    def expert(obs: np.ndarray) -> np.ndarray:
        return obs[:, 0] + NOISE * rng.standard_normal(len(obs))

    return policies, by_queries(policies, all_masks(2), visit, expert, queries, rng)


def test_demonstrations_cannot_tell_the_two_graphs_apart_and_answers_can() -> None:
    """Within the noise on held-out demonstrations; above .95 for the right graph after ten answers, on every seed."""
    for seed in range(10):
        policies, found = asked(seed, 10)
        seen, action = demonstrated(np.random.default_rng(100 + seed), 300)
        losses = np.square(seen @ policies.gains.T - action[:, None]).mean(0)
        by_z, by_s = losses[1], losses[2]
        spread = np.square(seen @ policies.gains.T - action[:, None])[:, 1:3]
        error = (spread[:, 0] - spread[:, 1]).std() / np.sqrt(300)
        assert abs(by_z - by_s) < 4 * error and abs(by_z - by_s) < 0.02 * NOISE**2
        assert losses[0] > 50 * NOISE**2
        np.testing.assert_allclose(found.chances[0], 0.25)
        assert found.chances[-1][2] > 0.95 and found.mask.tolist() == [1.0, 0.0]


def test_the_posterior_is_the_product_of_the_answers() -> None:
    """Bayes' rule by a plain loop, of an expert that is believed to be so noisy that every answer counts."""
    policies, found = asked(3, 6, believed=5.0)
    weights = np.ones(4)
    for obs, answer in zip(found.obs, found.actions, strict=True):
        for mask in range(4):
            weights[mask] *= np.exp(-((obs @ policies.gains[mask] - answer) ** 2) / (2 * 5.0**2))
    np.testing.assert_allclose(found.chances[-1], weights / weights.sum(), rtol=1e-6)
    assert weights.max() / weights.sum() < 0.999


def test_the_question_is_about_the_state_of_greatest_disagreement() -> None:
    policies = LinearPolicies(*demonstrated(np.random.default_rng(0), 100), NOISE)
    states = np.array([[1.0, 1.0], [1.0, -2.0], [0.5, 0.4]])
    found = by_queries(
        policies, all_masks(2), lambda mask, number: states, lambda obs: obs[:, 0], 1, np.random.default_rng(0)
    )
    np.testing.assert_array_equal(found.obs[0], states[1])


@pytest.mark.parametrize("scale", [0.01, 1.0, 1000.0])
def test_returns_of_any_size_find_what_helps_and_what_harms(scale: float) -> None:
    """A noisy linear return of four factors, two that help, one that harms, one that does nothing."""
    right = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)

        def play(mask: np.ndarray, number: int, rng: np.random.Generator = rng) -> float:
            return scale * float(mask @ [3.0, 2.0, -3.0, 0.0] + rng.standard_normal())

        found = by_execution(play, 4, 20, np.random.default_rng(1000 + seed))
        right += found.mask[:3].tolist() == [1.0, 1.0, 0.0]
        assert found.masks.shape == (20, 4) and set(np.unique(found.masks)) <= {0.0, 1.0}
    assert right >= 17


def test_masks_that_pay_are_drawn_more_and_more() -> None:
    shares = []
    for seed in range(20):
        found = by_execution(lambda mask, _: float(mask[0]), 1, 40, np.random.default_rng(seed))
        shares.append((found.masks[:5].mean(), found.masks[20:].mean()))
    early, late = np.mean(shares, axis=0)
    assert 0.3 < early < 0.9 and late > 0.85


def test_the_weights_are_those_of_a_plain_ridge_regression() -> None:
    """Normal equations with a column of ones whose weight is not penalised."""
    rng = np.random.default_rng(0)
    found = by_execution(lambda mask, _: float(rng.standard_normal() + mask @ [1, -1, 0]), 3, 15, rng)
    wide = np.hstack([np.ones((15, 1)), found.masks])
    penalty = np.diag([0.0, 1.0, 1.0, 1.0])
    wanted = np.linalg.solve(wide.T @ wide + penalty, wide.T @ found.returns)
    np.testing.assert_allclose(found.weights, wanted[1:], rtol=1e-6, atol=1e-9)
    assert ((found.chances > 0.5) == (found.weights > 0)).all()
    np.testing.assert_array_equal(found.mask, found.weights > 0)


def test_equal_returns_choose_nothing() -> None:
    found = by_execution(lambda mask, _: -200.0, 3, 12, np.random.default_rng(0))
    assert found.mask.tolist() == [0.0] * 3 and found.chances.tolist() == [0.5] * 3


def test_all_masks_are_listed_once() -> None:
    found = all_masks(3)
    assert len({tuple(row) for row in found}) == 8
    assert found[0].sum() == 0 and found[-1].sum() == 3
    with pytest.raises(UsageError, match="1 to 12 factors can be listed, got 13: put components together"):
        all_masks(13)
