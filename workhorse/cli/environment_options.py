"""Options that any task takes: its own, wrappers, stacked frames, a time limit."""

import dataclasses
from typing import Annotated, Any

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from workhorse.cli.kinds import WHOLE_NUMBER, whole_number
from workhorse.cli.options import Count, parse_task_options
from workhorse.core.errors import UsageError
from workhorse.environments.wrappers import OWN_CLOCK

__all__ = ["EnvironmentOptions", "task_options_of"]


def _clock(words: list[str]) -> int | str:
    if words[0] == OWN_CLOCK:
        return OWN_CLOCK
    return whole_number(words)


Clock = Annotated[
    int | str,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{WHOLE_NUMBER}|{OWN_CLOCK}",
        instance_from_str=_clock,
        is_instance=lambda value: isinstance(value, int) or value == OWN_CLOCK,
        str_from_instance=lambda value: [str(value)],
    ),
]
"""Whole number of steps, or the word for a task that ends its episodes by itself."""


@dataclasses.dataclass
class EnvironmentOptions:
    """Options of the task itself, which are part of the result."""

    task_option: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """An option of the task, written name=value; may be repeated."""
    wrapper: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A wrapper around the task, module:name or "module:name(4, key=True)"; may be repeated, the innermost first."""
    frame_stack: Count | None = None
    """Give the policy this many of the newest observations, stacked."""
    max_episode_steps: Clock | None = None
    """Steps after which an episode is truncated; own: the task declares no limit, and ends its episodes by itself."""


def task_options_of(options: EnvironmentOptions) -> dict[str, Any]:
    """Return all options of the task as one table, see `workhorse.environments.wrappers`.

    Raises:
        UsageError: a word is not written name=value, or an option is given in two ways.

    Example:
        >>> task_options_of(EnvironmentOptions(("g=9.0",), ("mine:Shaped",), max_episode_steps=200))
        {'g': 9.0, 'wrappers': ['mine:Shaped'], 'max_episode_steps': 200}
    """
    found = parse_task_options(options.task_option)
    own = {
        "wrappers": list(options.wrapper) or None,
        "frame_stack": options.frame_stack,
        "max_episode_steps": options.max_episode_steps,
    }
    for name, value in own.items():
        if value is None:
            continue
        if name in found:
            flag = "wrapper" if name == "wrappers" else name.replace("_", "-")
            raise UsageError(f"{name} is given by --{flag} and by --task-option: leave one of them out.")
        found[name] = value
    return found
