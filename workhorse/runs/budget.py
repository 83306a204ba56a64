"""What a run will do beyond its budget, said before it begins, and how many evaluations a budget affords."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from workhorse.core.errors import UsageError
from workhorse.runs.schedule import Schedule

if TYPE_CHECKING:  # this module chooses defaults before JAX is imported
    from workhorse.core.algorithm import Algorithm

__all__ = [
    "EVALUATED_SHARE",
    "LEAST_FINAL",
    "UsualEvaluations",
    "budget_notes",
    "check_warmup",
    "usual_evaluations",
]

EVALUATED_SHARE = 1.0
"""Evaluations take at most this many steps for each step of the budget, unless the user asks for more."""

EVALUATIONS, EPISODES, FINAL_EPISODES = 10, 16, 100
LEAST_EPISODES, LEAST_FINAL = 4, 10
"""Episodes of an evaluation below which there is none, and of the last, which there is always."""


class UsualEvaluations(NamedTuple):
    """Evaluations of a run where its user did not choose them; see `Schedule`."""

    evaluate_every: int
    evaluation_episodes: int
    final_episodes: int


def usual_evaluations(env_steps: int, episode_steps: int) -> UsualEvaluations:
    """Return the default evaluations of a run: 10 of 16 episodes and one of 100, or as many as its budget affords.

    Together they take at most `EVALUATED_SHARE` of the budget, counted as if every episode went to the task's time
    limit; the last one has at least 10 episodes all the same.

    Args:
        env_steps: the budget.
        episode_steps: the task's time limit.

    Example:
        >>> usual_evaluations(1_000_000, 1000)
        UsualEvaluations(evaluate_every=100000, evaluation_episodes=16, final_episodes=100)
        >>> usual_evaluations(100_000, 1000)
        UsualEvaluations(evaluate_every=10000, evaluation_episodes=6, final_episodes=38)
        >>> usual_evaluations(100, 1000)
        UsualEvaluations(evaluate_every=0, evaluation_episodes=16, final_episodes=10)
    """
    affordable = EVALUATED_SHARE * env_steps / episode_steps
    wanted = EVALUATIONS * EPISODES + FINAL_EPISODES
    if affordable >= wanted:
        return UsualEvaluations(max(env_steps // EVALUATIONS, 1), EPISODES, FINAL_EPISODES)
    final = max(int(FINAL_EPISODES * affordable / wanted), LEAST_FINAL)
    number = min(int((affordable - final) / LEAST_EPISODES), EVALUATIONS)
    if number < 1:
        return UsualEvaluations(0, EPISODES, final)
    # never one more evaluation than can be afforded: the last falls on the budget or beyond it
    return UsualEvaluations(-(-env_steps // number), min(int((affordable - final) / number), EPISODES), final)


def check_warmup(algorithm: Algorithm, env_steps: int) -> None:
    """Raise a `UsageError` where a budget ends before the first update from a replay, or a planner's first action."""
    from workhorse.core.algorithm import OffPolicy, Planner
    from workhorse.training.off_policy import updates_due

    if isinstance(algorithm, Planner) and env_steps < algorithm.steps_per_action:
        sizes, horizon = " + ".join(map(str, algorithm.round_sizes)), algorithm.horizon
        if len(set(algorithm.round_sizes)) == 1:
            sizes = f"{len(algorithm.round_sizes)} x {algorithm.round_sizes[0]}"
        raise UsageError(
            f"{algorithm.name} tries {sizes} plans of {horizon} steps before each action, "
            f"{algorithm.steps_per_action:,} steps, so that {env_steps:,} are too few for one action: give --env-steps "
            f"at least {algorithm.steps_per_action:,}, or try fewer or shorter plans."
        )
    if not isinstance(algorithm, OffPolicy) or updates_due(algorithm, env_steps):
        return
    least = algorithm.warmup_env_steps + math.ceil(algorithm.batch_size / float(algorithm.replay_ratio))
    raise UsageError(
        f"{algorithm.name} learns nothing within {env_steps:,} steps: its first {algorithm.warmup_env_steps:,} are a "
        f"warm-up with random actions. Give --env-steps at least {least:,}, or lower warmup_env_steps."
    )


def budget_notes(algorithm: Algorithm, env_steps: int, schedule: Schedule, *, acts: bool = True) -> list[str]:
    """Return a sentence for each part of a run that takes more steps than its budget, and for the memory of a replay.

    Args:
        algorithm: what learns; its iterations are not divided.
        env_steps: the budget.
        schedule: of the run.
        acts: whether the run takes steps at all; one that learns from a log does not.
    """
    if not acts:
        return []
    from workhorse.core.algorithm import OffPolicy, OnPolicy, Planner, Population
    from workhorse.training.replay_arrays import replay_bytes

    limit, notes = algorithm.spec.max_episode_steps or 0, list[str]()
    iteration, how = 0, ""
    if isinstance(algorithm, (OnPolicy, OffPolicy)):
        iteration = algorithm.num_envs * algorithm.rollout_steps
        how = f"takes {iteration:,} steps, more than --env-steps {env_steps}: the run will train {iteration:,}"
    elif isinstance(algorithm, Population):
        episodes = algorithm.num_members * algorithm.episodes_per_member
        longest = min((steps for steps in (limit, algorithm.first_episode_steps) if steps), default=0)
        if longest != limit:
            notes.append(_cut(longest))
        iteration = episodes * longest
        how = (
            f"plays {episodes:,} episodes of up to {longest:,} steps, which may be more than --env-steps {env_steps}: "
            f"the run will train up to {iteration:,} in its first"
        )
    elif isinstance(algorithm, Planner):
        iteration = algorithm.num_envs * limit * (1 + algorithm.steps_per_action)
        how = (
            f"plays {algorithm.num_envs:,} planned episodes of up to {limit:,} steps, which may be more than "
            f"--env-steps {env_steps}: with all trials the run will take up to {iteration:,} in its first"
        )
        notes.append(
            f"{algorithm.name} takes {algorithm.steps_per_action:,} steps of the simulator before each action, so that "
            f"an episode takes up to {iteration // algorithm.num_envs:,}, in training as in an evaluation. Ends of the "
            f"task are {'minded' if algorithm.minds_ends else 'not minded'}: rewards after one are "
            f"{'left out of' if algorithm.minds_ends else 'part of'} a plan's return."
        )
    if isinstance(algorithm, OffPolicy):
        mebibytes = replay_bytes(algorithm) / 2**20
        memory = f"{mebibytes / 1024:,.1f} GiB" if mebibytes >= 1024 else f"{math.ceil(mebibytes):,} MiB"
        notes.append(f"The replay of {algorithm.replay_capacity:,} steps takes {memory} of memory.")
    if iteration > env_steps:
        notes.append(f"An iteration of {algorithm.name} {how}.")
    each = limit * (1 + algorithm.steps_per_action) if isinstance(algorithm, Planner) else limit
    final = schedule.final_episodes * each
    if final > max(env_steps, iteration):
        episodes, remedy = f"{schedule.final_episodes:,} episodes", ": --final-episodes chooses fewer"
        if schedule.final_episodes == 1:
            episodes, remedy = "an episode", ""
        notes.append(
            f"The last evaluation plays {episodes} of up to {each:,} steps, up to {final:,} "
            f"beside the {max(env_steps, iteration):,} of training{remedy}."
        )
    return notes


def _cut(steps: int) -> str:
    return (
        f"Training episodes are cut after {steps:,} steps at first: the returns of training are not those of "
        "evaluations, whose episodes are whole."
    )
