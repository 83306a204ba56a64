"""Measure what a policy that learns nothing earns: uniformly random actions, and the action zero."""

from collections.abc import Callable, Mapping

import numpy as np

from workhorse.core.addresses import host_generator, host_keys
from workhorse.core.spec import ActionSpace
from workhorse.environments import registry
from workhorse.environments.actions import idle_actions, random_actions
from workhorse.environments.batch import as_batch, episode_keys
from workhorse.environments.protocol import HostEnv
from workhorse.robustness.episodes import play
from workhorse.robustness.results import Floor

__all__ = ["measure_floor"]


def measure_floor(
    task: str, options: Mapping[str, object], episodes: int = 100, seed: int = 0, longest: int = 10_000
) -> Floor:
    """Measure the returns of the random and of the do-nothing policy, from the same initial states.

    `random_actions` and `idle_actions` say what the two do on each kind of action.

    Args:
        task, options: which task.
        episodes: of each policy.
        seed: root of initial states and actions.
        longest: steps after which an episode is cut on a task without a clock.
    """
    env = as_batch(registry.make(task, episodes, 0, **options), episodes)
    try:
        idle = idle_actions(env.spec.action, episodes)
        random = _returns(env, seed, longest, _random_actions(env.spec.action, episodes, seed))
        nothing = _returns(env, seed, longest, lambda: idle)
    finally:
        env.close()
    return Floor(random, nothing)


def _returns(env: HostEnv, seed: int, longest: int, choose: Callable[[], np.ndarray]) -> tuple[float, ...]:
    slots = env.num_slots
    obs = env.reset(episode_keys(env, seed, "evaluate", 0, np.arange(slots)))

    def act(_: np.ndarray, time: int, living: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # every slot draws in every step, so that its actions do not depend on which others have ended
        return choose()[living], np.zeros(len(living), bool)

    return tuple(map(float, play(env, obs, act, np.full(slots, longest)).returns))


def _random_actions(space: ActionSpace, slots: int, seed: int) -> Callable[[], np.ndarray]:
    """Return a function that draws one action a slot, each slot from a stream of its own."""
    generators = [host_generator(key) for key in host_keys(seed, "act", 0, np.arange(slots))]
    return lambda: np.stack([random_actions(space, (), generator) for generator in generators])
