"""Artefacts that a task may be changed by, and the values that each may take."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workhorse.core.errors import UsageError, nearest

__all__ = ["DEFAULT_RANGES", "KINDS", "PHYSICAL", "read_ranges"]


@dataclass(frozen=True)
class ArtefactKind:
    """Meaning of an artefact's values.

    Attributes:
        unit: "x" for a factor of the task's own value, else "steps" or "sd".
        nominal: the value that changes nothing.
        default: values tried where the user names none.
        least: the least value allowed.
        above: whether a value must be above `least`.
        whole: whether it must be an integer.
    """

    unit: str
    nominal: float
    default: tuple[float, ...]
    least: float = 0.0
    above: bool = False
    whole: bool = False


KINDS = {
    # a load or a battery changes masses and motors by half
    "body mass": ArtefactKind("x", 1, (0.5, 0.75, 1.0, 1.25, 1.5), above=True),
    # surfaces differ by a factor of four
    "friction": ArtefactKind("x", 1, (0.5, 0.75, 1.0, 1.5, 2.0)),
    # stands for slopes and for everything that the model leaves out, hence 30 %
    "gravity": ArtefactKind("x", 1, (0.7, 0.85, 1.0, 1.15, 1.3)),
    "actuator strength": ArtefactKind("x", 1, (0.5, 0.75, 1.0, 1.25, 1.5)),
    # a good sensor is true to 1 % of what it measures, a bad one to 30 %
    "observation noise": ArtefactKind("sd", 0, (0.0, 0.01, 0.03, 0.1, 0.3)),
    # three steps are 24 to 150 ms: what a camera or a network costs
    "action delay": ArtefactKind("steps", 0, (0, 1, 2, 3), whole=True),
    "action repeat": ArtefactKind("steps", 1, (1, 2, 3, 4), least=1, whole=True),
    # half the time asks how much is earned early, twice the time whether a gait lasts
    "time limit": ArtefactKind("x", 1, (0.5, 1.0, 2.0), above=True),
    # from the model's pose to five times as far from it as usual
    "initial state": ArtefactKind("x", 1, (0.0, 1.0, 2.0, 5.0)),
}

PHYSICAL = ("body mass", "friction", "gravity", "actuator strength")
"""Artefacts of the simulator, which are also tried together."""

DEFAULT_RANGES: Mapping[str, tuple[float, ...]] = {name: kind.default for name, kind in KINDS.items()}


def read_ranges(artefacts: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, ...]]:
    """Return the values of each artefact, checked, ascending and with the nominal one, in the order of `KINDS`.

    Raises:
        UsageError: an unknown artefact, or a value that it cannot take.
    """
    for name in artefacts:
        if name not in KINDS:
            close = nearest(name, KINDS) if isinstance(name, str) else []
            hint = f"did you mean {' or '.join(close)}?" if close else "leave it out."
            raise UsageError(f"Expected artefacts among {', '.join(KINDS)}, got {name!r}: {hint}")
    return {name: _read_range(name, kind, artefacts[name]) for name, kind in KINDS.items() if name in artefacts}


def _read_range(name: str, kind: ArtefactKind, values: Sequence[float]) -> tuple[float, ...]:
    """Check the values of one artefact, which may come from a user's file and be anything."""
    try:
        given = [float(value) for value in values]
    except (TypeError, ValueError):
        given = []
    if not given or isinstance(values, str):
        raise UsageError(
            f"Expected a list of numbers for the artefact {name!r}, got {values!r}: "
            f"pass values such as {list(kind.default)}."
        )
    for value in given:
        enough = value > kind.least if kind.above else value >= kind.least
        if not (math.isfinite(value) and enough and (value.is_integer() or not kind.whole)):
            what, bound = "whole" if kind.whole else "finite", "above" if kind.above else "of at least"
            raise UsageError(
                f"Expected {what} numbers {bound} {kind.least:g} {kind.unit} for the artefact {name!r}, got "
                f"{value:g}: pass values such as {list(kind.default)}."
            )
    return tuple(sorted({*given, float(kind.nominal)}))
