"""Film a rival: an episode of it in the task's own simulator, drawn by Gymnasium."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from workhorse.core.randomness import draw, root_key
from workhorse.environments import registry
from workhorse.environments.batch import as_batch, episode_keys
from workhorse.environments.protocol import Simulator
from workhorse.environments.variants import Change
from workhorse.networks.heads import task_action
from workhorse.runs.video import Drawn, film_states
from workhorse.training.loop import Loop, Progress
from workhorse.training.plan_ahead import PlanAhead

__all__ = ["film_rival"]

LONGEST = 1000
"""Steps after which a film ends."""


def film_rival(loop: Loop, progress: Progress, task: str, options: Mapping[str, Any], seed: int, target: Path) -> float:
    """Write a film of the first episode that a rival is scored on, and return the return of what is seen.

    A planner's film is of the plan as it is carried out, and not of the copy that it teaches.

    Args:
        loop: of the rival, with the seed.
        progress: after its search.
        task, options: as for `environments.registry.make`; they must have a simulator.
        seed: of the loop.
        target: the file.
    """
    env = as_batch(registry.make(task, 1, 1, **options), 1)
    assert isinstance(env, Simulator), "who has no simulator is filmed by `workhorse video`"
    algorithm, iteration = loop.algorithm, int(progress.iteration)
    planned = loop.planned_actions(progress, 0) if isinstance(loop, PlanAhead) else None
    actor, act = algorithm.actor(progress.state), jax.jit(algorithm.act, static_argnames="explore")
    carry, key = algorithm.begin(actor, jnp.asarray(-1, jnp.int32)), draw(root_key(seed), "act", iteration)
    try:
        obs = env.reset(episode_keys(env, seed, "evaluate", iteration, np.zeros(1, np.int64)))
        states, total = [env.physics(env.states())[0]], 0.0
        for time in range(LONGEST if planned is None else min(LONGEST, len(planned))):
            if planned is None:
                seen = np.asarray(obs[0], np.float32)
                action, carry, _ = act(actor, carry, seen, jax.random.fold_in(key, time), explore=False)
            else:
                action = planned[time]
            step = env.step(np.asarray(task_action(algorithm.spec, action))[None])
            obs, total = step.next_obs, total + float(step.reward[0])
            states.append(env.physics(env.states())[0])
            if step.terminated[0] or step.truncated[0]:
                break
    finally:
        env.close()
    own = {name: value for name, value in options.items() if name not in Change.names()}
    film_states(Drawn(task, own), states, target)
    return total
