"""Options that any task takes, beside its own: wrappers, stacked frames, a shown action, and a time limit.

They lie among a task's options under names of their own, as plain JSON, so that all that carries a task's options (a
manifest, a study file, a message to a worker) carries them too:

    {"wrappers": ["gymnasium.wrappers:RescaleAction(-1.0, 1.0)"], "frame_stack": 4, "max_episode_steps": 1000}
    {"previous_action": true}     see `workhorse.environments.shown_action`; or "random"

Nothing here imports Gymnasium before an environment is made.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workhorse.core.errors import TaskError, UsageError
from workhorse.core.modules import import_module
from workhorse.core.spec import EnvSpec

if TYPE_CHECKING:
    import gymnasium

__all__ = [
    "OWN_CLOCK",
    "SHARED",
    "Wrapper",
    "check_shared_options",
    "is_wrapped",
    "make_environment",
    "parse_wrapper",
    "require_time_limit",
    "shared_wrappers",
]

OWN_CLOCK = "own"
"""Value of `max_episode_steps` by which a user says that the task ends every episode by itself."""

SHARED = ("wrappers", "previous_action", "frame_stack")
"""Shared options that become wrappers, where a task is made by Gymnasium."""

_MOST_STACKED = 1000


@dataclass(frozen=True)
class Wrapper:
    """A wrapper as it was named: where it is, and its arguments, which are plain literals."""

    text: str
    module: str
    name: str
    arguments: tuple[Any, ...]
    named: tuple[tuple[str, Any], ...]

    def call(self, env: str) -> str:
        """Return the call in Python that puts it around the environment of that name."""
        arguments = [env, *map(repr, self.arguments), *(f"{name}={value!r}" for name, value in self.named)]
        return f"{self.module}.{self.name}({', '.join(arguments)})"

    def around(self, task: str, env: gymnasium.Env) -> gymnasium.Env:
        """Return an environment with the wrapper around it.

        Raises:
            TaskError: it cannot be found, or made, or is no environment.
        """
        import traceback

        import gymnasium

        try:
            found: Any = import_module(self.module)
            for part in self.name.split("."):
                found = getattr(found, part)
        except Exception as error:
            absent = isinstance(error, AttributeError) or getattr(error, "name", "") == self.module.split(".")[0]
            raise TaskError(
                f"The wrapper {self.text} of {task} cannot be found ({type(error).__name__}: {error}): write "
                "module:name, where the module can be imported from here.",
                "" if absent else traceback.format_exc(),
            ) from error
        try:
            wrapped = found(env, *self.arguments, **dict(self.named))
        except Exception as error:
            called = error.__traceback__ is not None and error.__traceback__.tb_next is None  # it never began
            raise TaskError(
                f"The wrapper {self.text} raised {type(error).__name__}: {error}, when it was put around {task}; give "
                'it the arguments it needs, as in "module:name(4, key=True)".',
                "" if called else traceback.format_exc(),
            ) from error
        if not isinstance(wrapped, gymnasium.Env):
            raise TaskError(
                f"The wrapper {self.text} of {task} returned {type(wrapped).__name__}, which is no gymnasium.Env; "
                "return the wrapped environment."
            )
        return wrapped


def parse_wrapper(text: object) -> Wrapper:
    """Read a wrapper written module:name or module:name(arguments), whose arguments are plain literals.

    Raises:
        UsageError: it is written in another way.

    Example:
        >>> found = parse_wrapper("gymnasium.wrappers:RescaleAction(-1.0, max_action=1.0)")
        >>> found.module, found.name, found.arguments, found.named
        ('gymnasium.wrappers', 'RescaleAction', (-1.0,), (('max_action', 1.0),))
    """
    module, _, call = text.partition(":") if isinstance(text, str) else ("", "", "")
    try:
        tree: ast.expr = ast.parse(call.strip(), mode="eval").body
        arguments, named = (tree.args, tree.keywords) if isinstance(tree, ast.Call) else ([], [])
        name = ast.unparse(tree.func if isinstance(tree, ast.Call) else tree)
        if not all(part.isidentifier() for part in [*module.split("."), *name.split(".")]):
            raise ValueError("no name")
        given = tuple(ast.literal_eval(one) for one in arguments)
        pairs = tuple((str(one.arg), ast.literal_eval(one.value)) for one in named if one.arg is not None)
        if len(pairs) < len(named):
            raise ValueError("** among the arguments")
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise UsageError(
            "A wrapper must be written module:name, or module:name(arguments) with plain numbers, text, lists or "
            f"tables, as in gymnasium.wrappers:RescaleAction(-1.0, 1.0): got {str(text)[:80]!r}."
        ) from error
    return Wrapper(str(text), module, name, given, pairs)


def is_wrapped(options: Mapping[str, object]) -> bool:
    """Tell whether a task's options hold wrappers or stacked frames, which only the Gymnasium adapter can make.

    Example:
        >>> is_wrapped({"frame_stack": 4}), is_wrapped({"max_episode_steps": 100})
        (True, False)
    """
    return bool(options.get("wrappers")) or bool(options.get("frame_stack"))


def check_shared_options(task: str, options: Mapping[str, object]) -> None:
    """Raise a `UsageError` where an option that any task takes has a value that it cannot have."""
    wrappers, frames = options.get("wrappers"), options.get("frame_stack")
    if wrappers is not None:
        if not isinstance(wrappers, list | tuple):
            raise UsageError(f"{task}: wrappers must be a list of texts, as in ['module:name']: got {wrappers!r}.")
        for wrapper in wrappers:
            parse_wrapper(wrapper)
    if frames is not None and not (_is_whole(frames) and 1 <= frames <= _MOST_STACKED):  # type: ignore[operator]
        raise UsageError(
            f"{task}: frame_stack must be a whole number from 1 to {_MOST_STACKED}, the observations that are stacked: "
            f"got {frames!r}."
        )
    shown = options.get("previous_action")
    if not (shown is None or isinstance(shown, bool) or shown == "random"):
        raise UsageError(
            f"{task}: previous_action must be true, false or random, what each observation ends with: got {shown!r}."
        )
    limit = options.get("max_episode_steps")
    if limit is not None and limit != OWN_CLOCK and not (_is_whole(limit) and limit >= 1):  # type: ignore[operator]
        raise UsageError(
            f"{task}: max_episode_steps must be a whole number of at least 1, or {OWN_CLOCK!r} where the task ends "
            f"every episode by itself: got {limit!r}."
        )


def require_time_limit(spec: EnvSpec) -> None:
    """Raise a `UsageError` where an episode of a task may never end, and nobody has said that it will."""
    if spec.max_episode_steps is None and dict(spec.options).get("max_episode_steps") != OWN_CLOCK:
        raise UsageError(
            f"{spec.task} has no time limit, so an episode of it may never end. Give it one with --max-episode-steps "
            f"1000 (the task option max_episode_steps; it truncates the episode), or say --max-episode-steps "
            f"{OWN_CLOCK} where the task ends every episode by itself."
        )


def make_environment(task: str, spec: Any, options: Mapping[str, Any], **extra: Any) -> gymnasium.Env:
    """Return a Gymnasium environment, its wrappers and stacked frames around it.

    Wrappers are outside of Gymnasium's own, the first innermost, so that the time limit counts the environment's steps;
    the previous action is shown outside of them, and frames are stacked outside of all. An environment whose
    constructor has a parameter of a shared option's name keeps that option for itself.

    Args:
        task: the id, for messages.
        spec: Gymnasium's record of the task, or its id.
        options: of the task, shared ones among them.
        extra: more arguments for `gymnasium.make`, such as its render mode.

    Raises:
        TaskError: a wrapper cannot be made.
        Exception: whatever the environment's constructor raises.
    """
    import gymnasium

    own = dict(options)
    shared = {name: own.pop(name) for name in SHARED if name in own and not _takes(spec, name)}
    if own.get("max_episode_steps") == OWN_CLOCK:
        del own["max_episode_steps"]
    env = gymnasium.make(spec, **{"disable_env_checker": True, **own, **extra})
    for wrapper in shared_wrappers(shared):
        env = wrapper.around(task, env)
    return env


def shared_wrappers(options: Mapping[str, Any]) -> list[Wrapper]:
    """Return the wrappers that the shared options among a task's ask for, the innermost first.

    Example:
        >>> [wrapper.name for wrapper in shared_wrappers({"frame_stack": 4, "previous_action": True})]
        ['ShowsAction', 'FrameStackObservation']
    """
    found = [parse_wrapper(text) for text in options.get("wrappers") or ()]
    if shown := options.get("previous_action"):
        found.append(parse_wrapper(f"workhorse.environments.shown_action_wrapper:ShowsAction({shown!r})"))
    if frames := options.get("frame_stack"):
        found.append(parse_wrapper(f"gymnasium.wrappers:FrameStackObservation({frames})"))
    return found


def _takes(spec: Any, name: str) -> bool:
    """Return whether an environment's own constructor has a parameter of that name."""
    import inspect

    from gymnasium.envs.registration import load_env_creator

    entry: Any = getattr(spec, "entry_point", None)
    try:
        creator: Any = load_env_creator(entry) if isinstance(entry, str) else entry
        return name in inspect.signature(creator).parameters
    except Exception:  # it cannot be made either, and `gymnasium.make` says why
        return False


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
