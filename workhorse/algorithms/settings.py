"""Settings of a run: the algorithm's defaults, above them the recipe's, above them the user's. Imports no JAX."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from workhorse.algorithms import registry
from workhorse.algorithms.other_names import NOTES, our_name
from workhorse.algorithms.recipes import Recipe
from workhorse.core.errors import UsageError, unknown

__all__ = ["check_names", "merged_settings", "usual_settings"]


def usual_settings(algorithm: str, recipe: Recipe | None) -> dict[str, Any]:
    """Return every option of an algorithm with the value that it has where the user gives none.

    Raises:
        UsageError: the recipe sets an option that the algorithm does not have.
    """
    options = registry.options(algorithm)
    for name in recipe.settings if recipe else {}:
        if name not in options:
            raise UsageError(
                f"The recipe {recipe.name if recipe else ''} sets {name}, which {algorithm} does not have."
            )
    recipes = {name: _as_tuple(value) for name, value in recipe.settings.items()} if recipe else {}
    return {name: option.default for name, option in options.items()} | recipes


def check_names(algorithm: str, names: Iterable[str], others: Sequence[str] = ()) -> None:
    """Raise a `UsageError` where a name is no option of the algorithm.

    Args:
        algorithm: its name.
        names: those that a user gave.
        others: names that could have been meant, because they are known beside the options.
    """
    options = registry.options(algorithm)
    for name in names:
        if name in options:
            continue
        ours = our_name(name, {*options, *others})
        if ours in options or ours in others:
            known = name.replace("_", "-")
            note = f", which {NOTES[known]}" if known in NOTES else ""
            raise UsageError(f"Unknown option of {algorithm} {name!r}: in Workhorse it is {ours}{note}.")
        raise unknown(f"option of {algorithm}", name, [*options, *others], f"workhorse algorithms {algorithm}")


def merged_settings(algorithm: str, recipe: Recipe | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that differ from the algorithm's defaults: the recipe's, and above them the user's.

    The recipe's `hidden` is left out where the policy is linear.

    Raises:
        UsageError: an option that the algorithm does not have, or `hidden` for a linear policy.

    Example:
        >>> merged_settings("ars", None, {"noise_std": 0.1, "policy": "mlp"})
        {'policy': 'mlp', 'noise_std': 0.1}
    """
    check_names(algorithm, given)
    found = usual_settings(algorithm, recipe) | {name: _as_tuple(value) for name, value in given.items()}
    if found.get("policy") == "linear":
        if "hidden" in given:
            raise UsageError(
                "The option hidden is for a policy with layers, but the policy is linear: set policy to mlp, or leave "
                "out hidden."
            )
        found.pop("hidden", None)
    options = registry.options(algorithm)
    return {name: value for name, value in found.items() if value != options[name].default}


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
