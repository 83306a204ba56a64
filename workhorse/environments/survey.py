"""Look at a task as training would meet it, and say in plain words what training would stumble over."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from workhorse.core.errors import UsageError
from workhorse.core.spec import ActionSpace, Box, Discrete, EnvSpec, Goal, MultiBinary, MultiDiscrete
from workhorse.environments.actions import random_actions
from workhorse.environments.batch import JaxBatch, as_batch, episode_keys
from workhorse.environments.check import BrokenPromise, check_env
from workhorse.environments.promises import horizon
from workhorse.environments.protocol import HostEnv
from workhorse.environments.registry import is_native, make
from workhorse.environments.wrappers import make_environment, require_time_limit

__all__ = ["Finding", "survey"]

SLOTS = 8
LONGEST_LOOK_S = 5.0
"""Seconds of random play, and of its repetition: a simulator may take a second a step."""
MOST_STEPS = 2000
CONTRACT_RUNS = 12
"""Times that `check_env` plays an environment to its horizon, about."""
LONGEST_CONTRACT_S = 30.0


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        topic: what.
        verdict: `ok`; `note` for what a user should know; `stop` where training would be refused, or break.
        text: sentences.
    """

    topic: str
    verdict: Literal["ok", "note", "stop"]
    text: str


class _Play(NamedTuple):
    """Random play: rows are steps (T), columns slots (B)."""

    first: np.ndarray
    obs: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    seconds: float

    @property
    def ended(self) -> np.ndarray:
        return self.terminated | self.truncated


def survey(task: str, options: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield one finding after another; the first to be a `stop` is the last.

    Raises:
        UsageError: the task is unknown or cannot be made.
        TaskError: the environment raised, ended its process or returned what cannot be used.
    """
    env = as_batch(make(task, SLOTS, 1, **options), SLOTS)
    try:
        spec = env.spec
        yield _spaces(spec)
        clock = _time_limit(spec)
        yield clock
        if clock.verdict == "stop":
            return
        play = _random_play(env)
        yield _episodes(spec, play)
        yield _rewards(play)
        yield _observations(spec, play)
        determinism = _determinism(env, play)
        yield determinism
    finally:
        env.close()
    steps_per_second = play.reward.size / play.seconds
    if not is_native(task, options):
        yield _raw(task, options)
    if determinism.verdict == "ok":
        yield _contract(task, options, spec, steps_per_second)
    if not isinstance(env, JaxBatch):  # pure tasks are compiled with what trains on them, and far faster then
        yield _speed(steps_per_second)


def _spaces(spec: EnvSpec) -> Finding:
    seen = spec.observation
    if isinstance(seen, Goal):
        what = f"a goal environment, {seen.size - 2 * seen.goal_size} numbers and two goals of {seen.goal_size}"
    else:
        what = _count(seen.size) if len(seen.shape) == 1 else f"an array {' x '.join(map(str, seen.shape))}"
    text = f"The policy observes {what}, and gives {_actions_in_words(spec.action)}."
    notes = ""
    if isinstance(spec.action, Box) and not np.isfinite([*spec.action.low, *spec.action.high]).all():
        notes = " The actions have no bounds: give their Box finite ones, so that policies know their scale."
    if len(seen.shape) > 1:
        notes += " Matrices and images are read as one long vector: there are no convolutional policies yet."
    return Finding("spaces", "note" if notes else "ok", text + notes)


def _actions_in_words(space: ActionSpace) -> str:
    match space:
        case Discrete(count):
            return f"one of {count} choices"
        case MultiDiscrete(counts):
            return f"{len(counts)} choices at once, among {', '.join(map(str, counts[:8]))}"
        case MultiBinary(size):
            return f"{size} switches"
    low, high = min(space.low), max(space.high)
    return f"{_count(space.size)} from {low:g} to {high:g}"


def _count(size: int) -> str:
    return "1 number" if size == 1 else f"{size:,} numbers"


def _time_limit(spec: EnvSpec) -> Finding:
    try:
        require_time_limit(spec)
    except UsageError as error:
        return Finding("time limit", "stop", str(error))
    if spec.max_episode_steps is None:
        return Finding("time limit", "note", "None; you say that the task ends every episode by itself.")
    return Finding("time limit", "ok", f"{spec.max_episode_steps:,} steps.")


def _random_play(env: HostEnv) -> _Play:
    """Play random actions, with automatic resets, until enough was seen."""
    rng, slots = np.random.default_rng(0), np.arange(env.num_slots)
    first = env.reset(episode_keys(env, 0, "reset", 0, slots))
    steps, begun, seconds = [], time.perf_counter(), 0.0
    for t in range(MOST_STEPS):
        actions = random_actions(env.spec.action, (env.num_slots,), rng)
        steps.append(env.step(actions, None, episode_keys(env, 0, "reset", t + 1, slots)))
        if t == 0:  # what a pure task compiles is no part of its speed
            begun = time.perf_counter()
        seconds = time.perf_counter() - begun
        if t >= 9 and seconds > LONGEST_LOOK_S:
            break
    seconds *= len(steps) / (len(steps) - 1)
    parts = [np.stack(column) for column in list(zip(*steps, strict=True))[:5]]
    _, reward, terminated, truncated, next_obs = parts
    return _Play(first, next_obs, reward, terminated, truncated, seconds)


def _episodes(spec: EnvSpec, play: _Play) -> Finding:
    lengths, returns = _ended(play)
    if not len(lengths):
        return Finding("episodes", "ok", f"None ended within {len(play.reward):,} random steps.")
    share = play.terminated.sum() / play.ended.sum()
    after = f"{lengths.min()} to {lengths.max()}" if lengths.min() < lengths.max() else f"{lengths.max()}"
    text = (
        f"{len(lengths)} ended with random actions, after {after} steps; they returned {returns.mean():.4g} on "
        f"average (standard deviation {returns.std():.3g})."
    )
    if share == 0:
        text += " None terminated: all ran to a clock."
    elif share == 1 and spec.max_episode_steps is not None:
        text += " All terminated, none by the clock."
    else:
        text += f" {share:.0%} terminated, the others were truncated."
    if lengths.max() <= 2:
        return Finding("episodes", "note", text + " Is an episode over at once by intent?")
    return Finding("episodes", "ok", text)


def _ended(play: _Play) -> tuple[np.ndarray, np.ndarray]:
    """Return length and return of every episode that ended."""
    lengths, returns = [], []
    for slot in range(play.reward.shape[1]):
        begin = 0
        for end in np.flatnonzero(play.ended[:, slot]) + 1:
            lengths.append(end - begin)
            returns.append(play.reward[begin:end, slot].sum())
            begin = end
    return np.array(lengths, int), np.array(returns, float)


def _rewards(play: _Play) -> Finding:
    reward = play.reward
    text = f"From {reward.min():.4g} to {reward.max():.4g} a step, on average {reward.mean():.4g}."
    size, usual = np.abs(reward).max(), np.median(reward)
    share = np.mean(reward != usual)
    notes = []
    if reward.min() == reward.max():
        lengths, _ = _ended(play)
        text = f"{usual:.4g} at every step"
        if len(set(lengths)) > 1:
            return Finding("rewards", "ok", f"{text}, so that a policy is paid for how long its episodes last.")
        notes.append("with random actions, in episodes of one length: there may be nothing to learn.")
    elif share < 0.01:
        notes.append(
            f"Only {share:.2%} of the random steps were paid otherwise than {usual:.4g}: so sparse a reward is "
            "seldom found by chance. Shape it, or choose an algorithm that explores."
        )
    if size > 1e3 or 0 < size < 1e-3:
        notes.append(
            "That is far from 1, for which learning rates and value networks are made: scale it in the environment, or "
            "by a wrapper."
        )
    return Finding("rewards", "note" if notes else "ok", " ".join([text, *notes]))


def _observations(spec: EnvSpec, play: _Play) -> Finding:
    rows = np.concatenate([play.first[None], play.obs]).reshape(-1, spec.observation.size).astype(np.float64)
    spread, largest = rows.std(axis=0), np.abs(rows).max(axis=0)
    still = np.flatnonzero(spread <= 1e-6 * (1 + np.abs(rows.mean(axis=0))))
    low, high = np.array(spec.observation.low), np.array(spec.observation.high)
    outside = ((rows < low - 1e-6) | (rows > high + 1e-6)).any(axis=1)
    text = f"Standard deviations of the components from {spread.min():.3g} to {spread.max():.3g}."
    notes = []
    if len(still):
        notes.append(
            f"{_listed(still)} of {spec.observation.size} hardly changed with random actions: leave constants out, and "
            "give numbers that change little an origin nearby."
        )
    if (largest > 1e4).any():
        notes.append(
            f"{_listed(np.flatnonzero(largest > 1e4))} reached {largest.max():.3g}: scale them towards 1; at the least "
            "leave the normalisation of observations on."
        )
    if outside.any():
        notes.append(
            f"{outside.mean():.0%} lay outside the space's bounds, which training lets through: correct the bounds."
        )
    return Finding("observations", "note" if notes else "ok", " ".join([text, *notes]))


def _listed(components: np.ndarray) -> str:
    named = ", ".join(map(str, components[:6])) + (", ..." if len(components) > 6 else "")
    return f"Component{'s' if len(components) > 1 else ''} {named}"


def _determinism(env: HostEnv, play: _Play) -> Finding:
    """Play the same again, and find the first step that differs."""
    rng, slots, begun = np.random.default_rng(0), np.arange(env.num_slots), time.perf_counter()
    if not np.array_equal(env.reset(episode_keys(env, 0, "reset", 0, slots)), play.first):
        return _not_deterministic("a reset")
    t = 0
    for t in range(len(play.reward)):
        actions = random_actions(env.spec.action, (env.num_slots,), rng)
        step = env.step(actions, None, episode_keys(env, 0, "reset", t + 1, slots))
        parts = {"observation": step.next_obs, "reward": step.reward, "terminated": step.terminated}
        before = {"observation": play.obs[t], "reward": play.reward[t], "terminated": play.terminated[t]}
        for name, part in parts.items():
            if not np.array_equal(part, before[name]):
                slot = int(np.argwhere(part != before[name])[0][0])
                ends = np.flatnonzero(play.ended[:t, slot])
                return _not_deterministic(f"step {t - (ends[-1] if len(ends) else -1)} of an episode, in its {name}")
        if time.perf_counter() - begun > LONGEST_LOOK_S:
            break
    if env.spec.resume == "episode":
        return _not_deterministic("nothing that was seen here, but it calls itself non-deterministic")
    return Finding(
        "determinism", "ok", f"Equal seeds and actions gave equal episodes, over {(t + 1) * env.num_slots:,} steps."
    )


def _not_deterministic(where: str) -> Finding:
    return Finding(
        "determinism",
        "note",
        f"Equal seeds and actions gave different episodes, first in {where}. It trains, but a run is not reproduced to "
        "the bit, and episodes under way begin again after a resume. Draw only from self.np_random, and set everything "
        "up in reset, to have both.",
    )


def _raw(task: str, options: Mapping[str, Any]) -> Finding:
    """Look at what the environment itself returns, before the adapter has made it uniform."""
    import gymnasium
    from gymnasium.utils.env_checker import check_env as gymnasium_check

    notes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = make_environment(task, gymnasium.registry[task.rpartition(":")[2]], options)
        try:
            obs, info = env.reset(seed=0)
            env.action_space.seed(0)
            kept, before = obs, np.array(obs) if isinstance(obs, np.ndarray) else None
            new, _, _, _, info_after = env.step(env.action_space.sample())
            if before is not None and kept is new:
                notes.append("It returns one array object at every step; training copies it, so nothing is lost.")
            space = env.observation_space
            if isinstance(new, np.ndarray) and isinstance(space, gymnasium.spaces.Box) and new.dtype != space.dtype:
                notes.append(f"Observations are {new.dtype} where their space says {space.dtype}; they are converted.")
            if not isinstance(info, dict) or not isinstance(info_after, dict):
                notes.append("`info` should be a dict; training does not read it.")
            if not options.get("wrappers"):
                try:
                    gymnasium_check(env.unwrapped, skip_render_check=True)
                except Exception as error:
                    notes.append(f"Gymnasium's own checker says: {' '.join(str(error).split())[:300]}")
        finally:
            env.close()
    text = " ".join(notes) or "What reset and step return is as Gymnasium wants it."
    return Finding("interface", "note" if notes else "ok", text)


def _contract(task: str, options: Mapping[str, Any], spec: EnvSpec, steps_per_second: float) -> Finding:
    """Run `check_env`, where that does not take too long."""
    seconds = CONTRACT_RUNS * horizon(spec) * 3 / steps_per_second
    if seconds > LONGEST_CONTRACT_S:
        return Finding("promises", "ok", f"Not checked: that would take about {seconds / 60:.0f} minutes.")
    alike = ""
    for single_start in (False, True):
        try:
            check_env(lambda: make(task, 3, 1, **options), single_start=single_start, early_truncation=True)  # type: ignore[arg-type]
        except BrokenPromise as error:
            if error.promise == "different keys" and not single_start:
                alike = " Every episode begins alike and draws nothing: seeds of the task make no difference."
                continue
            return Finding("promises", "note", f"{error}")
        break
    text = "Slots do not touch one another, resets and snapshots do what training relies on."
    return Finding("promises", "note" if alike else "ok", text + alike)


def _speed(steps_per_second: float) -> Finding:
    seconds = 1e6 / steps_per_second
    shown = f"{seconds:.0f} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes"
    shown = shown if seconds < 6000 else f"{seconds / 3600:.1f} hours"
    return Finding(
        "speed",
        "ok",
        f"{_rounded(steps_per_second)} steps a second on one core, without learning: a million steps take {shown} of a "
        "core.",
    )


def _rounded(number: float) -> str:
    """Return two leading digits: more is noise.

    Example:
        >>> _rounded(12345.6), _rounded(0.123)
        ('12,000', '0.12')
    """
    return f"{float(f'{number:.2g}'):,.0f}" if number >= 10 else f"{number:.2g}"
