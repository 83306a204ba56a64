"""Make logs of episodes from our own runs, with cards that say how, and check logs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from workhorse.algorithms.recipes import recipe
from workhorse.algorithms.settings import merged_settings
from workhorse.api.setup import whole
from workhorse.api.tasks import check_task
from workhorse.core.algorithm import Planner
from workhorse.core.errors import UsageError
from workhorse.core.files import is_there
from workhorse.core.machine import installed_versions, threads_or_cores
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.data.coverage import coverage_of
from workhorse.data.dataset import Card, Dataset, Kind, space_record
from workhorse.data.log_check import check_log
from workhorse.data.log_findings import LogFinding
from workhorse.data.log_folder import read_log_folder, write_log_folder
from workhorse.data.opening import check_fits
from workhorse.environments import registry as environments
from workhorse.environments.protocol import HostEnv, JaxEnv
from workhorse.environments.registry import is_native
from workhorse.runs import train
from workhorse.runs.budget import usual_evaluations
from workhorse.runs.history import History, opened
from workhorse.runs.kept_policies import acting_policy, medium_policy, newest_iteration, replay_until
from workhorse.runs.run import Observer
from workhorse.runs.trust import key_of, open_run
from workhorse.training.episodes import evaluation_of, make_player
from workhorse.training.lanes import Lanes
from workhorse.training.on_policy import EVALUATION_SLOTS
from workhorse.training.recording import (
    UNKNOWN_LIMIT,
    PolicyPlay,
    RandomPlay,
    Recorded,
    own_steps,
    record,
    slots_for,
)

__all__ = ["MEDIUM", "STEPS", "check", "make"]

STEPS = 100_000
"""Steps of a log whose maker was not told how many."""

MEDIUM = 1 / 3
"""Share of the way from the return of random actions to that of a run's last policy that `medium` has come at least."""

RANDOM_EPISODES = EXPERT_EPISODES = 100
TRAINED_STEPS = 100_000
"""Budget of a run on a task that has no recipe."""
MILESTONES = 50
"""States that a run keeps which is trained for logs: a policy may become good quickly."""
LATE_MEDIUM = 2 / 3
"""Share of that way from which on the card says that a medium policy is not much worse than the last one."""
PART_OFFSET = 1_000_003
"""Added to the seed for the second half of a log, so that its initial states are not those of the first."""


@dataclass(frozen=True)
class Wanted:
    """What is asked for, checked."""

    task: str
    task_options: Mapping[str, Any]
    kind: str
    steps: int
    seed: int
    explore: bool
    medium: float
    threads: int
    noted: Callable[[str], None]

    @property
    def command(self) -> tuple[str, ...]:
        """The command line that asks for this log, but for its folder."""
        return ("workhorse", "dataset", "make", self.task, "--kind", self.kind, "--seed", str(self.seed))

    def opened(self, slots: int) -> HostEnv | JaxEnv:
        """Return the task with some slots, which the caller closes."""
        return environments.make(self.task, slots, self.threads, **self.task_options)


def make(
    task: str,
    kind: Kind,
    out: str | os.PathLike[str],
    *,
    from_run: str | os.PathLike[str] | None = None,
    steps: int | None = None,
    seed: int = 0,
    explore: bool = True,
    medium: float = MEDIUM,
    task_options: Mapping[str, Any] | None = None,
    runs: str | os.PathLike[str] = "runs",
    threads: int = 0,
    trust: bool = False,
    observer: Observer | None = None,
    noted: Callable[[str], None] = lambda sentence: None,
) -> Dataset:
    """Record a log of episodes on a task, write it into a folder, and return it.

    random          uniform actions
    medium          the first kept state of a run whose return has come a third of the way from random to its last
    medium-replay   every step that the run itself took until then, out of its replay
    expert          the last policy of the run
    medium-expert   half of each

    Equal arguments and an equal run give a log with an equal digest.

    Args:
        task: id of the task.
        kind: one of the above.
        out: the folder, which must not be there yet.
        from_run: a run on this task, of any algorithm whose policy acts by itself; by default one is trained first, by
            sac-n where actions are numbers and dqn where they are choices, and kept. Random actions need none, and
            are then not compared to an expert.
        steps: of the log; by default 100,000. A replay has the steps that it has.
        seed: of initial states and actions, and of a run that is trained.
        explore: act with the exploration that the algorithm has, so that there is more than one action in a state;
            else the policies are noiseless.
        medium: share of the way from random actions to the last policy that `medium` has come at least, in (0, 1).
        task_options: options of the task; by default those of the run.
        runs: folder for a run that is trained.
        threads: simulation threads, which do not change the log; 0 for one a core.
        trust: as for `Run.open`.
        observer: is told how the training goes.
        noted: is told what is done.

    Raises:
        UsageError: something given cannot be used, or the run has no policy of that kind.
    """
    steps = _checked(task, kind, out, whole("steps", steps), seed, explore)
    if not 0 < medium < 1:
        raise UsageError(
            f"--medium must be a share of the way from random to the last policy, in (0, 1): got {medium}."
        )
    wanted = Wanted(
        task, dict(task_options or {}), kind, steps, seed, explore, medium, threads_or_cores(threads), noted
    )
    if from_run is None and kind != "random":
        from_run = _trained(wanted, runs, observer)
    if from_run is None:
        columns, made, references = _random(wanted), {}, {}
    else:
        manifest = open_run(from_run, trust).manifest()
        if manifest.task != task or (task_options and dict(task_options) != manifest.task_options):
            raise UsageError(
                f"{from_run} is a run on {_named(manifest.task, manifest.task_options)}, and the log is to be of "
                f"{_named(task, wanted.task_options)}: name a run on that task."
            )
        wanted = replace(wanted, task_options=dict(manifest.task_options))
        with opened(from_run, wanted.threads) as history:
            columns, made, references = _from_run(wanted, history)
    dataset = _described(wanted, columns, made, references)
    return read_log_folder(write_log_folder(dataset, out))


def check(dataset: Dataset, *, task: str | None = None, threads: int = 0) -> Iterator[LogFinding]:
    """Yield what is wrong with a log, what its user should know, and what it can support.

    Args:
        dataset: the log.
        task: the task that it is of, some random steps of which are compared with it; by default the one that its card
            names, where that is one of Workhorse's own (a card from elsewhere must not choose code to run).
        threads: simulation threads.

    Raises:
        UsageError: the task is not known, or has other observations or actions.
    """
    card = dataset.card
    if task is None and is_native(card.task, card.task_options):
        task = card.task
    own = None
    if task is not None:
        check_task(task)
        options = card.task_options if task == card.task else {}
        own = own_steps(task, options, threads_or_cores(threads))
        check_fits(dataset, own.spec)
    return check_log(dataset, own)


def _checked(task: str, kind: str, out: str | os.PathLike[str], steps: int | None, seed: int, explore: bool) -> int:
    """Return the number of steps, everything that can be refused before any work refused."""
    check_task(task)
    if kind not in get_args(Kind):
        raise UsageError(f"--kind must be one of {', '.join(get_args(Kind))}: got {kind!r}.")
    if is_there(out):
        raise UsageError(f"{os.fspath(out)} is there already: choose another name for --out, or remove it.")
    if steps is not None and kind == "medium-replay":
        raise UsageError("medium-replay has the steps that its run took until it was medium: leave --steps out.")
    if steps is not None and steps < (2 if kind == "medium-expert" else 1):
        raise UsageError(f"--steps must be at least {2 if kind == 'medium-expert' else 1}: got {steps}.")
    if not explore and kind in ("random", "medium-replay"):
        raise UsageError(f"{kind} holds no episodes of a policy that could be without noise: leave --no-explore out.")
    if not 0 <= seed < 2**32:
        raise UsageError(f"The seed must be in [0, 2**32): got {seed}.")
    return STEPS if steps is None else steps


def _named(task: str, options: Mapping[str, Any]) -> str:
    return task + "".join(f" with {name}={value!r}" for name, value in options.items())


# --- runs ---


def _trained(wanted: Wanted, runs: str | os.PathLike[str], observer: Observer | None) -> Path:
    """Train a run that logs of every kind can be made of, and return its folder."""
    env = wanted.opened(1)
    if isinstance(env, HostEnv):
        env.close()
    algorithm = {Box: "sac-n", Discrete: "dqn"}.get(type(env.spec.task_action))
    if algorithm is None:
        raise UsageError(
            f"No off-policy algorithm takes the actions of {wanted.task}, {type(env.spec.task_action).__name__}: train "
            "a run with another one, and name it by --from-run."
        )
    known = recipe(wanted.task, algorithm)
    steps = known.env_steps if known else TRAINED_STEPS
    usual = usual_evaluations(steps, env.spec.max_episode_steps or UNKNOWN_LIMIT)
    folder, _ = train.start(
        task=wanted.task, task_options=wanted.task_options, algorithm=algorithm, recipe=known, env_steps=steps,
        settings=merged_settings(algorithm, known, {}), seed=wanted.seed, threads=wanted.threads, root=runs,
        schedule=train.Schedule(*usual, milestones=MILESTONES), observer=observer, command=wanted.command,
    )  # fmt: skip
    wanted.noted(f"The log is made of the run {folder.path}; --from-run {folder.path} makes more of it.")
    return folder.path


def _from_run(wanted: Wanted, history: History) -> tuple[Recorded, dict[str, Any], dict[str, float]]:
    """Return the columns of a log, what its card says of how it was made, and its references."""
    if isinstance(history.loop.algorithm, Planner) or not history.loop.evaluates:
        raise UsageError(
            f"The run {history.folder.path} is one of {history.manifest.algorithm}, whose policy does not act by "
            "itself in the task: name a run of another algorithm."
        )
    expert = acting_policy(history, newest_iteration(history), EXPERT_EPISODES)
    spec = history.spec
    references = {"random": _random_return(wanted, spec), "expert": expert.mean_return}
    wanted.noted(f"Mean returns: {references['random']:,.1f} random, {expert.mean_return:,.1f} of the last policy.")
    made: dict[str, Any] = {
        "run": history.folder.id, "manifest": key_of(asdict(history.manifest)), "run_seed": history.manifest.seed,
        "algorithm": history.manifest.algorithm,
    }  # fmt: skip
    if wanted.kind == "random":
        return _random(wanted), made, references
    if wanted.kind == "expert":
        acting = (expert,)
    else:
        medium = medium_policy(history, references["random"], expert.mean_return, wanted.medium, wanted.noted)
        if wanted.kind == "medium-replay":
            return replay_until(history, medium), made | {"until": medium.described()}, references
        acting = (medium, expert) if wanted.kind == "medium-expert" else (medium,)
    parts = []
    for number, policy in enumerate(acting):
        steps = wanted.steps // len(acting) + (wanted.steps % len(acting) if number == 0 else 0)
        play = PolicyPlay(history.loop.algorithm, wanted.explore, slots_for(steps, spec.max_episode_steps))
        parts.append(_played(wanted, play, policy.actor, steps, number))
    made["policies"] = [
        policy.described() | {"steps": len(part.reward)} for policy, part in zip(acting, parts, strict=True)
    ]
    return _one_after_the_other(parts), made | {"explores": wanted.explore}, references


# --- recording ---


def _random_return(wanted: Wanted, spec: EnvSpec) -> float:
    """Return the mean return of random actions."""
    env = wanted.opened(EVALUATION_SLOTS)
    play: Any = RandomPlay(_plain(spec), EVALUATION_SLOTS)
    lanes = Lanes([make_player(play, env, EVALUATION_SLOTS, wanted.seed)])
    try:
        return float(evaluation_of(lanes.evaluate((), 0, RANDOM_EPISODES, True), RANDOM_EPISODES).returns.mean())
    finally:
        lanes.close()


def _plain(spec: EnvSpec) -> EnvSpec:
    return replace(spec, action=spec.task_action, unscaled=None)


def _random(wanted: Wanted) -> Recorded:
    env = wanted.opened(1)
    if isinstance(env, HostEnv):
        env.close()
    spec = _plain(env.spec)
    return _played(wanted, RandomPlay(spec, slots_for(wanted.steps, spec.max_episode_steps)), (), wanted.steps, 0)


def _played(wanted: Wanted, play: PolicyPlay | RandomPlay, actor: Any, steps: int, part: int) -> Recorded:
    env = wanted.opened(play.num_envs)
    try:
        return record(play, actor, env, steps, (wanted.seed + part * PART_OFFSET) % 2**32)
    finally:
        if isinstance(env, HostEnv):
            env.close()


def _one_after_the_other(parts: list[Recorded]) -> Recorded:
    before = np.cumsum([0, *(len(part.reward) for part in parts[:-1])])
    columns = {name: [getattr(part, name) for part in parts] for name in Recorded._fields}
    columns["begins"] = [part.begins + shift for part, shift in zip(parts, before, strict=True)]
    known = all(part.log_prob is not None for part in parts)
    return Recorded(
        **{name: np.concatenate(some) for name, some in columns.items() if name != "log_prob"},
        log_prob=np.concatenate(columns["log_prob"]) if known else None,
    )


def _described(wanted: Wanted, columns: Recorded, made: Mapping[str, Any], references: Mapping[str, float]) -> Dataset:
    """Return the log with its card."""
    env = wanted.opened(1)
    if isinstance(env, HostEnv):
        env.close()
    spec, name = env.spec, wanted.task.split(":")[-1]
    options = {name: list(value) if isinstance(value, tuple) else value for name, value in wanted.task_options.items()}
    card = Card(
        f"{name}-{wanted.kind}", wanted.task, options, space_record(spec.observation), space_record(spec.task_action),
        len(columns.begins), len(columns.reward), spec.max_episode_steps, "", wanted.kind,
    )  # fmt: skip
    log = Dataset(replace(card, references=dict(references)), **columns._asdict())
    card = replace(
        log.card,
        digest=log.digest(),
        made={"seed": wanted.seed, **made, "versions": installed_versions()},
        returns=log.described_returns(),
        coverage=coverage_of(log),
        notes=tuple(_notes(wanted, log, made)),
    )
    return replace(log, card=card)


def _notes(wanted: Wanted, log: Dataset, made: Mapping[str, Any]) -> list[str]:
    """Return what a reader of the card should know."""
    broken = int(log.is_broken_off(log.ends - 1).sum())
    notes = []
    references, policies = log.card.references, made.get("policies", [])
    if "medium" in wanted.kind and policies:
        way = (policies[0]["return"] - references["random"]) / (references["expert"] - references["random"])
        if way > LATE_MEDIUM:
            notes.append(
                f"The medium policy has come {way:.0%} of the way from random actions to the last policy, because the "
                f"run kept no state nearer to {wanted.medium:.0%}."
            )
    if broken:
        notes.append(f"{broken} of {log.num_episodes} episodes were broken off where the recording ended.")
    if log.log_prob is not None:
        notes.append("log_prob is of the action in the task's own numbers.")
        if made.get("algorithm") == "sac-n" and wanted.kind != "random":
            notes.append(
                "sac-n holds its noise for several steps: log_prob is of each action alone, and the product over an "
                "episode is no density of the episode."
            )
    if not wanted.explore:
        notes.append("The policies acted without noise: there is one action in a state.")
    return notes
