"""Returns and advantages along one trajectory, right at every way an episode can end.

All functions take one slot's steps, axis T; a slot may hold several episodes. `discount` is gamma * (1 - terminated):
zero where the task ended, gamma where only the clock did. `trace` is lambda * (1 - ended), zero at every seam between
episodes, whichever way they ended. The last step of a trajectory that was cut by the end of the rollout is a seam too.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["discounted_sum", "lambda_advantages", "lambda_returns"]


def lambda_advantages(
    reward: Float[Array, "T"],
    discount: Float[Array, "T"],
    value: Float[Array, "T"],
    next_value: Float[Array, "T"],
    trace: Float[Array, "T"],
) -> Float[Array, "T"]:
    """Exponentially weighted advantages.

    Solves  A_t = d_t + discount_t * trace_t * A_{t+1},  d_t = reward_t + discount_t * next_value_t - value_t,  A_T = 0.

    Args:
        reward: for the action taken at t.
        discount: weight of the successor's value, in [0, 1].
        value: estimate at the observation acted on.
        next_value: estimate at the true successor, *not* at a reset observation.
        trace: weight of later errors, in [0, 1].

    Returns:
        Advantages in reward units. Add `value` for the value targets.

    Example:
        >>> one = jnp.ones(3)
        >>> lambda_advantages(one, 0.5 * one, 0 * one, 0 * one, one).tolist()
        [1.75, 1.5, 1.0]

    Source: Schulman et al. 2016, "High-dimensional continuous control using generalized advantage estimation".
    Differs from it by separating termination from truncation.
    """
    error = reward + discount * next_value - value
    decay = discount * trace

    def back(later: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        error, decay = step
        advantage = error + decay * later
        return advantage, advantage

    return jax.lax.scan(back, jnp.zeros((), error.dtype), (error, decay), reverse=True)[1]


def lambda_returns(
    reward: Float[Array, "T"],
    discount: Float[Array, "T"],
    next_value: Float[Array, "T"],
    trace: Float[Array, "T"],
) -> Float[Array, "T"]:
    """Targets for the value: G_t = reward_t + discount_t * ((1 - trace_t) * next_value_t + trace_t * G_{t+1}).

    With a trace of 1 within episodes these are Monte-Carlo returns: sums of rewards to the end of the episode, where a
    clock or the end of the rollout cut it completed by the value of what came next. `lambda_advantages` plus `value`
    gives the same.

    Example:
        >>> one = jnp.ones(3)
        >>> lambda_returns(one, 0.5 * one, 2 * one, jnp.array([1.0, 1.0, 0.0])).tolist()
        [2.0, 2.0, 2.0]
    """

    def back(later: Array, step: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        reward, discount, next_value, trace = step
        found = reward + discount * ((1 - trace) * next_value + trace * later)
        return found, found

    start = jnp.zeros((), reward.dtype)
    return jax.lax.scan(back, start, (reward, discount, next_value, trace), reverse=True)[1]


def discounted_sum(
    before: Float[Array, ""], reward: Float[Array, "T"], discount: Float[Array, ""] | float, ended: Float[Array, "T"]
) -> tuple[Float[Array, ""], Float[Array, "T"]]:
    """The discounted sum of the rewards *so far* in an episode, forwards: R_t = discount * R_{t-1} + reward_t.

    It begins again after a step that ended an episode. Its spread is what rewards are scaled by.

    Args:
        before: the sum after the step before the first one here; 0 where an episode begins.
        reward: for each step.
        discount: in [0, 1].
        ended: 1 where the step ended an episode in any way, else 0.

    Returns:
        What to go on with after the last step, and the sum at each step.

    Example:
        >>> discounted_sum(jnp.zeros(()), jnp.ones(3), 0.5, jnp.array([0.0, 1.0, 0.0]))[1].tolist()
        [1.0, 1.5, 1.0]

    Source: Engstrom et al. 2020, "Implementation matters in deep RL", appendix A.2.
    """

    def forward(sum_before: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, ended = step
        now = discount * sum_before + reward
        return now * (1 - ended), now

    return jax.lax.scan(forward, before, (reward, ended))
