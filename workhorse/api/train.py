"""`workhorse.train`."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium

from workhorse.algorithms.settings import check_names
from workhorse.api.run import Run
from workhorse.api.setup import chosen_algorithm, resolve
from workhorse.api.watching import Callback, followed
from workhorse.environments.constructors import Constructor, named_task, shared_options
from workhorse.environments.gymnasium_worker import in_worker

__all__ = ["train"]


def train(
    task: str | Constructor | gymnasium.Env,
    algorithm: str | None = None,
    *,
    seed: int = 0,
    env_steps: int | None = None,
    evaluate_every: int | None = None,
    evaluation_episodes: int | None = None,
    final_episodes: int | None = None,
    task_options: Mapping[str, Any] | None = None,
    wrappers: Sequence[str | type[gymnasium.Wrapper]] = (),
    frame_stack: int | None = None,
    max_episode_steps: int | str | None = None,
    slots: int | None = None,
    threads: int = 0,
    checkpoint_every_s: float = 30.0,
    stop_on_warning: bool = False,
    stop_at_return: float | None = None,
    log: str | os.PathLike[str] | None = None,
    begin_from: str | os.PathLike[str] | None = None,
    callback: Callback | None = None,
    progress: bool = True,
    wandb: str | None = None,
    runs: str | os.PathLike[str] = "runs",
    id: str | None = None,
    **settings: Any,
) -> Run:
    """Train a policy on a task, by the best known recipe or your own settings, and return the run.

    The same run as `workhorse train TASK` with the options of the same names, to the bit.

    Args:
        task: a task's id, such as "HalfCheetah-v5"; or the constructor of an environment, a class or a function that
            returns one; or an environment that Gymnasium made. Workers make their own copies of it: a constructor in a
            module that can be imported runs in all of them, another one (a lambda, a class typed into a notebook)
            in this process alone; of an environment only its `spec` is used, with the wrappers that it names.
        algorithm: an algorithm's name; by default that of the best recipe known for the task.
        seed: of all random numbers; equal seeds give identical runs.
        env_steps: the budget in environment steps; by default the recipe's.
        evaluate_every: environment steps between evaluations without noise; by default a tenth of the budget, 0 for
            none but the last.
        evaluation_episodes: episodes of each evaluation; by default 16.
        final_episodes: episodes of the evaluation at the end; by default 100. Where the evaluations might take more
            steps than the budget, the defaults are fewer.
        task_options: options of the task, as for `gymnasium.make`.
        wrappers: around the task, the innermost first: classes that can be imported, or text as in
            "gymnasium.wrappers:RescaleAction(-1.0, 1.0)".
        frame_stack: give the policy this many of the newest observations, stacked.
        max_episode_steps: steps after which an episode is truncated; "own" where the task, which declares no limit,
            ends every episode by itself.
        slots: environments stepped in parallel, which affects the numbers; by default what the algorithm needs.
        threads: simulation threads, which do not affect the numbers; 0 for one a core.
        checkpoint_every_s: seconds between checkpoints; 0 saves after every iteration.
        stop_on_warning: whether to end the run at its first warning.
        stop_at_return: end the run at the first evaluation whose mean return is at least this.
        log: path of a log that a share of each batch is drawn from, for algorithms that learn from a replay.
        begin_from: run of the same algorithm, as one of `workhorse.offline`, whose newest state this one begins with.
        callback: function that is given every iteration's metrics, a dictionary with `iteration`, `env_steps`,
            `training_return`, after evaluations `evaluation_return`, and what else `run.metrics` has. Where it returns
            False, the run stops: its state is saved, and `run.resume()` goes on. An exception in it is raised again
            from here, after the state was saved.
        progress: whether to show it.
        wandb: project of Weights & Biases that metrics and settings are sent to as well; needs the extra `wandb`.
        runs: the folder that holds the runs.
        id: the run's name; by default task, algorithm, seed and time.
        settings: options of the algorithm by name; `workhorse algorithms NAME` lists them.

    Returns:
        The run, finished, or stopped by the callback: see `run.state`.

    Raises:
        UsageError: something given cannot be used; nothing was trained.
        KeyboardInterrupt: Ctrl-C or a notebook's stop button; the state was saved, and how to go on was printed.

    Example:
        >>> import workhorse
        >>> run = workhorse.train(
        ...     "CartPole-v1", "ars", env_steps=500, final_episodes=2, num_directions=2, num_top_directions=1,
        ...     progress=False, runs=getfixture("tmp_path"), id="first",
        ... )
        >>> run.state, run.env_steps >= 500
        ('finished', True)
        >>> action, _ = run.policy.predict([0.0, 0.0, 0.0, 0.0])
    """
    if in_worker():
        raise RuntimeError(
            "This program trains while a worker process imports it to find the task's constructor: put the training "
            "under `if __name__ == '__main__':`."
        )
    name, made_with = named_task(task)
    shared = shared_options(wrappers, frame_stack, max_episode_steps)
    check_names(chosen_algorithm(name, algorithm), settings, list(inspect.signature(train).parameters)[:-1])
    setup = resolve(
        name,
        algorithm,
        settings=settings,
        env_steps=env_steps,
        evaluate_every=evaluate_every,
        task_options={**made_with, **(task_options or {}), **shared},
        seed=seed,
        evaluation_episodes=evaluation_episodes,
        final_episodes=final_episodes,
        slots=slots,
        threads=threads,
        checkpoint_every_s=checkpoint_every_s,
        stop_on_warning=stop_on_warning,
        stop_at_return=stop_at_return,
        runs=runs,
        id=id,
    ).with_sources(log, begin_from)
    folder, summary = followed(
        lambda told: setup.start(command=setup.command(), observer=told), callback, progress, setup.recipe, wandb
    )  # fmt: skip
    return Run(folder, summary)
