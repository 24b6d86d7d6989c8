"""Progress of a run: watchers, and files through which worker processes report theirs."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Protocol


class Watcher(Protocol):
    """Whoever wants to know how a run goes; every method may be called often and must be quick."""

    def planned(self, weight: float, already_done: float) -> None:
        """The whole of the work, in units of its estimated cost, and what an earlier run did of it."""

    def working(self, worker: str, description: str, done: int, total: int) -> None:
        """A worker is in the middle of something."""

    def finished(self, description: str, weight: float) -> None:
        """A piece of work is done."""


class Silent:
    """Watches nothing."""

    def planned(self, weight: float, already_done: float) -> None:
        """Ignored."""

    def working(self, worker: str, description: str, done: int, total: int) -> None:
        """Ignored."""

    def finished(self, description: str, weight: float) -> None:
        """Ignored."""


class ProgressFile:
    """Says how far a worker process is, in a small file that the main process reads now and then.

    :param path: one file a task, in a folder that only this run uses.
    """

    INTERVAL_SECONDS = 0.2

    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = 0.0

    def __call__(self, description: str, done: int, total: int) -> None:
        """Write the state, at most five times a second."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self.INTERVAL_SECONDS
        with contextlib.suppress(OSError):
            self._path.write_text(f"{done}\t{total}\t{description}")

    @staticmethod
    def read(path: Path) -> tuple[str, int, int] | None:
        """The last state written, or None if there is none or it is half-written."""
        with contextlib.suppress(OSError, ValueError):
            done, total, description = path.read_text().split("\t", 2)
            return description, int(done), int(total)
        return None
