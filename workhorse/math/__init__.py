"""Pure mathematics, one sample at a time, each piece with its equation and its source."""

from workhorse.core import numerics  # noqa: F401
