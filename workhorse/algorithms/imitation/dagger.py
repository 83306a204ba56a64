"""DAgger: the copy plays, the expert says in each state what it would have done, and the copy learns from all of it."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from workhorse.algorithms.demonstration_learner import CopierState, DemonstrationLearner, scaled
from workhorse.core.algorithm import Action, Key, Metrics
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.types import Demonstrations

__all__ = ["DAgger"]


@configuration
class DAgger(DemonstrationLearner):
    """Data aggregation: learn from the expert's answers in the states that the learner itself comes to.

    Iteration i plays episodes with the mixture

        pi_i = beta_i expert + (1 - beta_i) copy,   beta_i = share_decay^i,

    drawn anew at every step; the expert answers in each state visited, *whoever acted there*; the copy is trained on
    the answers of all iterations. By default beta is 1 in the first iteration and 0 after it. Where behaviour cloning
    errs with probability e a step, its cost over T steps grows as e T^2, because it was never shown the states that its
    errors lead to; here it grows as e T.

    Source: Ross, Gordon and Bagnell 2011, "A reduction of imitation learning and structured prediction to no-regret
    online learning" (arXiv 1011.0686). The copy is trained on from where it stands instead of anew, and no policy is
    chosen among those of the iterations: the last one is taken.
    """

    name = "dagger"
    summary = "an expert says what it would have done in the states that the copy visits"
    needs_expert: ClassVar[bool] = True

    num_envs: int = 4
    """Slots whose episodes are played side by side, one episode of each an iteration."""
    hidden: tuple[int, ...] = (256, 256)
    """Units of each hidden layer of the copy."""
    copy_updates: int = 1000
    """Updates of the copy after an iteration."""
    memory_size: int = 100_000
    """Pairs of observation and answer that the copy learns from; the oldest are forgotten beyond it."""
    share_decay: float = 0.0
    """The expert acts in share_decay^i of the steps of iteration i, counted from 0; 0: in those of the first alone."""

    def validate(self) -> None:
        super().validate()
        if not 0 <= self.share_decay <= 1:
            raise UsageError(f"DAgger.share_decay must be in [0, 1]: got {self.share_decay}.")

    def expert_share(self, iteration: Int[Array, ""]) -> Float[Array, ""]:
        """Return beta, the probability with which the expert acts at a step of an iteration.

        Example:
            >>> from workhorse.core.spec import Box, Discrete, EnvSpec
            >>> spec = EnvSpec("steering", Box.unbounded(2), Discrete(2), 10)
            >>> [float(DAgger(spec=spec).expert_share(jnp.int32(i))) for i in (0, 1, 2)]
            [1.0, 0.0, 0.0]
            >>> [float(DAgger(spec=spec, share_decay=0.5).expert_share(jnp.int32(i))) for i in (0, 1, 2)]
            [1.0, 0.5, 0.25]
        """
        return jnp.asarray(self.share_decay, jnp.float32) ** iteration.astype(jnp.float32)

    def is_experts_turn(self, iteration: Int[Array, ""], key: Key) -> Bool[Array, ""]:
        """Draw whether the expert acts at a step."""
        return jax.random.uniform(key, (), jnp.float32) < self.expert_share(iteration)

    def update(self, state: CopierState, experience: Demonstrations, key: Key) -> tuple[CopierState, Metrics]:
        """Remember the answers and train the copy on all of them.

        `visited_loss` is the loss of the copy *as it played*, on this iteration's states: the loss that the bound of
        DAgger is about.
        """
        before = self._visited_loss(state, experience)
        after, metrics = super().update(state, experience, key)
        return after, metrics | {"visited_loss": before}

    def _visited_loss(self, state: CopierState, experience: Demonstrations) -> Float[Array, ""]:
        actor, count = self.actor(state), len(experience.is_there)
        outputs = jax.vmap(lambda obs: actor.params(scaled(actor, obs)))(experience.obs)
        action: Action = jnp.asarray(experience.action)
        losses = self.losses(outputs, action).reshape(count, -1).mean(-1)
        there = jnp.asarray(experience.is_there)
        return jnp.where(there, losses, 0.0).sum() / jnp.maximum(there.sum(), 1)
