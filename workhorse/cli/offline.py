"""`workhorse offline LOG`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from workhorse.algorithms import registry
from workhorse.algorithms.recipes import DEFAULT_OFFLINE
from workhorse.cli.environment_options import EnvironmentOptions, task_options_of
from workhorse.cli.options import Count, parse

__all__ = ["run"]


@dataclasses.dataclass
class OfflineOptions(EnvironmentOptions):
    """Train a policy from a log of episodes alone, without an environment.

    The last options belong to the algorithm; --algorithm NAME --help lists those of another one.
    """

    log: tyro.conf.Positional[str] = tyro.MISSING
    """The log: a folder that `workhorse dataset` wrote, a Minari data set, or an HDF5, Parquet or CSV file."""
    algorithm: str = DEFAULT_OFFLINE
    """The algorithm; those that learn from a replay, as sac, are taken too, which is the naive way."""
    evaluate_on: str | None = None
    """The task in which the policy is played; without it, it is never played."""
    seed: int = 0
    """Seed of all random numbers; equal seeds give identical runs."""
    updates: Count | None = None
    """Updates of the training; by default 100,000."""
    evaluate_every: Count | None = None
    """Updates between evaluations, 0 for none but the last; by default a tenth of all."""
    evaluation_episodes: Count | None = None
    """Episodes per evaluation; by default 10."""
    final_episodes: Count | None = None
    """Episodes of the final evaluation; by default 100."""
    held_out: float = 0.05
    """Share of the log's episodes that nothing is learnt from, and every iteration is measured on."""
    threads: int = 0
    """Simulation threads of evaluations, which do not affect the numbers; 0 uses one for each core."""
    checkpoint_every_s: float = 30.0
    """Seconds between checkpoints; 0 saves after every iteration."""
    runs: str = "runs"
    """Folder of the runs."""
    id: str | None = None
    """Name of the run; by default task, algorithm, seed and time."""
    stop_on_warning: bool = False
    """End the run at its first warning; otherwise warnings are only printed and kept."""
    wandb: str | None = None
    """Send metrics and settings to this project of Weights & Biases as well; needs `pip install 'workhorse[wandb]'`."""
    quiet: bool = False
    """Print only the last line."""


def run(arguments: Sequence[str]) -> int:
    """Train from a log and return the exit code."""
    algorithm = _algorithm(arguments)
    options: Any = parse(_options_of(algorithm), arguments)
    words = {word.partition("=")[0].removeprefix("--").replace("-", "_") for word in arguments if word[:2] == "--"}
    own = registry.options(algorithm)
    from workhorse.api.offline import resolve_offline

    setup = resolve_offline(
        options.log,
        algorithm,
        settings={name: getattr(options, name) for name in own if {name, f"no_{name}"} & words},
        task_options=task_options_of(options) or None,
        **{name: getattr(options, name) for name in _PASSED},
    )

    from workhorse.display.run_display import display_for
    from workhorse.runs.wandb_log import sent_to_wandb

    observer = display_for(options.quiet, None)
    with observer, sent_to_wandb(options.wandb, observer) as told:
        folder, summary = setup.start(command=("workhorse", "offline", *arguments), observer=told)
    observer.finished(folder, summary)
    return 0


_PASSED = (
    "evaluate_on", "updates", "evaluate_every", "evaluation_episodes", "final_episodes", "held_out", "seed", "threads",
    "checkpoint_every_s", "stop_on_warning", "runs", "id",
)  # fmt: skip


def _algorithm(arguments: Sequence[str]) -> str:
    """Return the value of --algorithm from the raw words, because it decides which other options exist."""
    found = DEFAULT_OFFLINE
    for word, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if word == "--algorithm":
            found = following
        elif word.startswith("--algorithm="):
            found = word.partition("=")[2]
    registry.entry(found)
    return found


def _options_of(algorithm: str) -> type[OfflineOptions]:
    """Return a dataclass that adds the algorithm's options."""
    extra: list[Any] = []
    for name, option in registry.options(algorithm).items():
        kind = Annotated[option.annotation, tyro.conf.arg(help=option.help)]
        extra.append((name, kind, dataclasses.field(default=option.default)))
    described = {"__doc__": OfflineOptions.__doc__}
    return dataclasses.make_dataclass("OfflineOptions", extra, bases=(OfflineOptions,), namespace=described)
