"""Norm-bounded soft actor-critic: batch norms, weights of length one and values as distributions, from a replay."""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from workhorse.algorithms.replay_learner import (
    ADAM,
    ReplayLearner,
    adam_step,
    moved_towards,
    random_action,
    saturated_share,
    where_due,
)
from workhorse.core.algorithm import Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.layers import Flatten, PolicyNetwork, Squash
from workhorse.core.ranges import require_non_negative, require_positive
from workhorse.core.types import Moments, Rollout, Transitions
from workhorse.math.distributions import TanhGaussian
from workhorse.math.held_noise import HeldNoise
from workhorse.math.reward_scale import RewardSums, reward_factor
from workhorse.math.value_distribution import atoms, cross_entropy, projected
from workhorse.networks.batch_norm import AllStatistics, NormalisedMLP, running, with_unit_weights
from workhorse.networks.layers import scaled_layers

__all__ = ["SACN"]

LOG_STD = (-10.0, 2.0)
"""Range of the logarithm of the standard deviation before squashing."""

TARGET_STD = 0.15
"""The target entropy is that of independent normal components with this standard deviation."""


NEEDS = {
    "norm_momentum": "batch_norm", "stop_successor_gradient": "joint_pass", "target_rate": "target_network",
    "num_atoms": "categorical", "target_entropy": "learn_temperature",
    "final_learning_rate_share": "anneal_learning_rate",
}  # fmt: skip
"""Options that do nothing without another one."""

REPEATS = {"reward_scale": "scale_rewards", "normalise_observations": "batch_norm"}
"""Options that do nothing beside another one."""


class SACNState(NamedTuple):
    """The whole state.

    Attributes:
        policy: outputs means, then what gives the spreads, 2 A numbers.
        policy_statistics, critic_statistics: running ones of each batch norm.
        policy_memory, critic_memory, temperature_memory: of Adam.
        critics: two, from observation and action to logits of the atoms, or to a value.
        targets: what the critics are trained towards; nothing without `target_network`. *They keep no running
            statistics*, because they are only ever asked with those of the batch that they are shown.
        log_temperature: logarithm of alpha.
        rewards: what rewards are scaled by.
        observations, env_steps, updates: see `ReplayLearner`.
    """

    policy: NormalisedMLP
    policy_statistics: AllStatistics
    policy_memory: Any
    critics: tuple[NormalisedMLP, NormalisedMLP]
    critic_statistics: tuple[AllStatistics, AllStatistics]
    critic_memory: Any
    targets: Any
    log_temperature: Float[Array, ""]
    temperature_memory: Any
    rewards: RewardSums
    observations: Moments
    env_steps: Int[Array, ""]
    updates: Int[Array, ""]


class SACNActor(NamedTuple):
    policy: NormalisedMLP
    statistics: AllStatistics
    scaling: tuple[Float[Array, "D"], Float[Array, "D"]]
    is_warming_up: Bool[Array, ""]


@configuration
class SACN(ReplayLearner):
    """Soft actor-critic whose networks, weights and values are all kept in a bounded range.

        Z = distribution of the critic with the smaller mean at (s', a'), of two,   a' ~ pi(.|s')
        y = f r + gamma (1 - terminated) (Z - alpha log pi(a'|s'))
        critics:      cross entropy of y, projected to the atoms, with softmax(critic_i(s, a)), summed over i
        policy:       mean (alpha log pi(a|s) - min_i mean_i(s, a)),   a ~ pi(.|s), reparameterised
        temperature:  mean (-log alpha (log pi(a|s) + H*))

    f = 1 / max(sqrt(Var G), max |G| / 5), G the discounted sums of the rewards collected. Hidden units and inputs are
    normalised over the batch; a critic sees (s, a) and (s', a') as one batch, so that both are normalised alike. The
    critics that the policy climbs use their running statistics. After each step of the optimiser every unit's weight
    vector is brought back to length one.

    Source: after Palenicek et al. 2025, "XQC: well-conditioned optimization accelerates deep reinforcement learning"
    (arXiv 2509.25174), with two hidden layers of 256 and one update a step, and with the noise of FlashSAC. The sum G
    starts anew *after* an episode's last step; in the code published with both, that step loses its own past.
    """

    name = "sac-n"
    summary = "norm-bounded soft actor-critic: batch norms, unit weights, value distributions, from a replay"
    takes = "box"
    is_stochastic = True

    batch_norm: bool = True
    """Normalise inputs and hidden units over the batch; else hidden units over the layer, and inputs not at all."""
    norm_momentum: float = 0.99
    """Share of the running statistics of a batch norm that an update keeps."""
    joint_pass: bool = True
    """Let critics see a step and its successor as one batch; else each by itself."""
    stop_successor_gradient: bool = False
    """Let no gradient through the successor's part of the batch, which moves statistics alone."""
    unit_norm: bool = True
    """Bring every unit's weights back to length one after a step."""
    target_network: bool = True
    """Train towards slowly moving copies of the critics; else towards the critics themselves."""
    categorical: bool = True
    """Values as distributions over atoms, by cross entropy; else numbers, by squared error."""
    num_atoms: int = 101
    """Values that a distribution is over."""
    value_limit: float = 5.0
    """The atoms lie evenly in plus or minus this, and rewards are scaled so that discounted sums fit into it."""
    scale_rewards: bool = True
    """Scale rewards by the discounted sums of those collected."""
    policy_every: int = 3
    """Updates of the critics for one of the policy and the temperature."""
    temperature: float = 0.01
    """Weight alpha of the entropy at the start."""
    learn_temperature: bool = True
    """Steer the temperature; else it stays as it is."""
    target_entropy: float | None = None
    """Entropy H* of the policy, in nats, that the temperature steers to; None for -0.478 a component."""
    hold_noise: int = 16
    """Most steps for which a slot keeps its noise; 1 draws it at every step."""
    anneal_learning_rate: bool = True
    """Let the learning rate fall along a half cosine over `anneal_env_steps`."""
    anneal_env_steps: int = 0
    """Training steps over which it falls; 0 for the budget of the run."""
    final_learning_rate_share: float = 0.5
    """Share of the learning rate that is left at the end of its fall."""

    def validate(self) -> None:
        super().validate()
        require_positive("SACN", temperature=self.temperature, policy_every=self.policy_every)
        require_positive("SACN", hold_noise=self.hold_noise, value_limit=self.value_limit)
        require_non_negative("SACN", anneal_env_steps=self.anneal_env_steps)
        for option in ("norm_momentum", "final_learning_rate_share"):
            if not 0 <= getattr(self, option) <= 1:
                raise UsageError(f"SACN.{option} must be in [0, 1]: got {getattr(self, option)}.")
        if self.num_atoms < 2:
            raise UsageError(f"SACN.num_atoms must be at least 2: got {self.num_atoms}.")
        if self.batch_norm and self.batch_size < 2:
            raise UsageError(f"SACN.batch_size must be at least 2 with batch_norm: got {self.batch_size}.")
        self._validate_combinations()
        highest = self.action_size * math.log(2.0)
        if self.target_entropy is not None and not self.target_entropy < highest:
            raise UsageError(
                f"SACN.target_entropy must be below {highest:.3f} nats, the entropy of uniform actions in [-1, 1]: "
                f"got {self.target_entropy}."
            )

    def _validate_combinations(self) -> None:
        """Raise a `UsageError` where a setting would have no effect beside another."""
        for option, other in NEEDS.items():
            if getattr(self, option) != getattr(type(self), option) and not getattr(self, other):
                raise UsageError(f"SACN.{option} has no effect without {other}: leave one of the two out.")
        for option, other in REPEATS.items():
            if getattr(self, option) != getattr(type(self), option) and getattr(self, other):
                raise UsageError(f"SACN.{option} adds nothing to {other}, which is on: leave one of the two out.")
        if self.joint_pass and not self.batch_norm:
            raise UsageError(
                "SACN.joint_pass has no effect without batch_norm, whose statistics it is about: turn off both."
            )

    @property
    def wanted_entropy(self) -> Float[Array, ""]:
        """The entropy H*: by default A / 2 log(2 pi e 0.15^2)."""
        default = 0.5 * self.action_size * math.log(2 * math.pi * math.e * TARGET_STD**2)
        return jnp.asarray(default if self.target_entropy is None else self.target_entropy, jnp.float32)

    # --- acting ---

    def init(self, key: Key) -> SACNState:
        keys = jax.random.split(key, 3)
        size, actions = self.spec.observation.size, self.action_size
        norm: Literal["batch", "layer"] = "batch" if self.batch_norm else "layer"
        outputs = self.num_atoms if self.categorical else 1
        policy = NormalisedMLP.create(keys[0], (size, *self.hidden, 2 * actions), norm)
        first, second = (NormalisedMLP.create(one, (size + actions, *self.hidden, outputs), norm) for one in keys[1:])
        critics, log_temperature = (first, second), jnp.log(jnp.asarray(self.temperature, jnp.float32))
        policy_memory, critic_memory, temperature_memory = map(ADAM.init, (policy, critics, log_temperature))  # type: ignore[arg-type]
        return SACNState(
            policy, policy.start(), policy_memory, critics, (first.start(), second.start()), critic_memory,
            critics if self.target_network else (), log_temperature, temperature_memory,
            RewardSums.start(self.num_envs), **self.counters(),
        )  # fmt: skip

    def actor(self, state: SACNState) -> SACNActor:
        return SACNActor(
            state.policy, state.policy_statistics, self.scaling(state.observations), self.is_warming_up(state)
        )

    def begin(self, actor: SACNActor, slot: Int[Array, ""]) -> HeldNoise:
        return HeldNoise.start(self.action_size)

    def act(
        self, actor: SACNActor, carry: HeldNoise, obs: Float[Array, "..."], key: Key, *, explore: bool
    ) -> tuple[Array, HeldNoise, tuple[()]]:
        """Move by the held noise where `explore`, uniformly during the warm-up; else take tanh of the mean."""
        outputs = actor.policy(self.seen(actor.scaling, obs)[None], actor.statistics)[0]
        distribution, shape = TanhGaussian.bounded(outputs, *LOG_STD), self.spec.action.shape  # type: ignore[union-attr]
        if not explore:
            return distribution.mode().reshape(shape), carry, ()
        noise_key, uniform_key = jax.random.split(key)
        held = carry.next(noise_key, self.hold_noise)
        drawn = distribution.at(held.value)[0].reshape(shape)
        return jnp.where(actor.is_warming_up, random_action(self.spec, uniform_key), drawn), held, ()

    def policy_layers(self, actor: SACNActor) -> PolicyNetwork:
        layers = (*actor.policy.layers(actor.statistics, self.action_size), Squash())
        if self.normalise_observations:
            return scaled_layers(self.spec.observation, *self.artefact_scaling(actor.scaling), layers)
        return (Flatten(), *layers) if len(self.spec.observation.shape) > 1 else layers

    # --- learning ---

    def observe(self, state: SACNState, rollout: Rollout) -> SACNState:
        """Return the state after steps (T, B) were taken, with the discounted sums of their rewards."""
        rewards = state.rewards.after(rollout.reward, rollout.terminated | rollout.truncated, self.discount)
        return super().observe(state, rollout)._replace(rewards=rewards)

    def factor(self, state: SACNState) -> Float[Array, ""]:
        """Return the factor of rewards where they are learnt from."""
        return reward_factor(state.rewards, self.value_limit) if self.scale_rewards else jnp.float32(self.reward_scale)

    def rate(self, state: SACNState) -> Float[Array, ""]:
        """Return the learning rate of this state: l (s + (1 - s) (1 + cos(pi t)) / 2), s its last share, t <= 1."""
        rate = jnp.asarray(self.learning_rate, jnp.float32)
        if not self.anneal_learning_rate or not self.anneal_env_steps:
            return rate
        done = jnp.minimum(state.env_steps.astype(jnp.float32) / self.anneal_env_steps, 1.0)
        last = jnp.asarray(self.final_learning_rate_share, jnp.float32)
        return rate * (last + (1 - last) * 0.5 * (1 + jnp.cos(jnp.float32(jnp.pi) * done)))

    def learn(self, state: SACNState, experience: Transitions, key: Key) -> tuple[SACNState, Array, Metrics]:
        """Do one update of the critics, and of the policy and the temperature where they are due."""
        factor = self.factor(state)
        obs, next_obs = self.both_seen(state, experience)
        next_key, policy_key = jax.random.split(key)
        next_action, log_prob = self._drawn(state.policy(next_obs, state.policy_statistics), next_key)
        pair = (
            jnp.concatenate([obs, experience.action.reshape(len(obs), -1)], axis=1),
            jnp.concatenate([next_obs, next_action], axis=1),
        )
        reward = factor * experience.reward - experience.discount * jnp.exp(state.log_temperature) * log_prob
        state, error, metrics = self._critics(state, pair, reward, experience.discount, experience.weight)
        state = state._replace(updates=state.updates + 1)
        state, of_policy = where_due(
            state, state.updates, self.policy_every, lambda state: self._policy(state, obs, policy_key)
        )
        metrics |= {"reward_factor": factor, "learning_rate": self.rate(state)}
        return state, error, metrics | of_policy | {"temperature": jnp.exp(state.log_temperature)}

    def target(self, outputs: tuple[Array, Array], reward: Array, discount: Array) -> Float[Array, "N n"]:
        """Return y from both critics' outputs at the successors: probabilities of the atoms, or a number.

        `reward` is scaled, and holds the discounted entropy that comes with the successor's action.
        """
        if not self.categorical:
            return (reward + discount * jnp.minimum(*outputs)[:, 0])[:, None]
        first, second = (jax.nn.softmax(logits) for logits in outputs)
        smaller = jnp.where((first @ self.support <= second @ self.support)[:, None], first, second)
        return jax.vmap(projected, (0, None, 0, 0))(smaller, self.support, reward, discount)

    @property
    def support(self) -> Float[Array, "n"]:
        """The atoms."""
        limit = jnp.asarray(self.value_limit, jnp.float32)
        return atoms(-limit, limit, self.num_atoms)

    def value_of(self, outputs: Float[Array, "N n"]) -> Float[Array, "N"]:
        """Return the values that a critic's outputs stand for, in units of scaled rewards."""
        return jax.nn.softmax(outputs) @ self.support if self.categorical else outputs[:, 0]

    def action_value(self, state: SACNState, obs: Array, action: Array) -> Float[Array, ""]:
        """Return the smaller of both critics' soft values."""
        seen = self.seen(self.scaling(state.observations), obs)
        rows = jnp.concatenate([seen, action.reshape(-1).astype(jnp.float32)])[None]
        return self._smaller(state, rows)[0] / self.factor(state)

    def entropy_bonus(self, state: SACNState, obs: Array, key: Key) -> Float[Array, ""]:
        outputs = state.policy(self.seen(self.scaling(state.observations), obs)[None], state.policy_statistics)
        return -jnp.exp(state.log_temperature) * self._drawn(outputs, key)[1][0] / self.factor(state)

    def _smaller(self, state: SACNState, rows: Float[Array, "N in"]) -> Float[Array, "N"]:
        known = zip(state.critics, state.critic_statistics, strict=True)
        return jnp.minimum(*(self.value_of(critic(rows, statistics)) for critic, statistics in known))

    def _outputs(self, critic: NormalisedMLP, pair: tuple[Array, Array]) -> tuple[Array, Array, AllStatistics]:
        """Return a critic's outputs at a step and at its successor, and the statistics of the batch."""
        if self.joint_pass:
            (now, then), statistics = critic.hidden(*pair, frozen=self.stop_successor_gradient)
        else:
            (now,), statistics = critic.hidden(pair[0])
            (then,), _ = critic.hidden(pair[1])
        return critic.head(now), critic.head(then), statistics  # what nobody asks for is not computed: XLA drops it

    def _critics(
        self, state: SACNState, pair: tuple[Array, Array], reward: Array, discount: Array, weight: Array
    ) -> tuple[SACNState, Float[Array, "N"], Metrics]:
        """Return the state after a step of the critics and their targets, each transition's error, and metrics."""
        target = None
        if self.target_network:
            first, second = (self._outputs(critic, pair)[1] for critic in state.targets)
            target = self.target((first, second), reward, discount)

        def loss(critics: tuple[NormalisedMLP, NormalisedMLP]) -> tuple[Array, Any]:
            outputs, then, statistics = zip(*(self._outputs(critic, pair) for critic in critics), strict=True)
            aim = self.target(then, reward, discount) if target is None else target
            aim = jax.lax.stop_gradient(aim)
            entropies = jax.vmap(cross_entropy)
            losses = [entropies(aim, one) if self.categorical else jnp.square(one - aim)[:, 0] for one in outputs]
            return (weight * (losses[0] + losses[1])).mean(), (outputs[0], aim, statistics, losses[0].mean())

        gradient, (outputs, aim, found, first_loss) = jax.grad(loss, has_aux=True)(state.critics)
        critics, memory = self._stepped(state, state.critics, gradient, state.critic_memory)
        state = state._replace(
            critics=critics,
            targets=moved_towards(state.targets, critics, self.target_rate) if self.target_network else (),
            critic_statistics=running(state.critic_statistics, found, self.norm_momentum),
            critic_memory=memory,
        )
        value, aimed = self.value_of(outputs), aim @ self.support if self.categorical else aim[:, 0]
        metrics = {
            "value": value.mean(), "value_max": value.max(), "target": aimed.mean(), "critic_loss": first_loss,
            "critic_gradient_norm": optax.tree.norm(gradient),
        }  # fmt: skip
        if self.categorical:
            metrics["support_end_mass"] = jax.nn.softmax(outputs)[:, jnp.array([0, -1])].sum(1).mean()
        return state, jnp.abs(value - aimed), metrics

    def _policy(self, state: SACNState, obs: Float[Array, "N D"], key: Key) -> tuple[SACNState, Metrics]:
        """Return the state after a step of the policy, and then of the temperature."""
        temperature = jnp.exp(state.log_temperature)

        def loss(policy: NormalisedMLP) -> tuple[Array, Any]:
            (hidden,), statistics = policy.hidden(obs)
            action, log_prob = self._drawn(policy.head(hidden), key)
            rows = jnp.concatenate([obs, action], axis=1)
            return (temperature * log_prob - self._smaller(state, rows)).mean(), (log_prob, action, statistics)

        (total, (log_prob, action, found)), gradient = jax.value_and_grad(loss, has_aux=True)(state.policy)
        policy, policy_memory = self._stepped(state, state.policy, gradient, state.policy_memory)
        log_temperature, temperature_memory = state.log_temperature, state.temperature_memory
        if self.learn_temperature:
            slope = -(log_prob.mean() + self.wanted_entropy)
            log_temperature, temperature_memory = self._stepped(state, log_temperature, slope, temperature_memory)
        after = state._replace(
            policy=policy,
            policy_statistics=running(state.policy_statistics, found, self.norm_momentum),
            policy_memory=policy_memory,
            log_temperature=log_temperature,
            temperature_memory=temperature_memory,
        )
        saturated = saturated_share(action)
        return after, {"policy_loss": total, "entropy": -log_prob.mean(), "saturated_actions": saturated}

    def _drawn(self, outputs: Float[Array, "N out"], key: Key) -> tuple[Float[Array, "N A"], Float[Array, "N"]]:
        """Draw an action for each of a policy's outputs, with its log density."""
        noise = jax.random.normal(key, (len(outputs), self.action_size), jnp.float32)
        return jax.vmap(lambda one, noise: TanhGaussian.bounded(one, *LOG_STD).at(noise))(outputs, noise)

    def _stepped(self, state: SACNState, params: PyTree, gradient: PyTree, memory: PyTree) -> tuple[Any, Any]:
        """Return parameters after a step of Adam, weights at length one again, and Adam's memory."""
        params, memory = adam_step(params, gradient, memory, self.rate(state))
        return with_unit_weights(params) if self.unit_norm else params, memory
