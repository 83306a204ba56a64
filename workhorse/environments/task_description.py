"""Description of a task for a reader: its spaces, clock, options and threshold."""

import dataclasses
import importlib
import inspect
import math
import re
from collections.abc import Mapping
from typing import Any

from workhorse.core.spec import ActionSpace, Box, Discrete, EnvSpec, Goal, MultiBinary, MultiDiscrete
from workhorse.environments import registry
from workhorse.environments.protocol import HostEnv

__all__ = ["TaskDescription", "TaskOption", "describe"]


@dataclasses.dataclass(frozen=True)
class TaskOption:
    """An option of a task: its name, default, and a sentence, "" where its class says nothing."""

    name: str
    default: Any
    sentence: str


@dataclasses.dataclass(frozen=True)
class TaskDescription:
    """What a user wants to know of a task.

    Attributes:
        spec: of the environment with its default options.
        options: what --task-option takes.
        reward_threshold: the mean return at which Gymnasium calls the task solved; None where it names none.
        simulator: what steps it, in words.
    """

    spec: EnvSpec
    options: tuple[TaskOption, ...]
    reward_threshold: float | None
    simulator: str

    @property
    def observation(self) -> str:
        """The observation in words."""
        return _goal(self.spec.observation) if isinstance(self.spec.observation, Goal) else _box(self.spec.observation)

    @property
    def action(self) -> str:
        """The action in words."""
        return _action(self.spec.action)


def describe(id: str) -> TaskDescription:
    """Make a task and return its description.

    Raises:
        UsageError: the task is unknown or cannot be made.
    """
    import gymnasium

    env = registry.make(id, 1, 1)
    if isinstance(env, HostEnv):
        env.close()
    theirs: Any = gymnasium.registry.get(id.rpartition(":")[2])
    task = registry.TASKS.get(id)
    if task is not None:
        module, cls = task.target.split(":")
        factory = getattr(importlib.import_module(module), cls)
        options = _options(getattr(factory, "options_type", factory), {})
    else:
        options = _options(_factory(theirs.entry_point), dict(theirs.kwargs))
    simulators = {"mujoco": "MuJoCo, many simulations in one call", "classic": "JAX, compiled with the policy"}
    simulator = simulators[task.kind] if task else "its own code, step by step in worker processes"
    return TaskDescription(env.spec, options, getattr(theirs, "reward_threshold", None), simulator)


def _factory(entry: Any) -> Any:
    """Return the class or function that a Gymnasium entry point names."""
    if not isinstance(entry, str):
        return entry
    module, _, name = entry.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _options(factory: Any, given: Mapping[str, Any]) -> tuple[TaskOption, ...]:
    """Return the options of a constructor, in its order; `given` are values that the registration fixes as defaults."""
    sentences = _sentences(factory)
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(
        TaskOption(name, given.get(name, parameter.default), sentences.get(name, ""))
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind in plain and name != "render_mode"
    )


def _sentences(cls: Any) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say of each attribute or argument.

    Example:
        >>> class Task:
        ...     '''A task.
        ...
        ...     Attributes:
        ...         low, high: bounds,
        ...             both inside.
        ...         speed: in m/s.
        ...     '''
        >>> _sentences(Task)
        {'low': 'bounds, both inside.', 'high': 'bounds, both inside.', 'speed': 'in m/s.'}
    """
    found: dict[str, str] = {}
    for base in inspect.getmro(cls) if inspect.isclass(cls) else (cls,):
        text = inspect.cleandoc(base.__dict__.get("__doc__") or "") if hasattr(base, "__dict__") else ""
        for section in re.findall(r"^(?:Attributes|Args|Arguments):\n((?:    .*\n?|\n)*)", text, re.M):
            for names, sentence in re.findall(r"^    ([\w, ]+): (.*(?:\n     +.*)*)", section, re.M):
                for name in names.split(","):
                    found.setdefault(name.strip(), " ".join(sentence.split()))
    return found


def _box(space: Box) -> str:
    """Return a box in words.

    Example:
        >>> _box(Box((-1.0,) * 3, (1.0,) * 3)), _box(Box((0.0,) * 6, (255.0,) * 6, (3, 2))), _box(Box.unbounded(1))
        ('3 numbers in [-1, 1]', '3 x 2 numbers in [0, 255]', '1 number without bounds')
    """
    size = " x ".join(map(str, space.shape)) if len(space.shape) > 1 else str(space.size)
    count = f"{size} number{'s' if space.size != 1 else ''}"
    bounds = set(zip(space.low, space.high, strict=True))
    if len(bounds) > 1:
        unbounded = sum(math.isinf(low) and math.isinf(high) for low, high in zip(space.low, space.high, strict=True))
        return f"{count}, each with bounds of its own" if not unbounded else f"{count}, {unbounded} without bounds"
    ((low, high),) = bounds
    if math.isinf(low) and math.isinf(high):
        return f"{count} without bounds"
    return f"{count} in [{low:g}, {high:g}]"


def _goal(space: Goal) -> str:
    return f"{space.size - 2 * space.goal_size} numbers, an achieved and a desired goal of {space.goal_size} each"


def _action(space: ActionSpace) -> str:
    match space:
        case Box():
            return _box(space)
        case Discrete(count):
            return f"one of {count} choices"
        case MultiDiscrete(counts):
            return f"{len(counts)} choices at once, of {', '.join(map(str, counts))}"
        case MultiBinary(size):
            return f"{size} switches, each on or off"
