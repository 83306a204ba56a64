"""Base of every policy gradient: acting, scaling, advantages, and what is measured of an update."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from workhorse.algorithms.policy_gradient import health
from workhorse.algorithms.policy_gradient.batch import (
    Acted,
    Batch,
    GradientState,
    Memory,
    PolicyActor,
    Transition,
    flattened,
)
from workhorse.algorithms.policy_gradient.measures import (
    explained_variance,
    gradient_agreement,
    policy_change,
    probability_ratio,
    surrogate_gain,
)
from workhorse.core.algorithm import Carry, Differentiable, Key, Metrics, OnPolicy, Params
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.layers import PolicyNetwork, head_for
from workhorse.core.ranges import require_non_negative, require_positive
from workhorse.core.spec import Box, EnvSpec
from workhorse.core.types import Moments, Rollout
from workhorse.math import moments
from workhorse.math.distributions import Distribution
from workhorse.math.returns import discounted_sum, lambda_advantages, lambda_returns
from workhorse.networks.actor_critic import ActorCritic
from workhorse.networks.layers import mlp_layers, scaled_layers
from workhorse.networks.mlp import MLP
from workhorse.networks.recurrent import Recurrent, recurrent_layers, unroll

__all__ = ["PLAIN", "PolicyGradient"]


PLAIN = {
    "orthogonal_initialisation": False,
    "scale_rewards": False,
    "reward_clip": None,
    "normalise_observations": False,
    "observation_clip": None,
    "gradient_clip": None,
    "anneal_learning_rate": False,
    "activation": "relu",
}
"""Every code-level optimisation of Engstrom et al. 2020 off: their PPO-M, and TRPO."""

Loss = Callable[[ActorCritic, Batch], tuple[Float[Array, ""], dict[str, Array]]]
"""Networks and a batch (N,) to a loss and its parts."""


@configuration
class PolicyGradient(OnPolicy, Differentiable):
    """A stochastic policy and a value function, learnt from rollouts of `num_envs` slots and `rollout_steps` steps.

    With s a running standard deviation of the discounted sum of rewards, r the reward over s, clipped,

        A_t = d_t + gamma lambda A_{t+1},   d_t = r_t + gamma V(o_{t+1}) - V(o_t),

    the sum ending at the end of an episode. The successor's value is zero where the task terminated, and that of the
    true successor where only a clock cut the episode or the rollout ended.

    Every code-level optimisation is a switch, on or off by itself. Sources: [E] Engstrom et al. 2020, "Implementation
    matters in deep policy gradients" (arXiv 2005.12729); [A] Andrychowicz et al. 2021, "What matters in on-policy
    reinforcement learning?" (arXiv 2006.05990).
    """

    spec: EnvSpec
    num_envs: int = 8
    """Slots trained on, side by side."""
    held_out_envs: int = 1
    """Slots more whose steps are only measured on, never trained on; their steps are counted apart."""
    rollout_steps: int = 256
    """Steps of each slot an iteration."""
    policy: Literal["linear", "mlp", "gru"] = "mlp"
    """Networks: linear, perceptrons, or with memory (a gated recurrent unit, then a perceptron)."""
    hidden: tuple[int, ...] = (64, 64)
    """Units of each hidden layer of `mlp`, in policy and value function; the first of `gru` is the memory."""
    learning_rate: float = 3e-4
    """Step size of the optimiser, before annealing."""
    discount: float = 0.99
    """Weight of a reward one step later, gamma."""
    trace: float = 0.95
    """Weight of later errors in an advantage, lambda: 0 trusts the value function, 1 the rewards."""
    log_std: float = 0.0
    """Logarithm of the actions' standard deviation at the start."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Hidden units: tanh [E8, A: tanh is better], or rectified."""
    orthogonal_initialisation: bool = True
    """Orthogonal weights, the policy's last layer a hundred times smaller [E3, A]; else Glorot's uniform ones."""
    normalise_observations: bool = True
    """Centre and scale observations by their running moments, those of the iterations before [E6, A: crucial]."""
    observation_clip: float | None = 10.0
    """Clip scaled observations to plus or minus this [E7]; None for no bound."""
    scale_rewards: bool = True
    """Divide rewards by the running standard deviation of their discounted sum; nothing is subtracted [E2]."""
    reward_clip: float | None = 10.0
    """Clip rewards, after scaling, to plus or minus this [E5]; None for no bound."""
    normalise_advantages: Literal["minibatch", "batch", "none"] = "minibatch"
    """Centre advantages and divide them by their standard deviation: in each minibatch, in the whole, or not."""
    gradient_clip: float | None = 0.5
    """Shorten gradients to this 2-norm over all parameters together [E9]; None for no bound."""
    anneal_learning_rate: bool = True
    """Let the learning rate fall to zero, linearly, over `anneal_env_steps` [E4]."""
    anneal_env_steps: int = 0
    """Training steps over which it falls; 0 for the budget of the run."""
    measure_gradients: bool = True
    """Measure how far parts of the rollout agree on the gradient: one more backward pass of the policy an iteration."""

    measure_health: bool = True
    """Measure what warnings are made of: draws, scales, hidden units, residuals of the value."""

    def validate(self) -> None:
        """Raise a `UsageError` where a field is out of range."""
        name = type(self).__name__
        sizes = (
            {f"hidden[{layer}]": units for layer, units in enumerate(self.hidden)} if self.policy != "linear" else {}
        )
        require_positive(
            name, learning_rate=self.learning_rate, num_envs=self.num_envs, rollout_steps=self.rollout_steps, **sizes
        )
        bounds = {
            option: value
            for option in ("observation_clip", "reward_clip", "gradient_clip")
            if (value := getattr(self, option)) is not None
        }
        require_positive(name, **bounds)
        require_non_negative(name, held_out_envs=self.held_out_envs, anneal_env_steps=self.anneal_env_steps)
        for option in ("discount", "trace"):
            if not 0 <= getattr(self, option) <= 1:
                raise UsageError(f"{name}.{option} must be in [0, 1]: got {getattr(self, option)}.")
        choices = {
            "policy": ("linear", "mlp", "gru"),
            "activation": ("tanh", "relu"),
            "normalise_advantages": ("minibatch", "batch", "none"),
        }
        for option, known in choices.items():
            if getattr(self, option) not in known:
                raise UsageError(f"{name}.{option} must be one of {', '.join(known)}: got {getattr(self, option)!r}.")
        if self.normalise_advantages != "none" and self.num_envs * self.rollout_steps < 2:
            raise UsageError(
                f"{name} must learn from at least 2 steps where advantages are normalised, because a single one less "
                "its own mean is 0: got num_envs=1 and rollout_steps=1. Raise one of them."
            )
        if self.is_recurrent and not self.hidden:
            raise UsageError(f"{name}.hidden must name the units of the memory where policy is 'gru': got none.")
        if not np.isfinite(self.log_std):
            raise UsageError(f"{name}.log_std must be finite: got {self.log_std}.")

    @property
    def is_recurrent(self) -> bool:
        """True where the networks have memory."""
        return self.policy == "gru"

    # --- acting ---

    def init(self, key: Key) -> GradientState:
        """A learner that has seen nothing."""
        params = ActorCritic.create(
            key,
            self.spec.observation.size,
            self.spec.action,
            () if self.policy == "linear" else self.hidden,
            activation=self.activation,
            is_orthogonal=self.orthogonal_initialisation,
            is_recurrent=self.is_recurrent,
            log_std=self.log_std,
        )
        as_tree: Any = params  # optax's types know no named tuples of modules
        unseen = moments.empty(self.spec.observation.size, jnp.float64)
        zero = jnp.zeros((), jnp.int64)
        return GradientState(
            params,
            self.optimiser().init(as_tree),
            unseen,
            moments.empty(1, jnp.float64),
            jnp.zeros(self.num_slots, jnp.float32),
            zero,
            zero,
            jnp.zeros((self.num_slots, self.hidden[0]), jnp.float32) if self.is_recurrent else (),
        )

    def actor(self, state: GradientState) -> PolicyActor:
        """The policy and the scaling that acts in the next rollout."""
        mean, inverse_scale = self._scaling(state.observations)
        return PolicyActor(state.params.policy, mean, inverse_scale)

    def begin(self, actor: PolicyActor, slot: Int[Array, ""]) -> Carry:
        """Return the policy's memory at the start of an episode; nothing where it has none."""
        network = actor.policy.network
        return network.start() if isinstance(network, Recurrent) else ()

    def act(
        self, actor: PolicyActor, carry: Carry, obs: Float[Array, "..."], key: Key, *, explore: bool
    ) -> tuple[Array, Carry, Acted]:
        """Draw an action where `explore`, else take the likeliest, clipped to the task's bounds."""
        if self.is_recurrent:
            distribution, carry = actor.policy.recall(self.scaled(actor, obs), carry)
        else:
            distribution = actor.policy(self.scaled(actor, obs))
        drawn = distribution.sample(key) if explore else distribution.mode()
        action = drawn
        if isinstance(self.spec.action, Box):
            low, high = (jnp.asarray(bound, jnp.float32) for bound in (self.spec.action.low, self.spec.action.high))
            action = jnp.clip(drawn, low, high).reshape(self.spec.action.shape)
        return action, carry, Acted(drawn, distribution.log_prob(drawn))

    def policy_layers(self, actor: PolicyActor) -> PolicyNetwork:
        """Return the policy as the named layers that an artefact holds, with the distribution to draw from."""
        head = head_for(self.spec.action, log_std=actor.policy.log_std, draws=True)
        network = actor.policy.network
        hidden = mlp_layers(network) if isinstance(network, MLP) else recurrent_layers(network)
        layers = (*hidden, head)
        return scaled_layers(self.spec.observation, actor.mean, actor.inverse_scale, self.observation_clip, layers)

    def scaled(self, actor: PolicyActor, obs: Float[Array, "..."]) -> Float[Array, "D"]:
        """Z = clip((obs - mean) * inverse_scale); matrices and images are flattened first."""
        z = (obs.reshape(-1).astype(jnp.float32) - actor.mean) * actor.inverse_scale
        if self.observation_clip is None:
            return z
        bound = jnp.float32(self.observation_clip)
        return jnp.clip(z, -bound, bound)

    def _scaling(self, observations: Moments) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
        if not self.normalise_observations:
            size = self.spec.observation.size
            return jnp.zeros(size, jnp.float32), jnp.ones(size, jnp.float32)
        return observations.mean.astype(jnp.float32), moments.inverse_scale(observations).astype(jnp.float32)

    # --- learning ---

    def params(self, state: GradientState) -> dict[str, Params]:
        """The networks that objectives are differentiated by."""
        return state.params._asdict()

    def loss(
        self, objective: str, params: dict[str, Params], state: GradientState, experience: Rollout, key: Key
    ) -> tuple[Float[Array, ""], Metrics]:
        """An objective of the slots trained on, to be minimised.

        policy: -E[rho A], A normalised over the rollout. value: E[(V - G)^2] / 2.

        Raises:
            ValueError: there is no objective of that name.
        """
        batch = jax.tree.map(lambda leaf: leaf[:, : self.num_envs], self.batch(state, experience)[0])
        distributions, value, flat = self.read(ActorCritic(**params), self.arranged(batch))
        match objective:
            case "policy":
                ratio = probability_ratio(distributions, flat.drawn, flat.log_prob)
                advantage = (flat.advantage - flat.advantage.mean()) / (flat.advantage.std() + 1e-8)
                return -(flat.weight * ratio * advantage).mean(), {}
            case "value":
                error = jnp.square(value - flat.target)
                return 0.5 * (flat.weight * error).mean(), {}
        raise ValueError(f"{self.name} has the objectives 'policy' and 'value': got {objective!r}.")

    @abstractmethod
    def improve(
        self, state: GradientState, batch: Batch, rate: Float[Array, ""], key: Key
    ) -> tuple[ActorCritic, Any, dict[str, Array]]:
        """New networks, the optimiser's new memory, and metrics, from the training batch (T, B) at a learning rate."""

    def optimiser(self) -> optax.GradientTransformation:
        """Turns gradients into directions of length about one, to be multiplied by the learning rate."""
        clip = optax.identity() if self.gradient_clip is None else optax.clip_by_global_norm(self.gradient_clip)
        return optax.chain(clip, optax.scale_by_adam(eps=1e-5))

    def annealed(self, state: GradientState) -> Float[Array, ""]:
        """The learning rate of this iteration."""
        rate = jnp.asarray(self.learning_rate, jnp.float32)
        if not self.anneal_learning_rate or not self.anneal_env_steps:
            return rate
        done = state.env_steps.astype(jnp.float32) / self.anneal_env_steps
        return rate * jnp.maximum(1.0 - done, 0.0)

    def update(self, state: GradientState, experience: Rollout, key: Key) -> tuple[GradientState, dict[str, Array]]:
        """One iteration of learning from a rollout (T, B)."""
        batch, sums, sum_so_far = self.batch(state, experience)
        training, held_out = (jax.tree.map(lambda leaf, at=at: leaf[:, at], batch) for at in self._slots())
        rate = self.annealed(state)
        params, optimiser, metrics = self.improve(state, training, rate, key)
        metrics |= {"learning_rate": rate}
        if self.measure_gradients:
            metrics |= gradient_agreement(state.params.policy, training)
        metrics |= self.measured(state.params, params, training)
        if self.measure_health:
            metrics |= self.health_of(state, params, experience, batch)
        if self.held_out_envs:
            found = self.measured(state.params, params, held_out)
            metrics |= {f"held_out_{name}": value for name, value in found.items()}
        steps = self.rollout_steps * self.num_envs
        seen = jax.tree.map(lambda leaf: leaf[:, : self.num_envs], experience.obs)
        observations = moments.merge(state.observations, _moments_of(seen))
        after = GradientState(
            params,
            optimiser,
            observations,
            sums,
            sum_so_far,
            state.env_steps + steps,
            state.iteration + 1,
            self._value_memory(state, experience, batch),
        )
        return after, metrics

    def batch(self, state: GradientState, rollout: Rollout) -> tuple[Batch, Moments, Float[Array, "B"]]:
        """A rollout (T, B) as it is learnt from; the moments of the sums of rewards, and each slot's sum, after it."""
        actor = self.actor(state)
        scale = jax.vmap(jax.vmap(lambda obs: self.scaled(actor, obs)))
        obs, next_obs = scale(rollout.obs), scale(rollout.next_obs)
        reward, sums, sum_so_far = self._rewards(state, rollout)
        ended = (rollout.terminated | rollout.truncated).astype(jnp.float32)
        going_on = jnp.asarray(1.0 - ended).at[-1].set(0.0)  # the rollout's end is a seam too
        discount = jnp.float32(self.discount) * (1.0 - rollout.terminated.astype(jnp.float32))
        transition = Transition(reward, discount, next_obs, going_on)
        memory = self._memory(state, rollout, obs)
        value, next_value, advantage = self.estimates(state.params, obs, transition, memory)
        monte_carlo = jax.vmap(lambda_returns, in_axes=1, out_axes=1)(reward, discount, next_value, going_on)
        found = Batch(
            obs,
            rollout.extras.drawn,
            rollout.extras.log_prob,
            advantage,
            advantage + value,
            value,
            monte_carlo,
            jnp.ones_like(reward),
            transition,
            memory,
        )
        return found, sums, sum_so_far

    def _memory(self, state: GradientState, rollout: Rollout, obs: Float[Array, "T B D"]) -> Memory | tuple[()]:
        """Return what the networks that acted remembered where each step began; nothing without memory."""
        policy, value = state.params.policy.network, state.params.value
        if not isinstance(policy, Recurrent) or not isinstance(value, Recurrent):
            return ()
        ended = rollout.terminated | rollout.truncated
        fresh = jnp.concatenate([jnp.zeros_like(ended[:1]), ended[:-1]])  # the carry is that of the first step already
        _, of_policy = unroll(policy, obs, rollout.carry, fresh)
        _, of_value = unroll(value, obs, state.value_memory, fresh)
        return Memory(of_policy, of_value, fresh)

    def _value_memory(self, state: GradientState, rollout: Rollout, batch: Batch) -> Any:
        """Return what the value function remembers after the rollout in each slot; nothing without memory."""
        if not isinstance(state.params.value, Recurrent):
            return ()
        after = jax.vmap(state.params.value.cell)(batch.obs[-1], batch.memory.value[-1])
        return jnp.where((rollout.terminated | rollout.truncated)[-1][:, None], 0.0, after)

    def estimates(
        self, params: ActorCritic, obs: Float[Array, "T B D"], transition: Transition, memory: Memory | tuple[()] = ()
    ) -> tuple[Float[Array, "T B"], Float[Array, "T B"], Float[Array, "T B"]]:
        """Return values, successors' values and advantages of a rollout, by the value function given."""
        if isinstance(memory, Memory) and isinstance(params.value, Recurrent):
            outputs, before = unroll(params.value, obs, memory.value[0], memory.fresh)
            after = jax.vmap(jax.vmap(params.value.cell))(obs, before)
            successors, _ = jax.vmap(jax.vmap(params.value))(transition.next_obs, after)
            value, next_value = outputs[..., 0], successors[..., 0]
        else:
            value, next_value = (self.values(params, seen) for seen in (obs, transition.next_obs))
        trace = jnp.float32(self.trace) * transition.going_on
        advantages = jax.vmap(lambda_advantages, in_axes=1, out_axes=1)
        return value, next_value, advantages(transition.reward, transition.discount, value, next_value, trace)

    def values(self, params: ActorCritic, obs: Float[Array, "... D"]) -> Float[Array, "..."]:
        """The value function over any leading axes."""
        assert isinstance(params.value, MLP)
        flat = obs.reshape(-1, obs.shape[-1])
        return jax.vmap(params.value)(flat)[:, 0].reshape(obs.shape[:-1])

    def distributions(self, params: ActorCritic, obs: Float[Array, "N D"]) -> Distribution:
        """The policy's distributions at N observations."""
        return jax.vmap(params.policy)(obs)

    def arranged(self, batch: Batch) -> Batch:
        """Return a batch (T, B) as losses read it: flat (N,), or as it is where networks have memory."""
        return batch if self.is_recurrent else flattened(batch)

    def read(self, params: ActorCritic, batch: Batch) -> tuple[Distribution, Float[Array, "N"], Batch]:
        """Return the action's distributions and the values on an arranged batch, and the batch flat (N,)."""
        policy, value = params
        if not isinstance(policy.network, Recurrent) or not isinstance(value, Recurrent):
            return self.distributions(params, batch.obs), self.values(params, batch.obs), batch
        outputs, _ = unroll(policy.network, batch.obs, batch.memory.policy[0], batch.memory.fresh)
        values, _ = unroll(value, batch.obs, batch.memory.value[0], batch.memory.fresh)
        distributions = jax.vmap(policy.distribution)(outputs.reshape(-1, outputs.shape[-1]))
        return distributions, values.reshape(-1), flattened(batch)

    def descend(
        self, loss: Loss, params: ActorCritic, optimiser: Any, batch: Batch, rate: Float[Array, ""]
    ) -> tuple[ActorCritic, Any, dict[str, Array]]:
        """One step of the optimiser down a loss: the networks and its memory after it, the parts of the loss."""
        gradient: Any
        gradient, metrics = jax.grad(loss, has_aux=True)(params, batch)
        metrics["gradient_norm"] = optax.tree.norm(gradient)
        direction, optimiser = self.optimiser().update(gradient, optimiser)
        return jax.tree.map(lambda leaf, step: leaf - rate * step, params, direction), optimiser, metrics

    def normalised(self, advantage: Float[Array, "..."], *where: str) -> Float[Array, "..."]:
        """Advantages centred and scaled, if `where` ("minibatch", "batch", or both) has what the switch says."""
        if self.normalise_advantages not in where:
            return advantage
        return (advantage - advantage.mean()) / (advantage.std() + 1e-8)

    def _rewards(self, state: GradientState, rollout: Rollout) -> tuple[Float[Array, "T B"], Moments, Array]:
        """Scaled, clipped rewards, and what scaling has learnt. Held-out slots teach it nothing."""
        reward = rollout.reward.astype(jnp.float32)
        ended = (rollout.terminated | rollout.truncated).astype(jnp.float32)
        so_far, sums = jax.vmap(discounted_sum, in_axes=(0, 1, None, 1), out_axes=(0, 1))(
            state.sum_so_far, reward, jnp.float32(self.discount), ended
        )
        known = moments.merge(state.sums, _moments_of(sums[:, : self.num_envs, None]))
        if self.scale_rewards:
            reward = reward * moments.inverse_scale(known, constant_below=0.0).astype(jnp.float32)[0]
        if self.reward_clip is not None:
            bound = jnp.float32(self.reward_clip)
            reward = jnp.clip(reward, -bound, bound)
        return reward, known, so_far

    def _slots(self) -> tuple[slice, slice]:
        return slice(0, self.num_envs), slice(self.num_envs, self.num_slots)

    # --- measuring ---

    def health_of(self, state: GradientState, params: ActorCritic, rollout: Rollout, batch: Batch) -> dict[str, Array]:
        """Return how sound the rollout and the update are, on the slots trained on: see the module `health`."""
        rollout, batch = jax.tree.map(lambda leaf: leaf[:, : self.num_envs], (rollout._replace(carry=()), batch))
        actor, policy = self.actor(state), state.params.policy
        scale = jax.vmap(jax.vmap(lambda obs: self.scaled(actor, obs)))
        obs, next_obs = scale(rollout.obs), scale(rollout.next_obs)
        if isinstance(policy.network, Recurrent):
            distributions, _ = jax.vmap(jax.vmap(policy.recall))(obs, batch.memory.policy)
            found = health.acting(distributions, self.spec, rollout)
            value, next_value, _ = self.estimates(state.params, obs, batch.transition, batch.memory)
        else:
            found = health.acting(jax.vmap(jax.vmap(policy))(obs), self.spec, rollout)
            found |= health.units(policy.network, obs)
            assert isinstance(state.params.value, MLP)
            value, next_value = (jax.vmap(jax.vmap(state.params.value))(seen)[..., 0] for seen in (obs, next_obs))
        reward = batch.transition.reward
        found |= health.scales(obs, reward, (self.observation_clip, self.reward_clip), rollout)
        found |= health.value_residual(value, next_value, reward, rollout.terminated, jnp.float32(self.discount))
        return found | {"parameter_norm": optax.tree.norm(jax.tree.leaves(params))}

    def measured(self, before: ActorCritic, after: ActorCritic, batch: Batch) -> dict[str, Array]:
        """Return how far the update moved the policy on these steps, and how well the value explained them beforehand.

        `explained_variance_monte_carlo` is of discounted rewards to the end of the episode or, completed by the value,
        of the rollout: where a rollout is short beside 1 / (1 - discount), that return is mostly the value itself.
        """
        arranged = self.arranged(batch)
        moved, _, flat = self.read(after, arranged)
        found = policy_change(self.read(before, arranged)[0], moved, flat.drawn, flat.log_prob)
        found["surrogate_gain"] = surrogate_gain(moved, flat)
        found["explained_variance_own"] = explained_variance(flat.value, flat.target)
        found["explained_variance_monte_carlo"] = explained_variance(flat.value, flat.monte_carlo)
        found["monte_carlo_variance"] = flat.monte_carlo.var()
        return found


def _moments_of(samples: Float[Array, "T B ..."]) -> Moments:
    """Moments of everything in (T, B, ...), flattened to (T B, D), float64."""
    return moments.of(samples.reshape(samples.shape[0] * samples.shape[1], -1))
