"""Workhorse: reliable RL training that reports how often it fails.

    import workhorse

    run = workhorse.train("CartPole-v1", "ppo", env_steps=100_000)
    run.policy.predict(obs)

Importing this package imports neither JAX nor a simulator: what is named here is imported where it is first used.
`Policy` loads a trained policy with NumPy alone.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workhorse.api.imitate import imitate as imitate
    from workhorse.api.offline import offline as offline
    from workhorse.api.run import Run as Run
    from workhorse.api.study import Study as Study
    from workhorse.api.study import compare as compare
    from workhorse.api.study import study as study
    from workhorse.api.train import train as train
    from workhorse.core.errors import UsageError as UsageError
    from workhorse.runs.policy import Policy as Policy

_PLACES = {
    "Policy": "runs.policy",
    "Run": "api.run",
    "Study": "api.study",
    "UsageError": "core.errors",
    "compare": "api.study",
    "imitate": "api.imitate",
    "offline": "api.offline",
    "study": "api.study",
    "train": "api.train",
}

__version__ = "0.1.0"
__all__ = ["Policy", "Run", "Study", "UsageError", "__version__", "compare", "imitate", "offline", "study", "train"]


def __getattr__(name: str) -> object:
    if name in _PLACES:
        return getattr(importlib.import_module(f"workhorse.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'workhorse' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
