"""Price of demonstrations as the user types it, beside that of computing, and of learning without any."""

from __future__ import annotations

import math
from dataclasses import dataclass

from workhorse.core.errors import UsageError
from workhorse.data.opening import open_dataset
from workhorse.runs.cost import Ledger, PriceBook, price
from workhorse.runs.folder import RunFolder

__all__ = ["DemonstrationPrice", "check_price", "demonstrations_of", "price_to_return"]


@dataclass(frozen=True)
class DemonstrationPrice:
    """What a policy cost that was learnt from demonstrations.

    Attributes:
        count: episodes that an expert showed, or answered in; those that were only measured on are paid as well.
        each: money for one.
        computing: money for the run's core-time.
        currency: of all of them.
        others: money for core-time to the same return by learning from nothing; None where that is not known.
        reached: False where the other run never got to that return, so that `others` is what it cost to fail.
    """

    count: int
    each: float
    computing: float
    currency: str
    others: float | None = None
    reached: bool = True

    @property
    def total(self) -> float:
        """Money for the demonstrations and the computing together.

        Example:
            >>> round(DemonstrationPrice(25, 2.5, 0.01, "USD").total, 2)
            62.51
        """
        return self.count * self.each + self.computing

    def line(self) -> str:
        r"""Return one line.

        Example:
            >>> print(DemonstrationPrice(25, 2.5, 0.01, "USD", 1.2).line().replace(", ", ",\n"))
            25 demonstrations at 2.50 = 62.50 USD + 0.01 USD compute,
            against 1.20 USD for RL from nothing to the same return
            >>> DemonstrationPrice(1, 2.5, 0.004, "EUR").line()
            '1 demonstration at 2.50 = 2.50 EUR + 0.0040 EUR compute; no run of RL from nothing is known'
        """
        many = "" if self.count == 1 else "s"
        paid = f"{self.count:,} demonstration{many} at {_money(self.each)} = {_money(self.count * self.each)}"
        told = f"{paid} {self.currency} + {_money(self.computing)} {self.currency} compute"
        if self.others is None:
            return f"{told}; no run of RL from nothing is known"
        if not self.reached:
            spent = f"{_money(self.others)} {self.currency}"
            return f"{told}, against RL from nothing, which had not reached that return at {spent}"
        return f"{told}, against {_money(self.others)} {self.currency} for RL from nothing to the same return"


def _money(value: float) -> str:
    """Two decimals, and two digits that say something below 0.01."""
    if value == 0 or value >= 0.01:
        return f"{value:,.2f}"
    return f"{value:.{1 - math.floor(math.log10(value))}f}"


def check_price(each: float) -> None:
    """Raise a `UsageError` where a demonstration cannot cost that."""
    if not 0 <= each < math.inf:
        raise UsageError(f"The price of a demonstration must be a finite number of at least 0: got {each}.")


def demonstrations_of(folder: RunFolder) -> int | None:
    """Return the episodes of an expert that a run has used; None where it has used none."""
    from workhorse.runs.metrics import read_metrics

    sources = folder.manifest().sources
    if sources is None:
        return None
    if sources.log:
        return open_dataset(sources.log).num_episodes
    rows = read_metrics(folder)
    return int(rows["demonstrations"][-1]) if "demonstrations" in rows.columns and len(rows) else None


def price_to_return(folder: RunFolder, wanted: float, book: PriceBook) -> tuple[float, bool]:
    """Return what a run cost until an evaluation first reached a return, and whether one did.

    The ledger's price is shared out by the clock of training: evaluations in between are in it, in that share.

    Raises:
        UsageError: the run has no metrics, or the book no price for its cores.
    """
    from workhorse.runs.metrics import read_metrics

    rows, whole = read_metrics(folder), price(Ledger.of(folder), book).total
    found = rows["evaluation_return"].to_list() if "evaluation_return" in rows.columns else []
    for value, wall_s in zip(found, rows["wall_s"].to_list(), strict=False):
        if value is not None and value >= wanted:
            return whole * wall_s / rows["wall_s"][-1], True
    return whole, False
