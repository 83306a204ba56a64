"""TensorBoard's event files: scalars by their tags, against training steps."""

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workhorse.core.files import list_folder, make_folder, read_file, write_file, writing

__all__ = ["EventLog"]

_IMPORTING = threading.Lock()


class EventLog:
    """Scalars sent to TensorBoard, in a file of each sitting that has some.

    Where a run goes on from an earlier state than the last one sent, the points after it are taken out of the files of
    earlier sittings first, so that none is there twice.
    """

    def __init__(self, folder: Path, resume_from: int | None) -> None:
        """Prepare the log; nothing is written or imported before the first `send`.

        Args:
            folder: of the files.
            resume_from: step that the run goes on from; None for a new run.
        """
        self._folder = folder
        self._resume_from = resume_from
        self._file: Any = None

    def send(self, rows: Sequence[tuple[float, int, Mapping[str, float]]]) -> None:
        """Write rows of seconds since 1970, step, and values by their tags.

        Raises:
            UsageError: the disk is full, read-only or not there.
        """
        events, summaries = _messages()
        with writing("the TensorBoard events", self._folder):
            if self._file is None:
                self._file = self._begin(events)
            for wall_time, step, values in rows:
                scalars = [summaries.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
                # written here and now, not through `SummaryWriter`: its thread dies of a full disk and then blocks us
                self._file.write_event(
                    events.Event(wall_time=wall_time, step=step, summary=summaries.Summary(value=scalars))
                )
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self, events: Any) -> Any:
        from tensorboardX.event_file_writer import EventsWriter

        make_folder(self._folder)
        if self._resume_from is not None:
            for file in list_folder(self._folder):
                _forget_after(self._resume_from, file, events)
        # A second resume within the second must not overwrite the first one's file.
        begun = EventsWriter(os.fspath(self._folder / "events"), f".{os.getpid()}.{time.time_ns()}")
        if self._resume_from is not None:  # a TensorBoard that is looking now hides what it has read from this step on
            start = events.SessionLog(status=events.SessionLog.START)
            begun.write_event(events.Event(step=self._resume_from + 1, session_log=start))
        return begun


def _messages() -> tuple[Any, Any]:
    """Return TensorBoard's messages, which are generated at import, so that type checkers see no names in them."""
    with _IMPORTING:  # it imports itself in a circle, which threads that begin together would see half made
        from tensorboardX.proto import event_pb2, summary_pb2
    return event_pb2, summary_pb2


def _forget_after(step: int, file: Path, events: Any) -> None:
    """Take the scalars after a step out of an event file; a file that is something else is left as it is."""
    from google.protobuf.message import DecodeError

    if file.is_symlink() or not file.is_file() or ".tfevents." not in file.name:
        return
    content, kept = read_file(file), []
    try:
        for record, data in _records(content):
            event = events.Event.FromString(data)
            if event.step <= step or not event.HasField("summary"):
                kept.append(record)
    except DecodeError:
        return
    if (shorter := b"".join(kept)) != content:
        write_file(file, shorter)


def _records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield each whole record of a TFRecord file, and its data: 8 bytes of length, 4 of its CRC, data, 4 of their CRC.

    A record that a crash left unfinished is no record.
    """
    at = 0
    while at + 12 <= len(content):
        end = at + 16 + int.from_bytes(content[at : at + 8], "little")
        if end > len(content):
            return
        yield content[at:end], content[at + 12 : end - 4]
        at = end
