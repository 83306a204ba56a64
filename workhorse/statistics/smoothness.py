"""Smoothness of a measured surface: the share of the differences of neighbours that is not sampling noise."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from workhorse.statistics.intervals import Interval

__all__ = ["smoothness"]


def smoothness(surface: ArrayLike, error: ArrayLike, confidence: float = 0.95) -> Interval:
    """Estimate the share of the differences of neighbouring grid points that is not sampling noise.

        1 - T / E[S],   S = sum over neighbours (z_i - z_j)^2,   T = sum over neighbours e_i^2 + e_j^2,

    z_i a mean measured at a point with standard error e_i, independently of all others, neighbours the points next to
    each other along an axis. T is what noise alone adds to S. So 1 is a surface as smooth as the true one, and 0 one
    whose every jag is noise: to go by its slope would be to follow the noise. *It is of this grid*: the closer its
    points, the less they truly differ, and the more samples it takes.

    The interval is S -+ z sd(S), sd(S)^2 = 4 (L z)^T C (L z) - 2 tr((L C)^2), L the Laplacian of the grid and C the
    diagonal matrix of e^2: the variance of a quadratic form of normal numbers about unknown means, without bias. The
    errors are taken as known.

    Args:
        surface: means, (rows, columns), of at least two points.
        error: their standard errors, of the same shape.
        confidence: coverage aimed at, in (0, 1).

    Returns:
        The estimate and its interval, in [0, 1]; 1 for a surface without noise.

    Raises:
        ValueError: shapes that differ, fewer than two points, or a number that is NaN or infinite.

    Example:
        >>> smoothness([[0.0, 1.0, 2.0]], [[0.1, 0.1, 0.1]]).value
        0.98
    """
    z, noise = np.asarray(surface, np.float64), np.square(np.asarray(error, np.float64))
    if z.ndim != 2 or z.shape != noise.shape or z.size < 2:
        raise ValueError(
            f"smoothness expects means and errors of one shape (rows, columns), got {z.shape} and {noise.shape}."
        )
    if not (np.isfinite(z).all() and np.isfinite(noise).all()):
        raise ValueError("smoothness expects finite means and errors.")
    degree, slopes = _neighbours(np.ones_like(z)), _laplacian(z)
    found, expected = float((z * slopes).sum()), float((degree * noise).sum())
    trace = float((np.square(degree * noise) + noise * _neighbours(noise)).sum())
    variance = max(4.0 * float((slopes * noise * slopes).sum()) - 2.0 * trace, 2.0 * trace)
    reach = float(ndtri(0.5 + confidence / 2)) * np.sqrt(variance)
    value, low, high = (_share(expected, total) for total in (found, found - reach, found + reach))
    return Interval(value, low, high, "quadratic form")


def _share(noise: float, total: float) -> float:
    """Return the share of a total that is left without the noise, in [0, 1]."""
    if noise <= 0:
        return 1.0
    return max(1.0 - noise / total, 0.0) if total > 0 else 0.0


def _laplacian(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over neighbours of z_i - z_j."""
    return _neighbours(np.ones_like(z)) * z - _neighbours(z)


def _neighbours(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum over neighbours of z_j."""
    total = np.zeros_like(z)
    total[1:] += z[:-1]
    total[:-1] += z[1:]
    total[:, 1:] += z[:, :-1]
    total[:, :-1] += z[:, 1:]
    return total
