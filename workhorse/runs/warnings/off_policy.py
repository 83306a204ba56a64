"""Rules about learning from a replay: values that rewards do not allow, temperature, atoms, what updates are given."""

import math
from functools import partial

import numpy as np

from workhorse.runs.warnings.rule import Column, Rows, Rule, register

__all__ = ["RULES", "highest_value"]

RULES: list[Rule] = []
rule = partial(register, RULES)

REMEMBERED = 100
"""Iterations whose highest temperature bounds what entropy may have added to a value."""

ENOUGH_TERMINALS = 20.0
"""Expected number of sampled terminations from which on a draw of none is no chance: e^-20."""


def highest_value(reward: float, discount: float, entropy: float = 0.0, *, terminates: bool) -> float:
    """Return the highest value that any policy can have where no reward is above `reward`.

    A soft value is that of an episode of T steps, T possibly infinite,

        Q(s_0, a_0) = E[ r_0 + sum_{0 < t < T} gamma^t (r_t + alpha H_t) ]
                   <= r + b sum_{0 < t < T} gamma^t,            b = reward + entropy,

    because r_t <= r = `reward` and alpha H_t <= `entropy`. The action of step 0 is given: its entropy does not count,
    but its reward does. If b >= 0 the sum is largest for T infinite:  r + gamma b / (1 - gamma). If b < 0 it is largest
    for the shortest episode that there may be: r alone where the task can terminate at once, and else, because a clock
    is no end, still the infinite one. Without entropy these are r / (1 - gamma), and r where r < 0 and the task
    terminates.

    A learnt value is at most that too, if it began below it: of the target y = r_0 + gamma (1 - terminated) (Q' + alpha
    H), Q' <= bound implies y <= bound, with n steps as well. *A network is no table*: between and beyond what it was
    trained on it may be above it by its errors.

    Args:
        reward: largest reward, raw.
        discount: gamma, below 1.
        entropy: temperature times the highest entropy of a policy, in raw rewards; 0 for values that are not soft.
        terminates: whether episodes were seen to terminate.

    Example:
        >>> [round(highest_value(r, 0.9, terminates=ends), 3) for r in (1.0, -1.0) for ends in (True, False)]
        [10.0, 10.0, -1.0, -10.0]
        >>> round(highest_value(0.0, 0.9, 1.0, terminates=True), 3)
        9.0
    """
    each = reward + entropy
    if each < 0 and terminates:
        return reward
    return reward + discount * each / (1.0 - discount)


def _entropy_bonus(rows: Rows) -> float:
    """Return the most that the entropy of one step may have added to a value lately, in raw rewards."""
    temperature = rows.last("temperature", REMEMBERED).max(initial=0.0)
    highest = rows.last("highest_entropy", 1).max(initial=0.0)
    return float(temperature * max(highest, 0.0) / _factors(rows, REMEMBERED).min())


def _factors(rows: Rows, count: int) -> Column:
    """Return the factors of rewards, values and temperature in the metrics of updates, of the newest iterations."""
    found = rows.last("reward_factor", count)
    return found if len(found) else np.array([rows.setting("reward_scale") or 1.0])


@rule(
    name="value-above-rewards",
    meaning="Values are higher than any sum of the rewards there are: they diverge, or learn from wrong targets.",
    condition=(
        "over ten iterations the mean value of the sampled actions is above the highest value that the largest reward "
        "so far allows (r / (1 - discount), r itself where r < 0 and episodes terminate; that of a soft value has the "
        "entropy bonus of the most random policy too), by a tenth of the largest |r| / (1 - discount); or the highest "
        "value of an update is, by .4 of it; values that fall towards a bound below 0 are no fault, for they begin at 0"
    ),
    persistence=5,
    misleads="values that fall from 0 towards a bound far below it, where they stop for a while",
    remedy=(
        "Check the discount of n-step targets, the mask of terminations and the scale of rewards; lower learning_rate "
        "or target_rate, and see `diagnose --only values` for the states."
    ),
    source="our own; van Hasselt et al. 2018 (arXiv 1812.02648) count such values as soft divergence",
)
def _above_rewards(rows: Rows) -> str | None:
    value, discount = rows.last("value", 10), rows.setting("discount")
    best, worst = rows.all("reward_max"), rows.all("reward_min")
    if discount is None or discount >= 1 or len(value) < 10 or not len(best):
        return None
    ended = rows.all("episodes").sum() - rows.all("truncated_episodes").sum()
    bound = highest_value(float(best.max()), discount, _entropy_bonus(rows), terminates=ended > 0)
    size = max(float(np.abs(best).max()), float(np.abs(worst).max(initial=0.0))) / (1.0 - discount)
    mean = float(value.mean() / _factors(rows, 10).mean())
    highest = float(rows.last("value_max", 10).mean() / _factors(rows, 10).mean()) if "value_max" in rows else mean
    for name, found, room in (("mean", mean, 0.1), ("highest", highest, 0.4)):
        if found > bound + room * size and not (bound < 0 and _falls(value, 0.01 * (found - bound))):
            return (
                f"the {name} value of sampled actions is {found:.3g}, and no reward above {best.max():.3g} was ever "
                f"seen, which allows {bound:.3g}"
            )
    return None


def _falls(values: Column, least: float) -> bool:
    """Tell whether values have fallen by this much from the first three to the last three."""
    return bool(values[:3].mean() - values[-3:].mean() > least)


@rule(
    name="value-above-returns",
    meaning="Values are far above the discounted returns that follow the same actions.",
    condition=(
        "over twenty iterations the mean value of recent actions is above the mean discounted return that followed "
        "them, by 5 standard errors and by 1.2 standard deviations of these returns over the actions; what the "
        "entropy of later actions adds to a soft value is taken off, and a gap that shrinks by a tenth is no fault"
    ),
    persistence=10,
    cost="values of at most 128 stored actions an iteration",
    misleads="exploration that costs far more than the policy without it; a policy that improves all of the time",
    remedy=(
        "Check that targets stop at terminations and not at truncations; take the smaller of two critics (double); "
        "`diagnose --only values` measures it without exploration and names the states."
    ),
    source="Fujimoto et al. 2018 (arXiv 1802.09477), figure 1; van Hasselt et al. 2016 (arXiv 1509.06461), figure 3",
)
def _above_returns(rows: Rows) -> str | None:
    value, returns, spread = (rows.last(f"recent_{name}", 20) for name in ("value", "return", "return_spread"))
    discount = rows.setting("discount")
    if discount is None or len(value) < 20 or not len(value) == len(returns) == len(spread):
        return None
    entropy, temperature = rows.last("entropy", 20), rows.last("temperature", 20)
    bonus = 0.0
    if len(entropy) and len(temperature):
        later = discount / max(1.0 - discount, 1e-3)
        bonus = max(float(entropy.mean() * temperature.mean()) * later / _factors(rows, 20).mean(), 0.0)
    over = value - returns - bonus
    error = over.std(ddof=1) / math.sqrt(len(over))
    shrinks = over[-5:].mean() < 0.9 * over[:5].mean()  # values begin at 0 and may have far to fall
    large = max(1.2 * spread.mean(), 0.1 * np.abs(returns).mean())
    if over.mean() > max(5 * error, large) and not shrinks:
        return (
            f"values of recent actions are {value.mean():.3g} and the discounted returns that followed them "
            f"{returns.mean():.3g}, with a standard deviation of {spread.mean():.2g}"
        )
    return None


@rule(
    name="temperature",
    meaning="The weight of the entropy runs away: the policy cannot have the entropy that it is steered to.",
    condition=(
        "the temperature rose in each of twenty iterations, to three times what it was, while the entropy did not gain "
        "a tenth of what it lacks of the highest there is"
    ),
    misleads="a temperature that was set far too low at the start",
    remedy="Lower target_entropy: it must be well below the entropy of uniform actions; or fix the temperature.",
    source="our own; public reports of discrete soft actor-critic whose target is next to the highest entropy",
)
def _temperature(rows: Rows) -> str | None:
    temperature, entropy = rows.last("temperature", 21), rows.last("entropy", 21)
    highest = rows.last("highest_entropy", 1)
    if min(len(temperature), len(entropy)) < 21 or not len(highest):
        return None
    rising = bool((np.diff(temperature) > 0).all()) and temperature[-1] > 3 * temperature[0]
    lacked = highest[0] - entropy[:5].mean()
    if rising and entropy[-5:].mean() - entropy[:5].mean() < 0.1 * max(lacked, 0.0) + 1e-3 * highest[0]:
        return (
            f"the temperature went from {temperature[0]:.2g} to {temperature[-1]:.2g} in twenty iterations, and the "
            f"entropy from {entropy[:5].mean():.2f} to {entropy[-5:].mean():.2f} nats, of {highest[0]:.2f} at most"
        )
    return None


@rule(
    name="support-ends",
    meaning="Returns lie beyond the atoms of the value's distribution, where all look alike.",
    condition="over ten iterations the targets have more than 5 % of their mass on the first and the last atom",
    persistence=5,
    misleads="tasks whose returns end there by right: widen the support a little and look again",
    remedy="Widen the support to the discounted returns of the task, or scale the rewards.",
    source="Bellemare et al. 2017 (arXiv 1707.06887); the limit is our own",
)
def _support(rows: Rows) -> str | None:
    mass = rows.last("support_end_mass", 10)
    if len(mass) == 10 and mass.mean() > 0.05:
        return f"{mass.mean():.0%} of the mass of value distributions lies on the atoms at the ends"
    return None


@rule(
    name="dead-replay",
    meaning="Updates are never given a termination, although episodes terminate: their values have no ground.",
    condition=(
        "by the number of episodes that terminated within the replay, updates of the last hundred iterations should "
        "have been given 20 terminations, and they were given none"
    ),
    misleads="a task that terminates without its doing mattering",
    remedy="Check that the task's terminated flag reaches the replay as it is, and is not merged with truncated.",
    source="our own",
)
def _dead_replay(rows: Rows) -> str | None:
    names = ("sampled_terminals", "updates", "replay_rows", "env_steps", "episodes", "truncated_episodes")
    if any(name not in rows for name in names):
        return None
    sampled, updates, kept, steps, episodes, cut = (rows.column(name) for name in names)
    batch = rows.setting("batch_size") or 1.0
    terminated = np.concatenate([[0.0], np.cumsum(episodes - cut)])
    before = np.concatenate([[0.0], steps])
    recent = np.arange(max(len(steps) - REMEMBERED, 0), len(steps))
    oldest = np.searchsorted(before, steps[recent] - kept[recent])  # rows that began after it are surely kept
    share = np.maximum(terminated[recent + 1] - terminated[np.minimum(oldest, recent + 1)], 0.0) / kept[recent]
    samples = np.diff(np.concatenate([[0.0], updates]))[recent] * batch
    given = np.nan_to_num(sampled[recent])
    expected = float((samples * share).sum())
    if expected >= ENOUGH_TERMINALS and not given.any():
        return f"updates were given no termination, where about {expected:,.0f} were to be expected"
    return None
