"""`workhorse dataset show` and `workhorse dataset convert`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import tyro

from workhorse.cli.options import Count, parse

__all__ = ["convert", "show"]

BAR = 40
"""Width of the longest bar of a histogram, in letters."""


@dataclasses.dataclass
class TableOptions:
    """Names of the columns of a Parquet or CSV log, and what a log does not tell of its actions."""

    log: tyro.conf.Positional[str] = tyro.MISSING
    """The log: a folder that `workhorse dataset` wrote, a Minari data set, or an HDF5, Parquet or CSV file."""
    obs: tuple[str, ...] = ()
    """Columns of the observation, in order, as in x,v,angle; by default obs_0, obs_1, ..."""
    action: tuple[str, ...] = ()
    """Columns of the action, in order; by default action_0, action_1, ... One of whole numbers holds choices."""
    reward: str = "reward"
    """Column of the reward."""
    terminated: str = "terminated"
    """Column that is 1 where the task ended an episode."""
    truncated: str = ""
    """Column that is 1 where a clock, or the recording, ended an episode; by default truncated, where it is there."""
    episode: str = ""
    """Column that tells episodes apart; by default episode, where it is there, and else the flags do."""
    time: str = ""
    """Column of the time, which rises within an episode."""
    next_obs: tuple[str, ...] = ()
    """Columns of the observation after the step; without them the last step of a truncated episode is left out."""
    log_prob: str = ""
    """Column of the log density of the action; by default log_prob, where it is there."""
    action_low: tuple[float, ...] = ()
    """Lower bounds of the actions, one, or one a component; by default those of the log."""
    action_high: tuple[float, ...] = ()
    """Upper bounds of the actions."""
    action_count: Count | None = None
    """Number of choices, for actions that are choices counted from 0."""
    task: str = ""
    """Id of the task that the log was recorded on."""


@dataclasses.dataclass
class DatasetShowOptions(TableOptions):
    """Show what is in a log of episodes: its task, spaces, ends, returns, and notes.

    The names of columns are needed for Parquet and CSV from elsewhere.
    """


@dataclasses.dataclass
class DatasetConvertOptions(TableOptions):
    """Write a log of episodes in another format.

    The names of columns are needed for Parquet and CSV from elsewhere; in our own form they are known.
    """

    out: tyro.conf.Positional[str] = tyro.MISSING
    """The new file or folder, which must not be there yet."""
    to: Literal["workhorse", "minari", "d4rl", "parquet", "csv"] = "workhorse"
    """Format: workhorse is a folder that is mapped from disk, so that it may be larger than memory."""


def show(arguments: Sequence[str]) -> int:
    """Print the card of a log and return the exit code."""
    options: Any = parse(DatasetShowOptions, arguments)
    from workhorse.data.opening import open_dataset

    for line in _lines(open_dataset(options.log, _columns(options))):
        print(line)
    return 0


def convert(arguments: Sequence[str]) -> int:
    """Write a log in another format and return the exit code."""
    options: Any = parse(DatasetConvertOptions, arguments)
    from workhorse.data.opening import convert_dataset

    written = convert_dataset(options.log, options.out, options.to, _columns(options))
    card = written.card
    print(f"{options.out}: {card.num_steps:,} steps in {card.num_episodes:,} episodes, in the format {options.to}")
    for note in card.notes:
        print(f"  {note}")
    return 0


def _columns(options: Any) -> Any:
    from workhorse.data.table_columns import Columns

    return Columns(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Columns)})


def _lines(dataset: Any) -> Iterator[str]:
    """Yield what is printed of a log.

    Args:
        dataset: a `Dataset`; its type would import NumPy for `--help`.
    """
    card, lengths = dataset.card, dataset.lengths
    yield card.name + (f" ({card.kind})" if card.kind else "")
    options = " ".join(f"{name}={value}" for name, value in card.task_options.items())
    clock = f", at most {card.max_episode_steps:,} steps an episode" if card.max_episode_steps else ""
    yield f"  task          {card.task or 'not known'}{f' {options}' if options else ''}{clock}"
    yield f"  observation   {_space(card.observation)}, {dataset.obs.dtype}"
    yield f"  action        {_space(card.action)}, {dataset.action.dtype}"
    yield f"  episodes      {dataset.num_episodes:,}, of {lengths.min():,} to {lengths.max():,} steps"
    yield f"  steps         {dataset.num_steps:,}"
    last = dataset.ends - 1
    terminated, truncated = dataset.terminated[last], dataset.truncated[last]
    counts = {
        "terminated": terminated.sum(),
        "truncated": (truncated & ~terminated).sum(),
        "broken off": (~terminated & ~truncated).sum(),
    }
    yield "  ends          " + ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    yield f"  log_prob      {'of each action' if dataset.log_prob is not None else 'not known'}"
    if card.returns:
        mean, spread = card.returns["mean"], card.returns["std"]
        yield f"  returns       {mean:,.1f} with a spread of {spread:,.1f}"
        if spread > 0:
            yield from _histogram(card.returns["edges"], card.returns["counts"])
    for name, value in card.references.items():
        yield f"  {name:<13} {value:,.1f} a reference return"
    yield f"  digest        {card.digest}"
    for note in card.notes:
        yield f"  note          {note}"


def _space(record: dict[str, Any]) -> str:
    """Return a space in words.

    Example:
        >>> _space({"kind": "box", "shape": [2], "low": [None], "high": [1.0]})
        'box of shape (2,) from -inf to 1'
        >>> _space({"kind": "discrete", "count": 3})
        '3 choices'
    """
    match record["kind"]:
        case "discrete":
            return f"{record['count']} choices"
        case "multi-discrete":
            return f"choices of {', '.join(map(str, record['counts']))}"
        case "multi-binary":
            return f"{record['size']} switches"
    bounds = []
    for name, infinite in (("low", "-inf"), ("high", "inf")):
        shown = [infinite if bound is None else f"{bound:g}" for bound in record[name][:6]]
        more = ", ..." if len(record[name]) > 6 else ""
        bounds.append(shown[0] if len(record[name]) == 1 else f"[{', '.join(shown)}{more}]")
    return f"box of shape {tuple(record['shape'])} from {bounds[0]} to {bounds[1]}"


def _histogram(edges: Sequence[float], counts: Sequence[int]) -> Iterator[str]:
    """Yield a line for each bin.

    Example:
        >>> print(*_histogram([0.0, 1.0, 2.0], [1, 2]), sep="\\n")
                  0.0 to          1.0  ████████████████████ 1
                  1.0 to          2.0  ████████████████████████████████████████ 2
    """
    most = max(max(counts), 1)
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        bar = "█" * round(BAR * count / most)
        yield f"  {low:>13,.1f} to {high:>12,.1f}  {bar}{' ' if bar else ''}{count:,}"
