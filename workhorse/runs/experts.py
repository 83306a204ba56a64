"""Open the expert that a run asks: the policy of another run, a planner, or linear control."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from workhorse.algorithms import registry
from workhorse.core.algorithm import Planner
from workhorse.core.errors import UsageError
from workhorse.core.files import read_file
from workhorse.core.spec import EnvSpec
from workhorse.core.types import Linearisation
from workhorse.runs.export import artefact_of
from workhorse.runs.manifest import Manifest
from workhorse.runs.policy import Policy
from workhorse.runs.policy_files import policy_folder
from workhorse.runs.trust import require_trusted_sources
from workhorse.training.experts import MakeExpert, OpenExpert, PlanningExpert, PolicyExpert
from workhorse.training.loop import Loop, make_loop
from workhorse.training.plan import Plan
from workhorse.training.rollouts import actor_of

__all__ = ["ExpertFound", "expert_opener", "find_expert", "make_run_loop"]


class ExpertFound(NamedTuple):
    """An expert as a run's plan names it.

    Attributes:
        name: absolute path of a run or a policy folder, or the name of an algorithm.
        digest: SHA-256 of its policy; empty for an algorithm.
    """

    name: str
    digest: str


def find_expert(name: str) -> ExpertFound:
    """Return what a user named as the expert, without opening it.

    Args:
        name: path of a run or a policy folder, or an algorithm that knows the task without learning.

    Raises:
        UsageError: it is neither.
    """
    if name in registry.entries() and not Path(name).is_dir():
        kind = registry.algorithm_class(name)
        if issubclass(kind, Planner) or kind.consumes is Linearisation:
            return ExpertFound(name, "")
        raise UsageError(
            f"{name} has to learn before it can answer: train it first, by `workhorse train TASK --algorithm {name}`, "
            "and give its run as the expert. A planner, as mppi, and lqr answer without."
        )
    folder = policy_folder(Path(name))
    return ExpertFound(str(Path(name).resolve()), _digest_of(folder))


def _digest_of(folder: Path) -> str:
    hasher = hashlib.sha256()
    for file in ("policy.json", "policy.safetensors"):
        hasher.update(read_file(folder / file))
    return hasher.hexdigest()


def make_run_loop(plan: Plan, spec: EnvSpec, threads: int, manifest: Manifest | None = None) -> Loop:
    """Return the loop of a plan, which opens the expert that the plan names when learning begins.

    Args:
        plan, spec, threads: as `make_loop` takes them.
        manifest: of a run that goes on; the user must vouch for what it names. None for one that begins.
    """
    return make_loop(plan, spec, threads, expert_opener(plan, manifest))


def expert_opener(plan: Plan, manifest: Manifest | None = None) -> OpenExpert | None:
    """Return what opens a plan's expert; None where it names none."""
    if plan.sources is None or plan.sources.use != "imitate" or not plan.sources.expert:
        return None
    return partial(_opened, plan, manifest)


def _opened(plan: Plan, manifest: Manifest | None, spec: EnvSpec) -> MakeExpert:
    """Return what makes the expert in the slots of an environment."""
    assert plan.sources is not None
    if manifest is not None:
        require_trusted_sources(manifest)
    name = plan.sources.expert
    if not plan.sources.expert_digest:
        return _of_algorithm(plan, name)
    folder = policy_folder(Path(name))
    if _digest_of(folder) != plan.sources.expert_digest:
        raise UsageError(
            f"The policy in {folder} is not the expert that this run was begun with: its files do not have the digest "
            f"{plan.sources.expert_digest[:12]}. Put that policy back, or begin a new run."
        )
    policy = Policy.load(name, spec)
    return lambda env, root: PolicyExpert(policy)


def _of_algorithm(plan: Plan, name: str) -> MakeExpert:
    own = Plan(plan.task, plan.task_options, name, {}, plan.seed)
    expert = own.make_algorithm(own.spec())
    if isinstance(expert, Planner):
        return lambda env, root: PlanningExpert(expert, env, root)
    policy = _policy_of(own)
    return lambda env, root: PolicyExpert(policy)


def _policy_of(plan: Plan) -> Policy:
    """Return the policy of linear control, which one iteration of its loop computes."""
    loop = make_loop(plan, plan.spec(), 1)
    try:
        progress = loop.iterate(loop.start())[0]
        about: Mapping[str, Any] = {"algorithm": plan.algorithm, "seed": plan.seed}
        policy = artefact_of(loop.algorithm, actor_of(loop.algorithm, progress.state), about)
    finally:
        loop.close()
    if policy is None:
        raise UsageError(f"{plan.algorithm} found no finite policy for {plan.task}: choose a planner as the expert.")
    return policy
