"""The promises that an environment makes, the error that names a broken one, and what both kinds of check share."""

from workhorse.core.spec import ActionSpace, Box, EnvSpec, has_elements

__all__ = ["PROMISES", "BrokenPromise", "check_clock", "check_spaces", "horizon"]

PROMISES = {
    "spec": "the spec, and a pure environment itself, are hashable, and it describes the task",
    "shapes": "shapes and dtypes are those of the spec and the protocol",
    "flags": "terminated and truncated are bool, one a slot, and kept apart",
    "finite": "observations and rewards are finite",
    "clock": "truncated comes with step max_episode_steps of an episode, and not before",
    "equal keys": "equal keys and actions give equal episodes, whatever was done before",
    "different keys": "different keys give different episodes",
    "successor": "next_obs is the true successor, also where the slot was started again",
    "reset observation": "obs is the reset observation where the slot was started again, and next_obs elsewhere",
    "slot order": "permuting the slots permutes the result and changes nothing else",
    "slot subsets": "stepping some slots and then the others equals stepping all",
    "snapshot": "a restored snapshot goes on as spec.resume says",
    "returned arrays": "a later call does not write into returned arrays",
    "close": "close may be called twice",
    "state": "a step keeps the state's tree, shapes and dtypes",
    "jit": "a compiled function gives what the plain one gives",
    "vmap": "mapping over slots gives what a loop over them gives",
    "compilation": "a second call, or one with a step's own state, compiles nothing",
}

_LONGEST = 1100
_WITHOUT_A_CLOCK = 200


class BrokenPromise(AssertionError):
    """Error: an environment does not do what its protocol says; `promise` is the key of `PROMISES`."""

    def __init__(self, task: str, promise: str, found: str) -> None:
        super().__init__(f"{task} breaks the promise {promise!r} ({PROMISES[promise]}): {found}.")
        self.promise = promise


def check_clock(spec: EnvSpec, steps: int, truncated: bool, early_truncation: bool, where: str) -> None:
    """Raise unless `truncated`, after `steps` steps of an episode, is what the clock says."""
    limit = spec.max_episode_steps
    if limit is not None and steps >= limit and not truncated:
        raise BrokenPromise(spec.task, "clock", f"step {steps} of {limit} {where} was not truncated")
    if limit is not None and steps < limit and truncated and not early_truncation:
        raise BrokenPromise(spec.task, "clock", f"step {steps} of {limit} {where} was truncated")


def check_spaces(spec: EnvSpec) -> None:
    """Raise unless the observation and the actions are spaces with something in them."""
    for name, space in (("observation", spec.observation), ("action", spec.action)):
        kinds = Box if name == "observation" else ActionSpace
        if not isinstance(space, kinds) or not has_elements(space):
            raise BrokenPromise(spec.task, "spec", f"{name} is {space}, which is no space or an empty one")


def horizon(spec: EnvSpec) -> int:
    """Return the steps to look at: two more than the clock allows, where that is not too long."""
    return min(spec.max_episode_steps or _WITHOUT_A_CLOCK, _LONGEST) + 2
