"""Trust region policy optimisation: the natural gradient, shortened until the policy stays close."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from workhorse.algorithms.policy_gradient.batch import Batch, GradientState, flattened
from workhorse.algorithms.policy_gradient.policy_gradient import PLAIN, PolicyGradient
from workhorse.core.algorithm import Key
from workhorse.core.configuration import configuration
from workhorse.core.errors import UsageError
from workhorse.core.randomness import permutation
from workhorse.core.ranges import require_minibatches, require_positive
from workhorse.math.distributions import divergence
from workhorse.math.trust_region import backtracking, conjugate_gradient
from workhorse.networks.actor_critic import ActorCritic, StochasticPolicy
from workhorse.networks.mlp import MLP

__all__ = ["TRPO"]


@configuration
class TRPO(PolicyGradient):
    """Raise the surrogate E[rho A] as far as the mean KL divergence allows.

        maximise E[rho A]  subject to  E[KL(pi_old || pi)] <= max_kl

    With g the surrogate's gradient at the old policy and F the Fisher information there, the direction is x = F^-1 g,
    by conjugate gradient on products F v = d/dtheta (d/dtheta KL . v), with `damping` * v added. The step x *
    sqrt(2 max_kl / x^T (F + damping) x) is halved until the surrogate rises and the mean KL, measured on the whole
    rollout, is at most max_kl. *A step above the limit is never taken*: where `backtracks` halvings do not do, the
    policy stays.

    The value function is fitted by Adam, `value_epochs` epochs of minibatches.

    Source: Schulman et al. 2015, "Trust region policy optimization" (arXiv 1502.05477). The switches are those of
    Engstrom et al. 2020; most are off in TRPO as published, and on in the preset `trpo+`. `gradient_clip` is of the
    value's gradient alone.
    """

    name = "trpo"
    summary = "trust region policy optimisation, as published"
    presets = {
        "trpo": ("trust region policy optimisation, as published", PLAIN),
        "trpo+": ("trpo with the code-level optimisations of ppo", {}),
    }

    rollout_steps: int = 256
    """Steps of each slot an iteration."""
    normalise_advantages: Literal["minibatch", "batch", "none"] = "batch"
    """Centre advantages and divide them by their standard deviation: in the rollout (either word), or not."""
    max_kl: float = 0.01
    """The most that the mean KL divergence of an update may be."""
    cg_iterations: int = 10
    """Iterations of conjugate gradient."""
    damping: float = 0.1
    """Multiple of the identity added to the Fisher information."""
    fisher_stride: int = 1
    """Fisher-vector products are of every so-many-th step of the shuffled rollout; 1 for all."""
    backtracks: int = 10
    """Number of times that a step may be halved."""
    value_epochs: int = 10
    """Passes of the value function over the rollout."""
    minibatch_size: int = 64
    """Steps of the value function's minibatches; the rollout must be a multiple of it."""

    def validate(self) -> None:
        super().validate()
        if self.is_recurrent:
            raise UsageError("TRPO.policy must be 'linear' or 'mlp': got 'gru', which ppo, a2c and reinforce take.")
        positive = ("max_kl", "cg_iterations", "damping", "value_epochs", "minibatch_size", "backtracks")
        require_positive("TRPO", **{name: getattr(self, name) for name in positive})
        steps = self.num_envs * self.rollout_steps
        if not 1 <= self.fisher_stride <= steps:
            raise UsageError(f"TRPO.fisher_stride must be in [1, {steps}], the rollout: got {self.fisher_stride}.")
        require_minibatches("TRPO", steps, self.minibatch_size)

    def improve(
        self, state: GradientState, batch: Batch, rate: Float[Array, ""], key: Key
    ) -> tuple[ActorCritic, Any, dict[str, Array]]:
        flat = flattened(batch)
        advantage = self.normalised(flat.advantage, "batch", "minibatch")
        flat = flat._replace(advantage=advantage)
        fisher_key, value_key = jax.random.split(key)
        policy, metrics = self.policy_step(state.params.policy, flat, fisher_key)
        value, optimiser, value_metrics = self._fit_value(state, flat, rate, value_key)
        return ActorCritic(policy, value), optimiser, metrics | value_metrics

    def surrogate(self, policy: StochasticPolicy, batch: Batch) -> Float[Array, ""]:
        """E[rho A] over N steps."""
        log_prob = jax.vmap(lambda obs, drawn: policy(obs).log_prob(drawn))(batch.obs, batch.drawn)
        return (jnp.exp(log_prob - batch.log_prob) * batch.advantage).mean()

    def mean_kl(self, before: StochasticPolicy, after: StochasticPolicy, obs: Float[Array, "N D"]) -> Float[Array, ""]:
        """E[KL(before || after)] over N observations."""
        return jax.vmap(lambda one: divergence(before(one), after(one)))(obs).mean()

    def policy_step(
        self, policy: StochasticPolicy, batch: Batch, key: Key
    ) -> tuple[StochasticPolicy, dict[str, Array]]:
        """The policy after one step within the trust region."""
        start, to_policy = ravel_pytree(policy)
        fisher_obs = batch.obs
        if self.fisher_stride > 1:
            fisher_obs = batch.obs[permutation(key, len(batch.obs))[:: self.fisher_stride]]

        def kl_slope(params: Array) -> Array:
            return jax.grad(lambda other: self.mean_kl(policy, to_policy(other), fisher_obs))(params)

        def fisher_times(vector: Array) -> Array:
            return jax.jvp(kl_slope, (start,), (vector,))[1] + self.damping * vector

        before = self.surrogate(policy, batch)
        gradient = jax.grad(lambda params: self.surrogate(to_policy(params), batch))(start)
        direction = conjugate_gradient(fisher_times, gradient, self.cg_iterations)
        curvature = direction @ fisher_times(direction)
        length = jnp.sqrt(2 * self.max_kl / jnp.maximum(curvature, 1e-12))
        full = jnp.where(jnp.isfinite(length * direction).all(), length * direction, jnp.zeros_like(direction))

        def accepts(step: Array) -> Array:
            moved = to_policy(start + step)
            rises = self.surrogate(moved, batch) > before
            return rises & (self.mean_kl(policy, moved, batch.obs) <= self.max_kl)

        step, accepted, halvings = backtracking(accepts, full, self.backtracks)
        metrics = {
            "surrogate": before,
            "gradient_norm": jnp.linalg.norm(gradient),
            "step_norm": jnp.linalg.norm(step),
            "accepted": accepted.astype(jnp.float32),
            "halvings": halvings.astype(jnp.float32),
        }
        return to_policy(start + step), metrics

    def value_loss(self, value: MLP, batch: Batch) -> Float[Array, ""]:
        """E[(V - G)^2] / 2 over N steps."""
        return 0.5 * jnp.square(jax.vmap(value)(batch.obs)[:, 0] - batch.target).mean()

    def _fit_value(
        self, state: GradientState, flat: Batch, rate: Float[Array, ""], key: Key
    ) -> tuple[MLP, Any, dict[str, Array]]:
        """The value function after its epochs; the optimiser sees a policy that does not move."""
        still = jax.tree.map(jnp.zeros_like, state.params.policy)
        count = flat.target.shape[0]
        assert isinstance(state.params.value, MLP)

        def minibatch(learning: tuple[MLP, Any], rows: Array) -> tuple[tuple[MLP, Any], Array]:
            value, optimiser = learning
            part = jax.tree.map(lambda leaf: leaf[rows], flat)
            loss, gradient = jax.value_and_grad(self.value_loss)(value, part)
            together: Any = ActorCritic(still, gradient)
            direction, optimiser = self.optimiser().update(together, optimiser)
            moved: Any = direction
            return (jax.tree.map(lambda leaf, step: leaf - rate * step, value, moved.value), optimiser), loss

        def epoch(learning: tuple[MLP, Any], key: Key) -> tuple[tuple[MLP, Any], Array]:
            return jax.lax.scan(minibatch, learning, permutation(key, count).reshape(-1, self.minibatch_size))

        keys = jax.random.split(key, self.value_epochs)
        (value, optimiser), losses = jax.lax.scan(epoch, (state.params.value, state.optimiser), keys)
        return value, optimiser, {"value_loss": losses.mean()}
