"""Resolve what a user asked for into the setup of a run: recipe, settings, budget and evaluations, in one place.

Nothing here imports JAX or a simulator, except where a task is none of ours and Gymnasium has to be asked.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from workhorse.algorithms.recipes import DEFAULT_ALGORITHM, DEFAULT_ENV_STEPS, Recipe, best_recipe, recipe
from workhorse.algorithms.settings import merged_settings
from workhorse.api.tasks import check_task
from workhorse.core.errors import UsageError
from workhorse.environments.registry import TASKS
from workhorse.runs.budget import EPISODES, usual_evaluations
from workhorse.training.sources import Sources

if TYPE_CHECKING:
    from workhorse.runs.folder import RunFolder
    from workhorse.runs.train import Observer, Summary
    from workhorse.training.loop import MakeLoop

__all__ = ["RunSetup", "chosen_algorithm", "chosen_recipe", "resolve", "whole"]


_WHOLE = ("seed", "slots", "threads")

UNKNOWN_LIMIT = 1000
SHORTER_LIMITS = {
    "Reacher-v5": 50, "Pusher-v5": 100, "CartPole-v1": 500, "Pendulum-v1": 200, "Acrobot-v1": 500,
    "MountainCar-v0": 200, "MountainCarContinuous-v0": 999,
}  # fmt: skip
"""Steps of the episodes of our own tasks where they are not 1,000, known without a simulator."""


@dataclass(frozen=True)
class RunSetup:
    """A run as it would be trained, with every choice made.

    Attributes:
        task: the task's id.
        task_options: its non-default options.
        algorithm: the algorithm's name.
        recipe: the recipe that the settings build on; None where there is none.
        given: the settings that the user gave.
        settings: those that differ from the algorithm's defaults, the recipe's and the user's.
        seed: of all random numbers.
        env_steps: the budget.
        evaluate_every: environment steps between evaluations; 0 for none but the last.
        evaluation_episodes, final_episodes: episodes of each evaluation, and of the last.
        slots: environments side by side; None for what the algorithm needs.
        threads: simulation threads; 0 for one a core.
        checkpoint_every_s: seconds between checkpoints.
        stop_on_warning, stop_at_return: when the run ends early.
        runs: the folder that holds the runs.
        id: the run's name; None for one made of task, algorithm, seed and time.
        sources: what is learnt from beside the run's own experience; None for nothing.
    """

    task: str
    task_options: Mapping[str, Any]
    algorithm: str
    recipe: Recipe | None
    given: Mapping[str, Any]
    settings: Mapping[str, Any]
    seed: int = 0  # the first of those that are options of the command line by the same name, with the same default
    env_steps: int = DEFAULT_ENV_STEPS
    evaluate_every: int = 0
    evaluation_episodes: int = 16
    final_episodes: int = 100
    slots: int | None = None
    threads: int = 0
    checkpoint_every_s: float = 30.0
    stop_on_warning: bool = False
    stop_at_return: float | None = None
    runs: str | os.PathLike[str] = "runs"
    id: str | None = None
    sources: Sources | None = None

    def command(self) -> tuple[str, ...]:
        """Return the command line that trains this run."""
        words, sources = ["workhorse", "train", self.task, "--algorithm", self.algorithm], self.sources
        if sources is not None:
            words += ["--log", sources.log] if sources.log else []
            words += ["--begin-from", sources.begun_from] if sources.begun_from else []
            words += ["--held-out", str(sources.held_out)] if sources.held_out != Sources.held_out else []
        if sources is not None and sources.use == "offline":
            words = ["workhorse", "offline", sources.log, "--algorithm", self.algorithm]
            words += ["--evaluate-on", self.task] if sources.evaluate else []
            words += ["--held-out", str(sources.held_out)] if sources.held_out != Sources.held_out else []
        if sources is not None and sources.use == "imitate":
            words = ["workhorse", "imitate", self.task, "--algorithm", self.algorithm]
            words += ["--expert", sources.expert] if sources.expert else ["--log", sources.log]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            is_option = field.default is not dataclasses.MISSING and field.name != "sources"
            if is_option and value != field.default:
                is_updates = field.name == "env_steps" and words[1] == "offline"
                words += _option("updates" if is_updates else field.name, value)
        for name, value in self.task_options.items():
            words += ["--task-option", f"{name}={value!r}"]
        for name, value in self.given.items():
            words += _option(name, value)
        return tuple(words)

    def with_sources(self, log: str | os.PathLike[str] | None, begin_from: str | os.PathLike[str] | None) -> RunSetup:
        """Return the setup of a run that draws from a log, or begins with the newest state of another run.

        Raises:
            UsageError: no log, or no run, is there.
        """
        if log is None and begin_from is None:
            return self
        from workhorse.data.opening import open_dataset
        from workhorse.runs.folder import RunFolder

        sources = Sources("mixed")
        if log is not None:
            sources = dataclasses.replace(sources, log=os.path.abspath(log), log_digest=open_dataset(log).digest())
        if begin_from is not None:
            sources = dataclasses.replace(sources, begun_from=os.path.abspath(RunFolder.open(begin_from).path))
        return dataclasses.replace(self, sources=sources)

    def start(
        self, *, command: tuple[str, ...], observer: Observer | None = None, make: MakeLoop | None = None
    ) -> tuple[RunFolder, Summary]:
        """Train the run to the end of its budget; see `workhorse.runs.train.start`."""
        from workhorse.runs import train

        return train.start(
            task=self.task,
            algorithm=self.algorithm,
            settings=self.settings,
            env_steps=self.env_steps,
            seed=self.seed,
            task_options=self.task_options,
            slots=self.slots,
            threads=self.threads,
            schedule=train.Schedule(
                self.evaluate_every,
                self.evaluation_episodes,
                self.final_episodes,
                self.checkpoint_every_s,
                stop_on_warning=self.stop_on_warning,
                stop_at_return=self.stop_at_return,
            ),
            root=self.runs,
            id=self.id,
            recipe=self.recipe,
            command=command,
            observer=observer,
            make=make,
            sources=self.sources,
        )


def resolve(
    task: str,
    algorithm: str | None = None,
    *,
    settings: Mapping[str, Any],
    env_steps: int | None = None,
    evaluate_every: int | None = None,
    evaluation_episodes: int | None = None,
    final_episodes: int | None = None,
    task_options: Mapping[str, Any] | None = None,
    **others: Any,
) -> RunSetup:
    """Return the setup of a run, with the recipe's values and the defaults for everything that was not given.

    Args:
        task: a task's id.
        algorithm: an algorithm's name; by default that of the task's best recipe.
        settings: options of the algorithm that the user gave.
        env_steps: the budget; by default the recipe's.
        evaluate_every: environment steps between evaluations; by default a tenth of the budget, more where the budget
            does not afford 10 evaluations, see `usual_evaluations`.
        evaluation_episodes, final_episodes: of each evaluation, and of the last; by default 16 and 100, or as many as
            the budget affords.
        task_options: options of the task, by Gymnasium's names.
        others: further attributes of `RunSetup`.

    Raises:
        UsageError: an unknown task, algorithm or option, or options that contradict each other.
    """
    check_task(task)
    env_steps, evaluate_every = whole("env_steps", env_steps), whole("evaluate_every", evaluate_every)
    evaluation_episodes = whole("evaluation_episodes", evaluation_episodes)
    final_episodes = whole("final_episodes", final_episodes)
    others = {name: whole(name, value) if name in _WHOLE else value for name, value in others.items()}
    known = chosen_recipe(task, algorithm)
    algorithm = chosen_algorithm(task, algorithm)
    if env_steps is None:
        env_steps = known.env_steps if known else DEFAULT_ENV_STEPS
    usual = usual_evaluations(max(env_steps, 1), _time_limit(task, task_options or {}))
    if evaluate_every is None and others.get("stop_at_return") is not None:
        evaluate_every = max(env_steps // 10, 1)  # what is looked at is not for the budget to leave out
    if evaluate_every is not None:
        usual = usual._replace(evaluate_every=evaluate_every, evaluation_episodes=EPISODES)
    return RunSetup(
        task,
        dict(task_options or {}),
        algorithm,
        known,
        dict(settings),
        merged_settings(algorithm, known, settings),
        env_steps=env_steps,
        evaluate_every=usual.evaluate_every,
        evaluation_episodes=usual.evaluation_episodes if evaluation_episodes is None else evaluation_episodes,
        final_episodes=usual.final_episodes if final_episodes is None else final_episodes,
        **others,
    )


def _time_limit(task: str, task_options: Mapping[str, Any]) -> int:
    """Return the steps of a task's longest episode; 1,000 where it is not known before the task is made."""
    given = task_options.get("max_episode_steps")
    if isinstance(given, int) and given > 0:
        return given
    if task in TASKS:
        return SHORTER_LIMITS.get(task, UNKNOWN_LIMIT)
    import gymnasium

    registered = gymnasium.registry.get(task.split(":")[-1])
    return (registered.max_episode_steps if registered is not None else None) or UNKNOWN_LIMIT


def chosen_recipe(task: str, algorithm: str | None) -> Recipe | None:
    """Return the recipe for a task and an algorithm, the best one where no algorithm is named; None for none."""
    return recipe(task, algorithm) if algorithm else best_recipe(task)


def chosen_algorithm(task: str, algorithm: str | None) -> str:
    """Return the algorithm that was named, or else that of the task's best recipe."""
    if algorithm is not None:
        return algorithm
    known = best_recipe(task)
    return known.algorithm if known else DEFAULT_ALGORITHM


def whole(name: str, value: Any) -> Any:
    """Return a number such as 1e6 as the whole number that it is; None stays None."""
    if value is None or (isinstance(value, Integral) and not isinstance(value, bool)):
        return value
    if isinstance(value, Real) and float(value).is_integer() and not isinstance(value, bool):
        return int(float(value))
    raise UsageError(f"{name} must be a whole number: got {value!r}.")


def _option(name: str, value: object) -> list[str]:
    """Return an option of the command line."""
    word = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [word if value else f"--no-{word[2:]}"]
    values = value if isinstance(value, list | tuple) else [value]
    return [word, *map(str, values)]
