"""Progress of a run in a notebook: a bar with a line below the cell, renewed in place."""

from __future__ import annotations

import html
import importlib
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from workhorse.algorithms.recipes import Recipe
from workhorse.display.run_display import Display
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import Manifest

__all__ = ["NotebookDisplay", "in_notebook"]

RENEW_EVERY_S = 0.5
"""Seconds between renewals: every one is a message to the browser, and is kept if the notebook is saved meanwhile."""


def in_notebook() -> bool:
    """Tell whether this process is the kernel of a notebook, which shows more than text."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


class NotebookDisplay(Display):
    """Display of plain lines, whose progress line stays in place below a bar. It needs no widgets."""

    def __init__(self, recipe: Recipe | None) -> None:
        super().__init__(recipe)
        self._handle: Any = None
        self._newest: Mapping[str, Any] | None = None
        self._renewed_at = 0.0

    def started(self, folder: RunFolder, manifest: Manifest, row: Mapping[str, Any]) -> None:
        super().started(folder, manifest, row)
        display = importlib.import_module("IPython.display").display  # there, because the process is a kernel
        self._handle = display(self._shown(self._line(row), row["env_steps"]), raw=True, display_id=True)

    def iterated(self, row: Mapping[str, Any]) -> None:
        self._note(row)
        self._newest = row
        if time.monotonic() - self._renewed_at >= RENEW_EVERY_S:
            self._renew()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._newest is not None:
            self._doing, self._time_left = "", None  # the line stays in the notebook
            self._renew()
        super().__exit__(kind, error, trace)

    def _renew(self) -> None:
        row = self._newest
        assert row is not None
        self._renewed_at = time.monotonic()
        self._handle.update(self._shown(self._line(row), row["env_steps"]), raw=True)

    def _do(self, what: str, tell: bool = True) -> None:
        super()._do(what, tell=False)
        if self._handle is not None:
            self._handle.update(self._shown(self._line(self._row), self._row["env_steps"]), raw=True)

    def _shown(self, line: str, env_steps: int) -> dict[str, str]:
        """Return the line for viewers of text, and with a bar for browsers."""
        bar = f'<progress value="{min(env_steps, self._budget)}" max="{self._budget}" style="width: 20em"></progress>'
        return {"text/plain": line, "text/html": f'<div>{bar}<pre style="margin: 0">{html.escape(line)}</pre></div>'}
