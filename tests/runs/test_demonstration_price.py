"""The price of demonstrations, by numbers computed by hand."""

from pathlib import Path

import polars as pl
import pytest

from workhorse.core.errors import UsageError
from workhorse.runs import demonstration_price
from workhorse.runs.cost import Ledger, PriceBook, PriceEntry
from workhorse.runs.demonstration_price import DemonstrationPrice, check_price, price_to_return

BOOK = PriceBook("EUR", (PriceEntry("*", 3.6, "by hand"),), Path("prices.toml"))


class Run:
    """What is asked of a run folder."""


@pytest.fixture
def run(monkeypatch):
    """A run that held 2 cores for 100 s and was evaluated twice: 200 core-seconds at 3.6 an hour are 0.20."""
    rows = pl.DataFrame({"wall_s": [10.0, 40.0, 80.0], "evaluation_return": [None, -300.0, -100.0]})
    monkeypatch.setattr("workhorse.runs.metrics.read_metrics", lambda folder: rows)
    monkeypatch.setattr(demonstration_price.Ledger, "of", lambda folder: Ledger().charge("EPYC", 2, 100))
    return Run()


def test_the_price_of_the_other_run_is_its_share_until_the_return_was_first_reached(run):
    assert price_to_return(run, -350.0, BOOK) == (pytest.approx(0.20 * 40 / 80), True)
    assert price_to_return(run, -300.0, BOOK) == (pytest.approx(0.10), True)
    assert price_to_return(run, -200.0, BOOK) == (pytest.approx(0.20), True)
    assert price_to_return(run, -50.0, BOOK) == (pytest.approx(0.20), False)


def test_the_line_adds_up_and_says_what_is_not_known():
    whole = DemonstrationPrice(1200, 0.05, 0.0004, "USD", 0.004)
    assert whole.total == pytest.approx(60.0004)
    assert whole.line() == (
        "1,200 demonstrations at 0.05 = 60.00 USD + 0.00040 USD compute, against 0.0040 USD for RL from nothing to the "
        "same return"
    )
    failed = DemonstrationPrice(2, 3, 1, "USD", 7.0, reached=False).line()
    assert failed.endswith("against RL from nothing, which had not reached that return at 7.00 USD")
    assert DemonstrationPrice(0, 3, 0, "USD").line().startswith("0 demonstrations at 3.00 = 0.00 USD + 0.00 USD")


@pytest.mark.parametrize("each", [-1.0, float("nan"), float("inf")])
def test_a_price_that_is_none_is_refused(each):
    with pytest.raises(UsageError, match=f"must be a finite number of at least 0: got {each}"):
        check_price(each)


def test_a_run_without_evaluations_never_got_there(monkeypatch, run):
    monkeypatch.setattr("workhorse.runs.metrics.read_metrics", lambda folder: pl.DataFrame({"wall_s": [1.0]}))
    assert price_to_return(run, -350.0, BOOK) == (pytest.approx(0.20), False)
