"""Ask and tell: evolution strategies on any function, without a task. See `workhorse.api.evolution`."""

from workhorse.api.evolution import Found, AskTell, AskTellState, make, maximise

__all__ = ["Found", "AskTell", "AskTellState", "make", "maximise"]
