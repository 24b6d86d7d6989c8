"""What was computed of an image is not computed again: not here, not by another process, not by the next run."""

from __future__ import annotations

import multiprocessing
import sqlite3
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from art_divqat.data import known_rows
from art_divqat.data.known_rows import KnownRows, SharedRows, shared_rows
from art_divqat.data.stored import ImageFile, StoredImages
from art_divqat.errors import UserError

SHAPE = (1, 3, 3)


def pictures(count: int, seed: int = 0) -> Any:
    return (np.random.default_rng(seed).integers(0, 256, (count, *SHAPE)) / np.float32(255)).astype(np.float32)


class Counted:
    """The first three pixels of images, and how often each was asked."""

    def __init__(self) -> None:
        self.batches: list[Any] = []

    def __call__(self, images: Any) -> Any:
        self.batches.append(images.copy())
        return images.reshape(len(images), -1)[:, :3]

    @property
    def distinct(self) -> int:
        return sum(len(np.unique(batch, axis=0)) for batch in self.batches)


@given(asked=st.lists(st.lists(st.integers(0, 11), max_size=9), max_size=6), batch=st.integers(1, 5))
def test_rows_are_those_of_the_function_each_image_once_in_whole_batches(asked: list[list[int]], batch: int) -> None:
    x, count = pictures(12), Counted()
    known = KnownRows(count, batch)
    for rows in asked:
        if rows:
            np.testing.assert_array_equal(known(x[rows]), x[rows].reshape(len(rows), -1)[:, :3])
    assert {len(each) for each in count.batches} <= {batch}
    assert count.distinct == len(known) == len({row for rows in asked for row in rows})


def test_another_process_and_the_next_run_compute_nothing_again(tmp_path: Path) -> None:
    x, path = pictures(300), tmp_path / "deep" / "rows.sqlite"
    first, second = Counted(), Counted()
    rows = KnownRows(first, 13, path)(x)
    file = ImageFile(SHAPE, 300)
    for number, image in enumerate(np.rint(x * 255).astype(np.uint8)):
        file.write(number, image)
    told: list[tuple[int, int]] = []
    np.testing.assert_array_equal(KnownRows(second, 13, path)(StoredImages(file), lambda *n: told.append(n)), rows)
    assert (first.distinct, second.batches, told) == (300, [], [])
    KnownRows(second, 13, path)(pictures(310), lambda *n: told.append(n))
    assert second.distinct == 10
    assert told[-1] == (310, 310)


def test_what_is_damaged_is_computed_anew(tmp_path: Path) -> None:
    x, path = pictures(20), tmp_path / "rows.sqlite"
    rows = KnownRows(Counted(), 4, path)(x)
    with sqlite3.connect(path) as file:
        file.execute("UPDATE known SET row = ? WHERE rowid IN (3, 7)", (np.ones(3, np.float32).tobytes(),))
    count = Counted()
    np.testing.assert_array_equal(KnownRows(count, 4, path)(x), rows)
    assert count.distinct == 2
    np.testing.assert_array_equal(KnownRows(count, 4, path)(x), rows)
    assert count.distinct == 2
    path.unlink()
    np.testing.assert_array_equal(KnownRows(count, 4, path)(x), rows)
    path.write_bytes(b"no database at all" * 1000)
    with pytest.raises(UserError, match=r"rows\.sqlite cannot be used .* delete it; it is made anew\.$"):
        KnownRows(count, 4, path)(x)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be used"):
        KnownRows(count, 4, tmp_path / "file" / "rows.sqlite")


def test_a_failure_leaves_its_images_to_others_at_once(tmp_path: Path) -> None:
    path, x = tmp_path / "rows.sqlite", pictures(5)

    def fails(images: Any) -> Any:
        raise UserError(f"no {len(images)}.")

    with pytest.raises(UserError, match=r"no 4\."):
        KnownRows(fails, 4, path)(x)
    began = time.monotonic()
    KnownRows(Counted(), 4, path)(x)
    assert time.monotonic() - began < known_rows._LEASE_SECONDS / 4


def test_who_was_killed_keeps_nobody_waiting_for_longer_than_a_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_rows, "_LEASE_SECONDS", 0.3)
    path, x = tmp_path / "rows.sqlite", pictures(9)
    file = ImageFile(SHAPE, 9)
    for number, image in enumerate(np.rint(x * 255).astype(np.uint8)):
        file.write(number, image)
    keys = StoredImages(file).digests()
    assert SharedRows(path).claim(keys, 4) == ({}, keys[:4], [])
    assert SharedRows(path).claim(keys, 4) == ({}, keys[4:8], keys[:4])
    count = Counted()
    KnownRows(count, 4, path)(x)
    assert count.distinct == 9


def _ask(path: Path, seed: int, log: Path) -> None:
    x = pictures(400)
    order = np.random.default_rng(seed).permutation(400)
    count = Counted()

    def slow(images: Any) -> Any:
        time.sleep(0.002)
        return count(images)

    rows = KnownRows(slow, 8, path)(x[order])
    assert np.array_equal(rows, x[order].reshape(400, -1)[:, :3])
    log.write_text(str(count.distinct))


def test_processes_side_by_side_share_the_work(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    logs = [tmp_path / f"{number}.log" for number in range(3)]
    workers = [
        context.Process(target=_ask, args=(tmp_path / "rows.sqlite", number, log)) for number, log in enumerate(logs)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    done = [int(log.read_text()) for log in logs]
    assert sum(done) == 400


def test_each_name_has_a_file_of_its_own() -> None:
    assert shared_rows("features", "a", 1) == shared_rows("features", "a", 1)
    paths = {shared_rows("features", "a", 1), shared_rows("features", "a", 2), shared_rows("answers", "a", 1)}
    assert len(paths) == 3
