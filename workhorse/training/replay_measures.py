"""Measures of an iteration off the replay: rewards, and values beside the returns that followed."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from workhorse.core.algorithm import OffPolicy, State
from workhorse.core.spec import ActionSpace, Box, Discrete, MultiDiscrete
from workhorse.data.replay import Cursor, ReplayRows, Size

__all__ = ["Following", "following_rewards", "gives_values", "highest_entropy", "measures"]

WINDOW = 1024
"""Newest steps of each slot whose values are looked at."""

PLACES = 64
"""Number of these steps at which values are asked, evenly spread."""

MOST_TAIL = 0.5
"""Weight of a value in a return above which a step is not looked at."""


class Following(NamedTuple):
    """What followed each step, (T, B): return = reward + weight * value of the step at time `cut`.

    Attributes:
        reward: discounted rewards before the cut.
        weight: 0 where the episode terminated.
        cut: last step of the slot that is followed, in steps from the first row.
    """

    reward: Float[Array, "T B"]
    weight: Float[Array, "T B"]
    cut: Int[Array, "T B"]


def following_rewards(
    reward: Float[Array, "T B"], terminated: Bool[Array, "T B"], truncated: Bool[Array, "T B"], discount: Array
) -> Following:
    """Return what followed each of consecutive steps, up to a termination, a truncation or the last step.

    Where an episode terminated, the return is known. Elsewhere the value of the last step that was seen, of which no
    reward is counted, takes the place of what is not known: an error of all values by b is an error of
    (1 - weight) b between value and return.

    Example:
        >>> no = jnp.zeros((3, 1), bool)
        >>> found = following_rewards(jnp.ones((3, 1), jnp.float32), no, no, jnp.float32(0.5))
        >>> found.reward[:, 0].tolist(), found.weight[:, 0].tolist(), found.cut[:, 0].tolist()
        ([1.5, 1.0, 0.0], [0.25, 0.5, 1.0], [2, 2, 2])
    """

    def earlier(later: Following, step: tuple[Array, Array, Array, Array]) -> tuple[Following, Following]:
        reward, terminated, truncated, time = step
        ended = terminated | truncated
        gamma = jnp.asarray(discount, jnp.float32)
        found = Following(
            jnp.where(ended, jnp.where(terminated, reward, 0.0), reward + gamma * later.reward),
            jnp.where(ended, jnp.where(terminated, 0.0, 1.0), gamma * later.weight),
            jnp.where(ended, time, later.cut),
        )
        return found, found

    length, slots = reward.shape
    is_last = (jnp.arange(length) == length - 1)[:, None]
    times = jnp.arange(length, dtype=jnp.int32)
    nothing = Following(jnp.zeros(slots, jnp.float32), jnp.zeros(slots, jnp.float32), jnp.zeros(slots, jnp.int32))
    steps = reward.astype(jnp.float32), terminated, truncated | is_last, times
    return jax.lax.scan(earlier, nothing, steps, reverse=True)[1]


def gives_values(algorithm: OffPolicy) -> bool:
    """Return True where an algorithm tells the value of an action."""
    return type(algorithm).action_value is not OffPolicy.action_value


def highest_entropy(action: ActionSpace) -> float:
    """Return the highest entropy of a policy, in nats: that of uniform actions in [-1, 1], or of equal chances.

    Example:
        >>> highest_entropy(Discrete(4)), highest_entropy(Box((-1.0,) * 2, (1.0,) * 2))
        (1.3862943611198906, 1.3862943611198906)
    """
    if isinstance(action, Box):
        return action.size * float(np.log(2.0))
    if isinstance(action, Discrete):
        return float(np.log(action.count))
    choices = action.counts if isinstance(action, MultiDiscrete) else (2,) * action.size
    return float(np.log(choices).sum())


@partial(jax.jit, static_argnums=0)
def measures(size: Size, algorithm: OffPolicy, state: State, rows: ReplayRows, cursor: Cursor) -> dict[str, Array]:
    """Return measures of the newest iteration.

    `reward_mean`, `reward_min`, `reward_max` are of its steps, raw. `recent_value` is the mean value of up to 64 of the
    newest steps of each slot, `recent_return` the mean discounted return that followed the same steps (see
    `following_rewards`), `recent_return_spread` its standard deviation over them; NaN where none is far enough from
    what cuts its return. *These returns are of the policy that acted, with its exploration.*
    """
    length = min(size.rows, max(WINDOW, size.spare))
    times = cursor.count - length + jnp.arange(length)
    at = times % size.rows
    reward, terminated, truncated = rows.reward[at], rows.terminated[at], rows.truncated[at]
    newest = reward[-size.spare :]
    found = {"reward_mean": newest.mean(), "reward_min": newest.min(), "reward_max": newest.max()}
    if not gives_values(algorithm):
        return found
    truncated = truncated | (rows.broken[(at + 1) % size.rows] & (times + 1 < cursor.count))[:, None]
    following = following_rewards(reward, terminated, truncated, jnp.asarray(algorithm.discount))
    usable = (times >= cursor.first)[:, None] & (following.weight <= MOST_TAIL)
    number = jnp.cumsum(usable.reshape(-1))  # of each usable step, from 1
    wanted = ((jnp.arange(PLACES) + 0.5) * number[-1] / PLACES).astype(number.dtype) + 1
    place = jnp.searchsorted(number, wanted)
    time, slot = place // size.num_slots, place % size.num_slots

    def values(time: Int[Array, "K"]) -> Float[Array, "K"]:
        absolute = times[time]
        obs, action = rows.obs[absolute % (size.rows + 1), slot], rows.action[absolute % size.rows, slot]
        return jax.vmap(partial(algorithm.action_value, state))(obs, action)

    value = values(time)
    returns = following.reward[time, slot] + following.weight[time, slot] * values(following.cut[time, slot])
    shown = {"recent_value": value.mean(), "recent_return": returns.mean(), "recent_return_spread": returns.std()}
    return found | {name: jnp.where(number[-1] > 0, one, jnp.nan) for name, one in shown.items()}
