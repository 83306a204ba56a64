"""`workhorse train TASK`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from workhorse.algorithms import registry
from workhorse.algorithms.recipes import DEFAULT_ALGORITHM, DEFAULT_ENV_STEPS, Recipe, best_recipe, recipe
from workhorse.cli.cluster import ClusterOptions, Notes, loop_maker
from workhorse.cli.hints import check_task
from workhorse.cli.options import Count, parse, parse_task_options
from workhorse.core.errors import UsageError
from workhorse.environments.registry import TASKS

__all__ = ["run"]


@dataclasses.dataclass
class RunOptions:
    """Options of every training run; an algorithm's own options are added to these."""

    task: tyro.conf.Positional[str]
    """The task, a Gymnasium id; `workhorse tasks` lists them, and your own registered ids work as module:id."""
    algorithm: str | None = None
    """The algorithm; by default that of the best recipe known for the task."""
    seed: int = 0
    """Seed of all random numbers; equal seeds give identical runs."""
    seeds: int | None = None
    """Number of seeds to train, from --seed on, as a study with success rate, intervals and a report."""
    env_steps: Count | None = None
    """Training budget in environment steps; by default the recipe's."""
    evaluate_every: Count | None = None
    """Environment steps between evaluations without noise; by default a tenth of the budget, 0 for none."""
    evaluation_episodes: int = 16
    """Episodes per evaluation."""
    final_episodes: int = 100
    """Episodes of the final evaluation."""
    task_option: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """An option of the task, written name=value; may be repeated."""
    slots: int | None = None
    """Environments stepped in parallel, which affects the numbers; by default what the algorithm needs, at most 64."""
    threads: int = 0
    """Simulation threads, which do not affect the numbers; 0 uses one for each core."""
    checkpoint_every_s: float = 30.0
    """Seconds between checkpoints; 0 saves after every iteration."""
    runs: str = "runs"
    """Folder of the runs."""
    studies: str = "studies"
    """Folder of the studies, with --seeds."""
    id: str | None = None
    """Name of the run or the study; by default task, algorithm, seed and time."""
    stop_on_warning: bool = False
    """End the run at its first warning; otherwise warnings are only printed and kept."""
    stop_at_return: float | None = None
    """End the run at the first evaluation whose mean return reaches this, which biases the final return upwards."""
    quiet: bool = False
    """Print only the last line."""


def run(arguments: Sequence[str]) -> int:
    """Train on a task and return the exit code."""
    task, named = _peek(arguments)
    known = (recipe(task, named) if named else best_recipe(task)) if task else None
    algorithm = named or (known.algorithm if known else DEFAULT_ALGORITHM)
    options = parse(_options_of(algorithm, known), arguments)
    note = check_task(options.task)
    if note and not options.quiet:
        print(note, file=sys.stderr)
    settings = {
        name: getattr(options, name)
        for name, option in registry.options(algorithm).items()
        if getattr(options, name) != option.default
    }
    _check_policy_size(settings, options, arguments)
    env_steps = options.env_steps if options.env_steps is not None else known.env_steps if known else DEFAULT_ENV_STEPS
    evaluate_every = options.evaluate_every if options.evaluate_every is not None else max(env_steps // 10, 1)

    if env_steps < 1:
        raise UsageError(f"--env-steps must be at least 1: got {env_steps}.")
    if options.seeds is not None:
        return _train_seeds(options, options.seeds, algorithm, known, env_steps, evaluate_every, arguments)
    if options.studies != RunOptions.studies:
        raise UsageError("--studies needs --seeds: give the number of seeds, or leave out --studies.")
    notes = Notes()
    make = loop_maker(options, notes)

    from workhorse.cli.display import display_for
    from workhorse.runs import train

    observer = notes.observer = display_for(options.quiet, known)
    with observer:
        folder, summary = train.start(
            task=options.task,
            algorithm=algorithm,
            settings=settings,
            env_steps=env_steps,
            seed=options.seed,
            task_options=parse_task_options(options.task_option),
            slots=options.slots,
            threads=options.threads,
            schedule=train.Schedule(
                evaluate_every,
                options.evaluation_episodes,
                options.final_episodes,
                options.checkpoint_every_s,
                stop_on_warning=options.stop_on_warning,
                stop_at_return=options.stop_at_return,
            ),
            root=options.runs,
            id=options.id,
            recipe=known,
            command=("workhorse", "train", *arguments),
            observer=observer,
            make=make,
        )
    observer.finished(folder, summary)
    return 0


def _train_seeds(
    options: TrainOptions,
    seeds: int,
    algorithm: str,
    known: Recipe | None,
    env_steps: int,
    evaluate_every: int,
    arguments: Sequence[str],
) -> int:
    """Train several seeds of one algorithm on one task as a study, and return the exit code."""
    from workhorse.cli.study import check_by_building, conclude
    from workhorse.studies.conduct import check_cluster
    from workhorse.studies.folder import StudyFolder
    from workhorse.studies.study_file import plan_of

    for name in ("slots", "checkpoint_every_s", "stop_on_warning", "stop_at_return"):
        if getattr(options, name) != getattr(RunOptions, name):
            raise UsageError(f"--{name.replace('_', '-')} is for a single run: leave out it or --seeds.")
    if options.runs != RunOptions.runs:
        raise UsageError("--runs is for a single run: with --seeds the runs are inside the study, see --studies.")
    if seeds < 1:
        raise UsageError(f"--seeds must be at least 1: got {seeds}.")
    usual = known.settings if known and known.algorithm == algorithm else {}
    settings = {}
    for name, option in registry.options(algorithm).items():
        value, expected = getattr(options, name), usual.get(name, option.default)
        if value != (tuple(expected) if isinstance(expected, list) else expected):
            settings[name] = list(value) if isinstance(value, tuple) else value
    task_options = parse_task_options(options.task_option)
    words: dict[str, Any] = {
        "tasks": [options.task],
        "algorithms": [algorithm],
        "seeds": list(range(options.seed, options.seed + seeds)),
        "env_steps": env_steps,
        "evaluations": max(env_steps // evaluate_every, 1) if evaluate_every else 1,
        "evaluation_episodes": options.evaluation_episodes,
        "final_episodes": options.final_episodes,
        "settings": {algorithm: settings} if settings else {},
        "task_options": {options.task: task_options} if task_options else {},
    }
    plan = plan_of({name: value for name, value in words.items() if value != {}}, "the command line")
    check_by_building(plan)
    if options.cluster is not None:
        check_cluster(plan)
    make = loop_maker(options, print)
    folder = StudyFolder.create(options.studies, options.id, plan, ("workhorse", "train", *arguments))
    conclude(folder, options.threads, options.quiet, make)
    return 0


def _peek(arguments: Sequence[str]) -> tuple[str | None, str | None]:
    """Return the task and --algorithm from the raw words, because they decide which other options exist."""
    algorithm = None
    for position, word in enumerate(arguments):
        if word == "--algorithm" and position + 1 < len(arguments):
            algorithm = arguments[position + 1]
        elif word.startswith("--algorithm="):
            algorithm = word.partition("=")[2]
    if algorithm is not None:
        registry.entry(algorithm)
    known = [(word, before) for before, word in zip(["", *arguments], arguments, strict=False) if word in TASKS]
    known.sort(key=lambda pair: pair[1].startswith("--"))  # a task's name may also be the value of an option
    return (known[0][0] if known else None), algorithm


@dataclasses.dataclass
class TrainOptions(ClusterOptions, RunOptions):
    """Train a policy. Without --algorithm, the best known recipe for the task is used and named.

    The last options belong to the algorithm; --algorithm NAME --help lists those of another one.
    """


def _options_of(algorithm: str, known: Recipe | None) -> type[TrainOptions]:
    """Return a dataclass that adds the algorithm's options, with the recipe's defaults where there is one."""
    settings = known.settings if known and known.algorithm == algorithm else {}
    for name in settings:
        if name not in registry.options(algorithm):
            raise UsageError(f"The recipe {known.name if known else ''} sets {name}, which {algorithm} does not have.")
    extra: list[Any] = []
    for option in registry.options(algorithm).values():
        default = settings.get(option.name, option.default)
        default = tuple(default) if isinstance(default, list) else default
        kind = Annotated[option.annotation, tyro.conf.arg(help=option.help)]
        extra.append((option.name, kind, dataclasses.field(default=default)))
    described = {"__doc__": TrainOptions.__doc__}  # a docstring is not inherited, and it is what --help begins with
    return dataclasses.make_dataclass("TrainOptions", extra, bases=(TrainOptions,), namespace=described)


def _check_policy_size(settings: dict[str, object], options: TrainOptions, arguments: Sequence[str]) -> None:
    """Drop a recipe's `hidden` for a linear policy, and raise a `UsageError` where the user asked for it."""
    if "hidden" in settings and getattr(options, "policy", None) == "linear":
        if any(word.partition("=")[0] == "--hidden" for word in arguments):
            raise UsageError(
                "--hidden is for --policy mlp, but the policy is linear. Add --policy mlp, or leave it out."
            )
        del settings["hidden"]
