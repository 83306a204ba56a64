"""Soft actor-critic for choices: expectations over all choices are exact, nothing is drawn but the behaviour."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from workhorse.algorithms.replay_learner import (
    ADAM,
    ReplayLearner,
    adam_step,
    moved_towards,
    random_action,
)
from workhorse.core.algorithm import Carry, Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.layers import Argmax, PolicyNetwork
from workhorse.core.ranges import require_positive
from workhorse.core.types import Moments, Transitions
from workhorse.networks.layers import mlp_layers, scaled_layers
from workhorse.networks.mlp import MLP

__all__ = ["DiscreteSAC", "soft_value"]


class DiscreteSACState(NamedTuple):
    """The whole state.

    Attributes:
        policy: from observation to a logit for each choice.
        critics: two, from observation to a value for each choice.
        targets: what the critics are trained towards.
        log_temperature: logarithm of alpha.
        optimisers: of policy, critics and temperature.
        observations, env_steps, updates: see `ReplayLearner`.
    """

    policy: MLP
    critics: tuple[MLP, MLP]
    targets: tuple[MLP, MLP]
    log_temperature: Float[Array, ""]
    optimisers: tuple[Any, Any, Any]
    observations: Moments
    env_steps: Int[Array, ""]
    updates: Int[Array, ""]


class DiscreteSACActor(NamedTuple):
    policy: MLP
    scaling: tuple[Float[Array, "D"], Float[Array, "D"]]
    is_warming_up: Bool[Array, ""]


@configuration
class DiscreteSAC(ReplayLearner):
    """Two critics with a value for each choice, a policy over the choices, a temperature by its entropy.

        y = r + gamma (1 - terminated) sum_a' pi(a'|s') (min_i Q'_i(s', a') - alpha log pi(a'|s'))
        critics:      mean (Q_i(s, a) - y)^2, summed over i
        policy:       mean sum_a pi(a|s) (alpha log pi(a|s) - min_i Q_i(s, a))
        temperature:  mean log alpha (H(pi(.|s)) - H*),   H* = target_entropy_share log A

    Any share below 1 can be reached: *a policy cannot have more than log A nats, and a temperature that steers to more
    grows without end*, which is what a target of .98 log A does where A is small (public reports, alpha of 1e8).

    Source: Christodoulou 2019, "Soft actor-critic for discrete action settings" (arXiv 1910.07207). There H* is
    .98 log A; the share of .7 is from later replications.
    """

    name = "sac-discrete"
    summary = "soft actor-critic for choices: exact expectations over them, two critics, from a replay"
    only_at_start = ("temperature",)
    takes = "discrete"
    is_stochastic = True

    hidden: tuple[int, ...] = (128, 128)
    """Units of each hidden layer of every network."""
    learn_every: int = 32
    """Steps of each slot with one policy; then the updates that have become due are done."""
    replay_ratio: float = 64.0
    """Samples trained on for each environment step after the warm-up, whatever the number of slots."""
    batch_size: int = 128
    """Transitions of an update."""
    warmup_env_steps: int = 1_000
    """Environment steps with random actions, before the first update."""
    replay_capacity: int = 100_000
    """Steps that the replay keeps, those of all slots together; the oldest are forgotten."""
    learning_rate: float = 1e-3
    """Step size of Adam, for the policy, the critics and the temperature."""
    target_rate: float = 0.01
    """Share of the way that target networks go towards the learning ones at each update."""
    target_entropy_share: float = 0.7
    """Entropy that the temperature steers to, as a share of log A, the entropy of uniform choices."""
    temperature: float = 0.2
    """Weight alpha of the entropy at the start."""
    learn_temperature: bool = True
    """Steer the temperature; else it stays as it is."""

    def validate(self) -> None:
        super().validate()
        require_positive("DiscreteSAC", temperature=self.temperature)
        if not 0 < self.target_entropy_share < 1:
            raise UsageError(
                "DiscreteSAC.target_entropy_share must be between 0 and 1, both excluded, because no policy has more "
                f"entropy than uniform choices: got {self.target_entropy_share}."
            )
        if not self.learn_temperature and self.target_entropy_share != type(self).target_entropy_share:
            raise UsageError(
                "DiscreteSAC.target_entropy_share has no effect without learn_temperature: leave one of the two out."
            )

    @property
    def wanted_entropy(self) -> Float[Array, ""]:
        """The entropy H*, in nats."""
        return jnp.asarray(self.target_entropy_share, jnp.float32) * jnp.log(jnp.float32(self.action_size))

    # --- acting ---

    def init(self, key: Key) -> DiscreteSACState:
        sizes = (self.spec.observation.size, *self.hidden, self.action_size)
        policy, first, second = (MLP.uniform(one, sizes) for one in jax.random.split(key, 3))
        critics, log_temperature = (first, second), jnp.log(jnp.asarray(self.temperature, jnp.float32))
        optimisers: Any = tuple(map(ADAM.init, (policy, critics, log_temperature)))  # type: ignore[arg-type]
        return DiscreteSACState(policy, critics, critics, log_temperature, optimisers, **self.counters())

    def actor(self, state: DiscreteSACState) -> DiscreteSACActor:
        return DiscreteSACActor(state.policy, self.scaling(state.observations), self.is_warming_up(state))

    def act(
        self, actor: DiscreteSACActor, carry: Carry, obs: Float[Array, "..."], key: Key, *, explore: bool
    ) -> tuple[Int[Array, ""], Carry, tuple[()]]:
        """Draw a choice where `explore`, uniformly during the warm-up; else take the likeliest."""
        logits = actor.policy(self.seen(actor.scaling, obs))
        if not explore:
            return jnp.argmax(logits), carry, ()
        policy_key, random_key = jax.random.split(key)
        drawn = jax.random.categorical(policy_key, logits)
        uniform = random_action(self.spec, random_key).astype(drawn.dtype)
        return jnp.where(actor.is_warming_up, uniform, drawn), carry, ()

    def policy_layers(self, actor: DiscreteSACActor) -> PolicyNetwork:
        layers = (*mlp_layers(actor.policy), Argmax(draws=True))
        return scaled_layers(self.spec.observation, *self.artefact_scaling(actor.scaling), layers)

    # --- learning ---

    def learn(
        self, state: DiscreteSACState, experience: Transitions, key: Key
    ) -> tuple[DiscreteSACState, Float[Array, "N"], Metrics]:
        """Do one update of everything on a batch; no randomness is needed."""
        obs, next_obs = self.both_seen(state, experience)
        target = self.target(state, experience, next_obs)
        critics, critic_memory, error, of_critics = self._critics(state, obs, experience, target)
        policy, policy_memory, entropy, policy_loss = self._policy(state, critics, obs)
        log_temperature, memory = state.log_temperature, state.optimisers[2]
        if self.learn_temperature:
            log_temperature, memory = adam_step(
                log_temperature, entropy - self.wanted_entropy, memory, self.learning_rate
            )
        after = state._replace(
            policy=policy,
            critics=critics,
            targets=moved_towards(state.targets, critics, self.target_rate),
            log_temperature=log_temperature,
            optimisers=(policy_memory, critic_memory, memory),
            updates=state.updates + 1,
        )
        metrics = of_critics | {
            "policy_loss": policy_loss, "entropy": entropy, "temperature": jnp.exp(log_temperature),
        }  # fmt: skip
        return after, error, metrics

    def target(
        self, state: DiscreteSACState, experience: Transitions, next_obs: Float[Array, "N D"]
    ) -> Float[Array, "N"]:
        """Return y, from scaled successors."""
        logits = jax.vmap(state.policy)(next_obs)
        ahead = jax.vmap(soft_value, in_axes=(0, 0, None))(
            logits, _lesser(state.targets, next_obs), jnp.exp(state.log_temperature)
        )
        return jnp.float32(self.reward_scale) * experience.reward + experience.discount * ahead

    def action_value(self, state: DiscreteSACState, obs: Array, action: Int[Array, ""]) -> Float[Array, ""]:
        """Return the smaller of both critics' soft values."""
        seen = self.seen(self.scaling(state.observations), obs)[None]
        return _lesser(state.critics, seen)[0, action] / jnp.asarray(self.reward_scale, jnp.float32)

    def entropy_bonus(self, state: DiscreteSACState, obs: Array, key: Key) -> Float[Array, ""]:
        """Return alpha times the entropy in this state, exactly: `key` is not used."""
        log_prob = jax.nn.log_softmax(state.policy(self.seen(self.scaling(state.observations), obs)))
        bonus = -jnp.exp(state.log_temperature) * (jnp.exp(log_prob) * log_prob).sum()
        return bonus / jnp.asarray(self.reward_scale, jnp.float32)

    def _critics(
        self, state: DiscreteSACState, obs: Float[Array, "N D"], experience: Transitions, target: Float[Array, "N"]
    ) -> tuple[tuple[MLP, MLP], Any, Float[Array, "N"], Metrics]:
        """Return the critics after a step, the optimiser's memory, each transition's error, and metrics."""
        action = experience.action[:, None]

        def loss(critics: tuple[MLP, MLP]) -> tuple[Array, tuple[Array, Array]]:
            first, second = (jnp.take_along_axis(jax.vmap(one)(obs), action, axis=1)[:, 0] for one in critics)
            errors = first - target, second - target
            return (experience.weight * (jnp.square(errors[0]) + jnp.square(errors[1]))).mean(), (first, errors[0])

        gradient, (value, error) = jax.grad(loss, has_aux=True)(state.critics)
        critics, memory = adam_step(state.critics, gradient, state.optimisers[1], self.learning_rate)
        metrics = {
            "value": value.mean(), "value_max": value.max(), "target": target.mean(),
            "critic_loss": jnp.square(error).mean(), "critic_gradient_norm": optax.tree.norm(gradient),
        }  # fmt: skip
        return critics, memory, jnp.abs(error), metrics

    def _policy(
        self, state: DiscreteSACState, critics: tuple[MLP, MLP], obs: Float[Array, "N D"]
    ) -> tuple[MLP, Any, Float[Array, ""], Float[Array, ""]]:
        """Return the policy after a step, the optimiser's memory, its entropy before, and its loss."""
        value, temperature = _lesser(critics, obs), jnp.exp(state.log_temperature)

        def loss(policy: MLP) -> tuple[Array, Array]:
            logits = jax.vmap(policy)(obs)
            ahead = jax.vmap(soft_value, in_axes=(0, 0, None))(logits, value, temperature)
            return -ahead.mean(), logits

        (total, logits), gradient = jax.value_and_grad(loss, has_aux=True)(state.policy)
        policy, memory = adam_step(state.policy, gradient, state.optimisers[0], self.learning_rate)
        log_prob = jax.nn.log_softmax(logits)
        return policy, memory, -(jnp.exp(log_prob) * log_prob).sum(-1).mean(), total


def soft_value(logits: Float[Array, "A"], value: Float[Array, "A"], temperature: Float[Array, ""]) -> Float[Array, ""]:
    """Return sum_a pi(a) (Q(a) - alpha log pi(a)), pi = softmax(logits).

    It is greatest, alpha log sum_a exp(Q(a) / alpha), where pi = softmax(Q / alpha).

    Example:
        >>> even = jnp.zeros(2, jnp.float32)
        >>> round(float(soft_value(even, jnp.array([1.0, 3.0], jnp.float32), jnp.float32(0.0))), 4)
        2.0
    """
    log_prob = jax.nn.log_softmax(logits)
    return (jnp.exp(log_prob) * (value - temperature * log_prob)).sum()


def _lesser(critics: tuple[MLP, MLP], obs: Float[Array, "N D"]) -> Float[Array, "N A"]:
    """Return the smaller of both critics' values of every choice."""
    first, second = (jax.vmap(one)(obs) for one in critics)
    return jnp.minimum(first, second)
