"""The one interface: pure functions that turn experience into a better actor.

`Algorithm` is all that a loop, a run, a study or a report may ask of an algorithm. What a kind of loop needs beyond it
is a narrower class: `Population` (judged by whole episodes), `Rebuildable` (a population whose update any worker can
rebuild from four bytes a member), `OnPolicy` (learns from rollouts of its newest policy), `OffPolicy` (learns from
transitions that a replay kept), `Planner` (tries plans in the task's own simulator before each action).
`Differentiable` is what `diagnose` asks for.

To add an algorithm, subclass one of them in a file below `workhorse/algorithms/`, or in a module of your own that is
named on the command line: `workhorse train CartPole-v1 --algorithm mymodule:MyAlgorithm`.
"""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from workhorse.core.configuration import configuration
from workhorse.core.layers import PolicyNetwork
from workhorse.core.spec import EnvSpec
from workhorse.core.types import Demonstrations, Returns, Rollout, Transitions, Tried

__all__ = [
    "Action",
    "Actor",
    "Algorithm",
    "Carry",
    "Differentiable",
    "Experience",
    "Extras",
    "Key",
    "Metrics",
    "OffPolicy",
    "OnPolicy",
    "Params",
    "Planner",
    "Population",
    "Rebuildable",
    "State",
]

Key = PRNGKeyArray

# Pytrees whose layout is an algorithm's own affair: nobody else looks inside.
State: TypeAlias = Any
Actor: TypeAlias = Any
Carry: TypeAlias = Any
Action: TypeAlias = Any
Extras: TypeAlias = Any
Experience: TypeAlias = Any
Params: TypeAlias = Any
Metrics: TypeAlias = dict[str, Array]


@configuration
class Algorithm(ABC):
    """Pure functions over one seed and one slot; the loop maps them.

    The object is its own configuration: float fields are pytree leaves (so they can be swept with `vmap`), all else is
    static. It sees no environment, file, clock, seed axis or cluster.

    Attributes:
        name: how it is called on the command line.
        summary: one line for the list of algorithms.
        consumes: the type of the experience that `update` reads; it decides the loop.
        presets: other names under which it is known, with a summary and the defaults that each changes.
        only_at_start: options that are read by `init` alone, so that a fork cannot change them.
        spec: the task. *With `rescale_actions`, its `action` is the box rescaled to [-1, 1]*: an algorithm draws,
            clips and remembers its actions there, and the loop turns each into one of the task (`EnvSpec.unscaled`).
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    consumes: ClassVar[type]
    presets: ClassVar[Mapping[str, tuple[str, Mapping[str, Any]]]] = {}
    only_at_start: ClassVar[tuple[str, ...]] = ()

    spec: EnvSpec
    rescale_actions: bool = True
    """Act in [-1, 1], from the lower to the upper bound, in every action component that has both; else in the task's
    own numbers."""

    @abstractmethod
    def init(self, key: Key) -> State:
        """Return the state before the first iteration."""

    @abstractmethod
    def actor(self, state: State) -> Actor:
        """Return the part of the state that acting needs, which is all that a worker is sent."""

    def begin(self, actor: Actor, slot: Int[Array, ""]) -> Carry:
        """Return what a slot remembers at the start of an episode.

        The perturbed parameters of a member for evolution strategies (a negative slot is the unperturbed policy), zeros
        for a recurrent network, a warm start for a planner; by default nothing.
        """
        return ()

    @abstractmethod
    def act(self, actor: Actor, carry: Carry, obs: Array, key: Key, *, explore: bool) -> tuple[Action, Carry, Extras]:
        """Choose one action, within the bounds of `spec.action`.

        Returns:
            The action, what the slot remembers for the next step, and what `update` wants to know of the choice.
        """

    @abstractmethod
    def update(self, state: State, experience: Experience, key: Key) -> tuple[State, Metrics]:
        """Return the state after learning from experience of the type `consumes`, and scalars that describe it."""

    @abstractmethod
    def policy_layers(self, actor: Actor) -> PolicyNetwork:
        """Return the noiseless policy as the named layers that an artefact holds."""

    @abstractmethod
    def validate(self) -> None:
        """Raise a `UsageError` where a field is out of range or the task's spaces cannot be taken."""

    def settings(self) -> dict[str, Any]:
        """Return every field but the task, by name, as plain JSON."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "spec"]  # type: ignore[arg-type]
        return json.loads(json.dumps({name: getattr(self, name) for name in names}))


class Population(Algorithm):
    """An algorithm that judges members of a population by whole episodes.

    Attributes:
        behaviour_size: numbers besides the fitness that `describe` tells of an episode, 2 bytes each on the wire.
        episodes_per_member: episodes of each member in an iteration.
    """

    consumes: ClassVar[type] = Returns

    behaviour_size: ClassVar[int] = 0

    episodes_per_member: int

    @property
    @abstractmethod
    def num_members(self) -> int:
        """Members evaluated in an iteration, numbered from 0."""

    def episode_steps(self, state: State) -> int | None:
        """Return the most steps of a training episode in this iteration; None leaves it to the task's clock."""
        return None

    @property
    def first_episode_steps(self) -> int | None:
        """Most steps of a training episode in the first iteration; None leaves it to the task's clock."""
        return None

    def more_members(self, steps: int) -> int:
        """Return how many members join this iteration, numbered on from `num_members`.

        It is asked once an iteration, when every one of the first `num_members` is in, so that it never depends on
        who came first; `steps` are the environment steps of their episodes together.
        """
        return 0

    def starts(self, episodes: Int[np.ndarray, "E"]) -> Int[np.ndarray, "E"]:
        """Return what names the start of episodes, numbered member by member: equal numbers give equal starts."""
        return episodes

    @abstractmethod
    def fitness(self, episode_return: Float[np.ndarray, "E"], length: Int[np.ndarray, "E"]) -> Float[Array, "E"]:
        """Return what the search climbs, one number an episode, float32."""

    def describe(self, last_obs: Float[np.ndarray, "E ..."]) -> np.ndarray:
        """Return what an episode was like, from its last observation, float16 (E, behaviour_size)."""
        return np.zeros((len(last_obs), 0), np.float16)


class Rebuildable(Population):
    """A population whose update is made of weighted sums over perturbations that are known by their addresses.

    Every process can rebuild such an update from the members' fitness alone. The sums are computed in blocks, which may
    be shared out among processes: equal blocks, equal bits. There are K sums of the same perturbations eps_i, as of the
    eps_i themselves and of eps_i^2 - 1.
    """

    @abstractmethod
    def noise_key(self, state: State) -> Key:
        """Return the address of the perturbations that this iteration learns from."""

    def learnt(self, state: State, experience: Returns) -> Returns:
        """Return what this iteration learns from: the returns that just came in, or with a lag those before them."""
        return experience

    @abstractmethod
    def weights(self, state: State, experience: Returns) -> Float[Array, "K N"]:
        """Return the weight of each perturbation in each sum, float32."""

    @property
    @abstractmethod
    def num_blocks(self) -> int:
        """Number of blocks that the sums fall into."""

    @abstractmethod
    def block(self, key: Key, weights: Float[Array, "K N"], number: int) -> Array:
        """Return one block of the sums, float32; all blocks have the same shape."""

    @abstractmethod
    def step(self, state: State, experience: Returns, blocks: list[Array]) -> tuple[State, Metrics]:
        """Return the state after a step along the sums, and its metrics."""

    def kept(self, state: State, experience: Returns) -> State:
        """Return the state with what the next iteration needs of the returns that just came in."""
        return state


class OnPolicy(Algorithm):
    """An algorithm that learns from rollouts of its newest policy.

    Attributes:
        num_envs: slots trained on.
        held_out_envs: more slots, only measured on.
        rollout_steps: steps of each slot in an iteration.
    """

    consumes: ClassVar[type] = Rollout

    num_envs: int
    held_out_envs: int
    rollout_steps: int

    @property
    def num_slots(self) -> int:
        """Slots of a rollout: those trained on, then those held out."""
        return self.num_envs + self.held_out_envs

    def first_ends(self) -> np.ndarray | None:
        """Return after how many steps of the run each slot's first episode is cut, int (B,); 0 for not at all.

        Where all episodes are equally long it spreads the slots over an episode. None cuts nothing.
        """
        return None


class OffPolicy(Algorithm):
    """An algorithm that learns from transitions which a replay kept.

    An iteration is `rollout_steps` steps of each slot. After every `learn_every` of them, the updates that have become
    due are done: `replay_ratio` samples are trained on for each environment step after the first `warmup_env_steps`,
    *however many slots there are*. All of these counts are of the whole run, so that a resume goes on with them.

    Attributes:
        num_envs: slots.
        rollout_steps: steps of each slot in an iteration.
        learn_every: steps of each slot between two phases of learning; it divides `rollout_steps`.
        replay_ratio: samples trained on per environment step.
        batch_size: transitions of an update.
        warmup_env_steps: environment steps before the first update.
        replay_capacity: steps that the replay keeps, those of all slots together.
        n_steps: most steps of a sampled window.
        discount: weight of a reward one step later, gamma.
        priority_exponent: sampling frequency is proportional to priority to this power; None for uniform sampling.
        importance_exponent: exponent of the weights that correct for it, at an update of this number.
        is_stochastic: the policy has randomness of its own, so that episodes of it can be drawn.
    """

    consumes: ClassVar[type] = Transitions
    is_stochastic: ClassVar[bool] = False

    num_envs: int
    rollout_steps: int
    learn_every: int
    replay_ratio: float
    batch_size: int
    warmup_env_steps: int
    replay_capacity: int
    n_steps: int
    discount: float

    @property
    def num_slots(self) -> int:
        """Slots of a rollout, all trained on."""
        return self.num_envs

    @property
    def priority_exponent(self) -> float | None:
        return None

    def importance_exponent(self, state: State) -> Float[Array, ""]:
        """Return the exponent of importance weights in this state; asked only where there are priorities."""
        raise NotImplementedError(f"{type(self).__name__} has priorities without an importance exponent.")

    def observe(self, state: State, rollout: Rollout) -> State:
        """Return the state after steps (T, B) were taken, before anything is learnt from them: counters, moments."""
        return state

    @abstractmethod
    def learn(self, state: State, experience: Transitions, key: Key) -> tuple[State, Float[Array, "N"], Metrics]:
        """Return the state after one update, each transition's new priority (at least 0), and metrics."""

    def action_value(self, state: State, obs: Array, action: Action) -> Float[Array, ""]:
        """Return the value Q(s, a) of one action, *in raw rewards*: a soft one where learning is for a soft one.

        Args:
            state: of the algorithm.
            obs: one observation, as the task gave it.
            action: one action, in the algorithm's own numbers.
        """
        raise NotImplementedError(f"{type(self).__name__} does not tell the value of an action.")

    def entropy_bonus(self, state: State, obs: Array, key: Key) -> Float[Array, ""]:
        """Return what the policy's entropy in a state adds to a soft value, *in raw rewards*; 0 where none is soft.

        It may be a draw whose mean is right, as -alpha log pi(a|s) of a drawn action.
        """
        return jnp.zeros((), jnp.float32)

    def update(self, state: State, experience: Transitions, key: Key) -> tuple[State, Metrics]:
        after, _, metrics = self.learn(state, experience, key)
        return after, metrics


class Planner(Algorithm):
    """An algorithm that tries plans in copies of the task before each action.

    Before every action of a slot the loop goes through rounds, one for each number in `round_sizes`: it tries what
    `propose` returns from the slot's present state, and gives `refine` the outcome. Then `act` with `explore` takes the
    first action of the plan and shifts the plan by a step, so that the next search starts warm. Nothing of that is
    learnt; what `update` learns is a copy: a network that is shown what the planner did, so that there is a policy to
    deploy. *It is the copy that acts where `explore` is false*, as `policy_layers` say.

    Every step of a trial is a step of the simulator, and is counted as one.

    Attributes:
        num_envs: slots whose episodes are planned side by side.
        horizon: steps H of a plan.
        minds_ends: rewards after an end of the task are left out of a plan's return; else they count as the
            simulator gives them.
        watches: whether a round's trials must tell observations.
    """

    consumes: ClassVar[type] = Demonstrations
    watches: ClassVar[bool] = False

    num_envs: int
    horizon: int
    minds_ends: bool

    @property
    @abstractmethod
    def round_sizes(self) -> tuple[int, ...]:
        """Plans tried in each of the rounds before an action. Equal neighbours share a program."""

    @property
    def steps_per_action(self) -> int:
        """Steps of the simulator before an action."""
        return sum(self.round_sizes) * self.horizon

    @abstractmethod
    def propose(self, actor: Actor, carry: Carry, key: Key, *, round: Int[Array, ""], count: int) -> Action:
        """Return plans to try, (N, H, ...), each action within the bounds of `spec.action`.

        Args:
            actor: from `actor`.
            carry: what the slot remembers.
            key: of the slot, the step and the round.
            round: from 0; *it may be traced*.
            count: N, the round's number in `round_sizes`.
        """

    @abstractmethod
    def refine(self, actor: Actor, carry: Carry, plans: Action, tried: Tried, *, round: Int[Array, ""]) -> Carry:
        """Return what the slot remembers after a round's outcome, which has no `states` here."""

    @abstractmethod
    def plan(self, carry: Carry) -> tuple[Action, Float[Array, "H"]]:
        """Return the plan that would be carried out now, (H, ...), and its rewards as they were tried, float64.

        Rewards after an end are 0 where ends are minded; they are NaN where just this plan was never tried.
        """

    def demonstrations(self, state: State) -> Demonstrations | None:
        """Return what the copy is taught from; None where there is no copy."""
        return None


class Differentiable(Algorithm):
    """An algorithm with objectives that can be differentiated, which is what `diagnose` asks for."""

    @abstractmethod
    def params(self, state: State) -> dict[str, Params]:
        """Return the parameters by part: "policy", and "value" where there is one."""

    @abstractmethod
    def loss(
        self, objective: str, params: dict[str, Params], state: State, experience: Experience, key: Key
    ) -> tuple[Float[Array, ""], Metrics]:
        """Return an objective, to be minimised, of these parameters on experience, and its parts."""
