"""Conformance checks of data sets and query pools: test your own against the contracts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from art_divqat._files import default_data_root
from art_divqat.data.checks import check_images
from art_divqat.data.listing import decode_list
from art_divqat.data.pools import PoolEntry, canonical_pool
from art_divqat.data.raw import to_float
from art_divqat.data.sources import DatasetEntry, checked_list, checked_raw
from art_divqat.data.splits import Dataset, split_dataset
from art_divqat.registry import load_target
from art_divqat.testing._common import fitting, require, undisturbed

_SHAPES = ((1, 8, 8), (3, 12, 20))


def check_dataset(entry: DatasetEntry, *, data_root: Path | None = None) -> None:
    """Read a data set twice, without a download, and check what every data set must keep.

    It gives `RawImages`, or a `PictureList` if its entry says `pictures`: images that are uint8, or floats in [0, 1],
    of 1 or 3 channels, one class id an image from 0, one distinct name a class; every class has images, and enough for
    every split; both readings are the same; the global random states are left alone; the radius lies in (0, 1], and
    there is a query pool of the name given.

    :param data_root: the folder of data sets; the user's own if not given.
    :raises AssertionError: naming what was broken.
    :raises UserError: where the set itself says why it cannot be read, such as files that are not there.

    >>> from art_divqat.data.sources import DATASETS
    >>> check_dataset(DATASETS["digits"])
    """
    subject = "The data set"
    require(0 < entry.epsilon <= 1, subject, f"has the radius {entry.epsilon}: expected one in (0, 1]")
    splits: list[Dataset] = []
    for _ in range(2):
        with undisturbed(subject):
            given = load_target(entry.read)(data_root or default_data_root(), False)
        with fitting(subject):
            raw = decode_list(checked_list(given, "checked")) if entry.pictures else checked_raw(given, "checked")
            canonical_pool(entry.pool)
        names = raw.class_names
        require(len(set(names)) == len(names), subject, f"names classes twice: {', '.join(names)}")
        counts = np.bincount(raw.y, minlength=len(names))
        require(bool((counts > 0).all()), subject, f"has no image of class {names[int(counts.argmin())]!r}")
        with fitting(subject):
            splits.append(split_dataset(raw))
    require(splits[0].checksum == splits[1].checksum, subject, "gave other images when it was read again")


def check_pool(entry: PoolEntry) -> None:
    """Make small pools of two shapes and check what every query pool must keep.

    It gives as many images as asked, of the shape asked, floats in [0, 1] or uint8; one seed gives the same images, and
    another seed gives others; the images differ; the global random states are left alone. A pool whose entry makes
    nothing is the victim's own held-out images, and passes.

    :raises AssertionError: naming what was broken.

    >>> from art_divqat.data.pools import POOLS
    >>> check_pool(POOLS["photos"])
    """
    subject = "The query pool"
    if entry.make is None:
        return
    for shape in _SHAPES:
        made = []
        for n, seed in ((16, 0), (16, 0), (16, 1), (5, 0)):
            with undisturbed(subject):
                images = np.asarray(load_target(entry.make)(shape, n, seed))
            require(images.shape == (n, *shape), subject, f"gave an array {images.shape}: expected {(n, *shape)}")
            with fitting(subject):
                made.append(to_float(check_images(images, "checked")))
        require(np.array_equal(made[0], made[1]), subject, "gave other images for the same seed")
        require(not np.array_equal(made[0], made[2]), subject, "gave the same images for another seed")
        require(bool((made[0] != made[0][0]).any()), subject, "gave one image again and again")
        said = entry.adaptation if isinstance(entry.adaptation, str) else entry.adaptation(shape)
        require(isinstance(said, str) and bool(said), subject, "says nothing of what was done to make its images fit")
