"""Quality of a gradient estimate, from a few independent estimates of the same gradient.

With independent estimates g = mu + noise, each of N samples, and B = trace of one sample's covariance / |mu|^2 the
*noise scale* in samples,

    mean cosine of two estimates  ~  1 / (1 + B / N)        cosine to mu  ~  1 / sqrt(1 + B / N)

in many dimensions. B is the number of samples at which noise and signal are even: a cosine of .5 needs B of them, and
.9 needs 9 B. Source of the noise scale: McCandlish et al. 2018, "An empirical model of large-batch training" (arXiv
1812.06162); of the measurement: Ilyas et al. 2020, "A closer look at deep policy gradients" (arXiv 1811.02553).
"""

from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Concentration",
    "GradientMeter",
    "Pairing",
    "concentration",
    "cosines_to",
    "expected_cosine",
    "paired",
    "samples_needed",
]


MOST_ENUMERATED = 12
"""Largest number of estimates for which all sign flips are tried; for more, a random sample is."""


class Concentration(NamedTuple):
    """Agreement of K estimates of one gradient.

    Attributes:
        cosine: mean over the K (K - 1) / 2 pairs.
        low, high: its 95 % bootstrap interval over the estimates.
        noise_scale: B in samples, from unbiased estimates of |mu|^2 and of the trace; infinite where the estimate of
            |mu|^2 is not above zero.
        null_deviation: standard deviation of the mean cosine if the estimates had nothing in common, by flipping their
            signs at random.
        p_value: share of sign flips that give at least this mean cosine; small where it is a finding. At the least
            2^(1 - K), so that fewer than six estimates are never one. NaN where an estimate is not finite.
    """

    cosine: float
    low: float
    high: float
    noise_scale: float
    null_deviation: float
    p_value: float

    @property
    def is_a_finding(self) -> bool:
        """Tell whether the estimates agree, at the 5 % level."""
        return self.p_value <= 0.05


def concentration(estimates: np.ndarray, samples: int, resamples: int = 2000, seed: int = 0) -> Concentration:
    """Measure how far K independent estimates of a gradient agree.

    Args:
        estimates: (K, d), K at least 3.
        samples: of each estimate, N.
        resamples: of the bootstrap, and sign flips where there are too many to try all.
        seed: of both.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> found = concentration(1.0 + rng.normal(size=(10, 4096)), samples=100)  # signal and noise are even
        >>> round(found.cosine, 2), round(found.noise_scale), found.is_a_finding
        (0.5, 100, True)
    """
    count = len(estimates)
    if count < 3:
        raise ValueError(f"Agreement needs at least 3 estimates: got {count}.")
    gram, cosines = _grams(estimates)
    pairs = np.triu_indices(count, 1)
    cosine = float(cosines[pairs].mean())
    squared_mean = float(gram[pairs].mean())
    trace = float(np.diag(gram).mean()) - squared_mean
    noise_scale = samples * trace / squared_mean if squared_mean > 0 else float("inf")
    rng = np.random.default_rng(seed)
    low, high = np.percentile(_resampled(cosines, _times(count, rng, resamples)), [2.5, 97.5])
    signs = _all_signs(count) if count <= MOST_ENUMERATED else rng.choice([-1.0, 1.0], size=(resamples, count))
    signs[0] = 1.0  # as they were
    flipped = np.einsum("ri,ij,rj->r", signs, np.triu(cosines, 1), signs) / len(pairs[0])
    p_value = float((flipped >= cosine - 1e-12).mean()) if np.isfinite(cosine) else float("nan")
    return Concentration(cosine, float(low), float(high), float(noise_scale), float(flipped.std()), p_value)


def _all_signs(count: int) -> NDArray[np.float64]:
    """All ways to flip signs that differ by more than flipping all of them, (2^(K - 1), K); the first flips none."""
    bits = np.arange(2 ** (count - 1))[:, None] >> np.arange(count) & 1
    return 1.0 - 2.0 * bits


class Pairing(NamedTuple):
    """Comparison of two estimators of one gradient on the same experience.

    Attributes:
        difference: mean cosine of two estimates of the first, less that of the second.
        low, high: its 95 % bootstrap interval over the pairs.
        ratio: variance (trace of the covariance) of the first over that of the second; NaN where the second has none.
        ratio_low, ratio_high: its interval.
    """

    difference: float
    low: float
    high: float
    ratio: float
    ratio_low: float
    ratio_high: float


def paired(one: np.ndarray, other: np.ndarray, resamples: int = 2000, seed: int = 0) -> Pairing:
    """Compare the agreement and the variance of two estimators; the k-th estimate of both is from the same experience.

    Args:
        one, other: (K, d), K at least 3. *Variances are compared as they are*: in one unit, not normalised.
        resamples: of the bootstrap, which draws the same estimates of both.
        seed: of it.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> noise = rng.normal(size=(10, 4096))
        >>> found = paired(1.0 + 0.5 * noise, 1.0 + noise)
        >>> round(found.difference, 1), round(found.ratio, 2), found.low > 0
        (0.3, 0.25, True)
    """
    count = len(one)
    if count < 3 or len(other) != count:
        raise ValueError(f"A comparison needs at least 3 pairs of estimates: got {count} and {len(other)}.")
    times = np.concatenate([np.ones((1, count)), _times(count, np.random.default_rng(seed), resamples)])
    (gram, cosines), (other_gram, other_cosines) = _grams(one), _grams(other)
    difference = _resampled(cosines, times) - _resampled(other_cosines, times)
    variance, below = _variances(gram, times), _variances(other_gram, times)
    varies = below > 1e-9 * np.diag(other_gram).mean()  # and not by rounding alone
    ratio = np.where(varies, variance / np.where(varies, below, 1.0), np.nan)
    ends = (np.percentile(values[1:], [2.5, 97.5]) for values in (difference, ratio))
    (low, high), (ratio_low, ratio_high) = (map(float, pair) for pair in ends)
    return Pairing(float(difference[0]), low, high, float(ratio[0]), ratio_low, ratio_high)


def _grams(estimates: np.ndarray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Products of all pairs of estimates, and their cosines, (K, K)."""
    estimates = np.asarray(estimates, np.float64)
    gram = estimates @ estimates.T
    lengths = np.sqrt(np.diag(gram))
    safe = np.where(lengths > 0, lengths, 1.0)
    return gram, gram / np.outer(safe, safe)


def _times(count: int, rng: np.random.Generator, resamples: int) -> NDArray[np.float64]:
    """Return how often each estimate is drawn, (R, K); rows with only one different estimate are dropped."""
    drawn = rng.integers(count, size=(resamples, count))
    times = np.stack([(drawn == each).sum(1) for each in range(count)], 1).astype(np.float64)
    return times[times.max(1) < count]


def _resampled(cosines: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean cosine of resampled estimates, over pairs of *different* ones: an estimate always agrees with itself."""
    apart = cosines - np.diag(np.diag(cosines))
    total = np.einsum("ri,ij,rj->r", times, apart, times)
    return total / (len(cosines) ** 2 - np.square(times).sum(1))


def _variances(gram: NDArray[np.float64], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Trace of the covariance of resampled estimates, short of the same factor in all."""
    count = len(gram)
    return times @ np.diag(gram) / count - np.einsum("ri,ij,rj->r", times, gram, times) / count**2


def cosines_to(estimates: np.ndarray, references: np.ndarray) -> NDArray[np.float64]:
    """Cosine of every estimate (K, d) to the reference in its row (K, d), (K,)."""
    estimates, references = np.asarray(estimates, np.float64), np.asarray(references, np.float64)
    lengths = np.linalg.norm(estimates, axis=1) * np.linalg.norm(references, axis=1)
    return (estimates * references).sum(1) / np.where(lengths > 0, lengths, 1.0)


class GradientMeter:
    """Running estimate of a gradient's quality, from the signal and noise of the newest iterations.

    Example:
        >>> meter = GradientMeter(samples=2048)
        >>> for _ in range(20):
        ...     meter.add(signal=0.5, noise=4.5)
        >>> print(meter.sentence)
        cosine .10 at 2,048; .9 needs 165,888
    """

    def __init__(self, samples: int, iterations: int = 20) -> None:
        """Average over `iterations` estimates, each made of `samples` steps."""
        self._samples = samples
        self._kept: deque[tuple[float, float]] = deque(maxlen=iterations)

    def add(self, signal: float, noise: float) -> None:
        """Add an iteration's unbiased estimates of |mu|^2 and of the noise; numbers that are not finite are skipped."""
        if np.isfinite(signal) and np.isfinite(noise):
            self._kept.append((signal, noise))

    @property
    def cosine(self) -> float:
        """Mean cosine of two estimates; at most 0 where no signal is seen, NaN before the first iteration."""
        if not self._kept:
            return float("nan")
        signal, noise = np.sum(self._kept, axis=0)
        return float(signal / (signal + noise)) if signal + noise > 0 else 0.0

    @property
    def sentence(self) -> str:
        """For the progress line; empty before the first iteration."""
        if not self._kept:
            return ""
        cosine = self.cosine
        if cosine <= 0:
            return "gradient estimates do not agree yet"
        noise_scale = self._samples * (1.0 - cosine) / cosine
        text = f"{cosine:.2f}".lstrip("0") if cosine < 0.995 else "1"
        return f"cosine {text} at {self._samples:,}; .9 needs {max(samples_needed(noise_scale, 0.9), 1):,.0f}"


def expected_cosine(noise_scale: float, samples: float) -> float:
    """Mean cosine of two estimates of N samples, 1 / (1 + B / N).

    Example:
        >>> [round(expected_cosine(scale, 1.0), 3) for scale in (0.1, 1.0, 9.0, 99.0)]
        [0.909, 0.5, 0.1, 0.01]
    """
    return 1.0 / (1.0 + noise_scale / samples)


def samples_needed(noise_scale: float, cosine: float) -> float:
    """Samples at which two estimates have that mean cosine, B c / (1 - c).

    Example:
        >>> round(samples_needed(1000.0, 0.5)), round(samples_needed(1000.0, 0.9))
        (1000, 9000)
    """
    return noise_scale * cosine / (1.0 - cosine)
