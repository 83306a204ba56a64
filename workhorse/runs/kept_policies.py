"""Policies of the states that a run kept, and the steps that its replay kept: what logs are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from workhorse.core.digest import digest
from workhorse.core.errors import UsageError
from workhorse.runs import checkpoint
from workhorse.runs.history import History
from workhorse.runs.segments import restore_segments
from workhorse.training.off_policy import OffPolicyLoop
from workhorse.training.recording import Recorded, replay_steps
from workhorse.training.rollouts import actor_of

__all__ = ["ActingPolicy", "acting_policy", "medium_policy", "newest_iteration", "replay_until"]

MILESTONE_EPISODES = 20


class ActingPolicy(NamedTuple):
    """A kept state of a run, and the mean return of its policy without noise."""

    iteration: int
    env_steps: int
    actor: Any
    mean_return: float

    def described(self) -> dict[str, Any]:
        """Return what a card says of it, plain JSON."""
        return {
            "iteration": self.iteration, "env_steps": self.env_steps, "return": self.mean_return,
            "digest": f"{digest(self.actor):016x}",
        }  # fmt: skip


def newest_iteration(history: History) -> int:
    """Return the iteration of the last state of a run."""
    found = [*checkpoint.saved_iterations(history.folder), *checkpoint.saved_iterations(history.folder, "milestones")]
    if not found:
        raise UsageError(f"{history.folder.path} keeps no state at all: restore its checkpoints from a copy.")
    return max(found)


def acting_policy(history: History, iteration: int, episodes: int) -> ActingPolicy:
    """Return the policy of a kept state, judged by noiseless episodes."""
    progress = history.measurable(iteration)
    found = history.loop.evaluate(progress, episodes)
    actor = actor_of(history.loop.algorithm, progress.state)
    return ActingPolicy(iteration, int(progress.env_steps), actor, float(found.returns.mean()))


def medium_policy(
    history: History, low: float, high: float, share: float, noted: Callable[[str], None] = lambda sentence: None
) -> ActingPolicy:
    """Return the first milestone whose policy has come a share of the way between two returns at the least.

    Args:
        history: of the run.
        low, high: mean returns of random actions and of the run's last policy.
        share: in (0, 1).
        noted: is told which one it is.

    Raises:
        UsageError: the run kept none, or none is.
    """
    folder, iterations = history.folder, checkpoint.saved_iterations(history.folder, "milestones")
    if not iterations:
        raise UsageError(
            f"{folder.path} keeps no milestones, so that no policy on the way to its last one is known: name a run "
            "that keeps some."
        )
    if not high > low:
        raise UsageError(
            f"The last policy of {folder.path} returns {high:,.1f}, no more than the {low:,.1f} of random actions, so "
            "that none of its policies is medium: train it for longer, or name another run."
        )
    level = low + share * (high - low)
    for iteration in iterations:
        policy = acting_policy(history, iteration, MILESTONE_EPISODES)
        if policy.mean_return >= level:
            noted(
                f"Medium is milestone {iteration} after {policy.env_steps:,} steps: it returns "
                f"{policy.mean_return:,.1f}, and the first of at least {level:,.1f} was looked for."
            )
            return policy
    raise UsageError(
        f"No milestone of {folder.path} returns the {level:,.1f} that is {share:.0%} of the way from random "
        f"actions ({low:,.1f}) to its last policy ({high:,.1f}): train it for longer, or name another run."
    )


def replay_until(history: History, policy: ActingPolicy) -> Recorded:
    """Return the steps that a run took until a milestone, as far as its replay still has them."""
    loop, folder = history.loop, history.folder
    if not isinstance(loop, OffPolicyLoop):
        raise UsageError(
            f"{folder.path} is a run of {history.manifest.algorithm}, which keeps no replay that medium-replay could "
            "be made of: name a run of sac-n, sac, td3, ddpg or dqn."
        )
    until = history.kept(policy.iteration).data
    _, progress, _, _ = checkpoint.load_newest(
        folder.path, loop.start(), set_aside=False, also=lambda meta: restore_segments(folder, loop, meta)
    )
    first = int(progress.data.cursor.first)
    if int(until.cursor.count) <= first:
        raise UsageError(
            f"The replay of {folder.path} has forgotten the steps before iteration {policy.iteration}, where it was "
            "medium: train a run with a larger replay_capacity."
        )
    return replay_steps(loop, first, until)
