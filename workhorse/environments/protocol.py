"""The two kinds of environment: pure functions of one slot (JAX), and B slots in the host's memory."""

from typing import Any, Protocol, runtime_checkable

import numpy as np

from workhorse.core.spec import EnvSpec
from workhorse.core.types import Step, Tried

__all__ = ["BeginsAgain", "HostEnv", "JaxEnv", "Simulator", "failure_reason"]


@runtime_checkable
class JaxEnv(Protocol):
    """Pure environment, written for one slot; the loop maps it.

    `reset(key)` returns (state, observation). `step(state, action, key)` returns (state, Step) with no leading axis;
    it does *not* reset by itself: `obs` equals `next_obs`, and the caller resets where the episode ended. The state
    holds the clock, so that `truncated` needs nothing from outside.

    The object is hashable, and equal to another of the same options: equal ones share a compiled program.
    """

    @property
    def spec(self) -> EnvSpec: ...

    def reset(self, key: Any) -> tuple[Any, Any]: ...

    def step(self, state: Any, action: Any, key: Any) -> tuple[Any, Step]: ...


@runtime_checkable
class HostEnv(Protocol):
    """B slots stepped together, NumPy in and out, slots independent of one another.

    `reset(keys, slots)` starts an episode in each of `slots` (all B where None): `keys` is uint64 (n, 2), one address
    a slot (`workhorse.core.addresses.host_keys`), and equal keys give equal episodes. It returns their observations,
    (n, ...) with the shape of `spec.observation`.

    `step(actions, slots, reset_keys)` steps only `slots` (all B where None) and returns a `Step` of n rows in the
    order of `slots`. Actions lie in `spec.action`: (n, ...) with the shape of a `Box`, integers (n,) for `Discrete`
    and (n, A) for `MultiDiscrete` and `MultiBinary`. Where `reset_keys` (n, 2) is given, an ended episode is started
    again with its row's key and `obs` is the reset observation; where it is None, `obs` equals `next_obs`, and an ended
    slot stays ended and must be reset before it is stepped again. `next_obs` is the true successor either way.
    `measures["failed"]`, bool (n,), marks a slot whose simulation broke (simulator error, NaN): its episode ends as
    truncated with reward 0 and its last finite observation as `next_obs`, and no other slot is touched. Rewards are
    float64; observations are float64 or float32, those of images too. Returned arrays belong to the caller: a later
    call never writes into them.

    `snapshot()` returns named arrays that hold everything the next steps depend on; `restore(arrays)` puts them back,
    also in another process and at another thread count, and the same bits follow (see `EnvSpec.resume`).
    """

    @property
    def spec(self) -> EnvSpec: ...

    @property
    def num_slots(self) -> int: ...

    def reset(self, keys: np.ndarray, slots: np.ndarray | None = None) -> np.ndarray: ...

    def step(
        self, actions: np.ndarray, slots: np.ndarray | None = None, reset_keys: np.ndarray | None = None
    ) -> Step: ...

    def snapshot(self) -> dict[str, np.ndarray]: ...

    def restore(self, arrays: dict[str, np.ndarray]) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class BeginsAgain(HostEnv, Protocol):
    """A `HostEnv` that may have `spec.resume == "episode"`, from the start or once a restored slot came out otherwise.

    `observations` are what the restored slots start from; `notes()` returns sentences for the user, each once.
    """

    @property
    def observations(self) -> np.ndarray: ...

    def notes(self) -> list[str]: ...


@runtime_checkable
class Simulator(HostEnv, Protocol):
    """A `HostEnv` that can be tried from any state: what planners, linear control and the adviser's probes ask for.

    `states(slots)` returns all that the next steps of the slots depend on, but the clock, float64 (n, S), a row each.

    `rollout(states, plans, keys, observed)` steps copies of the task: plan i, of actions (H, ...) in `spec.action`,
    from row i. The slots themselves are not touched. A copy has no clock, goes on past an end, and has the task's own
    model, unperturbed. Equal rows and plans give equal bits, *those of `step` itself*, whatever stands beside them.
    `keys` (N, 2) are for tasks that draw noise in a step: the t-th step of a plan, from 1, draws from
    `fold_in(key, t)`; where it is None the noise is some noise, and not that of the slot.

    `physics(states)` returns the coordinates of the motion in each row, positions and then velocities, (n, X);
    `with_physics(states, physics)` returns rows that have other ones.
    """

    def states(self, slots: np.ndarray | None = None) -> np.ndarray: ...

    def rollout(
        self, states: np.ndarray, plans: np.ndarray, keys: np.ndarray | None = None, *, observed: bool = False
    ) -> Tried: ...

    def physics(self, states: np.ndarray) -> np.ndarray: ...

    def with_physics(self, states: np.ndarray, physics: np.ndarray) -> np.ndarray: ...


def failure_reason(env: HostEnv, slot: int) -> str:
    """Return why the slot's simulation broke, where the environment can tell."""
    tell = getattr(env, "failure_reason", None)  # only environments that run someone else's code keep a reason
    return "the simulation failed" if tell is None else str(tell(slot))
