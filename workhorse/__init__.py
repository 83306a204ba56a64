"""Workhorse: reliable RL training that reports how often it fails.

Importing this package imports neither JAX nor a simulator. `Policy` loads a trained policy with NumPy alone:

    from workhorse import Policy
    action, _ = Policy.load("runs/<id>/policy").predict(obs, deterministic=True)
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workhorse.runs.policy import Policy as Policy

__version__ = "0.1.0"
__all__ = ["Policy", "__version__"]


def __getattr__(name: str) -> object:
    if name == "Policy":
        from workhorse.runs.policy import Policy

        return Policy
    raise AttributeError(f"module 'workhorse' has no attribute {name!r}")
