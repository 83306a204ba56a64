"""`workhorse cost RUN`."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import tyro

from workhorse.cli.options import Count, parse
from workhorse.cli.places import RunPath
from workhorse.core.errors import UsageError
from workhorse.reports.wording import amount_text, cost_texts, duration_text, hours_text
from workhorse.runs.cost import Ledger, Price, PriceBook, price
from workhorse.runs.folder import RunFolder
from workhorse.runs.trust import open_run

__all__ = ["run"]

MOST_CORES = 100_000
"""Largest number of cores that is taken at its word: above, a mistyped number is likelier."""


@dataclasses.dataclass
class CostOptions:
    """Core-hours of a run, and what they cost by a price book.

    A price book is a TOML file with a `currency` and one [[core]] for each kind of core, with `kind`,
    `price_per_core_hour` and `source`; the first that matches the processor's name counts. It is the file given as
    --prices, or else the one named by $WORKHORSE_PRICES, or else prices.toml in the current folder, or else
    ~/.config/workhorse/prices.toml, or else the built-in assumption.
    """

    run: tyro.conf.Positional[RunPath]
    """The run folder, as in runs/<id>."""
    project: bool = False
    """Print what the run would take on another number of cores; needs --cores."""
    cores: Count | None = None
    """Cores to project to; goes with --project."""
    exchange: Literal["scalars", "parameters"] | None = None
    """Kind of messages to workers; by default the one of fewer bytes; goes with --project."""
    prices: str | None = None
    """Price book; see above for the default."""
    trust: bool = False
    """Run code of a run from elsewhere: the modules of its task and algorithm; only --project needs
    it. Remembered for the run."""


def run(arguments: Sequence[str]) -> int:
    """Print what a run cost, or would cost on other cores; return the exit code."""
    options = parse(CostOptions, arguments)
    _check(options)
    folder = open_run(options.run, options.trust)
    ledger, book = Ledger.of(folder, print), PriceBook.find(options.prices)
    found = price(ledger, book)
    if options.cores is not None:
        _print_projection(folder, ledger, book, options.cores, options.exchange)
        return 0
    manifest = folder.manifest()
    print(f"run         {folder.path}  ({manifest.task} by {manifest.algorithm}, seed {manifest.seed})")
    print(f"env steps   {ledger.env_steps:,}")
    for name, text in cost_texts(ledger, book).items():
        print(f"{name:<11} {text.partition(' (')[0]}")
    print()
    _print_table(found)
    print()
    print(_origin(book))
    if ledger.estimated:
        print(
            "Estimated: the run began before ledgers were kept, or its ledger was lost. What came before is its "
            "manifest's threads times its metrics' wall time, without evaluations."
        )
    return 0


def _check(options: CostOptions) -> None:
    """Refuse options that have no meaning together."""
    if options.project and options.cores is None:
        raise UsageError("--project needs the number of cores to project to: add --cores, as in --cores 1440.")
    if not options.project and options.cores is not None:
        raise UsageError(f"--cores {options.cores} is for a projection to other cores: add --project, or leave it out.")
    if not options.project and options.exchange is not None:
        raise UsageError(f"--exchange {options.exchange} is for a projection: add --project, or leave it out.")
    if options.cores is not None and not 1 <= options.cores <= MOST_CORES:
        raise UsageError(f"--cores must be at least 1 and at most {MOST_CORES:,}: got {options.cores}.")


def _print_table(found: Price) -> None:
    rows = [("kind of core", "core-hours", f"{found.currency}/core-hour", found.currency, "entry")]
    for line in found.lines:
        of = f"{line.number}: {line.entry.kind}"
        rows.append(
            (
                line.kind,
                amount_text(line.core_hours),
                f"{line.entry.price_per_core_hour:g}",
                amount_text(line.money),
                of,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for kind, hours, each, money, of in rows:
        print(f"{kind:<{widths[0]}}  {hours:>{widths[1]}}  {each:>{widths[2]}}  {money:>{widths[3]}}  {of}")


def _origin(book: PriceBook) -> str:
    """Say where the prices come from."""
    if book.is_built_in:
        return (
            f"Prices: the built-in {book.path}\n"
            "They are an assumption and nobody's offer: write your own into prices.toml."
        )
    sources = "; ".join(f"entry {number}: {entry.source}" for number, entry in enumerate(book.entries, 1))
    return f"Prices: {book.path} ({sources})"


def _print_projection(
    folder: RunFolder,
    ledger: Ledger,
    book: PriceBook,
    cores: int,
    exchange: Literal["scalars", "parameters"] | None,
) -> None:
    """Print what the run would take on other cores, and the assumptions."""
    from workhorse.distributed.exchange import ExchangeCost, choose
    from workhorse.runs.measured import algorithm_of, measure
    from workhorse.runs.projection import project, projected_ledger

    algorithm = algorithm_of(folder)
    manifest, measured = folder.manifest(), measure(folder, ledger, algorithm)
    told = ExchangeCost.of(algorithm)
    chosen = choose(exchange or "auto", told)
    found = project(measured, cores, chosen, getattr(told, chosen))
    run_wall_s = measured.iteration_s * measured.iterations
    speed_up = run_wall_s / found.wall_s
    there = projected_ledger(found, ledger, manifest.hardware.cpu)
    cost = price(there, book)
    print(f"run         {folder.path}  ({manifest.task} by {manifest.algorithm}, seed {manifest.seed})")
    print(f"measured    {duration_text(run_wall_s)} on {_cores(measured.cores)}, {measured.iterations:,} iterations")
    print(f"projected   {_cores(cores)} and one for the coordinator, exchanging {chosen}")
    print(f"wall time   {duration_text(found.wall_s)}")
    print(f"speed-up    {amount_text(speed_up)} times the run")
    efficiency = 100 * speed_up * measured.cores / cores
    print(f"efficiency  {efficiency:.3g} %  (core-time of the run over that of the {_cores(cores)})")
    print(f"core time   {hours_text(found.core_hours)}")
    print(f"money       {amount_text(cost.total)} {cost.currency}")
    print()
    _print_table(cost)
    print()
    print(_origin(book))
    print("This is a projection, not a measurement. It assumes:")
    priced = "The cores are of the run's own kinds, in the run's own shares, and the coordinator's core is paid too."
    for sentence in (*measured.notes, *found.assumptions, priced):
        print(f"- {sentence}")


def _cores(count: int) -> str:
    return f"{count:,} core{'' if count == 1 else 's'}"
