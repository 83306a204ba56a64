"""Structure of the observations that a task from outside gives, and the vector that Workhorse makes of one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from workhorse.core.errors import UsageError

__all__ = ["ObservationFormat"]


@dataclass(frozen=True)
class ObservationFormat:
    """Observations as an environment gives them, where that is not the array that a policy reads.

    Attributes:
        kind: `numbers` are laid out row by row; each of some `choices` becomes a row of zeros with a one; a `dict` and
            a `tuple` become their parts one after the other.
        shape: of an observation of numbers or choices; () for a single one.
        counts: of choices, in row-major order: how many there are.
        start: of choices: what the first is called.
        names: of a dict's parts, in the order in which they are laid out.
        parts: of a dict or a tuple.

    Example:
        >>> place, speed = ObservationFormat("choices", (), (3,), (0,)), ObservationFormat("numbers", ())
        >>> seen = ObservationFormat("dict", names=("place", "speed"), parts=(place, speed))
        >>> seen.vectors({"place": 2, "speed": 0.5})
        (array([[0. , 0. , 1. , 0.5]]), True)
        >>> seen.vectors({"place": [2, 0], "speed": [0.5, 0.7]})[0].tolist()
        [[0.0, 0.0, 1.0, 0.5], [1.0, 0.0, 0.0, 0.7]]
    """

    kind: Literal["numbers", "choices", "dict", "tuple"]
    shape: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()
    start: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    parts: tuple["ObservationFormat", ...] = ()

    @property
    def size(self) -> int:
        """Number of components of the vector."""
        if self.kind == "numbers":
            return math.prod(self.shape)
        return sum(self.counts) if self.kind == "choices" else sum(part.size for part in self.parts)

    @property
    def is_consistent(self) -> bool:
        """True where the fields fit each other, as those of a file need not."""
        if self.kind in ("dict", "tuple"):
            named = len(set(self.names)) == len(self.parts) if self.kind == "dict" else not self.names
            return named and len(self.parts) > 0 and all(part.is_consistent for part in self.parts)
        counted = len(self.counts) == len(self.start) == math.prod(self.shape) and min(self.counts, default=0) > 0
        return min(self.shape, default=1) > 0 and (self.kind == "numbers" or counted)

    def fits(self, given: Any) -> bool:
        """Tell whether something has this structure, rather than being a vector already.

        *Whole numbers in a row are one choice each*, for a space that is a single choice.
        """
        if self.kind == "dict":
            return isinstance(given, Mapping)
        if self.kind == "tuple":
            return isinstance(given, tuple) and len(given) == len(self.parts)
        try:
            found = np.asarray(given)
        except Exception:
            return False
        if self.kind == "choices" and not self.shape:
            return found.ndim == 0 or (found.ndim == 1 and found.dtype.kind in "iu")
        return self.shape in (found.shape, found.shape[1:]) and found.ndim >= len(self.shape)

    def vectors(self, given: Any) -> tuple[np.ndarray, bool]:
        """Return one observation or a batch as vectors (N, D), and whether it was one.

        Raises:
            UsageError: a part is missing, of another shape, or no choice there is.
        """
        rows, is_single = self._rows(given, "the observation")
        return np.concatenate(rows, axis=1), is_single

    def _rows(self, given: Any, name: str) -> tuple[list[np.ndarray], bool]:
        """Return the columns that the parts become, (N, ...) each."""
        if self.kind in ("numbers", "choices"):
            array, is_single = self._array(given, name)
            return [array.reshape(len(array), -1) if self.kind == "numbers" else self._ones(array, name)], is_single
        if self.kind == "dict" and (not isinstance(given, Mapping) or set(given) != set(self.names)):
            there = sorted(map(str, given)) if isinstance(given, Mapping) else type(given).__name__
            raise UsageError(f"Expected {name} as a dict of {', '.join(self.names)}, got {there}: pass it as it came.")
        if self.kind == "tuple" and (not isinstance(given, tuple) or len(given) != len(self.parts)):
            raise UsageError(f"Expected {name} as a tuple of {len(self.parts)}, got {type(given).__name__}.")
        keys: Any = self.names or range(len(self.parts))
        found = [part._rows(given[key], f"{name}[{key!r}]") for key, part in zip(keys, self.parts, strict=True)]
        counts = {(len(column), is_single) for columns, is_single in found for column in columns}
        if len(counts) != 1:
            raise UsageError(f"Expected the parts of {name} to be one observation each, or batches of one size.")
        return [column for columns, _ in found for column in columns], found[0][1]

    def _array(self, given: Any, name: str) -> tuple[np.ndarray, bool]:
        """Return an array with a leading axis N, and whether that was added."""
        try:
            array = np.asarray(given)
        except Exception as error:
            raise UsageError(f"Expected {name} to be an array of numbers, got {type(given).__name__}.") from error
        if array.dtype.kind not in "biuf" or self.shape not in (array.shape, array.shape[1:]):
            raise UsageError(
                f"Expected {name} to be numbers of shape {self.shape}, or a batch of them, got {array.dtype} of shape "
                f"{array.shape}: pass it as the environment gave it."
            )
        is_single = array.ndim == len(self.shape)
        return (array[None] if is_single else array), is_single

    def _ones(self, array: np.ndarray, name: str) -> np.ndarray:
        """Return a one at the place of each choice."""
        chosen = array.reshape(len(array), -1) - np.array(self.start)
        if not ((chosen >= 0) & (chosen < self.counts) & (chosen == np.rint(chosen))).all():
            raise UsageError(
                f"Expected {name} to be choices from {list(self.start)}, one of {list(self.counts)}, got "
                f"{array.ravel()[:8].tolist()}: pass it as the environment gave it."
            )
        found = np.zeros((len(array), sum(self.counts)))
        first = np.cumsum((0, *self.counts[:-1]))
        np.put_along_axis(found, first + chosen.astype(np.int64), 1.0, axis=1)
        return found
