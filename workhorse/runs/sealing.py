"""Verify the checksums of a folder's files, and renew them where a user has edited a file on purpose.

Works on the folders of runs, studies and policies alike: every JSON record carries its checksum in itself, every table
in its metadata, and the tensors of a policy or a checkpoint have theirs in the record beside them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workhorse.core.errors import UsageError
from workhorse.core.files import is_there, list_folder, read_file, write_file
from workhorse.core.records import CHECKSUM, OWNER, check_owner, checksum, parse, parse_json
from workhorse.runs.manifest import Manifest, owner_of
from workhorse.runs.sealed import is_whole_table, parquet_bytes, read_parquet, read_record
from workhorse.runs.trust import is_trusted, trust_run

__all__ = ["damaged_records", "renew_checksums"]

_RECORDS = ("evaluations", "diagnostics", "traffic")
_DEEP = (*_RECORDS, "policy", "checkpoints", "milestones", "records", "runs", "tuning")
_NAMES = ("manifest", "status", "ledger", "warnings", "study", "policy", "meta", "metrics", "results")
_SUFFIXES = (".json", ".parquet")


def damaged_records(folder: Path) -> list[str]:
    """Return a sentence for every record or table of a run that does not have its checksum; states are left out.

    States are verified whenever they are loaded.
    """
    found, owner = [], owner_of(folder)
    for place in (*_own(folder), *(file for name in _RECORDS for file in list_folder(folder / name))):
        try:
            if place.suffix == ".parquet":
                about = read_parquet(place, folder)[1]
                check_owner(about.get(OWNER) or None, owner, place)
            elif place.suffix == ".json" and not read_file(place, folder).startswith(b"["):  # an old list of warnings
                read_record(place, folder, owner=owner)
        except UsageError as error:
            found.append(str(error))
    return found


def renew_checksums(folder: Path) -> list[Path]:
    """Make the checksums of a folder those of its files as they are now; return the files that were written anew.

    Nothing is written unless every file can be read: sealing mends no damage.

    Args:
        folder: a run, a study or a policy. Files of other programs in it are left alone.

    Raises:
        UsageError: it is none of these; a record is no JSON, a table no Parquet, a manifest's field is missing or of
            another type; a file is a link.
    """
    if not any(is_there(folder / f"{name}.json") for name in ("manifest", "study", "policy")):
        raise UsageError(
            f"Expected a run, a study or a policy in {folder}, found no manifest.json, study.json or policy.json: name "
            "the folder of one."
        )
    places = [*_own(folder), *(file for name in _DEEP for file in _below(folder / name, folder))]
    found = {place: _sealed_anew(place, folder) for place in places}
    changed = {place: content for place, content in found.items() if content is not None}
    for place, content in changed.items():
        if place.name == "manifest.json" and is_trusted(json.loads(read_file(place, folder)).get(CHECKSUM)):
            trust_run(Manifest.from_json(content, place))  # who vouched for the run has edited it
        write_file(place, content, folder)
    return list(changed)


def _own(folder: Path) -> list[Path]:
    return [place for place in list_folder(folder) if place.stem in _NAMES and place.suffix in _SUFFIXES]


def _below(place: Path, folder: Path) -> Iterator[Path]:
    for inner in list_folder(place, within=folder):
        if inner.suffix in _SUFFIXES:
            yield inner
        elif inner.is_dir():
            yield from _below(inner, folder)


def _sealed_anew(place: Path, folder: Path) -> bytes | None:
    """Return the content of a file with the checksum of what is in it; None where it has it already."""
    content = read_file(place, folder)
    if place.suffix == ".parquet":
        if is_whole_table(content):
            return None
        return parquet_bytes(*read_parquet(place, folder, verify=False))
    if content.startswith(b"["):  # an old list of warnings, which had no checksum
        return None
    record = parse(parse_json, content, place, "a record in JSON")
    changed = dict(record)
    if place.name == "policy.json":
        changed["sha256"] = _sha256(place.with_name("policy.safetensors"), folder)
    if place.name == "meta.json":
        changed = _sealed_state(record, place, folder)
    elif not (place.name == "policy.json" and record.get("format") == 1):  # which knows no checksum
        changed[CHECKSUM] = checksum(changed)
    if changed == record:
        return None
    text = json.dumps(changed, indent=2).encode()
    if place.name == "manifest.json":
        Manifest.from_json(text, place)
    return text


def _sealed_state(record: dict[str, Any], place: Path, folder: Path) -> dict[str, Any]:
    """Return the record of a checkpoint with the checksums of its tensors."""
    changed = {name: value for name, value in record.items() if name != "seal"}
    changed["sha256"] = _sha256(place.with_name("state.safetensors"), folder)
    return {**changed, "seal": checksum(changed)}


def _sha256(place: Path, folder: Path) -> str:
    try:
        return hashlib.sha256(read_file(place, folder)).hexdigest()
    except FileNotFoundError as error:
        raise UsageError(f"Expected the tensors of {place.parent} in {place}, found none: restore them.") from error
