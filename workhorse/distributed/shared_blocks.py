"""The blocks of an update's sum, made once a node: processes of a machine leave them for each other in shared memory.

A block's bits do not depend on who made it, so nobody waits for anybody: every process goes through the blocks in an
order of its own, takes those that are there, makes those that are not, and leaves them. A process that dies in the
middle leaves its share to the others.
"""

import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from workhorse.math.noise import BLOCK_SIZE

__all__ = ["SharedBlocks"]

SHARED_MEMORY = Path("/dev/shm")
"""Memory that Linux shows as a folder; elsewhere the folder for temporary files is used."""


class SharedBlocks:
    """Blocks by iteration and number, in a folder that only this user can open.

    Args:
        token: the run's name among the runs on this machine.
        process: a name of this process; it decides the order in which blocks are gone through.
        node: a name of the node: processes of other nodes are not shared with, even where they see the same memory.
        root: where the folder is made; shared memory by default.
    """

    def __init__(self, token: str, process: str, node: str = "", root: Path | None = None) -> None:
        self.computed = 0
        """Blocks made here."""
        self.taken = 0
        """Blocks another process had made."""
        place = root or (SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else Path(tempfile.gettempdir()))
        self._folder = place / (f"workhorse-{token}-{node}" if node else f"workhorse-{token}")
        self._process = process

    def __call__(self, iteration: int, count: int, compute: Callable[[int], np.ndarray]) -> list[np.ndarray]:
        """All blocks of an iteration, in order. Where there are several, each has rows of `BLOCK_SIZE` float32."""
        if count == 1:
            return [compute(0)]
        if not self._open():
            return [compute(block) for block in range(count)]
        order = list(range(count))
        random.Random(f"{self._process} {iteration}").shuffle(order)
        found: dict[int, np.ndarray] = {}
        for block in order:
            there = self._take(iteration, block)
            found[block] = self._make(iteration, block, compute) if there is None else there
        self._forget(iteration - 2, count)
        return [found[block] for block in range(count)]

    def close(self) -> None:
        """Remove the folder; a process that still uses it makes its blocks itself."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _open(self) -> bool:
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            return self._folder.stat().st_uid == os.getuid()
        except OSError:
            return False

    def _place(self, iteration: int, block: int) -> Path:
        return self._folder / f"{iteration}-{block}"

    def _take(self, iteration: int, block: int) -> np.ndarray | None:
        try:
            content = self._place(iteration, block).read_bytes()
        except OSError:
            return None
        if not content or len(content) % (4 * BLOCK_SIZE):
            return None
        self.taken += 1
        return np.frombuffer(content, np.float32).reshape(-1, BLOCK_SIZE)

    def _make(self, iteration: int, block: int, compute: Callable[[int], np.ndarray]) -> np.ndarray:
        values = np.asarray(compute(block), np.float32)
        self.computed += 1
        place = self._place(iteration, block)
        partial = place.with_name(f"{place.name}.{os.getpid()}-{id(self)}")
        try:
            partial.write_bytes(values.tobytes())
            partial.replace(place)  # whole or not there at all
        except OSError:
            partial.unlink(missing_ok=True)
        return values

    def _forget(self, iteration: int, count: int) -> None:
        for block in range(count):
            self._place(iteration, block).unlink(missing_ok=True)
