"""Deep Q-learning from a replay, with every part of Rainbow as a switch."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from workhorse.algorithms.replay_learner import ADAM, ReplayLearner, adam_step, random_action
from workhorse.algorithms.value_based.q_network import QNetwork, Streams
from workhorse.core.algorithm import Carry, Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.layers import Argmax, Expectation, PolicyNetwork
from workhorse.core.ranges import require_non_negative, require_positive
from workhorse.core.types import Moments, Transitions
from workhorse.math.value_distribution import atoms, cross_entropy, projected
from workhorse.networks.layers import scaled_layers

__all__ = ["DQN"]

LEAST_PRIORITY = 1e-6
"""Added to every priority, so that no transition is lost for good."""

BELONGS_TO = {
    "priority_power": "prioritised", "importance_power": "prioritised", "final_importance_power": "prioritised",
    "noise_std": "noisy", "num_atoms": "categorical", "value_low": "categorical", "value_high": "categorical",
}  # fmt: skip
"""Options that have an effect only where a switch is on."""

OPPOSED_TO = {
    "epsilon": "noisy", "final_epsilon": "noisy", "exploration_env_steps": "noisy",
    "loss": "categorical",
}  # fmt: skip
"""Options that have no effect where a switch is on."""


class DQNState(NamedTuple):
    """The whole state.

    Attributes:
        network: the learning one.
        target: what it is trained towards.
        optimiser: memory of Adam.
        observations, env_steps, updates: see `ReplayLearner`.
    """

    network: QNetwork
    target: QNetwork
    optimiser: Any
    observations: Moments
    env_steps: Int[Array, ""]
    updates: Int[Array, ""]


class DQNActor(NamedTuple):
    network: QNetwork
    scaling: tuple[Float[Array, "D"], Float[Array, "D"]]
    epsilon: Float[Array, ""]
    is_warming_up: Bool[Array, ""]


@configuration
class DQN(ReplayLearner):
    """Values of all choices, trained towards the rewards of n steps and a target network's value of what comes next.

        y = r + gamma^m (1 - terminated) Q'(s', a*),   a* = argmax_a Q'(s', a),   with `double` argmax_a Q(s', a)
        loss = mean weight * (Q(s, a) - y)^2, or Huber's function of the error

    r sums the rewards of m <= n_steps steps. With `categorical` the network gives a distribution over atoms for each
    choice, the target is the target network's distribution, scaled, shifted and projected onto the atoms, the loss is
    the cross entropy, and Q is the mean. A dueling or noisy network: see `q_network`. Noise is drawn once a batch and
    network in an update, and at each step in acting; it takes the place of epsilon.

    Source: Mnih et al. 2015, "Human-level control through deep reinforcement learning"; van Hasselt et al. 2016
    (double), Schaul et al. 2016 (prioritised), Wang et al. 2016 (dueling), Bellemare et al. 2017 (categorical),
    Fortunato et al. 2018 (noisy), Hessel et al. 2018, "Rainbow" (arXiv 1710.02298), for all of them. The defaults are
    for small tasks, not for Atari.
    """

    name = "dqn"
    summary = "deep Q-learning from a replay; every part of Rainbow is a switch"
    only_at_start = ("noise_std",)
    takes = "discrete"
    presets = {
        "ddqn": ("dqn with the choice made by the learning network, its value by the target network", {"double": True}),
        "c51": ("dqn with a distribution over atoms for each choice's value", {"categorical": True}),
        "rainbow": (
            "dqn with all of its switches: double, 3 steps, prioritised, dueling, noisy, categorical",
            {
                "double": True, "n_steps": 3, "prioritised": True, "dueling": True, "noisy": True, "categorical": True,
            },
        ),
    }  # fmt: skip

    hidden: tuple[int, ...] = (128, 128)
    """Units of each hidden layer."""
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
    """Step size of Adam."""
    anneal_learning_rate: bool = True
    """Let the learning rate fall to zero, linearly, over `anneal_env_steps`."""
    target_rate: float = 0.01
    """Share of the way that the target network goes towards the learning one, each time; 1 copies it."""
    target_every: int = 1
    """Updates from one move of the target network to the next."""
    double: bool = False
    """Let the learning network choose the next action, and the target network say what it is worth."""
    dueling: bool = False
    """Add a value and an advantage, from two streams of the network."""
    noisy: bool = False
    """Explore by noise on the weights, whose size is learnt, in place of epsilon."""
    noise_std: float = 0.5
    """Initial standard deviation of that noise, divided by the square root of a layer's inputs."""
    categorical: bool = False
    """Learn a distribution over atoms for each choice's value, by cross entropy."""
    num_atoms: int = 51
    """Atoms of the distribution."""
    value_low: float = -10.0
    """Lowest atom, in scaled and discounted rewards; returns below it cannot be told from it."""
    value_high: float = 10.0
    """Highest atom; returns above it cannot be told from it."""
    prioritised: bool = False
    """Sample transitions by the size of their last error, or with `categorical` by the KL divergence to the target."""
    priority_power: float = 0.5
    """Sampling frequency is proportional to priority to this power."""
    importance_power: float = 0.4
    """Exponent at the start of the weights that correct for it; 1 corrects fully."""
    final_importance_power: float = 1.0
    """The same at the end of `anneal_env_steps`; the same number keeps it fixed."""
    anneal_env_steps: int = 0
    """Environment steps over which that exponent changes, and the learning rate; 0 for the budget of the run."""
    epsilon: float = 1.0
    """Probability of a random action at the start."""
    final_epsilon: float = 0.05
    """The same from `exploration_env_steps` on."""
    exploration_env_steps: int = 10_000
    """Environment steps of the whole run over which it falls, linearly."""
    loss: Literal["mse", "huber"] = "mse"
    """Function of the error: its square; or half of that up to an error of 1, and linear beyond."""
    gradient_clip: float | None = 10.0
    """Shorten gradients to this 2-norm over all parameters; None for no bound."""

    # --- settings ---

    def validate(self) -> None:
        super().validate()
        require_positive(
            "DQN",
            target_every=self.target_every,
            priority_power=self.priority_power,
            exploration_env_steps=self.exploration_env_steps,
            **({} if self.gradient_clip is None else {"gradient_clip": self.gradient_clip}),
        )
        require_non_negative("DQN", noise_std=self.noise_std, anneal_env_steps=self.anneal_env_steps)
        for option in ("epsilon", "final_epsilon", "importance_power", "final_importance_power"):
            if not 0 <= getattr(self, option) <= 1:
                raise UsageError(f"DQN.{option} must be in [0, 1]: got {getattr(self, option)}.")
        if self.num_atoms < 2:
            raise UsageError(f"DQN.num_atoms must be at least 2: got {self.num_atoms}.")
        if not self.value_low < self.value_high:
            raise UsageError(f"DQN.value_low must be below value_high: got {self.value_low:g} and {self.value_high:g}.")
        self._refuse_settings_without_effect()

    def _refuse_settings_without_effect(self) -> None:
        """Raise a `UsageError` where an option is not at its default, and a switch keeps it from having an effect."""
        changed = {name for name in {**BELONGS_TO, **OPPOSED_TO} if getattr(self, name) != getattr(type(self), name)}
        for option, switch in BELONGS_TO.items():
            if option in changed and not getattr(self, switch):
                raise UsageError(
                    f"DQN.{option} has no effect without {switch}: got {getattr(self, option)}. Set {switch} to True, "
                    f"or leave {option} out."
                )
        for option, switch in OPPOSED_TO.items():
            if option in changed and getattr(self, switch):
                raise UsageError(
                    f"DQN.{option} has no effect with {switch}: got {getattr(self, option)}. Leave one of the two out."
                )

    @property
    def priority_exponent(self) -> float | None:
        return self.priority_power if self.prioritised else None

    def importance_exponent(self, state: DQNState) -> Float[Array, ""]:
        begin, end = (jnp.asarray(power, jnp.float32) for power in (self.importance_power, self.final_importance_power))
        return begin + self.progress(state) * (end - begin)

    def progress(self, state: DQNState) -> Float[Array, ""]:
        """Return the share of `anneal_env_steps` that the run has behind it; 0 where there is no schedule."""
        steps = state.env_steps.astype(jnp.float32)
        return jnp.minimum(steps / self.anneal_env_steps, 1.0) if self.anneal_env_steps else 0.0 * steps

    def rate(self, state: DQNState) -> Float[Array, ""]:
        """Return the learning rate."""
        rate = jnp.asarray(self.learning_rate, jnp.float32)
        return rate * (1.0 - self.progress(state)) if self.anneal_learning_rate else rate

    def epsilon_at(self, env_steps: Int[Array, ""]) -> Float[Array, ""]:
        """Return the probability of a random action after this many environment steps of the run."""
        begin, end = jnp.asarray(self.epsilon, jnp.float32), jnp.asarray(self.final_epsilon, jnp.float32)
        share = jnp.clip(env_steps.astype(jnp.float32) / self.exploration_env_steps, 0.0, 1.0)
        return begin + share * (end - begin)

    @property
    def support(self) -> Float[Array, "n"]:
        """The atoms of a categorical value."""
        return atoms(self.value_low, self.value_high, self.num_atoms)

    # --- acting ---

    def init(self, key: Key) -> DQNState:
        size, each = self.spec.observation.size, self.num_atoms if self.categorical else 1
        streams = Streams.create(key, size, self.hidden, self.action_size, each, self.dueling)
        network = QNetwork.create(streams, jnp.asarray(self.noise_std, jnp.float32) if self.noisy else None)
        memory: Any = ADAM.init(network)  # type: ignore[arg-type]
        return DQNState(network, network, memory, **self.counters())

    def actor(self, state: DQNState) -> DQNActor:
        epsilon = jnp.zeros((), jnp.float32) if self.noisy else self.epsilon_at(state.env_steps)
        return DQNActor(state.network, self.scaling(state.observations), epsilon, self.is_warming_up(state))

    def act(
        self, actor: DQNActor, carry: Carry, obs: Float[Array, "..."], key: Key, *, explore: bool
    ) -> tuple[Int[Array, ""], Carry, tuple[()]]:
        """Take the choice of highest value; where `explore`, with noisy weights or at random with probability epsilon.

        During the warm-up all actions are random.
        """
        noise_key, random_key, switch_key = jax.random.split(key, 3)
        streams = actor.network.drawn(noise_key) if explore else actor.network.mean
        best = jnp.argmax(self.values(streams(self.seen(actor.scaling, obs))))
        if not explore:
            return best, carry, ()
        at_random = actor.is_warming_up | (jax.random.uniform(switch_key, (), jnp.float32) < actor.epsilon)
        drawn = random_action(self.spec, random_key)
        return jnp.where(at_random, drawn.astype(best.dtype), best), carry, ()

    def policy_layers(self, actor: DQNActor) -> PolicyNetwork:
        layers = actor.network.mean.layers()
        if self.categorical:
            layers = (*layers, Expectation(self.support))
        return scaled_layers(self.spec.observation, *self.artefact_scaling(actor.scaling), (*layers, Argmax()))

    # --- learning ---

    def values(self, outputs: Float[Array, "*N n"]) -> Float[Array, "*N"]:
        """Return the values that a network's outputs stand for."""
        return jax.nn.softmax(outputs) @ self.support if self.categorical else outputs[..., 0]

    def action_value(self, state: DQNState, obs: Array, action: Int[Array, ""]) -> Float[Array, ""]:
        """Return the value of a choice, without noise on the weights."""
        outputs = state.network.mean(self.seen(self.scaling(state.observations), obs))
        return self.values(outputs)[action] / jnp.asarray(self.reward_scale, jnp.float32)

    def learn(self, state: DQNState, experience: Transitions, key: Key) -> tuple[DQNState, Float[Array, "N"], Metrics]:
        """Do one update on a batch."""
        obs, next_obs = self.both_seen(state, experience)
        target_key, noise_key = jax.random.split(key)
        target = self.target(state, experience, next_obs, target_key)

        def loss(network: QNetwork) -> tuple[Array, tuple[Array, Array]]:
            outputs = _taken(jax.vmap(network.drawn(noise_key))(obs), experience.action)
            each, size = self.losses(outputs, target)
            return (experience.weight * each).mean(), (size, outputs)

        (total, (size, outputs)), gradient = jax.value_and_grad(loss, has_aux=True)(state.network)
        updates = state.updates + 1
        network, memory = self.stepped(state.network, gradient, state.optimiser, self.rate(state))
        share = jnp.where(updates % self.target_every == 0, jnp.asarray(self.target_rate, jnp.float32), 0.0)
        # written so that a share of 1 copies and one of 0 keeps, to the bit
        target_network = jax.tree.map(lambda old, new: (1 - share) * old + share * new, state.target, network)
        after = state._replace(network=network, target=target_network, optimiser=memory, updates=updates)
        value = self.values(outputs)
        metrics = {
            "value": value.mean(),
            "value_max": value.max(),
            "target": (target @ self.support if self.categorical else target).mean(),
            "critic_loss": total,
            "critic_gradient_norm": optax.tree.norm(gradient),
            "learning_rate": self.rate(state),
        }
        if not self.noisy:
            metrics["epsilon"] = self.epsilon_at(state.env_steps)
        if self.categorical:
            metrics["support_end_mass"] = jax.nn.softmax(outputs)[:, jnp.array([0, -1])].sum(1).mean()
        if self.prioritised:
            metrics["importance_weight_mean"] = experience.weight.mean()
        return after, jnp.maximum(size, 0.0) + jnp.float32(LEAST_PRIORITY), metrics

    def target(
        self, state: DQNState, experience: Transitions, next_obs: Float[Array, "N D"], key: Key
    ) -> Float[Array, "N"] | Float[Array, "N n"]:
        """Return y, or with `categorical` its distribution over the atoms, from scaled successors."""
        value_key, choice_key = jax.random.split(key)
        ahead = jax.vmap(state.target.drawn(value_key))(next_obs)
        judged = jax.vmap(state.network.drawn(choice_key))(next_obs) if self.double else ahead
        picked = _taken(ahead, jnp.argmax(self.values(judged), axis=-1))
        reward = jnp.float32(self.reward_scale) * experience.reward
        if not self.categorical:
            return reward + experience.discount * picked[:, 0]
        move = jax.vmap(projected, in_axes=(0, None, 0, 0))
        return move(jax.nn.softmax(picked), self.support, reward, experience.discount)

    def losses(
        self, outputs: Float[Array, "N n"], target: Float[Array, "N"] | Float[Array, "N n"]
    ) -> tuple[Float[Array, "N"], Float[Array, "N"]]:
        """Return each transition's loss, and the size of its error, which is its priority.

        The size is |Q - y|, or with `categorical` the KL divergence from the target to the distribution.
        """
        if self.categorical:
            each = jax.vmap(cross_entropy)(target, outputs)
            return each, each + jax.scipy.special.xlogy(target, target).sum(-1)
        error = outputs[:, 0] - target
        return jnp.square(error) if self.loss == "mse" else optax.losses.huber_loss(error), jnp.abs(error)

    def stepped(
        self, network: QNetwork, gradient: QNetwork, memory: Any, rate: Float[Array, ""]
    ) -> tuple[QNetwork, Any]:
        """Return the network after a step of Adam along the clipped gradient, and Adam's memory."""
        if self.gradient_clip is not None:
            length = optax.tree.norm(gradient)
            short = jnp.minimum(1.0, jnp.asarray(self.gradient_clip, jnp.float32) / jnp.maximum(length, 1e-12))
            gradient = jax.tree.map(lambda leaf: leaf * short, gradient)
        return adam_step(network, gradient, memory, rate)


def _taken(outputs: Float[Array, "N A n"], action: Int[Array, "N"]) -> Float[Array, "N n"]:
    """Return the outputs of one choice in each row."""
    return jnp.take_along_axis(outputs, action[:, None, None], axis=1)[:, 0]
