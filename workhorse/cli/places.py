"""Folders named on the command line: a run or a study by its path, or by its bare name in runs/ or studies/."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Annotated, Any, get_type_hints

from workhorse.algorithms import registry
from workhorse.core.errors import UsageError, nearest
from workhorse.environments.registry import TASKS

__all__ = ["AnyFolder", "RunPath", "Place", "StudyPath", "find_places", "places_of"]


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """Kind of folder that an option names.

    Attributes:
        kind: in words, for messages.
        roots: folders in which a bare name is looked for, with the file that says that a folder is one.
    """

    kind: str
    roots: Mapping[str, str]

    def find(self, given: str) -> str:
        """Return the path that was meant: the one given, or the one of that name in a root.

        Raises:
            UsageError: there is neither, and it is a task, an algorithm, or resembles the name of one that is there.
        """
        if not given or os.path.exists(given):
            return given
        for root, file in self.roots.items():
            path = os.path.join(root, given)
            if os.sep not in given and os.path.exists(os.path.join(path, file)):
                return path
        if given in TASKS or given in registry.entries():
            what = "a task" if given in TASKS else "an algorithm"
            raise UsageError(f"Expected {self.kind}, but {given} is {what}. {self._those_there(given)}")
        if close := nearest(os.path.basename(given), self._names()):
            raise UsageError(f"Expected {self.kind}: there is no {given}. Did you mean {' or '.join(close)}?")
        return given

    def _names(self) -> list[str]:
        return [
            name
            for root, file in self.roots.items()
            if os.path.isdir(root)
            for name in sorted(os.listdir(root))
            if os.path.exists(os.path.join(root, name, file))
        ]

    def _those_there(self, given: str) -> str:
        of_it = [name for name in self._names() if given in name]
        if of_it:
            return f"Did you mean {of_it[-1]}? `workhorse runs` lists the runs."
        return "`workhorse runs` lists the runs, and `workhorse train TASK` makes one."


_RUN, _STUDY = {"runs": "manifest.json"}, {"studies": "study.json"}
RunPath = Annotated[str, Place("a run", _RUN)]
StudyPath = Annotated[str, Place("a study", _STUDY)]
AnyFolder = Annotated[str, Place("a run or a study", {**_RUN, **_STUDY})]


def find_places(options: Any) -> None:
    """Put the path that was meant into each option that names a folder.

    Raises:
        UsageError: see `Place.find`.
    """
    for name, annotation in get_type_hints(type(options), include_extras=True).items():
        for place in places_of(annotation):
            given = getattr(options, name)
            if isinstance(given, str):
                setattr(options, name, place.find(given))


def places_of(annotation: Any) -> list[Place]:
    """Return the kinds of folder that an annotation names."""
    found = [one for one in getattr(annotation, "__metadata__", ()) if isinstance(one, Place)]
    return found + [place for inner in getattr(annotation, "__args__", ()) for place in places_of(inner)]
