"""Act with a trained policy in Gymnasium. Where it acts, only NumPy is needed: no JAX is imported.

python examples/use_a_policy.py runs/<id>
"""

import sys
from pathlib import Path

import gymnasium

from workhorse import Policy


def main(run: str) -> None:
    policy = Policy.load(Path(run) / "policy")
    env = gymnasium.make(policy.task)
    for episode in range(3):
        obs, _ = env.reset(seed=episode)
        total, ended, state = 0.0, False, None  # the state is the memory of a recurrent policy, None at the start
        while not ended:
            action, state = policy.predict(obs, state, deterministic=True)
            obs, reward, terminated, truncated, _ = env.step(action)
            total += float(reward)
            ended = terminated or truncated
        print(f"episode {episode}: return {total:.1f}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/use_a_policy.py runs/<id>")
    main(sys.argv[1])
