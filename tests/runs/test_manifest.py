"""The manifest round-trips and is read strictly."""

import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from workhorse.core.errors import UsageError
from workhorse.core.machine import describe_hardware, installed_versions
from workhorse.runs.manifest import Manifest, git_state


def manifest(**changes) -> Manifest:
    made = Manifest.describe(
        id="run-1",
        command=["workhorse", "train", "HalfCheetah-v5"],
        task="HalfCheetah-v5",
        task_options={"forward_reward_weight": 2.0},
        algorithm="ars",
        settings={"step_size": 0.02, "population": 60, "layers": [32, 32]},
        seed=3,
        env_steps=10**9,
        slots=64,
        threads=2,
        recipe="ars-v2",
        recipe_source="Mania et al. 2018, table 9",
    )
    return replace(made, **changes)


def test_round_trip():
    for made in (manifest(), manifest(recipe=None, recipe_source=None, git={"commit": "a" * 40, "dirty": True})):
        assert Manifest.from_json(made.to_json(), "manifest.json") == made


def test_it_says_what_bits_depend_on():
    made = manifest()
    assert made.versions["numpy"] == np.__version__ and made.versions["python"]
    assert {"workhorse", "jax", "mujoco", "gymnasium"} <= set(made.versions) == set(installed_versions())
    assert made.created.endswith("+00:00")
    assert made.hardware == describe_hardware()
    assert made.hardware.cores >= 1 and made.hardware.memory_bytes > 2**28 and made.hardware.system


def edited(**changes) -> str:
    record = json.loads(manifest().to_json())
    for name, value in changes.items():
        if value is ...:
            del record[name]
        else:
            record[name] = value
    return json.dumps(record)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expected a manifest in JSON in run/manifest.json, but it cannot be read .*damaged"),
        (b"\xff\xfe\x00", "cannot be read"),
        ("[1]", "Expected a manifest in JSON in run/manifest.json, got no table but"),
        ('{"name": "x"}', "without a `format`"),
        (edited(format=5), "Expected manifest format 4 in run/manifest.json, got 5: another version of Workhorse"),
        (edited(seed=...), "Expected a field `seed` in run/manifest.json, got none"),
        (edited(colour="red"), "Expected no field `colour` in run/manifest.json, got one"),
        (edited(seed="3"), "Expected `seed` in run/manifest.json to be a whole number, got '3'"),
        (edited(seed=True), "Expected `seed` .* to be a whole number, got True"),
        (edited(recipe=4), "Expected `recipe` .* to be text or null, got 4"),
        (edited(hardware=[]), "Expected `hardware` .* to be a table"),
        (edited(settings={"a": float("nan")}), "Expected `settings` of 'a' .* finite numbers"),
        (edited(hardware={"cpu": "x"}), "Expected a field `cores` in run/manifest.json, `hardware`, got none"),
    ],
)
def test_strict_reading(text, message):
    with pytest.raises(UsageError, match=message):
        Manifest.from_json(text, "run/manifest.json")


def test_a_manifest_of_format_1_is_read_in_the_names_of_today():
    made = manifest()
    record = json.loads(made.to_json())
    del record["checksum"]
    record["configuration"], record["chunk"], record["format"] = record.pop("settings"), 8, 1
    assert Manifest.from_json(json.dumps(record), "manifest.json") == made


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32(1), object()])
def test_only_plain_json_is_written(value):
    with pytest.raises((TypeError, ValueError)):
        manifest(settings={"a": value}).to_json()


def test_the_commit_is_of_the_checkout_that_tracks_the_code(tmp_path):
    def git(*arguments):
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "code.py").write_text("1")
    (tmp_path / "installed.py").write_text("1")
    assert git_state(tmp_path / "code.py") is None
    git("init", "-q")
    git("add", "code.py")
    git("commit", "-qm", "first")
    assert git_state(tmp_path / "code.py") == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    assert git_state(tmp_path / "installed.py") is None
    (tmp_path / "code.py").write_text("2")
    assert git_state(tmp_path / "code.py") == {"commit": git("rev-parse", "HEAD"), "dirty": True}
