"""Rules about what comes out of learning: values, updates, exploration, episodes and evaluations."""

import math
from functools import partial

import numpy as np

from workhorse.runs.warnings.rule import FORWARD_PASS, Column, Rows, Rule, gain, has_not_gained, register

__all__ = ["RULES"]

RULES: list[Rule] = []
rule = partial(register, RULES)


@rule(
    name="value-biased",
    meaning=(
        "The value contradicts the rewards: a bootstrap is missing, or it crosses a termination or the start of the "
        "next episode."
    ),
    condition=(
        "over twenty iterations the mean one-step error differs from zero by 5 standard errors, and times the horizon "
        "1 / (1 - discount) it exceeds .3 of the value's root mean square"
    ),
    persistence=20,
    cost=FORWARD_PASS,
    misleads="a policy that improves faster than its value follows",
    remedy="Check terminated against truncated, and that next_obs is the true successor and no reset observation.",
    source="our own; the faults are those of Pardo et al. 2018 (arXiv 1712.00378)",
)
def _value_biased(rows: Rows) -> str | None:
    mean, level, spread = (rows.last(name, 20) for name in ("td_error_mean", "value_mean", "value_spread"))
    discount = rows.setting("discount")
    if min(map(len, (mean, level, spread))) < 20 or discount is None:
        return None
    horizon = 1.0 / max(1.0 - discount, 1e-3)
    size = math.sqrt(float((np.square(level) + np.square(spread)).mean()))
    bias, error = abs(mean.mean()), mean.std(ddof=1) / math.sqrt(len(mean))
    if bias > 5 * error and bias * horizon > 0.3 * size:
        return (
            f"by the rewards and its own successors the value is off by {bias * horizon:.3g} of {size:.3g}, on average"
        )
    return None


@rule(
    name="value-explains-little",
    meaning="The value function reduces no variance.",
    condition=(
        "over twenty iterations it explains less than .1 of the variance of returns on held-out steps, pooled, in a "
        "run of 40 iterations at least"
    ),
    persistence=20,
    misleads="a reward that cannot be predicted; returns that are all alike (such iterations weigh little)",
    remedy="Raise the value's epochs or its learning rate, and look at `diagnose --only values`.",
    source="Ilyas et al. 2020 (arXiv 1811.02553)",
)
def _value_explains_little(rows: Rows) -> str | None:
    prefix = "held_out_" if "held_out_explained_variance_monte_carlo" in rows else ""
    explained = rows.last(prefix + "explained_variance_monte_carlo", 20)
    variance = rows.last(prefix + "monte_carlo_variance", 20)
    everything = rows.all(prefix + "monte_carlo_variance")
    if len(explained) < 20 or len(rows) < 40 or len(explained) != len(variance) or variance.sum() <= 0:
        return None
    share = 1.0 - float(((1.0 - explained) * variance).sum() / variance.sum())
    if share < 0.1 and variance.mean() > 0.1 * everything.mean():
        return f"the value explains {share:.2f} of the variance of returns"
    return None


@rule(
    name="trust-region",
    meaning="Updates change the policy by more than the method intends.",
    condition=(
        "trpo: mean KL on its own steps above max_kl, or on held-out steps five times; others: mean KL on held-out "
        "steps above .1 over twenty iterations"
    ),
    persistence=3,
    misleads="few held-out steps",
    remedy="Lower learning_rate or num_epochs, or raise the number of steps in each iteration.",
    source="Engstrom et al. 2020 (arXiv 2005.12729)",
)
def _trust_region(rows: Rows) -> str | None:
    promised = rows.setting("max_kl")
    if promised is not None:
        if rows.newest("mean_kl") > promised * (1 + 1e-3):
            return f"mean KL is {rows.newest('mean_kl'):.3g}, and at most {promised:.3g} was promised"
        seen, promised, where = rows.last("held_out_mean_kl", 20), 5.0 * promised, "was not trained on"
    elif "held_out_mean_kl" in rows:
        seen, promised, where = rows.last("held_out_mean_kl", 20), 0.1, "was not trained on"
    else:
        seen, promised, where = rows.last("mean_kl", 20), 0.1, "was trained on"
    if len(seen) >= 20 and seen.mean() > promised:
        return f"an update moves the policy by a mean KL of {seen.mean():.3g} on steps it {where}"
    return None


@rule(
    name="no-gradient",
    meaning="Gradient estimates are noise: updates are a random walk.",
    condition=(
        "over all iterations, 80 at least, the mean of gradient_signal / (|gradient_signal| + |gradient_noise|) is "
        "below 1.5 standard errors, and the return has not gained"
    ),
    persistence=10,
    cost="one backward pass of the policy an iteration (`measure_gradients`)",
    misleads="a sparse reward that was never seen; a policy that is optimal already",
    remedy="Gather more steps in each iteration; the progress line says how many are needed.",
    source="McCandlish et al. 2018 (arXiv 1812.06162), Ilyas et al. 2020 (arXiv 1811.02553)",
)
def _uncorrelated(rows: Rows) -> str | None:
    signal, noise = rows.all("gradient_signal"), rows.all("gradient_noise")
    if len(signal) < 80 or len(signal) != len(noise):
        return None
    share = signal / (np.abs(signal) + np.abs(noise) + 1e-30)
    error = share.std(ddof=1) / math.sqrt(len(share))
    if share.mean() < 1.5 * error and has_not_gained(rows):
        return f"in {len(share)} iterations, gradient estimates from one rollout have not agreed"
    return None


@rule(
    name="surrogate",
    meaning="Updates raise their objective and not the return.",
    condition=(
        "over twenty iterations updates lower the surrogate on their own or on held-out steps, by three standard "
        "errors; or they claim gains while the return has fallen by four standard errors since the start"
    ),
    persistence=10,
    misleads="a shaped reward that must fall before it rises",
    remedy="Check the signs of the loss and of the advantage; look at `diagnose --only landscape`.",
    source="Ilyas et al. 2020 (arXiv 1811.02553)",
)
def _surrogate(rows: Rows) -> str | None:
    for name, where in (("surrogate_gain", "their own"), ("held_out_surrogate_gain", "other")):
        gains = rows.last(name, 20)
        if len(gains) == 20 and gains.mean() + 3 * gains.std(ddof=1) / math.sqrt(20) < 0:
            return f"updates lower the surrogate on {where} steps, by {-gains.mean():.2g} deviations of advantage each"
    returns = rows.all("training_return")
    if len(returns) < 30:
        return None
    lost, error = gain(returns)
    if "surrogate_gain" in rows and lost < -4 * error and rows.last("surrogate_gain", 20).mean() > 0:
        return f"every update raised its objective, and the return fell by {-lost:.3g} since the start"
    return None


@rule(
    name="entropy",
    meaning="The policy has stopped exploring, or cannot begin to prefer anything.",
    condition=(
        "entropy fell below 5 % of its start, or real actions' standard deviation twentyfold, within 30 iterations, or "
        "later while the return has not gained; or in sixty iterations entropy has not moved by 2 %, or the standard "
        "deviation has grown by a factor of e, while the return has not gained"
    ),
    persistence=10,
    misleads="tasks in which the reward is rare",
    remedy="Raise entropy_weight where it fell, lower it where it is stuck.",
    source="Rahtz 2018, Jones 2021",
)
def _entropy(rows: Rows) -> str | None:
    is_real = "mean_log_std" in rows
    seen = rows.all("mean_log_std" if is_real else "entropy")
    if len(seen) < 15 or "noise_across_slots" not in rows:
        return None
    first, now = float(seen[:3].max()), float(seen[-10:].mean())
    if is_real:
        fell, stuck = now < first - 3.0, now > first + 1.0
        words = f"actions' mean standard deviation went from {math.exp(first):.2g} to {math.exp(now):.2g}"
    else:
        fell, stuck = now < 0.05 * first, abs(now - first) <= 0.02 * first
        words = f"entropy went from {first:.2f} to {now:.2f} nats"
    if fell and len(rows) <= 30:
        return f"{words} in {len(rows)} iterations"
    if (fell and len(seen) >= 30) or (stuck and len(seen) >= 60):
        return f"{words}, and the return has gained nothing" if has_not_gained(rows) else None
    return None


@rule(
    name="truncation",
    meaning="The task's clock is reported as a termination, or a termination as a truncation.",
    condition=(
        "over twenty iterations a fifth of the episodes terminate in the step in which the clock runs out, or are "
        "truncated before it does"
    ),
    persistence=5,
    misleads="tasks that truncate for good reasons of their own; broken simulations",
    remedy="Report failure as terminated and the clock alone as truncated; see docs/concepts/terminated-truncated.md.",
    source="Pardo et al. 2018 (arXiv 1712.00378)",
)
def _truncation(rows: Rows) -> str | None:
    episodes = rows.last("episodes", 20).sum()
    if episodes < 20 or len(rows) < 5:
        return None
    at_clock, early = rows.last("terminated_at_clock", 20).sum(), rows.last("truncated_early", 20).sum()
    if at_clock > 0.2 * episodes:
        return f"{at_clock / episodes:.0%} of episodes terminate in the very step in which the clock runs out"
    if early > 0.2 * episodes:
        return f"{early / episodes:.0%} of episodes are truncated before the clock runs out"
    return None


@rule(
    name="evaluation",
    meaning="Evaluations get worse, or stay far below training, while training improves.",
    condition=(
        "three evaluations in a row lie below the mean of ten iterations' worst training episodes, by two standard "
        "deviations of both and by a fifth of the range of training returns; or, over six evaluations and more, the "
        "training return is at its best and evaluations have lost half of their range"
    ),
    misleads="a task in which the likeliest action is worse than a sampled one",
    remedy="Look at a video; compare the training reward with the one evaluated.",
    source="Pan et al. 2022 (arXiv 2201.03544)",
)
def _evaluation(rows: Rows) -> str | None:
    trained, judged = rows.all("training_return"), rows.all("evaluation_return")
    if len(judged) < 4 or len(trained) < 12 or not math.isfinite(rows.newest("evaluation_return")):
        return None  # judged only in iterations with an evaluation, so that training is of the same time
    spread = float(rows.all("evaluation_return_std").mean())
    return _below_the_worst(rows, judged, spread, np.ptp(trained)) or _parted(trained, judged, spread)


def _below_the_worst(rows: Rows, judged: Column, spread: float, reach: float) -> str | None:
    worst, best = rows.all("training_return_min")[-10:], judged[-3:].max()
    if len(worst) == 10 and best < worst.mean() - max(2 * math.hypot(spread, worst.std(ddof=1)), 0.2 * reach):
        return f"three evaluations lie below the worst training episodes: {best:.3g} against {worst.mean():.3g}"
    return None


def _parted(trained: Column, judged: Column, spread: float) -> str | None:
    first, last = judged[: len(judged) // 2].mean(), judged[-(len(judged) // 3) :].mean()
    gained, error = gain(trained)
    best = np.convolve(trained, np.full(10, 0.1), "valid").max()
    is_best = gained > 2 * error and trained[-10:].mean() > best - 2 * error
    if len(judged) >= 6 and is_best and last < first - max(spread, 0.5 * np.ptp(judged)):
        return f"the training return rose by {gained:.3g}, while evaluations fell from {first:.3g} to {last:.3g}"
    return None
