"""An algorithm's fields as a pytree: floats are leaves, everything else is static."""

import dataclasses
from typing import TypeVar, dataclass_transform

import jax

from workhorse.core import numerics  # noqa: F401

__all__ = ["configuration"]

Class = TypeVar("Class", bound=type)

_LEAF_TYPES = ("float", "float | None")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def configuration(cls: Class) -> Class:
    """Make a class a frozen, keyword-only dataclass whose float fields are pytree leaves.

    Float hyper-parameters may then be swept with `vmap` or traced without compiling again, while every other field
    (sizes, switches, the spec) selects the program. A field is a leaf when its annotation is `float` or
    `float | None`.

    Example:
        >>> @configuration
        ... class Ascent:
        ...     steps: int = 3
        ...     learning_rate: float = 0.5
        >>> jax.tree.leaves(Ascent())
        [0.5]
    """
    made = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    names = [field.name for field in dataclasses.fields(made)]
    kinds = {
        field.name: field.type if isinstance(field.type, str) else _name(field.type)
        for field in dataclasses.fields(made)
    }
    leaves = [name for name in names if kinds[name] in _LEAF_TYPES]
    static = [name for name in names if name not in leaves]
    jax.tree_util.register_dataclass(made, leaves, static)
    return made


def _name(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
