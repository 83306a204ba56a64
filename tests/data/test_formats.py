"""Every format gives back the log that was written, and its ends and successors are read as they were meant."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.toy_logs import COLUMNS, assert_same_columns, made, parts, walk
from workhorse.cli.main import main
from workhorse.core.spec import Box, Discrete
from workhorse.data import log_pieces
from workhorse.data.flat_rows import FlatRows, pieces_of
from workhorse.data.log_folder import read_log_folder, write_log_folder
from workhorse.data.opening import convert_dataset, open_dataset
from workhorse.data.table_columns import Columns

NAMES = {"minari": "log-v0", "d4rl": "log.hdf5", "parquet": "log.parquet", "csv": "log.csv", "workhorse": "log"}


def written(log, folder, to):
    """Write a log in a format and return its place."""
    write_log_folder(log, folder / "own")
    convert_dataset(folder / "own", folder / NAMES[to], to)
    return folder / NAMES[to]


@pytest.mark.parametrize("to", ["minari", "d4rl", "parquet", "workhorse"])
@given(drawn=parts(), rows=st.integers(1, 9))
@settings(max_examples=12, deadline=None)
def test_what_is_written_is_read_again_bit_for_bit(to, drawn, rows):
    log = made(drawn)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(log_pieces, "CHUNK", rows)  # parts of a few rows, so that episodes lie across them
        place = written(log, Path(folder), to)
        found, streamed = open_dataset(place), convert_dataset(place, Path(folder, "streamed"), "workhorse")
        assert_same_columns(found, log)
        assert_same_columns(streamed, log)
        assert found.card == log.card == read_log_folder(Path(folder, "streamed")).card


@given(drawn=parts(is_table=True), rows=st.integers(1, 9))
@settings(max_examples=12, deadline=None)
def test_a_csv_keeps_every_number(drawn, rows):
    log = made(drawn)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(log_pieces, "CHUNK", rows)
        place = written(log, Path(folder), "csv")
        assert_same_columns(open_dataset(place), log)


@pytest.mark.parametrize("next_obs", [True, False])
@given(drawn=parts(is_table=True), sizes=st.lists(st.integers(1, 5), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_flat_rows_become_the_episodes_of_a_plain_loop_however_they_are_cut(next_obs, drawn, sizes):
    log = made(drawn)
    starts = np.zeros(log.num_steps, bool)
    starts[log.begins] = True
    rows = FlatRows(
        log.obs, log.action, log.reward, log.terminated, log.truncated,
        log.next_obs(np.arange(log.num_steps)) if next_obs else None, log.log_prob, starts,
    )  # fmt: skip
    chunks, begin = [], 0
    for size in [*sizes, *[7] * log.num_steps]:
        chunks.append(FlatRows(*(None if column is None else column[begin : begin + size] for column in rows)))
        begin += size
    found = list(pieces_of([chunk for chunk in chunks if len(chunk.reward)], []))
    begins = np.concatenate([piece.begins for piece in found]) if found else []
    steps = [
        [*map(float, obs), float(reward), bool(terminated), bool(truncated)]
        for piece in found
        for obs, reward, terminated, truncated in zip(
            piece.obs, piece.reward, piece.terminated, piece.truncated, strict=True
        )
    ]
    finals = [list(map(float, obs)) for piece in found for obs in piece.final_obs]
    wanted = plain_episodes(log, next_obs)
    assert steps == [step for episode, _ in wanted for step in episode]
    assert finals == [final for _, final in wanted]
    assert np.flatnonzero(begins).tolist() == np.cumsum([0, *(len(episode) for episode, _ in wanted)])[:-1].tolist()


def plain_episodes(log, next_obs):
    """Return each episode's steps and final observation, by the rule in words: no true successor, no step."""
    episodes = []
    for number, (begin, end) in enumerate(zip(log.begins, log.ends, strict=True)):
        steps = [
            [*map(float, log.obs[t]), float(log.reward[t]), bool(log.terminated[t]), bool(log.truncated[t])]
            for t in range(begin, end)
        ]
        final = list(map(float, log.final_obs[number]))
        if not next_obs and steps[-1][-2]:
            final = list(map(float, log.obs[end - 1]))
        elif not next_obs:
            dropped = steps.pop()
            final = dropped[:-3]
            if steps:
                steps[-1][-1] = dropped[-1]
        if steps:
            episodes.append((steps, final))
    return episodes


# --- D4RL: who ended an episode, and what came after ---


def d4rl(path, log, without=(), **more):
    columns = {
        "observations": log.obs, "actions": log.action, "rewards": log.reward, "terminals": log.terminated,
        "timeouts": log.truncated, "next_observations": log.next_obs(np.arange(log.num_steps)), **more,
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            if name not in without:
                file[name] = values
    return path


def test_a_timeout_without_its_successor_loses_a_step_and_a_termination_does_not(tmp_path):
    place = d4rl(tmp_path / "walk.hdf5", walk((3, 4, 2), "tcb"), without=["next_observations"])
    log = open_dataset(place)
    assert log.lengths.tolist() == [3, 3, 1]
    assert log.terminated.tolist() == [False, False, True, False, False, False, False]
    assert log.truncated.tolist() == [False] * 5 + [True, False]  # the cut at the end of the file is no clock
    assert log.is_broken_off(np.arange(7)).tolist() == [False] * 6 + [True]
    assert log.next_obs(np.array([1, 5, 6])).tolist() == [[0, 2], [1, 3], [2, 1]]  # never of another episode
    assert [note.partition(":")[0] for note in log.card.notes[:3]] == [
        "The last step of 1 truncated episodes is left out",
        "The last step of 1 episodes that break off is left out",
        "The observation after 1 terminations is not in the log",
    ]


def test_with_successors_nothing_is_lost_and_an_unmarked_seam_is_found(tmp_path):
    wanted = walk((3, 4, 2), "tcb")
    log = open_dataset(d4rl(tmp_path / "walk.hdf5", wanted))
    assert_same_columns(log, wanted)
    log = open_dataset(d4rl(tmp_path / "unmarked.hdf5", wanted, without=["timeouts"]))
    assert log.lengths.tolist() == [3, 4, 2] and not log.truncated.any()
    assert "1 episodes break off without a mark" in " ".join(log.card.notes)


def test_a_termination_is_no_timeout(tmp_path):
    log = open_dataset(d4rl(tmp_path / "walk.hdf5", walk((2, 2), "tc")))
    assert log.terminated.tolist() == [False, True, False, False]
    assert log.truncated.tolist() == [False, False, False, True]


def test_log_densities_flags_as_numbers_and_columns_of_width_one_are_read(tmp_path):
    log = walk((2, 2), "tc")
    place = d4rl(
        tmp_path / "walk.h5", log, without=["terminals", "rewards"],
        terminals_=[], **{"infos/action_log_probs": np.arange(4.0)},
    )  # fmt: skip
    with h5py.File(place, "a") as file:
        file["terminals"] = log.terminated.astype(np.float32)[:, None]
        file["rewards"] = log.reward[:, None]
    found = open_dataset(place)
    assert found.log_prob.tolist() == [0, 1, 2, 3]
    assert found.terminated.tolist() == log.terminated.tolist() and found.reward.tolist() == log.reward.tolist()


def test_bounds_are_those_given_or_those_of_the_log_with_a_note(tmp_path):
    place = d4rl(tmp_path / "walk.hdf5", walk((3, 2), "tc"))
    guessed = open_dataset(place)
    assert guessed.action_space == Box((0.0,), (0.02,)) and "does not tell its action space" in guessed.card.notes[-1]
    given = open_dataset(place, Columns(action_low=(-1.0,), action_high=(1.0,), task="Pendulum-v1"))
    assert given.action_space == Box((-1.0,), (1.0,)) and given.card.task == "Pendulum-v1"
    assert not any("action space" in note for note in given.card.notes)


# --- tables ---


def csv(path, text):
    path.write_text(text)
    return path


PENDULUM = """run_id,t,angle,v,x,u,r,done,timeout
a,0.0,0.5,0.1,3,0.25,-1,0,0
a,0.1,0.6,0.2,3,-0.25,-2,0,0
a,0.2,0.7,0.3,3,0.5,-3,True,False
b,0.0,1.5,1.1,4,0.25,-4,0,0
b,0.1,1.6,1.2,4,0,-5,false,0
b,0.2,1.7,1.3,4,1,-6,0,1
"""
NAMED = Columns(
    obs=("x", "v", "angle"), action=("u",), reward="r", terminated="done", truncated="timeout", episode="run_id",
    time="t",
)  # fmt: skip


def test_a_csv_is_read_by_the_names_of_its_columns(tmp_path):
    log = open_dataset(csv(tmp_path / "plant.csv", PENDULUM), NAMED)
    assert log.obs.tolist() == [[3, 0.1, 0.5], [3, 0.2, 0.6], [3, 0.3, 0.7], [4, 1.1, 1.5], [4, 1.2, 1.6]]
    assert log.action.ravel().tolist() == [0.25, -0.25, 0.5, 0.25, 0]
    assert log.terminated.tolist() == [False, False, True, False, False]
    assert log.truncated.tolist() == [False, False, False, False, True]
    assert log.final_obs.tolist() == [[3, 0.3, 0.7], [4, 1.3, 1.7]]  # stands in; and that of the step left out
    assert log.action_space == Box((-0.25,), (0.5,))
    assert log.card.made["time"]["jumps"] == 0 and log.card.made["columns"]["obs"] == ["x", "v", "angle"]


def test_episodes_are_told_apart_by_flags_or_by_time_where_no_column_does(tmp_path):
    place = csv(tmp_path / "plant.csv", PENDULUM)
    assert open_dataset(place, replace(NAMED, episode="", time="")).lengths.tolist() == [3, 2]
    unmarked = csv(tmp_path / "unmarked.csv", PENDULUM.replace("True,False", "0,0"))
    by_time = open_dataset(unmarked, replace(NAMED, episode=""))
    assert by_time.lengths.tolist() == [2, 2] and by_time.truncated.tolist() == [False, False, False, True]


def test_a_jump_of_the_time_is_noted_with_its_row(tmp_path):
    place = csv(tmp_path / "plant.csv", PENDULUM.replace("b,0.2,", "b,0.7,"))
    seen = open_dataset(place, NAMED).card.made["time"]
    assert seen["jumps"] == 1 and seen["jump_rows"] == [5] and seen["longest_step"] == pytest.approx(0.6)


def test_a_column_of_whole_numbers_holds_choices_unless_bounds_are_given(tmp_path):
    place = csv(tmp_path / "plant.csv", PENDULUM.replace("-0.25", "2").replace("0.25", "1").replace(",0.5,-3", ",0,-3"))
    log = open_dataset(place, NAMED)
    assert log.action_space == Discrete(3) and log.action.tolist() == [1, 2, 0, 1, 0]
    assert open_dataset(place, replace(NAMED, action_count=5)).action_space == Discrete(5)
    numbers = open_dataset(place, replace(NAMED, action_low=(-3.0,), action_high=(3.0,)))
    assert numbers.action_space == Box((-3.0,), (3.0,)) and numbers.action.dtype == np.float64


def test_a_parquet_table_of_another_program_is_read_by_names_in_any_order(tmp_path):
    log = walk((3, 4), "tc", Discrete(3))
    table = pl.DataFrame({
        "stop": log.terminated, "move": log.action, "gain": log.reward, "cut": log.truncated.astype(np.int8),
        "b": log.obs[:, 1].astype(np.float32), "a": log.obs[:, 0].astype(np.float32),
    })  # fmt: skip
    table.write_parquet(tmp_path / "other.parquet")
    names = Columns(obs=("a", "b"), action=("move",), reward="gain", terminated="stop", truncated="cut")
    found = open_dataset(tmp_path / "other.parquet", names)
    assert found.obs.dtype == np.float32 and found.obs.tolist() == log.obs[:6].tolist()
    assert found.action.tolist() == log.action[:6].tolist() and found.action_space == Discrete(3)


def test_empty_lines_at_the_end_of_a_csv_are_no_steps(tmp_path):
    assert open_dataset(csv(tmp_path / "plant.csv", PENDULUM + "\n\n"), NAMED).num_steps == 5


# --- Minari, by the package itself ---


@pytest.fixture
def minari(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    return pytest.importorskip("minari")


@pytest.mark.parametrize("name", ["walk-v0", "walks/medium-v3"])
def test_minari_loads_what_we_write(minari, tmp_path, name):
    log = walk((3, 4, 1), "tcb", task="MountainCarContinuous-v0", max_episode_steps=50, log_prob=np.arange(8.0))
    log = replace(log, card=replace(log.card, references={"random": -1.0, "expert": 90.0}))
    write_log_folder(log, tmp_path / "own")
    convert_dataset(tmp_path / "own", tmp_path / name, "minari")
    loaded = minari.load_dataset(name)
    assert (loaded.total_episodes, loaded.total_steps) == (3, 8)
    assert loaded.action_space.shape == (1,) and loaded.observation_space.shape == (2,)
    for number, episode in enumerate(loaded.iterate_episodes()):
        begin, end = log.begins[number], log.ends[number]
        assert episode.observations.tobytes() == np.append(log.obs[begin:end], log.final_obs[[number]], 0).tobytes()
        for one, column in (("actions", "action"), ("rewards", "reward"), ("terminations", "terminated"),
                            ("truncations", "truncated")):  # fmt: skip
            kept = getattr(episode, one)
            assert (
                kept.tobytes() == getattr(log, column)[begin:end].tobytes() and kept.dtype == getattr(log, column).dtype
            )
        assert episode.infos["action_log_probs"][1:].tolist() == log.log_prob[begin:end].tolist()
    assert loaded.env_spec.id == "MountainCarContinuous-v0" and loaded.env_spec.max_episode_steps == 50
    assert loaded.recover_environment().spec.id == "MountainCarContinuous-v0"
    assert minari.list_local_datasets()[name]["ref_max_score"] == 90


def recorded(minari, name, observation, action, episodes, **options):
    """Write episodes by Minari's own code; each is (observations, actions, rewards, terminations, truncations)."""
    from minari.data_collector import EpisodeBuffer

    buffers = [
        EpisodeBuffer(observations=obs, actions=act, rewards=reward, terminations=terminated, truncations=truncated)
        for obs, act, reward, terminated, truncated in episodes
    ]
    minari.create_dataset_from_buffers(
        name, buffers, observation_space=observation, action_space=action, algorithm_name="walk", author="x",
        author_email="x", code_permalink="x", description="x", **options,
    )  # fmt: skip


def test_we_read_what_minari_writes(minari, tmp_path):
    from gymnasium import spaces

    log, episodes = walk((3, 4, 1), "tcb"), []
    for number, (begin, end) in enumerate(zip(log.begins, log.ends, strict=True)):
        obs = np.append(log.obs[begin:end], log.final_obs[[number]], 0)
        columns = (getattr(log, name)[begin:end] for name in ("action", "reward", "terminated", "truncated"))
        episodes.append((obs, *columns))
    box = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    recorded(minari, "walk-v0", box, spaces.Box(-1, 1, (1,), np.float64), episodes)
    found = open_dataset(tmp_path / "walk-v0")
    assert_same_columns(found, log)
    assert found.observation == Box.unbounded(2) and found.action_space == Box((-1.0,), (1.0,))
    assert found.card.name == "walk-v0" and found.digest() == found.card.digest
    assert_same_columns(open_dataset(tmp_path / "walk-v0" / "data"), log)


def test_goals_are_flattened_as_our_tasks_do_and_choices_count_from_zero(minari, tmp_path):
    from gymnasium import spaces

    parts = {name: spaces.Box(-9.0, 9.0, (size,)) for name, size in
             (("achieved_goal", 1), ("desired_goal", 1), ("observation", 2))}  # fmt: skip
    seen = {
        "achieved_goal": np.float32([[1], [2], [3]]),
        "desired_goal": np.float32([[7], [7], [7]]),
        "observation": np.float32([[10, 11], [20, 21], [30, 31]]),
    }
    ends = np.array([False, False]), np.array([False, True])
    episode = (seen, np.array([5, 6]), np.array([-1.0, 0.0]), *ends)
    recorded(minari, "goal-v0", spaces.Dict(parts), spaces.Discrete(2, start=5), [episode, episode])
    log = open_dataset(tmp_path / "goal-v0")
    assert log.obs[:2].tolist() == [[10, 11, 1, 7], [20, 21, 2, 7]] and log.final_obs[0].tolist() == [30, 31, 3, 7]
    assert log.observation.shape == (4,) and log.observation.low == (-9.0,) * 4
    assert log.action.tolist() == [0, 1, 0, 1] and log.action_space == Discrete(2)
    assert "achieved goal" in log.card.notes[0]


def test_images_are_kept_to_the_bit(minari, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    log = walk((2,), "c")
    log = replace(log, obs=image[:2], final_obs=image[2:])
    from workhorse.data.dataset import space_record

    space = Box.of(np.zeros((32, 32, 3)), np.full((32, 32, 3), 255.0))
    write_log_folder(replace(log, card=replace(log.card, observation=space_record(space))), tmp_path / "own")
    convert_dataset(tmp_path / "own", tmp_path / "images-v0", "minari")
    assert next(iter(minari.load_dataset("images-v0"))).observations.tobytes() == image.tobytes()
    assert open_dataset(tmp_path / "images-v0").observation == space


# --- the commands ---


def test_show_and_convert_say_what_is_in_a_log(tmp_path, capsys):
    log = walk((3, 4, 2), "tcb", task="Walk-v0", task_options={"wind": 2}, max_episode_steps=4)
    log = replace(log, card=replace(log.card, kind="medium", notes=("A note.",), references={"random": -3.0}))
    write_log_folder(log, tmp_path / "own")
    assert main(["dataset", "convert", str(tmp_path / "own"), str(tmp_path / "log.parquet"), "--to", "parquet"]) == 0
    assert "log.parquet: 9 steps in 3 episodes, in the format parquet" in capsys.readouterr().out
    assert main(["dataset", "show", str(tmp_path / "log.parquet")]) == 0
    said = capsys.readouterr().out
    for words in (
        "walk (medium)",
        "task          Walk-v0 wind=2, at most 4 steps an episode",
        "observation   box of shape (2,) from -inf to inf, float64",
        "action        box of shape (1,) from -1 to 1, float64",
        "episodes      3, of 2 to 4 steps",
        "ends          1 terminated, 1 truncated, 1 broken off",
        "returns       2.7 with a spread of 1.9",  # 0.03, 4.06 and 4.01
        "random        -3.0 a reference return",
        f"digest        {log.digest()}",
        "note          A note.",
    ):
        assert f"{words}\n" in said
    bars = [line for line in said.splitlines() if "█" in line]
    assert [line.split()[-1] for line in bars] == ["1", "2"] and bars[1].count("█") == 2 * bars[0].count("█")


# --- what is learnt from them ---


def test_a_converted_log_is_mapped_and_needs_no_names(tmp_path):
    place = csv(tmp_path / "plant.csv", PENDULUM)
    convert_dataset(place, tmp_path / "own", "workhorse", NAMED)
    found = open_dataset(tmp_path / "own")
    assert_same_columns(found, open_dataset(place, NAMED))
    assert isinstance(found.obs, np.memmap) and found.card == open_dataset(place, NAMED).card


def test_the_description_of_a_file_is_no_code(tmp_path):
    """A task named `module:id` would be imported by Gymnasium; what a card says is written, and nothing else."""
    log = walk((2, 2), "tc", task="antigravity:Walk-v0")
    write_log_folder(log, tmp_path / "own")
    convert_dataset(tmp_path / "own", tmp_path / "walk-v0", "minari")
    about = json.loads((tmp_path / "walk-v0" / "data" / "metadata.json").read_text())
    assert "env_spec" not in about and open_dataset(tmp_path / "walk-v0").card.task == "antigravity:Walk-v0"


def test_all_columns_are_compared():
    import dataclasses

    from workhorse.data.dataset import Dataset

    assert {field.name for field in dataclasses.fields(Dataset)} == {"card", *COLUMNS}
