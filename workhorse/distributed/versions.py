"""Check that two processes can be expected to compute the same bits."""

from collections.abc import Mapping

__all__ = ["mismatch"]


def mismatch(coordinator: Mapping[str, str], worker: Mapping[str, str]) -> str | None:
    """Return a sentence about the first version that differs; None where all are equal.

    Python's own version is left out: nothing that is computed depends on it.

    Example:
        >>> mismatch({"jax": "0.10.2"}, {"jax": "0.10.2"}) is None
        True
        >>> mismatch({"jax": "0.10.2"}, {"jax": "0.9.0"}).partition(":")[2]
        ' the coordinator has 0.10.2, the worker 0.9.0. Install the same versions (constraints.txt) on both.'
    """
    for package in dict.fromkeys([*coordinator, *worker]):
        ours, theirs = coordinator.get(package, "none"), worker.get(package, "none")
        if ours != theirs and package != "python":
            return (
                f"{package} must be the same everywhere, or results differ in their bits: the coordinator has {ours}, "
                f"the worker {theirs}. Install the same versions (constraints.txt) on both."
            )
    return None
