"""Every task Workhorse knows, by id, without importing JAX or a simulator.

Ids are Gymnasium's. `make` builds an environment; what is not in the table is looked for in Gymnasium's own registry
and goes through the adapter, so a user's registered environment trains with no change to it.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workhorse.core.errors import UsageError, unknown
from workhorse.environments.wrappers import OWN_CLOCK, check_shared_options, is_wrapped

if TYPE_CHECKING:
    from workhorse.environments.protocol import HostEnv, JaxEnv

__all__ = ["TASKS", "Task", "is_native", "make"]


@dataclass(frozen=True)
class Task:
    """One row of the table: where a task's class lives and one line about it."""

    id: str
    kind: str  # "mujoco" or "classic"
    target: str  # "module:Class"
    summary: str


def _mujoco(name: str, module: str, summary: str) -> Task:
    return Task(f"{name}-v5", "mujoco", f"workhorse.environments.mujoco.{module}:{name}", summary)


def _classic(id: str, module: str, cls: str, summary: str) -> Task:
    return Task(id, "classic", f"workhorse.environments.classic.{module}:{cls}", summary)


TASKS: dict[str, Task] = {
    task.id: task
    for task in (
        _mujoco("HalfCheetah", "half_cheetah", "a planar cheetah runs; it cannot fall out of the task"),
        _mujoco("Hopper", "hopper", "a one-legged planar robot hops without falling"),
        _mujoco("Walker2d", "walker2d", "a two-legged planar robot walks without falling"),
        _mujoco("Swimmer", "swimmer", "a three-link chain swims in a viscous plane"),
        _mujoco("Ant", "ant", "a four-legged robot walks in space"),
        _mujoco("Humanoid", "humanoid", "a 17-actuator humanoid walks without falling"),
        _mujoco("HumanoidStandup", "humanoid_standup", "the humanoid, lying down, raises its head"),
        _mujoco("Reacher", "reacher", "a two-link arm reaches a random point"),
        _mujoco("Pusher", "pusher", "a seven-joint arm pushes a cylinder to a goal"),
        _mujoco("InvertedPendulum", "inverted_pendulum", "a cart balances one pole"),
        _mujoco("InvertedDoublePendulum", "inverted_double_pendulum", "a cart balances two poles in a chain"),
        _classic("CartPole-v1", "cart_pole", "CartPole", "a cart balances a pole with two pushes"),
        _classic("Pendulum-v1", "pendulum", "Pendulum", "a torque-limited pendulum swings up and stays"),
        _classic("Acrobot-v1", "acrobot", "Acrobot", "a two-link chain swings its tip above a line"),
        _classic("MountainCar-v0", "mountain_car", "MountainCar", "a weak car rocks out of a valley"),
        _classic(
            "MountainCarContinuous-v0",
            "mountain_car_continuous",
            "MountainCarContinuous",
            "the same car with a continuous engine and a price on force",
        ),
    )
}


def is_native(id: str, options: Mapping[str, object]) -> bool:
    """Tell whether a task runs on Workhorse's own simulators: it is in the table, and nothing is wrapped around it."""
    return id in TASKS and not is_wrapped(options)


def make(id: str, num_slots: int = 1, num_threads: int = 0, **options: Any) -> HostEnv | JaxEnv:
    """Build a task: a `JaxEnv` (one slot, pure) for classic control, a `HostEnv` of `num_slots` slots otherwise.

    Args:
        id: a Gymnasium id, of the table or registered with Gymnasium by the user ("module:id" imports module first).
        num_slots: slots of a host environment.
        num_threads: simulation threads (worker processes for the adapter); 0 means one a core.
        options: the constructor options Gymnasium offers for the task, by its names, and those that any task takes
            (`workhorse.environments.wrappers`). A task with wrappers goes through the adapter.

    Raises:
        UsageError: the id is known to neither, or an option is not one of the task's.
    """
    check_shared_options(id, options)
    if not is_native(id, options):
        adapter = importlib.import_module("workhorse.environments.gymnasium_adapter")
        if not adapter.is_registered(id):
            raise unknown("task", id, [*adapter.registered_ids(id), *TASKS], "workhorse tasks")
        return adapter.GymnasiumAdapter(id, num_slots, num_threads, **options)
    task = TASKS[id]
    unset = {"wrappers": (None, [], ()), "frame_stack": (None,), "max_episode_steps": (OWN_CLOCK,)}
    options = {name: value for name, value in options.items() if value not in unset.get(name, ())}
    shown = options.pop("previous_action", None)
    module, cls = task.target.split(":")
    factory = getattr(importlib.import_module(module), cls)
    if task.kind == "classic":
        return _showing_action(_classic_task(id, factory, options), shown)
    return _showing_action(factory(num_slots, num_threads, **options), shown)


def _showing_action(env: HostEnv | JaxEnv, shown: Any) -> HostEnv | JaxEnv:
    """Return the environment, its observations ending with the previous action where that is asked for."""
    if not shown:
        return env
    if hasattr(env, "num_slots"):
        return importlib.import_module("workhorse.environments.shown_action").ShownAction(env, shown)
    return importlib.import_module("workhorse.environments.shown_action_pure").ShownActionPure(env, shown)


def _classic_task(id: str, factory: Any, options: dict[str, Any]) -> JaxEnv:
    """Make a classic task from its own options and those of `Change`, which any of them takes."""
    own = [name for name in inspect.signature(factory).parameters if name != "self"]
    if all(name in own for name in options):
        return factory(**options)
    from workhorse.environments.variants import Change, Variant  # JAX is imported only where it is needed

    for name in options:
        if name not in (*own, *Change.names()):
            raise UsageError(
                f"{id} has no option {name!r}; its options are {', '.join(own)}, and those of every classic task: "
                f"{', '.join(Change.names())}. Leave it out, or correct the name."
            )
    change = Change(**{name: value for name, value in options.items() if name not in own})
    env = factory(**{name: value for name, value in options.items() if name in own})
    return env if change == Change() else Variant(env, change)
