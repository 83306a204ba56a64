"""Recall and false alarms of warnings, on injected faults and healthy runs: `python bench/faults.py [--seeds 0 1 2]`.

Every fault is an ordinary training run with one thing broken, on CartPole-v1 or Pendulum-v1; the healthy runs have
nothing broken. Recall is the share of runs of a fault in which the warning that is meant for it came; a false alarm is
any warning in a healthy run. The thresholds of the rules were set on other seeds than those shown.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from record import head

from workhorse.algorithms.policy_gradient.a2c import A2C
from workhorse.algorithms.policy_gradient.batch import Acted, GradientState
from workhorse.algorithms.policy_gradient.ppo import PPO
from workhorse.algorithms.policy_gradient.trpo import TRPO
from workhorse.core.configuration import configuration
from workhorse.environments import registry as environments
from workhorse.networks.mlp import MLP
from workhorse.runs.warnings import RULES, Watch
from workhorse.training.episodes import make_player
from workhorse.training.lanes import Lanes
from workhorse.training.loop import Failures, Progress
from workhorse.training.on_policy import EVALUATION_SLOTS, OnPolicyLoop
from workhorse.training.rollouts import JaxCollector

HERE = Path(__file__).parent
STEPS = 120_000
EVALUATIONS = 10
POLE = {"num_envs": 16, "rollout_steps": 64, "minibatch_size": 256, "num_epochs": 4, "learning_rate": 2e-3}
SWING = {
    "rescale_actions": False,
    "num_envs": 16,
    "rollout_steps": 64,
    "minibatch_size": 64,
    "num_epochs": 10,
    "learning_rate": 1e-3,
    "discount": 0.95,
}


# --- broken learners ---


@configuration
class SignOfTheStep(PPO):
    """Descends the surrogate."""

    def improve(self, state, batch, rate, key):
        return super().improve(state, batch._replace(advantage=-batch.advantage), rate, key)


@configuration
class SignOfTheAdvantage(PPO):
    """Takes V - Q for the advantage."""

    def estimates(self, params, obs, transition, memory):
        value, next_value, advantage = super().estimates(params, obs, transition, memory)
        return value, next_value, -advantage


@configuration
class ThroughTermination(PPO):
    """Bootstraps where the task terminated."""

    def batch(self, state, rollout):
        return super().batch(
            state,
            rollout._replace(
                terminated=jnp.zeros_like(rollout.terminated), truncated=rollout.terminated | rollout.truncated
            ),
        )


@configuration
class NoBootstrap(PPO):
    """Takes the clock for a termination."""

    def batch(self, state, rollout):
        return super().batch(state, rollout._replace(terminated=rollout.terminated | rollout.truncated))


@configuration
class LeakingTrace(PPO):
    """Gives an episode credit for the next one's rewards."""

    def estimates(self, params, obs, transition, memory):
        whole = transition._replace(going_on=jnp.ones_like(transition.going_on))
        return super().estimates(params, obs, whole, memory)


@configuration
class LeakingEverything(PPO):
    """Sums rewards and values over the ends of episodes, as if a slot were one."""

    def batch(self, state, rollout):
        never = jnp.zeros_like(rollout.terminated)
        following = jnp.concatenate([rollout.obs[1:], rollout.next_obs[-1:]])
        return super().batch(state, rollout._replace(terminated=never, truncated=never, next_obs=following))


@configuration
class StaleLogProbabilities(PPO):
    """Records log probabilities of a policy half a nat away."""

    def act(self, actor, carry, obs, key, *, explore):
        action, carry, acted = super().act(actor, carry, obs, key, explore=explore)
        return action, carry, Acted(acted.drawn, acted.log_prob + 0.5 * jnp.sin(obs[0] * 20.0))


@configuration
class ClippedLogProbabilities(PPO):
    """Records the log probability of the action after clipping."""

    def act(self, actor, carry, obs, key, *, explore):
        action, carry, acted = super().act(actor, carry, obs, key, explore=explore)
        return action, carry, Acted(acted.drawn, actor.policy(self.scaled(actor, obs)).log_prob(action / 4))


@configuration
class StaleActor(PPO):
    """Acts with what the policy was before its last layer moved."""

    def actor(self, state):
        actor = super().actor(state)
        old = jax.tree.map(lambda leaf: 0.5 * leaf, actor.policy)
        return actor._replace(policy=old)


@configuration
class ElementwiseClipping(PPO):
    """Clips each component of the gradient instead of its norm, far too small."""

    def optimiser(self):
        return optax.chain(optax.clip(1e-5), optax.scale_by_adam(eps=1e-5))


@configuration
class OneKey(PPO):
    """Draws every action from one key."""

    def act(self, actor, carry, obs, key, *, explore):
        return super().act(actor, carry, obs, jax.random.key(7), explore=explore)


def with_biases(state: GradientState, change: Callable[[tuple], tuple]) -> GradientState:
    """Return the state with other biases of the policy's network."""
    network = state.params.policy.network
    assert isinstance(network, MLP)
    changed = dataclasses.replace(network, biases=change(network.biases))
    policy = dataclasses.replace(state.params.policy, network=changed)
    return state._replace(params=state.params._replace(policy=policy))


@configuration
class DeadUnits(PPO):
    """Begins with biases that saturate every hidden unit."""

    def init(self, key):
        return with_biases(super().init(key), lambda biases: (*(bias + 20.0 for bias in biases[:-1]), biases[-1]))


@configuration
class SaturatedActions(PPO):
    """Begins with means far outside the bounds."""

    def init(self, key):
        return with_biases(super().init(key), lambda biases: (*biases[:-1], biases[-1] + 100.0))


@configuration
class MixedAdvantages(PPO):
    """Gives every step the advantage of another."""

    def improve(self, state, batch, rate, key):
        mixed = jax.random.permutation(jax.random.fold_in(key, 1), batch.advantage.ravel())
        return super().improve(state, batch._replace(advantage=mixed.reshape(batch.advantage.shape)), rate, key)

    def batch(self, state, rollout):
        found, sums, so_far = super().batch(state, rollout)
        key = jax.random.fold_in(jax.random.key(1), state.iteration)
        mixed = jax.random.permutation(key, found.advantage.ravel()).reshape(found.advantage.shape)
        return found._replace(advantage=mixed), sums, so_far


@configuration
class MixedTargets(PPO):
    """Fits the value to the targets of other steps."""

    def improve(self, state, batch, rate, key):
        mixed = jax.random.permutation(jax.random.fold_in(key, 1), batch.target.ravel())
        return super().improve(state, batch._replace(target=mixed.reshape(batch.target.shape)), rate, key)


@configuration
class NoTrustRegion(TRPO):
    """Takes ten times the step that the line search accepted."""

    def policy_step(self, policy, batch, key):
        moved, metrics = super().policy_step(policy, batch, key)
        return jax.tree.map(lambda old, new: old + 10.0 * (new - old), policy, moved), metrics


@configuration
class UpsideDown(PPO):
    """Is judged by the opposite of its likeliest action."""

    def act(self, actor, carry, obs, key, *, explore):
        action, carry, acted = super().act(actor, carry, obs, key, explore=explore)
        return (action if explore else -action), carry, acted


# --- broken tasks ---


@dataclass(frozen=True)
class Changed:
    """A pure task whose steps and observations pass through a change, a function of this module by its name."""

    inner: Any
    change: str

    @property
    def spec(self) -> Any:
        return self.inner.spec

    def reset(self, key: Any) -> tuple[Any, Any]:
        state, obs = self.inner.reset(key)
        return state, OBSERVED.get(self.change, lambda seen, key: seen)(obs, key)

    def step(self, state: Any, action: Any, key: Any) -> tuple[Any, Any]:
        if self.change == "ignored actions":
            action = jnp.zeros_like(action)
        state, step = self.inner.step(state, action, key)
        seen = OBSERVED.get(self.change, lambda seen, key: seen)
        step = step._replace(obs=seen(step.obs, key), next_obs=seen(step.next_obs, key))
        return state, CHANGED.get(self.change, lambda step, key: step)(step, key)


def rarely(key: Any, chance: float) -> Any:
    return jax.random.uniform(jax.random.fold_in(key, 99)) < chance


OBSERVED: dict[str, Callable[[Any, Any], Any]] = {
    "observations x 1000": lambda obs, key: 1000.0 * obs,
    "zero observations": lambda obs, key: jnp.zeros_like(obs),
    "infinite observation": lambda obs, key: jnp.where(rarely(key, 1e-4), jnp.inf, obs),
}

CHANGED: dict[str, Callable[[Any, Any], Any]] = {
    "nan reward": lambda step, key: step._replace(reward=jnp.where(rarely(key, 1e-4), jnp.nan, step.reward)),
    "rewards x 10000": lambda step, key: step._replace(reward=10_000.0 * step.reward),
    "noise for reward": lambda step, key: step._replace(
        reward=jax.random.normal(jax.random.fold_in(key, 98), step.reward.shape, step.reward.dtype)
    ),
    "clock as termination": lambda step, key: step._replace(
        terminated=step.terminated | step.truncated, truncated=jnp.zeros_like(step.truncated)
    ),
    "termination as truncation": lambda step, key: step._replace(
        truncated=step.terminated | step.truncated, terminated=jnp.zeros_like(step.terminated)
    ),
}


class Case(NamedTuple):
    """A run. `expected`: the warnings that are meant for it; none for a healthy one."""

    name: str
    expected: tuple[str, ...]
    task: str
    kind: type
    settings: dict[str, Any]
    change: str = ""
    frozen: bool = False
    """The same keys in every iteration."""


def pole(name: str, expected: str, kind: type = PPO, change: str = "", frozen: bool = False, **settings: Any) -> Case:
    return Case(name, tuple(expected.split()), "CartPole-v1", kind, {**POLE, **settings}, change, frozen)


def swing(name: str, expected: str, kind: type = PPO, change: str = "", frozen: bool = False, **settings: Any) -> Case:
    return Case(name, tuple(expected.split()), "Pendulum-v1", kind, {**SWING, **settings}, change, frozen)


ABSENT: Any = object()
"""For a setting that a kind of algorithm does not have."""

TRUST_SETTINGS = {"num_epochs": ABSENT, "learning_rate": 1e-3, "minibatch_size": 64}

FAULTS = [
    pole("sign of the step", "surrogate", SignOfTheStep),
    swing("sign of the step", "surrogate", SignOfTheStep),
    pole("sign of the advantage", "surrogate value-explains-little", SignOfTheAdvantage),
    pole("bootstrap through termination", "value-biased", ThroughTermination),
    swing("no bootstrap at the clock", "value-biased", NoBootstrap, discount=0.99),
    pole("trace over the end of episodes", "value-biased", LeakingTrace),
    pole("rewards leak into the last episode", "value-biased", LeakingEverything),
    pole("stale log probabilities", "stale-log-probabilities", StaleLogProbabilities),
    swing("log probability of the clipped action", "stale-log-probabilities", ClippedLogProbabilities),
    pole("a stale actor", "stale-log-probabilities", StaleActor),
    pole("element-wise clipping", "", ElementwiseClipping, gradient_clip=None),
    pole("one key for all draws", "repeated-noise", OneKey),
    swing("one key for all draws", "repeated-noise", OneKey),
    pole("the same keys every iteration", "repeated-noise", frozen=True),
    swing("the same keys every iteration", "repeated-noise", frozen=True),
    pole("dead units", "dead-units", DeadUnits),
    swing("saturated actions", "saturated-actions", SaturatedActions),
    swing("observations x 1000, not normalised", "observation-scale", change="observations x 1000",
          normalise_observations=False, observation_clip=None),
    pole("observations clipped at .1", "observation-scale", observation_clip=0.1),
    pole("observations are zero", "observation-scale", change="zero observations"),
    pole("an infinite observation", "not-finite", change="infinite observation"),
    swing("a reward is not a number", "not-finite", change="nan reward"),
    swing("rewards x 10,000, not scaled", "value-explains-little value-biased", change="rewards x 10000",
          scale_rewards=False, reward_clip=None),
    swing("rewards clipped at .001", "reward-scale", reward_clip=1e-3),
    pole("learning rate x 300", "trust-region exploding", learning_rate=0.6, anneal_learning_rate=False),
    swing("no clip, 40 epochs, learning rate x 10", "trust-region", ratio_clip=None, num_epochs=40, learning_rate=1e-2),
    pole("trpo steps ten times too far", "trust-region", NoTrustRegion, **TRUST_SETTINGS),
    pole("entropy weight 10", "entropy", entropy_weight=10.0),
    pole("entropy weight -1", "entropy trust-region", entropy_weight=-1.0),
    pole("advantages of other steps", "no-gradient", MixedAdvantages),
    swing("actions are ignored", "no-gradient", change="ignored actions"),
    pole("noise for reward", "no-gradient value-explains-little", change="noise for reward"),
    pole("value never trained", "value-explains-little value-biased", value_weight=0.0),
    swing("value targets of other steps", "value-explains-little", MixedTargets),
    swing("clock reported as termination", "truncation", change="clock as termination"),
    pole("termination reported as truncation", "truncation", change="termination as truncation"),
    swing("judged upside down", "evaluation", UpsideDown),
]  # fmt: skip

HEALTHY = [
    pole("ppo", ""),
    pole("ppo, two layers of 64, small minibatches", "", minibatch_size=64, learning_rate=5e-4),
    pole("ppo without normalised observations", "", normalise_observations=False),
    pole("a2c", "", A2C, num_epochs=ABSENT, minibatch_size=ABSENT, learning_rate=3e-3),
    pole("trpo", "", TRPO, **TRUST_SETTINGS),
    swing("ppo", ""),
    swing("ppo without value clipping, relu", "", activation="relu"),
    swing("trpo", "", TRPO, **TRUST_SETTINGS),
    Case("ppo", (), "Acrobot-v1", PPO, POLE),
    Case("ppo", (), "MountainCarContinuous-v0", PPO, {**SWING, "discount": 0.99, "log_std": 0.5}),
]


def rows_of(case: Case, seed: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the metrics of a case's run, with evaluations, and the algorithm's settings."""
    env: Any = environments.make(case.task, 1, 1)  # a pure task: the number of slots is the loop's affair
    settings = {name: value for name, value in case.settings.items() if value is not ABSENT}
    algorithm = case.kind(spec=env.spec, measure_gradients=True, anneal_env_steps=STEPS, **settings)
    judge = make_player(algorithm, env, EVALUATION_SLOTS, seed)
    collector = JaxCollector(algorithm, Changed(env, case.change) if case.change else env, seed)
    loop = (Frozen if case.frozen else OnPolicyLoop)(algorithm, seed, collector, Lanes([judge]))
    progress, rows = loop.start(), []
    while int(progress.env_steps) < STEPS:
        before = int(progress.env_steps)
        progress, metrics, _ = loop.iterate(progress)
        row = {"iteration": int(progress.iteration), "env_steps": int(progress.env_steps), **metrics}
        if int(progress.env_steps) * EVALUATIONS // STEPS > before * EVALUATIONS // STEPS:
            found = loop.evaluate(progress, 16)
            row |= {
                "evaluation_return": float(found.returns.mean()),
                "evaluation_return_std": float(found.returns.std()),
            }
        rows.append(row)
    return rows, algorithm.settings()


class Frozen(OnPolicyLoop):
    """Draws the same in every iteration."""

    def iterate(self, progress: Progress, *goes_on: Any) -> tuple[Progress, dict[str, float], Failures]:
        after, metrics, failures = super().iterate(progress._replace(iteration=np.zeros((), np.int64)), *goes_on)
        return after._replace(iteration=progress.iteration + 1), metrics, failures


def judged(rows: list[dict[str, Any]], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The warnings that come."""
    watch = Watch(settings)
    for row in rows:
        watch.see(row)
    return [{"name": warned.name, "iteration": warned.iteration, "sentence": warned.sentence} for warned in watch.given]


def one(kind: str, number: int, seeds: list[int], keep: str | None) -> None:
    """A case's runs, in this process: a line of JSON each."""
    case = {"fault": FAULTS, "healthy": HEALTHY}[kind][number]
    for seed in seeds:
        rows, settings = rows_of(case, seed)
        if keep:
            place = Path(keep) / f"{kind}-{number}-{seed}.json"
            place.write_text(json.dumps({"rows": rows, "settings": settings}))
        returns = [row["training_return"] for row in rows if np.isfinite(row["training_return"])]
        print(
            json.dumps(
                {
                    "seed": seed,
                    "return": float(np.mean(returns[-10:])) if returns else None,
                    "warnings": judged(rows, settings),
                }
            ),
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--keep", default=None, help="a folder for the metrics of every run")
    parser.add_argument("--one", nargs=2, default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one[0], int(arguments.one[1]), arguments.seeds, arguments.keep)
        return
    if arguments.keep:
        Path(arguments.keep).mkdir(parents=True, exist_ok=True)

    def run(job: tuple[str, int]) -> dict[str, Any]:
        kind, number = job
        case = {"fault": FAULTS, "healthy": HEALTHY}[kind][number]
        command = [sys.executable, __file__, "--one", kind, str(number), "--seeds", *map(str, arguments.seeds)]
        done = subprocess.run(
            command + (["--keep", arguments.keep] if arguments.keep else []),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{case.name}: {done.stderr[-3000:]}")
        runs = [json.loads(line) for line in done.stdout.strip().splitlines()]
        print(
            kind, case.task, case.name, [[warned["name"] for warned in each["warnings"]] for each in runs], flush=True
        )
        return {"kind": kind, "name": case.name, "task": case.task, "expected": case.expected, "runs": runs}

    jobs = [("fault", n) for n in range(len(FAULTS))] + [("healthy", n) for n in range(len(HEALTHY))]
    with ThreadPoolExecutor(2) as pool:
        cases = list(pool.map(run, jobs))
    found = {
        **head(f"python bench/faults.py --seeds {' '.join(map(str, arguments.seeds))}"),
        "rules": [rule.name for rule in RULES],
        "cases": cases,
    }
    if not arguments.keep:
        (HERE / "results" / "faults.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
