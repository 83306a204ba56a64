"""Train a policy from a program instead of the command line, watch it, and measure it afterwards.

python examples/train_from_python.py
"""

from typing import Any

import workhorse


def watch(row: dict[str, Any]) -> bool:
    """Say how training goes, every tenth iteration; stop once it goes well."""
    if row["iteration"] % 10 == 0:
        print(f"iteration {row['iteration']:>4}: mean return in training {row['training_return']:.1f}")
    return row["training_return"] < 2000


def main() -> None:
    run = workhorse.train("HalfCheetah-v5", "openai-es", env_steps=600_000, seed=0, callback=watch, progress=False)
    found = run.evaluate().episode_return
    print(f"{run.path}: {run.state}, return {found.value:.1f}, 95 % interval [{found.low:.1f}, {found.high:.1f}]")


if __name__ == "__main__":
    main()
