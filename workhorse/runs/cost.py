"""Cost of a run: the core-hours it held, by kind of core, times a price book that the user edits."""

from __future__ import annotations

import fnmatch
import json
import math
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from workhorse.core.errors import UsageError
from workhorse.core.files import ForbiddenFile, read_file, write_file, writing
from workhorse.core.records import OWNER, AtLeastZero, CountFromZero, Text, build, from_json, parse, seal
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import owner_of

__all__ = ["BUILT_IN_PRICES", "UNKNOWN_KIND", "Ledger", "Price", "PriceBook", "PriceEntry", "PriceLine", "price"]

FORMAT = 1
"""Version of the ledger's layout."""

UNKNOWN_KIND = "unknown"
"""The kind of core where the system does not tell the processor's name."""

BUILT_IN_PRICES = Path(__file__).with_name("prices.toml")
"""The price book that is used where the user has none."""

_LAYOUT = "`workhorse cost --help` says where a price book is looked for and what is in it."


@dataclass(frozen=True)
class Ledger:
    """Core-time that a run has held so far. It only grows: work lost to a kill and done again is paid for twice.

    Attributes:
        core_seconds: seconds that cores were held, by kind of core (the processor's name). *Held, not busy*: a core
            that waits costs what one that computes does.
        wall_s: seconds of the clock.
        env_steps: training steps taken.
        estimated: whether a part was reconstructed from the manifest and the metrics, for a run begun before ledgers
            were kept.
    """

    core_seconds: Mapping[str, AtLeastZero] = field(default_factory=dict)
    wall_s: AtLeastZero = 0.0
    env_steps: CountFromZero = 0
    estimated: bool = False

    @property
    def core_hours(self) -> float:
        """Core-hours of all kinds together."""
        return sum(self.core_seconds.values()) / 3600

    def charge(self, kind: str, cores: float, seconds: float) -> Ledger:
        """Return the ledger with more core-seconds of a kind. The clock's time is counted by `passed`.

        Example:
            >>> Ledger().charge("EPYC", 4, 900).charge("Xeon", 2, 900).charge("EPYC", 4, 900).core_hours
            2.5

        Raises:
            ValueError: a number is negative or not finite.
        """
        _check_charge(cores=cores, seconds=seconds)
        kind = kind or UNKNOWN_KIND
        held = self.core_seconds.get(kind, 0.0) + float(cores) * float(seconds)
        return replace(self, core_seconds={**self.core_seconds, kind: held})

    def passed(self, seconds: float, env_steps: int) -> Ledger:
        """Return the ledger with more seconds of the clock, and the run's training steps as they are now.

        Example:
            >>> ledger = Ledger().passed(10, env_steps=1000).passed(2.5, env_steps=1200)
            >>> ledger.wall_s, ledger.env_steps
            (12.5, 1200)

        Raises:
            ValueError: a number is negative or not finite.
        """
        _check_charge(seconds=seconds, env_steps=env_steps)
        return replace(self, wall_s=self.wall_s + float(seconds), env_steps=int(env_steps))

    def to_json(self, owner: str = "") -> str:
        """Return the ledger as strict JSON text with its checksum, and with the run that it belongs to, if given."""
        record = asdict(replace(self, core_seconds=dict(self.core_seconds)))
        return json.dumps(
            seal({"format": FORMAT, **record, **({OWNER: owner} if owner else {})}), indent=2, allow_nan=False
        )

    @staticmethod
    def from_json(text: str | bytes, where: str | os.PathLike[str], owner: str = "") -> Ledger:
        """Read a ledger strictly: every field, no other, each of its type, every number finite and not negative.

        Args:
            text: what `to_json` wrote.
            where: the file it came from, for the message.
            owner: the run that it must be of, see `runs.manifest.owner_of`.

        Raises:
            UsageError: it is not JSON, of another format version, another run's, does not have its checksum, or a field
                is missing, unknown or of another type.
        """
        return from_json(Ledger, text, where, "ledger", FORMAT, owner=owner)

    def write(self, folder: str | os.PathLike[str]) -> None:
        """Write the ledger into a run folder, whole or not at all.

        Raises:
            UsageError: the disk is full, read-only or not there.
        """
        with writing("the ledger", folder):
            write_file(_file(folder), self.to_json(owner_of(folder)).encode())

    @staticmethod
    def of(folder: RunFolder, noted: Callable[[str], None] = lambda sentence: None) -> Ledger:
        """Return the ledger of a run: its own, or an estimate where it keeps none that can be read.

        The estimate is the manifest's threads times the last `wall_s` of the metrics, which counts training and no
        evaluation. Where no iteration was recorded yet, nothing is estimated and the ledger is empty.

        Args:
            folder: of the run.
            noted: is told, in a sentence, of a ledger that is damaged: it is accounting, and nothing waits for it.

        Raises:
            UsageError: the ledger may not be read; there is none, and the manifest or the metrics are damaged.
        """
        file = _file(folder)
        try:
            return Ledger.from_json(read_file(file), file, owner_of(folder))
        except FileNotFoundError:
            return _estimate(folder)
        except ForbiddenFile:
            raise
        except UsageError as error:
            noted(f"{error} Meanwhile it is estimated from the metrics.")
            return _estimate(folder)


@dataclass(frozen=True)
class PriceEntry:
    """Price of a core-hour of one kind of core, as a [[core]] of a price book has it.

    Attributes:
        kind: matched anywhere in the processor's name, upper and lower case alike; * stands for any text.
        price_per_core_hour: in the book's currency, at least 0.
        source: where the price comes from, in the user's words.
    """

    kind: Text
    price_per_core_hour: AtLeastZero
    source: Text

    def matches(self, kind: str) -> bool:
        """Tell whether a kind of core is of this entry.

        Example:
            >>> PriceEntry("amd*7b13", 0.02, "an offer").matches("AMD EPYC 7B13 64-Core Processor")
            True
        """
        return fnmatch.fnmatchcase(kind.lower(), f"*{self.kind.strip().lower()}*")


@dataclass(frozen=True)
class _PriceTable:
    """A price book's file."""

    currency: Text
    core: tuple[PriceEntry, ...]


@dataclass(frozen=True)
class PriceBook:
    """Prices by kind of core, read from a TOML file; nothing in it is executed.

        currency = "EUR"

        [[core]]
        kind = "EPYC"
        price_per_core_hour = 0.02
        source = "our contract, section 3"

        [[core]]
        kind = "*"
        price_per_core_hour = 0.05
        source = "a guess for anything else"

    The first entry that matches a core's name is its price.
    """

    currency: str
    entries: tuple[PriceEntry, ...]
    path: Path

    @property
    def is_built_in(self) -> bool:
        """True for the prices that come with Workhorse: an assumption, and nobody's offer."""
        return self.path == BUILT_IN_PRICES

    def entry_for(self, kind: str) -> PriceEntry:
        """Return the first entry that matches a kind of core.

        Raises:
            UsageError: none does.
        """
        for entry in self.entries:
            if entry.matches(kind):
                return entry
        raise UsageError(
            f"Expected a price for the core {kind!r} in {self.path}, found none: add a [[core]] entry for it, or "
            'a last one with kind = "*" for any other.'
        )

    @staticmethod
    def find(prices: str | os.PathLike[str] | None = None) -> PriceBook:
        """Find the user's price book, or the built-in one.

        Looked for in this order: `prices`; the file named by $WORKHORSE_PRICES; prices.toml in the current folder;
        workhorse/prices.toml in $XDG_CONFIG_HOME, by default ~/.config; the built-in one. *A run folder is not among
        these*: a run that came from elsewhere does not bring its prices.

        Raises:
            UsageError: the file that was named is missing, or the one that was found cannot be used.
        """
        if prices is not None:
            return PriceBook.read(prices)
        if named := os.environ.get("WORKHORSE_PRICES"):
            return PriceBook.read(named, named_by=" (named by $WORKHORSE_PRICES)")
        configured = os.environ.get("XDG_CONFIG_HOME", "")
        config = Path(configured if os.path.isabs(configured) else os.path.expanduser("~/.config"))
        for path in (Path("prices.toml"), config / "workhorse" / "prices.toml"):
            if os.path.exists(path):
                return PriceBook.read(path)
        return PriceBook.read(BUILT_IN_PRICES)

    @staticmethod
    def read(path: str | os.PathLike[str], named_by: str = "") -> PriceBook:
        """Read a price book strictly.

        Args:
            path: the file.
            named_by: what named it, for the message where it is missing.

        Raises:
            UsageError: it is missing or no TOML; a key is missing, unknown or of another type; a price is negative or
                not finite; an entry could never be used.
        """
        file = Path(path)
        noun = f"a price book in {file}{named_by}"
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            raise UsageError(f"Expected {noun}, found none. {_LAYOUT}") from None
        except OSError as error:
            raise UsageError(f"Expected {noun}, but it cannot be read ({error.strerror}). {_LAYOUT}") from error
        table = build(
            _PriceTable, parse(tomllib.loads, content, file, "a price book in TOML", _LAYOUT), str(file), _LAYOUT
        )
        if not table.core:
            raise UsageError(f"Expected at least one [[core]] entry in {file}, got none. {_LAYOUT}")
        for number, entry in enumerate(table.core[:-1], 1):
            if not entry.kind.strip("* "):
                raise UsageError(
                    f"Expected the entry for any other core to be the last in {file}, got kind = {entry.kind!r} in "
                    f"[[core]] entry {number} of {len(table.core)}: those after it would never be used. Move it to the "
                    "end."
                )
        return PriceBook(table.currency.strip(), table.core, file)


@dataclass(frozen=True)
class PriceLine:
    """Part of a price that one kind of core has: `money` = `core_hours` * `entry.price_per_core_hour`.

    `number` is the place of the entry in its price book, from 1.
    """

    kind: str
    number: int
    core_hours: float
    money: float
    entry: PriceEntry


@dataclass(frozen=True)
class Price:
    """Price of a ledger, by kind of core."""

    currency: str
    lines: tuple[PriceLine, ...]

    @property
    def total(self) -> float:
        """Money of all kinds together, in `currency`."""
        return sum(line.money for line in self.lines)


def price(ledger: Ledger, book: PriceBook) -> Price:
    """Price a ledger by a book.

    Example:
        >>> entries = (PriceEntry("epyc", 0.25, "our contract"), PriceEntry("*", 0.5, "a guess"))
        >>> ledger = Ledger().charge("AMD EPYC", 10, 3600).charge("Xeon", 2, 3600)
        >>> price(ledger, PriceBook("EUR", entries, Path("prices.toml"))).total
        3.5

    Raises:
        UsageError: the book has no price for a kind of core.
    """
    lines = []
    for kind, seconds in ledger.core_seconds.items():
        entry = book.entry_for(kind)
        hours, number = seconds / 3600, book.entries.index(entry) + 1
        lines.append(PriceLine(kind, number, hours, hours * entry.price_per_core_hour, entry))
    return Price(book.currency, tuple(lines))


def _file(folder: str | os.PathLike[str]) -> Path:
    return Path(folder) / "ledger.json"


@dataclass(frozen=True)
class _LastRow:
    """The metrics that an estimate needs."""

    wall_s: AtLeastZero
    env_steps: AtLeastZero


def _estimate(folder: RunFolder) -> Ledger:
    """Estimate the ledger of a run that kept none."""
    if not folder.has_metrics:
        return Ledger()
    from workhorse.runs.metrics import read_metrics  # polars takes too long to import where a ledger is there

    rows = read_metrics(folder)
    if not len(rows):
        return Ledger()
    row = rows.row(-1, named=True)
    last = build(
        _LastRow, {name: row.get(name) for name in ("wall_s", "env_steps")}, f"the last row of {folder.metrics}"
    )
    manifest = folder.manifest()
    ledger = Ledger(estimated=True).charge(manifest.hardware.cpu, manifest.threads, last.wall_s)
    return ledger.passed(last.wall_s, int(last.env_steps))


def _check_charge(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0 <= number < math.inf:
            raise ValueError(f"A ledger takes finite numbers of at least 0, got {name}={number!r}.")
