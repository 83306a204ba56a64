"""Logs that cannot be used: one sentence each and exit code 2, before any work; nothing outside the file is opened."""

import json
import os
import pickle
import re
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest

from tests.data.toy_logs import walk
from workhorse.cli.main import main
from workhorse.core.spec import Box, Discrete
from workhorse.data.log_folder import write_log_folder
from workhorse.data.opening import convert_dataset, open_dataset

CSV = "obs_0,obs_1,action_0,reward,terminated,truncated\n" + "".join(
    f"{row},0,0.5,1,{int(row == 2)},{int(row == 5)}\n" for row in range(6)
)


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(capsys, *words):
    """Run a command that must end with 2 and leave nothing behind, and return its one sentence."""
    before = sorted(os.listdir())
    assert main(list(words)) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and "Traceback" not in said.err
    assert sorted(os.listdir()) == before
    return said.err


def show(capsys, *words):
    """Return the sentence of `dataset show`; `dataset convert` and `offline` refuse the same log."""
    said = refused(capsys, "dataset", "show", *words)
    assert refused(capsys, "dataset", "convert", words[0], "out", *words[1:]).partition(": ")[2]
    if len(words) == 1:
        assert (
            refused(capsys, "offline", words[0], "--algorithm", "td3+bc").partition(": ")[2] == said.partition(": ")[2]
        )
    return said


def table(text):
    with open("log.csv", "w") as file:
        file.write(text)
    return "log.csv"


def d4rl(**columns):
    log = walk((3, 3), "tc")
    whole = {
        "observations": log.obs, "actions": log.action, "rewards": log.reward, "terminals": log.terminated,
        "timeouts": log.truncated,
    } | columns  # fmt: skip
    with h5py.File("log.hdf5", "w") as file:
        for name, values in whole.items():
            if values is not None:
                file[name] = values
    return "log.hdf5"


def minari(log=None):
    write_log_folder(log or walk((3, 3), "tc"), "own")
    convert_dataset("own", "walk-v0", "minari")
    return "walk-v0"


def metadata(change):
    place = Path("walk-v0/data/metadata.json")
    about = json.loads(place.read_text())
    change(about)
    place.write_text(json.dumps(about))


# --- tables ---


@pytest.mark.parametrize(
    ("text", "words", "sentence"),
    [
        (CSV, ["--obs", "obs_0", "speed"],
         r"Expected a column `speed` in log.csv, got obs_0, obs_1, .*correct its name"),
        (CSV, ["--reward", "rewrad"], r"Expected a column `rewrad` .* Did you mean reward"),
        (CSV, ["--obs", "obs_1", "obs_0"], r"in the order of their numbers, got obs_1, obs_0: .*put them in order"),
        (CSV, ["--obs", "obs_0", "obs_0"], r"Expected each column once in --obs"),
        (CSV, ["--next-obs", "obs_0"], r"as many columns for --next-obs as for --obs in log.csv, got 1 and 2"),
        (CSV.replace("obs_0", "obs_2"), [], r"columns obs_0 to obs_2 in log.csv, but obs_0 is missing"),
        (CSV.replace("obs_", "x"), [], r"columns of the obs in log.csv, named obs_0, .* name them by --obs"),
        (CSV.replace("terminated", "end"), [],
         r"`terminated` in log.csv, got a log without terminations .*--terminated"),
        (CSV.replace("3,0,0.5", "3,fast,0.5"), [],
         r"a number in the column `obs_1` of log.csv, got the text 'fast' in row 3"),
        (CSV.replace("3,0,0.5", "3,,0.5"), [], r"a number in the column `obs_1` of log.csv, got nothing in row 3"),
        (CSV.replace("1,1,0\n", "1,2,0\n"), [],
         r"Expected 0 or 1 in the column `terminated` of log.csv, got 2.0 in row 2"),
        (CSV.replace("3,0,0.5,1,0,0", "3,0,0.5,1,0,0,9"), [],
         r"a CSV table in log.csv, but it cannot be read \(.*more fields"),
        (CSV.splitlines()[0] + "\n", [], r"Expected a log in log.csv, but it has no step whose successor is known"),
        ("", [], r"Expected a log in log.csv, got an empty file"),
        (CSV.replace("1,1,0", "1,0,0"), ["--episode", "obs_0"],
         r"no step whose successor is known: record more than one step an episode"),
        (CSV, ["--episode", "obs_1"],
         r"the only one that is terminated or truncated in log.csv, but episode 0 goes on in row 3"),
        (CSV.replace("2,0,0.5,1,1", "1,0,0.5,1,0"), ["--time", "obs_0", "--episode", "action_0"],
         r"`obs_0` to rise .* got 1 in row 2 after 1"),
        (CSV.replace("5,0,0.5", "5,0,0.4").replace("3,0,0.5", "3,0,0.4").replace("1,1,0", "1,0,0"),
         ["--episode", "action_0"],
         r"rows of episode 0.5 to lie together in log.csv, but it goes on in row 4 after another one: sort the rows"),
        (CSV, ["--action-low", "-1"], r"Expected 1 or 1 numbers each for --action-low and --action-high, got 1 and 0"),
        (CSV, ["--action-low", "1", "--action-high", "-1"], r"--action-low below --action-high"),
        (CSV, ["--action-count", "3"], r"whole numbers in the column `action_0` of log.csv, got 0.5 in row 0"),
        (CSV.replace("0.5", "-1"), ["--action-low", "0", "--action-high", "1", "--action-count", "2"],
         r"Give --action-count, at least 1, for choices, or"),
    ],
)  # fmt: skip
def test_a_table_that_is_no_log_is_refused_in_one_sentence(capsys, text, words, sentence):
    assert re.search(sentence, show(capsys, table(text), *words))


def test_a_number_that_is_not_finite_is_named_with_its_row_and_column(capsys):
    said = refused(capsys, "offline", table(CSV.replace("4,0,0.5", "4,nan,0.5")), "--algorithm", "td3+bc")
    assert re.search(r"not finite in `obs` \[1\], the column `obs_1`, row 4: .*Mend or leave out", said)


def test_one_episode_is_not_enough(capsys):
    said = refused(capsys, "offline", table(CSV.replace("1,1,0", "1,0,0")), "--algorithm", "td3+bc")
    assert "has 1 episode, and at least 2 are needed" in said


def test_a_log_without_any_end_is_refused(capsys):
    log = walk((3, 3), "bb")
    write_log_folder(log, "own")
    assert "marks no step as terminated or truncated" in refused(capsys, "offline", "own", "--algorithm", "td3+bc")


def test_actions_that_the_task_does_not_take_are_refused(capsys):
    log = walk((3, 3), "tc", Box((-1.0,), (1.0,)))
    write_log_folder(log, "own")
    said = refused(capsys, "offline", "own", "--algorithm", "td3+bc", "--evaluate-on", "Pendulum-v1")
    assert "observations of shape (2,), but those of Pendulum-v1 have (3,)" in said
    said = refused(capsys, "offline", "own", "--algorithm", "dqn", "--evaluate-on", "MountainCar-v0")
    assert (
        "has the actions Box(low=(-1.0,), high=(1.0,), shape=(1,)), but MountainCar-v0 takes Discrete(count=3)" in said
    )
    guessed = table(CSV)
    said = refused(capsys, "offline", guessed, "--algorithm", "td3+bc", "--evaluate-on", "MountainCarContinuous-v0")
    assert (
        "If only the bounds were guessed from the log, give them to `workhorse dataset convert` by --action-low" in said
    )


def test_columns_are_named_of_tables_alone(capsys):
    assert "Names of columns have an effect on Parquet and CSV alone" in show(capsys, d4rl(), "--obs", "x")
    write_log_folder(walk(), "own")
    assert "Names of columns have an effect" in show(capsys, "own", "--reward", "r")


def test_a_parquet_table_that_is_cut_off_or_holds_lists_is_refused(capsys):
    pl.read_csv(table(CSV)).write_parquet("log.parquet")
    content = Path("log.parquet").read_bytes()
    Path("cut.parquet").write_bytes(content[: len(content) // 2])
    assert "Expected a Parquet table in cut.parquet, but it cannot be read" in show(capsys, "cut.parquet")
    Path("other.parquet").write_bytes(b"no table at all")
    assert "Expected a Parquet table in other.parquet, as its name says, got something else" in show(
        capsys, "other.parquet"
    )
    pl.DataFrame(
        {"obs_0": [[1.0], [2.0]], "action_0": [0.5, 0.5], "reward": [1, 2], "terminated": [0, 1]}
    ).write_parquet("lists.parquet")
    assert "Expected numbers in the column `obs_0` of lists.parquet, got List" in show(capsys, "lists.parquet")


# --- files of other kinds ---


def test_what_is_no_log_is_refused_and_never_executed(capsys):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, ("exploded",))

    Path("log.pkl").write_bytes(pickle.dumps(Bomb()))
    assert "got a pickle: " in (said := show(capsys, "log.pkl")) and "are never opened" in said
    Path("log.csv").write_bytes(pickle.dumps(Bomb()))
    assert "got a pickle" in show(capsys, "log.csv")
    np.savez("log.npz", obs=np.zeros(3))
    assert "got a ZIP file, as .npz is" in show(capsys, "log.npz")
    np.save("log.npy", np.zeros(3))
    assert "got a single NumPy array" in show(capsys, "log.npy")
    Path("log.dat").write_text("1 2 3")
    assert "got a file of an unknown format: what is read is" in show(capsys, "log.dat")
    Path("log.hdf5").write_bytes(b"")
    assert "got an empty file" in show(capsys, "log.hdf5")
    assert "nothing is there: `workhorse dataset make` makes one" in show(capsys, "none")
    assert not os.path.exists("exploded")


def test_a_link_a_pipe_and_a_folder_are_no_files(capsys):
    table(CSV)
    os.symlink("log.csv", "link.csv")
    assert "Expected a file in link.csv, got a link" in show(capsys, "link.csv")
    os.mkfifo("pipe.csv")
    assert "Expected a file in pipe.csv, got a named pipe" in show(capsys, "pipe.csv")
    os.mkdir("folder.csv")
    assert "Expected a log in folder.csv, got a folder of something else" in show(capsys, "folder.csv")


# --- HDF5 ---


def test_an_hdf5_file_that_is_cut_off_or_is_none_is_refused(capsys):
    content = Path(d4rl(observations=np.zeros((6, 500)))).read_bytes()
    Path("log.hdf5").write_bytes(content[: len(content) // 2])
    assert "Expected an HDF5 file in log.hdf5, but it cannot be read (" in show(capsys, "log.hdf5")
    Path("log.hdf5").write_bytes(b"no HDF5 at all")
    assert "Expected an HDF5 file in log.hdf5, as its name says, got something else" in show(capsys, "log.hdf5")


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"terminals": None}, r"`terminals` in log.hdf5, got a log without terminations"),
        ({"timeouts": None}, r"Expected `timeouts` or `next_observations` in log.hdf5, got neither"),
        ({"actions": None, "acts": np.zeros((6, 1))},
         r"the columns observations, actions, rewards, terminals of D4RL's "
                                                      r"layout in log.hdf5, got acts, observations"),
        ({"rewards": np.zeros(5)}, r"columns of one length in log.hdf5, got .*actions 6, rewards 5"),
        ({"rewards": np.zeros((6, 2))}, r"Expected one `reward` a row in log.hdf5, got the shape \(6, 2\)"),
        ({"terminals": np.arange(6)}, r"Expected 0 or 1 in the column `terminals` of log.hdf5, got 2 in row 2"),
        ({"actions": np.array([b"left"] * 6)}, r"Expected a column of numbers `actions` in log.hdf5, got"),
        ({"rewards": 1.0}, r"Expected a column of numbers `rewards` in log.hdf5, got a single value"),
        ({"rewards": None, "rewards/all": np.zeros(6)}, r"Expected a column `rewards` in log.hdf5, got a group"),
        ({"actions": np.full(6, -1)}, r"Expected choices counted from 0 in log.hdf5, got the action -1"),
    ],
)  # fmt: skip
def test_a_d4rl_file_of_another_layout_is_refused(capsys, columns, sentence):
    assert re.search(sentence, show(capsys, d4rl(**columns)))


def test_objects_in_hdf5_are_refused(capsys):
    d4rl(actions=None)
    with h5py.File("log.hdf5", "a") as file:
        file.create_dataset("actions", (6,), h5py.vlen_dtype(np.float64))
    assert "a column of numbers `actions` in log.hdf5, got objects or text" in show(capsys, "log.hdf5")


@pytest.mark.parametrize("kind", ["soft", "external", "virtual", "raw"])
def test_nothing_outside_of_an_hdf5_file_is_opened(capsys, kind):
    with h5py.File("secret.hdf5", "w") as file:
        file["rewards"] = np.arange(6.0)
    np.arange(6.0).tofile("secret.raw")
    d4rl(rewards=None)
    with h5py.File("log.hdf5", "a") as file:
        if kind == "soft":
            file["rewards"] = h5py.SoftLink("/actions")
        elif kind == "external":
            file["rewards"] = h5py.ExternalLink("secret.hdf5", "/rewards")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((6,), np.float64)
            layout[:] = h5py.VirtualSource("secret.hdf5", "rewards", (6,))
            file.create_virtual_dataset("rewards", layout)
        else:
            file.create_dataset("rewards", (6,), np.float64, external=[("secret.raw", 0, 48)])
    said = show(capsys, "log.hdf5")
    wanted = "got a link, and links in HDF5 files" if kind in ("soft", "external") else "but they lie in other files"
    assert wanted in said


@pytest.mark.parametrize(
    "claim",
    [
        {"shape": (10**15,), "chunks": (1000,)},
        {"shape": (10**9, 10**9, 10**9), "chunks": (1, 1000, 1000)},
        {"shape": (6,), "maxshape": (None,), "chunks": (2**28,)},
    ],
)
def test_sizes_in_an_hdf5_file_are_not_believed(capsys, claim):
    d4rl(rewards=None)
    with h5py.File("log.hdf5", "a") as file:
        file.create_dataset("rewards", dtype=np.float64, **claim)
    assert re.search(r"`rewards` in log.hdf5 to hold what it claims, got the shape", show(capsys, "log.hdf5"))


def test_an_unusual_compression_is_refused(capsys):
    d4rl(rewards=None)
    with h5py.File("log.hdf5", "a") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((6,))
        plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
        h5py.h5d.create(file.id, b"rewards", h5py.h5t.NATIVE_DOUBLE, h5py.h5s.create_simple((6,)), plist)
    assert "got HDF5 filter 32015" in show(capsys, "log.hdf5")


# --- Minari ---


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda about: about.pop("observation_space"),
         r"`observation_space` in .*, got none: it is of an older layout"),
        (lambda about: about.update(minari_version="0.3.1"),
         r"Minari 0.4 or 0.5 in .*, got version '0.3.1'. Load it with"),
        (lambda about: about.pop("minari_version"), r"Minari 0.4 or 0.5 in .*, got version None"),
        (lambda about: about.update(data_format="arrow"), r"in HDF5 in .*, got 'arrow'"),
        (lambda about: about.update(total_steps=7), r"Expected 7 steps in 2 episodes in .*, got 6 in 2"),
        (lambda about: about.update(total_episodes=10**15), r"in 1000000000000000 episodes in .*, got 6 in 2"),
        (lambda about: about.update(observation_space='{"type": "Discrete", "n": 3, "start": 0}'),
         r"arrays, or a Dict of observation, achieved_goal, desired_goal, in .*, got Discrete: flatten them"),
        (lambda about: about.update(observation_space='{"type": "Dict", "subspaces": {"a": {}, "b": {}}}'),
         r"got Dict of a, b: flatten them"),
        (lambda about: about.update(observation_space='{"type": "Box", "shape": [2], "low": [0, 0, 0], "high": 1}'),
         r"Expected a Box in "),
        (lambda about: about.update(observation_space='{"type": "Box", "shape": [1000000000000], "low": 0, "high": 1}'),
         r"Expected a Box in .*its shape has 1,000,000,000,000 components"),
        (lambda about: about.update(workhorse_card=about["workhorse_card"].replace("[2]", "[2000000000]")),
         r"Expected spaces in the card of .*a shape of 2,000,000,000 components"),
        (lambda about: about.update(action_space='{"type": "Text"}'), r"Expected actions that are a Box, .*, got Text"),
        (lambda about: about.update(workhorse_card="{}"), r"Expected a field `name` in .*, got none"),
        (lambda about: (about.pop("workhorse_card"), about.update(observation_space=json.dumps(
            {"type": "Box", "dtype": "float64", "shape": [3], "low": [0] * 3, "high": [1] * 3}))),
         r"Expected observations of shape \(3,\) in .*, got \(2,\)"),
        (lambda about: about.update(jpeg_encoding=True, observation_space=json.dumps(
            {"type": "Box", "dtype": "uint8", "shape": [32, 32], "low": 0, "high": 255})),
         r"got JPEG, which is not what"),
    ],
)  # fmt: skip
def test_a_minari_data_set_of_an_older_layout_is_refused(capsys, change, sentence):
    minari()
    metadata(change)
    assert re.search(sentence, show(capsys, "walk-v0"))


def test_a_minari_data_set_that_keeps_its_description_in_the_file_is_refused(capsys):
    minari()
    os.remove("walk-v0/data/metadata.json")
    with h5py.File("walk-v0/data/main_data.hdf5", "a") as file:
        file.attrs["minari_version"] = "0.4.1"
    said = show(capsys, "walk-v0")
    assert re.search(
        r"Minari 0.5 in .*, got one of an older layout \(version 0.4.1\), .*save it anew with Minari 0.5", said
    )


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda group: group.move("terminations", "dones"),
         r"Expected terminations in episode_1 of .*, got actions, dones"),
        (lambda group: (group.__delitem__("observations"), group.__setitem__("observations", np.zeros((3, 2)))),
         r"Expected 4 observations for the 3 steps of episode 1 in .*, one more than steps, got 3"),
        (lambda group: (group.__delitem__("rewards"), group.__setitem__("rewards", np.zeros(2))),
         r"columns of one length in episode 1 of .*, got actions 3, rewards 2"),
        (lambda group: group["truncations"].__setitem__(0, True),
         r"episode 1 of .* to end with its first flag, got one at step 0"),
        (lambda group: (group.__delitem__("rewards"),
                        group.__setitem__("rewards", h5py.SoftLink("/episode_0/rewards"))),
         r"Expected `episode_1/rewards` in .* itself, got a link"),
        (lambda group: group.parent.move("episode_1", "episode_7"),
         r"Expected `episode_1` in .*, got episode_0, episode_7"),
    ],
)  # fmt: skip
def test_a_damaged_episode_of_minari_is_refused(capsys, damage, sentence):
    minari()
    with h5py.File("walk-v0/data/main_data.hdf5", "a") as file:
        damage(file["episode_1"])
    assert re.search(sentence, show(capsys, "walk-v0"))


def test_a_link_inside_of_a_minari_data_set_is_not_followed(capsys):
    minari()
    os.rename("walk-v0/data/main_data.hdf5", "elsewhere.hdf5")
    os.symlink("../../elsewhere.hdf5", "walk-v0/data/main_data.hdf5")
    assert "main_data.hdf5, got a link" in show(capsys, "walk-v0")


# --- writing ---


@pytest.mark.parametrize("to", ["workhorse", "minari", "d4rl", "parquet", "csv"])
def test_nothing_is_overwritten(capsys, to):
    table(CSV)
    os.mkdir("out-v0")
    assert "out-v0 is there already" in refused(capsys, "dataset", "convert", "log.csv", "out-v0", "--to", to)
    assert os.listdir("out-v0") == []


def test_a_name_without_a_version_is_none_of_minari(capsys):
    said = refused(capsys, "dataset", "convert", table(CSV), "walk", "--to", "minari")
    assert "a Minari data set that ends in its version, as walk-v0" in said


def test_an_image_is_no_row_of_a_table(capsys):
    log = walk((2, 2), "tc", Discrete(3))
    images = Box.of(np.zeros((65, 64)), np.ones((65, 64)))
    from workhorse.data.dataset import Dataset

    log = Dataset.of(
        "images", images, Discrete(3), obs=np.zeros((4, 65, 64)), final_obs=np.zeros((2, 65, 64)),
        **{name: getattr(log, name) for name in ("action", "reward", "terminated", "truncated", "begins")},
    )  # fmt: skip
    write_log_folder(log, "own")
    said = refused(capsys, "dataset", "convert", "own", "out.csv", "--to", "csv")
    assert "at most 4,096 components for a table, got 4,160 in images: write --to minari or --to d4rl" in said


# --- what is larger than memory ---


@pytest.mark.parametrize("kind", ["csv", "parquet", "hdf5", "minari"])
def test_a_log_larger_than_memory_is_refused_and_converted_piece_by_piece(capsys, monkeypatch, kind):
    log = walk((300, 200), "tc")
    write_log_folder(log, "own")
    place = {"csv": "log.csv", "parquet": "log.parquet", "hdf5": "log.hdf5", "minari": "log-v0"}[kind]
    convert_dataset("own", place, {"hdf5": "d4rl"}.get(kind, kind))
    monkeypatch.setattr(
        "workhorse.data.log_pieces.describe_hardware", lambda: type("Small", (), {"memory_bytes": 4096})()
    )
    monkeypatch.setattr("workhorse.data.log_pieces.CHUNK", 7)
    most = 0

    def rows(original):
        def seen(self, piece):
            nonlocal most
            most = max(most, len(piece.reward))
            return original(self, piece)

        return seen

    from workhorse.data import log_pieces

    monkeypatch.setattr(log_pieces._Seen, "add", rows(log_pieces._Seen.add))
    said = refused(capsys, "dataset", "show", place)
    assert re.search(
        rf"a log of at most 0.0 GB in {place}.* `workhorse dataset convert {place}.* FOLDER --to workhorse`", said
    )
    assert most == 0, "it was read before it was refused"
    assert main(["dataset", "convert", place, "big", "--to", "workhorse"]) == 0
    assert 0 < most <= 10
    assert open_dataset("big").digest() == log.digest() and isinstance(open_dataset("big").obs, np.memmap)
    if kind != "csv":
        assert open_dataset("big").card == log.card
    assert main(["dataset", "show", "big"]) == 0
