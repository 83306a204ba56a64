"""Seeds that stand apart from their siblings: a warning that no run can give of itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workhorse.statistics.reliability import outlying
from workhorse.studies.cells import CellSummary

__all__ = ["outlying_seeds"]


def outlying_seeds(cells: Sequence[CellSummary]) -> tuple[str, ...]:
    """A sentence for each cell with a seed whose score stands apart; see `workhorse.statistics.outlying`.

    *Outliers are results*: none is left out of anything because of it.
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
