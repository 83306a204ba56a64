"""Files are read and written inside of their folder only, and carry checksums of their content."""

import json
import os
from pathlib import Path

import polars as pl
import pytest

from workhorse.core import files
from workhorse.core.errors import UsageError
from workhorse.core.files import UnreadableFile
from workhorse.runs.sealed import parquet_bytes, read_parquet, read_record, write_record


@pytest.fixture
def places(tmp_path) -> tuple[Path, Path]:
    """A folder with links out of it, and the folder that they lead to."""
    folder, outside = tmp_path / "run", tmp_path / "outside"
    for place in (folder, outside):
        place.mkdir()
    (outside / "precious").write_text("precious")
    (folder / "folder").symlink_to(outside)
    (folder / "file").symlink_to(outside / "precious")
    (folder / "dangling").symlink_to(outside / "new")
    os.mkfifo(folder / "pipe")
    return folder, outside


def untouched(outside: Path) -> bool:
    return os.listdir(outside) == ["precious"] and (outside / "precious").read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "kind"), [("file", "a link"), ("dangling", "a link"), ("pipe", "a named pipe"), (".", "a folder")]
)
def test_only_plain_files_are_read(places, name, kind):
    folder, _ = places
    with pytest.raises(UnreadableFile, match=rf"Expected a file in .*, got {kind}.*: put a file there, or remove it\."):
        files.read_file(os.path.join(folder, name))


def test_no_link_in_between_is_followed(places):
    folder, outside = places
    message = r"Expected a folder in .*/run/folder, got a link, and Workhorse follows no links in its folders"
    deep = folder / "folder" / "precious"
    for action in (
        lambda: files.read_file(deep, folder),
        lambda: files.write_file(deep, b"", folder),
        lambda: files.remove(deep, folder),
        lambda: files.make_folder(folder / "folder" / "new", folder),
        lambda: files.make_folder(folder / "folder"),
        lambda: files.list_folder(folder / "folder"),
        lambda: files.list_folder(folder / "folder" / "deeper", within=folder),
        lambda: files.check_writable("it", deep, folder),
        lambda: write_record(deep, {}, folder),
        lambda: read_record(deep, folder),
        lambda: read_parquet(deep, folder),
    ):
        with pytest.raises(UnreadableFile, match=message):
            action()
    assert untouched(outside)


@pytest.mark.parametrize("name", ["../outside/precious", "real/../../outside/precious", "/outside/precious"])
def test_a_name_out_of_a_record_does_not_lead_out(places, name):
    folder, outside = places
    (folder / "real").mkdir()
    deep = outside.parent / name[1:] if name[0] == "/" else folder / name
    for action in (lambda: files.read_file(deep, folder), lambda: files.write_file(deep, b"", folder)):
        with pytest.raises(UnreadableFile, match=r"Expected a place inside of .*/run, got .*precious|outside"):
            action()
    assert untouched(outside)


def test_the_folder_itself_may_be_reached_by_a_link(places):
    folder, outside = places
    assert files.read_file(folder / "folder" / "precious") == b"precious"
    (outside / "deep").mkdir()
    files.write_file(folder / "folder" / "deep" / "x", b"1", folder / "folder")
    assert (outside / "deep" / "x").read_bytes() == b"1"


@pytest.mark.parametrize("name", ["file", "folder", "dangling", "pipe"])
def test_what_is_written_and_removed_is_so_by_name(places, name):
    folder, outside = places
    files.write_file(folder / name, b"ours")
    assert (folder / name).read_bytes() == b"ours" and not (folder / name).is_symlink() and untouched(outside)


@pytest.mark.parametrize("name", ["file", "folder", "dangling", "pipe", "missing", "real"])
@pytest.mark.parametrize("remove", [files.remove, files.remove_folder])
def test_removing_never_removes_what_a_link_points_to(places, name, remove):
    folder, outside = places
    (folder / "real").mkdir()
    (folder / "real" / "link").symlink_to(outside)
    remove(folder / name)
    assert name not in os.listdir(folder) and untouched(outside)


def test_a_planted_temporary_file_is_not_written_through(places):
    folder, outside = places
    files.temporary_name(folder / "new").symlink_to(outside / "precious")
    files.check_writable("it", folder / "new")
    files.temporary_name(folder / "new").symlink_to(outside / "precious")
    files.write_file(folder / "new", b"ours")
    assert (folder / "new").read_bytes() == b"ours" and untouched(outside)


@pytest.mark.parametrize("name", ["folder", "file", "real", "plain"])
def test_a_folder_is_replaced_by_name(places, name):
    folder, outside = places
    (folder / "real").mkdir()
    (folder / "plain").write_text("")
    (folder / ".new").mkdir()
    (folder / ".new" / "x").write_text("")
    files.replace_folder(folder / ".new", folder / name)
    assert os.listdir(folder / name) == ["x"] and not (folder / name).is_symlink() and untouched(outside)
    assert not [left for left in os.listdir(folder) if left.startswith(".")]


@pytest.mark.parametrize("name", ["file", "dangling", "pipe", "hard"])
def test_a_lock_is_not_written_through_a_link(places, name):
    folder, outside = places
    os.link(outside / "precious", folder / "hard")
    with pytest.raises(UnreadableFile, match=r"Expected .*(a file|of its own)"):
        files.open_lock(folder / name)
    assert untouched(outside)
    os.close(files.open_lock(folder / "lock"))


def test_an_error_leaves_the_old_file(tmp_path):
    files.write_file(tmp_path / "a", b"old")
    with pytest.raises(TypeError), files.create_file(tmp_path / "a") as file:
        file.write(b"new" + None)  # type: ignore[operator]
    assert files.read_file(tmp_path / "a") == b"old" and os.listdir(tmp_path) == ["a"]


def test_listing_leaves_leftovers_out(tmp_path):
    for name in ("b.json", "a.json", ".tmp-1-c.json", "d.txt"):
        (tmp_path / name).write_text("")
    assert files.list_folder(tmp_path, "*.json") == [tmp_path / "a.json", tmp_path / "b.json"]
    assert files.list_folder(tmp_path / "none") == files.list_folder(tmp_path / "none" / "deeper") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_said(tmp_path):
    (tmp_path / "a").write_text("")
    (tmp_path / "a").chmod(0)
    with pytest.raises(UnreadableFile, match=r"Could not read .*/a: permission denied. Change its permissions"):
        files.read_file(tmp_path / "a")


def test_a_record_comes_back(tmp_path):
    record = {"seed": 0, "names": ["a"], "nested": {"x": 0.1, "none": None}}
    write_record(tmp_path / "a.json", record)
    assert read_record(tmp_path / "a.json") == record
    (tmp_path / "a.json").write_text(json.dumps(record))  # from before checksums were kept
    assert read_record(tmp_path / "a.json") == record


def test_no_flipped_bit_of_a_record_changes_what_is_read(tmp_path):
    record = {"seed": 0, "noise_std": 0.03, "name": "a"}
    write_record(tmp_path / "a.json", record, indent=None)
    assert flips_noticed(tmp_path / "a.json", lambda: read_record(tmp_path / "a.json"), record) > 100


def test_no_flipped_bit_of_a_table_changes_what_is_read(tmp_path):
    frame = pl.DataFrame({"iteration": [1, 2, 3], "loss": [0.5, None, 2.0], "digest": ["a", "b", "c"]})
    place = tmp_path / "a.parquet"
    place.write_bytes(parquet_bytes(frame, {"about": "x"}))

    def read() -> object:
        found, about = read_parquet(place)
        return (found.rows(), about["about"])

    assert flips_noticed(place, read, (frame.rows(), "x")) > 1000


def flips_noticed(place: Path, read, expected) -> int:
    """Flip a bit of every byte in turn; return how often a sentence named the file. Anything else fails."""
    content, noticed = place.read_bytes(), 0
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << at % 8
        place.write_bytes(flipped)
        found = sentence_or(read)
        if isinstance(found, UsageError):
            assert place.name in str(found)
            noticed += 1
        else:
            if isinstance(found, dict):  # the flip was in the name `checksum`
                found = {name: found.get(name) for name in expected}
            assert found == expected
    return noticed


def sentence_or(read) -> object:
    try:
        return read()
    except UsageError as error:
        return error


def test_a_mismatch_says_how_to_go_on(tmp_path):
    write_record(tmp_path / "a.json", {"seed": 0})
    (tmp_path / "a.json").write_text((tmp_path / "a.json").read_text().replace("0,", "1,", 1))
    with pytest.raises(
        UsageError, match=r"a.json as it was written, but .* Do without; if you edited it .*`workhorse seal"
    ):
        read_record(tmp_path / "a.json", remedy="Do without")


def test_a_table_from_before_checksums_is_read_and_a_broken_one_is_said(tmp_path):
    frame = pl.DataFrame({"x": [1.0]})
    frame.write_parquet(tmp_path / "a")
    assert read_parquet(tmp_path / "a")[0].equals(frame)
    (tmp_path / "a").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"Expected a table in .*/a, but the file is damaged or another program's"):
        read_parquet(tmp_path / "a")
