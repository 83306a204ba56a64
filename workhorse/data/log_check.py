"""Check a log for what spoils learning from it, as `workhorse check` does for a task.

Each finding is a sentence that names rows and says what to do. The checks need no task; with steps of the task itself
(`OwnSteps`) they also see wrong units, dead sensors and rewards that were not recorded.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from workhorse.data.dataset import Dataset
from workhorse.data.log_columns import actions, observations, precision, rewards
from workhorse.data.log_findings import Check, LogFinding, OwnSteps, Said, note, rows_named, stop
from workhorse.data.log_fits import LogFits
from workhorse.data.log_order import alignment, contiguity
from workhorse.data.log_support import support

__all__ = ["check_log"]

COLUMNS = ("obs", "action", "reward", "final_obs")
FEW_CUT = 0.1
"""Share of episodes that may be cut before the clock because the recording stopped."""
LEAST_STEPS = 400
"""Steps of which a fit needs as many between an episode's ends, or nothing is said of alignment and order."""


def check_log(dataset: Dataset, own: OwnSteps | None = None) -> Iterator[LogFinding]:
    """Yield what is wrong with a log, what its user should know, and what it can support.

    Args:
        dataset: the log.
        own: random play of its task, where it can be played.
    """
    for topic, check, fine in _CHECKS:
        found = list(check(dataset, own))
        yield from (LogFinding(topic, verdict, text) for verdict, text in found)
        if not found:
            yield LogFinding(topic, "ok", fine)
        if topic == "numbers" and any(verdict == "stop" for verdict, _ in found):
            return  # nothing can be computed of them
    fits = LogFits(dataset)
    if len(fits.steps) < LEAST_STEPS:
        text = f"Too few steps lie within episodes ({len(fits.steps)}) to tell whether columns are shifted."
        yield LogFinding("alignment", "note", text)
    else:
        for topic, check in (("alignment", alignment), ("order", contiguity)):
            found = list(check(fits))
            yield from (LogFinding(topic, verdict, text) for verdict, text in found)
            if not found:
                yield LogFinding(topic, "ok", _FINE[topic])
    yield from (LogFinding("supports", "note", text) for text in support(dataset, fits))


_FINE = {
    "alignment": "Actions and rewards belong to the observations of their rows, as far as can be told.",
    "order": "Within episodes, rows follow each other.",
}


def _numbers(dataset: Dataset, own: OwnSteps | None) -> Iterator[Said]:
    for name in COLUMNS:
        column, bad = getattr(dataset, name), []
        for begin in range(0, len(column), 65_536):
            part = np.asarray(column[begin : begin + 65_536])
            if part.dtype.kind == "f":
                bad.append(begin + np.flatnonzero(~np.isfinite(part.reshape(len(part), -1)).all(1)))
        rows = np.concatenate(bad) if bad else np.zeros(0, int)
        if len(rows):
            what = "episodes" if name == "final_obs" else "rows"
            text = rows_named(rows).replace("row", what[:-1]) if what == "episodes" else rows_named(rows)
            yield stop(f"`{name}` is not finite in {text}: fill the gaps, or leave out those episodes.")


def _episodes(dataset: Dataset, own: OwnSteps | None) -> Iterator[Said]:
    if dataset.num_episodes < 2:
        yield stop(
            f"There is {dataset.num_episodes} episode, and at least 2 are needed: mark where episodes end, or record "
            "more."
        )
    seen: dict[bytes, int] = {}
    twice = []
    for number, (begin, end) in enumerate(zip(dataset.begins.tolist(), dataset.ends.tolist(), strict=True)):
        parts = (dataset.obs[begin:end], dataset.action[begin:end], dataset.reward[begin:end])
        key = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
        if end - begin > 1 and key in seen:
            twice.append((number, seen[key]))
        seen.setdefault(key, number)
    if twice:
        first = np.asarray(dataset.obs)[dataset.begins].reshape(dataset.num_episodes, -1)
        starts = len(np.unique(first, axis=0))
        one, other = twice[0]
        text = f"{len(twice)} of {dataset.num_episodes} episodes are there twice, as {one}, which is {other} again"
        if starts >= dataset.num_episodes - len(twice):
            yield stop(f"{text}: leave the copies out, or what is held out was learnt from.")
        else:
            yield note(f"{text}, which a task with few initial states and no luck may give.")


def _ends(dataset: Dataset, own: OwnSteps | None) -> Iterator[Said]:
    last, terminated, truncated = dataset.ends - 1, np.asarray(dataset.terminated), np.asarray(dataset.truncated)
    inside = np.setdiff1d(np.flatnonzero(terminated | truncated), last)
    if len(inside):
        yield stop(
            f"Ends are marked inside of episodes, in {rows_named(inside)}: an episode ends with its marked row, and "
            "the next row begins another one."
        )
    by_task, by_clock, lengths = terminated[last], truncated[last], dataset.lengths
    limit = dataset.card.max_episode_steps or (own.spec.max_episode_steps if own else None)
    both = by_task & by_clock
    if both.sum() > 1 and both.sum() > 0.5 * (by_task | by_clock).sum():
        yield stop(
            f"`terminated` and `truncated` are both set where {both.sum()} episodes end, as {rows_named(last[both])}: "
            "one column was copied into both. A clock that cut an episode is `truncated` alone."
        )
    elif not (by_task | by_clock).any():
        yield stop(
            "No step is marked as terminated or truncated: give the columns that say where a task or a clock ended an "
            "episode."
        )
    yield from _at_the_limit(last, by_task & ~both, by_clock & ~both, lengths, limit)
    early = by_clock & ~by_task & (lengths < (limit or 0))
    most = 0.5 if by_task.any() else FEW_CUT  # where a recording stopped, an episode may be marked as truncated
    if early.sum() > 2 and early.mean() > most:
        yield stop(
            f"{early.sum()} episodes are cut by the clock before its {limit} steps, as {rows_named(last[early])}: they "
            "were terminated, or the limit is another one. Values would be learnt from beyond their ends."
        )
    if limit and (lengths > limit).any():
        late = last[lengths > limit]
        yield stop(
            f"{len(late)} episodes are longer than the {limit} steps of the task's clock, as that which ends in "
            f"{rows_named(late[:1])}: ends are missing, and resets were taken for steps."
        )
    if not by_task.any() and not both.any() and by_clock.any():
        yield note("No episode is terminated: fine where the task has no end of its own, as HalfCheetah.")


def _at_the_limit(
    last: np.ndarray, by_task: np.ndarray, by_clock: np.ndarray, lengths: np.ndarray, limit: int | None
) -> Iterator[Said]:
    """Find episodes that a clock ended and that are marked as terminated."""
    longest = limit or int(lengths.max())
    at = by_task & (lengths == longest)
    if by_clock.any() or at.sum() < 2:
        return
    if limit is None and (at.all() or at.sum() < 3 or at.mean() < 0.02):
        if at.all():
            yield note(
                f"All episodes are terminated after exactly {longest} steps: where that is a clock, they are "
                "`truncated`, and not terminated."
            )
        return
    yield stop(
        f"{at.sum()} episodes are marked as terminated after exactly {longest} steps, as {rows_named(last[at])}, and "
        "none as truncated: a clock ended them, and its ends were merged with those of the task. Mark them `truncated`."
    )


def _successors(dataset: Dataset, own: OwnSteps | None) -> Iterator[Said]:
    if dataset.num_episodes < 2:
        return
    final = np.asarray(dataset.final_obs).reshape(dataset.num_episodes, -1)
    last = np.asarray(dataset.obs)[dataset.ends - 1].reshape(final.shape)
    first = np.asarray(dataset.obs)[dataset.begins].reshape(final.shape)
    is_next = (final[:-1] == first[1:]).all(1)
    vary = np.ptp(first, axis=0).any()
    if vary and is_next.mean() > 0.5:
        yield stop(
            f"The observation after the last step of {is_next.sum()} episodes is the first of the next one, as that "
            f"after {rows_named(dataset.ends[:-1][is_next] - 1)}: resets were recorded in the place of successors. "
            "Give the final observations, or leave out the last step of each episode."
        )
    long = dataset.lengths > 1
    before = np.asarray(dataset.obs)[np.maximum(dataset.ends - 2, dataset.begins)].reshape(final.shape)
    stands, stood = (final == last).all(1) & long, (last == before).all(1) & long
    if long.any() and stands.sum() > 0.5 * long.sum() and stood.sum() < 0.2 * long.sum():
        yield stop(
            f"The observation after the last step is the last one once more in {stands.sum()} episodes, as after "
            f"{rows_named(dataset.ends[stands] - 1)}: final observations were not recorded. Give them, or leave out "
            "the last step of each episode."
        )


def _time(dataset: Dataset, own: OwnSteps | None) -> Iterator[Said]:
    known = dataset.card.made.get("time")
    if not isinstance(known, dict) or not known.get("jumps"):
        return
    rows = np.array(known.get("jump_rows", []), int)
    yield stop(
        f"The time in `{known.get('column')}` jumps {known['jumps']} times within episodes, up to "
        f"{known.get('longest_step', 0):g} where a step takes {known.get('usual_step', 0):g}, in {rows_named(rows)}: "
        "rows are missing there. Begin an episode after each gap."
    )


_CHECKS: tuple[tuple[str, Check, str], ...] = (
    ("numbers", _numbers, "All numbers are finite."),
    ("episodes", _episodes, "No episode is there twice."),
    ("ends", _ends, "Terminations and truncations are told apart."),
    ("successors", _successors, "Every episode has the observation that it came to."),
    ("observations", observations, "Every component changes."),
    ("actions", actions, "Actions are in their space."),
    ("rewards", rewards, "Rewards differ."),
    ("precision", precision, "Numbers have their digits."),
    ("time", _time, "No gap in time is known."),
)
