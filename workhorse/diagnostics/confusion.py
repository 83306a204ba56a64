"""Causal confusion of a set of demonstrations: what the previous action tells, what it costs, and what would settle it.

Four questions, of any log:

    how well does the previous action alone predict the next, beside chance and beside the state alone?
    what does each factor of the observation add, on demonstrations that were held out?
    what does it cost, when the policy acts?
    which factors would N episodes, or N questions to an expert, choose?

A factor that helps on held-out demonstrations and harms in the task is confused for a cause of the expert's actions.
The last two questions need the task. See `docs/concepts/causal-confusion.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from workhorse.algorithms.imitation.masked_bc import MaskedBC
from workhorse.core.addresses import host_generator, host_keys
from workhorse.core.errors import UsageError
from workhorse.core.layers import PolicyNetwork
from workhorse.core.shown_action import OPTION
from workhorse.core.spec import EnvSpec
from workhorse.data.dataset import Dataset, LogRows
from workhorse.environments.batch import episode_keys
from workhorse.environments.protocol import HostEnv
from workhorse.statistics.intervals import mean_interval
from workhorse.training.interventions import by_execution, by_queries
from workhorse.training.masked_policies import MaskedPolicies, fitted, play, split_rows, visit
from workhorse.training.offline import held_out_episodes

__all__ = ["Confusion", "Factor", "Judged", "Returned", "factor_names", "study_confusion"]

MOST_PLAYED = 16
"""Masks that are all played; where there are more, only those without one factor."""

HELD_OUT = 0.2
"""Share of the log's episodes that policies are measured on."""

Told = Callable[[str], None]


@dataclass(frozen=True)
class Judged:
    """A policy's fit to held-out demonstrations.

    Attributes:
        loss: cross entropy in nats, or the mean squared difference in half ranges of the action.
        agreement: share of steps on which it does what the log did.
        explained: 1 - loss / the loss of a policy that sees nothing.
    """

    loss: float
    agreement: float
    explained: float


@dataclass(frozen=True)
class Returned:
    """Returns of a policy in the task: the mean and Student's interval over its episodes.

    Attributes:
        mask: 1 for each factor that it sees.
        mean, low, high: of the return.
        episodes: that it was played for.
    """

    mask: tuple[int, ...]
    mean: float
    low: float
    high: float
    episodes: int


@dataclass(frozen=True)
class Factor:
    """What one factor adds.

    Attributes:
        name: in words.
        size: components.
        alone: held-out fit of the policy that sees it alone.
        gain: held-out loss without it less that with all, positive where it helps on demonstrations.
        cost: mean return without it less that with all, positive where it harms in the task; None where not played.
        chance: probability that it raises the return, by the episodes of the intervention; None where there was none.
        answered: probability that it is in the mask, by the expert's answers; None where there were none.
    """

    name: str
    size: int
    alone: Judged
    gain: float
    cost: float | None = None
    chance: float | None = None
    answered: float | None = None


@dataclass(frozen=True)
class Confusion:
    """What was found; plain numbers.

    Attributes:
        log, task: names.
        episodes, steps, held_out: of the log, and episodes of it that were measured on.
        repeats: share of steps, but the first of an episode, that take the action of the step before.
        chance, previous, state, everything: fits of the policies that see nothing, the previous action, all else, all.
        factors: one by one.
        masked: returns of the one masked network, by mask.
        without, shown, final: returns of policies fitted for one mask each: all but the previous action, all, and the
            mask that the interventions chose.
        harm: mean return lost when the previous action is shown, over pairs of episodes from equal initial states, and
            Student's interval.
        executed: returns of the episodes of the intervention, in their order.
        posterior: probability of the likeliest mask after each of the expert's answers.
        mask: that was chosen; all but the previous action where nothing was tried.
        sentences: the findings in words.
    """

    log: str
    task: str
    episodes: int
    steps: int
    held_out: int
    repeats: float
    chance: Judged
    previous: Judged
    state: Judged
    everything: Judged
    factors: tuple[Factor, ...]
    masked: tuple[Returned, ...] = ()
    without: Returned | None = None
    shown: Returned | None = None
    final: Returned | None = None
    harm: tuple[float, float, float] | None = None
    executed: tuple[float, ...] = ()
    posterior: tuple[float, ...] = ()
    mask: tuple[int, ...] = ()
    sentences: tuple[str, ...] = ()

    @property
    def drop(self) -> float | None:
        """Return lost when the previous action is shown; None where the task was not played."""
        return None if self.without is None or self.shown is None else self.without.mean - self.shown.mean

    @property
    def recovered(self) -> float | None:
        """Share of the drop that the chosen mask brings back; None where there is no drop."""
        if not self.drop or self.drop <= 0 or self.final is None or self.shown is None:
            return None
        return (self.final.mean - self.shown.mean) / self.drop


def study_confusion(
    algorithm: MaskedBC,
    log: Dataset,
    *,
    updates: int,
    make: Callable[[int], HostEnv] | None = None,
    expert: Callable[[np.ndarray], np.ndarray] | None = None,
    interventions: int = 20,
    episodes: int = 16,
    seed: int = 0,
    told: Told = lambda sentence: None,
) -> tuple[Confusion, PolicyNetwork]:
    """Return what was found, and the policy of the mask that was chosen.

    Args:
        algorithm: for the log's task, the last of its factors being the previous action.
        log: with the previous action in its observations.
        updates: of each fit; there are up to four.
        make: returns the task with some slots, observed as the log is; None where it cannot be played.
        expert: answers observations (K, D) by actions, in the task's own numbers.
        interventions: episodes of `by_execution`, and questions of `by_queries`.
        episodes: that each policy is judged by.
        seed: of everything.
        told: is told what is done.

    Raises:
        UsageError: the log does not show the previous action, or an expert is given without a task.
    """
    if not log.card.task_options.get(OPTION):
        raise UsageError(f"The log {log.card.name} does not show the previous action: append it first.")
    if expert is not None and make is None:
        raise UsageError("An expert is asked about states that the policies get into, for which the task is needed.")
    held_out = held_out_episodes(seed, log.num_episodes, HELD_OUT)
    rows, rest = split_rows(algorithm, log, held_out)
    told("fitting the policies of all masks")
    policies = fitted(algorithm, rows, rest, updates, seed)
    found = _offline(policies, log, len(held_out))
    if make is None:
        return replace(found, sentences=_sentences(found)), policies.layers(np.array(found.mask))
    player = _Player(make, algorithm, seed, episodes, told)
    try:
        found = _intervened(_played(found, policies, player), policies, player, expert, interventions)
        found, layers = _refitted(found, algorithm, (rows, rest), updates, seed, player)
    finally:
        player.close()
    return replace(found, sentences=_sentences(found)), layers


# --- on demonstrations ---


def _offline(policies: MaskedPolicies, log: Dataset, held_out: int) -> Confusion:
    sizes = policies.algorithm.factor_sizes
    count = len(sizes)
    nothing, everything = np.zeros((1, count)), np.ones((1, count))
    previous = _only(count, count - 1)
    chosen = np.vstack([nothing, previous, everything - previous, everything])
    base = float(policies.losses(nothing)[0])
    fits = [_judged(policies, mask, base) for mask in chosen]
    names = factor_names(policies.algorithm.spec, sizes)
    factors = []
    for place, (name, size) in enumerate(zip(names, sizes, strict=True)):
        only = _only(count, place)
        lacking = float(policies.losses(everything - only)[0])
        factors.append(Factor(name, size, _judged(policies, only[0], base), lacking - fits[3].loss))
    action = np.asarray(log.action)
    same = (action[1:] == action[:-1]).reshape(len(action) - 1, -1).all(1)
    within = np.ones(len(same), bool)
    within[log.begins[1:] - 1] = False
    nothing_seen, only_previous, all_else, all_seen = fits
    return Confusion(
        log.card.name, log.card.task, log.num_episodes, log.num_steps, held_out, float(same[within].mean()),
        nothing_seen, only_previous, all_else, all_seen, tuple(factors), mask=(*(1,) * (count - 1), 0),
    )  # fmt: skip


def _judged(policies: MaskedPolicies, mask: np.ndarray, base: float) -> Judged:
    loss, agreement = float(policies.losses(mask[None])[0]), float(policies.agreements(mask[None])[0])
    return Judged(loss, agreement, 1.0 - loss / base if base > 0 else 0.0)


def _only(count: int, place: int) -> np.ndarray:
    return np.eye(count)[place : place + 1]


def factor_names(spec: EnvSpec, sizes: tuple[int, ...]) -> list[str]:
    """Return what factors are called: by the components that they hold, and the last one the previous action.

    Example:
        >>> from workhorse.core.spec import Box, Discrete
        >>> task = EnvSpec("probe", Box.unbounded(6), Discrete(3), None, options=(("previous_action", True),))
        >>> factor_names(task, (1, 2, 3))
        ['component 0', 'components 1-2', 'previous action']
    """
    ends = np.cumsum(sizes)
    names = [
        f"component {end - 1}" if size == 1 else f"components {end - size}-{end - 1}"
        for size, end in zip(sizes, ends, strict=True)
    ]
    if dict(spec.options).get(OPTION):
        names[-1] = "previous action"
    return names


# --- in the task ---


class _Player:
    """Plays masked policies: several episodes at once to judge them, and one at a time to intervene."""

    def __init__(self, make: Callable[[int], HostEnv], algorithm: MaskedBC, seed: int, episodes: int, told: Told):
        self.many, self.one = make(episodes), make(1)
        self.seed, self.episodes, self.told = seed, episodes, told

    def returns(self, policies: MaskedPolicies, mask: np.ndarray) -> np.ndarray:
        """Return the returns of a mask, (E,); all policies are judged on the same initial states."""
        masks = np.repeat(np.asarray(mask, np.float32)[None], self.episodes, 0)
        keys = episode_keys(self.many, self.seed, "evaluate", 0, np.arange(self.episodes))
        return play(policies, self.many, masks, keys)

    def keys(self, purpose: int, number: int) -> Any:
        return episode_keys(self.one, self.seed, "intervene", purpose, number, np.arange(1))

    def close(self) -> None:
        self.many.close()
        self.one.close()


def _of(mask: Sequence[float] | np.ndarray, returns: np.ndarray) -> Returned:
    return Returned(tuple(int(one) for one in mask), *_interval(returns), len(returns))


def _interval(values: np.ndarray) -> tuple[float, float, float]:
    interval = mean_interval(values)
    return float(interval.value), float(interval.low), float(interval.high)


def _played(found: Confusion, policies: MaskedPolicies, player: _Player) -> Confusion:
    """Play the masks of the one network: all of them, or those that lack one factor."""
    count = len(found.factors)
    everything = np.ones(count)
    lacking = [everything - _only(count, place)[0] for place in range(count)]
    chosen = list(policies.masks) if len(policies.masks) <= MOST_PLAYED else [everything, *lacking]
    player.told(f"playing {len(chosen)} masks for {player.episodes} episodes each")
    returned = {one.mask: one for one in (_of(mask, player.returns(policies, mask)) for mask in chosen)}
    whole = returned[(1,) * count].mean
    costs = [returned[tuple(int(one) for one in mask)].mean - whole for mask in lacking]
    factors = tuple(replace(one, cost=cost) for one, cost in zip(found.factors, costs, strict=True))
    return replace(found, factors=factors, masked=tuple(returned.values()))


def _intervened(
    found: Confusion,
    policies: MaskedPolicies,
    player: _Player,
    expert: Callable[[np.ndarray], np.ndarray] | None,
    interventions: int,
) -> Confusion:
    """Choose a mask by episodes and, where there is an expert, by its answers, which then decide."""
    count = len(found.factors)
    if interventions < 1:
        return found
    rngs = [host_generator(key) for key in host_keys(player.seed, "intervene", 0, np.arange(2))]
    player.told(f"acting under {interventions} masks")
    acted = by_execution(
        lambda mask, number: float(play(policies, player.one, mask[None], player.keys(1, number))[0]),
        count, interventions, rngs[0],
    )  # fmt: skip
    factors = [replace(one, chance=float(chance)) for one, chance in zip(found.factors, acted.chances, strict=True)]
    mask, posterior = acted.mask, ()
    if expert is not None:
        player.told(f"asking the expert {interventions} times")
        asked = by_queries(
            policies, policies.masks, lambda mask, number: visit(policies, player.one, mask, player.keys(2, number)),
            expert, interventions, rngs[1],
        )  # fmt: skip
        mask, posterior = asked.mask, tuple(float(one) for one in asked.chances.max(1))
        seen = asked.chances[-1] @ policies.masks
        factors = [replace(one, answered=float(chance)) for one, chance in zip(factors, seen, strict=True)]
    return replace(
        found, factors=tuple(factors), executed=tuple(float(one) for one in acted.returns), posterior=posterior,
        mask=tuple(int(one) for one in mask),
    )  # fmt: skip


def _refitted(
    found: Confusion, algorithm: MaskedBC, rows: tuple[LogRows, LogRows], updates: int, seed: int, player: _Player
) -> tuple[Confusion, PolicyNetwork]:
    """Fit a policy for each of the masks that matter, with no capacity spent on others, and play it."""
    plain = replace(algorithm, seen_share=1.0)
    count = len(found.factors)
    masks = {"without": (*(1,) * (count - 1), 0), "shown": (1,) * count, "final": found.mask}
    player.told("fitting and playing a policy for each of the masks that matter")
    returns, layers = {}, {}
    for mask in dict.fromkeys(masks.values()):
        policies = fitted(plain, *rows, updates, seed, np.array(mask))
        returns[mask], layers[mask] = player.returns(policies, np.array(mask)), policies.layers(np.array(mask))
    told = {name: _of(mask, returns[mask]) for name, mask in masks.items()}
    harm = _interval(returns[masks["without"]] - returns[masks["shown"]])
    return replace(found, **told, harm=harm), layers[found.mask]


# --- in words ---


def _sentences(found: Confusion) -> tuple[str, ...]:
    """Return the verdict, and what it rests on."""
    told = [
        f"The previous action alone predicts {found.previous.agreement:.1%} of the held-out actions, the rest of the "
        f"observation alone {found.state.agreement:.1%}, both together {found.everything.agreement:.1%}, and a guess "
        f"{found.chance.agreement:.1%}; {found.repeats:.1%} of the steps repeat the action before.",
        f"On held-out demonstrations the previous action {'helps' if found.factors[-1].gain > 0 else 'does not help'}: "
        f"the loss is {found.state.loss:.4g} without it and {found.everything.loss:.4g} with it.",
    ]
    if found.without is None or found.shown is None or found.final is None or found.harm is None:
        return ("Whether the previous action harms shows only in the task: name it with --evaluate-on.", *told)
    without, shown = _in_words(found.without), _in_words(found.shown)
    told.append(f"In the task, plain cloning returns {without} without it and {shown} with it.")
    mean, low, high = found.harm
    difference = f"{mean:,.1f} [{low:,.1f}, {high:,.1f}] of the return, in pairs of episodes"
    if low <= 0:
        return (f"No confusion is shown: the previous action costs {difference}.", *told)
    tries = len(found.posterior) - 1 if found.posterior else len(found.executed)
    if tries > 0:
        kept = " and ".join(one.name for one, kept in zip(found.factors, found.mask, strict=True) if kept) or "nothing"
        how = "the expert's answers chose" if found.posterior else "the interventions chose"
        back = "" if found.recovered is None else f", which brings back {found.recovered:.0%} of the difference"
        told.append(f"After {tries} tries {how} {kept}: {_in_words(found.final)}{back}.")
    return (f"These demonstrations are confusing: the previous action costs {difference}.", *told)


def _in_words(returned: Returned) -> str:
    return f"{returned.mean:,.1f} [{returned.low:,.1f}, {returned.high:,.1f}]"
