"""When a run evaluates, saves and ends, and the checks of its budget."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workhorse.core.errors import UsageError
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import Manifest

__all__ = ["Schedule", "annealed_steps", "check_annealing", "check_budget"]


@dataclass(frozen=True)
class Schedule:
    """Frequency of evaluations and checkpoints. None of it changes what is learnt.

    Attributes:
        evaluate_every: environment steps between evaluations; 0 for none but the last.
        evaluation_episodes: episodes of each.
        final_episodes: episodes of the evaluation at the end.
        checkpoint_every_s: seconds between checkpoints; 0 saves after every iteration.
        milestones: states kept for good, evenly over the budget, beside the first: what `diagnose` looks at.
        stop_on_warning: end the run at its first warning, and judge it as it is then; a resume goes on.
        stop_at_return: end the run at the first evaluation whose mean return is at least this, and judge it as it is
            then; a resume of the finished run goes on, to its budget. The last evaluation begins with the same
            episodes, so where it has few more its mean is flattered by having been waited for.
    """

    evaluate_every: int = 0
    evaluation_episodes: int = 16
    final_episodes: int = 100
    checkpoint_every_s: float = 30.0
    milestones: int = 10
    stop_on_warning: bool = False
    stop_at_return: float | None = None

    def evaluation_due(self, before: int, env_steps: int) -> bool:
        """Return True where an evaluation falls between two counts of environment steps."""
        every = self.evaluate_every
        return bool(every) and env_steps // every > before // every

    def milestone_due(self, before: int, env_steps: int, budget: int) -> bool:
        """Return True where a milestone of a run's own budget was passed: the same iterations in every sitting."""
        return bool(self.milestones) and env_steps * self.milestones // budget > before * self.milestones // budget

    def is_reached(self, row: Mapping[str, Any]) -> bool:
        """Return True where an iteration's evaluation is one to stop at."""
        found = row.get("evaluation_return")
        return self.stop_at_return is not None and found is not None and found >= self.stop_at_return

    def check(self) -> None:
        """Raise a `UsageError` where a field is out of range."""
        if self.evaluate_every < 0:
            raise UsageError(f"evaluate_every must be at least 0 environment steps: got {self.evaluate_every}.")
        if self.evaluation_episodes < 1 or self.final_episodes < 1:
            raise UsageError("An evaluation needs at least 1 episode: raise evaluation_episodes and final_episodes.")
        if self.stop_at_return is not None:
            if not math.isfinite(self.stop_at_return):
                raise UsageError(f"stop_at_return must be a finite number: got {self.stop_at_return}.")
            if not self.evaluate_every:
                raise UsageError(
                    f"stop_at_return={self.stop_at_return:g} needs evaluations to look at, and evaluate_every is 0: "
                    "give it, in environment steps."
                )
        if not self.checkpoint_every_s >= 0:
            raise UsageError(f"checkpoint_every_s must be at least 0 seconds: got {self.checkpoint_every_s}.")
        if self.milestones < 0:
            raise UsageError(f"milestones must be at least 0: got {self.milestones}.")


def check_budget(env_steps: int) -> None:
    """Raise a `UsageError` where a budget is no number of steps."""
    if not 1 <= env_steps < 2**62:
        raise UsageError(f"The budget must be at least 1 environment step, and less than 2**62: got {env_steps}.")


def annealed_steps(settings: Mapping[str, Any]) -> int:
    """Training steps after which the learning rate has fallen to its end; 0 where it does not fall."""
    return settings.get("anneal_env_steps", 0) if settings.get("anneal_learning_rate") else 0


def check_annealing(folder: RunFolder, manifest: Manifest, env_steps: int) -> None:
    """Raise a `UsageError` where steps would be taken after the end of the learning rate's schedule."""
    annealed = annealed_steps(manifest.settings)
    if not annealed or env_steps <= max(annealed, manifest.env_steps):
        return
    left = manifest.settings.get("final_learning_rate_share", 0.0)
    if left:
        raise UsageError(
            f"{folder.path} lets its learning rate fall to {left:.0%} of its start at {annealed:,} steps, and that "
            f"plan has no rate for those from there to {env_steps:,}: start a run with --anneal-env-steps {env_steps} "
            "or --no-anneal-learning-rate."
        )
    raise UsageError(
        f"{folder.path} lets its learning rate fall to zero at {annealed:,} steps, so that it would learn nothing "
        f"from there to {env_steps:,}: start a run with --anneal-env-steps {env_steps} or "
        f"--no-anneal-learning-rate, or go on with another rate by `workhorse fork {folder.path} --iteration "
        f"N --set anneal_env_steps={env_steps} --env-steps {env_steps}`."
    )
