"""Every algorithm by name, with its options, without importing JAX.

Options are read from the source of the algorithm's own dataclass (names, types, defaults and the sentence under each
field), so that `workhorse algorithms` and `--help` answer at once and say exactly what the code says.
"""

from __future__ import annotations

import ast
import functools
import importlib
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from workhorse.core.errors import UsageError, unknown

if TYPE_CHECKING:
    from workhorse.core.spec import EnvSpec

__all__ = ["ALGORITHMS", "Entry", "Option", "entry", "is_on_policy", "make", "options"]


@dataclass(frozen=True)
class Entry:
    """One row of the table: an algorithm's class, a line about it, and the defaults that a preset changes."""

    name: str
    module: str
    cls: str
    summary: str
    preset: Mapping[str, Any] = field(default_factory=dict)


_GRADIENT = "workhorse.algorithms.policy_gradient"
_PLAIN = {
    "orthogonal_initialisation": False,
    "scale_rewards": False,
    "reward_clip": None,
    "normalise_observations": False,
    "observation_clip": None,
    "gradient_clip": None,
    "anneal_learning_rate": False,
    "activation": "relu",
}
"""Every code-level optimisation of Engstrom et al. 2020 off: their PPO-M, and TRPO."""

ALGORITHMS: dict[str, Entry] = {
    row.name: row
    for row in (
        Entry(
            "openai-es",
            "workhorse.algorithms.evolution.openai_es",
            "OpenAIES",
            "evolution strategies: mirrored sampling, centred ranks, Adam",
        ),
        Entry(
            "ars",
            "workhorse.algorithms.evolution.ars",
            "ARS",
            "augmented random search: a step along the best random directions (V1, V1-t, V2, V2-t)",
        ),
        Entry(
            "hill-climb",
            "workhorse.algorithms.evolution.hill_climb",
            "HillClimb",
            "add noise; if the result improves, keep the change; repeat",
        ),
        Entry(
            "finite-differences",
            "workhorse.algorithms.evolution.finite_differences",
            "FiniteDifferences",
            "wiggle one parameter at a time",
        ),
        Entry("reinforce", f"{_GRADIENT}.reinforce", "Reinforce", "scores of actions times the return that followed"),
        Entry("a2c", f"{_GRADIENT}.a2c", "A2C", "advantage actor-critic: one step on every rollout"),
        Entry("ppo", f"{_GRADIENT}.ppo", "PPO", "proximal policy optimisation, with its code-level optimisations"),
        Entry(
            "ppo-m",
            f"{_GRADIENT}.ppo",
            "PPO",
            "ppo without the code-level optimisations of Engstrom et al.",
            _PLAIN,
        ),
        Entry("ppo-noclip", f"{_GRADIENT}.ppo", "PPO", "ppo without the clipped ratio", {"ratio_clip": None}),
        Entry("trpo", f"{_GRADIENT}.trpo", "TRPO", "trust region policy optimisation, as published", _PLAIN),
        Entry("trpo+", f"{_GRADIENT}.trpo", "TRPO", "trpo with the code-level optimisations of ppo"),
    )
}


@dataclass(frozen=True)
class Option:
    """A field a user may set: its name, type, default, and what it does."""

    name: str
    annotation: Any
    default: Any
    help: str


def entry(name: str) -> Entry:
    """The row of an algorithm.

    Raises:
        UsageError: no algorithm has that name; the nearest ones are named.
    """
    if name not in ALGORITHMS:
        raise unknown("algorithm", name, list(ALGORITHMS), "workhorse algorithms")
    return ALGORITHMS[name]


def is_on_policy(name: str) -> bool:
    """Whether an algorithm reads rollouts of its own newest policy."""
    return entry(name).module.startswith(_GRADIENT)


@functools.cache
def options(name: str) -> Mapping[str, Option]:
    """An algorithm's options in the order of its source, those of the classes it builds on first."""
    row = entry(name)
    found = _fields(row.module, row.cls)
    found |= {option: replace(found[option], default=default) for option, default in row.preset.items()}
    return types.MappingProxyType(found)


def make(name: str, spec: EnvSpec, settings: Mapping[str, Any]) -> Any:
    """The algorithm for a task, its settings checked.

    Raises:
        UsageError: unknown algorithm or option, a value out of range, or actions that the algorithm cannot take.
    """
    row = entry(name)
    known = options(name)
    for setting in settings:
        if setting not in known:
            raise unknown(f"option of {name}", setting, list(known), f"workhorse algorithms {name}")
        kind, value = known[setting].annotation, settings[setting]
        if not _is_kind(value, kind):
            raise UsageError(f"{name}.{setting} must be {_kind_in_words(kind)}: got {value!r}.")
    algorithm = getattr(importlib.import_module(row.module), row.cls)(spec=spec, **{**row.preset, **settings})
    algorithm.validate()
    return algorithm


def _is_kind(value: Any, kind: Any) -> bool:
    """Whether a setting is of its option's type; a whole number is a real one, a NumPy or JAX scalar too."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_is_kind(value, one) for one in arguments)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_is_kind(one, arguments[0]) for one in value)
    if hasattr(value, "dtype"):
        return value.ndim == 0 and value.dtype.kind in {float: "fiu", int: "iu", bool: "b"}.get(kind, "")
    if kind in (int, float):
        return isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _kind_in_words(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_kind_in_words, arguments))
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        return "whole numbers in a tuple"
    words = {bool: "True or False", int: "a whole number", float: "a number", str: "text", type(None): "None"}
    return words[kind]


_NAMES = {"int": int, "float": float, "bool": bool, "str": str, "tuple": tuple, "Literal": Literal, "None": None}


def _fields(module: str, cls: str) -> dict[str, Option]:
    tree = ast.parse(_source(module))
    definition = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls)
    found: dict[str, Option] = {}
    for base in definition.bases:
        assert isinstance(base, ast.Name)
        found |= _fields(_module_of(tree, base.id), base.id) if base.id in _imported(tree) else {}
    for node, following in zip(definition.body, [*definition.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or node.value is None or "ClassVar" in ast.unparse(node.annotation):
            continue
        assert isinstance(node.target, ast.Name)
        annotation = eval(compile(ast.Expression(node.annotation), module, "eval"), {"__builtins__": {}}, _NAMES)
        documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        text = str(following.value.value) if documented else ""  # type: ignore[union-attr]
        found[node.target.id] = Option(node.target.id, annotation, ast.literal_eval(node.value), text)
    return found


def _source(module: str) -> str:
    # not find_spec: that would import the parent packages' JAX-importing code where they have any
    root = Path(__file__).resolve().parents[2]
    path = root.joinpath(*module.split(".")).with_suffix(".py")
    if not path.exists():
        raise UsageError(f"The source of {module} is missing at {path}: reinstall workhorse.")
    return path.read_text()


def _imported(tree: ast.Module) -> dict[str, str]:
    return {
        alias.asname or alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def _module_of(tree: ast.Module, name: str) -> str:
    return _imported(tree)[name]
