"""Import a module of the user's own: from the Python path, or from the current folder."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

__all__ = ["import_module", "module_file"]


def import_module(name: str) -> ModuleType:
    """Import a module; one of the current folder too, which is not on the path of an installed command.

    The current folder comes last, so that a file in it never takes the place of an installed module.

    Raises:
        Exception: whatever the module raises; ModuleNotFoundError where there is none of that name.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        here = str(Path.cwd())
        if error.name != name.split(".")[0] or here in sys.path:
            raise
        sys.path.append(here)
        importlib.invalidate_caches()  # the file may be younger than the last look at the folder
        return importlib.import_module(name)


def module_file(name: str) -> Path | None:
    """Return the file of a module that was not imported, by the same rule; None where there is none.

    Example:
        >>> module_file("workhorse.core.modules").name
        'modules.py'
    """
    root = Path(__file__).resolve().parents[2]
    for folder in (root, *map(Path, [*sys.path, ""])):  # "" is the current folder
        path = folder.joinpath(*name.split(".")).with_suffix(".py")
        if path.exists():
            return path
    return None
