"""Parcels of a run's files: what goes in comes out, what is new goes once, and nothing else can be written."""

import json
import os
import struct

import pytest

from workhorse.core.errors import UsageError
from workhorse.studies import parcels
from workhorse.studies.parcels import BadParcel, Packer, unpack

RUN = {
    "manifest.json": b"{}",
    "status.json": b"1",
    "metrics.parquet": b"PAR1",
    "checkpoints/0/meta.json": b"a",
    "checkpoints/0/state.safetensors": b"\0" * 100,
    "policy/policy.json": b"p",
    "segments/replay/0-70.safetensors": b"rows",
    "evaluations/3-16.json": b"e",
    "tensorboard/events.out.tfevents.1.vm.9": b"t",
}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def written(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def found(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def made(*files, magic=b"WHP1"):
    head = json.dumps(
        {"files": [[name, content if isinstance(content, int | float) else len(content)] for name, content in files]}
    )
    contents = b"".join(content for _, content in files if isinstance(content, bytes))
    return magic + struct.pack("<I", len(head)) + head.encode() + contents


def test_a_parcel_brings_a_runs_files_and_none_of_the_machine(tmp_path):
    here = written(tmp_path / "here", {**RUN, "lock": b"123", "report.html": b"x", "episode.py": b"x", ".tmp-1": b"x"})
    (here / "videos").mkdir()
    (here / "checkpoints" / "7").symlink_to(tmp_path)
    unpack(Packer(here).pack(), tmp_path / "there")
    assert found(tmp_path / "there") == RUN


def test_what_is_there_is_not_sent_again_and_what_is_gone_goes(tmp_path):
    here, there = written(tmp_path / "here", RUN), tmp_path / "there"
    packer = Packer(here)
    unpack(packer.pack(), there)
    (there / "lock").write_text("held")
    written(
        here, {"checkpoints/5/meta.json": b"b", "checkpoints/5/state.safetensors": b"5", "metrics.parquet": b"PAR2"}
    )
    for name in ("meta.json", "state.safetensors"):
        (here / "checkpoints" / "0" / name).unlink()
    (here / "checkpoints" / "0").rmdir()
    parcel = packer.pack()
    assert b"\0" * 100 not in parcel and b"rows" not in parcel
    assert unpack(parcel, there) == ["metrics.parquet", "checkpoints/5/meta.json", "checkpoints/5/state.safetensors"]
    assert found(there) == found(here) | {"lock": b"held"}
    assert not (there / "checkpoints" / "0").exists()
    assert unpack(packer.pack(), there) == []


def test_a_folder_that_is_whole_or_not_at_all_is_sent_whole(tmp_path):
    here = written(tmp_path / "here", RUN)
    packer = Packer(here)
    packer.skip_present()
    written(here, {"checkpoints/0/meta.json": b"changed"})
    assert unpack(packer.pack(), tmp_path / "there") == ["checkpoints/0/meta.json", "checkpoints/0/state.safetensors"]


def test_a_sweep_is_sent_the_policy_alone(tmp_path):
    unpack(Packer(written(tmp_path / "here", RUN), ("policy",)).pack(), tmp_path / "there")
    assert found(tmp_path / "there") == {"policy/policy.json": b"p"}


NAMES = [
    "../x", "/x", "checkpoints/../../x/y", "checkpoints/0/../../../x", "checkpoints/zero/x", "checkpoints/0", "lock",
    "policy", "report.html", "episode.py", "evaluations/.hidden", "segments/a", "manifest.json/x", "", "policy/a/b",
    "policy/a\x00", "policy/a\n", "policy//a", "POLICY/a", "policy/" + "a" * 300, "checkpoints/٣/x", "policy/ä",
]  # fmt: skip


@pytest.mark.parametrize("name", [*NAMES, 3, None, ["a"], {}])
def test_a_name_that_is_none_of_a_runs_is_refused_before_anything_is_written(tmp_path, name):
    with pytest.raises(BadParcel):
        unpack(made(("manifest.json", b"{}"), (name, b"x")), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "parcel",
    [
        b"",
        b"WHP1",
        made(("manifest.json", b"{}"), magic=b"\x80\x05PK"),
        made(("manifest.json", b"{}"))[:-1],
        made(("manifest.json", b"{}")) + b"x",
        made(("manifest.json", 2)),
        made(("manifest.json", -2)),
        made(("manifest.json", True)),
        made(("manifest.json", 1.0)),
        made(("manifest.json", 10**18)),
        made(("policy/a", b"1"), ("policy/b", -1)),
        made(("policy/a", b"1"), ("policy/a", b"2")),
        b"WHP1" + struct.pack("<I", 2**32 - 1) + b"{}",
        b"WHP1" + struct.pack("<I", 2) + b"[]",
        b"WHP1" + struct.pack("<I", 11) + b'{"files":3}',
    ],
)
def test_bytes_that_are_no_parcel_write_nothing(tmp_path, parcel):
    with pytest.raises(BadParcel):
        unpack(parcel, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["policy", "checkpoints", "segments", "segments/replay", "evaluations"])
def test_a_link_in_the_runs_folder_is_not_followed(tmp_path, place):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (tmp_path / "run" / place).parent.mkdir(parents=True)
    (tmp_path / "run" / place).symlink_to(outside)
    parcel = Packer(written(tmp_path / "here", RUN)).pack()
    if place == "policy":  # a folder that is replaced as a whole, and so is the link
        unpack(parcel, tmp_path / "run")
        assert found(tmp_path / "run") == RUN
    else:
        with pytest.raises(UsageError, match="a link"):
            unpack(parcel, tmp_path / "run")
    assert [path.name for path in outside.iterdir()] == ["kept"]


def test_a_run_that_is_too_large_is_refused_with_a_sentence(tmp_path, monkeypatch):
    here = written(tmp_path / "run", RUN)
    monkeypatch.setattr(parcels, "MOST_FILES", 8)
    with pytest.raises(UsageError, match=r"at most 8 files and 4 GiB of a run, and run has 9 files and 0.0 GiB"):
        Packer(here).pack()
    monkeypatch.setattr(parcels, "MOST_FILES", 9)
    parcel = Packer(here).pack()
    monkeypatch.setattr(parcels, "MOST_BYTES", 50)
    with pytest.raises(UsageError, match="train it on one machine"):
        Packer(here).pack()
    with pytest.raises(BadParcel, match="too large"):
        unpack(parcel, tmp_path / "there")
    monkeypatch.setattr(parcels, "MOST_FILES", 8)
    with pytest.raises(BadParcel, match="a parcel of 9 files"):
        unpack(parcel, tmp_path / "there")


def test_a_checkpoint_is_written_after_what_it_needs(tmp_path, monkeypatch):
    order, write = [], parcels._write
    monkeypatch.setattr(
        parcels, "_write", lambda folder, unit, contents: (order.append(unit), write(folder, unit, contents))
    )
    unpack(Packer(written(tmp_path / "here", RUN)).pack(), tmp_path / "there")
    assert (
        order.index("metrics.parquet") < order.index("segments/replay/0-70.safetensors") < order.index("checkpoints/0")
    )
    assert order[-1] == "status.json"
