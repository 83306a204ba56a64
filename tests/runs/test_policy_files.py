"""Files of an artefact that somebody damaged, forged or wrote with an earlier version."""

import hashlib
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.runs.policies import VARIANTS, D, make, observations
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete
from workhorse.runs.policy import Policy

VERSION_1 = Path(__file__).with_name("version_1")
FILES = ("policy.json", "policy.safetensors")


def seal(folder, record):
    """Write a description with a checksum that is right, as a forger would."""
    record = {name: value for name, value in record.items() if name != "checksum"}
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    record["checksum"] = hashlib.sha256(canonical).hexdigest()
    (folder / "policy.json").write_text(json.dumps(record))


def outcome(folder, batch):
    """The bytes of the actions, or None where the artefact is refused in one sentence or two."""
    try:
        return Policy.load(folder).predict(batch)[0].tobytes()
    except UsageError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000  # noqa: PT017
        return None


# --- version 1 ---


@pytest.mark.parametrize("name", ["box", "discrete", "bins"])
def test_version_1_acts_to_the_bit_as_it_did(name, tmp_path):
    """The artefacts were written by version 0.4.0, and `expected.json` holds what it predicted."""
    expected = json.loads((VERSION_1 / "expected.json").read_text())
    batch = np.array(expected["observations"])
    policy = Policy.load(VERSION_1 / name)
    actions = policy.predict(batch)[0]
    assert actions.tobytes() == as_version_1(VERSION_1 / name, batch).tobytes()
    # Another machine's matrix products may sum in another order than the one that wrote these.
    wrote = np.frombuffer(bytes.fromhex(expected[name]["batch"]), actions.dtype).reshape(actions.shape)
    np.testing.assert_allclose(actions, wrote, atol=1e-6)
    policy.save(tmp_path)
    again = Policy.load(tmp_path)
    assert again.predict(batch)[0].tobytes() == actions.tobytes()
    assert (again.metadata, again.action, again.observation_size) == (policy.metadata, policy.action, D)
    assert policy.metadata["env_steps"] == 1024 and not policy.is_stochastic


def as_version_1(folder, batch):
    """The forward pass as version 0.4.0 had it, operation by operation."""
    from safetensors.numpy import load_file

    record, arrays = json.loads((folder / "policy.json").read_text()), load_file(folder / "policy.safetensors")
    hidden = batch.astype(np.float32)
    if record["normaliser"]:
        hidden = (hidden - arrays["normaliser/mean"]) / arrays["normaliser/scale"]
        if record["observation_clip"] is not None:
            bound = np.float32(record["observation_clip"])
            hidden = np.clip(hidden, -bound, bound)
    for number in range(len(record["layers"])):
        hidden = hidden @ arrays[f"layers/{number}/weight"].T
        if record["layers"][number]["bias"]:
            hidden = hidden + arrays[f"layers/{number}/bias"]
        if number < len(record["layers"]) - 1:
            hidden = np.tanh(hidden) if record["activation"] == "tanh" else np.maximum(hidden, 0)
    action = record["action"]
    if action["type"] == "discrete":
        return hidden.argmax(axis=1).astype(np.int64)
    low, high = ([float(bound) for bound in action[side]] for side in ("low", "high"))
    if record["action_bins"] is None:
        return np.clip(hidden, np.asarray(low, np.float32), np.asarray(high, np.float32))
    values = np.linspace(low, high, record["action_bins"], axis=1).astype(np.float32)
    best = hidden.reshape(len(hidden), len(low), record["action_bins"]).argmax(axis=2)
    return values[np.arange(len(low)), best]


def test_version_1_is_read_as_its_writer_meant_it():
    box, discrete, bins = (Policy.load(VERSION_1 / name) for name in ("box", "discrete", "bins"))
    assert box.action == Box((-1.0, -0.5, -np.inf), (1.0, 0.5, 0.1)) and discrete.action == Discrete(4)
    assert [type(layer).__name__ for layer in box.layers] == ["Normalise", "Dense", "Activation", "Dense", "Mode"]
    assert [type(layer).__name__ for layer in bins.layers] == ["Dense", "Bins"]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("box", {"layers": []}, "policy.json and policy.safetensors disagree"),
        ("box", {"layers": 3}, "`layers` in .* to be a list, got 3"),
        ("box", {"layers": [{"out": 8, "in": 5, "bias": True}]}, "arrays of no layer: layers/1/bias, layers/1/weight"),
        ("box", {"layers": [{"out": 8, "in": 5}]}, "layer 0 must have the fields out, in and bias"),
        ("box", {"layers": [{"out": 9, "in": 5, "bias": True}]}, "disagree"),
        ("box", {"layers": [{"out": 8, "in": 5, "bias": False}]}, "disagree"),
        ("box", {"observation_size": 9}, "disagree"),
        ("box", {"observation_size": 10**15}, "disagree"),
        ("box", {"action": {"type": "discrete", "count": 9}}, "Expected layer 4 .* to read 9 outputs"),
        (
            "box",
            {"action": {"type": "box", "low": ["x"], "high": [1]}},
            "`low` entry 1 .* finite number .* got 'x'",
        ),
        ("box", {"action": {"type": "box", "low": [0, 0, 0], "high": [1]}}, "1 bounds for 3 components"),
        ("box", {"action": {"type": "bag", "low": [0], "high": [1]}}, "Expected a kind among .* `action`, got 'bag'"),
        ("box", {"normaliser": False, "observation_clip": None}, "arrays of no layer: normaliser/mean"),
        ("box", {"normaliser": False}, "observation_clip needs a normaliser"),
        ("bins", {"normaliser": True}, "mean of layer 0 .* got object"),
        ("box", {"activation": "selu"}, "Expected an activation among tanh, .* got 'selu'"),
        ("box", {"observation_clip": True}, "`observation_clip` .* to be a finite number or null"),
        ("box", {"action_bins": 2.5}, "`action_bins` .* to be a whole number or null, got 2.5"),
        ("discrete", {"action_bins": 2}, "action_bins needs continuous actions"),
        ("box", {"task": 7}, "`task` in .* to be text, got 7"),
        ("box", {"sha256": None}, "`sha256` in .* to be text, got None"),
        ("box", {"sha256": "0" * 64}, "does not have the SHA-256"),
        ("box", {"checksum": "0" * 64}, "Expected no field `checksum`"),
    ],
)
def test_damaged_files_of_version_1(tmp_path, name, changes, message):
    shutil.copytree(VERSION_1 / name, tmp_path / "policy")
    file = tmp_path / "policy" / "policy.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(UsageError, match=message):
        Policy.load(tmp_path)


# --- version 2 ---


def changed(**changes):
    return lambda record: record | changes


def layer(number, **changes):
    def change(record):
        record["layers"][number] |= changes
        return record

    return change


def without(*names):
    return lambda record: {name: value for name, value in record.items() if name not in names}


SPACE = {"kind": "box", "shape": [5], "low": "-inf", "high": "inf"}
ACTION = {"kind": "box", "shape": [3], "low": -1.0, "high": 1.0}


@pytest.mark.parametrize(
    ("forge", "message"),
    [
        (changed(format=3), "Expected policy format 2 or 1 in .*policy.json, got '3': another version"),
        (changed(format=True), "Expected policy format 2 or 1 .* got 'True'"),
        (changed(format=[[2]]), "Expected policy format 2 or 1"),
        (changed(kind="another"), "Expected a Workhorse policy .* another program's JSON"),
        (without("task"), "Expected a field `task` .* got none"),
        (changed(extra=1), "Expected no field `extra`"),
        (changed(task=None), "`task` in .* to be text, got None"),
        (changed(metadata=[]), r"`metadata` in .* to be a table, got \[\]"),
        (changed(layers={}), "`layers` in .* to be a list, got {}"),
        (changed(layers=[]), "arrays of no layer: layers/0/mean"),
        (changed(layers=[[]]), r"`layers` entry 1 .* to be a table, got \[\]"),
        (layer(0, kind="pickle"), "Expected a kind among .*, layer 0, got 'pickle'"),
        (layer(0, kind=["dense"]), "Expected a kind among .*, layer 0, got"),
        (layer(0, scale=2), "layer 0 has the unknown field 'scale'"),
        (layer(0, kind="dense", clip=None), "layer 0 has the unknown field 'clip'"),
        (layer(1, kind="batch_norm", epsilon=0.1), "policy.safetensors lacks mean of layer 1"),
        (layer(0, clip="5"), "`clip` in layer 0 .* to be a finite number or null, got '5'"),
        (layer(0, clip=[[]]), "`clip` in layer 0"),
        (layer(2, name=["tanh"]), "`name` in layer 2 .* to be text"),
        (layer(2, name="__import__"), "Expected an activation among"),
        (lambda r: r | {"layers": r["layers"][:-1]}, "end with a head"),
        (lambda r: r | {"layers": [r["layers"][-1], *r["layers"]]}, "policy.safetensors lacks mean of layer 1"),
        (lambda r: r | {"layers": [*r["layers"], r["layers"][-1]]}, "Expected one head"),
        (lambda r: r | {"layers": [*r["layers"][:2], *r["layers"][3:]]}, "lacks weight of layer 2"),
        (lambda r: r | {"layers": [*r["layers"][:3], r["layers"][4]]}, "arrays of no layer: layers/3/bias"),
        (changed(observation={"kind": "discrete", "count": 5}), "the observation must be a box"),
        (changed(observation=SPACE | {"shape": [6]}), "Expected .* of layer 0 .* to fit the shape"),
        (changed(observation=SPACE | {"shape": []}), r"`shape` in .*, `observation` to be sizes above 0, .* got \[\]"),
        (changed(observation=SPACE | {"shape": [10**9, 10**9]}), "`shape` in .*, `observation` to be sizes above 0"),
        (changed(observation=SPACE | {"shape": [-5, -1]}), "`shape` in .*, `observation` to be sizes above 0"),
        (changed(observation=SPACE | {"shape": [5.0]}), "`shape` entry 1 in .* to be a whole number, got 5.0"),
        (
            changed(observation=SPACE | {"low": ["nan"] * 5}),
            "`low` entry 1 in .* to be a finite number or one of inf, -inf",
        ),
        (changed(observation=SPACE | {"low": True}), "`low` in .*, `observation` to be a finite number .* got True"),
        (changed(observation=SPACE | {"low": [0.0]}), "1 bounds for 5 components"),
        (changed(observation=SPACE | {"low": "inf", "high": "-inf"}), "not empty"),
        (changed(observation=SPACE | {"kind": "goal", "goal_size": 3}), "goals of 3 components do not fit into 5"),
        (changed(observation=SPACE | {"kind": "goal"}), "Expected a field `goal_size` in .*, `observation`"),
        (changed(action=ACTION | {"kind": "bag"}), "Expected a kind among .*, `action`, got 'bag'"),
        (changed(action={"kind": "discrete", "count": 3}), "to fit the task's actions"),
        (changed(action={"kind": "discrete", "count": "3"}), "`count` in .*, `action` to be a whole number"),
        (
            changed(action={"kind": "multi_discrete", "counts": [3, None]}),
            "`counts` entry 2 in .*, `action` to be",
        ),
        (changed(action={"kind": "multi_discrete", "counts": []}), "not empty"),
        (changed(action={"kind": "multi_binary", "size": -3}), "not empty"),
        (changed(action=ACTION | {"shape": [4]}), "to read 4 outputs"),
    ],
)
def test_forged_descriptions(tmp_path, forge, message):
    make().save(tmp_path)
    seal(tmp_path, forge(json.loads((tmp_path / "policy.json").read_text())))
    with pytest.raises(UsageError, match=message):
        Policy.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("", "cannot be read"),
        ("[]", r"got no table but \[\]"),
        ('{"a": NaN}', "another program's JSON"),
        ('{"a": -Infinity}', "another program's JSON"),
        ('{"a": 1e999}', "another program's JSON"),
        ('{"a": ' + "9" * 5000 + "}", "Exceeds the limit"),
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
        ('{"a": "\\ud800"}', "another program's JSON"),
        ("\ufeff{}", "BOM"),
        ("[" * 65 + "]" * 65, "got no table but"),
        ("[" * 100_000 + "]" * 100_000, "nested more than 64 deep"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested more than 64 deep"),
    ],
)
def test_json_that_is_not_by_its_standard(tmp_path, text, message):
    make().save(tmp_path)
    (tmp_path / "policy.json").write_text(text)
    with pytest.raises(UsageError, match=message):
        Policy.load(tmp_path)


@pytest.mark.parametrize("odd", ["NaN", "-Infinity", "1e999", "9" * 30, '"\\ud800"'])
def test_numbers_and_text_beyond_the_standard_are_refused_where_they_stand(tmp_path, odd):
    shutil.copytree(VERSION_1 / "box", tmp_path / "policy")
    file = tmp_path / "policy" / "policy.json"
    record = json.loads(file.read_text())
    for name in ("task", "action_bins", "metadata"):
        file.write_text(json.dumps(record | {name: "HERE"}).replace('"HERE"', odd))
        with pytest.raises(UsageError, match=f"Expected `{name}` in .* to be "):
            Policy.load(tmp_path)
    file.write_text(json.dumps(record | {"metadata": {"a": "HERE"}}).replace('"HERE"', odd))
    with pytest.raises(UsageError, match=r"`metadata` of 'a' in .* to be plain text, finite numbers of 64 bits"):
        Policy.load(tmp_path)


@pytest.mark.parametrize("depth", [60, 64, 500, 900, 992, 1000, 3000])
def test_metadata_of_any_depth_are_a_sentence_or_a_policy(tmp_path, depth):
    shutil.copytree(VERSION_1 / "box", tmp_path / "policy")
    file = tmp_path / "policy" / "policy.json"
    record = json.loads(file.read_text())
    nested = '{"a":' * depth + "1" + "}" * depth
    file.write_text(json.dumps(record | {"metadata": "HERE"}).replace('"HERE"', nested))
    if depth <= 64:
        assert Policy.load(tmp_path).metadata["a"]["a"]
    else:
        with pytest.raises(UsageError, match=r"nested (at most|more than) 64 deep"):
            Policy.load(tmp_path)


FUZZED = ("box", "pixels", "gru", "multi-discrete")


@pytest.fixture(params=FUZZED)
def artefact(request, tmp_path):
    policy = VARIANTS[request.param]()
    batch = observations(policy, 3)
    return policy.save(tmp_path / "policy"), batch, policy.predict(batch)[0].tobytes()


@pytest.mark.parametrize("name", FILES)
def test_no_flipped_bit_goes_unnoticed(artefact, name):
    folder, batch, right = artefact
    file = folder / name
    content, rng = file.read_bytes(), random.Random(0)
    found = set()
    for place in [*range(min(len(content), 40)), *(rng.randrange(len(content)) for _ in range(300))]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        file.write_bytes(bytes(damaged))
        found.add(outcome(folder, batch))
    assert found <= {None, right} and None in found
    if name == "policy.safetensors":
        assert found == {None}


@pytest.mark.parametrize("name", FILES)
def test_no_cut_stretched_or_swapped_file_goes_unnoticed(artefact, name, tmp_path):
    folder, batch, right = artefact
    file = folder / name
    content = file.read_bytes()
    make(seed=77).save(tmp_path / "other")
    contents = [b"", content[:-1], content[: len(content) // 2], content[:9], content + b"\0", content + content]
    for damaged in (*contents, (tmp_path / "other" / name).read_bytes()):
        file.write_bytes(damaged)
        assert outcome(folder, batch) is None
    file.unlink()
    assert outcome(folder, batch) is None
    file.mkdir()
    assert outcome(folder, batch) is None
    file.rmdir()
    file.write_bytes(content)
    assert outcome(folder, batch) == right


def test_forged_values_of_every_kind_are_a_sentence_or_act_as_they_say(artefact):
    """Replace each value of the description by odd ones, under a right checksum."""
    folder, batch, _ = artefact
    whole = json.loads((folder / "policy.json").read_text())
    odd = [None, True, -1, 0, 2, 2**62, 0.5, -1e308, "", "inf", "tanh", "dense", [], [[]], {}, {"kind": "dense"}]
    for place in sorted(places(whole), key=str):
        for value in odd:
            record = json.loads(json.dumps(whole))
            target = record
            for step in place[:-1]:
                target = target[step]
            target[place[-1]] = value
            seal(folder, record)
            outcome(folder, batch)


def places(value, before=()):
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = []
    for step, inner in steps:
        found += [(*before, step), *places(inner, (*before, step))]
    return found


@pytest.mark.parametrize(
    "header",
    [
        {"layers/0/weight": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}},
        {"layers/0/weight": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}},
        {"layers/0/weight": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}},
        {"layers/0/weight": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}},
        {"layers/0/weight": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}},
        {"layers/0/weight": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        {"__metadata__": {"a": "b"}},
        {},
    ],
)
def test_forged_tensors(tmp_path, header):
    make().save(tmp_path)
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + b"\0" * 4
    (tmp_path / "policy.safetensors").write_bytes(content)
    record = json.loads((tmp_path / "policy.json").read_text())
    seal(tmp_path, record | {"sha256": hashlib.sha256(content).hexdigest()})
    assert outcome(tmp_path, np.zeros((1, D))) is None
