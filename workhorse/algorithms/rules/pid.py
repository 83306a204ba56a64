"""PID control: one loop for each component of the action; which observation it reads, and its gains, are searched."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from workhorse.algorithms.rules.contest import Contest, ContestActor, ContestState
from workhorse.algorithms.rules.drive import drive_layers, driven, flattened, num_drives
from workhorse.core.algorithm import Key
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.layers import Dense, PolicyNetwork
from workhorse.core.layers import Pid as PidLayer

__all__ = ["PIDControl", "PIDMemory"]

MOST_SUMMED = 1e6
"""Most that errors add up to where their gain is too small to matter."""


class PIDMemory(NamedTuple):
    """What a slot remembers: its loops, and the numbers of each that go on from step to step, float32.

    Attributes:
        observed: component of the observation that each loop reads, (A,).
        gains: proportional, integral, derivative, (3, A).
        total: sum of errors so far, (A,).
        before: error of the step before, (A,).
        started: 1 once there was one.
    """

    observed: Int[Array, "A"]
    gains: Float[Array, "3 A"]
    total: Float[Array, "A"]
    before: Float[Array, "A"]
    started: Float[Array, ""]


@configuration
class PIDControl(Contest):
    """drive_j = P_j e + I_j sum of e + D_j (e - e of the step before),   e = set_point - x_i(j).

    The drive is in halves of the action's range; of several choices it takes the last one where it is positive and the
    first one where it is negative. The sum of errors is kept where the integral part alone drives no further than to
    the bounds. The search knows no simulator, so that *which observation a loop reads is guessed as well*: a fresh
    candidate is either drawn anew (the observation uniformly; |P| from 0.01 to 100, log-uniform, either sign; I / P
    from 0.001 to 1 and D / P from 0.1 to 30, each left out in a third of all) or has the best one's loops with other
    gains, each times exp(0.3 normal).
    """

    name = "pid"
    summary = "one PID loop for each action component, with searched observations and gains"

    num_candidates: int = 40
    """Fresh candidates an iteration."""
    num_finalists: int = 10
    """Best candidates so far, which are judged again in every iteration."""
    set_point: float = 0.0
    """Value that each loop's observation is driven to."""

    def validate(self) -> None:
        super().validate()
        if not np.isfinite(self.set_point):
            raise UsageError(f"PIDControl.set_point must be a finite number: got {self.set_point}.")

    @property
    def template(self) -> Float[np.ndarray, "n"]:
        return np.zeros(4 * num_drives(self.spec.action), np.float32)

    def candidates(
        self, draws: Key, numbers: Int[Array, "C"], best: Float[Array, "n"], iteration: Int[Array, ""]
    ) -> Float[Array, "C n"]:
        count, size = num_drives(self.spec.action), self.spec.observation.size

        def drawn(number: Int[Array, ""]) -> Float[Array, "n"]:
            keys = jax.random.split(jax.random.fold_in(draws, number), 6)
            observed = jax.random.randint(keys[0], (1, count), 0, size)
            sign = jax.random.rademacher(keys[1], (1, count), jnp.float32)
            low, high = (jnp.array(ends, jnp.float32)[:, None] for ends in ((-2, -3, -1), (2, 0, 1.5)))
            powers = low + (high - low) * jax.random.uniform(keys[2], (3, count), jnp.float32)
            is_used = jax.random.bernoulli(keys[3], 2 / 3, (3, count)).at[0].set(True)
            proportional = sign * jnp.float32(10.0) ** powers[:1]
            others = jnp.concatenate([jnp.ones((1, count), jnp.float32), jnp.float32(10.0) ** powers[1:]])
            fresh = jnp.concatenate([observed.astype(jnp.float32), proportional * others * is_used])
            changed = jnp.exp(jnp.float32(0.3) * jax.random.normal(keys[4], (3, count), jnp.float32))
            near = best.reshape(4, count).at[1:].multiply(changed)
            is_near = (iteration > 0) & jax.random.bernoulli(keys[5])
            return jnp.where(is_near, near, fresh).reshape(-1)

        return jax.vmap(drawn)(numbers)

    def begin(self, actor: ContestActor, slot: Int[Array, ""]) -> PIDMemory:
        observed, *gains = self.parameters(actor, slot).reshape(4, -1)
        still = jnp.zeros_like(observed)
        return PIDMemory(observed.astype(jnp.int32), jnp.stack(gains), still, still, jnp.zeros((), jnp.float32))

    def act(
        self, actor: ContestActor, carry: PIDMemory, obs: Array, key: Key, *, explore: bool
    ) -> tuple[Array, PIDMemory, None]:
        error = jnp.asarray(self.set_point, jnp.float32) - obs.reshape(-1).astype(jnp.float32)[carry.observed]
        proportional, integral, derivative = carry.gains
        limit = _limit(integral)
        total = jnp.clip(carry.total + error, -limit, limit)
        change = carry.started * (error - carry.before)
        drive = proportional * error + integral * total + derivative * change
        after = carry._replace(total=total, before=error, started=jnp.ones((), jnp.float32))
        return driven(self.spec.action, drive), after, None

    def policy_layers(self, actor: ContestActor) -> PolicyNetwork:
        observed, *gains = np.asarray(actor.best).reshape(4, -1)
        count = len(observed)
        weight = np.zeros((count, self.spec.observation.size))
        weight[np.arange(count), observed.astype(int)] = -1.0
        error = Dense(weight, np.full(count, float(self.set_point)))
        loops = PidLayer(gains[0], gains[1], gains[2], np.asarray(_limit(jnp.asarray(gains[1]))))
        return (*flattened(self.spec.observation), error, loops, *drive_layers(self.spec.action))

    def in_words(self, state: ContestState) -> str:
        """Return the loops in plain words."""
        observed, *gains = np.asarray(state.best).reshape(4, -1)
        loops = (
            f"action {number} holds x{int(seen)} at {float(self.set_point):.3g} with P {p:.3g}, I {i:.3g}, D {d:.3g}"
            for number, (seen, p, i, d) in enumerate(zip(observed, *gains, strict=True))
        )
        return "; ".join(loops)


def _limit(integral: Float[Array, "A"]) -> Float[Array, "A"]:
    """Return the sum of errors at which the integral part alone drives to the bound."""
    return jnp.minimum(1 / jnp.maximum(jnp.abs(integral), jnp.float32(1 / MOST_SUMMED)), jnp.float32(MOST_SUMMED))
