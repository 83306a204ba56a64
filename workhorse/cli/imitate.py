"""`workhorse imitate TASK`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from workhorse.algorithms import registry
from workhorse.algorithms.recipes import DEFAULT_IMITATION
from workhorse.cli.environment_options import EnvironmentOptions, task_options_of
from workhorse.cli.options import Count, parse
from workhorse.core.errors import UsageError

__all__ = ["run"]


@dataclasses.dataclass
class ImitateOptions(EnvironmentOptions):
    """Train a policy that does what an expert does: by its answers, or from demonstrations of it.

    The last options belong to the algorithm; --algorithm NAME --help lists those of another one.
    """

    task: tyro.conf.Positional[str] = tyro.MISSING
    """The task, as `workhorse tasks` lists them."""
    expert: str | None = None
    """A run or a policy folder whose policy answers, or a planner by its name, as mppi or icem; also lqr."""
    algorithm: str = DEFAULT_IMITATION
    """dagger asks the expert in the states that the copy visits; gail and those that learn from a log, as bc, are shown
    demonstrations."""
    log: str | None = None
    """Demonstrations that are there already, instead of an expert; not for dagger."""
    demonstrations: Count | None = None
    """Episodes that the expert shows to gail and bc; by default 25."""
    noise: float = 0.0
    """Noise on the actions of demonstrations, in halves of an action's range."""
    logs: str = "logs"
    """Folder that demonstrations are written into."""
    price_per_demonstration: float | None = None
    """What an episode with an expert costs: print it beside the price of computing, and of learning without one."""
    against: str | None = None
    """The run of learning without an expert whose price is printed; by default the expert, where it is a run."""
    prices: str | None = None
    """Price book of computing, see `workhorse cost --help`; goes with --price-per-demonstration."""
    seed: int = 0
    """Seed of all random numbers; equal seeds give identical runs."""
    env_steps: Count | None = None
    """The budget: environment steps, those of a planner's trials among them; updates for bc."""
    evaluate_every: Count | None = None
    """Steps between evaluations, 0 for none but the last; by default a tenth of the budget."""
    evaluation_episodes: Count | None = None
    """Episodes per evaluation."""
    final_episodes: Count | None = None
    """Episodes of the final evaluation."""
    threads: int = 0
    """Simulation threads, which do not affect the numbers; 0 uses one for each core."""
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
    """Imitate an expert and return the exit code."""
    algorithm = _algorithm(arguments)
    options: Any = parse(_options_of(algorithm), arguments)
    words = {word.partition("=")[0].removeprefix("--").replace("-", "_") for word in arguments if word[:2] == "--"}
    _check_prices(options)
    own = registry.options(algorithm)
    from workhorse.api.imitate import resolve_imitate

    setup = resolve_imitate(
        options.task,
        options.expert,
        algorithm,
        settings={name: getattr(options, name) for name in own if {name, f"no_{name}"} & words},
        task_options=task_options_of(options) or None,
        **{name: getattr(options, name) for name in _PASSED},
    )

    from workhorse.display.run_display import display_for
    from workhorse.runs.wandb_log import sent_to_wandb

    observer = display_for(options.quiet, None)
    with observer, sent_to_wandb(options.wandb, observer) as told:
        folder, summary = setup.start(command=("workhorse", "imitate", *arguments), observer=told)
    observer.finished(folder, summary)
    if options.price_per_demonstration is not None:
        print(_price_line(folder, summary.episode_return, options))
    return 0


def _check_prices(options: Any) -> None:
    """Refuse a price, a price book or a run to compare with that cannot be used, before any work."""
    from workhorse.runs.cost import PriceBook
    from workhorse.runs.demonstration_price import check_price
    from workhorse.runs.folder import RunFolder

    if options.price_per_demonstration is None:
        for name in ("against", "prices"):
            if getattr(options, name) is not None:
                raise UsageError(f"--{name} is for a price: add --price-per-demonstration, or leave it out.")
        return
    check_price(options.price_per_demonstration)
    PriceBook.find(options.prices)
    if options.against is not None:
        RunFolder.open(options.against)


def _price_line(folder: Any, reached: Any, options: Any) -> str:
    """Return what the run's demonstrations and its computing cost, and learning without them."""
    from workhorse.runs.cost import Ledger, PriceBook, price
    from workhorse.runs.demonstration_price import DemonstrationPrice, demonstrations_of, price_to_return
    from workhorse.runs.folder import RunFolder

    book = PriceBook.find(options.prices)
    computing = price(Ledger.of(folder), book)
    against, others, done = options.against, None, True
    if against is None and options.expert is not None and (Path(options.expert) / "manifest.json").is_file():
        against = options.expert
    if against is not None and reached is not None:
        others, done = price_to_return(RunFolder.open(against), reached.value, book)
    count = demonstrations_of(folder) or 0
    each = options.price_per_demonstration
    return DemonstrationPrice(count, each, computing.total, computing.currency, others, done).line()


_PASSED = (
    "log", "demonstrations", "noise", "logs", "seed", "env_steps", "evaluate_every", "evaluation_episodes",
    "final_episodes", "threads", "checkpoint_every_s", "stop_on_warning", "runs", "id",
)  # fmt: skip


def _algorithm(arguments: Sequence[str]) -> str:
    """Return the value of --algorithm from the raw words, because it decides which other options exist."""
    found = DEFAULT_IMITATION
    for word, following in zip(arguments, [*arguments[1:], ""], strict=False):
        if word == "--algorithm":
            found = following
        elif word.startswith("--algorithm="):
            found = word.partition("=")[2]
    registry.entry(found)
    return found


def _options_of(algorithm: str) -> type[ImitateOptions]:
    """Return a dataclass that adds the algorithm's options."""
    extra: list[Any] = []
    for name, option in registry.options(algorithm).items():
        kind = Annotated[option.annotation, tyro.conf.arg(help=option.help)]
        extra.append((name, kind, dataclasses.field(default=option.default)))
    described = {"__doc__": ImitateOptions.__doc__}
    return dataclasses.make_dataclass("ImitateOptions", extra, bases=(ImitateOptions,), namespace=described)
