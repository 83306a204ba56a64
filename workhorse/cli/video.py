"""`workhorse video RUN`."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence

import tyro

from workhorse.cli.options import parse
from workhorse.cli.places import RunPath

__all__ = ["run"]


@dataclasses.dataclass
class VideoOptions:
    """Record one episode of a run's newest policy, without noise, as MP4."""

    run: tyro.conf.Positional[RunPath]
    """The run folder, as in runs/<id>."""
    seed: int = 0
    """Seed of the initial state."""
    max_steps: int = 1000
    """Longest video, in environment steps."""
    width: int = 480
    """Width in pixels, for MuJoCo tasks."""
    height: int = 480
    """Height in pixels, for MuJoCo tasks."""
    trust: bool = False
    """Run code of a run from elsewhere: the modules of its task and algorithm. Remembered for the run."""


def run(arguments: Sequence[str]) -> int:
    """Record an episode of a run's policy and return the exit code."""
    options = parse(VideoOptions, arguments)
    from workhorse.runs.trust import open_run

    open_run(options.run, options.trust)
    from workhorse.runs.video import record

    def show(frames: int) -> None:
        if sys.stdout.isatty() and frames % 20 == 0:
            print(f"\r{frames} steps", end="", flush=True)

    with _without_errors_of_others():
        video = record(
            options.run,
            seed=options.seed,
            max_steps=options.max_steps,
            width=options.width,
            height=options.height,
            progress=show,
        )
    if sys.stdout.isatty():
        print("\r", end="")
    print(f"{video.path}  return {video.episode_return:.1f} over {video.length} steps")
    return 0


@contextlib.contextmanager
def _without_errors_of_others() -> Iterator[None]:
    """Context manager: discard what window and graphics libraries write to standard error past Python."""
    try:
        here = sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):  # not a file, as in a notebook
        yield
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(here), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, here)
        yield
    finally:
        os.dup2(kept, here)
        os.close(kept)
        os.close(nowhere)
