"""`workhorse.offline`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from typing import Any

from workhorse.algorithms import registry
from workhorse.algorithms.recipes import DEFAULT_OFFLINE
from workhorse.algorithms.settings import check_names, merged_settings
from workhorse.api.run import Run
from workhorse.api.setup import RunSetup, whole
from workhorse.api.tasks import check_task
from workhorse.api.watching import Callback, followed
from workhorse.core.errors import UsageError
from workhorse.data.opening import open_dataset
from workhorse.training.sources import Sources

__all__ = ["UPDATES", "offline", "resolve_offline"]

UPDATES = 100_000
"""Updates of a run that is not told how many."""

EVALUATIONS, EPISODES, FINAL_EPISODES = 10, 10, 100


def offline(
    log: str | os.PathLike[str],
    algorithm: str | None = None,
    *,
    evaluate_on: str | None = None,
    task_options: Mapping[str, Any] | None = None,
    seed: int = 0,
    updates: int | None = None,
    evaluate_every: int | None = None,
    evaluation_episodes: int | None = None,
    final_episodes: int | None = None,
    held_out: float = Sources.held_out,
    threads: int = 0,
    checkpoint_every_s: float = 30.0,
    stop_on_warning: bool = False,
    callback: Callback | None = None,
    progress: bool = True,
    wandb: str | None = None,
    runs: str | os.PathLike[str] = "runs",
    id: str | None = None,
    **settings: Any,
) -> Run:
    """Train a policy from a log of episodes alone, and return the run.

    The same run as `workhorse offline LOG` with the options of the same names, to the bit.

    Args:
        log: path of the log, in any format that `workhorse dataset` reads.
        algorithm: an algorithm's name; by default iql. Those that learn from a replay, as sac, can be given too: that
            is the naive way, which `workhorse offline` warns of with numbers.
        evaluate_on: the task to play the policy in; by default it is never played, and judged by `workhorse select`.
        task_options: options of that task.
        seed: of all random numbers.
        updates: how many; by default 100,000. They are done a thousand at a time, in one compiled program.
        evaluate_every: updates between evaluations; by default a tenth of them; 0 for none but the last.
        evaluation_episodes, final_episodes: of each evaluation, and of the last; by default 10 and 100.
        held_out: share of the log's episodes that are only measured on.
        threads, checkpoint_every_s, stop_on_warning, callback, progress, wandb, runs, id: as in `workhorse.train`.
        settings: options of the algorithm by name.

    Returns:
        The run; `summary.episode_return` is None where the policy was not played.

    Raises:
        UsageError: something given cannot be used; nothing was trained.
    """
    name = algorithm or DEFAULT_OFFLINE
    check_names(name, settings, list(inspect.signature(offline).parameters)[:-1])
    setup = resolve_offline(
        log, name, evaluate_on=evaluate_on, task_options=task_options, updates=updates, settings=settings,
        evaluate_every=evaluate_every, evaluation_episodes=evaluation_episodes, final_episodes=final_episodes,
        held_out=held_out, seed=seed, threads=threads, checkpoint_every_s=checkpoint_every_s,
        stop_on_warning=stop_on_warning, runs=runs, id=id,
    )  # fmt: skip
    folder, summary = followed(
        lambda observer: setup.start(command=setup.command(), observer=observer), callback, progress, None, wandb
    )
    return Run(folder, summary)


def resolve_offline(
    log: str | os.PathLike[str],
    algorithm: str,
    *,
    settings: Mapping[str, Any],
    evaluate_on: str | None = None,
    task_options: Mapping[str, Any] | None = None,
    updates: int | None = None,
    evaluate_every: int | None = None,
    evaluation_episodes: int | None = None,
    final_episodes: int | None = None,
    held_out: float = Sources.held_out,
    **others: Any,
) -> RunSetup:
    """Return the setup of a run from a log, with the defaults for everything that was not given.

    Raises:
        UsageError: an unknown task, algorithm or option, or no log at the path.
    """
    registry.entry(algorithm)
    if evaluate_on is not None:
        check_task(evaluate_on)
    elif task_options:
        raise UsageError("Options of the task have no effect without --evaluate-on: name the task, or leave them out.")
    if not 0 < held_out < 1:
        raise UsageError(f"held_out must be a share of the log's episodes, in (0, 1): got {held_out:g}.")
    count: int = UPDATES if updates is None else whole("updates", updates)
    if count < 1:
        raise UsageError(f"updates must be at least 1: got {count}.")
    found = open_dataset(log)
    if task_options is None and evaluate_on is not None and evaluate_on == found.card.task:
        task_options = found.card.task_options
    sources = Sources(
        "offline", os.path.abspath(log), found.digest(), evaluate=evaluate_on is not None, held_out=float(held_out),
        updates_per_iteration=min(Sources.updates_per_iteration, count),
    )  # fmt: skip
    every: int = max(count // EVALUATIONS, 1) if evaluate_every is None else whole("evaluate_every", evaluate_every)
    return RunSetup(
        evaluate_on or found.card.task or found.card.name,
        dict(task_options or {}),
        algorithm,
        None,
        dict(settings),
        merged_settings(algorithm, None, settings),
        env_steps=count,
        evaluate_every=every if evaluate_on else 0,
        evaluation_episodes=EPISODES if evaluation_episodes is None else evaluation_episodes,
        final_episodes=FINAL_EPISODES if final_episodes is None else final_episodes,
        sources=sources,
        **others,
    )
