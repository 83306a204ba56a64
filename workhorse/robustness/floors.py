"""Measure what policies that learn nothing earn: random actions, the action zero, and the best constant action."""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from workhorse.algorithms.rules.constant import ConstantAction
from workhorse.core.addresses import host_generator, host_keys
from workhorse.core.randomness import draw, root_key
from workhorse.core.spec import ActionSpace
from workhorse.core.types import Returns
from workhorse.environments import registry
from workhorse.environments.actions import idle_actions, random_actions
from workhorse.environments.batch import as_batch, episode_keys
from workhorse.environments.protocol import HostEnv
from workhorse.math import moments
from workhorse.networks.heads import task_action
from workhorse.robustness.episodes import Earned, play
from workhorse.robustness.results import Floor

__all__ = ["measure_floor"]

TRIAL_ROUNDS = 3
"""Rounds of trials, of 64 constant actions each: the whole space, then twice the neighbourhood of the best."""
TRIAL_STEPS = 100
"""Steps after which a trial episode is cut. It only chooses: the score is that of whole episodes."""


def measure_floor(
    task: str,
    options: Mapping[str, object],
    episodes: int = 100,
    seed: int = 0,
    longest: int = 10_000,
    threads: int = 0,
) -> Floor:
    """Measure the returns of the random, the do-nothing and the best constant policy, from the same initial states.

    `random_actions` and `idle_actions` say what the first two do on each kind of action. The constant action is chosen
    by the algorithm `constant`, from the initial states of training episodes (the stream "reset"), and scored, as the
    others are, from those of evaluations (the stream "evaluate"): *the best of many trials is partly luck*.

    Args:
        task, options: which task.
        episodes: of each policy.
        seed: root of initial states and actions.
        longest: steps after which an episode is cut on a task without a clock.
        threads: simulation threads; 0 means one a core.
    """
    env = as_batch(registry.make(task, episodes, threads, **options), episodes)
    try:
        space = env.spec.action
        idle = idle_actions(space, episodes)
        random = _returns(env, seed, longest, _random_actions(space, episodes, seed))
        nothing = _returns(env, seed, longest, lambda: idle)
        action, trial_episodes, trial_steps = _best_constant(task, options, seed, threads)
        same = np.broadcast_to(action, (episodes, *action.shape))
        constant = _returns(env, seed, longest, lambda: same)
    finally:
        env.close()
    flat = tuple(map(float, np.ravel(action)))
    return Floor(random, nothing, constant, flat, trial_episodes, trial_steps)


def _best_constant(task: str, options: Mapping[str, object], seed: int, threads: int) -> tuple[np.ndarray, int, int]:
    """Return the best constant action of the trials, as the task takes it, and their episodes and steps."""
    slots = ConstantAction.num_candidates + ConstantAction.num_finalists
    env = as_batch(registry.make(task, slots, threads, **options), slots)
    try:
        algorithm = ConstantAction(spec=env.spec.rescaled())
        act = jax.jit(jax.vmap(lambda params: task_action(algorithm.spec, algorithm.action_of(params))))
        update = jax.jit(algorithm.update)
        key, unseen = root_key(seed), moments.empty(algorithm.spec.observation.size, np.float64)
        state, steps = algorithm.init(draw(key, "init")), 0
        for number in range(TRIAL_ROUNDS):
            actions = np.asarray(act(algorithm.actor(state).members)).astype(idle_actions(env.spec.action, 1).dtype)
            earned = _earned(env, seed, "reset", number, TRIAL_STEPS, lambda actions=actions: actions)
            steps += int(earned.lengths.sum())
            judged = Returns(earned.returns.astype(np.float32), np.float64(earned.lengths.mean()), unseen)
            state, _ = update(state, judged, draw(key, "update", number))
        return np.asarray(act(state.best[None]))[0], TRIAL_ROUNDS * slots, steps
    finally:
        env.close()


def _returns(env: HostEnv, seed: int, longest: int, choose: Callable[[], np.ndarray]) -> tuple[float, ...]:
    return tuple(map(float, _earned(env, seed, "evaluate", 0, longest, choose).returns))


def _earned(env: HostEnv, seed: int, stream: str, round: int, longest: int, choose: Callable[[], np.ndarray]) -> Earned:
    slots = env.num_slots
    obs = env.reset(episode_keys(env, seed, stream, round, np.arange(slots)))

    def act(_: np.ndarray, time: int, living: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # every slot draws in every step, so that its actions do not depend on which others have ended
        return choose()[living], np.zeros(len(living), bool)

    return play(env, obs, act, np.full(slots, longest))


def _random_actions(space: ActionSpace, slots: int, seed: int) -> Callable[[], np.ndarray]:
    """Return a function that draws one action a slot, each slot from a stream of its own."""
    generators = [host_generator(key) for key in host_keys(seed, "act", 0, np.arange(slots))]
    return lambda: np.stack([random_actions(space, (), generator) for generator in generators])
