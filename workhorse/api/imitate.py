"""`workhorse.imitate`."""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workhorse.algorithms import registry
from workhorse.algorithms.recipes import DEFAULT_ENV_STEPS, DEFAULT_IMITATION
from workhorse.algorithms.settings import check_names, merged_settings
from workhorse.api.offline import resolve_offline
from workhorse.api.run import Run
from workhorse.api.setup import RunSetup, resolve, whole
from workhorse.api.tasks import check_task
from workhorse.api.watching import Callback, followed
from workhorse.core.errors import UsageError
from workhorse.data.dataset import Dataset
from workhorse.data.log_folder import is_log_folder, read_log_folder, write_log_folder
from workhorse.data.opening import open_dataset
from workhorse.training.sources import Sources

__all__ = ["imitate", "resolve_imitate", "shown_log"]

ITERATIONS = 20
"""Iterations of a run that asks its expert all the time and is not told how many steps."""

UPDATES = 20_000
"""Updates of a run that learns from demonstrations alone and is not told how many."""

DEMONSTRATIONS = 25
"""Episodes that an expert shows by default."""

SLOTS = 8
"""Demonstrations that are played side by side."""


def imitate(
    task: str,
    expert: str | os.PathLike[str] | None = None,
    algorithm: str | None = None,
    *,
    log: str | os.PathLike[str] | None = None,
    demonstrations: int | None = None,
    noise: float = 0.0,
    logs: str | os.PathLike[str] = "logs",
    seed: int = 0,
    env_steps: int | None = None,
    evaluate_every: int | None = None,
    evaluation_episodes: int | None = None,
    final_episodes: int | None = None,
    task_options: Mapping[str, Any] | None = None,
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
    """Train a policy that does what an expert does, and return the run.

    The same run as `workhorse imitate TASK --expert EXPERT` with the options of the same names, to the bit.

    Args:
        task: a task's id.
        expert: a run folder or a policy folder, whose policy answers; or the name of an algorithm that knows the task
            without learning, as mppi, icem, lqr.
        algorithm: dagger (the default) asks the expert in the states that the copy visits; gail acts in the task and is
            rewarded for what a discriminator takes for the expert's; those that learn from a log, as bc, are shown
            demonstrations alone.
        log: demonstrations that are there already, instead of an expert; not for dagger.
        demonstrations: episodes that the expert shows to gail and bc; by default 25.
        noise: on the demonstrations' actions, in halves of an action's range, see `training.expert_episodes.Noisy`.
        logs: the folder that demonstrations are written into, a log for each expert, number, seed and noise.
        seed: of all random numbers.
        env_steps: the budget: environment steps, those of a planning expert's trials among them; updates for bc.
        evaluate_every, evaluation_episodes, final_episodes, task_options, threads, checkpoint_every_s,
            stop_on_warning, callback, progress, wandb, runs, id: as in `workhorse.train`.
        settings: options of the algorithm by name.

    Raises:
        UsageError: something given cannot be used; nothing was trained.
    """
    name = algorithm or DEFAULT_IMITATION
    check_names(name, settings, list(inspect.signature(imitate).parameters)[:-1])
    setup = resolve_imitate(
        task, None if expert is None else os.fspath(expert), name, log=log, demonstrations=demonstrations, noise=noise,
        logs=logs, seed=seed, env_steps=env_steps, evaluate_every=evaluate_every,
        evaluation_episodes=evaluation_episodes, final_episodes=final_episodes, task_options=task_options,
        threads=threads, checkpoint_every_s=checkpoint_every_s, stop_on_warning=stop_on_warning, runs=runs, id=id,
        settings=settings,
    )  # fmt: skip
    folder, summary = followed(
        lambda observer: setup.start(command=setup.command(), observer=observer), callback, progress, None, wandb
    )
    return Run(folder, summary)


def resolve_imitate(
    task: str,
    expert: str | None,
    algorithm: str,
    *,
    settings: Mapping[str, Any],
    log: str | os.PathLike[str] | None = None,
    demonstrations: int | None = None,
    noise: float = 0.0,
    logs: str | os.PathLike[str] = "logs",
    task_options: Mapping[str, Any] | None = None,
    seed: int = 0,
    env_steps: int | None = None,
    threads: int = 0,
    **others: Any,
) -> RunSetup:
    """Return the setup of a run, with the defaults for everything that was not given; demonstrations are played.

    Raises:
        UsageError: an unknown task, algorithm, expert or option, or options that contradict each other.
    """
    check_task(task)
    asks = _asks(algorithm)
    if (expert is None) == (log is None):
        raise UsageError(
            f"{algorithm} needs an expert or a log of demonstrations, one of them: give --expert RUN, or --log LOG."
        )
    env_steps, demonstrations = whole("env_steps", env_steps), whole("demonstrations", demonstrations)
    settled = merged_settings(algorithm, None, settings)
    if asks:
        _check_asking(algorithm, log, demonstrations, noise)
        assert expert is not None
        return _asking(task, expert, algorithm, settings, settled, task_options or {}, seed, env_steps, threads, others)
    if log is None:
        assert expert is not None
        count = DEMONSTRATIONS if demonstrations is None else demonstrations
        if count < (least := 2 if _learns_from_a_log(algorithm) else 1):
            why = ", one of which is only measured on" if least > 1 else ""
            raise UsageError(f"demonstrations must be at least {least} for {algorithm}{why}: got {count}.")
        log = shown_log(task, expert, count, noise, logs, task_options or {}, seed, threads)
    elif demonstrations is not None or noise:
        raise UsageError("--demonstrations and --noise are of an expert that shows them: leave them out with --log.")
    if _learns_from_a_log(algorithm):
        return resolve_offline(
            log, algorithm, settings=settings, evaluate_on=task, task_options=task_options, seed=seed, threads=threads,
            updates=UPDATES if env_steps is None else env_steps, **others,
        )  # fmt: skip
    setup = resolve(
        task, algorithm, settings=settings, task_options=task_options, seed=seed, threads=threads,
        env_steps=DEFAULT_ENV_STEPS if env_steps is None else env_steps, **others,
    )  # fmt: skip
    sources = Sources("imitate", os.path.abspath(log), open_dataset(log).digest())
    return dataclasses.replace(setup, sources=sources)


def _asks(algorithm: str) -> bool:
    """Tell whether an algorithm asks its expert while it learns.

    Raises:
        UsageError: it can imitate nobody.
    """
    kind = registry.algorithm_class(algorithm)
    if getattr(kind, "needs_expert", False):
        return True
    if getattr(kind, "needs_demonstrations", False) or _learns_from_a_log(algorithm):
        return False
    raise UsageError(
        f"{algorithm} cannot imitate: choose dagger, which asks an expert, gail, or an algorithm that learns from a "
        "log, as bc."
    )


def _learns_from_a_log(algorithm: str) -> bool:
    from workhorse.core.types import Transitions

    return registry.algorithm_class(algorithm).consumes is Transitions


def _check_asking(algorithm: str, log: object, demonstrations: int | None, noise: float) -> None:
    if log is not None:
        raise UsageError(
            f"{algorithm} asks its expert in states that no log holds: give --expert RUN instead of --log, or choose "
            "bc."
        )
    if demonstrations is not None or noise:
        raise UsageError(
            f"{algorithm} asks its expert in every episode that it plays, so that --demonstrations and --noise have no "
            "effect: give --env-steps, or choose bc or gail."
        )


def _asking(
    task: str, expert: str, algorithm: str, given: Mapping[str, Any], settled: Mapping[str, Any],
    options: Mapping[str, Any], seed: int, env_steps: int | None, threads: int, others: Mapping[str, Any],
) -> RunSetup:  # fmt: skip
    """Return the setup of a run that asks its expert all the time."""
    from workhorse.core.algorithm import Planner
    from workhorse.runs.experts import find_expert
    from workhorse.training.plan import Plan

    found = find_expert(expert)
    plan = Plan(task, options, algorithm, settled, seed)
    spec = plan.spec()
    learner: Any = plan.make_algorithm(spec)
    if env_steps is None:
        each = 1
        if not found.digest:
            planner = Plan(task, options, found.name, {}, seed).make_algorithm(spec)
            each += planner.steps_per_action if isinstance(planner, Planner) else 0
        env_steps = ITERATIONS * learner.num_envs * (spec.max_episode_steps or 1000) * each
    setup = resolve(
        task, algorithm, settings=given, task_options=options, seed=seed, threads=threads, env_steps=env_steps, **others
    )
    return dataclasses.replace(setup, sources=Sources("imitate", expert=found.name, expert_digest=found.digest))


def shown_log(
    task: str, expert: str, count: int, noise: float, logs: str | os.PathLike[str], options: Mapping[str, Any],
    seed: int, threads: int,
) -> Path:  # fmt: skip
    """Return the folder of a log of demonstrations, which are played now where they are not there yet.

    Args:
        task, options: the task and its options.
        expert: as `imitate` takes it.
        count: episodes.
        noise: on the actions.
        logs: the folder that the log is written into.
        seed: of initial states and noise.
        threads: simulation threads.
    """
    from workhorse.runs.experts import find_expert

    if not 0 <= noise < float("inf"):
        raise UsageError(f"noise must be a finite number of at least 0: got {noise}.")
    found = find_expert(expert)
    made = {"expert": found.name, "expert_digest": found.digest, "seed": seed, "noise": float(noise)}
    name = f"{task.split(':')[-1].replace('/', '-')}-{Path(found.name).name}-{count}-seed{seed}"
    name += f"-noise{noise:g}" if noise else ""
    folder = Path(logs) / name
    if is_log_folder(folder):
        there = read_log_folder(folder)
        if {key: there.card.made.get(key) for key in made} == made and there.num_episodes == count:
            return folder
        raise UsageError(f"{folder} holds demonstrations of another expert: move it away, or choose another --logs.")
    write_log_folder(_played(task, found, name, count, noise, options, seed, threads, made), folder)
    return folder


def _played(
    task: str, found: Any, name: str, count: int, noise: float, options: Mapping[str, Any], seed: int, threads: int,
    made: dict[str, Any],
) -> Dataset:  # fmt: skip
    from workhorse.core.machine import threads_or_cores
    from workhorse.environments import registry as environments
    from workhorse.environments.batch import as_batch
    from workhorse.environments.wrappers import require_time_limit
    from workhorse.runs.experts import expert_opener
    from workhorse.training.expert_episodes import demonstrated
    from workhorse.training.plan import Plan

    sources = Sources("imitate", expert=found.name, expert_digest=found.digest)
    opened = expert_opener(Plan(task, options, "dagger", {}, seed, sources=sources))
    assert opened is not None
    slots = min(count, SLOTS)
    env = as_batch(environments.make(task, slots, threads_or_cores(threads), **options), slots)
    try:
        require_time_limit(env.spec)
        shown = demonstrated(name, env, opened(env.spec)(env, seed), seed, count, dict(options), noise)
    finally:
        env.close()
    return dataclasses.replace(shown, card=dataclasses.replace(shown.card, made=made))
