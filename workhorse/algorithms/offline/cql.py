"""Conservative Q-learning: SAC whose values are pushed down on all actions and up on those of the log."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from workhorse.algorithms.actor_critic.sac import LOG_STD, SAC, values
from workhorse.algorithms.offline.log_learner import LogLearner
from workhorse.algorithms.replay_learner import ADAM, adam_step, moved_towards, where_due
from workhorse.core.algorithm import Key, Metrics, State
from workhorse.core.configuration import configuration
from workhorse.core.ranges import require_non_negative, require_positive
from workhorse.core.types import Moments, Transitions
from workhorse.math.distributions import TanhGaussian
from workhorse.networks.mlp import MLP

__all__ = ["CQL", "Sampled"]

HIGHEST_LOG_MULTIPLIER = 13.8
"""Bound of the learnt multiplier's logarithm: a million."""


class CQLState(NamedTuple):
    """The whole state: that of SAC, and a multiplier.

    Attributes:
        policy, critics, targets, log_temperature, optimisers: see `SACState`.
        log_multiplier: logarithm of what multiplies the weight of the penalty; 0 where it is not learnt.
        multiplier_memory: of Adam.
        observations, env_steps, updates: see `ReplayLearner`.
    """

    policy: MLP
    critics: tuple[MLP, MLP]
    targets: tuple[MLP, MLP]
    log_temperature: Float[Array, ""]
    optimisers: tuple[Any, Any, Any]
    log_multiplier: Float[Array, ""]
    multiplier_memory: Any
    observations: Moments
    env_steps: Int[Array, ""]
    updates: Int[Array, ""]


class Sampled(NamedTuple):
    """Actions at which values are pushed down, M for each observation.

    Attributes:
        action: in [-1, 1], (N, M, A).
        log_density: of what each was drawn from, (N, M).
        is_policy: it was drawn from the policy, and not uniformly, (M,).
    """

    action: Float[Array, "N M A"]
    log_density: Float[Array, "N M"]
    is_policy: Bool[np.ndarray, "M"]


@configuration
class CQL(LogLearner, SAC):
    """SAC whose critics are also pushed down on sampled actions and up on the action of the log.

        y = r + gamma (1 - terminated) min_i Q'_i(s', a'),   a' ~ pi(.|s')
        critics:  mean (Q_i(s, a) - y)^2 + w mean (L_i(s) - Q_i(s, a)),   summed over i
        L_i(s)   = log( 1/M sum_m exp(Q_i(s, a_m)) / p(a_m) ),   about log of the integral of exp Q_i(s, .) over actions

    A third of the M actions is uniform in [-1, 1], a third is drawn from pi(.|s), a third from pi(.|s'); p is the
    density of what each was drawn from. Policy and temperature are those of SAC. With `target_gap` tau, w is
    multiplied by a factor that rises while L_i - Q_i is above tau and falls below.

    Source: Kumar et al. 2020, "Conservative Q-learning for offline reinforcement learning" (arXiv 2006.04779), CQL(H),
    without the entropy in the target, as in the code published with it. There L_i is a sum and not a mean over the
    actions, which changes no gradient; a gap there is log M greater than here. There all rows of a batch are penalised;
    here some of them, which is the same in expectation and a third of the work.
    """

    name = "cql"
    summary = "SAC with values pushed down outside of a log"

    conservative_weight: float = 10.0
    """Weight w of the penalty on values of actions that are not the log's."""
    num_actions: int = 10
    """Actions that are drawn from each of the three sources for a row of the penalty."""
    penalty_rows: int = 64
    """Most rows of a batch, evenly spread over it, that the penalty is computed on."""
    target_gap: float | None = None
    """Gap tau, in scaled rewards, by which the multiplier of the weight is steered; None for no multiplier."""
    entropy_backup: bool = False
    """Count the entropy of the successor's action in the target, as SAC does."""
    policy_rate_share: float = 0.3
    """Step size of the policy and the temperature, as a share of `learning_rate`."""

    def validate(self) -> None:
        super().validate()
        require_non_negative("CQL", conservative_weight=self.conservative_weight)
        require_positive("CQL", num_actions=self.num_actions, penalty_rows=self.penalty_rows)
        require_positive("CQL", policy_rate_share=self.policy_rate_share)

    @property
    def policy_rate(self) -> Float[Array, ""]:
        return jnp.asarray(self.policy_rate_share, jnp.float32) * jnp.asarray(self.learning_rate, jnp.float32)

    @property
    def penalty_stride(self) -> int:
        """Each of this many rows of a batch takes part in the penalty."""
        return -(-self.batch_size // self.penalty_rows)

    def init(self, key: Key) -> CQLState:
        begun, zero = SAC.init(self, key)._asdict(), jnp.zeros((), jnp.float32)
        return CQLState(**begun, log_multiplier=zero, multiplier_memory=ADAM.init(zero))

    # --- learning ---

    def learn(self, state: State, experience: Transitions, key: Key) -> tuple[State, Float[Array, "N"], Metrics]:
        """Do one update of everything on a batch."""
        obs, next_obs = self.both_seen(state, experience)
        next_key, policy_key = jax.random.split(key)
        target = self.target(state, experience, next_obs, next_key)
        stride = self.penalty_stride
        sampled = self.sampled(state, obs[::stride], next_obs[::stride], jax.random.fold_in(key, 2))
        state, error, metrics = self._conservative_critics(state, experience, obs, target, sampled)
        state, of_policy = where_due(
            state, state.updates, self.policy_every, lambda state: self._policy(state, obs, policy_key)
        )
        state = state._replace(targets=moved_towards(state.targets, state.critics, self.target_rate))
        return state, error, metrics | of_policy | {"temperature": jnp.exp(state.log_temperature)}

    def target(self, state: State, experience: Transitions, next_obs: Array, key: Key) -> Float[Array, "N"]:
        if self.entropy_backup:
            return super().target(state, experience, next_obs, key)
        silent = state._replace(log_temperature=jnp.float32(-jnp.inf))
        return super().target(silent, experience, next_obs, key)

    def entropy_bonus(self, state: State, obs: Array, key: Key) -> Float[Array, ""]:
        return super().entropy_bonus(state, obs, key) if self.entropy_backup else jnp.zeros((), jnp.float32)

    def sampled(self, state: State, obs: Float[Array, "N D"], next_obs: Float[Array, "N D"], key: Key) -> Sampled:
        """Draw actions from three sources, with the log densities of each."""
        count, (rows, size) = self.num_actions, (len(obs), self.action_size)
        uniform_key, *keys = jax.random.split(key, 3)
        uniform = jax.random.uniform(uniform_key, (rows, count, size), jnp.float32, -1.0, 1.0)
        drawn = [self._of_policy(state.policy, seen, one) for seen, one in zip((obs, next_obs), keys, strict=True)]
        flat = jnp.full((rows, count), -size * np.log(2), jnp.float32)
        action = jnp.concatenate([uniform, *(one for one, _ in drawn)], axis=1)
        log_density = jnp.concatenate([flat, *(one for _, one in drawn)], axis=1)
        return Sampled(action, log_density, np.repeat([False, True, True], count))

    def _of_policy(self, policy: MLP, obs: Float[Array, "N D"], key: Key) -> tuple[Array, Array]:
        """Draw `num_actions` actions of the policy for each observation, with their log densities."""
        noise = jax.random.normal(key, (len(obs), self.num_actions, self.action_size), jnp.float32)

        def of_one(outputs: Array, noise: Array) -> tuple[Array, Array]:
            return jax.vmap(TanhGaussian.bounded(outputs, *LOG_STD).at)(noise)

        return jax.vmap(of_one)(jax.vmap(policy)(obs), noise)

    def pushed(self, value: Float[Array, "N M"], sampled: Sampled, experience: Transitions) -> Float[Array, "N M"]:
        """Return the values of sampled actions as the penalty reads them."""
        return value

    def gap(
        self, value: Float[Array, "N"], of_sampled: Float[Array, "N M"], sampled: Sampled, experience: Transitions
    ) -> Float[Array, ""]:
        """Return the mean of L(s) - Q(s, a) over a batch.

        Args:
            value: Q(s, a) of the log's actions.
            of_sampled: Q(s, a_m) of the sampled ones.
        """
        weighted = self.pushed(of_sampled, sampled, experience) - sampled.log_density
        return (jax.nn.logsumexp(weighted, axis=1) - np.float32(np.log(weighted.shape[1])) - value).mean()

    def _conservative_critics(
        self, state: State, experience: Transitions, obs: Float[Array, "N D"], target: Array, sampled: Sampled
    ) -> tuple[State, Float[Array, "N"], Metrics]:
        """Return the state after a step of the critics and the multiplier, each transition's error, and metrics."""
        (rows, each, size), stride = sampled.action.shape, self.penalty_stride
        many = jnp.concatenate([obs, jnp.repeat(obs[::stride], each, axis=0)])
        action = jnp.concatenate([experience.action.reshape(-1, size), sampled.action.reshape(-1, size)])
        weight = jnp.asarray(self.conservative_weight, jnp.float32) * jnp.exp(state.log_multiplier)

        def loss(critics: tuple[MLP, MLP]) -> tuple[Array, tuple[Array, Array, Array]]:
            total, gaps, known = jnp.float32(0), jnp.float32(0), []
            for found in values(critics, many, action):
                value, of_sampled = jnp.split(found, [len(obs)])
                known.append(value)
                total += (experience.weight * jnp.square(value - target)).mean()
                gaps += self.gap(value[::stride], of_sampled.reshape(rows, each), sampled, experience)
            return total + weight * gaps, (known[0], known[0] - target, 0.5 * gaps)

        gradient, (value, error, gap) = jax.grad(loss, has_aux=True)(state.critics)
        policy_memory, critic_memory, temperature_memory = state.optimisers
        critics, critic_memory = adam_step(state.critics, gradient, critic_memory, self.learning_rate)
        after = state._replace(
            critics=critics, optimisers=(policy_memory, critic_memory, temperature_memory), updates=state.updates + 1
        )
        metrics = {
            "value": value.mean(), "value_max": value.max(), "target": target.mean(),
            "critic_loss": jnp.square(error).mean(), "critic_gradient_norm": optax.tree.norm(gradient),
            "conservative_gap": gap, "conservative_weight": weight,
        }  # fmt: skip
        return self._multiplier(after, gap), jnp.abs(error), metrics

    def _multiplier(self, state: State, gap: Float[Array, ""]) -> State:
        """Return the state after a step of the multiplier up weight (gap - target_gap), where it is learnt."""
        if self.target_gap is None:
            return state
        slope = -jnp.exp(state.log_multiplier) * (gap - jnp.asarray(self.target_gap, jnp.float32))
        log_multiplier, memory = adam_step(state.log_multiplier, slope, state.multiplier_memory, self.learning_rate)
        return state._replace(
            log_multiplier=jnp.minimum(log_multiplier, HIGHEST_LOG_MULTIPLIER), multiplier_memory=memory
        )
