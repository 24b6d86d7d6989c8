"""Run folders: lock one for writing, and check that it belongs to this configuration."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from art_divqat._canonical import content_hash
from art_divqat._files import is_kept_arrays
from art_divqat.errors import UserError
from art_divqat.plan.config import ResolvedConfig
from art_divqat.results.journal import Journal

OURS = {
    "config.yaml",
    "journal.jsonl",
    "answers.jsonl",
    "results.json",
    "report.md",
    "report.html",
    "report.sarif",
    "report.xml",
    "report.csv",
    ".lock",
}


def default_folder(config: ResolvedConfig) -> Path:
    """`art-divqat-runs/DATASET-HASH`: the same configuration always goes to the same folder.

    Of arrays given in Python it is `arrays-HASH`.

    :param config: as :func:`art_divqat.api.prepare` gives it: another device gives other numbers, in another folder.
    """
    name = "arrays" if is_kept_arrays(config.dataset) else config.dataset
    name = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40]
    return Path("art-divqat-runs") / f"{name}-{content_hash(config.for_results())[:8]}"


class RunFolder:
    """The folder of one run.

    :param path: made if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = Journal(path / "journal.jsonl")
        self.config = path / "config.yaml"
        self.answers = path / "answers.jsonl"

    def check(self) -> None:
        """Refuse a folder that holds anything else than a run, before any work is done for it.

        :raises UserError: naming what is in the way.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file: expected a folder for the run, new or empty.")
        if not self.path.exists():
            return
        strange = sorted(
            entry.name for entry in self.path.iterdir() if entry.name not in OURS and not entry.name.startswith(".")
        )
        if strange and not self.journal.exists():
            raise UserError(
                f"The folder {self.path} holds something else ({strange[0]}): give --output a new or empty folder."
            )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and keep other processes out of it until the work is done.

        :raises UserError: if another process is at work in it, or it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock", timeout=0)
            lock.acquire()
        except Timeout:
            raise UserError(
                f"Another process is running in {self.path}: wait for it, or give --output another folder."
            ) from None
        except OSError as error:
            raise UserError(f"The folder {self.path} cannot be written: {error.strerror or error}.") from None
        try:
            yield
        finally:
            lock.release()
