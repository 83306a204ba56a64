"""What a little search and a little learning tell: basins of a hill climber, and signs of life of real algorithms."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from workhorse.advice.play import act_by, play_with
from workhorse.algorithms.recipes import recipe
from workhorse.core.addresses import host_generator, host_keys
from workhorse.core.spec import Discrete
from workhorse.environments.protocol import HostEnv
from workhorse.training.loop import make_loop
from workhorse.training.plan import Plan

__all__ = ["Basins", "Sign", "climb", "clusters", "sign_of_life"]

CHANGE_STD = 0.3
"""Standard deviation of a climber's changes to weights that were drawn from N(0, 1)."""


class Basins(NamedTuple):
    """Where climbers from random starts end.

    Attributes:
        returns: of each climber's last policy, on episodes that it was not chosen by, (P,).
        groups: distinct levels among them, see `clusters`.
        share_of_best: share of climbers at the best level.
        steps: of the simulator.
    """

    returns: np.ndarray
    groups: int
    share_of_best: float
    steps: int


def climb(env: HostEnv, iterations: int, most_steps: int, seed: int = 0) -> Basins:
    """Climb from random linear policies: keep a change if it earns more on the same episode.

    Args:
        env: of 2 P slots, for P climbers: each one's policy and its change.
        iterations: changes tried by each.
        most_steps: of an episode.
        seed: root of all draws.
    """
    spec, count = env.spec, env.num_slots // 2
    outputs = spec.action.count if isinstance(spec.action, Discrete) else spec.action.size
    generator = host_generator(host_keys(seed, "noise", 1))
    weights = generator.standard_normal((count, outputs, spec.observation.size))
    climbers, steps = np.tile(np.arange(count), 2), 0

    def play(candidates: np.ndarray, iteration: int) -> np.ndarray:
        nonlocal steps

        def choose(obs: np.ndarray, time: int) -> np.ndarray:
            rows = np.asarray(obs, np.float64).reshape(len(obs), -1)
            return act_by(spec, np.einsum("boi,bi->bo", candidates, rows))

        found = play_with(env, choose, most_steps, 2 + iteration, climbers, seed=seed)
        steps += int(found.lengths.sum())
        return found.returns.reshape(2, count)

    for iteration in range(iterations):
        changed = weights + CHANGE_STD * generator.standard_normal(weights.shape)
        now, then = play(np.concatenate([weights, changed]), iteration)
        weights = np.where((then > now)[:, None, None], changed, weights)
    returns = play(np.concatenate([weights, weights]), iterations).mean(0)
    levels = clusters(returns)
    return Basins(returns, int(levels.max()) + 1, float((levels == levels[returns.argmax()]).mean()), steps)


def clusters(values: np.ndarray, gap: float = 0.1) -> np.ndarray:
    """Return the level of each value: sorted values belong together until one is further than `gap` of the whole range.

    Example:
        >>> clusters(np.array([0.0, 9.9, 10.0, 0.5, 5.0])).tolist()
        [0, 2, 2, 0, 1]
    """
    order = np.argsort(values)
    span = max(float(np.ptp(values)), 1e-9 * (1 + float(np.abs(values).max())))
    jumps = np.diff(values[order]) > gap * span
    levels = np.empty(len(values), np.int64)
    levels[order] = np.concatenate([[0], np.cumsum(jumps)])
    return levels


class Sign(NamedTuple):
    """What a short run of an algorithm reached.

    Attributes:
        first, last: mean returns of its policy before and after.
        spread: standard deviation of the last policy's episodes.
        best: the best mean of the episodes that it trained on in an iteration; NaN where there is none.
        steps: trained on.
    """

    first: float
    last: float
    spread: float
    best: float
    steps: int


def sign_of_life(
    task: str, options: Mapping[str, Any], algorithm: str, env_steps: int, *, threads: int = 0, episodes: int = 16,
    seed: int = 0
) -> Sign:  # fmt: skip
    """Train for a few steps, with the task's recipe where there is one, and evaluate before and after."""
    known = recipe(task, algorithm)
    settings = {} if known is None else dict(known.settings)
    plan = Plan(task, options, algorithm, settings, seed)
    loop = make_loop(plan, plan.spec(), threads)
    try:
        progress, best = loop.start(), float("nan")
        first = loop.evaluate(progress, episodes).returns.mean()
        while int(progress.env_steps) < env_steps:
            progress, metrics, _ = loop.iterate(progress)
            best = float(np.fmax(best, metrics.get("training_return", float("nan"))))
        found = loop.evaluate(progress, episodes).returns
    finally:
        loop.close()
    return Sign(float(first), float(found.mean()), float(found.std()), best, int(progress.env_steps))
