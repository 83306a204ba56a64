"""Sweeps: the returns of a trained policy when its task is changed, one artefact at a time and at the corners."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from workhorse.core.errors import UsageError
from workhorse.core.machine import threads_or_cores
from workhorse.environments.mujoco.batch_task import BatchTask
from workhorse.environments.mujoco.perturbations import without_effect
from workhorse.environments.protocol import HostEnv
from workhorse.robustness.episodes import Earned
from workhorse.robustness.ranges import DEFAULT_RANGES, KINDS, PHYSICAL, read_ranges
from workhorse.robustness.results import Artefact, Sweep
from workhorse.robustness.variations import Variation, Workbench
from workhorse.runs.policy import Policy

__all__ = ["sweep"]


def sweep(
    policy: Policy,
    task: str,
    task_options: Mapping[str, object] | None = None,
    *,
    artefacts: Mapping[str, Sequence[float]] | None = None,
    episodes: int = 20,
    seed: int = 0,
    threads: int = 0,
) -> Sweep:
    """Measure a policy's returns on changed versions of its task, all side by side.

    One artefact at a time over its range, everything else nominal; then the corners, where all the physical ones
    are at one end of their range or the other; see `Variation`. Returns are undiscounted sums of raw rewards, *with a
    changed time limit over the changed horizon*. A simulation that breaks keeps the return it had, and is counted.

    Episode e has the same initial state at every value, from (seed, "evaluate", 0, e), and the same noise, from
    (seed, "perturb", 0, e). A standard deviation of noise is that of the policy's normaliser; without one, that of the
    observations in the nominal episodes. Neither threads nor the other artefacts change a bit of a value's returns.

    Args:
        policy: of the task.
        task, task_options: as for `environments.registry.make`.
        artefacts: by name, the values to try; the nominal one is added. None for `DEFAULT_RANGES`.
        episodes, seed: episodes for each value, and the root of their addresses.
        threads: simulation threads; 0 for one on each core.

    Raises:
        UsageError: an unknown artefact, a value it cannot take, a policy of another task, a task without time limit.

    Example:
        >>> from workhorse.core.spec import Box
        >>> from workhorse.core.layers import Dense, Mode
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
    threads_or_cores(threads)
    bench = Workbench(policy, task, task_options or {}, episodes=episodes, seed=seed, threads=threads)
    try:
        skipped = {name: reason for name, reason in _impossible(bench.env).items() if name in ranges}
        ranges = {name: values for name, values in ranges.items() if name not in skipped}
        corners = _corners(ranges)
        earned = _run_all(bench, policy, ranges, corners.values())
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
    bench: Workbench, policy: Policy, ranges: Mapping[str, tuple[float, ...]], corners: Iterable[Variation]
) -> dict[Variation, Earned]:
    """Play every different variation once, for the nominal one is in every range."""
    singles = (_changed({name: value}) for name, values in ranges.items() for value in values)
    variations = list(dict.fromkeys([Variation(), *singles, *corners]))
    earned: dict[Variation, Earned] = {}
    scale = policy.scale
    if scale is None and any(variation.observation_noise for variation in variations):
        seen: list[np.ndarray] = []
        earned = bench.run(variations[:1], seen=seen)
        scale = np.concatenate(seen).std(axis=0)
    return earned | bench.run([variation for variation in variations if variation not in earned], scale)


def _changed(values: Mapping[str, float]) -> Variation:
    """Return the variation with these artefacts, given by name."""
    fields = {
        name.replace(" ", "_"): int(value) if KINDS[name].whole else float(value) for name, value in values.items()
    }
    return replace(Variation(), **fields)  # type: ignore[arg-type]


def _corners(ranges: Mapping[str, tuple[float, ...]]) -> dict[str, Variation]:
    """Return all combinations of the ends of the physical ranges, by name; none where fewer than two have two ends."""
    ends = {
        name: (ranges[name][0], ranges[name][-1])
        for name in PHYSICAL
        if name in ranges and ranges[name][0] < ranges[name][-1]
    }
    if len(ends) < 2:
        return {}
    chosen = (dict(zip(ends, values, strict=True)) for values in itertools.product(*ends.values()))
    return {
        ", ".join(f"{name} {value:g} {KINDS[name].unit}" for name, value in corner.items()): _changed(corner)
        for corner in chosen
    }


def _artefact(name: str, values: tuple[float, ...], earned: Mapping[Variation, Earned]) -> Artefact:
    found = [earned[_changed({name: value})] for value in values]
    return Artefact(
        name=name,
        unit=KINDS[name].unit,
        nominal=float(KINDS[name].nominal),
        values=np.array(values, np.float64),
        returns=np.array([_mean(one) for one in found]),
        episode_returns=np.stack([one.returns for one in found]),
        broken=np.array([int(one.broken.sum()) for one in found]),
    )


def _mean(earned: Earned) -> float:
    """Return the mean return; NaN where every simulation broke."""
    return math.nan if earned.broken.all() else float(earned.returns.mean())


def _impossible(env: HostEnv) -> dict[str, str]:
    """Return the artefacts that a task cannot have, with the reason."""
    if isinstance(env, BatchTask):
        return {factor.replace("_", " "): reason for factor, reason in without_effect(env).items()}
    reasons = dict.fromkeys(PHYSICAL, "only the physics of a MuJoCo task can be changed")
    return {**reasons, "initial state": "only the reset of a MuJoCo task has a scale"}


def _check_count(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise UsageError(f"Expected {name} of a sweep to be an integer of at least {least}, got {value!r}: correct it.")
