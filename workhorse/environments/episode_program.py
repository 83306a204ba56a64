"""A program in plain Gymnasium that plays one episode again, for whoever looks for a fault of the environment."""

import ast
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from workhorse.core.spec import EnvSpec
from workhorse.environments.wrappers import OWN_CLOCK, SHARED, shared_wrappers

__all__ = ["episode_program"]

MOST_NUMBERS = 50_000
"""Numbers that the actions of an episode may have together, to be written down as a program."""


def episode_program(
    spec: EnvSpec, entry: object, options: Mapping[str, Any], seed: int, actions: Sequence[np.ndarray], why: str
) -> str:
    """Return a program that makes the task, resets it and takes the actions of an episode.

    Args:
        spec: of the task.
        entry: Gymnasium's entry point of it; only one that is text can be found by another program.
        options: of the task, those that every task takes among them.
        seed: of the reset.
        actions: one after the other, as policies give them.
        why: what is to be seen, for the first line.

    Returns:
        Python source; "" where options or the task cannot be written down, or the episode is too long.
    """
    shared = {name: options[name] for name in SHARED if options.get(name)}
    own = {name: value for name, value in options.items() if name not in SHARED}
    own = {name: value for name, value in own.items() if (name, value) != ("max_episode_steps", OWN_CLOCK)}
    form = spec.action_format
    if not isinstance(entry, str) or entry.startswith("__main__") or form is None or not _is_literal(own):
        return ""
    if sum(map(np.size, actions)) > MOST_NUMBERS:
        return ""
    wrappers = shared_wrappers(shared)
    modules = {"gymnasium", *(wrapper.module for wrapper in wrappers)}
    if ":" not in spec.task and not entry.startswith("gymnasium."):
        modules.add(entry.partition(":")[0])
    keywords = "".join(f", {name}={value!r}" for name, value in own.items())
    rows = [np.asarray(form.write(spec.action, action)).tolist() for action in actions]
    lines = [
        f"# Plays the episode again in which {' '.join(why.split())}",
        "import sys",
        "",
        "import numpy as np",
        "",
        'sys.path.append("")  # modules of the current folder',
        *(f"import {module}" for module in sorted(modules)),
        "",
        f"env = gymnasium.make({spec.task!r}, disable_env_checker=True{keywords})",
        *(f"env = {wrapper.call('env')}" for wrapper in wrappers),
        f"print(env.reset(seed={seed}))",
        f"for action in np.array({rows}, {form.dtype!r}):",
        "    print(env.step(action))",
        "",
    ]
    return "\n".join(lines)


def _is_literal(options: dict[str, Any]) -> bool:
    """Return whether options can be written down as Python's literals."""
    try:
        return ast.literal_eval(repr(options)) == options and all(map(str.isidentifier, options))
    except (ValueError, SyntaxError):
        return False
