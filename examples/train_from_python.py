"""Train a policy from a program instead of the command line, watch it, and measure it afterwards.

python examples/train_from_python.py
"""

from collections.abc import Mapping
from typing import Any

from workhorse.algorithms.recipes import recipe
from workhorse.runs import train


class PrintReturns(train.Observer):
    """Says how the population does, every tenth iteration."""

    def iterated(self, row: Mapping[str, Any]) -> None:
        if row["iteration"] % 10 == 0:
            print(f"iteration {row['iteration']:>4}: mean return of the population {row['training_return']:.1f}")


def main() -> None:
    known = recipe("HalfCheetah-v5", "openai-es")
    folder, summary = train.start(
        task="HalfCheetah-v5",
        algorithm="openai-es",
        settings=known.settings if known else {},
        env_steps=600_000,
        seed=0,
        recipe=known,
        observer=PrintReturns(),
    )
    found = summary.episode_return
    print(f"{folder.path}: return {found.value:.1f}, 95 % interval [{found.low:.1f}, {found.high:.1f}]")
    print(f"{summary.env_steps:,} training steps in {summary.wall_s:.1f} s")


if __name__ == "__main__":
    main()
