"""Past runs: find the run folders below a folder, and report the state of each. No torch, no ART."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout
from pydantic import ValidationError

from art_divqat.errors import UserError
from art_divqat.results.build import read_results
from art_divqat.results.schema import Results

RUNS = Path("art-divqat-runs")
_JOURNAL = "journal.jsonl"
# runs are folders of a folder, and studies folders of these
_DEPTH = 3


@dataclass(frozen=True)
class PastRun:
    """A run folder and what it holds.

    :param results: what finished; None if the journal cannot be read.
    :param running: whether a process is at work in it.
    :param reason: why the journal cannot be read; empty if it can.
    """

    folder: Path
    results: Results | None
    running: bool
    reason: str = ""

    @property
    def state(self) -> Literal["finished", "running", "stopped", "failed"]:
        """How far it came; `failed` if its journal cannot be read."""
        if self.results is None:
            return "failed"
        if self.running:
            return "running"
        return "finished" if self.done >= self.planned else "stopped"

    @property
    def done(self) -> int:
        """Cells that have finished."""
        return 0 if self.results is None else len(self.results.cells)

    @property
    def planned(self) -> int:
        """Cells in all."""
        return 0 if self.results is None else self.results.planned

    @property
    def started(self) -> str:
        """When it was begun, in UTC; empty if that is not known."""
        return "" if self.results is None else self.results.started


def past_runs(folder: Path) -> list[PastRun]:
    """The runs in a folder, up to three folders down, the newest first; itself, if it is one.

    :raises UserError: if there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}: expected one with run folders in it, such as {RUNS}.")
    return sorted((_read(path.parent) for path in _journals(folder)), key=lambda run: run.started, reverse=True)


def _journals(folder: Path) -> Iterator[Path]:
    for depth in range(_DEPTH):
        yield from folder.glob("*/" * depth + _JOURNAL)


def _read(folder: Path) -> PastRun:
    try:
        return PastRun(folder, _written(folder) or read_results(folder), _is_running(folder))
    except UserError as error:
        return PastRun(folder, None, _is_running(folder), str(error))


def _written(folder: Path) -> Results | None:
    """What results.json says, where it is of this journal: a large one takes seconds to evaluate anew."""
    path = folder / "results.json"
    try:
        if path.stat().st_mtime >= (folder / _JOURNAL).stat().st_mtime:
            return Results.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        pass
    return None


def _is_running(folder: Path) -> bool:
    path = folder / ".lock"
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        # nobody can be at work in a folder that cannot be written
        return False
