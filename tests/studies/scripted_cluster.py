"""A cluster without Ray, processes or clocks: workers answer in the call, and die where the script says so."""

import dataclasses
import functools
from collections import deque
from pathlib import Path

from workhorse.distributed.transport import Arrived, Gone, Received
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import Manifest
from workhorse.studies.job_messages import decode, encode
from workhorse.studies.parcels import Packer, unpack

__all__ = ["ITERATIONS", "Died", "Executor", "FakeWorker", "chained"]

ITERATIONS = 4


class Died(Exception):
    """The worker's node died."""


def chained(seed, iterations=ITERATIONS):
    """What a fake run computes: each iteration's number is made of the one before."""
    state = seed
    for _ in range(iterations):
        state = (state * 6_364_136_223 + 1_442_695) % 2**31
    return state


class Executor:
    """A transport whose workers answer at once.

    Args:
        place: folder for the nodes' disks.
        cores: workers there may be.
        make: makes a worker of (name, folder, steps); `steps` is the list of all that was done, by everybody.
    """

    def __init__(self, place, cores, make=None):
        self.place, self.cores, self.make = Path(place), cores, make or FakeWorker
        self.workers, self.events, self.steps = {}, deque(), []
        self.count = self.wanted = self.most = self.slept = 0
        self.closed, self.why_exhausted, self.kept_back = False, None, 0

    def room(self):
        return self.cores

    def want(self, workers):
        self.wanted = workers

    def poll(self, timeout_s):
        while len(self.workers) < min(max(self.wanted, 1), self.cores - self.kept_back):
            name = f"w{self.count}"
            self.count += 1
            (self.place / name).mkdir(parents=True)
            self.workers[name] = self.make(name, self.place / name, self.steps)
            self.events.append(Arrived(name))
        self.most = max(self.most, len(self.workers))
        self.slept += not self.events
        assert self.slept < 10_000, "nothing happens any more"
        found, self.events = list(self.events), deque()
        return found

    def send(self, name, message, attachment=b""):
        if name not in self.workers:
            return
        try:
            self.events.append(Received(name, self.workers[name].handle(message, attachment)))
        except Died as death:
            self.kill(name, str(death))

    def kill(self, name, why="its node died"):
        del self.workers[name]
        self.events.append(Gone(name, why))

    def dismiss(self, name, replace):
        self.workers.pop(name, None)
        if not replace:
            self.cores -= 1

    def arriving(self):
        return 0

    def exhausted(self):
        return self.why_exhausted

    def close(self):
        self.closed = True


class FakeWorker:
    """Speaks as a `JobWorker` does; a run is a chain of numbers, an iteration a message, with a checkpoint each."""

    versions_differ = False

    def __init__(self, name, place, steps):
        self.name, self.place, self.steps = name, place, steps
        self.job, self.at, self.packer, self.stopping = None, 0, None, False

    def handle(self, message, attachment):
        record, _ = decode(message)
        if record["do"] == "set up":
            if self.versions_differ:
                return encode({"answer": "refused", "why": "jax must be the same everywhere."})
            about = {"host": "here", "process": 1, "processor": "Fake 3000", "instruction_sets": []}
            return encode({"answer": "ready", **about})
        if record["do"] == "begin":
            self.begin(record["job"], attachment)
        elif record["do"] == "stop":
            self.stopping = True
        elif self.job is not None:
            return self.move()
        return self.heard()

    def heard(self, *events, parcels=()):
        return encode({"answer": "heard", "events": list(events)}, list(parcels))

    def begin(self, job, attachment):
        self.job, self.at, self.stopping = job, 0, False
        self.folder = self.place / f"{len(self.steps)}-{job['id']}"
        if attachment:
            unpack(attachment, self.folder)
            self.at = max(int(place.name) for place in (self.folder / "checkpoints").iterdir())
        self.packer = Packer(self.folder)
        self.packer.skip_present()

    def move(self):
        job = self.job
        if job["kind"] == "floor":
            self.job = None
            floor = {"random": [1.0], "nothing": [0.0]}
            return self.heard({"event": "done", "id": job["id"], "seconds": 0.0, "floor": floor})
        if self.stopping:
            self.job = None
            return self.heard({"event": "stopped", "id": job["id"]})
        if self.at == ITERATIONS:
            self.job = None
            return self.heard({"event": "done", "id": job["id"], "seconds": 1.0, "run": self.result(job)})
        self.iterate(job)
        told = {"event": "progress", "run": job["id"], "env_steps": self.at, "return": None}
        return self.heard(told, {"event": "saved", "parcel": "1"}, parcels=[self.packer.pack()])

    def iterate(self, job):
        self.steps.append((job["id"], self.at + 1, self.name))
        if not (self.folder / "manifest.json").exists():
            self.folder.mkdir()
            RunFolder(self.folder).write_manifest(manifest(job))
        before = self.folder / "checkpoints" / str(self.at) / "state"
        state = int(before.read_text()) if before.exists() else job["seed"]
        self.at += 1
        place = self.folder / "checkpoints" / str(self.at)
        place.mkdir(parents=True)
        (place / "state").write_text(str((state * 6_364_136_223 + 1_442_695) % 2**31))

    def result(self, job):
        score = float((self.folder / "checkpoints" / str(self.at) / "state").read_text())
        return {
            "outcome": "finished", "reason": "", "score": score, "episode_returns": [score], "env_steps": self.at,
            "wall_s": 1.0, "core_hours": 0.1, "failed_episodes": 0,
        }  # fmt: skip


@functools.cache
def described():
    """A manifest, which takes a moment to describe the machine."""
    return Manifest.describe(
        id="", command=(), task="", task_options={}, algorithm="", settings={}, seed=0, env_steps=1, slots=1, threads=1
    )


def manifest(job):
    names = ("id", "task", "task_options", "algorithm", "seed", "env_steps")
    return dataclasses.replace(described(), **{name: job[name] for name in names})
