"""The smoothness of a measured surface, against surfaces whose truth is known."""

import numpy as np
import pytest

from workhorse.statistics.smoothness import smoothness


def _truth(size):
    x, y = np.meshgrid(np.linspace(0, 3, size), np.linspace(0, 3, size))
    return np.cos(1.3 * x) - 0.4 * y**2


def _neighbour_sum(z):
    return np.square(np.diff(z, axis=0)).sum() + np.square(np.diff(z, axis=1)).sum()


@pytest.mark.parametrize("noise", [0.03, 0.3])
def test_the_share_is_right_on_average_and_its_interval_covers(noise):
    rng, size, repeats = np.random.default_rng(0), 9, 600
    truth = _truth(size)
    error = noise * rng.uniform(0.5, 1.5, truth.shape)
    degree = 4 - (np.arange(size) % (size - 1) == 0)[:, None] - (np.arange(size) % (size - 1) == 0)
    added = (degree * error**2).sum()
    right = 1 - added / (_neighbour_sum(truth) + added)
    found = [smoothness(truth + error * rng.standard_normal(truth.shape), error) for _ in range(repeats)]
    assert np.mean([one.value for one in found]) == pytest.approx(right, abs=0.02)
    covered = np.mean([one.low <= right <= one.high for one in found])
    assert 0.92 < covered < 0.98


def test_noise_alone_is_not_smooth_and_no_noise_is():
    rng, error = np.random.default_rng(1), np.full((15, 15), 0.5)
    assert smoothness(error * rng.standard_normal(error.shape), error).value < 0.2
    exact = smoothness(_truth(5), np.zeros((5, 5)))
    assert tuple(exact[:3]) == (1.0, 1.0, 1.0)
    flat = smoothness(np.zeros((3, 3)), np.ones((3, 3)))
    assert (flat.value, flat.low) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("surface", "error", "sentence"),
    [
        ([1.0, 2.0], [0.1, 0.1], r"one shape \(rows, columns\), got \(2,\) and \(2,\)"),
        ([[1.0, 2.0]], [[0.1]], r"got \(1, 2\) and \(1, 1\)"),
        ([[1.0]], [[0.1]], r"got \(1, 1\)"),
        ([[1.0, np.nan]], [[0.1, 0.1]], "finite"),
    ],
)
def test_what_is_refused(surface, error, sentence):
    with pytest.raises(ValueError, match=sentence):
        smoothness(surface, error)
