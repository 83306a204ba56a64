"""The policies of all masks of a `masked-bc` network: fitted to a log, measured on it, and played."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from workhorse.algorithms.imitation.masked_bc import MaskedActor, MaskedBC, MaskedState
from workhorse.core.algorithm import Key
from workhorse.core.layers import PolicyNetwork
from workhorse.core.randomness import draw, root_key
from workhorse.core.spec import Discrete
from workhorse.core.types import Rollout
from workhorse.data.dataset import Dataset, LogRows
from workhorse.environments.protocol import HostEnv
from workhorse.networks.heads import task_action
from workhorse.training.interventions import all_masks
from workhorse.training.offline import as_transitions

__all__ = ["MaskedPolicies", "fitted", "play", "split_rows", "visit"]

SURE = 0.95
"""Weight of a policy's own probabilities; the rest goes to all choices equally, so that no answer rules a mask out."""

LEAST_VARIANCE = 1e-3
"""Least variance of a box's actions around a policy's, in half ranges squared: no fit is trusted beyond it."""

MOST_PAIRS = 65_536
"""States times masks that are looked at in one call, at most."""


class MaskedPolicies:
    """The policies of all masks of one fitted network: `workhorse.training.interventions.Candidates`.

    Attributes:
        algorithm: the configuration.
        state: after the fit.
        masks: all of them, float32 (M, F).
        variance: of a box's actions around the policy that sees everything, on held-out steps.
    """

    def __init__(self, algorithm: MaskedBC, state: MaskedState, held_out: LogRows) -> None:
        self.algorithm, self.state = algorithm, state
        self.masks = all_masks(len(algorithm.factor_sizes))
        self._held_out = held_out
        self.variance = max(float(self.losses(self.masks[-1:])[0]), LEAST_VARIANCE)

    def losses(self, masks: np.ndarray) -> np.ndarray:
        """Return the mean loss of each mask (M, F) on the held-out steps, (M,)."""
        return np.array([self._judged(mask)[0] for mask in masks])

    def agreements(self, masks: np.ndarray) -> np.ndarray:
        """Return the share of held-out steps on which each mask's policy acts as the log does, (M,)."""
        return np.array([self._judged(mask)[1] for mask in masks])

    def _judged(self, mask: np.ndarray) -> tuple[float, float]:
        rows = self._held_out
        loss, right = _losses(self.algorithm, self.state, rows.obs, rows.action, jnp.asarray(mask, jnp.float32))
        return float(loss), float(right)

    def act(self, obs: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Return actions in the task's own numbers, (B, ...), of observations (B, ...), each under its mask (B, F)."""
        return np.asarray(_acted(self.algorithm, self.state, jnp.asarray(obs, jnp.float32), jnp.asarray(masks)))

    def layers(self, mask: np.ndarray) -> PolicyNetwork:
        """Return the policy of a mask as the layers of an artefact, the mask folded into its weights."""
        actor = self.algorithm.actor(self.state)
        return self.algorithm.policy_layers(actor._replace(mask=jnp.asarray(mask, jnp.float32)))

    # --- Candidates ---

    def log_likelihood(self, obs: np.ndarray, action: np.ndarray) -> np.ndarray:
        """Return log p(action | obs) by each mask, (K, M): of a box a normal density's, but for a constant."""
        told = self._told(obs)
        if isinstance(self.algorithm.spec.action, Discrete):
            return np.log(told[np.arange(len(obs)), :, np.asarray(action, np.int64)])
        own = _own_numbers(self.algorithm, np.asarray(action, np.float64).reshape(len(obs), -1))
        return -np.square(told - own[:, None]).sum(-1) / (2 * self.variance)

    def disagreement(self, obs: np.ndarray, chances: np.ndarray) -> np.ndarray:
        """Return the mean divergence of the masks' policies from their mixture, (K,).

        Of choices it is sum_G p(G) KL(pi_G || mixture); of a box the variance of the means.
        """
        kept = np.linspace(0, len(obs) - 1, min(len(obs), max(MOST_PAIRS // len(self.masks), 1))).astype(int)
        told = self._told(obs[kept])
        mixture = np.einsum("m,kma->ka", chances, told)[:, None]
        if isinstance(self.algorithm.spec.action, Discrete):
            divergence = (told * (np.log(told) - np.log(mixture))).sum(-1)
        else:
            divergence = np.square(told - mixture).sum(-1)
        found = np.full(len(obs), -1.0)
        found[kept] = divergence @ chances
        return found

    def _told(self, obs: np.ndarray) -> np.ndarray:
        """Return probabilities of choices, or means in the algorithm's own numbers, (K, M, A)."""
        output = np.asarray(_outputs(self.algorithm, self.state, jnp.asarray(obs, jnp.float32), self.masks), np.float64)
        if not isinstance(self.algorithm.spec.action, Discrete):
            return np.tanh(output)
        grown = np.exp(output - output.max(-1, keepdims=True))
        return SURE * grown / grown.sum(-1, keepdims=True) + (1 - SURE) / output.shape[-1]


def split_rows(algorithm: MaskedBC, log: Dataset, held_out: np.ndarray) -> tuple[LogRows, LogRows]:
    """Return the rows of a log that are learnt from, and those of the episodes (numbers) that are held out."""
    kept = np.ones(log.num_steps, bool)
    for begin, end in zip(log.begins[held_out], log.ends[held_out], strict=True):
        kept[begin:end] = False
    learnt, rest = (
        log.rows(np.flatnonzero(chosen), n_steps=1, discount=float(algorithm.discount), spec=algorithm.spec)
        for chosen in (kept, ~kept)
    )
    return learnt, rest


def fitted(
    algorithm: MaskedBC, rows: LogRows, held_out: LogRows, updates: int, seed: int, mask: np.ndarray | None = None
) -> MaskedPolicies:
    """Return the policies after some updates on rows of a log.

    With equal seeds and rows it is what `workhorse offline` trains, to the bit.

    Args:
        algorithm: the configuration.
        rows: what is learnt from.
        held_out: what the policies are measured on.
        updates: how many.
        seed: of the weights and the batches.
        mask: the most that a sample shows, (F,); by default that of the algorithm.
    """
    root, total = root_key(seed), len(rows.reward)
    state = _observed(algorithm, _begun(algorithm, root), rows)
    if mask is not None:  # not as an option, for which a program would be compiled anew
        state = state._replace(mask=jnp.asarray(mask, jnp.float32))
    filled = np.arange(max(1 << (total - 1).bit_length(), 1024)) % total  # few sizes: each is a program of its own
    state = _trained(algorithm, state, jax.tree.map(lambda column: column[filled], rows), updates, root, total)
    return MaskedPolicies(algorithm, state, held_out)


def play(policies: MaskedPolicies, env: HostEnv, masks: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return the returns (B,) of one episode in each slot, under the masks (B, F), from the episodes' keys."""
    returns, _ = _played(policies, env, masks, keys, False)
    return returns


def visit(policies: MaskedPolicies, env: HostEnv, mask: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return the observations (T, ...) of one episode under a mask, in an environment of one slot."""
    return np.array(_played(policies, env, mask[None], keys, True)[1])


def _played(
    policies: MaskedPolicies, env: HostEnv, masks: np.ndarray, keys: np.ndarray, kept: bool
) -> tuple[np.ndarray, list[np.ndarray]]:
    obs = env.reset(keys)
    living, returns, seen = np.arange(env.num_slots), np.zeros(env.num_slots), []
    while len(living):
        if kept:
            seen.append(obs[0])
        step = env.step(policies.act(obs, masks)[living], living)
        returns[living] += step.reward
        obs = np.array(obs)  # one shape for any number of living slots: each would be a program of its own
        obs[living] = step.next_obs
        living = living[~(step.terminated | step.truncated)]
    return returns, seen


def _own_numbers(algorithm: MaskedBC, action: np.ndarray) -> np.ndarray:
    """Return actions of a box in [-1, 1]."""
    spec = algorithm.spec
    if spec.unscaled is None:
        return action
    middle, half = (part.reshape(-1).astype(np.float64) for part in spec.unscaled.middle_and_half())
    return np.clip((action - middle) / half, -1.0, 1.0)


@jax.jit
def _begun(algorithm: MaskedBC, root: Key) -> MaskedState:
    return algorithm.init(draw(root, "init"))


@jax.jit
def _observed(algorithm: MaskedBC, state: MaskedState, rows: LogRows) -> MaskedState:
    one = jax.tree.map(lambda column: column[:, None], rows)
    steps = Rollout(one.obs, one.action, one.reward, one.terminated, one.truncated, one.next_obs, ())
    return algorithm.observe(state, steps)


@partial(jax.jit, static_argnums=3)
def _trained(
    algorithm: MaskedBC, state: MaskedState, rows: LogRows, updates: int, root: Key, total: Any
) -> MaskedState:
    """Do some updates on the first `total` rows."""

    def update(state: MaskedState, number: Array) -> tuple[MaskedState, tuple[()]]:
        index = jax.random.randint(draw(root, "replay", number), (algorithm.batch_size,), 0, total)
        batch = as_transitions(jax.tree.map(lambda column: column[index], rows), total)
        return algorithm.learn(state, batch, draw(root, "update", number))[0], ()

    return jax.lax.scan(update, state, jnp.arange(updates, dtype=jnp.uint32))[0]


@jax.jit
def _losses(algorithm: MaskedBC, state: MaskedState, obs: Array, action: Array, mask: Array) -> Any:
    scaling = algorithm.scaling(state.observations)
    loss = jax.vmap(lambda one, taken: algorithm.loss(state.average, algorithm.seen(scaling, one), mask, taken))
    each, right = loss(obs, action)
    return each.mean(), right.mean()


@jax.jit
def _acted(algorithm: MaskedBC, state: MaskedState, obs: Array, masks: Array) -> Array:
    actor: MaskedActor = algorithm.actor(state)

    def one(obs: Array, mask: Array) -> Array:
        action, _, _ = algorithm.act(actor._replace(mask=mask), (), obs, jax.random.key(0), explore=False)
        return task_action(algorithm.spec, action)

    return jax.vmap(one)(obs, masks)


@jax.jit
def _outputs(algorithm: MaskedBC, state: MaskedState, obs: Array, masks: Array) -> Array:
    scaling = algorithm.scaling(state.observations)

    def one(obs: Array, mask: Array) -> Array:
        return algorithm.output(state.average, algorithm.seen(scaling, obs), mask)

    return jax.vmap(lambda obs: jax.vmap(partial(one, obs))(masks))(obs)
