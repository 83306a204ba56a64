"""Training with a true value function in the place of the agent's, to see what a better baseline is worth.

Before every update a fresh network is fitted to returns of the policy as it is (see `baselines.fit_value`), on rollouts
that are never learnt from, and the update is made with it in the value function's place. The steps that this takes are
counted with the held-out ones and apart from the training steps: *it is an experiment, and no way to train*.

Source: Ilyas et al. 2020 (arXiv 1811.02553), section 2.2, measure what such a value does for the variance of the
gradient; what it does for learning they leave open.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from workhorse.core.randomness import draw, root_key
from workhorse.core.spec import EnvSpec
from workhorse.diagnostics.baselines import fit_value
from workhorse.diagnostics.gradients import frozen_rollouts, with_fixed_scale
from workhorse.training.on_policy import OnPolicy, Progress
from workhorse.training.plan import Plan

__all__ = ["TrueValue", "with_true_value"]

OTHER_ROOT = 2**30 + 2**29
"""What is added to the run's seed for the addresses of the rollouts that are fitted to."""


class TrueValue(OnPolicy):
    """The loop of a run whose every update is made with a value function fitted to the policy as it is.

    Args:
        loop: the run's own.
        apart: a loop of the same algorithm with another root, which the fitted rollouts are gathered by.
        rollouts: of each fit; a quarter of them, one at least, judges it.
    """

    def __init__(self, loop: OnPolicy, apart: OnPolicy, rollouts: int) -> None:
        if rollouts < 3:
            raise ValueError(f"A fit needs 3 rollouts at least: got {rollouts}.")
        super().__init__(loop.algorithm, loop.root, loop.rollouts, loop.lanes)
        self._apart, self._fit_rollouts = apart, rollouts

    def iterate(
        self, progress: Progress, goes_on: Callable[[int], bool] = lambda env_steps: False
    ) -> tuple[Progress, dict[str, Any], tuple[str, ...]]:
        iteration = int(progress.iteration)
        value, steps = self._fitted(progress, iteration)
        learner = progress.learner._replace(params=progress.learner.params._replace(value=value))
        learnt = self.rollouts.learn(learner, progress.slots, iteration)
        after, metrics, failures = self._after(progress, learnt)
        after = after._replace(held_out_steps=after.held_out_steps + steps)
        metrics |= {"held_out_steps": int(after.held_out_steps), "fitted_steps": steps}
        return after, metrics, failures

    def _fitted(self, progress: Progress, iteration: int) -> tuple[Any, int]:
        """The value function of the policy as it is, and the steps it took."""
        algorithm, count = self.algorithm, self._fit_rollouts
        learner = progress.learner
        # every iteration has addresses of its own
        first = iteration * (count + 1)
        stream = frozen_rollouts(algorithm, learner, self._apart.rollouts, progress.slots, first=first)
        learner = with_fixed_scale(algorithm, learner, next(stream))
        judging = max(count // 4, 1)
        key = draw(root_key(self._apart.root), "init", iteration)
        found = fit_value(algorithm, learner, stream, count - judging, judging, key)
        return found.value, (count + 1) * algorithm.rollout_steps * algorithm.num_slots

    def close(self) -> None:
        self._apart.close()
        super().close()


def with_true_value(rollouts: int, threads: int = 1) -> Callable[[Plan, EnvSpec], TrueValue]:
    """What `workhorse.runs.train.start` and `resume` take as `on_policy`, to train with the true value.

    *A run begun so must be resumed so*: the command line would go on with the agent's own value.
    """

    def on_policy(plan: Plan, spec: EnvSpec) -> TrueValue:
        other = replace(plan, seed=(plan.seed + OTHER_ROOT) % 2**32)
        return TrueValue(plan.on_policy(spec, threads), other.on_policy(spec, threads), rollouts)

    return on_policy
