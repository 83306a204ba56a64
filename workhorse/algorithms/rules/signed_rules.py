"""A searched family of signed rules: push along an observation, or along the sum or the difference of two."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from workhorse.algorithms.rules.contest import Contest, ContestActor, ContestState, scattered
from workhorse.algorithms.rules.drive import STEEP, drive_layers, driven, flattened, num_drives
from workhorse.core.algorithm import Key
from workhorse.core.configuration import configuration
from workhorse.core.layers import Activation, Dense, PolicyNetwork
from workhorse.core.ranges import require_non_negative
from workhorse.core.spec import Box

__all__ = ["SignedRule", "SignedRules"]

GAINS = (0.1, 0.4, 1.0)
"""Size of a push, in halves of the action's range."""

SLOPES = (0.1, 0.4, 1.0, 4.0, 10.0)
"""Push per unit of the observation, in halves of the action's range."""


class SignedRule(NamedTuple):
    """drive_j = size * f(sign * (x_first + other * x_second)) for the components j that it drives, else 0.

    Attributes:
        first, second: components of the observation; the second counts where `other` is not 0.
        other: -1, 0 or 1.
        sign: -1 or 1.
        is_linear: f is the identity, else the sign.
        size: slope or gain, in halves of the action's range.
        target: component of the action that it drives; -1 for all at once.
    """

    first: Any
    second: Any
    other: Any
    sign: Any
    is_linear: Any
    size: Any
    target: Any


@configuration
class SignedRules(Contest):
    """gain * sign(s x_i), gain * sign(s (x_i +- x_j)), slope * s * x_i and slope * s * (x_i +- x_j), s = -1 or 1.

    Gains and slopes are in halves of the action's range. A rule pushes all components of the action alike or one of
    them, while the others stand in the middle. Of several choices it takes the last one for a push upwards, the first
    for one downwards, and the middle one where the observation is exactly 0; there a size means nothing, and the family
    is smaller. The family is gone through once, in an order that is scattered and starts where the seed says; then the
    best are judged again and again.
    """

    name = "signed-rules"
    summary = "the best of a small family of signed rules, such as: push along the velocity"

    most_paired: int = 12
    """Most observation components of which pairs are tried; beyond it there are too many."""

    def validate(self) -> None:
        super().validate()
        require_non_negative("SignedRules", most_paired=self.most_paired)

    @property
    def _features(self) -> np.ndarray:
        """Rows of (first, second, other): each component, then sums and differences of pairs."""
        size = self.spec.observation.size
        singles = [(i, i, 0) for i in range(size)]
        few = range(size if size <= self.most_paired else 0)
        return np.array(singles + [(i, j, other) for i in few for j in range(i) for other in (-1, 1)], np.int32)

    @property
    def _forms(self) -> np.ndarray:
        """Rows of (is_linear, size)."""
        if not isinstance(self.spec.action, Box):
            return np.array([(0, 1.0)], np.float32)
        return np.array([*((0, gain) for gain in GAINS), *((1, slope) for slope in SLOPES)], np.float32)

    @property
    def _targets(self) -> np.ndarray:
        count = num_drives(self.spec.action)
        return np.array([-1] if count == 1 else range(-1, count), np.int32)

    @property
    def family_size(self) -> int:
        return len(self._features) * len(self._forms) * len(self._targets) * 2

    @property
    def template(self) -> Int[np.ndarray, "n"]:
        return np.zeros(1, np.int32)

    def candidates(
        self, draws: Key, numbers: Int[Array, "C"], best: Int[Array, "n"], iteration: Int[Array, ""]
    ) -> Int[Array, "C n"]:
        size = self.family_size
        start = jax.random.randint(draws, (), 0, size)
        return ((scattered(numbers, size) + start) % size).astype(jnp.int32)[:, None]

    def rule(self, number: Int[Array, ""] | int) -> SignedRule:
        """Return the rule with a number in the family."""
        rest = number
        features, forms, targets = (jnp.asarray(part) for part in (self._features, self._forms, self._targets))
        rest, sign = rest // 2, 2 * (rest % 2) - 1
        rest, form = rest // len(forms), forms[rest % len(forms)]
        rest, target = rest // len(targets), targets[rest % len(targets)]
        first, second, other = features[rest % len(features)]
        return SignedRule(first, second, other, sign, form[0], form[1], target)

    def begin(self, actor: ContestActor, slot: Int[Array, ""]) -> SignedRule:
        return self.rule(self.parameters(actor, slot)[0])

    def act(
        self, actor: ContestActor, carry: SignedRule, obs: Array, key: Key, *, explore: bool
    ) -> tuple[Array, SignedRule, None]:
        x = obs.reshape(-1).astype(jnp.float32)
        seen = carry.sign * (x[carry.first] + carry.other * x[carry.second])
        push = carry.size * jnp.where(carry.is_linear > 0, seen, jnp.sign(seen))
        component = jnp.arange(num_drives(self.spec.action))
        drive = jnp.where((carry.target < 0) | (carry.target == component), push, jnp.float32(0.0))
        return driven(self.spec.action, drive), carry, None

    def policy_layers(self, actor: ContestActor) -> PolicyNetwork:
        found = SignedRule(*(part.item() for part in self.rule(actor.best[0])))
        weight = np.zeros((1, self.spec.observation.size), np.float32)
        weight[0, found.first] += found.sign
        weight[0, found.second] += found.sign * found.other
        seen = (Dense(weight),) if found.is_linear else (Dense(STEEP * weight), Activation("tanh"))
        component = np.arange(num_drives(self.spec.action))
        pushes = np.where((found.target < 0) | (found.target == component), found.size, 0.0)
        return (*flattened(self.spec.observation), *seen, Dense(pushes[:, None]), *drive_layers(self.spec.action))

    def in_words(self, state: ContestState) -> str:
        """Return the rule in plain words.

        Example:
            >>> from workhorse.core.spec import EnvSpec
            >>> car = EnvSpec("Car-v0", Box.unbounded(2), Box((-1.0,), (1.0,)), 200)
            >>> rules = SignedRules(spec=car)
            >>> rules.in_words(rules.init(jax.random.key(0))._replace(best=jnp.array([19])))
            'push with 0.4 of the range along x1'
        """
        found = SignedRule(*(part.item() for part in self.rule(state.best[0])))
        along = "along" if found.sign > 0 else "against"
        seen = f"x{found.first}"
        if found.other:
            seen = f"x{found.first} {'+' if found.other > 0 else '-'} x{found.second}"
        where = "" if found.target < 0 else f" in component {found.target}"
        if not isinstance(self.spec.action, Box):
            ends = ("last", "first") if found.sign > 0 else ("first", "last")
            return f"take the {ends[0]} choice{where} where {seen} > 0, and the {ends[1]} where it is below"
        if found.is_linear:
            return f"push {found.size:.3g} of the range per unit{where} {along} {seen}"
        return f"push with {found.size:.3g} of the range{where} {along} {seen}"
