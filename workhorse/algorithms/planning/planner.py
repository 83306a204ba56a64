"""Base of every planner: what is minded of a trial, and the copy, a network that is shown what the planner did."""

from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.interpolate import CubicSpline

from workhorse.algorithms.demonstration_learner import CopierState, CopyActor, DemonstrationLearner
from workhorse.core.algorithm import Action, Carry, Key, Planner
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.ranges import require_positive
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Demonstrations, Tried

__all__ = ["BoxPlanner", "Copier", "WarmPlan", "knot_basis", "shifted"]


@configuration
class Copier(DemonstrationLearner, Planner):
    """A planner whose copy learns by behaviour cloning.

    It is trained after every iteration, on the newest pairs of an observation and the planner's action there.
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

    def validate(self) -> None:
        """Raise a `UsageError` where a field is out of range or the task's actions cannot be taken."""
        super().validate()
        name = type(self).__name__
        require_positive(name, horizon=self.horizon)
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

    def act(
        self, actor: CopyActor, carry: Carry, obs: Array, key: Key, *, explore: bool
    ) -> tuple[Action, Carry, tuple[()]]:
        """Take the copy's action; where `explore`, the first one of the plan, which is shifted by a step."""
        if explore:
            return *self.advance(carry, key), ()
        return super().act(actor, carry, obs, key, explore=False)

    def advance(self, carry: Carry, key: Key) -> tuple[Action, Carry]:
        """Return the plan's first action, and what is remembered a step later."""
        raise NotImplementedError

    def demonstrations(self, state: CopierState) -> Demonstrations:
        return state.memory


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


def _in_words(space: Any) -> str:
    return "continuous actions" if isinstance(space, Box) else "several choices at once"
