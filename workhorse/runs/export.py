"""From the state of a run to its policy artefact."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from workhorse.core.algorithm import Actor, Algorithm
from workhorse.core.layers import Mode, PolicyNetwork, Stretch
from workhorse.runs.layer_checks import ARRAYS
from workhorse.runs.manifest import Manifest
from workhorse.runs.policy import Policy

__all__ = ["artefact_of", "is_finite", "policy_of"]


def is_finite(layers: PolicyNetwork) -> bool:
    """Tell whether every number in the layers is finite, as they are until training diverges."""
    arrays = (getattr(layer, name) for layer in layers for name in ARRAYS[type(layer)])
    return all(np.isfinite(array).all() for array in arrays if array is not None)


def policy_of(algorithm: Algorithm, actor: Actor, manifest: Manifest, iteration: int, env_steps: int) -> Policy | None:
    """Return the artefact of a run's noiseless policy; None where its numbers are no longer finite."""
    about = {
        "run": manifest.id,
        "algorithm": manifest.algorithm,
        "seed": manifest.seed,
        "iteration": iteration,
        "env_steps": env_steps,
        "workhorse": manifest.versions.get("workhorse", ""),
    }
    return artefact_of(algorithm, actor, about)


def artefact_of(algorithm: Algorithm, actor: Actor, about: Mapping[str, Any]) -> Policy | None:
    """Return the artefact of a noiseless policy with what is said `about` it; None where it is not finite."""
    layers, spec = algorithm.policy_layers(actor), algorithm.spec
    if spec.unscaled is not None and isinstance(layers[-1], Mode):
        layers = (*layers[:-1], Stretch(layers[-1].log_std))  # other heads fill the bounds they are given
    if not is_finite(layers):
        return None
    return Policy(
        layers,
        observation=spec.observation,
        action=spec.task_action,
        observation_format=spec.observation_format,
        action_format=spec.action_format,
        task=spec.task,
        metadata=dict(about),
    )
