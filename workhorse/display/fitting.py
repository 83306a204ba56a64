"""Lines that fit a screen: what matters most is kept where there is no room for everything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.text import Text

__all__ = ["DECORATION", "Part", "bar", "fitted"]

GAP = "  "
DECORATION = 9
"""Rank of what is left out wherever it has no room on its own line."""


FULL, EMPTY = "\N{BOX DRAWINGS HEAVY HORIZONTAL}", "\N{BOX DRAWINGS LIGHT TRIPLE DASH HORIZONTAL}"
"""Characters of a bar; they differ without colour too."""


class Part(NamedTuple):
    """Piece of a line.

    Attributes:
        text: what is shown.
        rank: 0 for what is kept longest.
        style: of the text, as rich names it.
    """

    text: str
    rank: int
    style: str = ""


def bar(share: float, width: int) -> str:
    """Return a bar that is full at a share of 1, longer on a wide screen."""
    size = 24 if width >= 100 else 10
    full = round(size * min(max(share, 0.0), 1.0))
    return FULL * full + EMPTY * (size - full)


def fitted(lines: Sequence[Sequence[Part]], width: int) -> list[Text]:
    """Return lines of at most `width` characters: what has no room on one begins the next, or is left out.

    Example:
        >>> first = [Part("=====", DECORATION), Part("34%", 2), Part("evaluated 3,210", 0), Part("2 min left", 1)]
        >>> second = [Part("1.2M of 3M steps", 3), Part("iteration 12", 4)]
        >>> [line.plain for line in fitted([first, second], 60)]
        ['=====  34%  evaluated 3,210  2 min left', '1.2M of 3M steps  iteration 12']
        >>> [line.plain for line in fitted([first, second], 30)]
        ['evaluated 3,210  2 min left', '34%  1.2M of 3M steps']
        >>> [line.plain for line in fitted([first, second], 16)]
        ['evaluated 3,210', '2 min left  34%']
    """
    found, over = [], list[Part]()
    for parts in lines:
        row, left_out = [part for part in [*over, *parts] if part.text], list[Part]()
        while len(row) > 1 and len(GAP.join(part.text for part in row)) > width:
            left_out.append(max(row, key=lambda part: part.rank))
            row.remove(left_out[-1])
        over = sorted((part for part in left_out if part.rank < DECORATION), key=lambda part: part.rank)
        if row:
            line = Text(GAP, no_wrap=True, overflow="crop")
            found.append(line.join([Text(part.text, style=part.style) for part in row]))
    return found
