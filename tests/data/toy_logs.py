"""Logs whose every number is told apart, and strategies that draw any log."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from workhorse.core.spec import Box, Discrete, MultiBinary, MultiDiscrete
from workhorse.data.dataset import Dataset

COLUMNS = ("obs", "action", "reward", "terminated", "truncated", "final_obs", "begins", "log_prob")


def walk(lengths=(3, 4, 2), ends="tcb", action_space=None, **others):
    """Return a log in which observation t of episode e is [e, t], reward e + t / 100, action t / 100.

    `ends` has a letter an episode: t for terminated, c for cut by a clock, b for broken off.
    """
    begins = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    episode = np.repeat(np.arange(len(lengths)), lengths)
    step = np.arange(sum(lengths)) - begins[episode]
    last = np.cumsum(lengths) - 1
    flags = {letter: np.zeros(sum(lengths), bool) for letter in "tc"}
    for place, letter in zip(last, ends, strict=True):
        if letter != "b":
            flags[letter][place] = True
    action = step.astype(np.int64) % 3 if isinstance(action_space, Discrete) else (step / 100)[:, None]
    return Dataset.of(
        "walk", Box.unbounded(2), action_space or Box((-1.0,), (1.0,)),
        obs=np.stack([episode, step], 1).astype(np.float64), action=action, reward=episode + step / 100,
        terminated=flags["t"], truncated=flags["c"],
        final_obs=np.stack([np.arange(len(lengths)), lengths], 1).astype(np.float64), begins=begins, **others,
    )  # fmt: skip


def assert_same_columns(found, wanted):
    """Compare bits, dtypes and shapes, NaN with NaN."""
    for name in COLUMNS:
        one, other = getattr(found, name), getattr(wanted, name)
        assert (one is None) == (other is None), name
        if one is not None:
            assert (one.dtype, one.shape) == (other.dtype, other.shape), name
            assert np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes(), name


def numbers(dtype, shape):
    width = 8 * np.dtype(dtype).itemsize
    return npst.arrays(dtype, shape, elements=st.floats(-1e6, 1e6, width=width))


def made(parts):
    """Return the log of what `parts` drew."""
    shape = parts["obs"].shape[1:]
    observation = Box.of(np.full(shape, -np.inf), np.full(shape, np.inf))
    return Dataset.of("drawn", observation, SPACES[parts.pop("space")], **parts)


SPACES = {
    "number": Box((-2.0,), (2.0,)),
    "numbers": Box((-2.0, 0.0), (2.0, 1.0)),
    "matrix": Box.of(np.full((2, 2), -1.0), np.full((2, 2), 1.0)),
    "choice": Discrete(3),
    "choices": MultiDiscrete((2, 3)),
    "switches": MultiBinary(3),
}


@st.composite
def parts(draw, is_table=False):
    """Parts of any log: kinds of spaces, dtypes, episodes of one step, all kinds of ends, with and without log_prob.

    `is_table` leaves out what a table without a card cannot hold: matrices, and choices of several components.
    """
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    steps, episodes = sum(lengths), len(lengths)
    shape = draw(st.sampled_from([(1,), (3,)] if is_table else [(1,), (3,), (2, 2), (2, 3, 1)]))
    dtype = draw(st.sampled_from([np.float64] if is_table else [np.float32, np.float64, np.uint8]))
    of_obs = numbers if dtype != np.uint8 else npst.arrays
    space = draw(st.sampled_from(["number", "numbers", "choice"] if is_table else list(SPACES)))
    kinds = st.sampled_from(["terminated", "truncated", "both", "neither"])
    ends = draw(st.lists(kinds, min_size=episodes, max_size=episodes))
    last = np.cumsum(lengths) - 1
    terminated, truncated = np.zeros(steps, bool), np.zeros(steps, bool)
    terminated[last] = [end in ("terminated", "both") for end in ends]
    truncated[last] = [end in ("truncated", "both") for end in ends]
    return {
        "space": space,
        "obs": draw(of_obs(dtype, (steps, *shape))),
        "action": _actions(draw, space, steps),
        "reward": draw(numbers(np.float64 if is_table else draw(st.sampled_from([np.float32, np.float64])), steps)),
        "terminated": terminated,
        "truncated": truncated,
        "final_obs": draw(of_obs(dtype, (episodes, *shape))),
        "begins": np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64),
        "log_prob": draw(st.none() | numbers(np.float64, steps)),
        "max_episode_steps": draw(st.none() | st.just(5)),
    }


def _actions(draw, space, steps):
    count = np.arange(steps)
    match space:
        case "choice":
            return count % 3  # the last choice is taken wherever there are three steps
        case "choices":
            return np.stack([count % 2, count % 3], 1).astype(np.int32)
        case "switches":
            return np.stack([count % 2, count % 3 == 0, count % 2], 1).astype(np.int8)
    return draw(numbers(np.float64, (steps, *{"number": (1,), "numbers": (2,), "matrix": (2, 2)}[space])))
