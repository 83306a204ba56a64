"""Normalised advantage functions: Q-learning with continuous actions, because Q is a parabola in the action."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from workhorse.algorithms.replay_learner import (
    ADAM,
    ReplayLearner,
    adam_step,
    moved_towards,
    random_action,
    saturated_share,
)
from workhorse.core.algorithm import Actor, Carry, Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.layers import PolicyNetwork, Squash
from workhorse.core.ranges import require_non_negative
from workhorse.core.types import Moments, Transitions
from workhorse.networks.layers import mlp_layers, scaled_layers
from workhorse.networks.mlp import MLP

__all__ = ["NAF", "Parabola"]

HEAD_SCALE = 0.1
"""Factor of the last layer's weights and biases at the start."""

LOG_DIAGONAL = 5.0
"""Bound, to either side, of what is exponentiated to the diagonal of L."""


class Parabola(NamedTuple):
    """Q as a function of the action, in one state: V - 1/2 (a - mu)^T L L^T (a - mu).

    Attributes:
        value: V, the highest value.
        mean: mu, the action that has it, in [-1, 1].
        root: L, lower triangular, its diagonal above zero.
    """

    value: Float[Array, ""]
    mean: Float[Array, "A"]
    root: Float[Array, "A A"]

    def at(self, action: Float[Array, "A"]) -> Float[Array, ""]:
        """Return Q of an action.

        Example:
            >>> one = Parabola(jnp.float32(3.0), jnp.array([0.5, 0.0]), jnp.array([[2.0, 0.0], [1.0, 1.0]]))
            >>> float(one.at(jnp.array([0.5, 0.0]))), float(one.at(jnp.array([1.0, 1.0])))
            (3.0, 0.5)
        """
        return self.value - 0.5 * jnp.square(self.root.T @ (action - self.mean)).sum()


class NAFState(NamedTuple):
    """The whole state.

    Attributes:
        network: from observation to V, then mu before tanh, then the entries of L, row by row.
        target: of the same shape, of which V is taken; it follows the network.
        optimiser: of the network.
        observations, env_steps, updates: see `ReplayLearner`.
    """

    network: MLP
    target: MLP
    optimiser: Any
    observations: Moments
    env_steps: Int[Array, ""]
    updates: Int[Array, ""]


class NAFActor(NamedTuple):
    network: MLP
    scaling: tuple[Float[Array, "D"], Float[Array, "D"]]
    is_warming_up: Bool[Array, ""]


@configuration
class NAF(ReplayLearner):
    """One network, from the state alone to a parabola in the action whose top is both the policy and the value.

        Q(s, a) = V(s) - 1/2 (a - mu(s))^T P(s) (a - mu(s)),   P = L L^T
        y       = r + gamma (1 - terminated) V'(s')
        loss:     mean (Q(s, a) - y)^2

    mu is tanh of an output, in [-1, 1]. L is lower triangular, its diagonal the exponential of outputs clipped to
    [-5, 5]. *None of the three reads the action*: else Q is no parabola in it, mu is not the best action, and V(s') is
    not max_a Q(s', a).

    Exploration adds noise to mu and clips the sum to [-1, 1]. The noise is drawn anew at each step ("gaussian"), or
    correlated in time ("ou"; each slot remembers it, and it starts at 0 in every episode), or wide where the parabola
    is flat ("precision": a ~ N(mu, P^-1)):

        ou:  x_0 = 0,   x_t = (1 - theta) x_{t-1} + sigma e_t,   e_t ~ N(0, 1)

    With `unit_norm`, V is at most sqrt(units of the last hidden layer + 1), so that `reward_scale` has to bring values
    below that.

    Source: Gu et al. 2016, "Continuous deep Q-learning with model-based acceleration" (arXiv 1603.00748), without its
    model. The bound on mu, the clip of the diagonal, the smaller heads at the start, and 5 updates a step with batches
    of 100 are those of public implementations.
    """

    name = "naf"
    summary = "Q-learning with a Q that is a parabola in the action, from a replay"
    takes = "box"

    replay_ratio: float = 500.0
    """Samples trained on for each environment step after the warm-up: 500 are five batches of 100."""
    batch_size: int = 100
    """Transitions of an update."""
    warmup_env_steps: int = 1_000
    """Environment steps with random actions, before the first update."""
    hidden: tuple[int, ...] = (200, 200)
    """Units of each hidden layer."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Of the hidden units."""
    learning_rate: float = 1e-3
    """Step size of Adam."""
    target_rate: float = 1e-3
    """Share of the way that the target network goes towards the learning one at each update."""
    noise: Literal["ou", "gaussian", "precision", "none"] = "ou"
    """Exploration noise: correlated in time, drawn anew at each step, by the precision P, or none."""
    noise_std: float = 0.3
    """Standard deviation sigma of what is drawn at each step, in units of half the range of an action."""
    noise_reversion: float = 0.15
    """Share theta of the correlated noise that is lost at each step."""
    unit_norm: bool = False
    """Rescale the weights and the bias of every unit, as one vector, to length 1 at the start and after each step."""

    def validate(self) -> None:
        super().validate()
        require_non_negative("NAF", noise_std=self.noise_std)
        if not 0 < self.noise_reversion <= 1:
            raise UsageError(f"NAF.noise_reversion must be in (0, 1]: got {self.noise_reversion}.")
        if self.noise != "ou" and self.noise_reversion != NAF.noise_reversion:
            raise UsageError(
                f'NAF.noise_reversion has no effect with noise="{self.noise}": leave it out, or set noise to ou.'
            )
        if self.noise in ("precision", "none") and self.noise_std != NAF.noise_std:
            raise UsageError(f'NAF.noise_std has no effect with noise="{self.noise}": leave one of the two out.')

    # --- acting ---

    def init(self, key: Key) -> NAFState:
        actions = self.action_size
        outputs = 1 + actions + actions * (actions + 1) // 2
        network = MLP.uniform(key, (self.spec.observation.size, *self.hidden, outputs), self.activation)
        *weights, heads = network.weights
        *biases, offsets = network.biases
        scale = jnp.float32(HEAD_SCALE)
        network = self.constrained(MLP((*weights, scale * heads), (*biases, scale * offsets), self.activation))
        return NAFState(network, network, ADAM.init(network), **self.counters())  # type: ignore[arg-type]

    def actor(self, state: NAFState) -> NAFActor:
        return NAFActor(state.network, self.scaling(state.observations), self.is_warming_up(state))

    def begin(self, actor: Actor, slot: Int[Array, ""]) -> Carry:
        """Return the noise at the start of an episode: zero where it is correlated, else nothing."""
        return jnp.zeros(self.action_size, jnp.float32) if self.noise == "ou" else ()

    def act(
        self, actor: NAFActor, carry: Carry, obs: Float[Array, "..."], key: Key, *, explore: bool
    ) -> tuple[Array, Carry, tuple[()]]:
        """Take the best action mu, with noise where `explore`; draw it uniformly during the warm-up."""
        shape = self.spec.action.shape  # type: ignore[union-attr]
        found = self.parabola(actor.network, self.seen(actor.scaling, obs))
        if not explore:
            return found.mean.reshape(shape), carry, ()
        noise_key, random_key = jax.random.split(key)
        noise, carry = self.explored(found, carry, noise_key)
        noisy = jnp.clip(found.mean + noise, jnp.float32(-1.0), jnp.float32(1.0)).reshape(shape)
        return jnp.where(actor.is_warming_up, random_action(self.spec, random_key), noisy), carry, ()

    def explored(self, found: Parabola, carry: Carry, key: Key) -> tuple[Float[Array, "A"], Carry]:
        """Return the noise of a step, and what the slot remembers of it."""
        drawn = jax.random.normal(key, (self.action_size,), jnp.float32)
        if self.noise == "precision":  # the covariance of L^-T e is (L L^T)^-1
            return jax.scipy.linalg.solve_triangular(found.root, drawn, trans="T", lower=True), carry
        drawn = jnp.asarray(self.noise_std, jnp.float32) * drawn
        if self.noise == "ou":
            drawn = (1 - jnp.asarray(self.noise_reversion, jnp.float32)) * carry + drawn
            return drawn, drawn
        return (drawn if self.noise == "gaussian" else jnp.zeros_like(drawn)), carry

    def policy_layers(self, actor: NAFActor) -> PolicyNetwork:
        *hidden, heads = actor.network.weights
        *biases, offsets = actor.network.biases
        mean = slice(1, 1 + self.action_size)
        means = MLP((*hidden, heads[mean]), (*biases, offsets[mean]), self.activation)
        scaling = self.artefact_scaling(actor.scaling)
        return scaled_layers(self.spec.observation, *scaling, (*mlp_layers(means), Squash()))

    # --- learning ---

    def parabola(self, network: MLP, obs: Float[Array, "D"]) -> Parabola:
        """Return Q in the state of a scaled observation, as a function of the action."""
        outputs, actions = network(obs), self.action_size
        entries = jnp.zeros((actions, actions), jnp.float32).at[np.tril_indices(actions)].set(outputs[1 + actions :])
        diagonal = jnp.exp(jnp.clip(jnp.diagonal(entries), jnp.float32(-LOG_DIAGONAL), jnp.float32(LOG_DIAGONAL)))
        return Parabola(outputs[0], jnp.tanh(outputs[1 : 1 + actions]), self._below(entries) + jnp.diag(diagonal))

    def _below(self, entries: Float[Array, "A A"]) -> Float[Array, "A A"]:
        """Return what is below the diagonal; `jnp.tril` would make numbers of 64 bits for it."""
        return jnp.where(np.tril(np.ones(entries.shape, bool), -1), entries, jnp.float32(0.0))

    def learn(self, state: NAFState, experience: Transitions, key: Key) -> tuple[NAFState, Float[Array, "N"], Metrics]:
        """Do one update on a batch."""
        obs, next_obs = self.both_seen(state, experience)
        action = experience.action.reshape(len(obs), -1)
        target = self.target(state, experience, next_obs)

        def loss(network: MLP) -> tuple[Array, tuple[Array, Array, Parabola]]:
            found = jax.vmap(lambda one: self.parabola(network, one))(obs)
            value = jax.vmap(Parabola.at)(found, action)
            error = value - target
            return (experience.weight * jnp.square(error)).mean(), (value, error, found)

        gradient, (value, error, found) = jax.grad(loss, has_aux=True)(state.network)
        network, memory = adam_step(state.network, gradient, state.optimiser, self.learning_rate)
        network = self.constrained(network)
        after = state._replace(
            network=network,
            target=moved_towards(state.target, network, self.target_rate),
            optimiser=memory,
            updates=state.updates + 1,
        )
        metrics = {
            "value": value.mean(), "value_max": value.max(), "target": target.mean(),
            "critic_loss": jnp.square(error).mean(), "critic_gradient_norm": optax.tree.norm(gradient),
            "saturated_actions": saturated_share(found.mean),
            "precision_max": jnp.square(found.root).sum(-1).max(),  # the diagonal of L L^T
        }  # fmt: skip
        return after, jnp.abs(error), metrics

    def action_value(self, state: NAFState, obs: Array, action: Array) -> Float[Array, ""]:
        found = self.parabola(state.network, self.seen(self.scaling(state.observations), obs))
        return found.at(action.reshape(-1).astype(jnp.float32)) / jnp.asarray(self.reward_scale, jnp.float32)

    def target(self, state: NAFState, experience: Transitions, next_obs: Float[Array, "N D"]) -> Float[Array, "N"]:
        """Return y, from scaled successors."""
        value = jax.vmap(state.target)(next_obs)[:, 0]
        return jnp.asarray(self.reward_scale, jnp.float32) * experience.reward + experience.discount * value

    def constrained(self, network: MLP) -> MLP:
        """Return the network with weights of length 1, where that is asked for."""
        return _unit_norm(network) if self.unit_norm else network


def _unit_norm(network: MLP) -> MLP:
    """Return the network with every unit's weights and bias, as one vector, rescaled to length 1."""
    pairs = list(zip(network.weights, network.biases, strict=True))
    lengths = [jnp.sqrt(jnp.square(weight).sum(1) + jnp.square(bias)) for weight, bias in pairs]
    weights = tuple(weight / length[:, None] for weight, length in zip(network.weights, lengths, strict=True))
    biases = tuple(bias / length for bias, length in zip(network.biases, lengths, strict=True))
    return MLP(weights, biases, network.activation)
