"""`workhorse seal FOLDER`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tyro

from workhorse.cli.options import parse

__all__ = ["run"]


@dataclasses.dataclass
class SealOptions:
    """Renew the checksums of a run, a study or a policy after you have edited a file in it on purpose.

    Every file carries a checksum, so that a damaged one is noticed. This makes the files as they are now count as
    whole: do it only where you know what has changed.
    """

    folder: tyro.conf.Positional[str]
    """A run folder, a study folder or a policy folder."""


def run(arguments: Sequence[str]) -> int:
    """Renew the checksums of a folder, say of which files, and return the exit code."""
    options = parse(SealOptions, arguments)
    from workhorse.core.errors import UsageError
    from workhorse.core.files import writing
    from workhorse.runs.sealing import renew_checksums

    folder = Path(options.folder)
    if not folder.is_dir():
        raise UsageError(f"Expected the folder of a run, a study or a policy, got {folder}: name one that exists.")
    with writing("the checksums", folder):
        renewed = renew_checksums(folder)
    for place in renewed:
        print(f"sealed {place}")
    if not renewed:
        print(f"Every file in {folder} has its checksum; nothing was changed.")
    return 0
