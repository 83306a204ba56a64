"""Time that a run still needs, from what its last iterations and evaluations took."""

from __future__ import annotations

import math
from collections import deque
from statistics import median_low

from workhorse.runs.schedule import Schedule

__all__ = ["TimeLeft"]

KEPT_ITERATIONS, KEPT_EVALUATIONS = 9, 3
GROWTH = 0.9
"""Exponent of an evaluation's time in its episodes: they are played side by side, so 100 take less than 6 times as long
as 16."""


class TimeLeft:
    """Steps left over recent steps per second, and the evaluations left times what one took.

    The first iteration of a sitting and its first evaluation compile, and are no measure of those to come. Every time
    is that of one clock, in seconds.
    """

    def __init__(self, env_steps: int, budget: int, schedule: Schedule, now: float) -> None:
        self._env_steps, self._budget, self._schedule = env_steps, budget, schedule
        self._at = now
        self._steps, self._length = 0, 0.0
        self._first = True
        self._seconds_per_step: deque[float] = deque(maxlen=KEPT_ITERATIONS)
        self._begun: float | None = None
        self._first_evaluation: float | None = None
        self._evaluations: deque[float] = deque(maxlen=KEPT_EVALUATIONS)

    def evaluating(self, now: float) -> None:
        """An evaluation begins."""
        self._begun = now

    def iterated(self, env_steps: int, episode_length: float, now: float) -> None:
        """An iteration has ended, and an evaluation after it if one had begun.

        Args:
            env_steps: training steps so far.
            episode_length: mean steps of recent episodes; NaN where none ended.
            now: the clock.
        """
        ended = now if self._begun is None else self._begun
        self._steps, self._env_steps = max(env_steps - self._env_steps, 1), env_steps
        if not self._first:
            self._seconds_per_step.append((ended - self._at) / self._steps)
        if self._begun is not None:
            if self._first_evaluation is None:
                self._first_evaluation = now - self._begun
            else:
                self._evaluations.append(now - self._begun)
        if math.isfinite(episode_length):
            self._length = episode_length
        self._first, self._begun, self._at = False, None, now

    def seconds(self, now: float) -> float | None:
        """Return the seconds left; None until an iteration without compilation has ended.

        Example:
            >>> left = TimeLeft(0, 1000, Schedule(evaluate_every=500, evaluation_episodes=10, final_episodes=10), 0.0)
            >>> left.iterated(100, math.nan, 60.0)  # compiles
            >>> left.seconds(60.0)
            >>> left.iterated(200, math.nan, 61.0)
            >>> left.seconds(61.0)
            8.0
        """
        if not self._seconds_per_step:
            return None
        rate, schedule = median_low(self._seconds_per_step), self._schedule
        iterations = math.ceil(max(self._budget - self._env_steps, 0) / self._steps)
        end = self._env_steps + iterations * self._steps
        evaluations = 0
        if schedule.evaluate_every:
            every = schedule.evaluate_every
            evaluations = min(iterations, end // every - self._env_steps // every)
        one = self._evaluation_s(rate)
        last = one * (schedule.final_episodes / schedule.evaluation_episodes) ** GROWTH
        return max(iterations * self._steps * rate + evaluations * one + last - (now - self._at), 0.0)

    def _evaluation_s(self, rate: float) -> float:
        """Return the seconds of an evaluation without compilation."""
        if self._evaluations:
            return median_low(self._evaluations)
        # a step without learning: as dear as a training step for evolution, much cheaper for policy gradients
        guess = self._schedule.evaluation_episodes * self._length * rate / 2
        return guess if self._first_evaluation is None else min(self._first_evaluation, guess)
