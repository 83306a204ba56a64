"""Ask and tell: the evolution strategies of Workhorse on any function, without a task. See `workhorse.api.evolution`."""

from workhorse.api.evolution import Found, Search, Searched, make, maximise

__all__ = ["Found", "Search", "Searched", "make", "maximise"]
