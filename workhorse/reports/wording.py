"""Write numbers for people: four significant digits, intervals in brackets, steps in thousands."""

import math
import re

from workhorse.core.errors import UsageError
from workhorse.environments.bounds import LEAST, MOST
from workhorse.runs.cost import Ledger, PriceBook, price
from workhorse.statistics.intervals import Interval, cut

__all__ = [
    "MOST_POSSIBLE",
    "amount_text",
    "core_unit",
    "cost_texts",
    "count_text",
    "duration_text",
    "ends_text",
    "hours_text",
    "interval_text",
    "label_text",
    "number_text",
    "rate_text",
    "share_text",
    "slug",
    "steps_text",
]

MINUS = "\N{MINUS SIGN}"


def number_text(value: float | None, digits: int = 4) -> str:
    """A number of any size; a dash where there is none.

    Example:
        >>> number_text(3475.21), number_text(-0.0123456), number_text(10000000), number_text(1.5e-7)
        ('3,475', '−0.01235', '10,000,000', '1.5e−7')
        >>> number_text(None), number_text(float("inf"))
        ('–', '∞')
    """
    if value is None or math.isnan(value):
        return "\N{EN DASH}"
    if math.isinf(value):
        return "\N{INFINITY}" if value > 0 else f"{MINUS}\N{INFINITY}"
    size = abs(value)
    if size >= 10 ** (digits - 1) and size < 1e12:
        text = f"{value:,.0f}"
    else:
        text = re.sub(r"e([+-])0*", lambda found: f"e{found[1].strip('+')}", f"{value:.{digits}g}")
    return text.replace("-", MINUS)


def amount_text(value: float) -> str:
    """A quantity of any size: two decimals from 1 on, two digits that say something below.

    Example:
        >>> amount_text(1234.5678), amount_text(0.000123), amount_text(0)
        ('1,234.57', '0.00012', '0.00')
    """
    if value == 0 or value >= 1:
        return f"{value:,.2f}"
    exponent = int(f"{value:.1e}".partition("e")[2])
    return f"{value:.{max(2, 1 - exponent)}f}"


def interval_text(
    interval: Interval | None, digits: int = 4, bounds: tuple[float, float] = (-math.inf, math.inf)
) -> str:
    """An estimate with its interval, cut at the `bounds` of what is possible; an end that is such a bound is marked.

    So is one that was cut before, if the interval's method says so.

    Example:
        >>> interval_text(Interval(3475.2, 3094.1, 3857.4, "Student t"))
        '3,475 [3,094, 3,857]'
        >>> interval_text(Interval(426.0, 305.0, 546.0, "Student t"), bounds=(0.0, 500.0))
        '426 [305, 500 max]'
        >>> interval_text(Interval(426.0, 305.0, 500.0, f"Student t, cut at 500, {MOST}"))
        '426 [305, 500 max]'
    """
    if interval is None:
        return number_text(None)
    return f"{number_text(interval.value, digits)} {ends_text(interval, digits, bounds)}"


def ends_text(interval: Interval, digits: int = 4, bounds: tuple[float, float] = (-math.inf, math.inf)) -> str:
    """The ends of an interval in brackets, as in `interval_text`.

    Example:
        >>> ends_text(Interval(3.0, -2.0, 8.0, "Student t"), bounds=(0.0, 5.0)), MOST_POSSIBLE
        ('[0 min, 5 max]', 'max, min: cut at the greatest or least return that the task can give')
        >>> ends_text(Interval(3.0, -math.inf, math.inf, "Student t"))  # of one value; no bound is known
        '[−∞, ∞]'
    """
    found = cut(interval, bounds)
    is_least = -math.inf < found.low <= bounds[0] and found.low < interval.value
    is_most = math.inf > found.high >= bounds[1] and found.high > interval.value
    low = " min" if LEAST in interval.method or is_least else ""
    high = " max" if MOST in interval.method or is_most else ""
    return f"[{number_text(found.low, digits)}{low}, {number_text(found.high, digits)}{high}]"


MOST_POSSIBLE = "max, min: cut at the greatest or least return that the task can give"
"""What the marks of `interval_text` mean, for the line under a table."""


def share_text(share: float) -> str:
    """A share without its leading zero.

    Example:
        >>> share_text(0.444), share_text(1.0), share_text(-0.25), share_text(0.999)
        ('.44', '1', '−.25', '.999')
    """
    if math.isnan(share) or math.isinf(share):
        return number_text(share)
    text = f"{share:.2f}"
    if text in ("1.00", "-1.00", "0.00", "-0.00") and share not in (0, 1, -1):
        text = f"{share:.3f}"
    text = text.rstrip("0").rstrip(".") if float(text) == int(float(text)) else text
    return re.sub(r"^(-?)0\.", r"\1.", "0" if text == "-0" else text).replace("-", MINUS)


def rate_text(events: int, trials: int, interval: Interval | None) -> str:
    """Return a count of trials, with the interval of the rate.

    Example:
        >>> rate_text(8, 10, Interval(0.8, 0.4439, 0.9748, "Clopper-Pearson"))
        '8 of 10 [.44, .97]'
    """
    text = f"{events:,} of {trials:,}"
    return text if interval is None else f"{text} [{share_text(interval.low)}, {share_text(interval.high)}]"


def steps_text(steps: float) -> str:
    """A number of steps, long ones in thousands or millions.

    Example:
        >>> steps_text(38086), steps_text(2_000_000), steps_text(7_010_420), steps_text(float("inf"))
        ('38.1k', '2M', '7.01M', '∞')
    """
    for letter, unit in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if math.isfinite(steps) and abs(steps) >= max(unit, 1e4):
            return f"{steps / unit:.3g}{letter}"
    return number_text(steps)


def hours_text(core_hours: float) -> str:
    """Core-hours, or core-minutes or core-seconds where those are more telling.

    Example:
        >>> hours_text(2.5), hours_text(0.05), hours_text(0.0005)
        ('2.5 core-hours', '3 core-minutes', '1.8 core-seconds')
    """
    unit, scale = core_unit(core_hours)
    return f"{number_text(core_hours * scale, 3)} {unit}"


def cost_texts(ledger: Ledger, book: PriceBook | None = None) -> dict[str, str]:
    """Return wall time, core time and money of a ledger, in the words that every command and page uses.

    Args:
        ledger: of a run, or of several together.
        book: prices; by default the user's. Where it has none for a core, the text says so.

    Example:
        >>> cost_texts(Ledger().charge("EPYC", 2, 90).passed(90, 1000))["core time"]
        '3 core-minutes'
    """
    try:
        book = book or PriceBook.find()
        money = f"{amount_text(price(ledger, book).total)} {book.currency}"
        money += " (an assumed price: `workhorse cost --help`)" if book.is_built_in else ""
    except UsageError as error:
        money = f"unknown: {error}"
    return {
        "wall time": duration_text(ledger.wall_s),
        "core time": hours_text(ledger.core_hours) + (" (estimated)" if ledger.estimated else ""),
        "money": money,
    }


def core_unit(core_hours: float) -> tuple[str, float]:
    """The unit that suits an amount of core time, and how many of it are an hour.

    Example:
        >>> core_unit(0.05)
        ('core-minutes', 60.0)
    """
    for unit, scale in (("core-hours", 1.0), ("core-minutes", 60.0)):
        if not math.isfinite(core_hours) or core_hours * scale >= 1:
            return unit, scale
    return "core-seconds", 3600.0


def duration_text(seconds: float) -> str:
    """Return a duration in its two largest units.

    Example:
        >>> duration_text(3.21), duration_text(75), duration_text(7260)
        ('3.2 s', '1 min 15 s', '2 h 01 min')
    """
    if not math.isfinite(seconds):
        return number_text(seconds)
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def count_text(number: int, noun: str) -> str:
    """A number of things.

    Example:
        >>> count_text(1, "seed"), count_text(12, "run")
        ('1 seed', '12 runs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def label_text(text: str, longest: int = 46) -> str:
    """A name that fits above a row of a figure.

    Example:
        >>> label_text("ars (learning_rate 0.02, noise_std 0.03)", 20)
        'ars (learning_rate …'
    """
    return text if len(text) <= longest else f"{text[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"


def slug(*names: str) -> str:
    """A file name made of names that users choose.

    Example:
        >>> slug("learning curves", "ALE/Pong-v5 <b>")
        'learning-curves-ALE-Pong-v5-b'
    """
    return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(names)).strip("-.")[:100] or "figure"
