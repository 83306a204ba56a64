"""Data sets of Minari: a folder with an HDF5 file of one group an episode, and their description in JSON.

    NAME-v0/data/metadata.json    spaces, task, counts
    NAME-v0/data/main_data.hdf5   episode_0/ observations (T+1, ...) actions (T, ...) rewards terminations truncations

Read and written without Minari. Ours have the card under `workhorse_card`, and keep images as they are, without JPEG.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from workhorse.core.errors import UsageError
from workhorse.core.files import is_there, make_folder, read_file, remove_folder, write_file, writing
from workhorse.core.records import is_plain, parse, parse_json, shown
from workhorse.core.spec import ActionSpace, Box, Goal
from workhorse.data.d4rl_files import CARD_ATTRIBUTE, as_observations
from workhorse.data.dataset import Dataset, space_record
from workhorse.data.flat_rows import as_flags, check_lengths
from workhorse.data.hdf5_files import column_in, group_in, is_there_in, opened_hdf5, row_bytes, text_attribute
from workhorse.data.log_pieces import LogPiece, LogSource, card_from_text, card_text, slices, unread_card
from workhorse.data.minari_spaces import (
    DAMAGED,
    METADATA,
    SAVE_ANEW,
    actions_of,
    goal_parts,
    is_image,
    observations_of,
    space_in,
    written_space,
)

__all__ = ["minari_folder", "minari_source", "write_minari"]

MAIN = "main_data.hdf5"
VERSION = "0.5.4"
"""Version of Minari whose layout is written."""

_COLUMNS = ("actions", "rewards", "terminations", "truncations")


def minari_folder(path: Path) -> Path | None:
    """Return the folder with the files of a Minari data set: this one, or `data` in it; None where it is none."""
    for folder in (path, path / "data"):
        if is_there(folder / METADATA) or is_there(folder / MAIN):
            return folder
    return None


def minari_source(path: Path) -> LogSource:
    """Describe a Minari data set, given the folder that `minari_folder` found.

    Raises:
        UsageError: it is of an older layout, holds observations that are no vector or image, or is damaged.
    """
    about, main = _metadata(path), path / MAIN
    spaces = {name: space_in(about, name, path) for name in ("observation_space", "action_space")}
    parts = goal_parts(spaces["observation_space"], path)
    acts, first_choice = actions_of(spaces["action_space"], path)
    if is_image(spaces["observation_space"]) and about.get("jpeg_encoding", True):
        raise UsageError(
            f"Expected images as they were recorded in {path}, got JPEG, which is not what the policy saw: record or "
            "save the data set with jpeg_encoding=False."
        )
    with opened_hdf5(main, path) as file:
        counts, num_bytes = _measured(file, main, parts)
    if sum(counts) != about.get("total_steps", sum(counts)) or len(counts) != about.get("total_episodes", len(counts)):
        raise UsageError(
            f"Expected {about.get('total_steps')} steps in {about.get('total_episodes')} episodes in {main}, as "
            f"{METADATA} says, got {sum(counts):,} in {len(counts):,}. {DAMAGED}"
        )
    card = _card(about, path, observations_of(spaces["observation_space"], parts, path), acts)
    source = LogSource(main, card, num_bytes)
    source.pieces = lambda: _pieces(main, path, parts, first_choice)
    return source


# --- the description ---


def _metadata(path: Path) -> dict[str, Any]:
    try:
        text = read_file(path / METADATA, path)
    except FileNotFoundError:
        raise UsageError(
            f"Expected a data set of Minari 0.5 in {path}, got one of an older layout ({_older_version(path)}), which "
            f"keeps its description inside of {MAIN}. {SAVE_ANEW}"
        ) from None
    about = parse(parse_json, text, path / METADATA, "the description of a Minari data set in JSON", DAMAGED)
    version = about.get("minari_version")
    if not isinstance(version, str) or not re.match(r"0\.[45]\.", version):
        raise UsageError(
            f"Expected a data set of Minari 0.4 or 0.5 in {path}, got version {shown(version)}. {SAVE_ANEW}"
        )
    if about.get("data_format", "hdf5") != "hdf5":
        raise UsageError(
            f"Expected a Minari data set in HDF5 in {path}, got {shown(about['data_format'])}: load it with Minari and "
            'save it with data_format="hdf5".'
        )
    return about


def _older_version(path: Path) -> str:
    with opened_hdf5(path / MAIN, path) as file:
        found = text_attribute(file, "minari_version")
    return f"version {found:.20}" if found else "it names no version"


def _card(about: dict[str, Any], path: Path, observation: Box, acts: ActionSpace) -> Any:
    ours = about.get(CARD_ATTRIBUTE)
    if isinstance(ours, str):
        return card_from_text(ours, path / METADATA)
    name = about.get("dataset_id")
    name = name if isinstance(name, str) and name else path.parent.name
    task, options, steps = _task(about, path)
    notes = ("Observations are observation, achieved goal and desired goal, one after the other.",)
    return replace(
        unread_card(name, task), task_options=options, max_episode_steps=steps, observation=space_record(observation),
        action=space_record(acts), notes=notes if isinstance(observation, Goal) else (),
    )  # fmt: skip


def _task(about: dict[str, Any], path: Path) -> tuple[str, dict[str, Any], int | None]:
    """Return the task, its options and its clock, as far as they are told."""
    if not isinstance(about.get("env_spec"), str):
        return "", {}, None
    spec = parse(parse_json, about["env_spec"], f"{path / METADATA}, env_spec", "a task in JSON", DAMAGED)
    task, options, steps = spec.get("id"), spec.get("kwargs"), spec.get("max_episode_steps")
    return (
        task if isinstance(task, str) else "",
        options if isinstance(options, dict) and is_plain(options) else {},
        steps if type(steps) is int and steps > 0 else None,
    )


# --- the episodes ---


def _measured(file: h5py.File, main: Path, parts: tuple[str, ...]) -> tuple[list[int], int]:
    """Return the steps of each episode and the bytes of all; every column is checked before one is read."""
    counts, num_bytes = [], 0
    for number in range(len(file)):
        episode = group_in(file, f"episode_{number}", main)
        _check_names(episode, main)
        seen = _observations(episode, main, parts)
        columns = {name: column_in(episode, name, main) for name in _COLUMNS}
        check_lengths({name: len(column) for name, column in columns.items()}, f"episode {number} of {main}")
        count = len(columns["rewards"])
        for column in seen:
            if len(column) != count + 1:
                raise UsageError(
                    f"Expected {count + 1:,} observations for the {count:,} steps of episode {number} in {main}, one "
                    f"more than steps, got {len(column):,}: it is of an older layout, or cut off. {SAVE_ANEW}"
                )
        counts.append(count)
        num_bytes += sum(len(column) * row_bytes(column) for column in (*seen, *columns.values()))
    return counts, num_bytes


def _check_names(episode: h5py.Group, main: Path) -> None:
    missing = [name for name in ("observations", *_COLUMNS) if not is_there_in(episode, name)]
    if missing:
        place = f"{(episode.name or '').strip('/')} of {main}"
        raise UsageError(
            f"Expected {', '.join(missing)} in {place}, as Minari 0.4 and 0.5 write, got "
            f"{', '.join(sorted(map(str, episode))[:12]) or 'nothing'}: it is of an older layout. {SAVE_ANEW}"
        )


def _observations(episode: h5py.Group, main: Path, parts: tuple[str, ...]) -> list[h5py.Dataset]:
    if not parts:
        column = column_in(episode, "observations", main)
        return [column]
    inner = group_in(episode, "observations", main)
    return [column_in(inner, part, main) for part in parts]


def _pieces(main: Path, path: Path, parts: tuple[str, ...], first_choice: np.ndarray) -> Iterator[LogPiece]:
    with opened_hdf5(main, path) as file:
        has_log_prob = _has_log_prob(file, main)
        for number in range(len(file)):
            episode = group_in(file, f"episode_{number}", main)
            seen = _observations(episode, main, parts)
            columns = {name: column_in(episode, name, main) for name in _COLUMNS}
            count = len(columns["rewards"])
            for part in slices(count, sum(map(row_bytes, seen))):
                piece = _piece(episode, seen, columns, part, first_choice, main, has_log_prob)
                _check_ends(piece, part, count, number, main)
                yield piece


def _piece(
    episode: h5py.Group, seen: list[h5py.Dataset], columns: dict[str, h5py.Dataset], part: slice,
    first_choice: np.ndarray, main: Path, has_log_prob: bool,
) -> LogPiece:  # fmt: skip
    is_last = part.stop == len(columns["rewards"])
    read = [np.asarray(column[part.start : part.stop + is_last]) for column in seen]
    obs = as_observations(read[0] if len(read) == 1 else np.concatenate([one.reshape(len(one), -1) for one in read], 1))
    values = {name: np.asarray(column[part]) for name, column in columns.items()}
    action, reward = values["actions"], values["rewards"]
    if first_choice.any():
        action = action - first_choice.astype(action.dtype)
    count = part.stop - part.start
    log_prob = None
    if has_log_prob:  # an entry more than steps: infos begin with those of the reset
        column = column_in(group_in(episode, "infos", main), "action_log_probs", main)
        log_prob = np.asarray(column[part.start + 1 : part.stop + 1])
        check_lengths({"rewards": count, "infos/action_log_probs": len(log_prob)}, f"{episode.name} of {main}")
    begins = np.zeros(count, bool)
    begins[:1] = part.start == 0
    return LogPiece(
        obs[:count], action, reward if reward.dtype.kind == "f" else reward.astype(np.float64),
        as_flags(values["terminations"], "terminations", str(main), part.start),
        as_flags(values["truncations"], "truncations", str(main), part.start),
        log_prob, begins, obs[count:],
    )  # fmt: skip


def _has_log_prob(file: h5py.File, main: Path) -> bool:
    first = group_in(file, "episode_0", main) if len(file) else file
    return is_there_in(first, "infos") and is_there_in(group_in(first, "infos", main), "action_log_probs")


def _check_ends(piece: LogPiece, part: slice, count: int, number: int, main: Path) -> None:
    ended = part.start + np.flatnonzero(piece.terminated | piece.truncated)
    if len(ended) and ended[0] + 1 < count:
        raise UsageError(
            f"Expected episode {number} of {main} to end with its first flag, got one at step {ended[0]:,} of {count:,}"
            ": split it into episodes, and save it anew."
        )


# --- writing ---


def write_minari(dataset: Dataset, path: Path) -> Path:
    """Write a log as a Minari data set, an episode at a time, and return its folder.

    `minari.load_dataset` finds it where `path` lies in the folder of `MINARI_DATASETS_PATH`.

    Raises:
        UsageError: the name is none of a data set, something is there already, or the disk cannot be written.
    """
    if not re.fullmatch(r"[-_\w]+-v\d+", path.name):
        raise UsageError(f"Expected a name for a Minari data set that ends in its version, as {path.name}-v0.")
    if is_there(path):
        raise UsageError(f"{path} is there already: choose another name, or remove it.")
    with writing("the log", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = make_folder(path / "data", path.parent)
        try:
            with h5py.File(folder / MAIN, "w") as file:
                for number in range(dataset.num_episodes):
                    _write_episode(dataset, number, file.create_group(f"episode_{number}"))
            about = _about(dataset, _identifier(path), (folder / MAIN).stat().st_size)
            write_file(folder / METADATA, json.dumps(about).encode(), folder)
        except BaseException:
            remove_folder(path)
            raise
    return path


def _write_episode(dataset: Dataset, number: int, group: h5py.Group) -> None:
    begin, end = int(dataset.begins[number]), int(dataset.ends[number])
    group.attrs["id"] = number
    group.attrs["total_steps"] = end - begin
    columns = {
        "observations": np.concatenate([dataset.obs[begin:end], dataset.final_obs[number : number + 1]]),
        "actions": dataset.action[begin:end],
        "rewards": dataset.reward[begin:end],
        "terminations": dataset.terminated[begin:end],
        "truncations": dataset.truncated[begin:end],
    }
    if dataset.log_prob is not None:
        log_prob = dataset.log_prob[begin:end]
        columns["infos/action_log_probs"] = np.append(np.full(1, np.nan, log_prob.dtype), log_prob)
    for name, values in columns.items():  # resizable, so that Minari can add to an episode
        group.create_dataset(name, data=values, chunks=True, maxshape=(None, *values.shape[1:]))


def _about(dataset: Dataset, identifier: str, size: int) -> dict[str, Any]:
    card = dataset.card
    about: dict[str, Any] = {
        "dataset_id": identifier,
        "minari_version": VERSION,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "total_episodes": dataset.num_episodes,
        "total_steps": dataset.num_steps,
        "dataset_size": round(size / 1e6, 1),
        "observation_space": json.dumps(written_space(dataset.observation, dataset.obs.dtype)),
        "action_space": json.dumps(written_space(dataset.action_space, dataset.action.dtype)),
        "description": f"Written by Workhorse: {card.name}. {' '.join(card.notes)}".strip(),
        CARD_ATTRIBUTE: card_text(replace(card, digest=dataset.digest())),
    }
    if spec := _env_spec(card.task, card.task_options, card.max_episode_steps):
        about["env_spec"] = spec
    if {"random", "expert"} <= set(card.references):
        about |= {"ref_min_score": card.references["random"], "ref_max_score": card.references["expert"]}
    return about


def _env_spec(task: str, options: dict[str, Any], steps: int | None) -> str | None:
    """Return the task as Minari keeps it, so that it can make the environment; None where Gymnasium has none."""
    from gymnasium.envs.registration import registry

    spec = registry.get(task)  # `gymnasium.spec` would import the module that a name may begin with
    if spec is None:
        return None
    return replace(spec, kwargs={**spec.kwargs, **options}, max_episode_steps=steps).to_json()


def _identifier(path: Path) -> str:
    """Return the id of a data set: its place in the folder of Minari's data sets, or else its name."""
    root = os.environ.get("MINARI_DATASETS_PATH") or os.path.expanduser("~/.minari/datasets")
    place, root = os.path.abspath(path), os.path.abspath(root)
    return os.path.relpath(place, root) if place.startswith(root + os.sep) else path.name
