"""Base of every search in parameter space: the policy, its members' parameters, how a member acts."""

from abc import abstractmethod
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from workhorse.core.algorithm import Algorithm, Key, Population, State
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.layers import PolicyNetwork, head_for
from workhorse.core.ranges import require_non_negative, require_positive
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Moments, Returns
from workhorse.math import moments
from workhorse.networks.heads import action_of, num_outputs
from workhorse.networks.layers import mlp_layers, scaled_layers
from workhorse.networks.mlp import MLP

__all__ = ["ParameterSearch", "SearchActor", "SearchState", "SearchedPolicy"]


class SearchState(NamedTuple):
    """A whole learner: parameters, moments of the observations seen, the noise's key, the clock."""

    params: Float[Array, "n"]
    observations: Moments
    noise_key: Key
    iteration: Int[Array, ""]


class SearchActor(NamedTuple):
    """The centre of the search, how observations are scaled, this iteration's noise: all that acting needs.

    `spread` is what a search needs besides to make its members, such as a standard deviation for each parameter.
    """

    params: Float[Array, "n"]
    mean: Float[Array, "D"]
    inverse_scale: Float[Array, "D"]
    noise_key: Key
    iteration: Int[Array, ""]
    spread: Any = ()


@configuration
class SearchedPolicy(Algorithm):
    """A policy whose parameters are searched for: a network, and how observations come to it."""

    spec: EnvSpec
    policy: Literal["linear", "mlp"] = "linear"
    """Network: linear, or a perceptron with tanh units and biases."""
    linear_bias: bool = False
    """Give the linear policy a bias, a constant part of the action."""
    hidden: tuple[int, ...] = (64, 64)
    """Units of each hidden layer of `mlp`."""
    action_bins: int | None = None
    """Choose each action component among this many evenly spaced values instead of continuously."""
    action_noise: float | None = None
    """Standard deviation of Gaussian noise on continuous actions while training."""
    normalise_observations: bool = True
    """Centre and scale observations by their running mean and standard deviation."""
    observation_clip: float = 5.0
    """Clip scaled observations to plus or minus this."""
    observation_floor: float = 0.0
    """Least standard deviation that observations are scaled by: smaller ones are not blown up to 1."""

    def validate(self) -> None:
        """Raise a `UsageError` where a field is out of range or the policy cannot take the task's actions."""
        name, task, action = type(self).__name__, self.spec.task, self.spec.action
        if isinstance(action, Box):
            if self.action_bins is not None and not np.isfinite([action.low, action.high]).all():
                raise UsageError(f"{name}.action_bins needs bounded actions, but {task} has none. Leave it out.")
        else:
            for option in ("action_bins", "action_noise"):
                if getattr(self, option) is not None:
                    kind = f"{action.count} discrete ones" if isinstance(action, Discrete) else f"{action}"
                    raise UsageError(f"{name}.{option} is for continuous actions, but {task} has {kind}. Leave it out.")
        if self.policy not in ("linear", "mlp"):
            raise UsageError(f"{name}.policy must be 'linear' or 'mlp': got {self.policy!r}.")
        if self.linear_bias and self.policy == "mlp":
            raise UsageError(f"{name}.linear_bias is for a linear policy: an mlp has biases. Leave it out.")
        positive = {"observation_clip": self.observation_clip}
        if self.policy == "mlp":
            positive |= {f"hidden[{layer}]": units for layer, units in enumerate(self.hidden)}
        require_positive(name, **positive)
        if self.action_bins is not None and self.action_bins < 2:
            raise UsageError(f"{name}.action_bins must be at least 2: got {self.action_bins}.")
        require_non_negative(name, action_noise=self.action_noise or 0.0, observation_floor=self.observation_floor)

    # --- the policy ---

    def _sizes(self) -> tuple[int, ...]:
        hidden = self.hidden if self.policy == "mlp" else ()
        return (self.spec.observation.size, *hidden, num_outputs(self.spec.action, self.action_bins))

    def network(self, key: Key) -> MLP:
        """A freshly initialised network: zeros for a linear policy, small outputs for a perceptron."""
        last_scale = 0.0 if self.policy == "linear" else 0.01
        return MLP.create(key, self._sizes(), bias=self._has_bias, last_scale=last_scale)

    @property
    def _has_bias(self) -> bool:
        return self.policy == "mlp" or self.linear_bias

    @property
    def num_params(self) -> int:
        """Number of parameters n of the policy."""
        weights = sum(fan_in * fan_out for fan_in, fan_out in zip(self._sizes()[:-1], self._sizes()[1:], strict=True))
        return weights + (sum(self._sizes()[1:]) if self._has_bias else 0)

    def to_network(self, params: Float[Array, "n"]) -> MLP:
        """The network whose parameters, flattened, are `params`."""
        template = jax.eval_shape(self.network, jax.random.key(0))
        return ravel_pytree(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), template))[1](params)

    def policy_layers(self, actor: SearchActor) -> PolicyNetwork:
        """Return the unperturbed policy as the named layers that an artefact holds."""
        head = head_for(self.spec.action, action_bins=self.action_bins)
        layers = (*mlp_layers(self.to_network(actor.params)), head)
        return scaled_layers(self.spec.observation, actor.mean, actor.inverse_scale, self.observation_clip, layers)

    def scaling(self, observations: Moments) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
        """Mean and inverse scale that observations are normalised with, float32; 0 and 1 where they are not."""
        if not self.normalise_observations:
            size = self.spec.observation.size
            return jnp.zeros(size, jnp.float32), jnp.ones(size, jnp.float32)
        inverse_scale = moments.inverse_scale(observations).astype(jnp.float32)
        most = 1 / jnp.asarray(self.observation_floor, jnp.float32)  # infinite where there is no floor
        return observations.mean.astype(jnp.float32), jnp.minimum(inverse_scale, most)

    def output(self, actor: SearchActor, carry: Any, scaled: Float[Array, "D"]) -> Float[Array, "A"]:
        """Output of a member's network for a scaled observation."""
        return carry(scaled)

    def act(
        self, actor: SearchActor, carry: Any, obs: Float[Array, "..."], key: Key, *, explore: bool
    ) -> tuple[Array, Any, None]:
        """Z = clip((obs - mean) / scale);  action = clip(head(network(z)) + action noise) to the task's bounds.

        Matrices and images are flattened first.
        """
        clip = jnp.float32(self.observation_clip)
        scaled = jnp.clip((obs.reshape(-1).astype(jnp.float32) - actor.mean) * actor.inverse_scale, -clip, clip)
        action = action_of(self.spec.action, self.action_bins, self.output(actor, carry, scaled))
        space = self.spec.action
        if isinstance(space, Box):
            if explore and self.action_noise is not None:
                action = action + jnp.float32(self.action_noise) * jax.random.normal(key, action.shape, jnp.float32)
            low, high = (jnp.asarray(bound, jnp.float32).reshape(space.shape) for bound in (space.low, space.high))
            action = jnp.clip(action, low, high)
        return action, carry, None


@configuration
class ParameterSearch(SearchedPolicy, Population):
    """A policy, and a population of members around it that are judged by their episodes' returns.

    A member's number names its perturbation; a *negative* number is the policy itself, unperturbed. Observations are
    centred and scaled with the moments of everything the population has seen in the iterations before.
    """

    alive_bonus: float = 0.0
    """Taken off every step's reward in the training signal (never in evaluation)."""
    episodes_per_member: int = 1
    """Episodes whose mean return is a member's fitness."""
    shared_starts: bool = False
    """Whether all members of an iteration play the same initial states, one for each of a member's episodes. Their
    returns then differ by the policies, not by luck (common random numbers). Off, every episode has its own."""
    episode_cap: int | None = None
    """Steps after which a member's episode is cut in the first iteration; evaluations are never cut. Where 250 steps of
    a task show nearly as much of a policy as 1,000, the same steps give four times the iterations."""
    episode_growth: int = 0
    """Steps by which `episode_cap` grows with every iteration, so that the end of long episodes is learnt at last."""

    def validate(self) -> None:
        super().validate()
        require_positive(type(self).__name__, episodes_per_member=self.episodes_per_member)
        if self.episode_cap is not None:
            require_positive(type(self).__name__, episode_cap=self.episode_cap)
        require_non_negative(type(self).__name__, episode_growth=self.episode_growth)
        if self.episode_growth and self.episode_cap is None:
            raise UsageError(
                f"{type(self).__name__}.episode_growth needs an episode_cap that grows: got {self.episode_growth} and "
                "no cap. Give one, or leave it out."
            )
        require_non_negative(type(self).__name__, alive_bonus=self.alive_bonus)

    def starts(self, episodes: Int[np.ndarray, "E"]) -> Int[np.ndarray, "E"]:
        return episodes % self.episodes_per_member if self.shared_starts else episodes

    @property
    def first_episode_steps(self) -> int | None:
        return self.episode_cap

    def episode_steps(self, state: State) -> int | None:
        """Cap of iteration t: episode_cap + t * episode_growth, at most the task's clock."""
        if self.episode_cap is None:
            return None
        most = self.spec.max_episode_steps or int(np.iinfo(np.int32).max)
        return min(self.episode_cap + int(state.iteration) * self.episode_growth, most)

    @abstractmethod
    def displace(self, actor: SearchActor, member: Int[Array, ""]) -> Float[Array, "n"]:
        """Parameters of a member of the population, `member` >= 0."""

    # --- learning ---

    def init(self, key: Key) -> State:
        """A learner that has seen nothing."""
        params_key, noise_key = jax.random.split(key)
        params = ravel_pytree(self.network(params_key))[0]
        unseen = moments.empty(self.spec.observation.size, jnp.float64)
        return SearchState(params, unseen, noise_key, jnp.zeros((), jnp.int32))

    def advanced(self, state: State, params: Float[Array, "n"], experience: Returns) -> SearchState:
        """The `SearchState` after an iteration: new parameters, its observations merged in, the clock moved."""
        observations = moments.merge(state.observations, experience.observations)
        return SearchState(params, observations, state.noise_key, state.iteration + 1)

    def fitness(self, episode_return: Float[np.ndarray, "E"], length: Int[np.ndarray, "E"]) -> Float[Array, "E"]:
        """Return the fitness of episodes: the return less the alive bonus of every step, rounded to float32."""
        return jnp.asarray(jnp.asarray(episode_return) - self.alive_bonus * jnp.asarray(length), jnp.float32)

    # --- acting ---

    def actor(self, state: State) -> SearchActor:
        """Return what a worker is sent: parameters, scaling, and the key of this iteration's noise."""
        mean, inverse_scale = self.scaling(state.observations)
        address = jax.random.fold_in(state.noise_key, state.iteration)
        return SearchActor(state.params, mean, inverse_scale, address, state.iteration)

    def begin(self, actor: SearchActor, slot: Int[Array, ""]) -> Any:
        """The network of the member in a slot; a negative number is the unperturbed policy."""
        member = jnp.maximum(slot, 0)
        return self.to_network(jnp.where(slot < 0, actor.params, self.displace(actor, member)))
