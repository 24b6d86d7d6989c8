"""Splits: stratified, seeded and disjoint sets for the victim's training, validation and test, and for the attacker."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._rng import numpy_generator
from art_divqat.data.pictures import OWN_FORM, ImageForm
from art_divqat.data.raw import RawImages, to_float
from art_divqat.data.sources import load_raw
from art_divqat.data.stored import ImageSet, StoredImages, take
from art_divqat.errors import UserError

TEST_FRACTION = 0.2
VALIDATION_FRACTION = 0.1
POOL_FRACTION = 0.3


@dataclass(frozen=True)
class Dataset:
    """One data set, split; images float32 (N, C, H, W) in [0, 1], labels int64.

    Images are arrays, or, if they are large, :class:`~art_divqat.data.stored.StoredImages`, of which a batch is one.
    `pool` is the attacker's part: images of the same distribution that the victim never trains on. `class_numbers` are
    as in :class:`~art_divqat.data.raw.RawImages`.
    """

    name: str
    x_train: Any
    y_train: NDArray[np.int64]
    x_validation: Any
    y_validation: NDArray[np.int64]
    x_pool: Any
    y_pool: NDArray[np.int64]
    x_test: Any
    y_test: NDArray[np.int64]
    class_names: tuple[str, ...]
    checksum: str
    notes: tuple[str, ...] = ()
    class_numbers: tuple[int, ...] = ()

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        channels, height, width = self.x_train.shape[1:]
        return channels, height, width

    @property
    def nb_classes(self) -> int:
        """How many classes."""
        return len(self.class_names)

    def describe(self) -> dict[str, Any]:
        """What the report says about the data."""
        return {
            "name": self.name,
            "input_shape": list(self.input_shape),
            "classes": self.nb_classes,
            "train": len(self.x_train),
            "validation": len(self.x_validation),
            "pool": len(self.x_pool),
            "test": len(self.x_test),
            "checksum": self.checksum,
            "notes": list(self.notes),
        }


def checksum(*arrays: ImageSet) -> str:
    """SHA-256 over the shapes, types and bytes of the arrays, or the hashes of stored images; the first 32 digits."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype}".encode())
        if isinstance(array, StoredImages):
            digest.update(array.fingerprint())
        else:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:32]


def load_dataset(
    name: str,
    *,
    data_root: Path | None = None,
    download: bool = False,
    form: ImageForm = OWN_FORM,
    limit: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Read a data set by name and split it; see :func:`art_divqat.data.load_raw` and :func:`split_dataset`.

    >>> load_dataset("digits").describe()["test"]
    359
    """
    raw = load_raw(name, data_root=data_root, download=download, form=form)
    return split_dataset(raw, limit=limit, seed=seed)


def split_dataset(raw: RawImages, *, limit: int | None = None, seed: int = 0) -> Dataset:
    """Cut off the test images (20 %), then the attacker's pool (30 %), then validation (10 %).

    Test and validation images that the source has of its own are taken as they are. Every split is stratified by
    class, drawn from `seed`, disjoint from every other. An image of the pool whose copy is among the training images
    is dropped, which a note says: the attacker never holds what the victim trained on.

    :param limit: at most so many training images and so many test images, stratified; None for all.
    :raises UserError: if a class has too few images for every split to hold one.
    """
    rng = numpy_generator("split", seed)
    rows: NDArray[np.int64] = np.arange(len(raw.x))
    if raw.x_test is None or raw.y_test is None:
        test_rows, rows = _take(rows, raw.y, TEST_FRACTION, rng, raw.name)
        x_test, y_test = take(raw.x, test_rows), raw.y[test_rows]
    else:
        x_test, y_test = raw.x_test, raw.y_test
    pool_rows, rows = _take(rows, raw.y, POOL_FRACTION, rng, raw.name)
    if raw.x_validation is None or raw.y_validation is None:
        validation_rows, train_rows = _take(rows, raw.y, VALIDATION_FRACTION, rng, raw.name)
        x_validation, y_validation = raw.x, raw.y
    else:
        x_validation, y_validation = raw.x_validation, raw.y_validation
        validation_rows, train_rows = np.arange(len(x_validation)), rows
    if limit is not None:
        train_rows = _limit(train_rows, raw.y, limit, rng)
        validation_rows = _limit(validation_rows, y_validation, limit, rng)
        keep = _limit(np.arange(len(x_test)), y_test, limit, rng)
        x_test, y_test = take(x_test, keep), y_test[keep]
    unseen_rows = _without_copies(pool_rows, train_rows, raw.x)
    notes = raw.notes
    dropped = len(pool_rows) - len(unseen_rows)
    if dropped:
        what = f"{dropped:,} of {len(pool_rows):,} images that an attacker could have had"
        notes = (*notes, f"{what} dropped, as copies of training images")
    parts = [
        (take(raw.x, train_rows), raw.y[train_rows]),
        (take(x_validation, validation_rows), y_validation[validation_rows]),
        (take(raw.x, unseen_rows), raw.y[unseen_rows]),
        (x_test, y_test),
    ]
    digest = checksum(*(array for part in parts for array in part))
    (x_train, y_train), (x_val, y_val), (x_pool, y_pool), (x_test, y_test) = (
        (x if isinstance(x, StoredImages) else to_float(x), y) for x, y in parts
    )
    return Dataset(
        raw.name,
        x_train,
        y_train,
        x_val,
        y_val,
        x_pool,
        y_pool,
        x_test,
        y_test,
        raw.class_names,
        digest,
        notes,
        raw.class_numbers,
    )


def stratified_subset(labels: NDArray[np.int64], size: int, *, seed: int) -> NDArray[np.int64]:
    """At most `size` row numbers, ascending, the classes shared as evenly as their sizes; the same for the same seed.

    >>> stratified_subset(np.array([0, 0, 1, 1]), 2, seed=0).tolist() in ([0, 2], [0, 3], [1, 2], [1, 3])
    True
    """
    return _limit(np.arange(len(labels)), labels, size, numpy_generator("subset", seed))


def _take(
    rows: NDArray[np.int64], labels: NDArray[np.int64], fraction: float, rng: np.random.Generator, name: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split `rows` into about `fraction` of each class and the others; at least one of each class on either side."""
    taken, left = [], []
    for label in np.unique(labels[rows]):
        of_class = rng.permutation(rows[labels[rows] == label])
        if len(of_class) < 2:
            raise UserError(
                f"{name}: class {label} has too few images to share among training, validation, pool and test; "
                "expected at least 8."
            )
        count = min(max(1, round(fraction * len(of_class))), len(of_class) - 1)
        taken.append(of_class[:count])
        left.append(of_class[count:])
    return np.sort(np.concatenate(taken)), np.sort(np.concatenate(left))


def _without_copies(rows: NDArray[np.int64], forbidden: NDArray[np.int64], images: ImageSet) -> NDArray[np.int64]:
    """Those of `rows` whose image is not, byte for byte, among the `forbidden` ones."""

    def contents(picked: NDArray[np.int64]) -> Iterable[bytes]:
        if isinstance(images, StoredImages):
            return images.take(picked).digests()
        return (images[row].tobytes() for row in picked)

    known = set(contents(forbidden))
    return rows[[content not in known for content in contents(rows)]]


def _limit(
    rows: NDArray[np.int64], labels: NDArray[np.int64], limit: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """At most `limit` of the rows, the classes shared as evenly as their sizes."""
    if len(rows) <= limit:
        return rows
    shuffled = rng.permutation(rows)
    # the n-th image of every class comes before the (n + 1)-th of any: a prefix is as even as the classes allow
    position = np.empty(len(shuffled), dtype=np.float64)
    for label in np.unique(labels[shuffled]):
        members = np.flatnonzero(labels[shuffled] == label)
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(shuffled[np.argsort(position, kind="stable")[:limit]])
