"""The policy of a run as an artefact."""

from __future__ import annotations

import numpy as np

from workhorse.core.algorithm import Algorithm
from workhorse.runs.manifest import Manifest
from workhorse.runs.policy import Policy
from workhorse.training.loop import Progress
from workhorse.training.rollouts import actor_of

__all__ = ["policy_of"]


def policy_of(algorithm: Algorithm, progress: Progress, manifest: Manifest) -> Policy | None:
    """Return the artefact of the unperturbed policy; None where its parameters are not finite. What is constant in the observations has its weights set to zero."""
    actor = actor_of(algorithm, progress.state)
    network = algorithm.policy_network(actor)
    if not all(np.isfinite(leaf).all() for leaf in (*network.weights, *network.biases)):
        return None
    weights = [np.array(weight) for weight in network.weights]
    inverse_scale = np.asarray(actor.inverse_scale)
    constant = inverse_scale == 0
    weights[0][:, constant] = 0.0
    return Policy(
        weights,
        [np.asarray(bias) for bias in network.biases] or [None] * len(weights),
        action=algorithm.spec.action,
        task=algorithm.spec.task,
        activation=network.activation,
        mean=np.asarray(actor.mean),
        scale=1.0 / np.where(constant, 1.0, inverse_scale),
        observation_clip=algorithm.observation_clip,
        action_bins=getattr(algorithm, "action_bins", None),
        metadata={
            "run": manifest.id,
            "algorithm": manifest.algorithm,
            "seed": manifest.seed,
            "iteration": int(progress.iteration),
            "env_steps": int(progress.env_steps),
            "workhorse": manifest.versions.get("workhorse", ""),
        },
    )
