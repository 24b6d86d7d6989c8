"""Progress on stderr: one bar for the whole run, the time left, and the current step; or a line for each step."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from art_divqat.audit.progress import Silent, Watcher

if TYPE_CHECKING:
    from rich.progress import Progress

_LOGGER = logging.getLogger("art_divqat")
# side by side, what is half done counts nothing yet: after the first piece the pace looks slow
_TELLING = 0.05


def show_log(wanted: bool) -> bool:
    """Send the log of this package to stderr, a line an entry, where `--verbose` is given."""
    if wanted and not _LOGGER.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        _LOGGER.addHandler(handler)
        _LOGGER.setLevel(logging.INFO)
    return wanted


@contextlib.contextmanager
def watch(*, quiet: bool) -> Iterator[Watcher]:
    """A watcher that logs lines, where :func:`show_log` is in force; else one that draws on stderr, or is silent."""
    if _LOGGER.isEnabledFor(logging.INFO):
        yield Lines()
        return
    if quiet:
        yield Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", style="dim"),
        console=Console(stderr=True),
        transient=True,
    ) as bars:
        yield _Bars(bars)


class TimeLeft:
    """The time that a run has left: what it took so far, by the share of the work that this took.

    What an earlier run did counts as done, and took no time of this one. Nothing is said before a twentieth of the
    rest is done.

    :param clock: seconds, from any moment on.

    >>> now = [0.0]
    >>> left = TimeLeft(lambda: now[0])
    >>> left.planned(whole=10, done=2)
    >>> left.seconds() is None
    True
    >>> now[0] = 6.0
    >>> left.finished(2)
    >>> left.seconds()
    18.0
    >>> now[0] = 8.0
    >>> left.seconds()
    16.0
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: float | None = None
        self._ahead = self._done = 0.0
        self._at_last = self._left_at_last = 0.0

    def planned(self, whole: float, done: float) -> None:
        """The whole of the work, and what of it needs no time any more; more may be planned later."""
        # reading the data and loading libraries say nothing of the pace
        if self._began is None:
            self._began = self._clock()
        self._ahead = max(whole - done, 0.0)
        self._estimate()

    def finished(self, weight: float) -> None:
        """A piece of work is done."""
        self._done += weight
        self._ahead = max(self._ahead - weight, 0.0)
        self._estimate()

    def _estimate(self) -> None:
        self._at_last = self._clock()
        if self._done and self._began is not None:
            self._left_at_last = (self._at_last - self._began) * self._ahead / self._done

    def seconds(self) -> float | None:
        """About how long it takes from now; None before that can be told."""
        if not self._done or self._done < _TELLING * (self._done + self._ahead):
            return None
        return max(self._left_at_last - (self._clock() - self._at_last), 0.0)

    def text(self) -> str:
        """The same in words; empty before it can be told, and when all is done.

        >>> TimeLeft().text()
        ''
        """
        seconds = self.seconds()
        if seconds is None or not self._ahead:
            return ""
        minutes = round(seconds / 60)
        if minutes < 90:
            return f"about {minutes} min left" if minutes >= 2 else f"about {max(seconds, 1):.0f} s left"
        return f"about {seconds / 3600:.1f} h left"


class Lines:
    """Logs every step that begins and every piece that is done."""

    def __init__(self) -> None:
        self._left = TimeLeft()
        self._whole = self._done = 0.0
        self._current: dict[str, str] = {}

    def planned(self, weight: float, already_done: float) -> None:
        """The whole of the work, and what an earlier run did of it."""
        self._whole, self._done = weight or 1.0, already_done
        self._left.planned(weight, already_done)

    def working(self, worker: str, description: str, done: int, total: int) -> None:
        """A worker is in the middle of something; said once, whatever its state."""
        del done, total
        if self._current.get(worker) != description:
            self._current[worker] = description
            _LOGGER.info("%s", description)

    def finished(self, description: str, weight: float) -> None:
        """A piece of work is done."""
        self._done += weight
        self._left.finished(weight)
        left = self._left.text()
        share = 100 * self._done / self._whole
        _LOGGER.info("done: %s; %.0f %%%s", description, share, f", {left}" if left else "")


class _Bars:
    """A bar for the whole and one for what each worker is in the middle of."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._left = TimeLeft()
        self._whole = bars.add_task("the whole run", total=None, left="")
        self._workers: dict[str, object] = {}

    def planned(self, weight: float, already_done: float) -> None:
        self._left.planned(weight, already_done)
        self._bars.update(self._whole, total=weight or 1.0, completed=already_done)
        self._clear()

    def working(self, worker: str, description: str, done: int, total: int) -> None:
        from rich.progress import TaskID

        if worker not in self._workers:
            self._clear(keep=3)
            self._workers[worker] = self._bars.add_task("", left="")
        task = self._workers[worker]
        self._bars.update(TaskID(task), description=f"  {description}", completed=done, total=total or None)  # type: ignore[arg-type]
        self._bars.update(self._whole, left=self._left.text())

    def finished(self, description: str, weight: float) -> None:
        del description
        self._left.finished(weight)
        self._bars.advance(self._whole, weight)
        self._bars.update(self._whole, left=self._left.text())
        self._clear()

    def _clear(self, keep: int = 0) -> None:
        from rich.progress import TaskID

        while len(self._workers) > keep:
            oldest = next(iter(self._workers))
            self._bars.remove_task(TaskID(self._workers.pop(oldest)))  # type: ignore[arg-type]
