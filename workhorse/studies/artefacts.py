"""What is left of a trained policy's return when its task is not quite the one it was trained on."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from workhorse.core.errors import UsageError, nearest
from workhorse.environments.mujoco.batch_task import BatchTask
from workhorse.environments.mujoco.perturbations import without_effect
from workhorse.environments.protocol import HostEnv, JaxEnv
from workhorse.runs.policy import Policy
from workhorse.studies.results import Artefact, Sweep
from workhorse.studies.variations import Earned, Variation, Workbench

__all__ = ["DEFAULT_RANGES", "from_record", "sweep", "to_record"]


@dataclass(frozen=True)
class _Kind:
    """What the values of an artefact mean: their unit, the one that changes nothing, and the least allowed."""

    unit: str
    nominal: float
    least: float = 0.0
    above: bool = False
    whole: bool = False


_KINDS = {
    "body mass": _Kind("x", 1, above=True),
    "friction": _Kind("x", 1),
    "gravity": _Kind("x", 1),
    "actuator strength": _Kind("x", 1),
    "observation noise": _Kind("sd", 0),
    "action delay": _Kind("steps", 0, whole=True),
    "action repeat": _Kind("steps", 1, least=1, whole=True),
    "time limit": _Kind("x", 1, above=True),
    "initial state": _Kind("x", 1),
}
_PHYSICAL = ("body mass", "friction", "gravity", "actuator strength")

DEFAULT_RANGES: Mapping[str, tuple[float, ...]] = {
    "body mass": (0.5, 0.75, 1.0, 1.25, 1.5),
    "friction": (0.5, 0.75, 1.0, 1.5, 2.0),
    "gravity": (0.7, 0.85, 1.0, 1.15, 1.3),
    "actuator strength": (0.5, 0.75, 1.0, 1.25, 1.5),
    "observation noise": (0.0, 0.01, 0.03, 0.1, 0.3),
    "action delay": (0, 1, 2, 3),
    "action repeat": (1, 2, 3, 4),
    "time limit": (0.5, 1.0, 2.0),
    "initial state": (0.0, 1.0, 2.0, 5.0),
}
"""What is tried where nothing else is asked for.

Masses and motors change by half with a load or a battery; surfaces differ in friction by a factor of four. Gravity
stands for slopes and for what nobody modelled, hence 30 %. A good sensor is true to 1 % of what it measures, a bad one
to 30 %. Three steps, 24 to 150 ms, are what a camera or a network costs. Half the time asks how much is earned early,
twice the time whether a gait lasts. Initial states: the model's pose, and up to five times as far from it as usual.
"""


def sweep(
    policy: Policy,
    task: str,
    task_options: Mapping[str, Any] | None = None,
    *,
    artefacts: Mapping[str, Sequence[float]] | None = None,
    episodes: int = 20,
    seed: int = 0,
    threads: int = 0,
    progress: Callable[[int, int], None] = lambda ended, total: None,
) -> Sweep:
    """A policy's returns on changed versions of its task, all side by side.

    One artefact at a time over its range, everything else nominal; then the corners, where all the physical ones
    (body mass, friction, gravity, actuator strength) are at one end of their range or the other. See
    `studies.variations.Variation` for what each does. Returns are undiscounted sums of raw rewards, *with a changed
    time limit over the changed horizon*. A simulation that breaks keeps the return it had and is counted; in `corners`
    too it stands with that return.

    Episode e begins at the address (seed, "evaluate", 0, e) at every value and its noise comes from
    (seed, "perturb", 0, e): equal initial states, equal noise. A standard deviation of noise is the policy's own
    normaliser's; without one, that of the observations in the nominal episodes. Neither threads nor the other
    artefacts change a bit of a value's returns.

    Args:
        policy: of the task.
        task: its id.
        task_options: as for `environments.registry.make`.
        artefacts: by name, the values to try; the nominal one is added where it is missing. Both ends are tried. None
            for `DEFAULT_RANGES`.
        episodes: episodes a value.
        seed: root of the episodes' addresses.
        threads: simulation threads; 0 for one a core.
        progress: is told how many episodes have ended, and of how many.

    Returns:
        The sweep. An artefact that the task cannot have is in `skipped`, with the reason.

    Raises:
        UsageError: an unknown artefact, a value it cannot take, a policy of another task, a task without time limit.

    Example:
        >>> from workhorse.core.layers import Dense, Mode
        >>> from workhorse.core.spec import Box
        >>> spaces = {"observation": Box.unbounded(4), "action": Box((-3.0,), (3.0,))}
        >>> still = Policy([Dense(np.zeros((1, 4))), Mode()], task="InvertedPendulum-v5", **spaces)
        >>> found = sweep(still, "InvertedPendulum-v5", artefacts={"gravity": [0.7, 1.3]}, episodes=2)
        >>> found.artefacts[0].values
        array([0.7, 1. , 1.3])
        >>> bool(found.artefacts[0].returns[0] > found.artefacts[0].returns[2])  # it falls later where it weighs less
        True
    """
    ranges = read_ranges(DEFAULT_RANGES if artefacts is None else artefacts)
    _check_count("episodes", episodes, 1)
    _check_count("seed", seed, 0)
    _check_count("threads", threads, 0)
    bench = Workbench(policy, task, task_options or {}, episodes=episodes, seed=seed, threads=threads)
    try:
        skipped = {name: reason for name, reason in _impossible(bench.env).items() if name in ranges}
        ranges = {name: values for name, values in ranges.items() if name not in skipped}
        corners = _corners(ranges)
        earned = _run_all(bench, policy, ranges, corners.values(), progress)
    finally:
        bench.close()
    return Sweep(
        nominal_return=_mean(earned[Variation()]),
        artefacts=tuple(_artefact(name, values, earned) for name, values in ranges.items()),
        corners={name: float(earned[variation].returns.mean()) for name, variation in corners.items()},
        episodes=episodes,
        skipped=skipped,
    )


def _run_all(
    bench: Workbench,
    policy: Policy,
    ranges: Mapping[str, tuple[float, ...]],
    corners: Iterable[Variation],
    progress: Callable[[int, int], None],
) -> dict[Variation, Earned]:
    """Each different variation once: the nominal one is in every range."""
    singles = (_changed({name: value}) for name, values in ranges.items() for value in values)
    variations = list(dict.fromkeys([Variation(), *singles, *corners]))
    total, ended = len(variations) * bench.episodes, 0

    def count(more: int) -> None:
        nonlocal ended
        ended += more
        progress(ended, total)

    earned: dict[Variation, Earned] = {}
    scale = policy.scale
    if scale is None and any(variation.observation_noise for variation in variations):
        seen: list[np.ndarray] = []
        earned = bench.run(variations[:1], progress=count, seen=seen)
        scale = np.concatenate(seen).std(axis=0)
    return earned | bench.run([variation for variation in variations if variation not in earned], scale, count)


def _changed(values: Mapping[str, float]) -> Variation:
    """The variation with these artefacts, by name."""
    fields = {
        name.replace(" ", "_"): int(value) if _KINDS[name].whole else float(value) for name, value in values.items()
    }
    return replace(Variation(), **fields)  # type: ignore[arg-type]


def _corners(ranges: Mapping[str, tuple[float, ...]]) -> dict[str, Variation]:
    """All combinations of the ends of the physical ranges, by name; none where fewer than two can be combined."""
    ends = {
        name: (ranges[name][0], ranges[name][-1])
        for name in _PHYSICAL
        if name in ranges and ranges[name][0] < ranges[name][-1]
    }
    if len(ends) < 2:
        return {}
    chosen = (dict(zip(ends, values, strict=True)) for values in itertools.product(*ends.values()))
    return {
        ", ".join(f"{name} {value:g} {_KINDS[name].unit}" for name, value in corner.items()): _changed(corner)
        for corner in chosen
    }


def _artefact(name: str, values: tuple[float, ...], earned: Mapping[Variation, Earned]) -> Artefact:
    found = [earned[_changed({name: value})] for value in values]
    return Artefact(
        name=name,
        unit=_KINDS[name].unit,
        nominal=float(_KINDS[name].nominal),
        values=np.array(values, np.float64),
        returns=np.array([_mean(one) for one in found]),
        episode_returns=np.stack([one.returns for one in found]),
        broken=np.array([int(one.broken.sum()) for one in found]),
    )


def _mean(earned: Earned) -> float:
    """Mean return; NaN where every simulation broke."""
    return math.nan if earned.broken.all() else float(earned.returns.mean())


def _impossible(env: HostEnv | JaxEnv) -> dict[str, str]:
    """The artefacts that a task cannot have, with the reason."""
    if isinstance(env, BatchTask):
        return {factor.replace("_", " "): reason for factor, reason in without_effect(env).items()}
    reasons = dict.fromkeys(_PHYSICAL, "only the physics of a MuJoCo task can be changed")
    return {**reasons, "initial state": "only the reset of a MuJoCo task has a scale"}


def read_ranges(artefacts: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, ...]]:
    """The values of each artefact, ascending, the nominal one among them, in the order of `_KINDS`."""
    for name in artefacts:
        if name not in _KINDS:
            close = nearest(name, _KINDS) if isinstance(name, str) else []
            hint = f"did you mean {' or '.join(close)}?" if close else "leave it out."
            raise UsageError(f"Expected artefacts among {', '.join(_KINDS)}, got {name!r}: {hint}")
    return {name: _read_range(name, kind, artefacts[name]) for name, kind in _KINDS.items() if name in artefacts}


def _read_range(name: str, kind: _Kind, values: Any) -> tuple[float, ...]:
    try:
        given = [float(value) for value in values]
    except (TypeError, ValueError):
        given = []
    if not given or isinstance(values, str):
        raise UsageError(
            f"Expected a list of numbers for the artefact {name!r}, got {values!r}: "
            f"pass values such as {list(DEFAULT_RANGES[name])}."
        )
    for value in given:
        enough = value > kind.least if kind.above else value >= kind.least
        if not (math.isfinite(value) and enough and (value.is_integer() or not kind.whole)):
            what, bound = "whole" if kind.whole else "finite", "above" if kind.above else "of at least"
            raise UsageError(
                f"Expected {what} numbers {bound} {kind.least:g} {kind.unit} for the artefact {name!r}, got "
                f"{value:g}: pass values such as {list(DEFAULT_RANGES[name])}."
            )
    return tuple(sorted({*given, float(kind.nominal)}))


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise UsageError(f"Expected {name} of a sweep to be an integer of at least {least}, got {value!r}: correct it.")


def to_record(found: Sweep) -> dict[str, Any]:
    """A sweep as plain strict JSON; what is not finite is null."""
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


def from_record(record: Mapping[str, Any], where: str) -> Sweep:
    """The sweep that `to_record` wrote; null is NaN again.

    Args:
        where: the file or field it was read from, for the message.

    Raises:
        UsageError: it is not one, or its lengths contradict each other.
    """
    try:
        artefacts = tuple(_artefact_of(part, int(record["episodes"])) for part in record["artefacts"])
        return Sweep(
            nominal_return=float(_numbers(record["nominal_return"])),
            artefacts=artefacts,
            corners={str(name): float(_numbers(value)) for name, value in record["corners"].items()},
            episodes=int(record["episodes"]),
            skipped={str(name): str(reason) for name, reason in record["skipped"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"Expected a sweep over artefacts in {where}, got something else ({type(error).__name__}: {error}): "
            "restore it from a copy, or measure it again."
        ) from error


def _artefact_of(part: Mapping[str, Any], episodes: int) -> Artefact:
    values, returns = _numbers(part["values"]), _numbers(part["returns"])
    each, broken = _numbers(part["episode_returns"]), np.array(part["broken"], np.int64)
    if values.ndim != 1 or returns.shape != values.shape or broken.shape != values.shape:
        raise ValueError(f"{part['name']} has {values.size} values, {returns.size} returns, {broken.size} broken")
    if each.shape != (len(values), episodes):
        raise ValueError(f"{part['name']} has episode returns {each.shape}, not {(len(values), episodes)}")
    return Artefact(str(part["name"]), str(part["unit"]), float(part["nominal"]), values, returns, each, broken)


def _plain(values: Any) -> Any:
    """Numbers as lists and floats, null where not finite."""
    if isinstance(values, np.ndarray):
        return [_plain(value) for value in values]
    return float(values) if math.isfinite(values) else None


def _numbers(values: Any) -> np.ndarray:
    """The inverse of `_plain`."""
    return np.array(values, np.float64)  # None becomes NaN
