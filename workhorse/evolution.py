"""Ask and tell: evolution strategies on any function, without a task. See `workhorse.api.evolution`."""

from workhorse.api.evolution import AskTell, AskTellState, Found, make, maximise

__all__ = ["Found", "AskTell", "AskTellState", "make", "maximise"]
