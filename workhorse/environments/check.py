"""Test of an environment against its protocol: `check_env` runs it and names the first promise it breaks."""

from collections.abc import Callable
from typing import Any

from workhorse.environments.check_host import HostCheck
from workhorse.environments.check_jax import JaxCheck
from workhorse.environments.promises import PROMISES, BrokenPromise
from workhorse.environments.protocol import HostEnv, JaxEnv

__all__ = ["PROMISES", "BrokenPromise", "check_env"]


def check_env(
    env: HostEnv | JaxEnv | Callable[[], HostEnv | JaxEnv],
    *,
    single_start: bool = False,
    early_truncation: bool = False,
) -> None:
    """Run an environment through its contract.

    Args:
        env: an environment, which is *used up*: it is stepped, reset and, if it is a host environment, closed. Or a
            function that makes a fresh one, and then snapshots are restored in a second environment too. Host
            environments should have at least 3 slots, or the promises about slots are only half tested.
        single_start: the task starts from one state and draws nothing, so different keys give equal episodes.
        early_truncation: the task may truncate before its clock runs out.

    Raises:
        BrokenPromise: the first promise that does not hold, and what was seen instead.

    What a run of random actions does not reach is not checked: a clock longer than the episodes get, for one. Where
    `spec.resume` is "episode", the task is not deterministic and promises about equal bits are skipped.
    """
    given: Any = env
    made = not isinstance(given, type) and isinstance(given, JaxEnv)  # every HostEnv is one by its names
    factory: Any = None if made else given
    first: Any = given if factory is None else factory()
    if isinstance(first, HostEnv):
        HostCheck(first, factory, single_start, early_truncation).run()
    elif isinstance(first, JaxEnv):
        JaxCheck(first, single_start, early_truncation).run()
    else:
        raise TypeError(
            f"check_env takes a HostEnv, a JaxEnv or a function that makes one, not {type(first).__name__}."
        )
