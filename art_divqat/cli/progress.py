"""Progress bar on stderr: one bar for the whole run, the time left, and the current step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from art_divqat.audit.progress import Silent, Watcher


@contextlib.contextmanager
def watch(*, quiet: bool) -> Iterator[Watcher]:
    """A watcher that draws on stderr, or one that is silent."""
    if quiet:
        yield Silent()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left", style="dim"),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=Console(stderr=True),
        transient=True,
    ) as bars:
        yield _Bars(bars)


class _Bars:
    """A bar for the whole and one for what each worker is in the middle of."""

    def __init__(self, bars: object) -> None:
        from rich.progress import Progress

        assert isinstance(bars, Progress)
        self._bars = bars
        self._whole = bars.add_task("the whole run", total=None)
        self._workers: dict[str, object] = {}

    def planned(self, weight: float, already_done: float) -> None:
        self._bars.update(self._whole, total=weight or 1.0, completed=already_done)
        self._bars.reset(self._whole, total=weight or 1.0, completed=int(already_done))
        self._clear()

    def working(self, worker: str, description: str, done: int, total: int) -> None:
        from rich.progress import TaskID

        if worker not in self._workers:
            self._clear(keep=3)
            self._workers[worker] = self._bars.add_task("")
        task = self._workers[worker]
        self._bars.update(TaskID(task), description=f"  {description}", completed=done, total=total or None)  # type: ignore[arg-type]

    def finished(self, description: str, weight: float) -> None:
        del description
        self._bars.advance(self._whole, weight)
        self._clear()

    def _clear(self, keep: int = 0) -> None:
        from rich.progress import TaskID

        while len(self._workers) > keep:
            oldest = next(iter(self._workers))
            self._bars.remove_task(TaskID(self._workers.pop(oldest)))  # type: ignore[arg-type]
