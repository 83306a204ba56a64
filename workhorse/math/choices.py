"""Scores of several choices at once, as rows of one length."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["NEVER", "grouped"]

NEVER = -(2.0**100)
"""Score of a choice that does not exist: its probability is exactly 0, and 0 times it is 0, as with -inf it is not."""


def grouped(scores: Float[Array, "out"], counts: Sequence[int]) -> Float[Array, "A n"]:
    """Return the scores of `counts` choices, which stand one after another, as rows of one length.

    A row that is too short ends with `NEVER`.

    Example:
        >>> (grouped(jnp.array([1.0, 2.0, 3.0]), (1, 2)) > NEVER).tolist()
        [[True, False], [True, True]]
    """
    ends, column = np.cumsum(counts), np.arange(max(counts))
    place = (ends - counts)[:, None] + column
    return jnp.where(column < np.array(counts)[:, None], scores[np.minimum(place, ends[-1] - 1)], jnp.float32(NEVER))
