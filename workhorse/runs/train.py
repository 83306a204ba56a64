"""Training runs: begin one, go on with one, evaluate one.

`start` and `resume` are one code path: a run that begins saves its state first and goes on from there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from numbers import Integral
from typing import Any

from workhorse.algorithms.recipes import Recipe
from workhorse.core.algorithm import State
from workhorse.core.errors import UsageError
from workhorse.core.machine import describe_hardware, installed_versions, threads_or_cores
from workhorse.core.records import build
from workhorse.environments.wrappers import require_time_limit
from workhorse.runs import checkpoint
from workhorse.runs.budget import check_warmup
from workhorse.runs.experts import make_run_loop
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import Manifest
from workhorse.runs.run import Meters, Observer, StopTraining, Summary, TrainingRun, interval_of, record_evaluation
from workhorse.runs.schedule import Schedule, check_annealing, check_budget
from workhorse.runs.segments import load_progress, save_progress
from workhorse.runs.task_errors import task_errors_kept
from workhorse.runs.trust import require_trusted_run, require_trusted_sources, trust_run
from workhorse.statistics.intervals import Interval
from workhorse.training.loop import Evaluation, Loop, MakeLoop, Progress
from workhorse.training.plan import Plan
from workhorse.training.sources import Sources

__all__ = ["Observer", "Schedule", "StopTraining", "Summary", "evaluate_run", "plan_of", "resume", "start"]


def start(
    *,
    task: str,
    algorithm: str,
    settings: Mapping[str, Any],
    env_steps: int,
    seed: int = 0,
    task_options: Mapping[str, Any] | None = None,
    slots: int | None = None,
    threads: int = 0,
    schedule: Schedule | None = None,
    root: str | os.PathLike[str] = "runs",
    id: str | None = None,
    recipe: Recipe | None = None,
    command: tuple[str, ...] = (),
    observer: Observer | None = None,
    make: MakeLoop | None = None,
    sources: Sources | None = None,
) -> tuple[RunFolder, Summary]:
    """Train a policy in a new run folder, to the end of the budget.

    Args:
        task: a task's id (`workhorse tasks`).
        algorithm: an algorithm's name (`workhorse algorithms`).
        settings: options of the algorithm that differ from its defaults.
        env_steps: training steps after which no further iteration begins.
        seed: the run's root seed, in [0, 2**32).
        task_options: options of the task, by Gymnasium's names.
        slots: episodes side by side, part of the result's bits; by default what the population needs, at most 64.
        threads: simulation threads, not part of the result; 0 for one a core.
        schedule: how often to evaluate and save.
        root: the folder that holds the runs.
        id: the run's name; by default task, algorithm, seed and time.
        recipe: where the settings come from, for the record.
        command: the command line, for the record.
        observer: is told what happens.
        make: makes the loop: of this process by default, of a group of runs that share programs, or of a cluster.
        sources: what is learnt from beside the run's own experience; with a log alone, `env_steps` are updates.

    Returns:
        The run's folder and its summary.

    Raises:
        UsageError: something given cannot be used; nothing was written unless training had begun.
        KeyboardInterrupt: on Ctrl-C or SIGTERM, after a checkpoint was written.
    """
    threads = threads_or_cores(threads)
    plan = _checked_plan(task, task_options or {}, algorithm, settings, seed, slots, env_steps, sources)
    schedule = schedule or Schedule()
    schedule.check()
    spec = plan.spec()
    if sources is None or sources.evaluate:
        require_time_limit(spec)
    loop = (make or make_run_loop)(plan, spec, threads)
    try:
        if sources is None or sources.use != "offline":
            check_warmup(loop.algorithm, env_steps)
        loop.prepare()
        folder = RunFolder.create(root, id, task=task.split(":")[-1], algorithm=algorithm, seed=seed)
        manifest = _described(folder.id, plan, loop, env_steps, threads, recipe, command)
        folder.write_manifest(manifest)
        trust_run(manifest)
        with folder.lock(), task_errors_kept(folder):
            progress = _saved_start(folder, loop, schedule, plan)
            run = TrainingRun(folder, manifest, loop, threads, progress, Meters(), schedule, observer or Observer())
            return folder, run.to_the_end(env_steps, resumed=False)
    finally:
        loop.close()


def _saved_start(folder: RunFolder, loop: Loop, schedule: Schedule, plan: Plan) -> Progress:
    """Return the progress before the first iteration, saved: what follows is the code path of a resume."""
    progress, meta = loop.start(), {"meters": asdict(Meters()), "schedule": asdict(schedule)}
    if plan.sources is not None and plan.sources.begun_from:
        progress = progress._replace(state=_state_of(plan.sources.begun_from, plan.algorithm, progress.state))
    save_progress(folder, loop, progress, meta)
    if schedule.milestones:
        checkpoint.save(folder, 0, progress, meta, "milestones")
    return progress


def _state_of(path: str, algorithm: str, state: State) -> State:
    """Return the newest state of another run, which is like `state`.

    Raises:
        UsageError: it is a run of another algorithm, or its state has other arrays.
    """
    folder = RunFolder.open(path)
    other = folder.manifest().algorithm
    if other != algorithm:
        raise UsageError(f"Expected a run of {algorithm} to begin from in {path}, got one of {other}.")
    try:
        return checkpoint.load_newest(folder, {"state": state}, set_aside=False, part="state")[1]["state"]
    except UsageError as error:
        raise UsageError(
            f"The state of {path} is not like that of this run: begin with the same task and options. {error}"
        ) from error


def _checked_plan(
    task: str,
    task_options: Mapping[str, Any],
    algorithm: str,
    settings: Mapping[str, Any],
    seed: int,
    slots: int | None,
    env_steps: int,
    sources: Sources | None,
) -> Plan:
    """Return the plan of a new run, its numbers checked."""
    for name, number in (("seed", seed), ("env_steps", env_steps)):
        if not isinstance(number, Integral):
            raise UsageError(f"{name} must be a whole number: got {number!r}.")
    if not 0 <= seed < 2**32:
        raise UsageError(f"The seed must be in [0, 2**32): got {seed}.")
    check_budget(env_steps)
    if slots is not None and slots < 1:
        raise UsageError(f"The number of slots must be at least 1: got {slots}.")
    return Plan(task, dict(task_options), algorithm, settings, seed, slots, sources).with_budget(env_steps)


def _described(
    id: str, plan: Plan, loop: Loop, env_steps: int, threads: int, recipe: Recipe | None, command: tuple[str, ...]
) -> Manifest:
    """Return the manifest of a new run."""
    return Manifest.describe(
        id=id,
        command=command,
        task=plan.task,
        task_options=plan.task_options,
        algorithm=plan.algorithm,
        settings=loop.algorithm.settings(),
        recipe=recipe.name if recipe else None,
        recipe_source=recipe.source if recipe else None,
        seed=plan.seed,
        env_steps=env_steps,
        slots=loop.num_slots,
        threads=0 if loop.is_distributed else threads,
        sources=plan.sources,
    )


def resume(
    path: str | os.PathLike[str],
    *,
    env_steps: int | None = None,
    threads: int = 0,
    observer: Observer | None = None,
    make: MakeLoop | None = None,
) -> tuple[RunFolder, Summary]:
    """Go on with a run from its newest whole checkpoint: the same bits as if it had never stopped.

    Args:
        path: the run folder.
        env_steps: a new budget; by default the run's own.
        threads: simulation threads; may differ from before without changing the result.
        observer: is told what happens.
        make: as in `start`; a run begun on one process may go on on a cluster and the other way round.

    Raises:
        UsageError: the folder is no run, another process trains in it, or no checkpoint of it is whole.
    """
    observer = observer or Observer()
    folder = RunFolder.open(path)
    manifest = folder.manifest()
    if env_steps is not None:
        check_budget(env_steps)
        check_annealing(folder, manifest, env_steps)
    threads = threads_or_cores(threads)
    with folder.lock(), task_errors_kept(folder):
        loop = _opened_loop(plan_of(manifest), threads, make or partial(make_run_loop, manifest=manifest))
        try:
            if env_steps is not None and (manifest.sources is None or manifest.sources.use != "offline"):
                check_warmup(loop.algorithm, env_steps)
            require_trusted_sources(manifest)
            loop.prepare()
            _, progress, meta, notes = load_progress(folder, loop)
            for sentence in [*notes, *_notes_on_bits(manifest)]:
                observer.noted(sentence)
            meters, schedule = _as_saved(folder, meta)
            status = folder.status(observer.noted)
            if status is not None and status.state == "finished" and schedule.stop_at_return is not None:
                schedule = replace(schedule, stop_at_return=None)  # it has had its effect, and is to have none again
                checkpoint.save(folder, int(progress.iteration), progress, meta | {"schedule": asdict(schedule)})
            run = TrainingRun(folder, manifest, loop, threads, progress, meters, schedule, observer)
            return folder, run.to_the_end(env_steps or manifest.env_steps, resumed=True)
        finally:
            loop.close()


def evaluate_run(
    path: str | os.PathLike[str],
    *,
    episodes: int = 100,
    seed: int | None = None,
    threads: int = 0,
    stochastic: bool = False,
    noted: Callable[[str], None] = lambda sentence: None,
) -> tuple[RunFolder, Evaluation, Interval]:
    """Episodes of a run's policy, from its newest whole checkpoint, on the raw reward, without noise.

    Args:
        path: the run folder.
        episodes: how many.
        seed: root of the initial states; by default the run's own seed.
        threads: simulation threads.
        stochastic: draw actions from the policy's distribution, from addresses of their own, instead of taking the
            likeliest; the initial states are the same.
        noted: is told what a user should know: of a damaged checkpoint that was passed over, or of a run folder that
            cannot be written, so that the result is not kept there.

    Raises:
        UsageError: the folder is no run, no checkpoint of it is whole, or the policy has no randomness to draw from.
    """
    if episodes < 1:
        raise UsageError(f"The number of episodes must be at least 1: got {episodes}.")
    folder = RunFolder.open(path)
    manifest = folder.manifest()
    root = manifest.seed if seed is None else seed
    if not 0 <= root < 2**32:
        raise UsageError(f"The seed must be in [0, 2**32): got {root}.")
    loop = _opened_loop(replace(plan_of(manifest), seed=root), threads_or_cores(threads), None)
    try:
        # without the segments, which only learning needs
        iteration, progress, _, notes = checkpoint.load_newest(folder, loop.start(), set_aside=False)
        for sentence in notes:
            noted(sentence)
        with task_errors_kept(folder, trains=False):
            found = (loop.sample if stochastic else loop.evaluate)(progress, episodes)
    finally:
        loop.close()
    interval, kind = interval_of(found.returns, manifest), "-stochastic" if stochastic else ""
    try:
        name = f"{iteration}-seed{root}-{episodes}{kind}.json"
        record_evaluation(folder, name, iteration, found, interval, stochastic)
    except UsageError as error:  # a colleague's run may be read by everybody, and written by none
        noted(f"The evaluation is not kept in the run folder. {error}")
    return folder, found, interval


def _as_saved(folder: RunFolder, meta: Mapping[str, Any]) -> tuple[Meters, Schedule]:
    """Return the counters and the schedule of a checkpoint; older ones lack fields, which have their defaults."""
    where, made = f"the checkpoint in {folder.path}", []
    for kind, name in ((Meters, "meters"), (Schedule, "schedule")):
        defaults, saved = asdict(kind()), meta.get(name)
        made.append(build(kind, {**defaults, **saved} if isinstance(saved, dict) else {}, f"{where}, `{name}`"))
    return made[0], made[1]


def _opened_loop(plan: Plan, threads: int, make: MakeLoop | None) -> Loop:
    return (make or make_run_loop)(plan, plan.spec(), threads)


def plan_of(manifest: Manifest) -> Plan:
    """Return the plan that a run was made of.

    Runs from before the option `rescale_actions` acted in the task's own numbers, and go on so.

    Raises:
        UsageError: it would run code that the run names, and nobody vouches for it, see `runs.trust`.
    """
    require_trusted_run(manifest)
    return Plan(
        manifest.task,
        manifest.task_options,
        manifest.algorithm,
        {"rescale_actions": False, **manifest.settings},
        manifest.seed,
        manifest.slots,
        manifest.sources,
    )


def _notes_on_bits(manifest: Manifest) -> list[str]:
    """Say what is not as it was when the run began, of what its bits depend on: versions and instruction sets."""
    now, notes = installed_versions(), []
    changed = [
        f"{name} {then} -> {now[name]}" for name, then in manifest.versions.items() if now.get(name, then) != then
    ]
    if changed:
        notes.append(f"Versions changed since the run began ({', '.join(changed)}): its bits may differ from here on.")
    apart = set(describe_hardware().instruction_sets) ^ set(manifest.hardware.instruction_sets)
    if apart:
        notes.append(
            f"The run began on another kind of processor ({', '.join(sorted(apart))} on one side only): its bits may "
            "differ from here on."
        )
    return notes
