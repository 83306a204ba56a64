"""Fork a run: new runs that go on from one of its iterations, with a changed option and without."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from workhorse.core.algorithm import Algorithm
from workhorse.core.digest import flatten_arrays
from workhorse.core.errors import UsageError
from workhorse.core.machine import threads_or_cores
from workhorse.core.randomness import draw, root_key
from workhorse.core.spec import EnvSpec
from workhorse.core.types import Returns
from workhorse.runs import checkpoint
from workhorse.runs.folder import RunFolder
from workhorse.runs.history import History, kept_iterations, opened
from workhorse.runs.manifest import Manifest
from workhorse.runs.schedule import Schedule, annealed_steps
from workhorse.runs.segments import save_progress
from workhorse.runs.train import plan_of
from workhorse.runs.trust import trust_run
from workhorse.training.loop import Loop, Progress, make_loop
from workhorse.training.plan import Plan

__all__ = ["Fork", "fork"]

ANNEALING = {"anneal_env_steps", "anneal_learning_rate"}


@dataclass(frozen=True)
class Fork:
    """Runs that go on from one state, in pairs of equal seeds: without the change, and with it.

    Attributes:
        unchanged, changed: run folders by seed.
    """

    unchanged: Mapping[int, RunFolder]
    changed: Mapping[int, RunFolder]


def fork(
    path: str | os.PathLike[str],
    iteration: int,
    settings: Mapping[str, Any],
    seeds: range,
    root: str | os.PathLike[str],
    *,
    env_steps: int | None = None,
    threads: int = 0,
    command: tuple[str, ...] = (),
) -> Fork:
    """Make run folders whose state is that of an iteration of a run; `resume` trains them to their end.

    Args:
        path: the run.
        iteration: where to begin; computed again where its state, or the replay that belongs to it, was not kept.
        settings: options of the algorithm to change.
        seeds: new roots of randomness from there on: a pair of runs for each, so that what is compared differs by the
            change and not by luck. The run's own seed goes on as the run did.
        root: the folder for the runs.
        env_steps: their budget, the steps before the fork included; by default the run's own.
        threads: simulation threads.
        command: the command line, for the record.

    Raises:
        UsageError: an option is unknown or out of range, it changes the shape of the state or nothing at all, the
            iteration is none of the run's, or a run of that name exists.
    """
    with opened(path, threads) as history:
        plan, manifest = plan_of(history.manifest), history.manifest
        changed_plan = replace(plan, settings={**plan.settings, **settings})
        algorithm = changed_plan.make_algorithm(history.spec)
        _check_it_matters(type(algorithm), settings)
        progress = history.to_go_on_from(iteration)
        budget = env_steps or manifest.env_steps
        _check_budget(history, progress, budget, settings)
        _check_same_shape(changed_plan, history.spec, flatten_arrays(progress), settings, threads)
        with_change = {**manifest.settings, **{name: algorithm.settings()[name] for name in settings}}
        made: dict[str, dict[int, RunFolder]] = {"unchanged": {}, "changed": {}}
        for seed in seeds:
            for word, options in (("unchanged", manifest.settings), ("changed", with_change)):
                id = f"{history.folder.id}-i{iteration}-{word}-s{seed}"
                wanted = replace(manifest, id=id, seed=seed, settings=options, env_steps=budget, command=command)
                start = progress if seed == manifest.seed else _redrawn(progress, seed)
                made[word][seed] = _begun(root, wanted) or _begin(root, wanted, history.loop, start)
    return Fork(made["unchanged"], made["changed"])


def _redrawn(progress: Progress, seed: int) -> Progress:
    """Return the progress with another root for the perturbations of a population, whose key is kept in the state.

    With a lag, nothing is learnt from the fitness that is still due: it belongs to perturbations of the root before.
    """
    state: Any = progress.state
    if "noise_key" not in getattr(state, "_fields", ()):
        return progress
    state = state._replace(noise_key=draw(root_key(seed), "noise"))
    if isinstance(pending := getattr(state, "pending", None), Returns):
        state = state._replace(pending=pending._replace(fitness=np.zeros_like(pending.fitness)))
    return progress._replace(state=state)


def _check_budget(history: History, progress: Progress, budget: int, settings: Mapping[str, Any]) -> None:
    """Raise a `UsageError` where nothing would be learnt after the fork."""
    if budget <= int(progress.env_steps):
        raise UsageError(
            f"--env-steps must be above the {int(progress.env_steps):,} steps of iteration {int(progress.iteration)}: "
            f"got {budget:,}."
        )
    annealed = annealed_steps(history.manifest.settings)
    if budget > max(annealed, history.manifest.env_steps) and annealed and not settings.keys() & ANNEALING:
        raise UsageError(
            f"{history.folder.path} lets its learning rate fall to zero at {annealed:,} steps, so that nothing would "
            f"be learnt from there to {budget:,}: --set anneal_env_steps={budget} as well, or leave --env-steps out."
        )


def _begin(root: str | os.PathLike[str], wanted: Manifest, loop: Loop, progress: Progress) -> RunFolder:
    """Make the run folder of a manifest: a checkpoint of the progress, with a copy of all segments of the loop."""
    folder = RunFolder.create(root, wanted.id, task=wanted.task, algorithm=wanted.algorithm, seed=wanted.seed)
    folder.write_manifest(wanted)
    trust_run(wanted)  # the run that it is forked from was trusted
    meta = {"meters": {}, "schedule": asdict(Schedule(evaluate_every=max(wanted.env_steps // 10, 1)))}
    save_progress(folder, loop, progress, meta)
    whole = checkpoint.saved_meta(folder, int(progress.iteration))  # it names the segments
    checkpoint.save(folder, int(progress.iteration), progress, whole, "milestones")  # checkpoints are not kept for long
    return folder


def _begun(root: str | os.PathLike[str], wanted: Manifest) -> RunFolder | None:
    """Return a fork's run that was made before, which can go on; None where there is none.

    Raises:
        UsageError: a run of that name was made otherwise.
    """
    place = Path(root) / wanted.id
    if not (place / "manifest.json").exists():
        return None
    there = RunFolder.open(place)
    found = there.manifest()
    if (found.settings, found.env_steps, found.seed) != (wanted.settings, wanted.env_steps, wanted.seed):
        raise UsageError(f"{place} is there, of a fork with other settings: move it away, or choose another --runs.")
    return there if kept_iterations(there) else None


def _check_it_matters(algorithm: type[Algorithm], settings: Iterable[str]) -> None:
    """Raise a `UsageError` where an option is one that only a new run reads."""
    idle = [name for name in settings if name in algorithm.only_at_start]
    if idle:
        raise UsageError(
            f"A fork of {algorithm.name} keeps the state that {', '.join(idle)} set at the start of the run, so "
            "nothing would differ: start a new run."
        )


def _check_same_shape(
    plan: Plan, spec: EnvSpec, given: Mapping[str, np.ndarray], settings: Iterable[str], threads: int
) -> None:
    loop = make_loop(plan, spec, threads_or_cores(threads))
    try:
        wanted = flatten_arrays(loop.start())
    finally:
        loop.close()
    for name in wanted.keys() | given.keys():
        if name not in wanted or name not in given or wanted[name].shape != given[name].shape:
            if "environment" in name and name in wanted and name in given:
                continue  # a journal's length
            raise UsageError(
                f"{', '.join(settings)} would change the shape of the state ({name}), which a fork keeps: start a new "
                "run."
            )
