"""Check the columns of a log: observations, actions, rewards, their units and their precision."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from workhorse.core.spec import Box, Discrete
from workhorse.data.dataset import Dataset
from workhorse.data.log_findings import OwnSteps, Said, listed, note, rows_named, stop
from workhorse.data.log_fits import action_columns

__all__ = ["actions", "observations", "precision", "rewards"]

FROZEN_STEPS = 50
"""Steps without any change after which a component that otherwise always changes counts as stuck."""


def observations(dataset: Dataset, own: OwnSteps | None) -> Iterator[Said]:
    """Yield components that do not change, that got stuck, in other units, or that show an action."""
    size = dataset.observation.size
    least, most = np.full(size, np.inf), np.full(size, -np.inf)
    for some in dataset.chunks():
        rows = np.asarray(dataset.obs[some], np.float64).reshape(len(some), size)
        least, most = np.minimum(least, rows.min(0)), np.maximum(most, rows.max(0))
    constant = np.flatnonzero(least == most)
    if own is not None and len(constant):
        varies = np.ptp(own.obs.reshape(len(own.obs), -1)[:, constant], axis=0) > 0
        if varies.any():
            yield stop(
                f"Component {listed(constant[varies])} of the observation is the same in all rows, and in the task it "
                "changes: a dead sensor, or a column that was not recorded. Record it, or leave it out of the task."
            )
        constant = constant[~varies]
    if len(constant):
        yield note(f"Component {listed(constant)} of the observation is the same in all rows.")
    yield from _stuck(dataset)
    if own is not None:
        yield from _units(dataset, own)
    yield from _shown_actions(dataset)


def _stuck(dataset: Dataset) -> Iterator[Said]:
    """Find components that stop changing for many steps, and otherwise change in nearly every one."""
    size, within = dataset.observation.size, np.ones(dataset.num_steps, bool)
    within[dataset.begins] = False
    obs = np.asarray(dataset.obs).reshape(dataset.num_steps, size)
    found: list[tuple[int, np.ndarray]] = []
    for component in range(size):
        column = obs[:, component]
        same = np.append(False, column[1:] == column[:-1]) & within
        if not same.any() or same.sum() > 0.3 * within.sum():
            continue
        edges = np.flatnonzero(np.diff(np.concatenate([[0], same.view(np.int8), [0]])))
        begins, ends = edges[::2], edges[1::2]
        long = begins[ends - begins >= FROZEN_STEPS]
        if len(long) and np.median(ends - begins) >= FROZEN_STEPS / 2:  # it never stands still for a few steps
            found.append((component, long))
    for component, long in found:
        yield stop(
            f"Component {component} of the observation does not change for {FROZEN_STEPS} steps and more from "
            f"{rows_named(long)} on, and elsewhere it changes in every step: a sensor was stuck. Leave out those "
            "episodes."
        )


def _units(dataset: Dataset, own: OwnSteps) -> Iterator[Said]:
    """Compare initial observations, which no policy has changed, with the task's own."""
    first = np.asarray(dataset.obs[dataset.begins], np.float64).reshape(dataset.num_episodes, -1)
    theirs = np.asarray(own.first_obs, np.float64).reshape(len(own.first_obs), -1)
    scale = np.asarray(own.obs, np.float64).reshape(len(own.obs), -1).std(0)
    middle, half = (theirs.max(0) + theirs.min(0)) / 2, np.ptp(theirs, axis=0) / 2
    half = np.maximum(half, np.maximum(0.02 * scale, 1e-6))
    away = np.median(np.abs(first - middle), axis=0) / half
    wrong = np.flatnonzero(away > 2.0)
    if dataset.num_episodes >= 20:
        wide, known = (np.percentile(np.abs(some - middle), 90, axis=0) for some in (first, theirs))
        wrong = np.union1d(wrong, np.flatnonzero((known > 0) & ((wide < 0.2 * known) | (wide > 5 * known))))
    if len(wrong):
        worst = int(wrong[np.argmax(away[wrong])])
        yield stop(
            f"Component {listed(wrong)} of the first observations of episodes lies elsewhere than in "
            f"{own.spec.task}: component {worst} is {np.median(first[:, worst]):.3g} there, and {middle[worst]:.3g} "
            f"+- {half[worst]:.3g} in the task. Other units (degrees are 57.3 times radians), another order of "
            "columns, normalised observations, or episodes that begin later."
        )


def _shown_actions(dataset: Dataset) -> Iterator[Said]:
    """Find components of the observation that are the previous action, or the action itself."""
    steps = np.setdiff1d(np.arange(dataset.num_steps), dataset.begins)[:20_000]
    if not len(steps):
        return
    obs = np.asarray(dataset.obs[steps], np.float64).reshape(len(steps), -1)
    for shift, words in ((-1, "the previous action"), (0, "the action that is about to be taken")):
        action = action_columns(dataset, steps + shift)
        vary = np.ptp(action, axis=0) > 0
        shown = [
            component
            for component in range(obs.shape[1])
            if any(np.array_equal(obs[:, component], action[:, one].astype(np.float32)) for one in np.flatnonzero(vary))
        ]
        if shown:
            text = (
                f"Component {listed(np.array(shown))} of the observation is {words}: imitation learns to repeat it, "
                "and does worse than without it."
            )
            yield note(text) if shift else stop(text)


def actions(dataset: Dataset, own: OwnSteps | None) -> Iterator[Said]:
    """Yield actions outside of their space, in other numbers, or all the same."""
    space, action = dataset.action_space, np.asarray(dataset.action)
    if isinstance(space, Box):
        yield from _box_actions(space, action.astype(np.float64).reshape(len(action), -1))
        return
    counts = [space.count] if isinstance(space, Discrete) else getattr(space, "counts", [2] * space.size)
    columns = action.reshape(len(action), -1)
    for component, count in enumerate(counts):
        column = columns[:, component]
        outside = np.flatnonzero((column < 0) | (column >= count) | (column != np.floor(column)))
        if len(outside):
            shown = f"{column[outside[0]]:g}"
            yield stop(
                f"Actions are not among the {count} choices 0 to {count - 1} in {rows_named(outside)}, where one is "
                f"{shown}: are they counted from another number?"
            )
        elif len(taken := np.unique(column)) == 1 and count > 1:
            yield stop(f"All actions are {taken[0]:g}: nothing can be learnt of what the others do.")
        elif len(taken) < count:
            missing = np.setdiff1d(np.arange(count), taken)
            yield note(f"Choice {listed(missing)} was never taken: nothing is known of what it does.")


def _box_actions(space: Box, action: np.ndarray) -> Iterator[Said]:
    low, high = np.array(space.low), np.array(space.high)
    with np.errstate(invalid="ignore"):
        slack = np.where(np.isfinite(high - low), 1e-4 * (high - low), 0.0) + 1e-6
    outside = np.flatnonzero(((action < low - slack) | (action > high + slack)).any(1))
    if len(outside):
        component = int(np.argmax(((action < low - slack) | (action > high + slack))[outside[0]]))
        yield stop(
            f"Actions are outside of their box in {rows_named(outside)}, where component {component} is "
            f"{action[outside[0], component]:.4g} and its bounds are {low[component]:g} and {high[component]:g}: "
            "record what the task did, after clipping, in its own numbers."
        )
    constant = np.flatnonzero(np.ptp(action, axis=0) == 0)
    if len(constant) and len(action) > 1:
        yield stop(
            f"Component {listed(constant)} of the action is the same in all rows, {action[0, constant[0]]:.4g}: it was "
            "not recorded, or nothing can be learnt of what it does."
        )
    bounded = np.isfinite(low) & np.isfinite(high) & (np.abs(low) < 1e9) & (np.abs(high) < 1e9)
    other = bounded & ((np.abs(low + 1) > 0.05) | (np.abs(high - 1) > 0.05)) & (np.ptp(action, axis=0) > 0)
    top, bottom = action.max(0), action.min(0)
    looks = (np.abs(top - 1) < 0.02) & (np.abs(bottom + 1) < 0.02) & (top <= 1 + 1e-6) & (bottom >= -1 - 1e-6)
    if other.any() and not len(outside) and (looks | ~other).all() and (high > 1.05)[other].all():
        yield stop(
            f"Actions go from -1 to 1 in component {listed(np.flatnonzero(other))}, whose bounds are "
            f"{low[other][0]:g} and {high[other][0]:g}: they were normalised. Multiply them back, or give the box that "
            "they are meant in."
        )


def rewards(dataset: Dataset, own: OwnSteps | None) -> Iterator[Said]:
    """Yield rewards that are all the same."""
    reward = np.asarray(dataset.reward)
    if np.ptp(reward) > 0:
        return
    if own is not None and np.ptp(own.reward) > 0:
        yield stop(
            f"All rewards are {reward[0]:g}, and in {own.spec.task} they differ: they were not recorded. Record them, "
            "or imitate (`bc`), which reads none."
        )
    else:
        what = "nothing was ever earned" if reward[0] == 0 else "returns count steps"
        yield note(f"All rewards are {reward[0]:g}: {what}.")


def precision(dataset: Dataset, own: OwnSteps | None) -> Iterator[Said]:
    """Yield observations of three digits."""
    obs = dataset.obs
    if obs.dtype.kind != "f":
        return
    if obs.dtype.itemsize < 4:
        yield stop(
            f"Observations are {obs.dtype}, about three digits, so that small velocities and differences are lost: "
            "record them as float32."
        )
        return
    some = np.asarray(obs[: 4 * 65_536]).reshape(-1, dataset.observation.size)
    coarse = []
    for component in range(some.shape[1]):
        values = np.unique(some[:, component])
        with np.errstate(over="ignore"):
            rounded = np.array_equal(values.astype(np.float16).astype(values.dtype), values)
        if rounded and len(values) > 100 and not np.array_equal(values * 64, np.round(values * 64)):
            coarse.append(component)
    if coarse:
        yield stop(
            f"Component {listed(np.array(coarse))} of the observation was rounded to float16, about three digits: "
            "record it as float32."
        )
