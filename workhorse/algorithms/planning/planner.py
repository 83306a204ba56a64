"""Base of every planner: what is minded of a trial, and the copy, a network that is shown what the planner did."""

from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.interpolate import CubicSpline

from workhorse.algorithms.replay_learner import ADAM, OBSERVATION_CLIP, adam_step
from workhorse.core.algorithm import Action, Carry, Key, Metrics, Planner
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.layers import PolicyNetwork, head_for
from workhorse.core.ranges import require_positive
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Demonstrations, Moments, Tried
from workhorse.math import moments
from workhorse.networks.heads import action_of, num_outputs
from workhorse.networks.layers import mlp_layers, scaled_layers
from workhorse.networks.mlp import MLP

__all__ = ["BoxPlanner", "Copier", "CopierState", "WarmPlan", "knot_basis", "shifted"]


class CopierState(NamedTuple):
    """The whole state of a planner: it is the copy's.

    Attributes:
        params: the copy, from a scaled observation to an action's components or a score for each choice.
        optimiser: memory of Adam.
        observations: moments of all observations acted on, float64.
        memory: newest demonstrations, a ring.
        seen: demonstrations ever, int64.
    """

    params: MLP
    optimiser: Any
    observations: Moments
    memory: Demonstrations
    seen: Int[Array, ""]


class CopyActor(NamedTuple):
    params: MLP
    mean: Float[Array, "D"]
    inverse_scale: Float[Array, "D"]


@configuration
class Copier(Planner):
    """A planner whose copy learns by behaviour cloning.

    The copy's loss on pairs of an observation and the planner's action there is the squared error of a `Box` action's
    components, and the cross-entropy of a choice. It is trained after every iteration, on minibatches drawn uniformly
    from the newest pairs.

    Source: Pomerleau 1991, "Efficient training of artificial neural networks for autonomous navigation".
    """

    takes: ClassVar[Literal["box", "discrete"]]
    """Kind of actions that the planner can take."""

    spec: EnvSpec
    num_envs: int = 1
    """Slots whose episodes are planned side by side, one episode of each an iteration."""
    horizon: int = 30
    """Steps of a plan."""
    minds_ends: bool = True
    """Leave rewards after an end of the task out of a plan's return; else they count as the simulator gives them."""
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
        """Raise a `UsageError` where a field is out of range or the task's actions cannot be taken."""
        name = type(self).__name__
        layers = {f"hidden[{layer}]": units for layer, units in enumerate(self.hidden)}
        positive = ("num_envs", "horizon", "learning_rate", "copy_updates", "copy_batch_size", "memory_size")
        require_positive(name, **{option: getattr(self, option) for option in positive}, **layers)
        action, task = self.spec.action, self.spec.task
        if self.takes == "box" and not isinstance(action, Box):
            if isinstance(action, Discrete):
                raise UsageError(
                    f"{name} plans continuous actions, but those of {task} are choices: choose categorical-cem, uct or "
                    "iw."
                )
            raise UsageError(
                f"{name} plans continuous actions, but those of {task} are several choices at once, for which there is "
                "no planner: choose random-search, cem or ppo."
            )
        if self.takes == "discrete" and not isinstance(action, Discrete):
            remedy = "icem, mppi or predictive-sampling" if isinstance(action, Box) else "random-search, cem or ppo"
            raise UsageError(
                f"{name} plans one choice of several, but {task} has {_in_words(action)}: choose {remedy}."
            )

    def returns(self, tried: Tried) -> tuple[Float[Array, "N"], Float[Array, "N H"]]:
        """Return the plans' returns, and their rewards with 0 after an end where ends are minded."""
        if not self.minds_ends:
            return tried.reward.sum(-1), tried.reward
        ended = jnp.cumsum(tried.terminated, axis=-1) - tried.terminated > 0  # before this step
        reward = jnp.where(ended, 0.0, tried.reward)
        return reward.sum(-1), reward

    # --- the copy ---

    def init(self, key: Key) -> CopierState:
        size = self.spec.observation.size
        params = MLP.create(key, (size, *self.hidden, num_outputs(self.spec.action)), True, 0.01)
        action = jnp.zeros((), jnp.int32)
        if isinstance(self.spec.action, Box):
            action = jnp.zeros(self.spec.action.shape, jnp.float32)
        memory = Demonstrations(
            jnp.zeros((self.memory_size, size), jnp.float32),
            jnp.zeros((self.memory_size, *action.shape), action.dtype),
            jnp.zeros(self.memory_size, bool),
        )
        unseen = moments.empty(size, jnp.float64)
        return CopierState(params, ADAM.init(params), unseen, memory, jnp.zeros((), jnp.int64))  # type: ignore[arg-type]

    def actor(self, state: CopierState) -> CopyActor:
        scale = moments.inverse_scale(state.observations)
        return CopyActor(state.params, state.observations.mean.astype(jnp.float32), scale.astype(jnp.float32))

    def act(
        self, actor: CopyActor, carry: Carry, obs: Array, key: Key, *, explore: bool
    ) -> tuple[Action, Carry, tuple[()]]:
        """Take the copy's action; where `explore`, the first one of the plan, which is shifted by a step."""
        if explore:
            return *self.advance(carry, key), ()
        action = action_of(self.spec.action, None, actor.params(_scaled(actor, obs)))
        return self.clipped(action) if isinstance(self.spec.action, Box) else action, carry, ()

    def advance(self, carry: Carry, key: Key) -> tuple[Action, Carry]:
        """Return the plan's first action, and what is remembered a step later."""
        raise NotImplementedError

    def clipped(self, action: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return components of a `Box` action within their bounds; leading axes may be there."""
        assert isinstance(self.spec.action, Box)
        space = self.spec.action
        low, high = (jnp.asarray(bound, jnp.float32).reshape(space.shape) for bound in (space.low, space.high))
        return jnp.clip(action, low, high)

    def policy_layers(self, actor: CopyActor) -> PolicyNetwork:
        layers = (*mlp_layers(actor.params), head_for(self.spec.action))
        return scaled_layers(self.spec.observation, actor.mean, actor.inverse_scale, OBSERVATION_CLIP, layers)

    def demonstrations(self, state: CopierState) -> Demonstrations:
        return state.memory

    def update(self, state: CopierState, experience: Demonstrations, key: Key) -> tuple[CopierState, Metrics]:
        """Remember the pairs, and train the copy on minibatches of what is remembered."""
        state = self.remembered(state, experience)
        actor, there = self.actor(state), jnp.maximum(jnp.minimum(state.seen, self.memory_size), 1)
        obs = jax.vmap(lambda one: _scaled(actor, one))(state.memory.obs)

        def one(number: Array, carry: tuple[MLP, Any, Array]) -> tuple[MLP, Any, Array]:
            params, optimiser, _ = carry
            rows = jax.random.randint(jax.random.fold_in(key, number), (self.copy_batch_size,), 0, there)
            loss, gradient = jax.value_and_grad(self.copy_loss)(params, obs[rows], state.memory.action[rows])
            return *adam_step(params, gradient, optimiser, self.learning_rate), loss

        start = (state.params, state.optimiser, jnp.zeros((), jnp.float32))
        params, optimiser, loss = jax.lax.fori_loop(0, self.copy_updates, one, start)
        return state._replace(params=params, optimiser=optimiser), {"copy_loss": loss}

    def copy_loss(self, params: MLP, obs: Float[Array, "N D"], action: Action) -> Float[Array, ""]:
        """Return the mean loss of a copy on scaled observations and the actions taken there."""
        outputs = jax.vmap(params)(obs)
        if isinstance(self.spec.action, Box):
            return jnp.square(outputs - action.reshape(outputs.shape)).mean()
        return -jnp.take_along_axis(jax.nn.log_softmax(outputs), action[:, None], axis=-1).mean()

    def remembered(self, state: CopierState, experience: Demonstrations) -> CopierState:
        """Return the state with the pairs that are there in its ring, the oldest forgotten, and moments merged."""
        there = experience.is_there
        obs = experience.obs.reshape(len(there), -1).astype(jnp.float64)
        count = there.sum()
        mean = jnp.where(there[:, None], obs, 0.0).sum(0) / jnp.maximum(count, 1)
        deviation = jnp.where(there[:, None], jnp.square(obs - mean), 0.0).sum(0)
        seen = moments.merge(state.observations, Moments(count.astype(jnp.float64), mean, deviation))
        rank = jnp.cumsum(there) - 1
        kept = there & (rank >= count - self.memory_size)
        place = jnp.where(kept, (state.seen + rank) % self.memory_size, self.memory_size)  # the last is nowhere
        memory = Demonstrations(
            state.memory.obs.at[place].set(obs.astype(jnp.float32), mode="drop"),
            state.memory.action.at[place].set(experience.action.astype(state.memory.action.dtype), mode="drop"),
            state.memory.is_there.at[place].set(True, mode="drop"),
        )
        return state._replace(observations=seen, memory=memory, seen=state.seen + count)


class WarmPlan(NamedTuple):
    """A slot's plan.

    Attributes:
        plan: actions, float32 (H, ...).
        reward: of each step as it was tried, float64 (H,); NaN where it was not.
    """

    plan: Float[Array, "H ..."]
    reward: Float[Array, "H"]


@configuration
class BoxPlanner(Copier):
    """A planner of continuous actions that remembers one plan.

    Plans are the remembered one plus noise, clipped to the bounds. *Noise is drawn at a few knots and interpolated*,
    while the plan itself has a value for each step: so it is shifted exactly by a step.
    """

    takes = "box"

    num_plans: int = 32
    """Plans tried in a round."""
    num_rounds: int = 1
    """Rounds of trials before an action."""
    noise_std: float = 0.5
    """Standard deviation of the noise at a knot, in units of half the range of an action."""
    num_knots: int = 6
    """Knots over the horizon at which noise is drawn; between them it is interpolated."""
    interpolation: Literal["constant", "linear", "cubic"] = "cubic"
    """How noise is interpolated between knots."""

    def validate(self) -> None:
        super().validate()
        name = type(self).__name__
        require_positive(name, num_rounds=self.num_rounds, noise_std=self.noise_std, num_knots=self.num_knots)
        if self.num_plans < 3:
            raise UsageError(
                f"{name}.num_plans must be at least 3, for one plan is the former one and one stands still: got "
                f"{self.num_plans}."
            )

    @property
    def round_sizes(self) -> tuple[int, ...]:
        return (self.num_plans,) * self.num_rounds

    def begin(self, actor: CopyActor, slot: Int[Array, ""]) -> WarmPlan:
        """Return the plan that stands still: zeros, moved into the bounds."""
        assert isinstance(self.spec.action, Box)
        still = self.clipped(jnp.zeros((self.horizon, *self.spec.action.shape), jnp.float32))
        return WarmPlan(still, jnp.full(self.horizon, jnp.nan, jnp.float64))

    def propose(self, actor: CopyActor, carry: WarmPlan, key: Key, *, round: Int[Array, ""], count: int) -> Action:
        """Return the former plan, one that stands still, and the former plan with noise."""
        noisy = self.clipped(carry.plan + self.noise(key, count))
        return noisy.at[0].set(carry.plan).at[1].set(self.begin(actor, jnp.asarray(0)).plan)

    def noise(self, key: Key, count: int) -> Float[Array, "N H ..."]:
        """Draw noise in the units of an action."""
        assert isinstance(self.spec.action, Box)
        space = self.spec.action
        basis = jnp.asarray(knot_basis(self.horizon, self.num_knots, self.interpolation), jnp.float32)
        drawn = jax.random.normal(key, (count, basis.shape[1], space.size), jnp.float32)
        scale = jnp.asarray(self.noise_std, jnp.float32) * jnp.asarray(space.middle_and_half()[1])
        return jnp.einsum("hk,nka->nha", basis, drawn).reshape(count, self.horizon, *space.shape) * scale

    def plan(self, carry: WarmPlan) -> tuple[Action, Float[Array, "H"]]:
        return carry.plan, carry.reward

    def advance(self, carry: WarmPlan, key: Key) -> tuple[Action, WarmPlan]:
        return carry.plan[0], carry._replace(plan=shifted(carry.plan))


def shifted(plan: Array) -> Array:
    """Return a plan a step later; its last action is held for one step more.

    Example:
        >>> shifted(jnp.array([1, 2, 3])).tolist()
        [2, 3, 3]
    """
    return jnp.concatenate([plan[1:], plan[-1:]])


def knot_basis(horizon: int, num_knots: int, interpolation: str) -> Float[np.ndarray, "H K"]:
    """Return the matrix that interpolates values at evenly spaced knots, the first and the last at the plan's ends.

    More knots than steps are one a step. "constant" holds a knot's value until the next knot.

    Example:
        >>> knot_basis(5, 2, "linear").T.tolist()
        [[1.0, 0.75, 0.5, 0.25, 0.0], [0.0, 0.25, 0.5, 0.75, 1.0]]
    """
    if num_knots >= horizon:
        return np.eye(horizon)
    if num_knots == 1:
        return np.ones((horizon, 1))
    steps = np.arange(horizon)
    if interpolation == "constant":
        return np.eye(num_knots)[steps * num_knots // horizon]
    knots = np.linspace(0, horizon - 1, num_knots)
    if interpolation == "linear":
        return np.stack([np.interp(steps, knots, unit) for unit in np.eye(num_knots)], axis=1)
    return CubicSpline(knots, np.eye(num_knots), bc_type="natural")(steps)


def _scaled(actor: CopyActor, obs: Float[Array, "..."]) -> Float[Array, "D"]:
    z = (obs.reshape(-1).astype(jnp.float32) - actor.mean) * actor.inverse_scale
    return jnp.clip(z, jnp.float32(-OBSERVATION_CLIP), jnp.float32(OBSERVATION_CLIP))


def _in_words(space: Any) -> str:
    return "continuous actions" if isinstance(space, Box) else "several choices at once"
