"""Base of what learns from demonstrations: a network that is shown what somebody did, and remembers it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from workhorse.algorithms.replay_learner import ADAM, OBSERVATION_CLIP, adam_step
from workhorse.core.algorithm import Action, Algorithm, Carry, Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.layers import PolicyNetwork, head_for
from workhorse.core.ranges import require_positive
from workhorse.core.spec import Box, Discrete, EnvSpec, MultiBinary, MultiDiscrete
from workhorse.core.types import Demonstrations, Moments
from workhorse.math import moments
from workhorse.math.choices import grouped
from workhorse.networks.heads import action_of, num_outputs
from workhorse.networks.layers import mlp_layers, scaled_layers
from workhorse.networks.mlp import MLP

__all__ = ["CopierState", "CopyActor", "DemonstrationLearner", "nothing_shown", "remembered", "scaled"]


class CopierState(NamedTuple):
    """The whole state.

    Attributes:
        params: the copy, from a scaled observation to an action's components or a score for each choice.
        optimiser: memory of Adam.
        observations: moments of all observations of demonstrations, float64.
        memory: newest demonstrations, a ring.
        seen: demonstrations ever, int64.
    """

    params: MLP
    optimiser: Any
    observations: Moments
    memory: Demonstrations
    seen: Int[Array, ""]


class CopyActor(NamedTuple):
    """The copy, and how observations are scaled: all that acting needs."""

    params: MLP
    mean: Float[Array, "D"]
    inverse_scale: Float[Array, "D"]


@configuration
class DemonstrationLearner(Algorithm):
    """A copy that learns by behaviour cloning from all the demonstrations that it remembers.

    The loss on pairs of an observation and the action shown there is the squared error of a `Box` action's components,
    the cross-entropy of choices, that of switches. It is trained after every iteration, on minibatches drawn uniformly
    from the newest pairs.

    Source: Pomerleau 1991, "Efficient training of artificial neural networks for autonomous navigation".
    """

    consumes = Demonstrations

    spec: EnvSpec
    num_envs: int = 1
    """Slots whose episodes are played side by side, one episode of each an iteration."""
    hidden: tuple[int, ...] = (64, 64)
    """Units of each hidden layer of the copy."""
    learning_rate: float = 1e-3
    """Step size of Adam, which trains the copy."""
    copy_updates: int = 500
    """Updates of the copy after an iteration."""
    copy_batch_size: int = 256
    """Pairs of an update of the copy."""
    memory_size: int = 20_000
    """Pairs of observation and action that the copy learns from, the newest ones."""

    def validate(self) -> None:
        """Raise a `UsageError` where a field is out of range."""
        layers = {f"hidden[{layer}]": units for layer, units in enumerate(self.hidden)}
        positive = ("num_envs", "learning_rate", "copy_updates", "copy_batch_size", "memory_size")
        require_positive(type(self).__name__, **{option: getattr(self, option) for option in positive}, **layers)

    # --- acting ---

    def init(self, key: Key) -> CopierState:
        size = self.spec.observation.size
        params = MLP.create(key, (size, *self.hidden, num_outputs(self.spec.action)), True, 0.01)
        unseen = moments.empty(size, jnp.float64)
        memory = nothing_shown(self.spec, self.memory_size)
        return CopierState(params, ADAM.init(params), unseen, memory, jnp.zeros((), jnp.int64))  # type: ignore[arg-type]

    def actor(self, state: CopierState) -> CopyActor:
        scale = moments.inverse_scale(state.observations)
        return CopyActor(state.params, state.observations.mean.astype(jnp.float32), scale.astype(jnp.float32))

    def act(
        self, actor: CopyActor, carry: Carry, obs: Array, key: Key, *, explore: bool
    ) -> tuple[Action, Carry, tuple[()]]:
        """Take the copy's action, which has no noise."""
        action = action_of(self.spec.action, None, actor.params(scaled(actor, obs)))
        return self.clipped(action) if isinstance(self.spec.action, Box) else action, carry, ()

    def clipped(self, action: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return components of a `Box` action within their bounds; leading axes may be there."""
        assert isinstance(self.spec.action, Box)
        space = self.spec.action
        low, high = (jnp.asarray(bound, jnp.float32).reshape(space.shape) for bound in (space.low, space.high))
        return jnp.clip(action, low, high)

    def policy_layers(self, actor: CopyActor) -> PolicyNetwork:
        layers = (*mlp_layers(actor.params), head_for(self.spec.action))
        return scaled_layers(self.spec.observation, actor.mean, actor.inverse_scale, OBSERVATION_CLIP, layers)

    # --- learning ---

    def update(self, state: CopierState, experience: Demonstrations, key: Key) -> tuple[CopierState, Metrics]:
        """Remember the pairs, and train the copy on minibatches of what is remembered."""
        state = self.remembered(state, experience)
        actor, there = self.actor(state), jnp.maximum(jnp.minimum(state.seen, self.memory_size), 1)
        obs = jax.vmap(lambda one: scaled(actor, one))(state.memory.obs)

        def one(number: Array, carry: tuple[MLP, Any, Array]) -> tuple[MLP, Any, Array]:
            params, optimiser, _ = carry
            rows = jax.random.randint(jax.random.fold_in(key, number), (self.copy_batch_size,), 0, there)
            loss, gradient = jax.value_and_grad(self.copy_loss)(params, obs[rows], state.memory.action[rows])
            return *adam_step(params, gradient, optimiser, self.learning_rate), loss

        start = (state.params, state.optimiser, jnp.zeros((), jnp.float32))
        params, optimiser, loss = jax.lax.fori_loop(0, self.copy_updates, one, start)
        return state._replace(params=params, optimiser=optimiser), {"copy_loss": loss}

    def copy_loss(self, params: MLP, obs: Float[Array, "N D"], action: Action) -> Float[Array, ""]:
        """Return the mean loss of a copy on scaled observations and the actions shown there."""
        return self.losses(jax.vmap(params)(obs), action).mean()

    def losses(self, outputs: Float[Array, "N out"], action: Action) -> Float[Array, "..."]:
        """Return the losses of outputs, one a row for choices, one a component for a `Box` and for switches."""
        match self.spec.action:
            case Box():
                return jnp.square(outputs - action.reshape(outputs.shape))
            case Discrete():
                return -jnp.take_along_axis(jax.nn.log_softmax(outputs), action[:, None], axis=-1)
            case MultiDiscrete(counts):
                scores = jax.nn.log_softmax(jax.vmap(lambda row: grouped(row, counts))(outputs))
                return -jnp.take_along_axis(scores, action[..., None], axis=-1).sum((-1, -2))
        return jax.nn.softplus(jnp.where(action > 0, -outputs, outputs))

    def remembered(self, state: CopierState, experience: Demonstrations) -> CopierState:
        """Return the state with the pairs that are there in its ring, the oldest forgotten, and moments merged."""
        memory, observations, seen = remembered(state.memory, state.observations, state.seen, experience)
        return state._replace(observations=observations, memory=memory, seen=seen)


def nothing_shown(spec: EnvSpec, rows: int) -> Demonstrations:
    """Return a ring of `rows` pairs in which none is there yet."""
    match spec.action:
        case Box(shape=shape):
            action = jnp.zeros((rows, *shape), jnp.float32)
        case MultiDiscrete(counts):
            action = jnp.zeros((rows, len(counts)), jnp.int32)
        case MultiBinary(size):
            action = jnp.zeros((rows, size), jnp.int8)
        case _:
            action = jnp.zeros(rows, jnp.int32)
    return Demonstrations(jnp.zeros((rows, spec.observation.size), jnp.float32), action, jnp.zeros(rows, bool))


def remembered(
    memory: Demonstrations, observations: Moments, seen: Int[Array, ""], experience: Demonstrations
) -> tuple[Demonstrations, Moments, Int[Array, ""]]:
    """Return a ring with the pairs that are there, the oldest forgotten, and moments and count with them."""
    there, rows = experience.is_there, len(memory.is_there)
    obs = experience.obs.reshape(len(there), -1).astype(jnp.float64)
    count = there.sum()
    mean = jnp.where(there[:, None], obs, 0.0).sum(0) / jnp.maximum(count, 1)
    deviation = jnp.where(there[:, None], jnp.square(obs - mean), 0.0).sum(0)
    merged = moments.merge(observations, Moments(count.astype(jnp.float64), mean, deviation))
    rank = jnp.cumsum(there) - 1
    kept = there & (rank >= count - rows)
    place = jnp.where(kept, (seen + rank) % rows, rows)  # the last is nowhere
    written = Demonstrations(
        memory.obs.at[place].set(obs.astype(jnp.float32), mode="drop"),
        memory.action.at[place].set(experience.action.astype(memory.action.dtype), mode="drop"),
        memory.is_there.at[place].set(True, mode="drop"),
    )
    return written, merged, seen + count


def scaled(actor: CopyActor, obs: Float[Array, "..."]) -> Float[Array, "D"]:
    """Return one observation as the copy reads it: flat, centred, scaled and clipped."""
    z = (obs.reshape(-1).astype(jnp.float32) - actor.mean) * actor.inverse_scale
    return jnp.clip(z, jnp.float32(-OBSERVATION_CLIP), jnp.float32(OBSERVATION_CLIP))
