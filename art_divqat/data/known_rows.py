"""Known rows: what a function gives for an image, computed once, by this process or by all that share a file."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._files import cache_folder
from art_divqat._types import Images, Progress, Rows
from art_divqat._version import __version__
from art_divqat.data.stored import ImageSet, StoredImages, image_key
from art_divqat.errors import UserError

# the images of a batch, or of large ones what `chunk_of` says
KNOWN_BATCH = 32
_LEASE_SECONDS = 20.0
_WAIT_SECONDS = 0.02
_WINDOW = 256
_BUSY_SECONDS = 120


@contextmanager
def forgetting(owner: Any) -> Iterator[None]:
    """Let what remembers its answers, as its `memory`, compute them, for a clock."""
    memory = getattr(owner, "memory", None)
    if memory is None:
        yield
        return
    owner.memory = None
    try:
        yield
    finally:
        owner.memory = memory


class KnownRows:
    """f(x) for each image of a set, by the hash of its pixels: what was computed once is not computed again.

    Images are computed `batch` at a time, what is missing in the last filled up with copies: in whatever order and
    company images are asked, and by whichever process, a row is the same to the last bit.

    :param compute: images (batch, C, H, W) to rows (batch, width), float32; the row of an image must not depend on the
        others.
    :param batch: how many at a time.
    :param path: a file that other processes and later runs share, and delete whenever they like; None for this process
        alone.

    >>> known = KnownRows(lambda images: images.reshape(2, 4), 2)
    >>> known(np.ones((3, 1, 2, 2), np.float32)).shape, len(known)
    ((3, 4), 1)
    """

    def __init__(self, compute: Callable[[Images], Rows], batch: int, path: Path | None = None) -> None:
        self._compute = compute
        self._batch = batch
        self._shared = None if path is None else SharedRows(path)
        self._rows: dict[bytes, NDArray[np.float32]] = {}

    def __len__(self) -> int:
        """How many images this process knows."""
        return len(self._rows)

    def __call__(self, images: ImageSet, progress: Progress | None = None) -> Rows:
        """The rows of images, (N, width); of none, (0, 0).

        :raises UserError: if the shared file cannot be used.
        """
        keys = images.digests() if isinstance(images, StoredImages) else [image_key(image) for image in images]
        place = {key: row for row, key in enumerate(keys) if key not in self._rows}
        wanted, passed_over = deque(place), 0
        while wanted:
            known, mine = self._next(wanted)
            self._rows |= known
            if mine:
                self._rows |= self._computed(mine, images[np.array([place[key] for key in mine])])
            # what others are computing stands at the end of the queue now
            passed_over = 0 if known or mine else passed_over + _WINDOW
            if passed_over >= len(wanted) > 0:
                time.sleep(_WAIT_SECONDS)
                passed_over = 0
            if progress is not None and mine:
                progress(len(place) - len(wanted), len(place))
        return np.stack([self._rows[key] for key in keys]) if keys else np.zeros((0, 0), np.float32)

    def _next(self, wanted: deque[bytes]) -> tuple[dict[bytes, NDArray[np.float32]], list[bytes]]:
        """Take from the queue what is known by now and what is to be computed here."""
        if self._shared is None:
            return {}, [wanted.popleft() for _ in range(min(self._batch, len(wanted)))]
        window = [wanted.popleft() for _ in range(min(_WINDOW, len(wanted)))]
        known, mine, others = self._shared.claim(window, self._batch)
        unclaimed = [key for key in window if key not in known and key not in mine and key not in others]
        wanted.extendleft(reversed(unclaimed))
        wanted.extend(others)
        return known, mine

    def _computed(self, keys: Sequence[bytes], images: Images) -> dict[bytes, NDArray[np.float32]]:
        try:
            short = self._batch - len(images)
            whole = np.concatenate([images, np.repeat(images[-1:], short, axis=0)]) if short else images
            rows = np.asarray(self._compute(whole), np.float32)[: len(images)]
            found = dict(zip(keys, rows, strict=True))
        except BaseException:
            if self._shared is not None:
                self._shared.release(keys)
            raise
        if self._shared is not None:
            self._shared.add(found)
        return found


class SharedRows:
    """Rows by the hash of their image in a file that several processes read and write; each row has a hash of its own.

    A process claims what it is about to compute, for some seconds: who is killed keeps nobody waiting for longer.

    :param path: of an SQLite file; made where it is missing.
    :raises UserError: if its folder cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from None

    def claim(
        self, keys: Sequence[bytes], most: int
    ) -> tuple[dict[bytes, NDArray[np.float32]], list[bytes], list[bytes]]:
        """The rows that are there, up to `most` keys for the caller to compute, and those that others compute."""
        marks, now = ",".join("?" * len(keys)), time.time()
        with self._transaction() as rows:
            found = rows.execute(f"SELECT key, row, digest FROM known WHERE key IN ({marks})", keys).fetchall()
            known = {key: np.frombuffer(row, np.float32) for key, row, digest in found if _digest(key, row) == digest}
            claims = rows.execute(f"SELECT key FROM claims WHERE until > ? AND key IN ({marks})", (now, *keys))
            claimed = {key for (key,) in claims}
            others = [key for key in keys if key in claimed and key not in known]
            mine = [key for key in keys if key not in known and key not in claimed][:most]
            claims_of_mine = [(key, now + _LEASE_SECONDS) for key in mine]
            rows.executemany("INSERT OR REPLACE INTO claims VALUES (?, ?)", claims_of_mine)
        return known, mine, others

    def add(self, found: dict[bytes, NDArray[np.float32]]) -> None:
        """Keep rows for everybody, and let go of their claims."""
        written = [(key, row.tobytes(), _digest(key, row.tobytes())) for key, row in found.items()]
        with self._transaction() as rows:
            rows.executemany("INSERT OR REPLACE INTO known VALUES (?, ?, ?)", written)
            rows.executemany("DELETE FROM claims WHERE key = ?", [(key,) for key in found])

    def release(self, keys: Sequence[bytes]) -> None:
        """Leave to others what was claimed."""
        with self._transaction() as rows:
            rows.executemany("DELETE FROM claims WHERE key = ?", [(key,) for key in keys])

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """One connection a transaction: none outlives a fork, or the file that somebody deletes."""
        try:
            with closing(sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)) as rows:
                # it is a cache: a system that crashes may take it along
                rows.execute("PRAGMA synchronous = OFF")
                rows.execute("BEGIN IMMEDIATE")
                rows.execute("CREATE TABLE IF NOT EXISTS known (key BLOB PRIMARY KEY, row BLOB, digest BLOB)")
                rows.execute("CREATE TABLE IF NOT EXISTS claims (key BLOB PRIMARY KEY, until REAL)")
                yield rows
                rows.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unusable(str(error)) from None

    def _unusable(self, reason: str) -> UserError:
        return UserError(f"{self.path} cannot be used ({reason}): make room there, or delete it; it is made anew.")


def shared_rows(kind: str, *names: object) -> Path:
    """Where the rows that these names decide are kept for other processes and the next run, in the user's cache folder.

    :param kind: the folder.
    """
    return cache_folder() / kind / f"{computed_key(*names)}.sqlite"


def computed_key(*names: object) -> str:
    """A hash of what these names decide together with this machine.

    What decides the last bits of sums counts: versions, torch's threads, the instructions of the CPU.
    """
    import torch

    here = __version__, torch.__version__, torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()
    return hashlib.sha256("\x1f".join(map(str, (*names, *here))).encode()).hexdigest()[:32]


def _digest(key: bytes, row: bytes) -> bytes:
    return hashlib.blake2b(key + row, digest_size=16).digest()
