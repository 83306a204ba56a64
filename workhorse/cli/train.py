"""`workhorse train TASK`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from workhorse.algorithms import registry
from workhorse.algorithms.recipes import Recipe
from workhorse.algorithms.settings import usual_settings
from workhorse.api.setup import RunSetup, chosen_algorithm, chosen_recipe, resolve
from workhorse.api.tasks import check_task
from workhorse.cli.cluster import ClusterOptions, Notes, loop_maker
from workhorse.cli.environment_options import EnvironmentOptions, task_options_of
from workhorse.cli.options import Count, parse
from workhorse.cli.train_file import read_train_file, shown
from workhorse.core.errors import UsageError
from workhorse.core.machine import threads_or_cores
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
    """Environment steps between evaluations without noise, 0 for none; by default a tenth of the budget, or more where
    all evaluations together might take more steps than the budget."""
    evaluation_episodes: Count | None = None
    """Episodes per evaluation; by default 16, or fewer, so that evaluations take no more steps than the budget."""
    final_episodes: Count | None = None
    """Episodes of the final evaluation; by default 100, or fewer for the same reason, but at least 10."""
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
    log: str | None = None
    """A log that a share of each batch is drawn from, for algorithms that learn from a replay: a folder, or a file."""
    begin_from: str | None = None
    """A run of the same algorithm, as one of `workhorse offline`, whose newest state this run begins with."""
    wandb: str | None = None
    """Send metrics and settings to this project of Weights & Biases as well; needs `pip install 'workhorse[wandb]'`."""
    quiet: bool = False
    """Print only the last line."""
    config: str | None = None
    """A file of options in YAML, by their names with _ for -, as --show prints it; what is typed comes before it."""
    show: bool = False
    """Print every setting that the run would have, and where it comes from, instead of training."""


def run(arguments: Sequence[str]) -> int:
    """Train on a task and return the exit code."""
    asked = _read(arguments)
    options = asked.options
    note = check_task(options.task)
    if note and not options.quiet:
        print(note, file=sys.stderr)
    setup = _setup(asked)
    if options.show:
        print(shown(setup, asked.names))
        return 0
    if options.seeds is not None:
        return _train_seeds(options, options.seeds, setup, arguments)
    if options.studies != RunOptions.studies:
        raise UsageError("--studies needs --seeds: give the number of seeds, or leave out --studies.")
    notes = Notes()
    make = loop_maker(options, notes, [setup.algorithm])

    from workhorse.display.run_display import display_for
    from workhorse.runs.wandb_log import sent_to_wandb

    observer = notes.observer = display_for(options.quiet, setup.recipe)
    with observer, sent_to_wandb(options.wandb, observer) as told:
        command = ("workhorse", "train", *arguments) if options.config is None else setup.command()  # files change
        folder, summary = setup.start(command=command, observer=told, make=make)
    observer.finished(folder, summary)
    return 0


@dataclasses.dataclass
class _Asked:
    """Everything that a user asked for.

    Attributes:
        options: of the command line, above those of the file.
        names: of the options that were given, in either.
        task_options: that the file gives.
    """

    options: TrainOptions
    names: set[str]
    task_options: dict[str, Any]


def _read(arguments: Sequence[str]) -> _Asked:
    """Return what the command line and its file ask for."""
    task, algorithm = _peek(arguments)
    found: dict[str, Any] = {}
    task_options: dict[str, Any] = {}
    if (config := _word_after("--config", arguments)) is not None:
        found, task_options = read_train_file(config, _fields(), task, algorithm)
        task, algorithm = task or found.get("task"), algorithm or found.get("algorithm")
    known = chosen_recipe(task, algorithm) if task else None
    algorithm = chosen_algorithm(task or "", algorithm)
    kind = _options_of(algorithm, known)
    default = kind(**{"task": tyro.MISSING, **found}) if config is not None else None
    options = parse(kind, arguments, default)
    options.algorithm = algorithm
    words = {word.partition("=")[0].removeprefix("--").replace("-", "_") for word in arguments if word[:2] == "--"}
    names = {name for name in kind.__dataclass_fields__ if {name, f"no_{name}"} & words}
    for name in sorted(names):
        if getattr(options, name) == ():
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{flag} needs at least one value, as in {flag} 64 64: got none. Add one, or leave it out."
            )
    return _Asked(options, names | set(found), task_options)


def _fields() -> dict[str, type]:
    """Return the dataclass of each option that a file may set, by name."""
    kinds = (ClusterOptions, EnvironmentOptions, RunOptions)
    found = {field.name: kind for kind in kinds for field in dataclasses.fields(kind)}
    return {name: kind for name, kind in found.items() if name not in ("config", "show", "task_option", "wrapper")}


def _setup(asked: _Asked) -> RunSetup:
    """Return the setup of the run that a user asks for."""
    options = asked.options
    same = set(RunSetup.__dataclass_fields__) & set(RunOptions.__dataclass_fields__)
    same -= {"task", "algorithm", "env_steps", "evaluate_every"}
    own = registry.options(options.algorithm or "")
    return resolve(
        options.task,
        options.algorithm,
        settings={name: getattr(options, name) for name in own if name in asked.names},
        env_steps=options.env_steps,
        evaluate_every=options.evaluate_every,
        task_options={**asked.task_options, **task_options_of(options)},
        **{name: getattr(options, name) for name in same},
    ).with_sources(options.log, options.begin_from)


def _train_seeds(options: TrainOptions, seeds: int, setup: RunSetup, arguments: Sequence[str]) -> int:
    """Train several seeds of one algorithm on one task as a study, and return the exit code."""
    from workhorse.cli.study import conclude, job_transport
    from workhorse.studies.building import check_by_building
    from workhorse.studies.folder import StudyFolder
    from workhorse.studies.study_file import plan_of

    for name in ("slots", "checkpoint_every_s", "stop_on_warning", "stop_at_return", "wandb", "log", "begin_from"):
        if getattr(options, name) != getattr(RunOptions, name):
            raise UsageError(f"--{name.replace('_', '-')} is for a single run: leave out it or --seeds.")
    if options.runs != RunOptions.runs:
        raise UsageError("--runs is for a single run: with --seeds the runs are inside the study, see --studies.")
    if seeds < 1:
        raise UsageError(f"--seeds must be at least 1: got {seeds}.")
    threads_or_cores(options.threads)
    every, algorithm = setup.evaluate_every, setup.algorithm
    settings = {name: list(value) if isinstance(value, tuple) else value for name, value in setup.given.items()}
    words: dict[str, Any] = {
        "tasks": [setup.task],
        "algorithms": [algorithm],
        "seeds": list(range(setup.seed, setup.seed + seeds)),
        "env_steps": setup.env_steps,
        "evaluations": max(setup.env_steps // every, 1) if every else 1,
        "evaluation_episodes": setup.evaluation_episodes,
        "final_episodes": setup.final_episodes,
        "settings": {algorithm: settings} if settings else {},
        "task_options": {setup.task: dict(setup.task_options)} if setup.task_options else {},
    }
    plan = plan_of({name: value for name, value in words.items() if value != {}}, "the command line")
    check_by_building(plan)
    transport = job_transport(options, print)
    folder = StudyFolder.create(options.studies, options.id, plan, ("workhorse", "train", *arguments))
    conclude(folder, options.threads, options.quiet, transport=transport)
    return 0


def _peek(arguments: Sequence[str]) -> tuple[str | None, str | None]:
    """Return the task and --algorithm from the raw words, because they decide which other options exist."""
    algorithm = _word_after("--algorithm", arguments)
    if algorithm is not None:
        registry.entry(algorithm)
    known = [(word, before) for before, word in zip(["", *arguments], arguments, strict=False) if word in TASKS]
    known.sort(key=lambda pair: pair[1].startswith("--"))  # a task's name may also be the value of an option
    return (known[0][0] if known else None), algorithm


def _word_after(flag: str, arguments: Sequence[str]) -> str | None:
    """Return the value of an option from the raw words; None where it is not there."""
    found = None
    for word, following in zip(arguments, [*arguments[1:], None], strict=False):
        if word == flag:
            found = following
        elif word.startswith(f"{flag}="):
            found = word.partition("=")[2]
    return found


@dataclasses.dataclass
class TrainOptions(ClusterOptions, EnvironmentOptions, RunOptions):
    """Train a policy. Without --algorithm, the best known recipe for the task is used and named.

    The last options belong to the algorithm; --algorithm NAME --help lists those of another one.
    """


def _options_of(algorithm: str, known: Recipe | None) -> type[TrainOptions]:
    """Return a dataclass that adds the algorithm's options, with the recipe's defaults where there is one."""
    extra: list[Any] = []
    for name, default in usual_settings(algorithm, known).items():
        option = registry.options(algorithm)[name]
        kind = Annotated[option.annotation, tyro.conf.arg(help=option.help)]
        extra.append((name, kind, dataclasses.field(default=default)))
    described = {"__doc__": TrainOptions.__doc__}  # a docstring is not inherited, and it is what --help begins with
    return dataclasses.make_dataclass("TrainOptions", extra, bases=(TrainOptions,), namespace=described)
