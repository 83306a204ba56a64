"""Results of playing a policy on changed tasks, and of playing without one; plain data, read back by reports."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from workhorse.core.errors import UsageError

__all__ = ["Artefact", "Floor", "Sweep", "from_record", "to_record"]


@dataclass(frozen=True)
class Artefact:
    """Returns under one kind of change to a task, over a range of values with both ends.

    Attributes:
        name: "body mass", "friction", "gravity", "actuator strength", "observation noise", "action delay",
            "action repeat", "time limit" or "initial state".
        unit: of the values: "x" for a factor of the task's own value, else "steps" or "sd".
        nominal: the value that changes nothing.
        values: the values tried, ascending, `nominal` among them.
        returns: mean return at each value, (values,), NaN where every episode's simulation broke.
        episode_returns: the returns themselves, (values, episodes); the e-th column starts from the same initial state
            at every value.
        broken: episodes whose simulation broke, (values,).
    """

    name: str
    unit: str
    nominal: float
    values: np.ndarray
    returns: np.ndarray
    episode_returns: np.ndarray
    broken: np.ndarray


@dataclass(frozen=True)
class Sweep:
    """Returns of one trained policy on changed versions of its task.

    Attributes:
        nominal_return: mean return on the unchanged task, from the same initial states.
        artefacts: one by one, everything else nominal.
        corners: mean return at each corner, where several artefacts are at an end of their range at once, by the
            corner's name, such as "gravity 1.3 x, friction 0.5 x".
        episodes: episodes for each value.
        skipped: artefacts that this task cannot have, by name, with the reason.
    """

    nominal_return: float
    artefacts: tuple[Artefact, ...]
    corners: Mapping[str, float]
    episodes: int
    skipped: Mapping[str, str]


@dataclass(frozen=True)
class Floor:
    """Returns of policies that learn nothing, from the same initial states; the greatest mean is what counts.

    Attributes:
        random: returns of episodes under uniformly random actions.
        nothing: returns of episodes under the action zero (the first action of a discrete task).
        constant: returns of episodes under the best constant action, which was chosen on other initial states; empty
            in what was measured before there was such a floor.
        action: that action, as the task takes it, flat.
        trial_episodes, trial_steps: what choosing it took.
    """

    random: tuple[float, ...]
    nothing: tuple[float, ...]
    constant: tuple[float, ...] = ()
    action: tuple[float, ...] = ()
    trial_episodes: int = 0
    trial_steps: int = 0

    @property
    def policies(self) -> dict[str, tuple[float, ...]]:
        """The returns of each policy that was measured, by its name in words."""
        found = {"random policy": self.random, "doing nothing": self.nothing, "best constant action": self.constant}
        return {name: returns for name, returns in found.items() if returns}

    @property
    def greatest(self) -> tuple[str, float]:
        """Name and mean return of the policy that earns most, the first of equals.

        Example:
            >>> Floor((0.0, 2.0), (1.0, 2.0), (-1.0, -2.0)).greatest
            ('doing nothing', 1.5)
        """
        mean = {name: float(np.mean(returns)) for name, returns in self.policies.items()}
        best = max(mean, key=lambda name: mean[name])
        return best, mean[best]


def to_record(found: Sweep) -> dict[str, object]:
    """Return a sweep as plain strict JSON; null stands for a number that is not finite."""
    return {
        "nominal_return": _plain(found.nominal_return),
        "episodes": found.episodes,
        "artefacts": [
            {
                "name": artefact.name,
                "unit": artefact.unit,
                "nominal": artefact.nominal,
                "values": _plain(artefact.values),
                "returns": _plain(artefact.returns),
                "episode_returns": _plain(artefact.episode_returns),
                "broken": artefact.broken.tolist(),
            }
            for artefact in found.artefacts
        ],
        "corners": {name: _plain(value) for name, value in found.corners.items()},
        "skipped": dict(found.skipped),
    }


def from_record(record: Mapping[str, object], where: str) -> Sweep:
    """Return the sweep that `to_record` wrote; null becomes NaN again.

    Args:
        record: parsed JSON.
        where: the file or field it was read from, for the message.

    Raises:
        UsageError: it is not a sweep, or its lengths contradict each other.
    """
    try:
        return _sweep_of(dict(record))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"Expected a sweep over artefacts in {where}, got something else ({type(error).__name__}: {error}): "
            "restore it from a copy, or measure it again."
        ) from error


def _sweep_of(record: dict) -> Sweep:
    artefacts = tuple(_artefact_of(part, int(record["episodes"])) for part in record["artefacts"])
    return Sweep(
        nominal_return=float(_numbers(record["nominal_return"])),
        artefacts=artefacts,
        corners={str(name): float(_numbers(value)) for name, value in record["corners"].items()},
        episodes=int(record["episodes"]),
        skipped={str(name): str(reason) for name, reason in record["skipped"].items()},
    )


def _artefact_of(part: dict, episodes: int) -> Artefact:
    values, returns = _numbers(part["values"]), _numbers(part["returns"])
    each, broken = _numbers(part["episode_returns"]), np.array(part["broken"], np.int64)
    if values.ndim != 1 or returns.shape != values.shape or broken.shape != values.shape:
        raise ValueError(f"{part['name']} has {values.size} values, {returns.size} returns, {broken.size} broken")
    if each.shape != (len(values), episodes):
        raise ValueError(f"{part['name']} has episode returns {each.shape}, not {(len(values), episodes)}")
    return Artefact(str(part["name"]), str(part["unit"]), float(part["nominal"]), values, returns, each, broken)


def _plain(values: np.ndarray | float) -> object:
    """Return numbers as lists and floats, None where not finite."""
    if isinstance(values, np.ndarray):
        return [_plain(value) for value in values]
    return float(values) if math.isfinite(values) else None


def _numbers(values: object) -> np.ndarray:
    """Return the array that `_plain` was given; NumPy reads None as NaN."""
    return np.array(values, np.float64)
