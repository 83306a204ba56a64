"""Manifest of a run: everything needed to start it again, and everything its bits may depend on, as JSON."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workhorse.core.errors import UsageError
from workhorse.core.files import read_file
from workhorse.core.machine import Hardware, describe_hardware, installed_versions
from workhorse.core.records import from_json, seal
from workhorse.training.sources import Sources

__all__ = ["FORMAT", "Manifest", "git_state", "owner_of", "utc_now"]

FORMAT = 4
"""Version of the manifest's layout, and of the run folder around it."""


@dataclass(frozen=True)
class Manifest:
    """Description of a run, written once, before the first iteration.

    Attributes:
        id: the run folder's name.
        created: UTC time in ISO 8601.
        command: the command line, one string an argument.
        task: the task's id.
        task_options: its non-default options, plain JSON.
        algorithm: the algorithm's name.
        settings: every field of the algorithm, plain JSON.
        recipe: the name of the recipe the settings came from; None where there was none.
        recipe_source: where that recipe was published or measured; None where there was none.
        seed: the run's seed.
        env_steps: the budget, in environment steps.
        slots: environments side by side, which act as one array; *part of the result's bits*.
        threads: simulation threads, 0 for a run on a cluster; not part of the result.
        versions: versions of Python and of the packages that compute.
        git: {"commit", "dirty"} of the source checkout; None where the code is not in one.
        hardware: the machine.
        sources: what is learnt from beside the run's own experience; None for nothing.
        format: version of this layout.
    """

    id: str
    created: str
    command: tuple[str, ...]
    task: str
    task_options: dict[str, Any]
    algorithm: str
    settings: dict[str, Any]
    recipe: str | None
    recipe_source: str | None
    seed: int
    env_steps: int
    slots: int
    threads: int
    versions: dict[str, str]
    git: dict[str, Any] | None
    hardware: Hardware
    sources: Sources | None = None
    format: int = FORMAT

    @property
    def counts_updates(self) -> bool:
        """Whether `env_steps` are updates, because a log alone is learnt from."""
        return self.sources is not None and self.sources.use == "offline"

    @staticmethod
    def describe(
        *,
        id: str,
        command: Sequence[str],
        task: str,
        task_options: Mapping[str, Any],
        algorithm: str,
        settings: Mapping[str, Any],
        seed: int,
        env_steps: int,
        slots: int,
        threads: int,
        recipe: str | None = None,
        recipe_source: str | None = None,
        sources: Sources | None = None,
    ) -> "Manifest":
        """Describe a run about to start here and now: time, versions, commit and hardware are filled in."""
        return Manifest(
            id=id,
            created=utc_now(),
            command=tuple(command),
            task=task,
            task_options=dict(task_options),
            algorithm=algorithm,
            settings=dict(settings),
            recipe=recipe,
            recipe_source=recipe_source,
            seed=seed,
            env_steps=env_steps,
            slots=slots,
            threads=threads,
            versions=installed_versions(),
            git=git_state(),
            hardware=describe_hardware(),
            sources=sources,
        )

    def to_json(self) -> str:
        """Return the manifest as strict JSON text (no NaN, no infinities), with its checksum.

        Raises:
            TypeError, ValueError: the settings or the options hold what JSON cannot.
        """
        return json.dumps(seal(asdict(self)), indent=2, allow_nan=False)

    @staticmethod
    def from_json(text: str | bytes, where: str | os.PathLike[str]) -> "Manifest":
        """Read a manifest strictly: every field, no other, each of its type; formats 1 to 4.

        Args:
            text: what `to_json` wrote.
            where: the file it came from, for the message.

        Raises:
            UsageError: it is not JSON, of another format version, a field is missing, unknown or of another type, or
                its content does not have its checksum, which format 3 began.
        """
        return from_json(Manifest, text, where, "manifest", FORMAT, _renewed)


def owner_of(folder: str | os.PathLike[str]) -> str:
    """Return what tells a run from all others, which its records carry; empty where there is no readable manifest.

    It stays the same where the folder is moved, or the manifest is edited on purpose.
    """
    file = Path(folder) / "manifest.json"
    try:
        manifest = Manifest.from_json(read_file(file), file)
    except (FileNotFoundError, UsageError):
        return ""
    return f"{manifest.id}, begun {manifest.created}"


def _renewed(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record of an older format as one of format 4; any other as it is.

    Format 2 renamed two fields, 3 added a checksum and 4 the sources.
    """
    if record["format"] == 1:
        names = {"configuration": "settings"}
        record = {names.get(name, name): value for name, value in record.items() if name != "chunk"} | {"format": 2}
    if record["format"] in (2, 3):
        return record | {"format": FORMAT, "sources": None}
    return record


def utc_now() -> str:
    """Return the time in UTC as ISO 8601, to the second: "2026-11-21T14:25:01+00:00"."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def git_state(source: str | os.PathLike[str] | None = None) -> dict[str, Any] | None:
    """Return the commit of the checkout that tracks the source, and whether a tracked file was changed since.

    Args:
        source: a file of the source; this one by default.

    Returns:
        {"commit": str, "dirty": bool}, or None where git is missing or does not track the file, as when the package is
        installed inside somebody else's checkout.
    """
    file = Path(source or __file__).resolve()

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(file.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None
