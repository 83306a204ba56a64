"""What a call from Python shows while a run goes on, and the user's callback, which may stop it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from workhorse.algorithms.recipes import Recipe
from workhorse.core.errors import UsageError
from workhorse.display.run_display import Display, display_for
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import Manifest
from workhorse.runs.train import Observer, StopTraining, Summary
from workhorse.runs.wandb_log import sent_to_wandb

__all__ = ["Callback", "followed"]

Callback: TypeAlias = Callable[[dict[str, Any]], object]
"""Function of the metrics of an iteration, by name. It returns False to stop the run, anything else to go on."""


class _Watching(Observer):
    """Passes everything on to the display, and every iteration to the user's callback."""

    def __init__(self, display: Display, callback: Callback | None) -> None:
        self._display, self._callback = display, callback
        self.folder: RunFolder | None = None

    def started(self, folder: RunFolder, manifest: Manifest, row: Mapping[str, Any]) -> None:
        self.folder = folder
        self._display.started(folder, manifest, row)

    def evaluating(self, episodes: int, last: bool) -> None:
        self._display.evaluating(episodes, last)

    def iterated(self, row: Mapping[str, Any]) -> None:
        self._display.iterated(row)
        if self._callback is not None:
            answer = self._callback({name: _plain(value) for name, value in row.items()})
            if isinstance(answer, bool | np.bool_) and not answer:
                raise StopTraining

    def noted(self, sentence: str) -> None:
        self._display.noted(sentence)


def followed(
    begin: Callable[[Observer], tuple[RunFolder, Summary]],
    callback: Callback | None,
    progress: bool,
    recipe: Recipe | None = None,
    wandb: str | None = None,
) -> tuple[RunFolder, Summary | None]:
    """Train with the display that fits the screen or the notebook, telling the callback.

    Args:
        begin: trains, telling the observer that it is given.
        callback: of the user.
        progress: whether to show it; sentences that a user must know are shown in any case.
        recipe: of a new run.
        wandb: project of Weights & Biases that metrics are sent to as well.

    Returns:
        The run's folder, and its summary; None where the callback stopped the run.

    Raises:
        UsageError: the callback is no function.
        KeyboardInterrupt: Ctrl-C or a notebook's stop button; the state is saved, and how to go on was printed.
    """
    if callback is not None and not callable(callback):
        raise UsageError(f"callback must be a function of an iteration's metrics: got {callback!r}.")
    display = display_for(not progress, recipe)
    display.stopped = "Stopped; the state is saved. Continue with: workhorse.Run.open({!r}).resume()"
    watching = _Watching(display, callback)
    try:
        with display, sent_to_wandb(wandb, watching) as told:
            folder, summary = begin(told)
    except StopTraining:
        assert watching.folder is not None
        if progress:
            print("Stopped by the callback; the state is saved. Continue with run.resume().")
        return watching.folder, None
    if progress:
        display.finished(folder, summary)
    return folder, summary


def _plain(value: object) -> object:
    """Return a scalar of NumPy or JAX as a Python number."""
    item = getattr(value, "item", None)
    return item() if item is not None and getattr(value, "shape", None) == () else value
