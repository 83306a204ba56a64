"""Examine demonstrations for causal confusion, keep what was found and the policy that was chosen, and write a page."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workhorse.algorithms import registry as algorithms
from workhorse.algorithms.imitation.masked_bc import MaskedBC
from workhorse.api.tasks import check_task
from workhorse.core.errors import UsageError
from workhorse.core.files import write_file, writing
from workhorse.core.shown_action import OPTION, action_bounds
from workhorse.core.spec import EnvSpec
from workhorse.data.dataset import Dataset
from workhorse.data.nuisance import with_previous_action
from workhorse.data.opening import check_fits, check_learnable, open_dataset
from workhorse.diagnostics.confusion import Confusion, study_confusion
from workhorse.environments import registry
from workhorse.environments.batch import as_batch
from workhorse.environments.protocol import HostEnv
from workhorse.runs.policy import Policy

__all__ = ["Examined", "diagnose_confusion"]

HIDDEN, BATCH = (64, 64), 64
"""Layers and batches of the fits, small enough for a diagnosis of seconds."""


class Examined(NamedTuple):
    """What was found, the policy of the mask that was chosen, and the folder that holds both and a page."""

    confusion: Confusion
    policy: Policy
    folder: Path


def diagnose_confusion(
    log: str | os.PathLike[str] | Dataset,
    *,
    evaluate_on: str | None = None,
    task_options: Mapping[str, Any] | None = None,
    expert: str | os.PathLike[str] | Callable[[np.ndarray], np.ndarray] | None = None,
    interventions: int = 20,
    episodes: int = 16,
    updates: int = 10_000,
    factors: Sequence[int] = (),
    seed: int = 0,
    threads: int = 1,
    out: str | os.PathLike[str] | None = None,
    told: Callable[[str], None] = lambda sentence: None,
) -> Examined:
    """Say whether imitation of these demonstrations is confused by the previous action, and find what to look at.

    The same as `workhorse diagnose LOG --only confusion`.

    Args:
        log: path of a log in any format, or the log. The previous action is appended where it is not shown already.
        evaluate_on: the task, to measure what each factor costs there and to intervene; by default neither is done.
        task_options: of the task; by default those of the log.
        expert: a run or policy folder, or a function from observations to actions in the task's own numbers, to be
            asked `interventions` questions; its observations may lack the previous action.
        interventions: episodes under drawn masks, and questions to the expert.
        episodes: that each policy is judged by.
        updates: of each fit.
        factors: sizes of the factors, as in `masked-bc`.
        seed: of everything.
        threads: simulation threads.
        out: folder for the result; by default the log's path with -confusion after it.
        told: is told what is done.

    Raises:
        UsageError: something given cannot be used.
    """
    whole = {"interventions": interventions, "episodes": episodes, "updates": updates}
    for name, least in (("interventions", 0), ("episodes", 2), ("updates", 1)):
        if whole[name] < least:
            raise UsageError(f"{name} must be at least {least}: got {whole[name]}.")
    if evaluate_on is not None:
        check_task(evaluate_on)
    elif task_options or expert is not None:
        raise UsageError("Options of the task and an expert have no effect without the task: name it as evaluate_on.")
    found = log if isinstance(log, Dataset) else open_dataset(log)
    check_learnable(found)
    shown = found if found.card.task_options.get(OPTION) else with_previous_action(found)
    make = None
    if evaluate_on is not None:
        make = _maker(evaluate_on, {**(task_options or found.card.task_options), OPTION: _kind(shown)}, threads)
    spec = _spec(shown, make)
    settings = {"hidden": HIDDEN, "batch_size": BATCH, "factors": tuple(factors)}
    algorithm = algorithms.make("masked-bc", spec, settings)
    assert isinstance(algorithm, MaskedBC)
    confusion, layers = study_confusion(
        algorithm, shown, updates=updates, make=make, expert=_answers(expert, spec), interventions=interventions,
        episodes=episodes, seed=seed, told=told,
    )  # fmt: skip
    policy = Policy(
        layers, observation=spec.observation, action=spec.task_action, task=spec.task,
        observation_format=spec.observation_format, action_format=spec.action_format,
        metadata={"algorithm": "masked-bc", "log": confusion.log, "mask": list(confusion.mask), "seed": seed},
    )  # fmt: skip
    folder = Path(out) if out is not None else _beside(log)
    _write(confusion, policy, folder)
    return Examined(confusion, policy, folder)


def _kind(log: Dataset) -> Any:
    return log.card.task_options[OPTION]


def _maker(task: str, options: Mapping[str, Any], threads: int) -> Callable[[int], HostEnv]:
    return lambda slots: as_batch(registry.make(task, slots, threads, **options), slots)


def _spec(log: Dataset, make: Callable[[int], HostEnv] | None) -> EnvSpec:
    """Return the task's spec, from an environment that is closed again; the log's where there is none."""
    if make is None:
        return log.spec()
    env = make(1)
    env.close()
    check_fits(log, env.spec)
    return env.spec


def _answers(
    expert: str | os.PathLike[str] | Callable[[np.ndarray], np.ndarray] | None, spec: EnvSpec
) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return what answers observations that end with the previous action."""
    own = spec.observation.size - action_bounds(spec.task_action).size
    if expert is None:
        return None
    if not isinstance(expert, str | os.PathLike):
        answer = expert
        return lambda obs: answer(obs[:, :own])
    policy = Policy.load(expert)
    if policy.observation.size not in (own, spec.observation.size):
        raise UsageError(
            f"Expected an expert that observes the {own} components of {spec.task}, but the policy in {expert} "
            f"observes {policy.observation.size}: name a run on that task."
        )
    size = policy.observation.size
    return lambda obs: policy.choose(obs[:, :size])[0]


def _beside(log: str | os.PathLike[str] | Dataset) -> Path:
    if isinstance(log, Dataset):
        return Path(f"{log.card.name}-confusion")
    place = Path(log)
    return place.with_name(f"{place.stem if place.is_file() else place.name}-confusion")


def _write(confusion: Confusion, policy: Policy, folder: Path) -> None:
    from workhorse.reports.confusion_page import write_confusion_page

    record = asdict(confusion) | {"drop": confusion.drop, "recovered": confusion.recovered}
    with writing("what was found", folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / "confusion.json", json.dumps(record, indent=2, allow_nan=False).encode())
    policy.save(folder / "policy")
    write_confusion_page(record, folder)
