"""Files of a policy artefact: policy.safetensors holds the arrays and policy.json all else.

Format 2 names every layer by its kind; the arrays of layer i are called layers/i/FIELD. `sha256` is that of the tensor
file, and `checksum` that of the whole description in canonical JSON, so that no flipped bit goes unnoticed. Format 1
knew one network: a normaliser, a perceptron, and a head that followed from the action space. It is read, not written.

Nothing in either file is executed, and reading is strict: anything that is not expected is an error.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from workhorse.core.errors import UsageError
from workhorse.core.layers import KINDS, Layer, Normalise, PolicyNetwork, head_for, perceptron
from workhorse.core.spec import ActionSpace, Box, Discrete, Goal, MultiBinary, MultiDiscrete
from workhorse.runs.files import settled_folder, write_file
from workhorse.runs.layer_checks import FIELDS, kind_of
from workhorse.runs.strict_json import parse_json
from workhorse.runs.tensors import DamagedFile, read_tensors, write_tensors

__all__ = ["FORMAT", "PolicyParts", "policy_folder", "read_policy", "write_policy"]

FORMAT = 2
"""Version of the layout that is written."""

MOST_COMPONENTS = 2**24
"""Most components of a space. A shape of a few digits must not make a list of bounds that fills the memory."""

_INFINITIES = {"inf": math.inf, "-inf": -math.inf}


class PolicyParts(NamedTuple):
    """What the files hold; `runs.policy.Policy` checks how it fits together."""

    layers: PolicyNetwork
    observation: Box
    action: ActionSpace
    task: str
    metadata: dict[str, Any]


def policy_folder(path: Path) -> Path:
    """Return the policy folder that `path` is, or that is in the run `path`.

    Raises:
        UsageError: there is none.
    """
    for folder in (settled_folder(path), settled_folder(path / "policy")):
        if (folder / "policy.json").exists():
            return folder
    if not path.exists():
        raise UsageError(
            f"Expected a policy or a run in {path}, which does not exist. `workhorse runs` lists the runs."
        )
    if not path.is_dir():
        raise UsageError(f"Expected a policy folder, got the file {path}. Name the folder that holds policy.json.")
    if (path / "manifest.json").exists():
        raise UsageError(f"Expected a policy in the run {path}, which has not written one yet. Let it train longer.")
    raise UsageError(
        f"Expected policy.json in {path}, found none. Name a policy folder, or a run that `workhorse runs` lists."
    )


def write_policy(folder: Path, parts: PolicyParts) -> None:
    """Write both files into an empty folder."""
    arrays, described = {}, []
    for number, layer in enumerate(parts.layers):
        plain: dict[str, Any] = {"kind": kind_of(layer)}
        for name, field in FIELDS[type(layer)].items():
            value = getattr(layer, name)
            if not field.is_array:
                plain[name] = list(value) if isinstance(value, tuple) else value
            elif value is not None:
                arrays[f"layers/{number}/{name}"] = value
        described.append(plain)
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
    record["checksum"] = _checksum(record)
    write_file(folder / "policy.json", json.dumps(record, indent=2, allow_nan=False).encode())


def read_policy(folder: Path) -> PolicyParts:
    """Read both files, of format 2 or 1.

    Raises:
        UsageError: policy.json is no JSON, of another program, or of another format.
        DamagedFile: the files are not what was written; the text says in what.
    """
    file = folder / "policy.json"
    try:
        record = parse_json(file.read_bytes())
    except (ValueError, OSError) as error:
        raise UsageError(
            f"Expected a whole policy in {folder}, but policy.json cannot be read ({error}). Restore it from a copy."
        ) from error
    if not isinstance(record, dict) or record.get("kind") != "workhorse policy":
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
    if version == FORMAT and record.get("checksum") != _checksum(record):
        raise DamagedFile("policy.json does not have the checksum it was written with")
    arrays = read_tensors(folder / "policy.safetensors", _field(record, "sha256", str))
    parts = _version_2(record, arrays) if version == FORMAT else _version_1(record, arrays)
    if arrays:
        raise DamagedFile(f"policy.safetensors holds arrays of no layer: {', '.join(sorted(arrays))[:80]}")
    return parts


def _checksum(record: Mapping[str, Any]) -> str:
    described = {name: value for name, value in record.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(described, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# --- format 2 ---


def _version_2(record: dict[str, Any], arrays: dict[str, np.ndarray]) -> PolicyParts:
    """Return the parts, taking their arrays out of `arrays`."""
    _only(record, {"format", "kind", "task", "observation", "action", "layers", "metadata", "sha256", "checksum"}, "")
    observation = _read_space(_field(record, "observation", dict), "observation")
    if not isinstance(observation, Box):
        raise DamagedFile("policy.json: the observation must be a box")
    return PolicyParts(
        tuple(_read_layer(i, layer, arrays) for i, layer in enumerate(_field(record, "layers", list))),
        observation,
        _read_space(_field(record, "action", dict), "action"),
        _field(record, "task", str),
        _field(record, "metadata", dict),
    )


def _read_layer(number: int, record: object, arrays: dict[str, np.ndarray]) -> Layer:
    where = f"layer {number}"
    if not isinstance(record, dict):
        raise DamagedFile(f"policy.json: {where} is no object")
    kind = _field(record, "kind", str, where)
    if kind not in KINDS:
        raise DamagedFile(f"policy.json: {where} is of the unknown kind {kind[:40]!r}")
    values: dict[str, Any] = {}
    fields = FIELDS[KINDS[kind]]
    _only(record, {"kind", *(name for name, field in fields.items() if not field.is_array)}, where)
    for name, field in fields.items():
        if field.is_array:
            values[name] = arrays.pop(f"layers/{number}/{name}", None)
            if values[name] is None and not field.is_optional:
                raise DamagedFile(f"policy.safetensors lacks {name} of {where}")
        else:
            value = record[name]
            values[name] = tuple(value) if get_args(field.type) and isinstance(value, list) else value
    return KINDS[kind](**values)  # the types of the values are checked with those of any other policy


def _space_record(space: ActionSpace) -> dict[str, Any]:
    match space:
        case Discrete():
            return {"kind": "discrete", "count": space.count}
        case MultiDiscrete():
            return {"kind": "multi_discrete", "counts": list(space.counts)}
        case MultiBinary():
            return {"kind": "multi_binary", "size": space.size}
    record = {"shape": list(space.shape), "low": _bounds(space.low), "high": _bounds(space.high)}
    if isinstance(space, Goal):
        return {"kind": "goal", **record, "goal_size": space.goal_size}
    return {"kind": "box", **record}


def _read_space(record: dict[str, Any], where: str) -> ActionSpace:
    fields = {
        "discrete": {"count"},
        "multi_discrete": {"counts"},
        "multi_binary": {"size"},
        "box": {"shape", "low", "high"},
        "goal": {"shape", "low", "high", "goal_size"},
    }
    kind = _field(record, "kind", str, where)
    if kind not in fields:
        raise DamagedFile(f"policy.json: {where} is of the unknown kind {kind[:40]!r}")
    _only(record, {"kind", *fields[kind]}, where)
    match kind:
        case "discrete":
            return Discrete(_field(record, "count", int, where))
        case "multi_discrete":
            return MultiDiscrete(_whole_numbers(record, "counts", where))
        case "multi_binary":
            return MultiBinary(_field(record, "size", int, where))
    shape = _whole_numbers(record, "shape", where)
    size = math.prod(shape)
    if not shape or min(shape) < 1 or size > MOST_COMPONENTS:
        raise DamagedFile(f"policy.json: the shape {str(list(shape))[:80]} of {where} is impossible")
    low, high = (_read_bounds(record[name], size, where) for name in ("low", "high"))
    if kind == "box":
        return Box(low, high, shape)
    goal_size = _field(record, "goal_size", int, where)
    if not 0 < 2 * goal_size <= size:
        raise DamagedFile(f"policy.json: goals of {goal_size} components do not fit into {size} of {where}")
    return Goal(low, high, shape, goal_size)


def _bounds(bounds: tuple[float, ...]) -> float | str | list[float | str]:
    """Return bounds as strict JSON: one where all are alike, and "inf" for infinity, which JSON lacks."""
    plain = [float(bound) if math.isfinite(bound) else str(float(bound)) for bound in bounds]
    return plain[0] if all(bound == plain[0] for bound in plain) else plain


def _read_bounds(bounds: Any, size: int, where: str) -> tuple[float, ...]:
    """Return as many bounds, from one or a list of as many."""
    given = bounds if isinstance(bounds, list) else [bounds]
    found = []
    for bound in given:
        if isinstance(bound, str) and bound in _INFINITIES:
            found.append(_INFINITIES[bound])
        elif type(bound) in (int, float):
            found.append(float(bound))
        else:
            raise DamagedFile(f"policy.json: {str(bound)[:40]!r} is no bound of {where}")
    if isinstance(bounds, list) and len(found) != size:
        raise DamagedFile(f"policy.json: {where} has {len(found)} bounds for {size} components")
    return tuple(found) if isinstance(bounds, list) else tuple(found) * size


def _field(record: Mapping[str, Any], name: str, kind: type, where: str = "") -> Any:
    value = record.get(name)
    if type(value) is not kind:
        place = f" of {where}" if where else ""
        raise DamagedFile(f"policy.json: {name}{place} must be {kind.__name__}, not {type(value).__name__}")
    return value


def _whole_numbers(record: Mapping[str, Any], name: str, where: str) -> tuple[int, ...]:
    values = _field(record, name, list, where)
    if any(type(value) is not int for value in values):
        raise DamagedFile(f"policy.json: {name} of {where} must be whole numbers")
    return tuple(values)


def _only(record: Mapping[str, Any], names: set[str], where: str) -> None:
    """Refuse other fields than these, and fewer."""
    odd = sorted(set(record) ^ names)
    if odd:
        what = "lacks" if odd[0] in names else "has the unknown field"
        raise DamagedFile(f"policy.json: {where or 'the description'} {what} {odd[0][:40]!r}")


# --- format 1 ---


def _version_1(record: dict[str, Any], arrays: dict[str, np.ndarray]) -> PolicyParts:
    """Return the layers that act as a policy of format 1 did, bit for bit."""
    names = "format kind task observation_size layers activation normaliser observation_clip action action_bins"
    _only(record, {*names.split(), "metadata", "sha256"}, "")
    weights, biases = [], []
    for number, layer in enumerate(_field(record, "layers", list)):
        if not isinstance(layer, dict) or set(layer) != {"out", "in", "bias"}:
            raise DamagedFile(f"policy.json: layer {number} must have the fields out, in and bias")
        weight, bias = (arrays.pop(f"layers/{number}/{name}", None) for name in ("weight", "bias"))
        shape = [layer["out"], layer["in"]]
        if weight is None or list(weight.shape) != shape or (bias is not None) is not layer["bias"]:
            raise DamagedFile("policy.json and policy.safetensors disagree")
        weights.append(weight)
        biases.append(bias)
    if not weights or weights[0].shape[1] != record["observation_size"]:
        raise DamagedFile("policy.json and policy.safetensors disagree")
    layers = perceptron(weights, biases, _field(record, "activation", str))
    if _field(record, "normaliser", bool):
        mean, scale = (arrays.pop(f"normaliser/{name}", None) for name in ("mean", "scale"))
        layers = (Normalise(mean, scale, record["observation_clip"]), *layers)
    elif record["observation_clip"] is not None:
        raise DamagedFile("policy.json: observation_clip needs a normaliser")
    action = _action_1(_field(record, "action", dict))
    bins = record["action_bins"]
    if bins is not None and (type(bins) is not int or not isinstance(action, Box)):
        raise DamagedFile("policy.json: action_bins needs a whole number and continuous actions")
    return PolicyParts(
        (*layers, head_for(action, action_bins=bins)),
        Box.unbounded(weights[0].shape[1]),
        action,
        _field(record, "task", str),
        _field(record, "metadata", dict),
    )


def _action_1(record: dict[str, Any]) -> ActionSpace:
    if record.get("type") == "discrete":
        _only(record, {"type", "count"}, "action")
        return Discrete(_field(record, "count", int, "action"))
    _only(record, {"type", "low", "high"}, "action")
    low, high = (_field(record, name, list, "action") for name in ("low", "high"))
    if record["type"] != "box" or not low:
        raise DamagedFile("policy.json: the action must be a box or discrete")
    return Box(_read_bounds(low, len(low), "action"), _read_bounds(high, len(low), "action"))
