"""Warnings: rules over the metrics of a run that say, once and with the iteration, that something looks wrong.

A rule reads the rows so far and nothing else, so the same warnings come whenever the rows are read: while the run goes
on, after a resume, and from a run that was made without them. A condition must hold for some iterations on end before
it is a warning, because one in a hundred iterations looks strange in any run. *A warning is a reason to look, and never
proof*; how often each one is right and how often it cries wolf is measured by `bench/faults.py`.

Source of the idea and of several rules: Rahtz 2018, "Lessons learned reproducing a deep reinforcement learning paper";
Jones 2021, "Debugging RL, without the agonizing pain". Thresholds were set on other seeds than those it shows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workhorse.core.spec import Box, EnvSpec
from workhorse.runs.files import write_file, writing
from workhorse.runs.folder import RunFolder

__all__ = ["OTHER_RULES", "RULES", "Rows", "Rule", "Warned", "Watch", "preflight", "read_warnings", "write_warnings"]

Floats = NDArray[np.float64]

FLOW = (
    "reward_mean", "observation_scale", "td_error_spread", "monte_carlo_variance", "surrogate", "gradient_norm",
    "parameter_norm", "entropy",
)  # fmt: skip
"""Metrics from the source of a run's numbers to its mouth: the first that is not finite is where the trouble began."""


class Rows:
    """The metrics of a run so far, by column.

    Attributes:
        settings: of the algorithm.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = settings
        self._columns: dict[str, Floats] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, row: Mapping[str, Any]) -> None:
        """Add an iteration's metrics; what it does not have is NaN there."""
        for name, value in row.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                column = self._columns.get(name)
                if column is None or len(column) <= self._count:
                    longer = np.full(max(64, 2 * self._count), np.nan)
                    if column is not None:
                        longer[: len(column)] = column
                    self._columns[name] = column = longer
                column[self._count] = value
        self._count += 1

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def newest(self, name: str) -> float:
        """A column's value in the newest iteration; NaN where it has none."""
        column = self._columns.get(name)
        return math.nan if column is None or len(column) < self._count else float(column[self._count - 1])

    def last(self, name: str, count: int) -> Floats:
        """A column's finite values in the newest `count` iterations."""
        column = self._columns.get(name, np.empty(0))
        found = column[max(self._count - count, 0) : self._count]
        return found[np.isfinite(found)]

    def all(self, name: str) -> Floats:
        """A column's finite values."""
        return self.last(name, self._count)


@dataclass(frozen=True)
class Rule:
    """One warning.

    Attributes:
        name: short, for the record.
        meaning: what is wrong when it is right.
        rule: the condition, in words.
        persistence: iterations on end that it must hold.
        cost: what measuring it takes.
        misleads: when it warns of nothing, or is silent.
        remedy: what to do.
        source: where it comes from.
        judge: a sentence about the rows so far where the condition holds, else None.
    """

    name: str
    meaning: str
    rule: str
    persistence: int
    cost: str
    misleads: str
    remedy: str
    source: str
    judge: Callable[[Rows], str | None]

    @property
    def explained(self) -> dict[str, str]:
        """The rule for people, by heads: rule, cost, misleads, remedy, source."""
        lasting = "at once" if self.persistence == 1 else f"for {self.persistence} iterations on end"
        return {
            "rule": f"{self.rule}; {lasting}.",
            "cost": f"{self.cost}.",
            "misleads": f"{self.misleads}.",
            "remedy": self.remedy,
            "source": f"{self.source}.",
        }


@dataclass(frozen=True)
class Warned:
    """A warning that was given.

    Attributes:
        name: of the rule.
        iteration, env_steps: when; 0 for a warning before the first.
        sentence: what was seen.
        remedy: what to do.
    """

    name: str
    iteration: int
    env_steps: int
    sentence: str
    remedy: str

    def __str__(self) -> str:
        return f"Warning at iteration {self.iteration:,}, {self.name}: {self.sentence}. {self.remedy}"


class Watch:
    """Reads a run's metrics as they come, and warns of each thing once.

    Example:
        >>> watch = Watch({"max_kl": 0.01})
        >>> for number in range(1, 6):
        ...     found = watch.see({"iteration": number, "env_steps": 100 * number, "mean_kl": 0.5})
        ...     if found:
        ...         print(found[0].name, found[0].iteration)
        trust-region 3
    """

    def __init__(self, settings: Mapping[str, Any], rules: Sequence[Rule] | None = None) -> None:
        self.given: list[Warned] = []
        self._rows = Rows(settings)
        self._rules = tuple(RULES if rules is None else rules)
        self._held = dict.fromkeys((rule.name for rule in self._rules), 0)

    def see(self, row: Mapping[str, Any]) -> list[Warned]:
        """Warnings that an iteration's metrics bring, none that was given before."""
        self._rows.append(row)
        new = []
        for rule in self._rules:
            if self._held[rule.name] < 0:
                continue  # given
            sentence = rule.judge(self._rows)
            self._held[rule.name] = 0 if sentence is None else self._held[rule.name] + 1
            if sentence is not None and self._held[rule.name] >= rule.persistence:
                self._held[rule.name] = -1
                new.append(Warned(rule.name, int(row["iteration"]), int(row["env_steps"]), sentence, rule.remedy))
        self.given += new
        return new

    def begin(self, warnings: Sequence[Warned]) -> None:
        """Add what was seen before the first iteration."""
        self.given = [*warnings, *self.given]


def write_warnings(folder: RunFolder, given: Sequence[Warned]) -> None:
    """Keep the warnings of a run, warnings.json.

    Raises:
        UsageError: the disk is full, read-only, or not there.
    """
    text = json.dumps([asdict(warned) for warned in given], indent=1)
    with writing("the warnings", folder.path):
        write_file(folder.path / "warnings.json", text.encode())


def read_warnings(folder: RunFolder) -> list[Warned]:
    """The warnings of a run; none where the file is missing or cannot be read."""
    try:
        return [Warned(**record) for record in json.loads((folder.path / "warnings.json").read_bytes())]
    except (OSError, ValueError, TypeError):
        return []


def preflight(spec: EnvSpec, settings: Mapping[str, Any], obs: np.ndarray) -> list[Warned]:
    """What looks suspicious before training starts.

    Args:
        spec: the task's.
        settings: of the algorithm.
        obs: of every slot after its reset, (B, D).
    """
    found = []
    action = spec.action
    if isinstance(action, Box) and settings.get("log_std") is not None:
        half = (np.asarray(action.high) - np.asarray(action.low)) / 2
        std = math.exp(settings["log_std"])
        finite = half[np.isfinite(half)]
        if len(finite) and (finite.max() > 20 * std or finite.min() < std / 20):
            widest = finite.max() if finite.max() > 20 * std else finite.min()
            found.append(
                Warned(
                    "action-scale",
                    0,
                    0,
                    f"an action's bounds are {widest:.3g} to either side, and the policy begins with a standard "
                    f"deviation of {std:.3g}",
                    "Set log_std to the logarithm of a third of that, or scale the task's actions to [-1, 1].",
                )
            )
    scale = float(np.abs(obs).max(initial=0.0))
    if not settings.get("normalise_observations", True) and scale > 20:
        found.append(
            Warned(
                "observation-scale",
                0,
                0,
                f"an observation after a reset is as large as {scale:.3g}, and observations are not normalised",
                "Turn normalise_observations on, or scale the task's observations to about one.",
            )
        )
    return found


# --- what the rules are made of ---


def _gain(values: Floats, most: int = 10) -> tuple[float, float]:
    """(the last values' mean less the first ones', its standard error)."""
    count = max(min(most, len(values) // 3), 1)
    first, last = values[:count], values[-count:]
    if count < 3:
        return 0.0, math.inf
    error = math.sqrt((first.var(ddof=1) + last.var(ddof=1)) / count) + 1e-12
    return float(last.mean() - first.mean()), error


def _has_not_gained(rows: Rows) -> bool:
    """Whether the training return is no better than it was; no, where too few episodes ended to tell."""
    returns = rows.all("training_return")
    gain, error = _gain(returns)
    return len(returns) >= 9 and gain <= 2 * error


def _not_finite(rows: Rows) -> str | None:
    broken = (name for name in FLOW if name in rows and not math.isfinite(rows.newest(name)))
    first = next(broken, None)
    return None if first is None else f"{first} is not finite, and what feeds it is"


def _exploding(rows: Rows) -> str | None:
    for name in ("gradient_norm", "parameter_norm", "td_error_spread"):
        seen = rows.all(name)
        if len(seen) >= 20 and rows.newest(name) > 100 * np.median(seen[:10]) > 0:
            return f"{name} is {rows.newest(name):.3g}, over a hundred times what it was at the start"
    return None


def _log_prob_gap(rows: Rows) -> str | None:
    gap = rows.newest("log_prob_gap")
    if gap > 0.01:
        return f"recorded log probabilities differ by {gap:.3g} from those of the policy that should have acted"
    return None


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


def _saturated(rows: Rows) -> str | None:
    share = rows.last("saturated_actions", 10)
    if len(share) == 10 and share.mean() > 0.9 and _has_not_gained(rows):
        return f"the likeliest action is beyond its bounds in {share.mean():.0%} of components"
    return None


def _dead(rows: Rows) -> str | None:
    share = rows.last("dead_units", 10)
    if len(share) == 10 and share.min() > 0.5 and _has_not_gained(rows):
        return f"{share.mean():.0%} of the policy's hidden units put out the same on every observation"
    return None


def _observations(rows: Rows) -> str | None:
    scale, clipped = rows.newest("observation_scale"), rows.newest("observations_clipped")
    if scale > 20:
        return f"a component of what the networks see is {scale:.3g} in root mean square"
    if clipped > 0.2:
        return f"{clipped:.0%} of what the networks see is at the bound of observation_clip"
    if rows.last("observation_scale", 10).max(initial=0.0) == 0:
        return "the networks see nothing but zeros" if "observation_scale" in rows else None
    return None


def _rewards(rows: Rows) -> str | None:
    clipped = rows.newest("rewards_clipped")
    return f"{clipped:.0%} of rewards are at the bound of reward_clip" if clipped > 0.5 else None


def _value_biased(rows: Rows) -> str | None:
    mean, level, spread = (rows.last(name, 20) for name in ("td_error_mean", "value_mean", "value_spread"))
    if min(map(len, (mean, level, spread))) < 20 or "discount" not in rows.settings:
        return None
    horizon = 1.0 / max(1.0 - float(rows.settings["discount"]), 1e-3)
    size = math.sqrt(float((np.square(level) + np.square(spread)).mean()))
    bias, error = abs(mean.mean()), mean.std(ddof=1) / math.sqrt(len(mean))
    if bias > 5 * error and bias * horizon > 0.3 * size:
        return (
            f"by the rewards and its own successors the value is off by {bias * horizon:.3g} of {size:.3g}, on average"
        )
    return None


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


def _trust_region(rows: Rows) -> str | None:
    promised = rows.settings.get("max_kl")
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


def _uncorrelated(rows: Rows) -> str | None:
    signal, noise = rows.all("gradient_signal"), rows.all("gradient_noise")
    if len(signal) < 80 or len(signal) != len(noise):
        return None
    share = signal / (np.abs(signal) + np.abs(noise) + 1e-30)
    error = share.std(ddof=1) / math.sqrt(len(share))
    if share.mean() < 1.5 * error and _has_not_gained(rows):
        return f"in {len(share)} iterations, gradient estimates from one rollout have had nothing in common"
    return None


def _surrogate(rows: Rows) -> str | None:
    for name, where in (("surrogate_gain", "their own"), ("held_out_surrogate_gain", "other")):
        gain = rows.last(name, 20)
        if len(gain) == 20 and gain.mean() + 3 * gain.std(ddof=1) / math.sqrt(20) < 0:
            return f"updates lower the surrogate on {where} steps, by {-gain.mean():.2g} deviations of advantage each"
    returns = rows.all("training_return")
    if len(returns) < 30:
        return None
    lost, error = _gain(returns)
    if lost < -4 * error and rows.last("surrogate_gain", 20).mean() > 0:
        return f"every update claims to have gained, and the return fell by {-lost:.3g} since the start"
    return None


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
        return f"{words}, and the return has gained nothing" if _has_not_gained(rows) else None
    return None


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


def _evaluation(rows: Rows) -> str | None:
    trained, judged = rows.all("training_return"), rows.all("evaluation_return")
    if len(judged) < 4 or len(trained) < 12 or not math.isfinite(rows.newest("evaluation_return")):
        return None  # compared with the training of the same time
    spread = float(rows.all("evaluation_return_std").mean())
    return _below_the_worst(rows, judged, spread, np.ptp(trained)) or _parted(trained, judged, spread)


def _below_the_worst(rows: Rows, judged: Floats, spread: float, reach: float) -> str | None:
    worst, best = rows.all("training_return_min")[-10:], judged[-3:].max()
    if len(worst) == 10 and best < worst.mean() - max(2 * math.hypot(spread, worst.std(ddof=1)), 0.2 * reach):
        return f"three evaluations lie below the worst training episodes: {best:.3g} against {worst.mean():.3g}"
    return None


def _parted(trained: Floats, judged: Floats, spread: float) -> str | None:
    first, last = judged[: len(judged) // 2].mean(), judged[-(len(judged) // 3) :].mean()
    gain, error = _gain(trained)
    best = np.convolve(trained, np.full(10, 0.1), "valid").max()
    is_best = gain > 2 * error and trained[-10:].mean() > best - 2 * error
    if len(judged) >= 6 and is_best and last < first - max(spread, 0.5 * np.ptp(judged)):
        return f"the training return rose by {gain:.3g}, while evaluations fell from {first:.3g} to {last:.3g}"
    return None


_FREE = "nothing: it reads metrics that are there anyway"
_PASS = "a forward pass of both networks an iteration, with the other metrics of `measure_health`"

RULES: tuple[Rule, ...] = (
    Rule(
        "not-finite",
        "A number became NaN or infinite, and everything after it will.",
        "one of " + ", ".join(FLOW) + " is not finite; the first of them, from rewards to parameters, is named",
        1,
        _FREE,
        "a quantity that is not in the list breaks first",
        "Look at the rewards and observations of the task, lower learning_rate, or set gradient_clip.",
        "common practice",
        _not_finite,
    ),
    Rule(
        "exploding",
        "Gradients, parameters or value errors grow without bound.",
        "the norm of gradients or parameters, or the spread of the value's errors, is a hundred times the median of "
        "the first ten iterations",
        5,
        _FREE,
        "a run that starts next to a fixed point, with almost no gradient",
        "Lower learning_rate, set gradient_clip, and turn scale_rewards on.",
        "Jones 2021",
        _exploding,
    ),
    Rule(
        "stale-log-probabilities",
        "The recorded log probabilities are not those of the policy that acted, so every ratio is wrong.",
        "a recorded log probability differs from the policy's by more than .01",
        1,
        _PASS,
        "log probabilities below some -1e5, where rounding comes near .01",
        "Store the log probability of the draw itself, before clipping, and of the scaling of observations used then.",
        "reliability notes, section 5",
        _log_prob_gap,
    ),
    Rule(
        "repeated-noise",
        "A random key is used twice: slots, steps or iterations explore together.",
        "over ten iterations, the noise's mean over slots varies more than twice as much as independent slots' would; "
        "or the noise of neighbouring steps correlates by more than .3; or its level hardly changes between iterations",
        1,
        _PASS,
        "correlated exploration on purpose (coloured noise, gSDE)",
        "Give every step, slot and iteration a key of its own.",
        "here",
        _noise,
    ),
    Rule(
        "saturated-actions",
        "The policy asks for more than the task can do, where its actions have no gradient.",
        "in ten iterations the likeliest action is beyond its bounds in 90 % of components, and the return has not "
        "gained",
        5,
        _PASS,
        "tasks whose best policy is bang-bang, before they have learnt anything",
        "Lower learning_rate, set log_std lower, or check the scale of the task's actions.",
        "Bjorck et al. 2021 (arXiv 2110.11222)",
        _saturated,
    ),
    Rule(
        "dead-units",
        "Hidden units are saturated or never active, so the policy cannot see.",
        "over half of the policy's hidden units vary by less than .01 in ten iterations, and the return has not gained",
        5,
        _PASS,
        "rollouts in which the observation hardly changes",
        "Check the scale of observations, use orthogonal_initialisation, lower learning_rate.",
        "Bjorck et al. 2021 (arXiv 2110.11222)",
        _dead,
    ),
    Rule(
        "observation-scale",
        "The networks see numbers of a size that they cannot work with.",
        "a component's root mean square is above 20, or a fifth of the components are at the bound, or all are zero",
        5,
        _PASS,
        "linear policies can live with any scale",
        "Turn normalise_observations on, or scale the task's observations to about one.",
        "Andrychowicz et al. 2021 (arXiv 2006.05990)",
        _observations,
    ),
    Rule(
        "reward-scale",
        "Rewards are cut off, so better and best are alike.",
        "over half of the scaled rewards are at the bound of reward_clip",
        5,
        _PASS,
        "rewards that take two values only",
        "Turn scale_rewards on, or raise reward_clip.",
        "Engstrom et al. 2020 (arXiv 2005.12729)",
        _rewards,
    ),
    Rule(
        "value-biased",
        "The value contradicts the rewards: a bootstrap is missing, or one goes through a termination or into the next "
        "episode.",
        "over twenty iterations the mean one-step error differs from zero by 5 standard errors, and times the horizon "
        "1 / (1 - discount) it exceeds .3 of the value's root mean square",
        20,
        _PASS,
        "a policy that improves faster than its value follows",
        "Check terminated against truncated, and that next_obs is the true successor and no reset.",
        "here; the faults are those of Pardo et al. 2018 (arXiv 1712.00378)",
        _value_biased,
    ),
    Rule(
        "value-explains-little",
        "The value function reduces no variance.",
        "over twenty iterations it explains less than .1 of the variance of returns on held-out steps, pooled, in a "
        "run of 40 iterations at least",
        20,
        _FREE,
        "a reward that cannot be predicted; returns that are all alike (such iterations weigh little)",
        "Raise the value's epochs or its learning rate, and look at `diagnose --only values`.",
        "Ilyas et al. 2020 (arXiv 1811.02553)",
        _value_explains_little,
    ),
    Rule(
        "trust-region",
        "Updates change the policy by more than the method means them to.",
        "trpo: mean KL on its own steps above max_kl, or on held-out steps five times; others: mean KL on held-out "
        "steps above .1 over twenty iterations",
        3,
        _FREE,
        "few held-out steps",
        "Lower learning_rate or num_epochs, or raise the number of steps an iteration.",
        "Engstrom et al. 2020 (arXiv 2005.12729)",
        _trust_region,
    ),
    Rule(
        "no-gradient",
        "Gradient estimates are noise: updates are a random walk.",
        "over all iterations, 80 at least, the mean of gradient_signal / (|gradient_signal| + |gradient_noise|) is "
        "below 1.5 standard errors, and the return has not gained",
        10,
        "one backward pass of the policy an iteration (`measure_gradients`)",
        "a sparse reward that was never seen; a policy that is optimal already",
        "Gather more steps an iteration: the progress line says how many would do.",
        "McCandlish et al. 2018 (arXiv 1812.06162), Ilyas et al. 2020 (arXiv 1811.02553)",
        _uncorrelated,
    ),
    Rule(
        "surrogate",
        "What updates climb is not the return.",
        "over twenty iterations updates lower the surrogate on their own or on held-out steps, by three standard "
        "errors; or they claim gains while the return has fallen by four standard errors since the start",
        10,
        _FREE,
        "a shaped reward that must fall before it rises",
        "Check the signs of the loss and of the advantage; look at `diagnose --only landscape`.",
        "Ilyas et al. 2020 (arXiv 1811.02553)",
        _surrogate,
    ),
    Rule(
        "entropy",
        "The policy has stopped exploring, or cannot begin to prefer anything.",
        "entropy fell below 5 % of its start, or real actions' standard deviation twentyfold, in 30 iterations, or "
        "later "
        "while the return has not gained; or in sixty iterations entropy has not moved by 2 %, or the standard "
        "deviation "
        "has grown by e, while the return has not gained",
        10,
        _FREE,
        "tasks in which the reward is rare",
        "Raise entropy_weight where it fell, lower it where it is stuck.",
        "Rahtz 2018, Jones 2021",
        _entropy,
    ),
    Rule(
        "truncation",
        "The task's clock is reported as a termination, or a termination as a truncation.",
        "over twenty iterations a fifth of the episodes terminate in the step in which the clock runs out, or are "
        "truncated before it does",
        5,
        _FREE,
        "tasks that truncate for good reasons of their own; broken simulations",
        "Report failure as terminated and the clock alone as truncated; see docs/concepts/terminated-truncated.md.",
        "Pardo et al. 2018 (arXiv 1712.00378)",
        _truncation,
    ),
    Rule(
        "evaluation",
        "What is trained on and what is wanted part ways.",
        "three evaluations on end lie below the mean of ten iterations' worst training episodes, by two standard "
        "deviations of both and by a fifth of the range of training returns; or, over six evaluations and more, the "
        "training return is at its best and evaluations have lost half of their range",
        1,
        _FREE,
        "a likeliest action that is worse than a draw",
        "Look at a video; compare the training reward with the one evaluated.",
        "Pan et al. 2022 (arXiv 2201.03544)",
        _evaluation,
    ),
)

OTHER_RULES: tuple[Rule, ...] = (
    Rule(
        "action-scale",
        "The task's actions are of another size than what the policy tries at first.",
        "half the width of an action's bounds is above 20 times, or below a twentieth of, exp(log_std)",
        1,
        "nothing: bounds and a setting, looked at before the first iteration",
        "bounds far wider than what the task takes; infinite bounds are not looked at",
        "Set log_std to the logarithm of a third of the half-width, or scale the task's actions to [-1, 1].",
        "Andrychowicz et al. 2021 (arXiv 2006.05990), who recommend an initial standard deviation of .5",
        lambda rows: None,
    ),
    Rule(
        "outlier-seed",
        "One seed of a study stands apart from its siblings.",
        "its score is further from the median of 5 or more seeds than 5 / .6745 median absolute deviations",
        1,
        "nothing: the scores of a study, on its page and when `workhorse study` ends",
        "by chance, in 4 of a hundred studies of ten seeds, and of scores that come in two clusters",
        "Look at the seed's page and its warnings first. It is a result, and is left out of nothing.",
        "Iglewicz and Hoaglin 1993, with 3.5 where we have 5; Bjorck et al. 2021 (arXiv 2110.11222) on outlying runs",
        lambda rows: None,
    ),
)
"""What is looked at elsewhere than in a run's metrics: before its first iteration, and among the runs of a study."""
