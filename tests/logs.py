"""Small logs of random actions, for tests of what learns from one."""

import gymnasium
import numpy as np

from workhorse.core.spec import Box, Discrete
from workhorse.data.dataset import Dataset
from workhorse.data.log_folder import write_log_folder


def random_log(task, num_episodes=8, most_steps=60, seed=0, choose=None):
    """A log of a Gymnasium task with a Box or Discrete action space.

    Args:
        task: its id.
        num_episodes: played from the seeds 0, 1, ...
        most_steps: after which an episode counts as truncated.
        choose: (obs, rng) -> action; by default uniform.
    """
    env, rng = gymnasium.make(task, max_episode_steps=most_steps), np.random.default_rng(seed)
    space, seen = env.action_space, env.observation_space
    if choose is None:
        uniform = isinstance(space, gymnasium.spaces.Box)
        choose = lambda obs, rng: rng.uniform(space.low, space.high) if uniform else rng.integers(space.n)  # noqa: E731
    rows, final, begins = [], [], []
    for episode in range(num_episodes):
        obs, _ = env.reset(seed=episode)
        begins.append(len(rows))
        ended = False
        while not ended:
            action = np.asarray(choose(obs, rng), space.dtype)
            following, reward, terminated, truncated, _ = env.step(action)
            rows.append((obs, action, float(reward), terminated, truncated))
            obs, ended = following, terminated or truncated
        final.append(obs)
    env.close()
    obs, action, reward, terminated, truncated = map(np.array, zip(*rows, strict=True))
    if isinstance(space, gymnasium.spaces.Box):
        actions = Box(tuple(map(float, space.low.ravel())), tuple(map(float, space.high.ravel())))
    else:
        actions = Discrete(int(space.n))
    bounds = (tuple(map(float, bound.ravel())) for bound in (seen.low, seen.high))
    return Dataset.of(
        f"random-{task}", Box(*bounds), actions, task=task, max_episode_steps=most_steps, obs=obs, action=action,
        reward=reward, terminated=terminated, truncated=truncated, final_obs=np.array(final), begins=np.array(begins),
    )  # fmt: skip


def written_log(path, task, **about):
    """The folder of a log that `random_log` makes."""
    return write_log_folder(random_log(task, **about), path)
