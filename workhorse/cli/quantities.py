"""Write amounts and durations in few characters."""

from workhorse.reports.wording import duration_text

__all__ = ["amount_text", "duration_text"]


def amount_text(value: float) -> str:
    """Return a quantity as text: two decimals from 1 on, two significant digits below.

    Example:
        >>> amount_text(1234.5678), amount_text(0.000123), amount_text(0)
        ('1,234.57', '0.00012', '0.00')
    """
    if value == 0 or value >= 1:
        return f"{value:,.2f}"
    exponent = int(f"{value:.1e}".partition("e")[2])
    return f"{value:.{max(2, 1 - exponent)}f}"
