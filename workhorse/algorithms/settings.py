"""Settings of a run: the algorithm's defaults, above them the recipe's, above them the user's. Imports no JAX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workhorse.algorithms import registry
from workhorse.algorithms.recipes import Recipe
from workhorse.core.errors import UsageError, unknown

__all__ = ["merged_settings", "usual_settings"]


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


def merged_settings(algorithm: str, recipe: Recipe | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that differ from the algorithm's defaults: the recipe's, and above them the user's.

    The recipe's `hidden` is left out where the policy is linear.

    Raises:
        UsageError: an option that the algorithm does not have, or `hidden` for a linear policy.

    Example:
        >>> merged_settings("ars", None, {"noise_std": 0.1, "policy": "mlp"})
        {'policy': 'mlp', 'noise_std': 0.1}
    """
    options = registry.options(algorithm)
    for name in given:
        if name not in options:
            raise unknown(f"option of {algorithm}", name, list(options), f"workhorse algorithms {algorithm}")
    found = usual_settings(algorithm, recipe) | {name: _as_tuple(value) for name, value in given.items()}
    if found.get("policy") == "linear":
        if "hidden" in given:
            raise UsageError(
                "The option hidden is for a policy with layers, but the policy is linear: set policy to mlp, or leave "
                "out hidden."
            )
        found.pop("hidden", None)
    return {name: value for name, value in found.items() if value != options[name].default}


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
