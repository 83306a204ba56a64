"""Rules about what goes into learning: numbers, noise, actions, observations, rewards and the networks' units."""

import math
from functools import partial

import numpy as np

from workhorse.runs.warnings.rule import FORWARD_PASS, Rows, Rule, has_gained, has_not_gained, register

__all__ = ["RULES"]

RULES: list[Rule] = []
rule = partial(register, RULES)

FLOW = (
    "reward_mean", "observation_scale", "td_error_spread", "monte_carlo_variance", "value", "critic_loss", "surrogate",
    "policy_loss", "gradient_norm", "parameter_norm", "entropy", "temperature",
)  # fmt: skip
"""Metrics in the order in which a run computes them: the first that is not finite is where the trouble began."""


STILL = 10
"""Iterations in which nothing must have moved."""


@rule(
    name="not-finite",
    meaning="A number became NaN or infinite, and everything computed from it will too.",
    condition="one of " + ", ".join(FLOW) + " is not finite; the first of them, from rewards to parameters, is named",
    misleads="a quantity that is not in the list breaks first",
    remedy="Look at the rewards and observations of the task, lower learning_rate, or set gradient_clip.",
    source="common practice",
)
def _not_finite(rows: Rows) -> str | None:
    flow = FLOW if _has_learnt(rows) else FLOW[:1]
    broken = (name for name in flow if name in rows and not math.isfinite(rows.newest(name)))
    first = next(broken, None)
    return None if first is None else f"{first} is not finite, and the numbers that it is computed from are"


def _has_learnt(rows: Rows) -> bool:
    """Tell whether the newest iteration has the metrics of updates, which with a replay may be none."""
    return "updates" not in rows or rows.newest("updates") > np.nan_to_num(rows.column("updates")[-2:-1]).sum()


@rule(
    name="exploding",
    meaning="Gradients, parameters or value errors grow without bound.",
    condition=(
        "the norm of gradients or parameters, or the spread of the value's errors, is a hundred times the median of "
        "the first ten iterations"
    ),
    persistence=5,
    misleads="a run that starts next to a fixed point, with almost no gradient",
    remedy="Lower learning_rate, set gradient_clip, and turn scale_rewards on.",
    source="Jones 2021",
)
def _exploding(rows: Rows) -> str | None:
    for name in ("gradient_norm", "parameter_norm", "td_error_spread"):
        seen = rows.all(name)
        if len(seen) >= 20 and rows.newest(name) > 100 * np.median(seen[:10]) > 0:
            return f"{name} is {rows.newest(name):.3g}, over a hundred times what it was at the start"
    return None


@rule(
    name="stale-log-probabilities",
    meaning="The recorded log probabilities are not those of the policy that acted, so every ratio is wrong.",
    condition="a recorded log probability differs from the policy's by more than .01",
    cost=FORWARD_PASS,
    misleads="log probabilities below some -1e5, where rounding comes near .01",
    remedy="Store the log probability of the draw itself, before clipping, with the observation scaling of that time.",
    source="reliability notes, section 5",
)
def _log_prob_gap(rows: Rows) -> str | None:
    gap = rows.newest("log_prob_gap")
    if gap > 0.01:
        return f"recorded log probabilities differ by {gap:.3g} from those of the policy that should have acted"
    return None


@rule(
    name="repeated-noise",
    meaning="A random key is used twice: slots, steps or iterations explore together.",
    condition=(
        "over ten iterations, the noise's mean over slots varies more than twice as much as independent slots' would; "
        "or the noise of neighbouring steps correlates by more than .3; or its level hardly changes between iterations"
    ),
    cost=FORWARD_PASS,
    misleads="correlated exploration on purpose (coloured noise, gSDE)",
    remedy="Give every step, slot and iteration a key of its own.",
    source="our own",
)
def _noise(rows: Rows) -> str | None:
    across, over = rows.last("noise_across_slots", 10), rows.last("noise_over_time", 10)
    level = rows.last("noise_level", 10)
    if min(len(across), len(over), len(level)) < 10:
        return None
    if across.mean() > 2.0:
        return f"slots draw the same noise: its mean over slots varies {across.mean():.1f} times as much as it should"
    if abs(over.mean()) > 0.3:
        return f"a step's noise has a correlation of {over.mean():.2f} with the next step's"
    if np.abs(np.diff(level)).mean() < 0.1:
        return "the noise is the same in every iteration"
    return None


@rule(
    name="saturated-actions",
    meaning="The policy asks for more than the task can do, where its actions have no gradient.",
    condition=(
        "in ten iterations the likeliest action is beyond its bounds in 90 % of components, or, of actions that are "
        "squashed into them, 50 % are within 1 % of a bound, and the return has not gained"
    ),
    persistence=5,
    cost=FORWARD_PASS,
    misleads="tasks whose best policy is bang-bang, before they have learnt anything",
    remedy="Lower learning_rate, set log_std lower, or check the scale of the task's actions.",
    source="Bjorck et al. 2021 (arXiv 2110.11222)",
)
def _saturated(rows: Rows) -> str | None:
    share = rows.last("saturated_actions", 10)
    if "replay_rows" in rows:  # their actions are squashed into [-1, 1] and drawn
        if len(share) == 10 and share.mean() > 0.5 and has_not_gained(rows):
            return f"{share.mean():.0%} of the components of actions lie within 1 % of a bound"
        return None
    if len(share) == 10 and share.mean() > 0.9 and has_not_gained(rows):
        return f"the likeliest action is beyond its bounds in {share.mean():.0%} of components"
    return None


@rule(
    name="actions-at-one-bound",
    meaning="Every action is clipped to the same bound, so nothing that the policy does makes a difference.",
    condition=(
        "in each of five iterations 99 % of the actions taken lie at the more frequent of a component's two bounds, on "
        "average over components, and the return has not gained since the start"
    ),
    cost="a comparison of actions with their bounds, in whole episodes in every sixteenth step",
    misleads="tasks in which full throttle is the best there is, where a run begins with it",
    remedy="Leave rescale_actions on, or give the task's actions two finite bounds around what helps.",
    source="our own; the fault is that of action spaces far from zero, reported by users of several libraries",
)
def _at_one_bound(rows: Rows) -> str | None:
    share = rows.last("actions_at_one_bound", 5)
    if len(share) == 5 and share.min() >= 0.99 and not has_gained(rows):
        return f"{share.mean():.0%} of the actions taken lie at one bound, always the same one"
    return None


@rule(
    name="standstill",
    meaning="Updates change nothing: the policy is the one that the run began with.",
    condition=(
        "in ten iterations the mean KL, the length of the step, or the gradient is exactly 0, or all members of a "
        "population earn the same, and the return has not gained since the start"
    ),
    misleads="a task that is solved from the first iteration on; a reward that was never seen yet",
    remedy="Check that the reward differs between episodes and that actions reach the task; raise the learning rate.",
    source="our own; the fault is that of advantages that are all 0, as in minibatches of one",
)
def _standstill(rows: Rows) -> str | None:
    if len(rows) < STILL or has_gained(rows):
        return None
    words = {
        "mean_kl": "updates have not moved the policy (mean KL 0)",
        "step_norm": "updates have not moved the parameters (steps of length 0)",
        "gradient_norm": "the gradient has been 0",
    }
    for name, sentence in words.items():
        seen = rows.last(name, STILL)
        if len(seen) == STILL and not seen.any():
            return f"{sentence} in {STILL} iterations"
    if "mean_kl" in rows or "replay_rows" in rows:
        return None  # returns of the episodes that ended say nothing of what an update read
    best, worst = rows.last("training_return_max", STILL), rows.last("training_return_min", STILL)
    if len(best) == len(worst) == STILL and (best == worst).all():
        return f"all members earned the same in {STILL} iterations, so that nothing tells better from worse"
    return None


@rule(
    name="dead-units",
    meaning="Hidden units are saturated or never active, so the policy cannot see.",
    condition=(
        "over half of the policy's hidden units vary by less than .01 in ten iterations, and the return has not gained"
    ),
    persistence=5,
    cost=FORWARD_PASS,
    misleads="rollouts in which the observation hardly changes",
    remedy="Check the scale of observations, use orthogonal_initialisation, lower learning_rate.",
    source="Bjorck et al. 2021 (arXiv 2110.11222)",
)
def _dead(rows: Rows) -> str | None:
    share = rows.last("dead_units", 10)
    if len(share) == 10 and share.min() > 0.5 and has_not_gained(rows):
        return f"{share.mean():.0%} of the policy's hidden units put out the same on every observation"
    return None


@rule(
    name="observation-scale",
    meaning="The networks see numbers of a size that they cannot work with.",
    condition=(
        "a component's root mean square is above 20, or a fifth of the components are at the bound, or all are zero"
    ),
    persistence=5,
    cost=FORWARD_PASS,
    misleads="linear policies can live with any scale",
    remedy="Turn normalise_observations on, or scale the task's observations to about one.",
    source="Andrychowicz et al. 2021 (arXiv 2006.05990)",
)
def _observations(rows: Rows) -> str | None:
    scale, clipped = rows.newest("observation_scale"), rows.newest("observations_clipped")
    if scale > 20:
        return f"a component of what the networks see is {scale:.3g} in root mean square"
    if clipped > 0.2:
        return f"{clipped:.0%} of what the networks see is at the bound of observation_clip"
    if rows.last("observation_scale", 10).max(initial=0.0) == 0:
        return "the networks see nothing but zeros" if "observation_scale" in rows else None
    return None


@rule(
    name="reward-scale",
    meaning="Rewards are cut off, so that better and best look the same.",
    condition="over half of the scaled rewards are at the bound of reward_clip",
    persistence=5,
    cost=FORWARD_PASS,
    misleads="rewards that take two values only",
    remedy="Turn scale_rewards on, or raise reward_clip.",
    source="Engstrom et al. 2020 (arXiv 2005.12729)",
)
def _rewards(rows: Rows) -> str | None:
    clipped = rows.newest("rewards_clipped")
    return f"{clipped:.0%} of rewards are at the bound of reward_clip" if clipped > 0.5 else None
