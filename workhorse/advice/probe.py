"""Measure a task for a minute: the numbers that advice is given from.

Every number is one that anybody can measure again; each probe says what it took. A probe for which there is no time, no
simulator or no such kind of action is left out, and the reason is kept.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workhorse.advice.branching import action_horizon, greedy_on_random, is_repeatable
from workhorse.advice.play import Played, guess, play_randomly
from workhorse.advice.rivals import contender_for, run_contender
from workhorse.advice.short_runs import climb, sign_of_life
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.environments import registry
from workhorse.environments.batch import as_batch
from workhorse.environments.protocol import HostEnv, Simulator
from workhorse.environments.registry import is_native
from workhorse.robustness.floors import measure_floor

__all__ = ["TaskCard", "probe_task"]

WITHOUT_CLOCK = 1000
"""Steps after which a probe cuts an episode of a task that has no clock."""
SIGN_STEPS = (50_000, 20_000, 10_000)
"""Environment steps of a short run of a learning algorithm: in JAX, in MuJoCo, in code of somebody else."""


@dataclass
class TaskCard:
    """What was measured of a task.

    Attributes:
        task, options: which.
        numbers: measurements by name, see `MEASURES`.
        skipped: probes that were left out, and why.
        seconds: each probe took, and "all".
    """

    task: str
    options: Mapping[str, Any]
    numbers: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


MEASURES = {
    "observation_size": "numbers in an observation",
    "action_size": "components of an action, or choices",
    "episode_steps": "steps after which the clock ends an episode",
    "random_return": "mean return of random actions",
    "floor": "best mean return of random actions, no action, and the best constant action",
    "random_length": "mean length of an episode of random actions",
    "reward_density": "share of steps of random play whose reward is not the commonest one",
    "reward_seen": "share of random episodes in which such a reward came",
    "first_reward_steps": "expected steps of random play to the first such reward",
    "first_reward_low": "lower end of its 95 % interval",
    "first_reward_high": "upper end of its 95 % interval",
    "steps_per_s": "environment steps per second on this machine, many at once",
    "predictable": "R2 of a linear prediction of the next observation",
    "guess_best": "best mean return of guessed linear policies",
    "guess_luck": "share of the variance of their returns that lies within policies",
    "guesses": "linear policies guessed",
    "repeatable": "1 where two branches from one snapshot have the same bits",
    "half_horizon": "steps after which half of an action's effect on rewards has come",
    "ninth_horizon": "steps after which nine tenths of it have come",
    "horizon_any": "share of states in which one other action changed any reward",
    "greedy_return": "mean return of one step of look-ahead over random play",
    "greedy_gain": "what that earns above random play, in episodes that may be cut",
    "climb_best": "best return of hill climbers from random starts",
    "climb_groups": "levels at which the climbers ended",
    "climb_share_of_best": "share of the climbers at the best level",
    "lqr_return": "mean return of linear-quadratic control",
    "rule_return": "mean return of the best signed rule of a small family",
    "pid_return": "mean return of the best of some PID loops",
    "plan_return": "mean return of a planner with the simulator",
    "plan_gain": "what a planner earns above the floor in the first steps of an episode",
    "sign_steps": "environment steps of a short run of a learning algorithm",
    "es_return": "return after a few steps of evolution strategies",
    "ppo_return": "return after a few steps of policy gradients",
}
"""What each number of a card is."""


def probe_task(
    task: str,
    options: Mapping[str, Any],
    *,
    budget_s: float = 60.0,
    simulator_available: bool = True,
    threads: int = 0,
    seed: int = 0,
    only: Collection[str] = (),
    told: Callable[[str], None] = lambda probe: None,
) -> TaskCard:
    """Measure a task.

    Args:
        task, options: as for `environments.registry.make`.
        budget_s: seconds after which no further probe is begun.
        simulator_available: whether probes may branch from snapshots, which is what a user's own plant cannot do.
        threads: simulation threads; 0 uses one for each core.
        seed: root of all draws.
        only: names of the probes to do; all where it is empty.
        told: is told the name of each probe as it begins.

    Raises:
        UsageError: the task cannot be made, or its budget is no positive number.
    """
    if not budget_s > 0:
        raise UsageError(f"The budget of advice must be a positive number of seconds: got {budget_s!r}.")
    measuring = _Measuring(task, dict(options), threads, seed)
    card, begun = measuring.card, time.perf_counter()
    for name, probe, branches in measuring.probes():
        if only and name not in only:
            continue
        reason = ""
        if branches and not simulator_available:
            reason = "it branches from snapshots, and you said that there is no simulator"
        elif time.perf_counter() - begun > budget_s:
            reason = f"there was no time left of {budget_s:g} s (--budget)"
        if not reason:
            told(name)
            started = time.perf_counter()
            try:
                probe()
            except UsageError as error:  # such as a kind of action that a rival cannot take
                reason = str(error)
            card.seconds[name] = time.perf_counter() - started
        if reason:
            card.skipped[name] = reason
    card.seconds["all"] = time.perf_counter() - begun
    return card


class _Measuring:
    """The probes of one task, which share its card."""

    def __init__(self, task: str, options: dict[str, Any], threads: int, seed: int) -> None:
        self.card = TaskCard(task, options)
        self._threads, self._seed = threads, seed
        env = registry.make(task, 1, 1, **options)
        self._spec: EnvSpec = env.spec
        self._is_fast = not isinstance(env, HostEnv)
        self._is_native = is_native(task, options)
        if isinstance(env, HostEnv):
            env.close()
        self._most_steps = self._spec.max_episode_steps or WITHOUT_CLOCK
        space = self._spec.action
        self.card.numbers |= {
            "observation_size": float(self._spec.observation.size),
            "action_size": float(space.count if isinstance(space, Discrete) else getattr(space, "size", 1)),
            "episode_steps": float(self._most_steps),
        }

    def probes(self) -> list[tuple[str, Callable[[], None], bool]]:
        """Return (name, what to do, whether it branches), the cheapest first."""
        return [
            ("random play", self._random, False),
            ("floors", self._floors, False),
            ("guessing", self._guess, False),
            ("repeatability", self._repeatable, True),
            ("reach of an action", self._horizon, True),
            ("look-ahead", self._look_ahead, True),
            ("basins", self._climb, False),
            ("linear control", self._lqr, True),
            ("rules", lambda: self._search("rule_return", "signed-rules"), False),
            ("pid", lambda: self._search("pid_return", "pid"), False),
            ("evolution strategies", lambda: self._sign("es_return", "openai-es"), False),
            ("policy gradients", lambda: self._sign("ppo_return", "ppo"), False),
            ("planning", self._plan, True),
        ]

    def _env(self, slots: int) -> HostEnv:
        made = registry.make(self.card.task, slots, self._threads, **self.card.options)
        return as_batch(made, slots)

    def _simulator(self, slots: int) -> Simulator:
        env = self._env(slots)
        if isinstance(env, Simulator):
            return env
        env.close()
        raise UsageError("the task's own code cannot be put into a state, so that nothing can branch from one")

    def _slots(self, fast: int, native: int, other: int) -> int:
        return fast if self._is_fast else native if self._is_native else other

    def _random(self) -> None:
        env = self._env(self._slots(128, 64, 8))
        try:
            begun = time.perf_counter()
            played = play_randomly(env, self._most_steps, self._seed)
            seconds = time.perf_counter() - begun
        finally:
            env.close()
        self.card.numbers |= {
            "random_return": float(played.returns.mean()),
            "random_length": float(played.lengths.mean()),
            "steps_per_s": float(played.lengths.sum() / seconds),
            "predictable": _predictable(played, self._spec),
            **_rewards(played),
        }

    def _floors(self) -> None:
        episodes = self._slots(64, 32, 8)
        found = measure_floor(self.card.task, self.card.options, episodes, self._seed, self._most_steps)
        self.card.numbers["floor"] = found.greatest[1]

    def _guess(self) -> None:
        self._require_linear()
        episodes = self._slots(3, 1, 1)
        env = self._env(episodes * self._slots(200, 100, 24))
        try:
            found = guess(env, episodes, self._most_steps, self._seed)
        finally:
            env.close()
        best = np.argsort(found.means)[-1]
        self.card.numbers |= {
            "guess_best": float(found.means[best]),
            "guess_luck": 1.0 - found.share_of_variance,
            "guesses": float(len(found.means)),
        }

    def _repeatable(self) -> None:
        env = self._simulator(32)
        try:
            self.card.numbers["repeatable"] = float(is_repeatable(env, seed=self._seed))
        finally:
            env.close()

    def _horizon(self) -> None:
        env = self._simulator(self._slots(128, 64, 64))
        try:
            found = action_horizon(env, min(self._most_steps, self._slots(300, 100, 100)), self._seed)
        finally:
            env.close()
        self.card.numbers |= {
            "half_horizon": found.half,
            "ninth_horizon": found.ninth,
            "horizon_any": found.any,
        }

    def _look_ahead(self) -> None:
        env = self._simulator(4)
        try:
            found = greedy_on_random(
                env, 8, 4, self._slots(50, 15, 15), min(self._most_steps, self._slots(500, 60, 60)), self._seed
            )
        finally:
            env.close()
        cut = self._most_steps > self._slots(500, 60, 60)
        self.card.numbers["greedy_gain"] = float(found.returns.mean() - found.random.mean())
        if not cut:
            self.card.numbers["greedy_return"] = float(found.returns.mean())

    def _climb(self) -> None:
        self._require_linear()
        env = self._env(self._slots(64, 32, 8))
        try:
            found = climb(env, self._slots(30, 15, 5), min(self._most_steps, self._slots(500, 200, 200)), self._seed)
        finally:
            env.close()
        self.card.numbers |= {
            "climb_best": float(found.returns.max()),
            "climb_groups": float(found.groups),
            "climb_share_of_best": found.share_of_best,
        }

    def _lqr(self) -> None:
        found = sign_of_life(self.card.task, self.card.options, "lqr", 1, threads=self._threads, seed=self._seed)
        self.card.numbers["lqr_return"] = found.last

    def _search(self, name: str, algorithm: str) -> None:
        steps = self._slots(300_000, 30_000, 5_000)
        contender = contender_for(self.card.task, algorithm, "search", steps)
        found = run_contender(
            self.card.task, self.card.options, contender, episodes=20, threads=self._threads, seed=self._seed
        )
        if not found.returns:
            raise UsageError(found.failure)
        self.card.numbers[name] = found.interval.value

    def _sign(self, name: str, algorithm: str) -> None:
        found = sign_of_life(
            self.card.task,
            self.card.options,
            algorithm,
            self._slots(*SIGN_STEPS),
            threads=self._threads,
            seed=self._seed,
        )
        self.card.numbers |= {name: found.last, "sign_steps": float(found.steps)}

    def _plan(self) -> None:
        space = self._spec.action
        if not isinstance(space, Box | Discrete):
            raise UsageError("planners here take a Box or a Discrete action alone")
        planner = "mppi" if isinstance(space, Box) else "categorical-cem"
        most = self._slots(self._most_steps, 60, 60)
        cut = {"max_episode_steps": most} if most < self._most_steps else {}
        contender = contender_for(self.card.task, planner, "plan", 0)
        options = {**self.card.options, **cut}
        found = run_contender(self.card.task, options, contender, episodes=2, threads=self._threads, seed=self._seed)
        if found.failure:
            raise UsageError(found.failure)
        if not cut:
            self.card.numbers["plan_return"] = found.interval.value
        else:
            plain = measure_floor(self.card.task, options, 16, self._seed, most).greatest[1]
            self.card.numbers["plan_gain"] = found.interval.value - plain

    def _require_linear(self) -> None:
        if not isinstance(self._spec.action, Box | Discrete):
            raise UsageError("linear policies are guessed for a Box or a Discrete action alone")


def _rewards(played: Played) -> dict[str, float]:
    """Return how often random play meets a reward that is not the commonest, and when first.

    The interval of the expected time to the first one is that of a Poisson rate, exact (Garwood 1936): the episodes in
    which it came, over all steps up to it.
    """
    from scipy.stats import chi2

    reward, alive = played.reward, played.alive
    values, counts = np.unique(np.round(reward[alive], 9), return_counts=True)
    commonest = values[counts.argmax()] if counts.max() > 1 else np.nan
    differs = alive & (np.round(reward, 9) != commonest)
    seen = differs.any(0)
    waited = np.where(seen, differs.argmax(0) + 1, played.lengths).sum()
    events = int(seen.sum())
    low_rate = chi2.ppf(0.025, 2 * events) / 2 / waited if events else 0.0
    high_rate = chi2.ppf(0.975, 2 * events + 2) / 2 / waited
    return {
        "reward_density": float(differs.sum() / alive.sum()),
        "reward_seen": float(seen.mean()),
        "first_reward_steps": float(waited / events) if events else float("inf"),
        "first_reward_low": float(1 / high_rate),
        "first_reward_high": float(1 / low_rate) if low_rate else float("inf"),
    }


def _predictable(played: Played, spec: EnvSpec) -> float:
    """Return R2 of a ridge regression of the next observation on observation and action, on other steps."""
    alive = played.alive
    obs = played.obs[alive].reshape(int(alive.sum()), -1).astype(np.float64)
    following = played.next_obs[alive].reshape(len(obs), -1).astype(np.float64)
    action = played.action[alive]
    if isinstance(spec.action, Discrete):
        action = np.eye(spec.action.count)[action]
    told = np.concatenate([obs, action.reshape(len(obs), -1), np.ones((len(obs), 1))], axis=1)
    train = np.arange(len(obs)) % 2 == 0
    if train.sum() < 2 * told.shape[1] or told.shape[1] > 2000:
        return float("nan")
    gram = told[train].T @ told[train] + 1e-6 * np.eye(told.shape[1])
    weights = np.linalg.solve(gram, told[train].T @ following[train])
    error = np.square(following[~train] - told[~train] @ weights).mean(0)
    spread = following[~train].var(0)
    varies = spread > 1e-12
    return float(1 - (error[varies] / spread[varies]).mean()) if varies.any() else 1.0
