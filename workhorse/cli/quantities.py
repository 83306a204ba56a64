"""Write amounts and durations in few characters."""

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


def duration_text(seconds: float) -> str:
    """Return a duration as text in its two largest units.

    Example:
        >>> duration_text(3.21), duration_text(75), duration_text(7260)
        ('3.2 s', '1 min 15 s', '2 h 01 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
