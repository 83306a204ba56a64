"""The previous action as part of the observation, for host environments: a nuisance that imitation stumbles over.

An expert that rarely changes its action can be told by its last one alone. A policy that imitates it and sees that
action learns to repeat itself, and no held-out demonstration shows the mistake (`docs/concepts/causal-confusion.md`).

`workhorse.environments.shown_action_pure` has the same for pure environments, and
`workhorse.environments.shown_action_wrapper` for those that go through the Gymnasium adapter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from workhorse.core.errors import UsageError
from workhorse.core.shown_action import OPTION, Shown, action_bounds, action_numbers, shown_spec
from workhorse.core.spec import EnvSpec
from workhorse.core.types import Step, Tried
from workhorse.environments.actions import random_actions
from workhorse.environments.protocol import HostEnv, Simulator, failure_reason

__all__ = ["ShownAction"]

_DRAWS = np.uint64(0x5AC71013)
"""Mixed into an episode's key, so that what is drawn to be shown is not what the task draws."""


class ShownAction:
    """A host environment whose observations end with the action of the step before: a `HostEnv`.

    (o_t, a_{t-1}), and zeros for a at the start of an episode. Actions are shown as the task was sent them, in its own
    units. `next_obs` of a step shows that step's action; a slot whose simulation failed keeps its last observation.

    Args:
        env: with vectors as observations.
        kind: True; or "random" for a random action of the space instead, drawn from the episode's key.

    Source: de Haan, Jayaraman and Levine 2019, "Causal confusion in imitation learning" (arXiv 1905.11979), whose
    "original" setting is `"random"`.
    """

    def __init__(self, env: HostEnv, kind: Shown) -> None:
        self._env, self._kind = env, kind
        self._space = env.spec.task_action
        self._spec = shown_spec(env.spec, kind)
        self._shown = np.zeros((env.num_slots, action_bounds(self._space).size))
        self._keys = np.zeros((env.num_slots, 2), np.uint64)
        self._times = np.zeros(env.num_slots, np.uint64)

    @property
    def spec(self) -> EnvSpec:
        return self._spec

    @property
    def num_slots(self) -> int:
        return self._env.num_slots

    def reset(self, keys: np.ndarray, slots: np.ndarray | None = None) -> np.ndarray:
        """Start an episode in each of `slots`; see `HostEnv`."""
        obs = self._env.reset(keys, slots)
        rows = slice(None) if slots is None else slots
        self._begin(rows, keys)
        return _joined(obs, self._shown[rows])

    def step(self, actions: np.ndarray, slots: np.ndarray | None = None, reset_keys: np.ndarray | None = None) -> Step:
        """Step `slots`; see `HostEnv`."""
        rows = np.arange(self.num_slots) if slots is None else np.asarray(slots)
        step = self._env.step(actions, slots, reset_keys)
        self._times[rows] += np.uint64(1)
        after = action_numbers(self._space, actions) if self._kind is True else self._drawn(rows)
        after = np.where(step.measures["failed"][:, None], self._shown[rows], after)
        self._shown[rows] = after
        next_obs = obs = _joined(step.next_obs, after)
        ended = np.flatnonzero(step.terminated | step.truncated)
        if reset_keys is not None and len(ended):
            self._begin(rows[ended], reset_keys[ended])
            obs = _joined(step.obs, self._shown[rows])
        return step._replace(obs=obs, next_obs=next_obs)

    def snapshot(self) -> dict[str, np.ndarray]:
        """Return everything the next steps depend on: the task's arrays, and what is shown."""
        own = {"shown": self._shown.copy(), "shown_keys": self._keys.copy(), "shown_times": self._times.copy()}
        return self._env.snapshot() | own

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Put a snapshot's arrays back; the same bits follow."""
        own = {"shown": self._shown, "shown_keys": self._keys, "shown_times": self._times}
        for name, array in own.items():
            given = arrays.get(name)
            if given is None or given.shape != array.shape:
                raise UsageError(
                    f"{self._spec.task}.restore expects {name} of shape {array.shape}, got "
                    f"{'nothing' if given is None else given.shape}: restore with the same option {OPTION}."
                )
        self._env.restore({name: array for name, array in arrays.items() if name not in own})
        for name, array in own.items():
            array[...] = arrays[name]

    def close(self) -> None:
        """Close the task."""
        self._env.close()

    def failure_reason(self, slot: int) -> str:
        """Return why `slot` last failed."""
        return failure_reason(self._env, slot)

    # Simulator: a row of state ends with what is shown.

    def states(self, slots: np.ndarray | None = None) -> np.ndarray:
        """Return the slots' states as rows; see `Simulator`."""
        return np.hstack([self._simulator.states(slots), self._shown[slice(None) if slots is None else slots]])

    def rollout(
        self, states: np.ndarray, plans: np.ndarray, keys: np.ndarray | None = None, *, observed: bool = False
    ) -> Tried:
        """Try plans in copies of the task; see `Simulator`."""
        size = self._shown.shape[1]
        tried = self._simulator.rollout(states[:, :-size], plans, keys, observed=observed)
        count, horizon = plans.shape[:2]
        flat = plans.reshape(count * horizon, *plans.shape[2:])
        if self._kind == "random":  # some noise, and not that of the slot
            flat = random_actions(self._space, (count * horizon,), np.random.default_rng(0))
        shown = action_numbers(self._space, flat).reshape(count, horizon, size)
        last = shown[:, -1] if horizon else states[:, -size:]
        obs = None if tried.next_obs is None else _joined(tried.next_obs, shown)
        return tried._replace(states=np.hstack([tried.states, last]), next_obs=obs)

    def physics(self, states: np.ndarray) -> np.ndarray:
        """Return the coordinates of motion in each row; see `Simulator`."""
        return self._simulator.physics(states[:, : -self._shown.shape[1]])

    def with_physics(self, states: np.ndarray, physics: np.ndarray) -> np.ndarray:
        """Return rows with other coordinates of motion; see `Simulator`."""
        size = self._shown.shape[1]
        changed = self._simulator.with_physics(states[:, :-size], physics)
        return np.hstack([changed, np.broadcast_to(states[:, -size:], (len(changed), size))])

    @property
    def _simulator(self) -> Simulator:
        assert isinstance(self._env, Simulator)
        return self._env

    def _begin(self, rows: Any, keys: np.ndarray) -> None:
        self._shown[rows], self._times[rows] = 0.0, 0
        self._keys[rows] = keys

    def _drawn(self, rows: np.ndarray) -> np.ndarray:
        """Return random actions as numbers, each from its episode's key and time."""
        drawn = []
        for (first, second), time in zip(self._keys[rows], self._times[rows], strict=True):
            bits = np.random.Philox(key=[int(first), int(second ^ _DRAWS)], counter=[0, 0, 0, int(time)])  # type: ignore[arg-type]
            drawn.append(random_actions(self._space, (1,), np.random.Generator(bits)))
        return action_numbers(self._space, np.concatenate(drawn))


def _joined(obs: np.ndarray, shown: np.ndarray) -> np.ndarray:
    return np.concatenate([obs, shown.astype(obs.dtype)], axis=-1)
