"""Behaviour cloning under masks: one network that imitates from any choice of what it may see."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from workhorse.algorithms.offline.log_learner import LogLearner
from workhorse.algorithms.replay_learner import ADAM, adam_step, moved_towards
from workhorse.core.algorithm import Carry, Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.layers import Argmax, PolicyNetwork, Squash
from workhorse.core.shown_action import OPTION, action_bounds
from workhorse.core.spec import Discrete, EnvSpec
from workhorse.core.types import Moments, Transitions
from workhorse.networks.layers import mlp_layers, scaled_layers
from workhorse.networks.mlp import MLP

__all__ = ["MaskedActor", "MaskedBC", "MaskedState", "factor_sizes"]

MOST_SINGLE = 8
"""Components of a state up to which each is a factor of its own; beyond, they form `GROUPS` groups."""
GROUPS = 4


class MaskedActor(NamedTuple):
    """What acting needs: the network, (mean, inverse scale) of observations, and which factors are seen, (F,)."""

    network: MLP
    scaling: tuple[Array, Array]
    mask: Float[Array, "F"]


class MaskedState(NamedTuple):
    """State of the algorithm: the network that learns, and the average of its weights, which acts."""

    network: MLP
    average: MLP
    mask: Float[Array, "F"]
    optimiser: optax.OptState
    observations: Moments
    env_steps: Array
    updates: Array


@configuration
class MaskedBC(LogLearner):
    """Behaviour cloning whose input is multiplied by a random mask, which the network is told.

        z = (x * G, G),   G_i = mask_i B_i,   B_i ~ Bernoulli(p) for each sample and factor i
        choices:  loss = -log softmax(f(z))_a
        a box:    loss = |tanh(f(z)) - a|^2 / A

    What acts is the average of the weights, which follows them by `target_rate` at each update: single updates leave
    noise of the size of the step, which closed loops feel. Observations x are scaled by the moments of the log, so that
    a masked component reads as its mean. One network holds the policies of all 2^F masks; `workhorse diagnose LOG
    --only confusion` finds the one that acts well. To act, the mask is the option `mask`. The artefact is that policy
    alone: the mask's columns are folded into the first layer,

        weight' = W_x diag(G),   bias' = bias + W_G G,

    which is exact and no larger than an ordinary policy.

    Source: de Haan, Jayaraman and Levine 2019, "Causal confusion in imitation learning" (arXiv 1905.11979), section 4.
    """

    name = "masked-bc"
    summary = "behaviour cloning under random masks of the observation, against causal confusion"
    takes = "both"

    learning_rate: float = 1e-3
    """Step size of Adam."""
    factors: tuple[int, ...] = ()
    """Components of each factor, one after the other, which are masked together; by default each component is one up to
    8, and beyond that the observation has 4 groups of nearly equal size; a previous action is always one factor."""
    mask: tuple[int, ...] = ()
    """Which factors the policy sees, a 1 or a 0 for each, and no training sample shows more; by default all."""
    seen_share: float = 0.5
    """Probability p that a factor of a sample is seen; 1 for plain behaviour cloning from the factors of the mask."""

    def validate(self) -> None:
        super().validate()
        sizes, size = self.factor_sizes, self.spec.observation.size
        if min(sizes) < 1 or sum(sizes) != size:
            raise UsageError(
                f"MaskedBC.factors must be sizes of at least 1 that add up to the {size} components of an observation "
                f"of {self.spec.task}: got {self.factors}."
            )
        if self.mask and (len(self.mask) != len(sizes) or not set(self.mask) <= {0, 1}):
            raise UsageError(
                f"MaskedBC.mask must have a 1 or a 0 for each of the {len(sizes)} factors of {self.spec.task}: got "
                f"{self.mask}."
            )
        if not 0 < self.seen_share <= 1:
            raise UsageError(f"MaskedBC.seen_share must be in (0, 1]: got {self.seen_share}.")

    @property
    def factor_sizes(self) -> tuple[int, ...]:
        """Components of each factor."""
        return self.factors or factor_sizes(self.spec)

    @property
    def action_size(self) -> int:
        """Outputs of the network."""
        return self.spec.action.count if isinstance(self.spec.action, Discrete) else self.spec.action.size  # type: ignore[union-attr]

    # --- acting ---

    def init(self, key: Key) -> MaskedState:
        sizes = self.factor_sizes
        inputs = self.spec.observation.size + len(sizes)
        network = MLP.uniform(key, (inputs, *self.hidden, self.action_size))
        mask = jnp.asarray(self.mask or (1,) * len(sizes), jnp.float32)
        return MaskedState(network, network, mask, ADAM.init(network), **self.counters())  # type: ignore[arg-type]

    def actor(self, state: MaskedState) -> MaskedActor:
        return MaskedActor(state.average, self.scaling(state.observations), state.mask)

    def act(
        self, actor: MaskedActor, carry: Carry, obs: Float[Array, "..."], key: Key, *, explore: bool
    ) -> tuple[Array, Carry, tuple[()]]:
        """Take the likeliest action under the mask; it never explores."""
        output = self.output(actor.network, self.seen(actor.scaling, obs), actor.mask)
        if isinstance(self.spec.action, Discrete):
            return jnp.argmax(output).astype(jnp.int32), carry, ()
        return jnp.tanh(output).reshape(self.spec.action.shape), carry, ()  # type: ignore[union-attr]

    def output(self, network: MLP, seen: Float[Array, "D"], mask: Float[Array, "F"]) -> Float[Array, "A"]:
        """Return logits, or means before the squashing, from one scaled observation under a mask."""
        wide = mask[np.repeat(np.arange(len(self.factor_sizes)), self.factor_sizes)]
        return network(jnp.concatenate([seen * wide, mask]))

    def policy_layers(self, actor: MaskedActor) -> PolicyNetwork:
        size, mask = self.spec.observation.size, np.asarray(actor.mask)
        first, *others = mlp_layers(actor.network)
        weight = np.asarray(first.weight)  # type: ignore[union-attr]
        folded = first._replace(  # type: ignore[union-attr]
            weight=weight[:, :size] * np.repeat(mask, self.factor_sizes),
            bias=np.asarray(first.bias) + weight[:, size:] @ mask,  # type: ignore[union-attr]
        )
        head = Argmax() if isinstance(self.spec.action, Discrete) else Squash()
        scaling = self.artefact_scaling(actor.scaling)
        return scaled_layers(self.spec.observation, *scaling, (folded, *others, head))

    # --- learning ---

    def learn(
        self, state: MaskedState, experience: Transitions, key: Key
    ) -> tuple[MaskedState, Float[Array, "N"], Metrics]:
        """Do one step of Adam down the mean loss of a batch, each sample under a mask of its own."""
        count = experience.reward.shape[0]
        seen = jax.vmap(lambda obs: self.seen(self.scaling(state.observations), obs))(experience.obs)
        share = jnp.asarray(self.seen_share, jnp.float32)
        mask = state.mask * jax.random.bernoulli(key, share, (count, len(self.factor_sizes))).astype(jnp.float32)

        def loss(network: MLP) -> tuple[Array, tuple[Array, Array]]:
            each, right = jax.vmap(lambda *row: self.loss(network, *row))(seen, mask, experience.action)
            return each.mean(), (each, right)

        (total, (each, right)), gradient = jax.value_and_grad(loss, has_aux=True)(state.network)
        network, optimiser = adam_step(state.network, gradient, state.optimiser, self.learning_rate)
        average = moved_towards(state.average, network, self.target_rate)
        after = state._replace(network=network, average=average, optimiser=optimiser, updates=state.updates + 1)
        return after, each, {"masked_loss": total, "masked_agreement": right.mean(dtype=jnp.float32)}

    def loss(
        self, network: MLP, seen: Float[Array, "D"], mask: Float[Array, "F"], action: Array
    ) -> tuple[Float[Array, ""], Bool[Array, ""]]:
        """Return the loss of one scaled observation under a mask, and whether the action is the policy's own.

        Of a box, an action counts as the policy's own within a tenth of half its range in every component.
        """
        output = self.output(network, seen, mask)
        if isinstance(self.spec.action, Discrete):
            return optax.softmax_cross_entropy_with_integer_labels(output, action), jnp.argmax(output) == action
        difference = jnp.tanh(output) - action.reshape(-1)
        return jnp.square(difference).mean(), (jnp.abs(difference) < jnp.float32(0.1)).all()


def factor_sizes(spec: EnvSpec) -> tuple[int, ...]:
    """Return the factors of a task's observation, where none are given: see `MaskedBC.factors`.

    Example:
        >>> from workhorse.core.spec import Box
        >>> task = EnvSpec("probe", Box.unbounded(5), Discrete(3), None, options=(("previous_action", True),))
        >>> factor_sizes(task)
        (1, 1, 3)
    """
    last = action_bounds(spec.task_action).size if dict(spec.options).get(OPTION) else 0
    size = spec.observation.size - last
    if size <= MOST_SINGLE:
        state = [1] * size
    else:
        state = [len(part) for part in np.array_split(np.arange(size), GROUPS)]
    return (*state, last) if last else tuple(state)
