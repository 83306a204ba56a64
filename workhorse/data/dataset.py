"""A log of episodes in memory or mapped from disk, its card, and the rows that learning reads.

Every format of `workhorse.data` is read into a `Dataset`, and every algorithm that learns from fixed data reads its
rows. Episodes lie one after the other; each has the observation it ended with, so that every step has its true
successor.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from workhorse.core.shown_action import OPTION
from workhorse.core.spec import ActionSpace, Box, Discrete, EnvSpec, MultiBinary, MultiDiscrete

__all__ = ["CHUNK", "MOST_COMPONENTS", "Card", "Dataset", "Kind", "LogRows", "space_from_record", "space_record"]

CHUNK = 65_536
"""Rows looked at at a time, so that a log that is mapped from disk need not fit into memory."""

MOST_COMPONENTS = 10_000_000
"""Components that a space in a file may have: bounds are kept for each."""


Kind = Literal["random", "medium", "medium-replay", "expert", "medium-expert"]
"""Kinds of logs that are made of our own runs."""


@dataclass(frozen=True)
class Card:
    """What a log is, where it came from, and what is in it; plain JSON.

    Attributes:
        name: of the log, as in "hopper-medium".
        task: id of the task that it was recorded on; empty where that is not known.
        task_options: its non-default options.
        observation, action: spaces, as `space_record` writes them.
        num_episodes, num_steps: in the log.
        max_episode_steps: steps after which the task cut an episode; None where it is not known.
        digest: SHA-256 over all arrays, hexadecimal.
        kind: "random", "medium", "medium-replay", "expert", "medium-expert", or "" for a log from elsewhere.
        made: how: runs, iterations, seeds, versions, digests of policies.
        returns: what its episodes returned: mean, standard deviation, least, most, and a histogram (edges, counts).
        coverage: how much of the spaces it visits.
        references: returns that scores are measured against: "random" and "expert", of our own.
        notes: a sentence each.
    """

    name: str
    task: str
    task_options: dict[str, Any]
    observation: dict[str, Any]
    action: dict[str, Any]
    num_episodes: int
    num_steps: int
    max_episode_steps: int | None
    digest: str
    kind: str = ""
    made: dict[str, Any] = field(default_factory=dict)
    returns: dict[str, Any] = field(default_factory=dict)
    coverage: dict[str, Any] = field(default_factory=dict)
    references: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


HASHED_BYTES = 2**24
"""Bytes that are hashed at a time."""


class LogRows(NamedTuple):
    """Rows that an algorithm learns from, leading axis N; see `workhorse.core.types.Transitions` for the columns.

    Attributes:
        next_action: the action that the log takes at `next_obs`, in the algorithm's own numbers; at the end of an
            episode, where there is none, the last one once more.
        return_to_go: discounted sum of the rewards from here to the end of the episode, float32. *Where a clock ended
            the episode it is a lower end of the truth only if no reward is negative.*
    """

    obs: Any
    action: Any
    reward: Any
    discount: Any
    next_obs: Any
    terminated: Any
    truncated: Any
    steps: Any
    index: Any
    next_action: Any
    return_to_go: Any


@dataclass(frozen=True)
class Dataset:
    """Episodes one after the other.

    Attributes:
        card: what they are.
        obs: what was acted on, (N, ...), as the task gave it.
        action: what was done, *in the task's own numbers*, (N, ...).
        reward: (N,).
        terminated, truncated: bool (N,), never merged. The last step of an episode has one of them, or neither where
            the recording just broke off, which counts as truncated in what is learnt from.
        final_obs: the observation after the last step of each episode, (E, ...).
        begins: number of the first step of each episode, int64 (E,), ascending from 0.
        log_prob: log density of each action under the policy that took it, (N,); None where it is not known.

    Example:
        >>> from workhorse.core.spec import Box, Discrete
        >>> log = Dataset.of(
        ...     "two-steps", Box.unbounded(1), Discrete(2), obs=np.zeros((3, 1)), action=np.array([0, 1, 1]),
        ...     reward=np.ones(3), terminated=np.array([False, True, False]), truncated=np.zeros(3, bool),
        ...     final_obs=np.ones((2, 1)), begins=np.array([0, 2]),
        ... )
        >>> log.num_episodes, log.returns().tolist(), log.next_obs(np.arange(3)).ravel().tolist()
        (2, [2.0, 1.0], [0.0, 1.0, 1.0])
    """

    card: Card
    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    final_obs: np.ndarray
    begins: np.ndarray
    log_prob: np.ndarray | None = None

    @staticmethod
    def of(
        name: str, observation: Box, action_space: ActionSpace, *, task: str = "", max_episode_steps: int | None = None,
        task_options: dict[str, Any] | None = None, **columns: Any,
    ) -> Dataset:  # fmt: skip
        """Return a data set with a card made of its columns, `obs` to `log_prob`."""
        card = Card(
            name, task, dict(task_options or {}), space_record(observation), space_record(action_space),
            len(columns["begins"]), len(columns["reward"]), max_episode_steps, "",
        )  # fmt: skip
        made = Dataset(card, **columns)
        return replace(made, card=replace(card, digest=made.digest(), returns=made.described_returns()))

    # --- what is there ---

    @property
    def num_steps(self) -> int:
        return len(self.reward)

    @property
    def num_episodes(self) -> int:
        return len(self.begins)

    @property
    def observation(self) -> Box:
        """Space of the observations."""
        space = space_from_record(self.card.observation)
        assert isinstance(space, Box)
        return space

    @property
    def action_space(self) -> ActionSpace:
        """Space of the actions."""
        return space_from_record(self.card.action)

    @cached_property
    def ends(self) -> np.ndarray:
        """Number of the step after the last of each episode, int64 (E,)."""
        return np.append(self.begins[1:], self.num_steps).astype(np.int64)

    @property
    def lengths(self) -> np.ndarray:
        """Steps of each episode, int64 (E,)."""
        return self.ends - self.begins

    def episode_of(self, index: np.ndarray) -> np.ndarray:
        """Return the number of the episode of each step."""
        return np.searchsorted(self.begins, index, side="right") - 1

    def returns(self) -> np.ndarray:
        """Return the undiscounted return of each episode, float64 (E,)."""
        return np.add.reduceat(np.asarray(self.reward, np.float64), self.begins)

    def described_returns(self) -> dict[str, Any]:
        """Return what a card says of the episodes' returns."""
        found = self.returns()
        counts, edges = np.histogram(found, bins=20)
        return {
            "mean": float(found.mean()), "std": float(found.std()), "least": float(found.min()),
            "most": float(found.max()), "edges": edges.tolist(), "counts": counts.tolist(),
        }  # fmt: skip

    def spec(self) -> EnvSpec:
        """Return the task as far as the log tells it, for learning without an environment."""
        name, steps = self.card.task or self.card.name, self.card.max_episode_steps
        shown = tuple((name, value) for name, value in self.card.task_options.items() if name == OPTION)
        return EnvSpec(name, self.observation, self.action_space, steps, options=shown)

    def next_obs(self, index: np.ndarray) -> np.ndarray:
        """Return the true successors of steps, (K, ...)."""
        episode = self.episode_of(index)
        is_last = index + 1 == self.ends[episode]
        following = np.asarray(self.obs[np.where(is_last, index, index + 1)])
        return np.where(is_last.reshape(-1, *[1] * (following.ndim - 1)), self.final_obs[episode], following)

    def is_broken_off(self, index: np.ndarray) -> np.ndarray:
        """Return True for steps after which the recording went no further, without an end of either kind."""
        is_last = index + 1 == self.ends[self.episode_of(index)]
        return is_last & ~(np.asarray(self.terminated[index]) | np.asarray(self.truncated[index]))

    def rows(self, index: np.ndarray, *, n_steps: int, discount: float, spec: EnvSpec) -> LogRows:
        """Return the rows that begin at these steps, actions in the numbers of an algorithm for `spec`.

        Numbers are float32; observations of integers, as images, stay what they are.

        A window of `n_steps` ends with its episode, as in `data.replay.transitions`.

        Args:
            index: numbers of steps, (K,).
            n_steps: the most steps of a window.
            discount: gamma.
            spec: of the algorithm; its `unscaled` says whether actions are rescaled.
        """
        index = np.asarray(index, np.int64)
        end = self.ends[self.episode_of(index)]
        last = np.minimum(index + n_steps, end) - 1
        reward = np.zeros(len(index), np.float64)
        for ahead in range(n_steps):
            now = index + ahead
            reward += np.where(now <= last, discount**ahead * self.reward[np.minimum(now, end - 1)], 0.0)
        steps = (last - index + 1).astype(np.int32)
        terminated = np.asarray(self.terminated[last])
        truncated = np.asarray(self.truncated[last]) | self.is_broken_off(last)
        following = np.where(last + 1 < end, last + 1, last)
        return LogRows(
            _single(self.obs[index]),
            _own_numbers(spec, np.asarray(self.action[index])),
            reward.astype(np.float32),
            (discount**steps * ~terminated).astype(np.float32),
            _single(self.next_obs(last)),
            terminated,
            truncated & ~terminated,
            steps,
            index,
            _own_numbers(spec, np.asarray(self.action[following])),
            self.returns_to_go(discount)[index],
        )

    def returns_to_go(self, discount: float) -> np.ndarray:
        """Return the discounted sum of rewards from each step to the end of its episode, float32 (N,)."""
        known: dict[float, np.ndarray] = self.__dict__.setdefault("_returns_to_go", {})
        if discount not in known:
            reward, found = np.asarray(self.reward, np.float64), np.zeros(self.num_steps)
            for begin, end in zip(self.begins, self.ends, strict=True):
                total = 0.0
                for step in range(end - 1, begin - 1, -1):
                    total = reward[step] + discount * total
                    found[step] = total
            known[discount] = found.astype(np.float32)
        return known[discount]

    def of_episodes(self, episodes: np.ndarray) -> Dataset:
        """Return these episodes alone, in this order, copied."""
        steps = np.concatenate([np.arange(int(self.begins[one]), int(self.ends[one])) for one in episodes])
        lengths = self.lengths[episodes]
        begins = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
        log_prob = None if self.log_prob is None else self.log_prob[steps]
        obs, action, reward, terminated, truncated = (
            np.asarray(column[steps])
            for column in (self.obs, self.action, self.reward, self.terminated, self.truncated)
        )
        card = replace(self.card, num_episodes=len(episodes), num_steps=len(steps))
        final_obs = np.asarray(self.final_obs[episodes])
        made = Dataset(card, obs, action, reward, terminated, truncated, final_obs, begins, log_prob)
        return replace(made, card=replace(made.card, digest=made.digest(), returns=made.described_returns()))

    def chunks(self) -> Iterator[np.ndarray]:
        """Yield the numbers of all steps, a bounded number at a time."""
        for begin in range(0, self.num_steps, CHUNK):
            yield np.arange(begin, min(begin + CHUNK, self.num_steps))

    def digest(self) -> str:
        """Return the SHA-256 over names, dtypes, shapes and bytes of all columns."""
        hasher = hashlib.sha256()
        for name in ("obs", "action", "reward", "terminated", "truncated", "final_obs", "begins", "log_prob"):
            column = getattr(self, name)
            if column is None:
                continue
            hasher.update(f"{name} {column.dtype.str} {column.shape}\n".encode())
            rows = max(HASHED_BYTES // max(column[:1].nbytes, 1), 1)
            for begin in range(0, len(column), rows):
                hasher.update(np.ascontiguousarray(column[begin : begin + rows]).tobytes())
        return hasher.hexdigest()


def _single(obs: np.ndarray) -> np.ndarray:
    obs = np.asarray(obs)
    return obs.astype(np.float32) if obs.dtype.kind == "f" else obs


def _own_numbers(spec: EnvSpec, action: np.ndarray) -> np.ndarray:
    """Return actions of the task, (K, ...), as an algorithm counts them: in [-1, 1] where its spec is rescaled."""
    if isinstance(spec.action, Discrete):
        return action.astype(np.int32)
    if spec.unscaled is None:
        return action.astype(np.float32) if isinstance(spec.action, Box) else action
    middle, half = spec.unscaled.middle_and_half()
    own = (action.astype(np.float64) - middle) / np.where(half > 0, half, 1.0)
    low, high = (np.reshape(bound, spec.action.shape) for bound in (spec.action.low, spec.action.high))  # type: ignore[union-attr]
    return np.clip(own, low, high).astype(np.float32)


def space_record(space: ActionSpace) -> dict[str, Any]:
    """Return a space as plain JSON; infinite bounds are null, and equal ones are written once.

    Example:
        >>> space_record(Box((-1.0, -1.0), (1.0, 1.0)))
        {'kind': 'box', 'shape': [2], 'low': [-1.0], 'high': [1.0]}
    """
    match space:
        case Discrete(count):
            return {"kind": "discrete", "count": count}
        case MultiDiscrete(counts):
            return {"kind": "multi-discrete", "counts": list(counts)}
        case MultiBinary(size):
            return {"kind": "multi-binary", "size": size}
    return {"kind": "box", "shape": list(space.shape), "low": _bounds(space.low), "high": _bounds(space.high)}


def _bounds(values: tuple[float, ...]) -> list[float | None]:
    written = [None if np.isinf(value) else value for value in values]
    return written[:1] if len(set(written)) == 1 else written


def space_from_record(record: dict[str, Any]) -> ActionSpace:
    """Return the space that `space_record` wrote.

    Raises:
        ValueError: it is no such record; the text says why.

    Example:
        >>> space_from_record({"kind": "box", "shape": [2], "low": [None], "high": [1.0]})
        Box(low=(-inf, -inf), high=(1.0, 1.0), shape=(2,))
    """
    try:
        match record["kind"]:
            case "discrete":
                return Discrete(int(record["count"]))
            case "multi-discrete":
                return MultiDiscrete(tuple(int(count) for count in record["counts"]))
            case "multi-binary":
                return MultiBinary(int(record["size"]))
            case "box":
                shape = tuple(int(size) for size in record["shape"])
                size = math.prod(shape)
                if not 0 < size <= MOST_COMPONENTS:
                    raise ValueError(f"a shape of {size:,} components")
                bounds = []
                for name, infinite in (("low", -np.inf), ("high", np.inf)):
                    values = [infinite if value is None else float(value) for value in record[name]]
                    bounds.append(tuple(values * size if len(values) == 1 else values))
                return Box(bounds[0], bounds[1], shape)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{record!r:.80} describes no space ({error})") from error
    raise ValueError(f"{record!r:.80} describes no space")
