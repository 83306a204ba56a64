"""Find seeds that stand apart from the others of their cell, which a run alone cannot show."""

from collections.abc import Sequence

import numpy as np

from workhorse.statistics.reliability import outlying
from workhorse.studies.cells import CellSummary

__all__ = ["outlying_seeds"]


def outlying_seeds(cells: Sequence[CellSummary]) -> tuple[str, ...]:
    """Return a sentence for each seed whose score stands apart; see `workhorse.statistics.reliability.outlying`.

    *Outliers are results*: all statistics keep them.
    """
    found = []
    for cell in cells:
        for place in np.flatnonzero(outlying(cell.scores)):
            others = np.delete(cell.scores, place)
            least, most, score = others.min(), others.max(), cell.scores[place]
            seed = cell.runs[place].seed
            found.append(
                f"{cell.variant} on {cell.task}: seed {seed} stands apart with {score:.4g}, the others "
                f"lie between {least:.4g} and {most:.4g}. Look at its page and its warnings first."
            )
    return tuple(found)
