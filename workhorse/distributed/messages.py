"""Messages between a coordinator and its workers: bytes of a fixed layout, little-endian, never a pickle.

A message is the letters WH, a version, a kind, and the kind's fields. Setting a worker up is JSON; everything an
iteration sends is packed numbers, so that its size can be said in advance: an update is 4 bytes a member, 8 (1 + 2 D)
bytes of observation moments and 16 bytes; a report is a header, and for each chunk 4 bytes an episode and the moments.
"""

import json
import math
import struct
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import PyTree
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from workhorse.core.digest import flatten_arrays, restore_arrays
from workhorse.core.types import Moments, Returns
from workhorse.distributed.crew import Job
from workhorse.training.episodes import Episodes
from workhorse.training.workforce import Tally

__all__ = [
    "Assignment",
    "Malformed",
    "Report",
    "decode_assignment",
    "decode_control",
    "decode_report",
    "decode_state",
    "decode_update",
    "encode_control",
    "encode_state",
    "encode_update",
]

VERSION = 4
"""Version of the layout, in every message; 3 asked for one chunk at a time."""

STREAMS = ("reset", "evaluate")
NOTHING = range(0)
"""Chunks of an assignment that asks for no episodes, only for a sign of life."""
NO_LIMIT = -1

_HEAD = struct.Struct("<2sBB")
_JOB = struct.Struct("<BIIII")
_ASSIGNMENT = struct.Struct("<IIIiIIH")
_REPORT = struct.Struct("<IIIQff")
_SENTENCES = struct.Struct("<I")
_TALLY = struct.Struct("<IIddddd")
_UPDATE = struct.Struct("<IId")
_CONTROL, _ASSIGN, _ANSWER = 1, 2, 3


class Malformed(ValueError):
    """Bytes that are no message of this protocol."""


class Assignment(NamedTuple):
    """Request of a coordinator to a worker: bring the state up to date, then run chunks.

    Attributes:
        job, chunks: what to run; chunks NOTHING for nothing.
        turn: assignments that this worker was sent before. *They may be carried to it side by side.*
        limit: steps after which an episode is cut, None for the task's own clock; a worker that has the state does
            not need it.
        at: iterations the state must have learnt from before acting.
        state_at: the iteration of the state that is attached, if one is.
        updates: encoded updates to apply, oldest first.
    """

    job: Job
    chunks: range
    turn: int
    limit: int | None
    at: int
    state_at: int = 0
    updates: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        fixed = _ASSIGNMENT.pack(
            self.chunks.start,
            len(self.chunks),
            self.turn,
            NO_LIMIT if self.limit is None else self.limit,
            self.at,
            self.state_at,
            len(self.updates),
        )
        parts = [_HEAD.pack(b"WH", VERSION, _ASSIGN), _pack_job(self.job), fixed]
        for part in self.updates:
            parts += [struct.pack("<I", len(part)), part]
        return b"".join(parts)


class Report(NamedTuple):
    """Answer of a worker to an assignment.

    Attributes:
        job, chunks: what was run; chunks NOTHING for nothing.
        at: iterations its state has learnt from.
        digest: the state's 64-bit digest (0 in the exchange of parameters).
        episodes_s: seconds spent on the episodes.
        updates_s: seconds spent on the updates.
        results: a `Tally` of each chunk in training, `Episodes` in an evaluation.
    """

    job: Job
    chunks: range
    at: int
    digest: int
    episodes_s: float
    updates_s: float
    results: tuple[Tally | Episodes, ...]

    def encode(self) -> bytes:
        fixed = _REPORT.pack(self.chunks.start, len(self.chunks), self.at, self.digest, self.episodes_s, self.updates_s)
        return b"".join(
            [_HEAD.pack(b"WH", VERSION, _ANSWER), _pack_job(self.job), fixed, *map(_pack_result, self.results)]
        )

    def fault(self, num_slots: int) -> str | None:
        """Return what is wrong with the numbers, where chunks have so many slots; None if nothing is."""
        for chunk, result in zip(self.chunks, self.results, strict=True):
            expected = min(num_slots, self.job.num_episodes - chunk * num_slots)
            fault = _fault(result, expected)
            if fault:
                return f"{fault} in chunk {chunk} of iteration {self.job.iteration}"
        return None


def _fault(result: Tally | Episodes, expected: int) -> str | None:
    count = len(result.fitness) if isinstance(result, Tally) else int((result.length > 0).sum())
    if count != expected:
        return f"{count} episodes where {expected} were asked for"
    moments = result.observations
    scores = result.fitness if isinstance(result, Tally) else result.returns
    total = scores.sum() + moments.mean.sum() + moments.deviation.sum()  # not finite if any number is not
    if not math.isfinite(total) and not result.failures:
        return "numbers that are not finite"
    steps = result.steps if isinstance(result, Tally) else int(result.length.sum())
    if steps < expected or float(moments.count) != steps:
        return f"{steps} steps but moments of {moments.count:.0f} observations"
    return None


def encode_control(record: dict[str, Any]) -> bytes:
    """Encode a message that sets work up, refuses it or reports a failure, as JSON."""
    return _HEAD.pack(b"WH", VERSION, _CONTROL) + json.dumps(record).encode()


def decode_control(message: bytes) -> dict[str, Any] | None:
    """Return the record of a control message; None for a message of another kind.

    Raises:
        Malformed: these are no bytes of ours.
    """
    if _kind(message) != _CONTROL:
        return None
    try:
        record = json.loads(message[_HEAD.size :])
    except (ValueError, RecursionError) as error:
        raise Malformed(f"a control message that is no JSON ({error})") from error
    if not isinstance(record, dict):
        raise Malformed("a control message that is no JSON object")
    return record


def decode_assignment(message: bytes) -> Assignment:
    """Decode the bytes of `Assignment.encode`.

    Raises:
        Malformed: these are no bytes of an assignment.
    """
    if _kind(message) != _ASSIGN:
        raise Malformed("expected an assignment")
    read = _MessageReader(message, _HEAD.size)
    job = read.job()
    first, chunks, turn, limit, at, state_at, count = read.fields(_ASSIGNMENT)
    updates = tuple(read.take(read.fields(struct.Struct("<I"))[0]) for _ in range(count))
    read.finished()
    return Assignment(job, range(first, first + chunks), turn, None if limit < 0 else limit, at, state_at, updates)


def decode_report(message: bytes, observation_size: int, behaviour_size: int = 0) -> Report:
    """Decode the bytes of `Report.encode`.

    Raises:
        Malformed: these are no bytes of a report, or too few or too many of them.
    """
    if _kind(message) != _ANSWER:
        raise Malformed("expected a report")
    read = _MessageReader(message, _HEAD.size)
    job = read.job()
    first, count, at, digest, episodes_s, updates_s = read.fields(_REPORT)
    results = tuple(
        read.tally(observation_size, behaviour_size) if job.stream == "reset" else read.episodes(observation_size)
        for _ in range(count)
    )
    read.finished()
    return Report(job, range(first, first + count), at, digest, episodes_s, updates_s, results)


def encode_update(iteration: int, returns: Returns) -> bytes:
    """Encode what a worker needs to rebuild an update: 16 bytes, 4 a member, and the moments of observations.

    A member of a search for novelty costs 2 bytes more for each number of its behaviour.
    """
    fitness = np.asarray(returns.fitness)
    fixed = _UPDATE.pack(iteration, len(fitness), float(returns.mean_length))
    behaviour = np.asarray(returns.behaviour, "<f2").tobytes()
    return fixed + fitness.astype("<f4").tobytes() + _pack_moments(returns.observations) + behaviour


def decode_update(message: bytes, observation_size: int, behaviour_size: int = 0) -> tuple[int, Returns]:
    """Decode the bytes of `encode_update`: (iteration, returns of its population).

    Raises:
        Malformed: these are no bytes of an update, or too few or too many of them.
    """
    if not isinstance(message, bytes):
        raise Malformed(f"{type(message).__name__} where an update was expected")
    read = _MessageReader(message, 0)
    iteration, count, mean_length = read.fields(_UPDATE)
    fitness = read.array("<f4", count).astype(np.float32)
    seen = read.moments(observation_size)
    behaviour = read.behaviour(count, behaviour_size)
    returns = Returns(fitness, np.float64(mean_length), seen, () if behaviour is None else behaviour)
    read.finished()
    return iteration, returns


def encode_state(tree: PyTree) -> bytes:
    """Encode a state or an actor as safetensors."""
    return save_tensors(flatten_arrays(tree))


def decode_state(message: bytes, template: PyTree) -> PyTree:
    """Decode the bytes of `encode_state` into a tree like `template`.

    Raises:
        Malformed: these are no bytes of a state.
        UsageError: it is the state of another tree.
    """
    try:
        arrays = load_tensors(message)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:  # a kind NumPy lacks is a KeyError there
        raise Malformed(f"a state that is no safetensors ({error})") from error
    return restore_arrays(template, arrays, "the state a worker was sent")


class _MessageReader:
    """Takes fields off bytes, front to back."""

    def __init__(self, message: bytes, position: int) -> None:
        self._message, self._position = message, position

    def take(self, size: int) -> bytes:
        piece = self._message[self._position : self._position + size]
        if len(piece) != size:
            raise Malformed(f"{len(self._message)} bytes, which ends in the middle of a field")
        self._position += size
        return piece

    def fields(self, layout: struct.Struct) -> tuple[Any, ...]:
        return layout.unpack(self.take(layout.size))

    def job(self) -> Job:
        stream, *numbers = self.fields(_JOB)
        if stream >= len(STREAMS):
            raise Malformed(f"stream number {stream}")
        return Job(STREAMS[stream], *numbers)

    def sentences(self) -> tuple[str, ...]:
        (size,) = self.fields(_SENTENCES)
        try:
            said = json.loads(self.take(size)) if size else []
        except (ValueError, RecursionError) as error:
            raise Malformed("a report whose sentences are no JSON") from error
        if not isinstance(said, list) or not all(isinstance(sentence, str) for sentence in said):
            raise Malformed("a report whose sentences are no list of sentences")
        return tuple(said)

    def tally(self, observation_size: int, behaviour_size: int) -> Tally:
        failures = self.sentences()
        count, steps, *returns, share = self.fields(_TALLY)
        fitness = self.array("<f4", count).astype(np.float32)
        mean, deviation, least, greatest = returns
        earned, seen = (mean, deviation, least, greatest), self.moments(observation_size)
        return Tally(fitness, steps, earned, seen, failures, share, self.behaviour(count, behaviour_size))

    def episodes(self, observation_size: int) -> Episodes:
        failures = self.sentences()
        (count,) = self.fields(struct.Struct("<I"))
        returns, length = self.array("<f8", count).astype(float), self.array("<i4", count).astype(np.int32)
        return Episodes(returns, length, self.moments(observation_size), failures)

    def behaviour(self, count: int, size: int) -> np.ndarray | None:
        return self.array("<f2", count * size).astype(np.float16).reshape(count, size) if size else None

    def array(self, kind: str, count: int) -> np.ndarray:
        return np.frombuffer(self.take(count * np.dtype(kind).itemsize), kind)

    def moments(self, size: int) -> Moments:
        values = self.array("<f8", 1 + 2 * size).astype(np.float64)
        return Moments(values[0], values[1 : 1 + size], values[1 + size :])

    def finished(self) -> None:
        if self._position != len(self._message):
            raise Malformed(f"{len(self._message)} bytes where {self._position} were expected")


def _kind(message: bytes) -> int:
    if not isinstance(message, bytes) or len(message) < _HEAD.size:
        raise Malformed(f"{type(message).__name__} of {len(message) if isinstance(message, bytes) else '?'} bytes")
    letters, version, kind = _HEAD.unpack_from(message)
    if letters != b"WH" or version != VERSION:
        raise Malformed(f"bytes that begin with {message[:4]!r}")
    return kind


def _pack_result(result: Tally | Episodes) -> bytes:
    failures = json.dumps(result.failures).encode() if result.failures else b""
    parts = [_SENTENCES.pack(len(failures)), failures]
    if isinstance(result, Tally):
        parts.append(_TALLY.pack(len(result.fitness), result.steps, *result.returns, result.at_one_bound))
        parts.append(result.fitness.astype("<f4").tobytes())
    else:
        parts.append(struct.pack("<I", len(result.returns)) + result.returns.astype("<f8").tobytes())
        parts.append(result.length.astype("<i4").tobytes())
    parts.append(_pack_moments(result.observations))
    if isinstance(result, Tally) and result.behaviour is not None:
        parts.append(result.behaviour.astype("<f2").tobytes())
    return b"".join(parts)


def _pack_job(job: Job) -> bytes:
    return _JOB.pack(STREAMS.index(job.stream), *job[1:])


def _pack_moments(moments: Moments) -> bytes:
    leaves = (np.reshape(moments.count, 1), moments.mean, moments.deviation)
    return np.concatenate([np.asarray(leaf, "<f8") for leaf in leaves]).tobytes()
