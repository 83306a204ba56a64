"""Files of a policy artefact: policy.safetensors holds the arrays and policy.json all else.

Format 2 names every layer by its kind; the arrays of layer i are called layers/i/FIELD. `sha256` is that of the tensor
file, and `checksum` that of the whole description in canonical JSON, so that no flipped bit goes unnoticed. Format 1
knew one network: a normaliser, a perceptron, and a head that followed from the action space. It is read, not written.

Nothing in either file is executed, and reading is strict: anything that is not expected is an error.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

from workhorse.core.errors import UsageError
from workhorse.core.files import is_there, settled_folder, write_file
from workhorse.core.layers import KINDS, Layer, Normalise, PolicyNetwork, head_for, perceptron
from workhorse.core.observations import ObservationFormat
from workhorse.core.records import DAMAGED, Check, build, checksum, parse, parse_json, shown
from workhorse.core.spec import ActionFormat, ActionSpace, Box, Discrete, Goal, MultiBinary, MultiDiscrete
from workhorse.runs.layer_checks import ARRAYS, PLAIN_FIELDS, kind_of
from workhorse.runs.manifest import owner_of
from workhorse.runs.tensors import DamagedFile, read_part, read_tensors, write_tensors

__all__ = ["FORMAT", "PolicyParts", "policy_folder", "read_policy", "write_policy"]

FORMAT = 2
"""Version of the layout that is written."""

MOST_COMPONENTS = 2**24
"""Most components of a space. A shape of a few digits must not make a list of bounds that fills the memory."""

Bound = float | Literal["inf", "-inf"]
Shape = Annotated[
    tuple[int, ...],
    Check(
        lambda shape: bool(shape) and min(shape) > 0 and math.prod(shape) <= MOST_COMPONENTS,
        f"sizes above 0, of at most {MOST_COMPONENTS:,} components",
    ),
]


class PolicyParts(NamedTuple):
    """Contents of the files; `runs.policy.Policy` checks how they fit together."""

    layers: PolicyNetwork
    observation: Box
    action: ActionSpace
    task: str
    metadata: dict[str, Any]
    observation_format: ObservationFormat | None = None
    action_format: ActionFormat | None = None


def policy_folder(path: Path) -> Path:
    """Return the policy folder that `path` is, or that is in the run `path`.

    Raises:
        UsageError: there is none.
    """
    for folder in (settled_folder(path), settled_folder(path / "policy")):
        if is_there(folder / "policy.json"):
            return folder
    if not path.exists():
        raise UsageError(
            f"Expected a policy or a run in {path}, which does not exist. `workhorse runs` lists the runs."
        )
    if not path.is_dir():
        raise UsageError(f"Expected a policy folder, got the file {path}. Name the folder that holds policy.json.")
    if is_there(path / "manifest.json"):
        raise UsageError(f"Expected a policy in the run {path}, which has not written one yet. Let it train longer.")
    raise UsageError(
        f"Expected policy.json in {path}, found none. Name a policy folder, or a run that `workhorse runs` lists."
    )


def write_policy(folder: Path, parts: PolicyParts) -> None:
    """Write both files into an empty folder."""
    arrays, described = {}, []
    for number, layer in enumerate(parts.layers):
        described.append({"kind": kind_of(layer), **{name: getattr(layer, name) for name in PLAIN_FIELDS[type(layer)]}})
        given = {name: getattr(layer, name) for name in ARRAYS[type(layer)]}
        arrays |= {f"layers/{number}/{name}": array for name, array in given.items() if array is not None}
    record: dict[str, Any] = {
        "format": FORMAT,
        "kind": "workhorse policy",
        "task": parts.task,
        "observation": _space_record(parts.observation),
        "action": _space_record(parts.action),
        "layers": described,
        "metadata": parts.metadata,
        "sha256": write_tensors(folder / "policy.safetensors", arrays),
    }
    # left out where there is none, so that the files of most tasks stay those of before
    formats = {name: getattr(parts, name) for name in _FORMATS}
    record |= {name: asdict(found) for name, found in formats.items() if found is not None}
    record["checksum"] = checksum(record)
    write_file(folder / "policy.json", json.dumps(record, indent=2, allow_nan=False).encode())


def read_policy(folder: Path) -> PolicyParts:
    """Read both files, of format 2 or 1.

    Raises:
        UsageError: policy.json is no JSON, of another program or format, or a field is missing, unknown or of another
            type.
        DamagedFile: the files are not what was written; the text says in what.
    """
    file, within = folder / "policy.json", _guarded(folder)
    record = parse(parse_json, read_part(file, within), file, "a policy in JSON")
    if record.get("kind") != "workhorse policy":
        raise UsageError(
            f"Expected a Workhorse policy in {file}, got another program's JSON. "
            "Name a policy folder, or a run that `workhorse runs` lists."
        )
    version = record.get("format")
    if type(version) is not int or version not in (1, FORMAT):
        raise UsageError(
            f"Expected policy format {FORMAT} or 1 in {file}, got {str(version)[:40]!r}: another version of Workhorse "
            "wrote it. Use that version."
        )
    there = record if version == 1 else {**_FORMATS, **record}
    description = build(_Description if version == FORMAT else _Description1, there, str(file))
    if isinstance(description, _Description) and description.checksum != checksum(record):
        raise DamagedFile("policy.json does not have the checksum it was written with")
    arrays = read_tensors(folder / "policy.safetensors", description.sha256, within)
    parts = description.parts(str(file), arrays)
    owner, run = owner_of(within), parts.metadata.get("run")
    if owner and isinstance(run, str) and not owner.startswith(f"{run}, begun "):
        raise DamagedFile(f"it is of another run, {shown(run)}")
    if arrays:
        raise DamagedFile(f"policy.safetensors holds arrays of no layer: {', '.join(sorted(arrays))[:80]}")
    return parts


def _guarded(folder: Path) -> Path:
    """Return the folder whose parts may be no links: the run that a policy is in, or the policy's own."""
    return folder.parent if is_there(folder.parent / "manifest.json") else folder


# --- format 2 ---


@dataclass(frozen=True)
class _Description:
    """Fields of policy.json; those of layers and spaces depend on their kinds."""

    format: int
    kind: str
    task: str
    observation: Mapping[str, Any]
    action: Mapping[str, Any]
    layers: tuple[Mapping[str, Any], ...]
    metadata: Mapping[str, Any]
    sha256: str
    checksum: str
    observation_format: ObservationFormat | None
    action_format: ActionFormat | None

    def parts(self, file: str, arrays: dict[str, np.ndarray]) -> PolicyParts:
        """Return the parts, taking their arrays out of `arrays`."""
        layers = tuple(_read_layer(number, layer, arrays, file) for number, layer in enumerate(self.layers))
        observation = _read_space(self.observation, f"{file}, `observation`")
        if not isinstance(observation, Box):
            raise DamagedFile("policy.json: the observation must be a box")
        action = _read_space(self.action, f"{file}, `action`")
        formats = (self.observation_format, self.action_format)
        return PolicyParts(layers, observation, action, self.task, dict(self.metadata), *formats)


_FORMATS: dict[str, Any] = {"observation_format": None, "action_format": None}
"""Fields that may be missing."""


@dataclass(frozen=True)
class _BoxRecord:
    """A `Box`, whose bounds are one for all components or one each."""

    shape: Shape
    low: Bound | tuple[Bound, ...]
    high: Bound | tuple[Bound, ...]

    def space(self, where: str) -> ActionSpace:
        size = math.prod(self.shape)
        return Box(_bounds(self.low, size, where), _bounds(self.high, size, where), self.shape)


@dataclass(frozen=True)
class _GoalRecord(_BoxRecord):
    """A `Goal`, which is a box of three parts."""

    goal_size: int

    def space(self, where: str) -> ActionSpace:
        size = math.prod(self.shape)
        if not 0 < 2 * self.goal_size <= size:
            raise DamagedFile(f"policy.json: goals of {self.goal_size} components do not fit into {size} of {where}")
        return Goal(_bounds(self.low, size, where), _bounds(self.high, size, where), self.shape, self.goal_size)


_SPACES = {
    "discrete": Discrete,
    "multi_discrete": MultiDiscrete,
    "multi_binary": MultiBinary,
    "box": _BoxRecord,
    "goal": _GoalRecord,
}


def _kind_of(record: Mapping[str, Any], kinds: Mapping[str, type], where: str) -> tuple[type, dict[str, Any]]:
    """Return the class that a record's kind names, and the record's other fields."""
    kind = record.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise UsageError(f"Expected a kind among {', '.join(kinds)} in {where}, got {str(kind)[:40]!r}. {DAMAGED}")
    return kinds[kind], {name: value for name, value in record.items() if name != "kind"}


def _read_layer(number: int, record: Mapping[str, Any], arrays: dict[str, np.ndarray], file: str) -> Layer:
    kind, values = _kind_of(record, KINDS, f"{file}, layer {number}")
    odd = sorted(set(values) ^ set(PLAIN_FIELDS[kind]))
    if odd:
        what = "lacks" if odd[0] in PLAIN_FIELDS[kind] else "has the unknown field"
        raise DamagedFile(f"policy.json: layer {number} {what} {odd[0][:40]!r}")
    values |= {name: arrays.pop(f"layers/{number}/{name}", None) for name in ARRAYS[kind]}
    for name in ARRAYS[kind]:
        if values[name] is None and name not in kind._field_defaults:  # type: ignore[attr-defined]
            raise DamagedFile(f"policy.safetensors lacks {name} of layer {number}")
    return kind(**values)  # the types of the values are checked with those of any other policy


def _space_record(space: ActionSpace) -> dict[str, Any]:
    match space:
        case Discrete():
            return {"kind": "discrete", "count": space.count}
        case MultiDiscrete():
            return {"kind": "multi_discrete", "counts": list(space.counts)}
        case MultiBinary():
            return {"kind": "multi_binary", "size": space.size}
    record = {"shape": list(space.shape), "low": _bounds_record(space.low), "high": _bounds_record(space.high)}
    if isinstance(space, Goal):
        return {"kind": "goal", **record, "goal_size": space.goal_size}
    return {"kind": "box", **record}


def _read_space(record: Mapping[str, Any], where: str) -> ActionSpace:
    kind, values = _kind_of(record, _SPACES, where)
    found = build(kind, values, where)
    return found.space(where) if isinstance(found, _BoxRecord) else found


def _bounds_record(bounds: tuple[float, ...]) -> float | str | list[float | str]:
    """Return bounds as strict JSON: one where all are alike, and "inf" for infinity, which JSON lacks."""
    plain = [float(bound) if math.isfinite(bound) else str(float(bound)) for bound in bounds]
    return plain[0] if all(bound == plain[0] for bound in plain) else plain


def _bounds(bounds: Bound | tuple[Bound, ...], size: int, where: str) -> tuple[float, ...]:
    """Return as many bounds, from one or from a list of as many."""
    if not isinstance(bounds, tuple):
        return (float(bounds),) * size
    if len(bounds) != size:
        raise DamagedFile(f"policy.json: {len(bounds)} bounds for {size} components of {where}")
    return tuple(map(float, bounds))


# --- format 1 ---


@dataclass(frozen=True)
class _Description1:
    """Fields of policy.json in format 1."""

    format: int
    kind: str
    task: str
    observation_size: int
    layers: tuple[Mapping[str, Any], ...]
    activation: str
    normaliser: bool
    observation_clip: float | None
    action: Mapping[str, Any]
    action_bins: int | None
    metadata: Mapping[str, Any]
    sha256: str

    def parts(self, file: str, arrays: dict[str, np.ndarray]) -> PolicyParts:
        """Return the layers that act as a policy of format 1 did, bit for bit."""
        weights, biases = [], []
        for number, layer in enumerate(self.layers):
            if set(layer) != {"out", "in", "bias"}:
                raise DamagedFile(f"policy.json: layer {number} must have the fields out, in and bias")
            weight, bias = (arrays.pop(f"layers/{number}/{name}", None) for name in ("weight", "bias"))
            shape = [layer["out"], layer["in"]]
            if weight is None or list(weight.shape) != shape or (bias is not None) is not layer["bias"]:
                raise DamagedFile("policy.json and policy.safetensors disagree")
            weights.append(weight)
            biases.append(bias)
        if not weights or weights[0].shape[1] != self.observation_size:
            raise DamagedFile("policy.json and policy.safetensors disagree")
        layers = perceptron(weights, biases, self.activation)
        if self.normaliser:
            mean, scale = (arrays.pop(f"normaliser/{name}", None) for name in ("mean", "scale"))
            layers = (Normalise(mean, scale, self.observation_clip), *layers)
        elif self.observation_clip is not None:
            raise DamagedFile("policy.json: observation_clip needs a normaliser")
        action = self._action(f"{file}, `action`")
        if self.action_bins is not None and not isinstance(action, Box):
            raise DamagedFile("policy.json: action_bins needs continuous actions")
        network = (*layers, head_for(action, action_bins=self.action_bins))
        return PolicyParts(network, Box.unbounded(weights[0].shape[1]), action, self.task, dict(self.metadata))

    def _action(self, where: str) -> ActionSpace:
        given = {name: value for name, value in self.action.items() if name != "type"}
        if self.action.get("type") == "box" and isinstance(given.get("low"), list):
            given["shape"] = [len(given["low"])]
        return _read_space({"kind": self.action.get("type"), **given}, where)
