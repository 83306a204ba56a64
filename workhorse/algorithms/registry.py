"""Every algorithm by name, with its options, without importing JAX.

A class below this folder that has a `name` is an algorithm: nothing is registered by hand. Options are
read from the source of the algorithm's own dataclass (names, types, defaults and the sentence under each
field), so that `workhorse algorithms` and `--help` answer at once and say exactly what the code says.
"""

from __future__ import annotations

import ast
import functools
import types
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from workhorse.core.errors import UsageError, unknown
from workhorse.core.modules import import_module, module_file

if TYPE_CHECKING:
    from workhorse.core.algorithm import Algorithm
    from workhorse.core.spec import EnvSpec

__all__ = ["Entry", "Option", "algorithm_class", "entries", "entry", "make", "options"]

INTERFACE = "workhorse.core.algorithm"
"""Module of the classes of the interface, of which `Algorithm` alone has options."""

NEAREST = {
    "tqc": "sac-n",
    "crossq": "sac-n",
    "redq": "sac-n",
    "droq": "sac-n",
    "qrdqn": "c51",
    "qr-dqn": "c51",
    "iqn": "c51",
}
"""Well-known algorithms that are missing, in lower case, and the nearest one there is."""


@dataclass(frozen=True)
class Entry:
    """A name under which an algorithm is known.

    Attributes:
        name: what a user types.
        module, cls: where its class is.
        summary: one line about it.
        preset: the defaults of the class that this name changes.
    """

    name: str
    module: str
    cls: str
    summary: str
    preset: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Option:
    """A field a user may set: its name, type, default, and what it does."""

    name: str
    annotation: Any
    default: Any
    help: str


@functools.cache
def entries() -> Mapping[str, Entry]:
    """Every algorithm of the package by name: the classes below `workhorse/algorithms` that have one."""
    root = Path(__file__).resolve().parent
    found: list[Entry] = []
    for path in sorted(root.rglob("*.py")):
        module = ".".join(("workhorse", "algorithms", *path.relative_to(root).with_suffix("").parts))
        tree = ast.parse(path.read_text())
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                found += _entries_of(module, tree, node)
    return types.MappingProxyType({row.name: row for row in found})


def entry(name: str) -> Entry:
    """Return the row of an algorithm, of the package or, as `module:Class`, of the user's own.

    Raises:
        UsageError: no algorithm has that name, and the nearest ones are named; or the module has no such class.
    """
    if name in entries():
        return entries()[name]
    module, colon, cls = name.partition(":")
    if not colon and name.lower() in NEAREST:
        raise UsageError(
            f"Workhorse has no {name}: the nearest it has is {NEAREST[name.lower()]}, and `workhorse algorithms` lists "
            "them all."
        )
    if not colon:
        raise unknown("algorithm", name, list(entries()), "workhorse algorithms")
    tree = ast.parse(_source(module))
    node = _class_of(tree, cls)
    if node is None:
        raise UsageError(f"{module} defines no class {cls!r}: name an algorithm of it, as in module:Class.")
    own = next(iter(_entries_of(module, tree, node)), None)  # its own name comes before its presets
    return Entry(name, module, cls, own.summary if own else "")


def _entries_of(module: str, tree: ast.Module, node: ast.ClassDef) -> list[Entry]:
    """The rows of a class: its own name, then its presets; none where it has no name, as an abstract one."""
    about = {
        target.id: _literal(statement.value, tree)
        for statement in node.body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name) and target.id in ("name", "summary", "presets")
    }
    if "name" not in about:
        return []
    rows = {about["name"]: (about["summary"], {})} | about.get("presets", {})
    return [Entry(name, module, node.name, summary, preset) for name, (summary, preset) in rows.items()]


def _literal(node: ast.expr, tree: ast.Module) -> Any:
    """The value of a literal, in which names may stand for constants of this module or of one it imports from."""
    if isinstance(node, ast.Name):
        if node.id in _imported(tree):
            tree = ast.parse(_source(_imported(tree)[node.id]))
        values = (row.value for row in tree.body if isinstance(row, ast.Assign) and _targets(row) == [node.id])
        return _literal(next(values), tree)
    if isinstance(node, ast.Dict):
        keys = [ast.literal_eval(key) for key in node.keys if key is not None]
        return {key: _literal(value, tree) for key, value in zip(keys, node.values, strict=True)}
    if isinstance(node, ast.Tuple):
        return tuple(_literal(one, tree) for one in node.elts)
    return ast.literal_eval(node)


def _targets(node: ast.Assign) -> list[str]:
    return [target.id for target in node.targets if isinstance(target, ast.Name)]


@functools.cache
def options(name: str) -> Mapping[str, Option]:
    """An algorithm's options in the order of its source, those of the classes it builds on first."""
    row = entry(name)
    found = _fields(INTERFACE, "Algorithm") | _fields(row.module, row.cls)
    found |= {option: replace(found[option], default=default) for option, default in row.preset.items()}
    return types.MappingProxyType(found)


def make(name: str, spec: EnvSpec, settings: Mapping[str, Any]) -> Algorithm:
    """The algorithm for a task, its settings checked.

    Raises:
        UsageError: unknown algorithm or option, a value out of range, or actions that the algorithm cannot take.
    """
    known = options(name)
    for setting in settings:
        if setting not in known:
            raise unknown(f"option of {name}", setting, list(known), f"workhorse algorithms {name}")
        kind, value = known[setting].annotation, settings[setting]
        if not _is_kind(value, kind):
            raise UsageError(f"{name}.{setting} must be {_kind_in_words(kind)}: got {value!r}.")
    given = {"rescale_actions": known["rescale_actions"].default, **entry(name).preset, **settings}
    algorithm = algorithm_class(name)(**{"spec": spec.rescaled() if given["rescale_actions"] else spec, **given})
    algorithm.validate()
    return algorithm


def algorithm_class(name: str) -> type[Algorithm]:
    """Return the class of an algorithm, which imports JAX."""
    row = entry(name)
    return getattr(import_module(row.module), row.cls)


def _is_kind(value: Any, kind: Any) -> bool:
    """Tell whether a setting is of its option's type; a whole number is a real one, a NumPy or JAX scalar too."""
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
    """The fields of a class in the order of a dataclass: those of the classes it builds on first, the nearest last."""
    found: dict[str, Option] = {}
    for where, name in reversed(_lineage(module, cls)):
        found |= _own_fields(where, name)
    return found


def _lineage(module: str, cls: str) -> list[tuple[str, str]]:
    """Return (module, class) of a class and of all that it builds on, in Python's own order (C3), read from source."""
    tree = _parsed(module)
    definition = _class_of(tree, cls)
    assert definition is not None, f"{module} has no class {cls}"
    bases = [
        (_imported(tree).get(base.id, module), base.id)
        for base in definition.bases
        if isinstance(base, ast.Name) and (_imported(tree).get(base.id, module), base.id) != (module, cls)
    ]
    bases = [base for base in bases if base[0] not in (INTERFACE, "abc")]
    order, chains = [(module, cls)], [*(_lineage(*base) for base in bases), bases]
    while chains := [chain for chain in chains if chain]:
        follows = {one for chain in chains for one in chain[1:]}
        nearest = next(chain[0] for chain in chains if chain[0] not in follows)
        order.append(nearest)
        chains = [[one for one in chain if one != nearest] for chain in chains]
    return order


def _own_fields(module: str, cls: str) -> dict[str, Option]:
    """The fields that are written in a class itself."""
    definition = _class_of(_parsed(module), cls)
    assert definition is not None, f"{module} has no class {cls}"
    found: dict[str, Option] = {}
    for node, following in zip(definition.body, [*definition.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or node.value is None or "ClassVar" in ast.unparse(node.annotation):
            continue
        assert isinstance(node.target, ast.Name)
        annotation = eval(compile(ast.Expression(node.annotation), module, "eval"), {"__builtins__": {}}, _NAMES)
        documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        text = str(following.value.value) if documented else ""  # type: ignore[union-attr]
        found[node.target.id] = Option(node.target.id, annotation, ast.literal_eval(node.value), text)
    return found


def _class_of(tree: ast.Module, name: str) -> ast.ClassDef | None:
    return next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)


@functools.cache
def _parsed(module: str) -> ast.Module:
    return ast.parse(_source(module))


@functools.cache
def _source(module: str) -> str:
    """Return the source of a module, found without importing it."""
    if not all(part.isidentifier() for part in module.split(".")):
        raise UsageError(f"Expected module:Class as the name of an algorithm, but {module!r} is no name of a module.")
    path = module_file(module)
    if path is None:
        raise UsageError(f"Expected a module {module}, and found no {module.replace('.', '/')}.py here or on the path.")
    return path.read_text()


def _imported(tree: ast.Module) -> dict[str, str]:
    return {
        alias.asname or alias.name: node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
