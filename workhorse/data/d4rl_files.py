"""HDF5 files in the layout of D4RL: flat columns, one row a step.

    observations (N, ...)  actions (N, ...)  rewards (N,)  terminals (N,)  timeouts (N,)  next_observations (N, ...)
    infos/action_log_probs (N,)  infos/episode (N,)

`timeouts` may be missing only beside `next_observations`, which show where an episode ends without a mark. Files that
we write have the card in the attribute `workhorse_card`, the number of the episode of each row, and
`next_observations`, so that nothing is lost.

Source: Fu et al. 2020, "D4RL: Datasets for deep data-driven reinforcement learning" (arXiv 2004.07219).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from workhorse.core.errors import UsageError
from workhorse.core.files import create_file, is_there, temporary_name, writing
from workhorse.data.dataset import Dataset
from workhorse.data.flat_rows import FlatRows, as_flags, check_lengths, pieces_of
from workhorse.data.hdf5_files import column_in, group_in, is_there_in, opened_hdf5, row_bytes, text_attribute
from workhorse.data.log_pieces import LogSource, card_from_text, card_text, slices, unread_card

__all__ = ["CARD_ATTRIBUTE", "d4rl_source", "write_d4rl"]

CARD_ATTRIBUTE = "workhorse_card"

_NEEDED = ("observations", "actions", "rewards", "terminals")
_NAMES = {
    "observations": "obs",
    "actions": "action",
    "rewards": "reward",
    "terminals": "terminated",
    "timeouts": "truncated",
    "next_observations": "next_obs",
    "infos/action_log_probs": "log_prob",
    "infos/episode": "episode",
}


def d4rl_source(path: Path) -> LogSource:
    """Describe the log in a file.

    Raises:
        UsageError: columns are missing or of different lengths, or the file is damaged.
    """
    with opened_hdf5(path) as file:
        _check_layout(file, path)
        columns = _columns(file, path)
        check_lengths({name: len(column) for name, column in columns.items()}, str(path))
        written = text_attribute(file, CARD_ATTRIBUTE)
        card = unread_card(path.stem) if written is None else card_from_text(written, path)
        num_bytes = sum(len(column) * row_bytes(column) for column in columns.values())
        size = int(np.prod(columns["actions"].shape[1:]))
    source = LogSource(path, card, num_bytes, action_size=size)
    source.pieces = lambda: pieces_of(_chunks(path), source.notes)
    return source


def _check_layout(file: h5py.File, path: Path) -> None:
    missing = [name for name in _NEEDED if not is_there_in(file, name)]
    if "terminals" in missing and len(missing) == 1:
        raise UsageError(
            f"Expected `terminals` in {path}, got a log without terminations, in which values cannot be told from "
            "those of a task that goes on for ever: write the column, 1 where the task ended an episode."
        )
    if missing:
        there = ", ".join(sorted(map(str, file))[:12]) or "nothing"
        raise UsageError(
            f"Expected the columns {', '.join(_NEEDED)} of D4RL's layout in {path}, got {there}: rename its columns."
        )
    if not (is_there_in(file, "timeouts") or is_there_in(file, "next_observations")):
        raise UsageError(
            f"Expected `timeouts` or `next_observations` in {path}, got neither, so that nobody can tell where a clock "
            "ended an episode: write the column, 1 where one did."
        )


def _columns(file: h5py.File, path: Path) -> dict[str, h5py.Dataset]:
    """Return the columns that are there, by D4RL's names."""
    found = {}
    for name in _NAMES:
        folder, _, inner = name.rpartition("/")
        if folder and not is_there_in(file, folder):
            continue
        owner = group_in(file, folder, path) if folder else file
        if is_there_in(owner, inner):
            found[name] = column_in(owner, inner, path)
    return found


def _chunks(path: Path) -> Iterator[FlatRows]:
    with opened_hdf5(path) as file:
        columns = _columns(file, path)
        before = None
        for part in slices(len(columns["rewards"]), row_bytes(columns["observations"])):
            read = {_NAMES[name]: np.asarray(column[part]) for name, column in columns.items()}
            for name in ("reward", "terminated", "truncated", "log_prob", "episode"):
                if name in read:
                    read[name] = _flat(read[name], name, path)
            flags = [as_flags(read[name], d4rl, str(path), part.start) if name in read else None
                     for name, d4rl in (("terminated", "terminals"), ("truncated", "timeouts"))]  # fmt: skip
            reward = read["reward"].astype(np.float64) if read["reward"].dtype.kind != "f" else read["reward"]
            starts = np.zeros(len(reward), bool)
            if "episode" in read:
                number = read["episode"]
                starts = number != np.append(number[:1] if before is None else before, number[:-1])
                before = number[-1:]
            assert flags[0] is not None
            truncated = np.zeros(len(reward), bool) if flags[1] is None else flags[1]
            yield FlatRows(
                as_observations(read["obs"]), _single(read["action"]), reward, flags[0], truncated,
                as_observations(read["next_obs"]) if "next_obs" in read else None, read.get("log_prob"), starts,
            )  # fmt: skip


def as_observations(values: np.ndarray) -> np.ndarray:
    """Return observations as floats, or as bytes, which images are."""
    values = values[:, None] if values.ndim == 1 else values
    return values if values.dtype.kind == "f" or values.dtype == np.uint8 else values.astype(np.float64)


def _single(action: np.ndarray) -> np.ndarray:
    """Return actions with an axis, but for choices."""
    return action[:, None] if action.ndim == 1 and action.dtype.kind == "f" else action


def _flat(values: np.ndarray, name: str, path: Path) -> np.ndarray:
    """Return a column of single values, which some programs write as (N, 1)."""
    if values.size != len(values):
        raise UsageError(
            f"Expected one `{name}` a row in {path}, got the shape {values.shape}: write one number a row."
        )
    return values.reshape(-1)


def write_d4rl(dataset: Dataset, path: Path) -> Path:
    """Write a log as an HDF5 file in D4RL's layout, a part at a time, and return the path.

    Raises:
        UsageError: something is there already, or the disk cannot be written.
    """
    if is_there(path):
        raise UsageError(f"{path} is there already: choose another name, or remove it.")
    with writing("the log", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with create_file(path), h5py.File(temporary_name(path), "w") as file:
            file.attrs[CARD_ATTRIBUTE] = card_text(replace(dataset.card, digest=dataset.digest()))
            columns: dict[str, h5py.Dataset] = {}
            for part in slices(dataset.num_steps, dataset.obs[:1].nbytes):
                for name, values in _rows_of(dataset, part).items():
                    if name not in columns:
                        shape = (dataset.num_steps, *values.shape[1:])
                        columns[name] = file.create_dataset(name, shape, values.dtype)
                    columns[name][part] = values
    return path


def _rows_of(dataset: Dataset, part: slice) -> dict[str, np.ndarray]:
    index = np.arange(part.start, part.stop)
    rows = {
        "observations": dataset.obs[part],
        "actions": dataset.action[part],
        "rewards": dataset.reward[part],
        "terminals": dataset.terminated[part],
        "timeouts": dataset.truncated[part],
        "next_observations": dataset.next_obs(index),
        "infos/episode": dataset.episode_of(index),
    }
    if dataset.log_prob is not None:
        rows["infos/action_log_probs"] = dataset.log_prob[part]
    return {name: np.asarray(values) for name, values in rows.items()}
