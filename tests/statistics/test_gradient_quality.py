"""Agreement of gradient estimates, against Gaussians whose noise scale is known."""

import numpy as np
import pytest

from workhorse.statistics.gradient_quality import concentration, cosines_to, expected_cosine, paired, samples_needed


def gaussians(noise_over_samples, rng, count=10, size=4096):
    """Estimates of mu with |mu| = 1 and a covariance whose trace is B / N."""
    mean = rng.normal(size=size)
    mean /= np.linalg.norm(mean)
    return mean, mean + np.sqrt(noise_over_samples / size) * rng.normal(size=(count, size))


@pytest.mark.parametrize(
    ("ratio", "pairwise", "true"), [(0.1, 0.909, 0.954), (1, 0.5, 0.708), (9, 0.1, 0.316), (99, 0.0099, 0.105)]
)
def test_synthetic_gaussians_have_the_cosines_of_the_closed_form(ratio, pairwise, true):
    rng = np.random.default_rng(0)
    found, to_true, scales = [], [], []
    for _ in range(40):
        mean, estimates = gaussians(ratio, rng)
        agreement = concentration(estimates, samples=1000, resamples=100)
        found.append(agreement.cosine)
        scales.append(agreement.noise_scale)
        to_true.append(cosines_to(estimates, np.broadcast_to(mean, estimates.shape)).mean())
    assert np.mean(found) == pytest.approx(pairwise, abs=0.004)
    assert np.mean(to_true) == pytest.approx(true, abs=0.006)
    assert expected_cosine(ratio * 1000, 1000) == pytest.approx(pairwise, abs=0.001)
    if ratio <= 9:
        assert np.median(scales) == pytest.approx(ratio * 1000, rel=0.1)


def test_estimates_without_signal_are_no_finding_and_with_it_are():
    rng = np.random.default_rng(1)
    alarms = [concentration(rng.normal(size=(10, 300)), 1).is_a_finding for _ in range(300)]
    assert 0.02 < np.mean(alarms) < 0.09, "a test at the 5 % level"
    _, estimates = gaussians(9, rng)
    assert concentration(estimates, 1).is_a_finding


def test_few_estimates_are_never_a_finding_however_they_agree():
    rng = np.random.default_rng(7)
    for count in (3, 4, 5, 6, 8):
        alike = concentration(1.0 + 0.01 * rng.normal(size=(count, 50)), 1)
        assert alike.cosine > 0.99 and alike.p_value == 2.0 ** (1 - count)
        assert alike.is_a_finding == (count >= 6)
    opposed = concentration(np.array([[1.0, 0.0], [-1.0, 0.1], [0.0, 1.0], [0.0, -1.0]]), 1)
    assert opposed.p_value > 0.5
    assert np.isnan(concentration(np.full((6, 4), np.nan), 1).p_value)


def test_the_null_knows_of_few_effective_dimensions():
    rng = np.random.default_rng(2)
    wide = concentration(rng.normal(size=(10, 5000)), 1)
    narrow = concentration(rng.normal(size=(10, 5000)) * np.exp(-np.arange(5000)), 1)
    assert wide.null_deviation == pytest.approx(1 / np.sqrt(5000 * 45), rel=0.1)
    assert narrow.null_deviation > 10 * wide.null_deviation


def test_the_interval_covers_what_more_estimates_say():
    rng = np.random.default_rng(3)
    covered = []
    for _ in range(200):
        _, estimates = gaussians(1.0, rng, size=64)
        agreement = concentration(estimates, 1, resamples=300)
        covered.append(agreement.low <= 0.5 <= agreement.high)
    assert np.mean(covered) > 0.8  # ten estimates: a percentile bootstrap under-covers


def test_samples_needed_is_the_inverse():
    for cosine in (0.1, 0.5, 0.9):
        assert expected_cosine(700.0, samples_needed(700.0, cosine)) == pytest.approx(cosine)
    with pytest.raises(ValueError, match="at least 3 estimates: got 2"):
        concentration(np.ones((2, 5)), 1)


def test_paired_estimates_are_compared_with_an_interval_that_holds_the_truth():
    rng = np.random.default_rng(3)
    held, ratios, trials = 0, [], 200
    for trial in range(trials):
        shared, apart = rng.normal(size=(2, 10, 400))
        one, other = 1.0 + 0.6 * shared + 0.3 * apart, 1.0 + shared
        found = paired(one, other, resamples=300, seed=trial)
        ratios.append(found.ratio)
        held += found.low <= 1 / 1.45 - 0.5 <= found.high
        assert found.ratio_low < found.ratio < found.ratio_high
    assert np.mean(ratios) == pytest.approx(0.45, rel=0.02)
    assert held / trials > 0.8, "ten estimates, and many dimensions"
    same = paired(one, one)
    assert (same.difference, same.low, same.high) == (0, 0, 0) and same.ratio == pytest.approx(1)
    assert np.isnan(paired(one, np.ones_like(one)).ratio), "the second does not vary"
    with pytest.raises(ValueError, match="at least 3 pairs"):
        paired(one[:2], other[:2])
