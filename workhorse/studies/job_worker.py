"""Worker of a study on a node of a cluster: takes one job at a time, and carries the files of its run home.

The node may share no disk with the study. So a run is trained in a temporary folder here, by a process as a study on
one machine has them. Its files come as a parcel with the job, and go as parcels with each checkpoint and at the end. If
the training process dies, only its job is lost; if this one does, the training process saves, cleans up and exits.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from workhorse.core.files import list_folder, make_folder, read_file, remove, remove_folder
from workhorse.core.machine import describe_hardware, installed_versions
from workhorse.distributed.versions import mismatch
from workhorse.studies.job_messages import decode, encode
from workhorse.studies.jobs import GOES_ON, JobEvent, JobRequest
from workhorse.studies.parcels import unpack
from workhorse.studies.pool import Pool
from workhorse.studies.worker import OWNER

__all__ = ["LOG_BYTES", "JobWorker"]

LOG_BYTES = 20_000
"""Bytes of a crashed process's log that are sent home."""


class JobWorker:
    """Answers the messages of a `ClusterPool`; whatever is sent to it, it answers once.

    "set up" compares the versions; "begin" starts a job, with the files of its run; "listen" returns the events since,
    and waits for the first; "stop" tells the training process to save and exit.
    """

    def __init__(self, name: str, node: str = "") -> None:
        self.name, self._node = name, node
        self._place: Path | None = None
        self._pool: Pool | None = None
        self._begun, self._goes_on = 0, False

    def handle(self, message: bytes, attachment: bytes = b"") -> bytes:
        """Return the answer to a message; the attachment is the parcel of a job's files."""
        try:
            record, _ = decode(message)
            match record["do"]:
                case "set up":
                    return encode(self._introduction(record["versions"]))
                case "begin":
                    self._begin(record["job"], attachment)
                    return self._heard(0.0, 0.0)
                case "listen":
                    return self._heard(record["patience_s"], record["gather_s"])
                case _:
                    if self._pool is not None:
                        self._pool.stop()
                    return self._heard(0.0, 0.0)
        except Exception as error:
            return encode({"answer": "failed", "why": f"{type(error).__name__}: {error}"})

    def close(self) -> None:
        """End the training process and remove what it wrote here."""
        if self._pool is not None and self._place is not None:
            self._pool.stop()
            remove_folder(self._place)  # first: whoever asks does not wait for long
            self._pool.close()

    def _introduction(self, versions: dict[str, str]) -> dict[str, Any]:
        why = mismatch(versions, installed_versions())
        if why:
            return {"answer": "refused", "why": why}
        hardware = describe_hardware()
        return {
            "answer": "ready",
            "host": platform.node(),
            "process": os.getpid(),
            "processor": hardware.cpu,
            "instruction_sets": list(hardware.instruction_sets),
        }

    def _begin(self, job: JobRequest, parcel: bytes) -> None:
        if self._place is None or self._pool is None:
            self._place = Path(tempfile.mkdtemp(prefix="workhorse-study-"))
            make_folder(self._place / "logs")
            # what this process can import, its own can too: Ray adds folders to the path
            importable = os.pathsep.join(place for place in sys.path if place)
            surroundings = {"PYTHONPATH": importable, OWNER: f"{os.getpid()} {self._place}"}
            self._pool = Pool(1, self._place / "logs", surroundings)
        remove_folder(self._place / f"job-{self._begun}")
        self._begun += 1
        root = self._place / f"job-{self._begun}"
        make_folder(root / "parcels", self._place)
        folder = root / job["id"]
        if parcel:
            unpack(parcel, folder)
        here = {"root": str(root), "folder": str(folder), "parcels": str(root / "parcels")}
        self._pool.give({**job, **here})
        self._goes_on = True

    def _heard(self, patience_s: float, gather_s: float) -> bytes:
        """Return the events since the last call, those of `gather_s` after the first included."""
        events: list[JobEvent] = []
        parcels: list[bytes] = []
        deadline, heard = time.monotonic() + patience_s, False
        pool, place = self._pool, self._place
        while self._goes_on and pool is not None and place is not None:
            found = pool.answer(max(deadline - time.monotonic(), 0.0))
            if found is None:
                break
            _, event = found
            self._goes_on = event["event"] in GOES_ON
            if event["event"] == "saved":
                parcel = place / f"job-{self._begun}" / "parcels" / event["parcel"]
                parcels.append(read_file(parcel, place))
                remove(parcel, place)
            if event["event"] == "crashed":
                event = {**event, "log": _end_of_log(place / "logs")}
            events.append(event)
            if not heard:
                deadline, heard = time.monotonic() + gather_s, True
        return encode({"answer": "heard", "events": events}, parcels)


def _end_of_log(folder: Path) -> str:
    """Return the end of what the newest training process printed."""
    places = sorted(list_folder(folder), key=os.path.getmtime)
    return read_file(places[-1])[-LOG_BYTES:].decode(errors="replace") if places else ""
