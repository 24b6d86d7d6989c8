"""Query pools: images of the same set, of another set, or generated, that an attacker queries with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._rng import derive_seed, numpy_generator
from art_divqat._types import Images, Shape
from art_divqat.data.adapt import ROUNDED, adapt_source
from art_divqat.data.checks import check_images
from art_divqat.data.listing import decode_list
from art_divqat.data.pictures import Fit, ImageForm
from art_divqat.data.raw import to_float
from art_divqat.data.sources import (
    DATASET_FORMS,
    DATASETS,
    canonical_dataset,
    has_pictures,
    is_dataset,
    list_pictures,
    load_raw,
)
from art_divqat.data.splits import Dataset, checksum
from art_divqat.data.stored import ImageFile, StoredImages, as_bytes, is_large, take
from art_divqat.errors import UserError, unknown_name
from art_divqat.registry import Registry, load_target

IN_DISTRIBUTION = "in-distribution"
PHOTOS = "photos"
NOISE = "noise"
GENERATED_SIZE = 20_000
LARGEST_POOL = 60_000
_AUXILIARY = "art_divqat.data.auxiliary"
_DRAWN = "art_divqat.data.drawn"


@dataclass(frozen=True)
class PoolEntry:
    """One query pool that is no data set: a line on it, its code, and what is done to its images.

    :param make: a function or `package.module:function`; called with (shape, n, seed) it gives n images of the shape
        (channels, height, width), float32 in [0, 1], the same ones for the same seed. None for the held-out images of
        the victim's own data set.
    :param adaptation: in words, what was done to make the images fit; or a function that says it of a shape.
    """

    summary: str
    make: str | Callable[[Shape, int, int], Images] | None
    adaptation: str | Callable[[Shape], str] = "none"


def _photos(shape: Shape, n: int, seed: int) -> Images:
    from art_divqat.data.photos import photo_patches

    return photo_patches(n, shape, seed=seed, full_contrast=True)


def _photos_adaptation(shape: Shape) -> str:
    grey = ", luma" if shape[0] == 1 else ""
    return f"random square crops, scaled to {shape[1]}×{shape[2]}{grey}, each stretched to full contrast"


def _noise(shape: Shape, n: int, seed: int) -> Images:
    return numpy_generator("noise pool", seed).random((n, *shape), dtype=np.float32)


POOLS = Registry(
    "query pool",
    "pools",
    PoolEntry,
    {
        IN_DISTRIBUTION: PoolEntry("held-out images of the victim's own data set", None),
        PHOTOS: PoolEntry(
            "patches of scikit-learn's two sample photographs, at many scales, full contrast",
            _photos,
            _photos_adaptation,
        ),
        NOISE: PoolEntry("independent uniform noise", _noise),
        "glyphs": PoolEntry("letters and signs in the fonts that come with matplotlib, no digits", f"{_DRAWN}:glyphs"),
        "letters": PoolEntry("letters in those fonts", f"{_DRAWN}:letters"),
        "numerals": PoolEntry("the ten digits in those fonts", f"{_DRAWN}:numerals"),
        "shapes": PoolEntry("filled polygons, ellipses and lines", f"{_AUXILIARY}:shapes"),
        "silhouettes": PoolEntry("patches of the photographs, cut out by smooth masks", f"{_AUXILIARY}:silhouettes"),
        "smooth-noise": PoolEntry("filtered noise of many widths, half of it hardened", f"{_AUXILIARY}:smooth_noise"),
        "strokes": PoolEntry("curves through a few points, of all widths", f"{_DRAWN}:strokes"),
        "walks": PoolEntry("walks of a thick pen whose direction drifts", f"{_DRAWN}:walks"),
    },
)


@dataclass(frozen=True)
class QueryPool:
    """Images an attacker owns, already of the victim's shape.

    :param x: (N, C, H, W), float32 in [0, 1]: an array, or large ones as they are kept in a file.
    :param labels: class ids in the pool's own data set, (N,), or None for images that have none.
    :param adaptation: what was done to make them fit, in words.
    :param notes: what was done to them when they were read.
    """

    name: str
    x: Any
    labels: NDArray[np.int64] | None
    adaptation: str
    checksum: str
    notes: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """What the report says about the pool."""
        return {
            "name": self.name,
            "images": len(self.x),
            "labelled": self.labels is not None,
            "adaptation": self.adaptation,
            "checksum": self.checksum,
            **({"notes": list(self.notes)} if self.notes else {}),
        }


def list_pools() -> dict[str, str]:
    """The pools that are not data sets, with one line on each; every data set's name is a pool too.

    :raises UserError: if a plug-in's pool has the name of a data set.
    """
    _no_name_twice()
    return POOLS.summaries()


def default_pool(dataset: str) -> str:
    """The pool that goes with a data set, as the papers have it; the photographs for a set of the user's own.

    >>> default_pool("mnist")
    'fashion_mnist'
    """
    return DATASETS[dataset].pool if dataset in DATASETS else PHOTOS


def canonical_pool(name: str) -> str:
    """Return the canonical name of a pool.

    :raises UserError: for a name that is neither a pool's nor a data set's, or if one is both.

    >>> canonical_pool("In_Distribution")
    'in-distribution'
    """
    _no_name_twice()
    if name in POOLS:
        return POOLS.canonical(name)
    if is_dataset(name):
        return canonical_dataset(name)
    raise unknown_name(POOLS.kind, name, [*POOLS, *DATASETS, *DATASET_FORMS])


def pool_origin(name: str) -> str | None:
    """The distribution and version of the plug-in that a pool comes from, a data set or not; None for any other."""
    if name in POOLS:
        return POOLS.origin(name)
    return DATASETS.origin(name) if name in DATASETS else None


def _no_name_twice() -> None:
    """Refuse one name for a pool and a data set, which are asked for by the same option."""
    for name in POOLS:
        if name in DATASETS:
            owners = [table.origin(name) or "art-divqat itself" for table in (POOLS, DATASETS)]
            raise UserError(
                f"The query pool {name!r} of {owners[0]} has the name of a data set of {owners[1]}: uninstall one of "
                "the two, or ask its author for another name."
            )


def load_pool(
    name: str,
    dataset: Dataset,
    *,
    data_root: Path | None = None,
    download: bool = False,
    fit: Fit = "crop",
    seed: int = 0,
) -> QueryPool:
    """The attacker's images for a victim trained on `dataset`, of its shape; at most 60,000 of them.

    :param name: `in-distribution`, `photos`, `noise`, a data set's name, `npz:PATH`, `folder:PATH` or `hf:PATH`.
    :param fit: how the pictures of a folder come to the size of the victim's images.
    :raises UserError: for an unknown or missing one, and if no image is left that the victim was not trained on.

    >>> from art_divqat.data import load_dataset
    >>> load_pool("photos", load_dataset("digits")).x.shape[1:]
    (1, 8, 8)
    """
    canonical = canonical_pool(name)
    shape = dataset.input_shape
    labels: NDArray[np.int64] | None = None
    notes: tuple[str, ...] = ()
    if canonical == IN_DISTRIBUTION or canonical == dataset.name:
        if len(dataset.x_pool) == 0:
            raise UserError(
                f"The query pool in-distribution is empty: every image of {dataset.name} that was kept for it has a "
                "copy among the training images; remove the copies, or choose another --query-pool."
            )
        canonical, x, labels, adaptation = IN_DISTRIBUTION, dataset.x_pool, dataset.y_pool, "none"
    elif canonical in POOLS:
        x, adaptation = _generated(canonical, shape, seed)
    else:
        # straight to the victim's size: from any other between them the attacker would have blurred pictures
        if has_pictures(canonical):
            listing = list_pictures(canonical, data_root=data_root, download=download)
            raw = decode_list(replace(listing, validation=None, test=None), ImageForm(shape[1:], fit=fit))
        else:
            raw = load_raw(canonical, data_root=data_root, download=download)
        rows = np.arange(len(raw.x))
        if len(rows) > LARGEST_POOL:
            rows = np.sort(numpy_generator("pool", seed).permutation(rows)[:LARGEST_POOL])
        x, adaptation = adapt_source(take(raw.x, rows), shape)
        labels, notes = raw.y[rows], raw.notes
    return QueryPool(canonical, x, labels, adaptation, checksum(x), notes)


def generated_pools() -> list[str]:
    """The pools whose images a function makes, in any number.

    >>> "walks" in generated_pools(), "in-distribution" in generated_pools()
    (True, False)
    """
    return [name for name in POOLS if POOLS[name].make is not None]


def generate(name: str, shape: Shape, count: int, seed: int) -> Images:
    """`count` images of a pool that a function makes, the same for the same seed.

    :return: (count, C, H, W), float32 in [0, 1].
    :raises UserError: if a plug-in's pool gives other arrays.

    >>> generate("noise", (1, 8, 8), 2, 0).shape
    (2, 1, 8, 8)
    """
    entry = POOLS[name]
    assert entry.make is not None
    x = load_target(entry.make)(shape, count, seed)
    if POOLS.origin(name) is not None:
        x = np.asarray(x)
        if x.shape != (count, *shape):
            raise UserError(f"The query pool {name!r} gave an array {x.shape}: expected {(count, *shape)}.")
        x = to_float(check_images(x, name))
    return x  # type: ignore[no-any-return]


def _generated(name: str, shape: Shape, seed: int) -> tuple[Images | StoredImages, str]:
    adaptation = POOLS[name].adaptation
    words = adaptation if isinstance(adaptation, str) else adaptation(shape)
    if not is_large(GENERATED_SIZE, shape):
        return generate(name, shape, GENERATED_SIZE, seed), words
    file = ImageFile(
        shape,
        LARGEST_POOL,
        lambda row: as_bytes(generate(name, shape, 1, derive_seed("image", name, seed, row)))[0],
        recipe=f"{name} {seed} {POOLS.origin(name)}",
    )
    return StoredImages(file), ROUNDED if words == "none" else f"{words}, {ROUNDED}"
