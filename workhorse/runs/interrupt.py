"""Interrupts that wait for a moment at which nothing is half done."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["Interrupt"]


class Interrupt:
    """Ctrl-C and SIGTERM raise `KeyboardInterrupt`, but only where `allowed`: state and metrics never part ways."""

    def __init__(self) -> None:
        self._asked = False
        self._open = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def allowed(self) -> Iterator[None]:
        """Within the block an interrupt takes effect at once; one that came before takes effect on entering.

        One that something in the block swallowed, as a callback of the garbage collector does, takes effect at its end.
        """
        self._open = True
        try:
            if self._asked:
                raise KeyboardInterrupt
            yield
            if self._asked:
                raise KeyboardInterrupt
        finally:
            self._open = False

    def _ask(self, *_: object) -> None:
        self._asked = True
        if self._open:
            raise KeyboardInterrupt
