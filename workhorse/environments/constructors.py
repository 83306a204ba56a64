"""Tasks given as objects: constructors of environments, and environments that Gymnasium made.

A run needs a name for its task: worker processes make their own environments from it, and so does a resume. The name of
a constructor is module:qualified-name, under which it is found again wherever the module can be imported.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import gymnasium
from gymnasium.envs.registration import EnvSpec

from workhorse.core.errors import UsageError

__all__ = ["Constructor", "found_constructor", "name_of", "named_task", "registered", "remade", "shared_options"]

Constructor: TypeAlias = Callable[..., gymnasium.Env]
"""Class of an environment, or function that returns one."""

_NAMELESS: dict[str, Constructor] = {}
"""Constructors to which no name leads, such as lambdas, by the name that this process gave them."""


_OURS: dict[str, EnvSpec] = {}
"""Records that were registered here, by id."""


def named_task(task: object) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of a task that was given by id, by constructor or as an environment.

    Raises:
        UsageError: it is nothing of these, or an environment that cannot be made again.
    """
    if isinstance(task, str):
        return task, {}
    if isinstance(task, gymnasium.Env):
        return remade(task)
    if isinstance(task, gymnasium.vector.VectorEnv) or hasattr(task, "num_envs"):
        raise UsageError(
            f"Expected one environment as the task, got the vector environment {task}: pass its id or its constructor; "
            "Workhorse makes as many as the algorithm needs (num_envs or slots)."
        )
    if callable(task):
        return name_of(cast(Constructor, task)), {}
    raise UsageError(
        f"Expected a task's id, the constructor of an environment or an environment of Gymnasium, got {task!r}."
    )


def name_of(constructor: Constructor, name: str | None = None) -> str:
    """Return the name of the task that a constructor makes, and remember the constructor.

    Args:
        constructor: class of an environment, or function that returns one.
        name: one that it had before, as in the manifest of a run; by default its own.

    Example:
        >>> from gymnasium.envs.toy_text.taxi import TaxiEnv
        >>> name_of(TaxiEnv)
        'gymnasium.envs.toy_text.taxi:TaxiEnv'
        >>> name_of(lambda: TaxiEnv())
        '__main__:lambda...'
    """
    own = str(getattr(constructor, "__qualname__", type(constructor).__name__))
    place = f"{getattr(constructor, '__module__', '')}:{own}"
    if name is None and _attribute(place) is constructor:
        return place
    if name is None:  # one that no other process gives to another constructor
        name = f"__main__:{re.sub(r'[^A-Za-z0-9_]+', '-', own).strip('-')}.{uuid.uuid4().hex[:8]}"
    _NAMELESS[name] = constructor
    return name


def found_constructor(name: str) -> Constructor | None:
    """Return the constructor of a name whose module was imported; None where there is none.

    Raises:
        UsageError: it was defined in a program or a notebook that is not this one.
    """
    found = _NAMELESS.get(name) or _attribute(name)
    if found is None and name.startswith("__main__:"):
        raise UsageError(
            f"The task {name.partition(':')[2]} was defined in a program or a notebook, and there is none of that name "
            "here: open the run with its constructor, workhorse.Run.open(path, task=constructor), or define it in a "
            "module that can be imported."
        )
    return cast(Constructor, found) if callable(found) else None


def registered(name: str) -> Any:
    """Return Gymnasium's record of a task whose module was imported; None where there is none.

    The task of a constructor is registered at every call, for the constructor may have been defined anew.
    """
    module, _, id = name.rpartition(":")
    found = gymnasium.registry.get(id)
    if not module or (found is not None and found is not _OURS.get(id)):
        return found
    constructor = found_constructor(name)
    if constructor is None:
        return None
    gymnasium.registry[id] = _OURS[id] = EnvSpec(id, entry_point=constructor)
    return _OURS[id]


def remade(env: gymnasium.Env) -> tuple[str, dict[str, Any]]:
    """Return the id and the options by which an environment is made again, its wrappers included.

    What was done to the object after it was made, such as an attribute that was set, is not made again.

    Raises:
        UsageError: Gymnasium did not make it, or a wrapper or an option of it cannot be written down.
    """
    spec = env.spec
    if spec is None:
        raise UsageError(
            f"{env} cannot be made again, which worker processes and a resume have to do, because Gymnasium did not "
            "make it (its spec is None): pass its constructor, a class or a function that returns it."
        )
    registered = gymnasium.registry.get(spec.id)
    if registered is None:
        return name_of(spec.make), {}
    usual = {"render_mode": spec.kwargs.get("render_mode"), **registered.kwargs}
    options = {name: value for name, value in spec.kwargs.items() if name not in usual or usual[name] != value}
    if spec.max_episode_steps != registered.max_episode_steps:
        options["max_episode_steps"] = spec.max_episode_steps
    for name, value in options.items():
        if not _is_literal(value):
            raise UsageError(
                f"{spec.id} cannot be made again from its object, because its option {name}={value!r} cannot be "
                "written down: pass a function that returns the environment."
            )
    wrappers = [_wrapper_text(env, wrapper) for wrapper in spec.additional_wrappers]
    return spec.id, options | ({"wrappers": wrappers} if wrappers else {})


def shared_options(
    wrappers: Sequence[str | type[gymnasium.Wrapper]], frame_stack: int | None, max_episode_steps: int | str | None
) -> dict[str, Any]:
    """Return the options that any task takes, see `workhorse.environments.wrappers`, those that were given.

    Example:
        >>> shared_options([gymnasium.wrappers.ClipAction], None, 200)
        {'wrappers': ['gymnasium.wrappers.transform_action:ClipAction'], 'max_episode_steps': 200}
    """
    if isinstance(wrappers, str) or not isinstance(wrappers, Sequence):
        raise UsageError(f"wrappers must be a list of classes or texts: got {wrappers!r}.")
    texts = [wrapper if isinstance(wrapper, str) else _class_text(wrapper) for wrapper in wrappers]
    given = {"wrappers": texts or None, "frame_stack": frame_stack, "max_episode_steps": max_episode_steps}
    return {name: value for name, value in given.items() if value is not None}


def _class_text(wrapper: object) -> str:
    module, name = getattr(wrapper, "__module__", "__main__"), getattr(wrapper, "__qualname__", "")
    if module == "__main__" or _attribute(f"{module}:{name}") is not wrapper:
        raise UsageError(
            f"The wrapper {wrapper!r} cannot be imported by worker processes: define it in a module, or pass as the "
            "task a function that returns the wrapped environment."
        )
    return f"{module}:{name}"


def _wrapper_text(env: gymnasium.Env, wrapper: Any) -> str:
    """Return a wrapper with its arguments, as the task option `wrappers` has it."""
    kwargs = {} if wrapper.kwargs is None and _takes_only_env(wrapper.entry_point) else wrapper.kwargs
    if kwargs is None or not all(map(_is_literal, kwargs.values())):
        reason = "does not record its arguments" if kwargs is None else "has arguments that cannot be written down"
        raise UsageError(
            f"{env} cannot be made again, which worker processes and a resume have to do, because its wrapper "
            f"{wrapper.name} {reason}: pass a function that returns the environment."
        )
    arguments = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
    return f"{wrapper.entry_point}({arguments})" if arguments else wrapper.entry_point


def _takes_only_env(place: str) -> bool:
    wrapper = _attribute(place)
    return wrapper is not None and len(inspect.signature(wrapper).parameters) == 1


def _is_literal(value: object) -> bool:
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError, TypeError):
        return False


def _attribute(name: str) -> Any:
    """Return what a name leads to in a module that is imported; None where that is nothing."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found
