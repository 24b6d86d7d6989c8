"""What the attacker queries with: images of the same set, of another set, or patches of two photographs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._rng import numpy_generator
from art_divqat.data.sources import canonical_dataset, load_raw
from art_divqat.data.splits import Dataset, checksum, to_float
from art_divqat.errors import unknown_name

IN_DISTRIBUTION = "in-distribution"
PHOTOS = "photos"
NOISE = "noise"
_BUILT_IN = {
    IN_DISTRIBUTION: "held-out images of the victim's own data set",
    PHOTOS: "patches of scikit-learn's two sample photographs, at many scales, full contrast",
    NOISE: "independent uniform noise",
}
# The pairs of the papers, victim ← queries; natural-image sets stand in for ImageNet, which cannot be downloaded.
_DEFAULTS = {
    "digits": PHOTOS,
    "mnist": "fashion_mnist",
    "fashion_mnist": "mnist",
    "kmnist": "fashion_mnist",
    "emnist": "fashion_mnist",
    "cifar10": "cifar100",
    "cifar100": "cifar10",
    "svhn": "cifar10",
    "gtsrb": "cifar10",
    "stl10": "cifar100",
}
GENERATED_SIZE = 20_000
LARGEST_POOL = 60_000


@dataclass(frozen=True)
class QueryPool:
    """Images an attacker owns, already of the victim's shape.

    :param x: (N, C, H, W), float32 in [0, 1].
    :param labels: class ids in the pool's own data set, (N,), or None for images that have none.
    :param adaptation: what was done to make them fit, in words.
    """

    name: str
    x: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    adaptation: str
    checksum: str

    def describe(self) -> dict[str, Any]:
        """What the report says about the pool."""
        return {
            "name": self.name,
            "images": len(self.x),
            "labelled": self.labels is not None,
            "adaptation": self.adaptation,
            "checksum": self.checksum,
        }


def list_pools() -> dict[str, str]:
    """The pools that are not data sets, with one line on each; every data set's name is a pool too."""
    return dict(_BUILT_IN)


def default_pool(dataset: str) -> str:
    """The pool that the papers pair with a data set, or the photographs for a set of the user's own.

    >>> default_pool("mnist")
    'fashion_mnist'
    """
    return _DEFAULTS.get(dataset, PHOTOS)


def canonical_pool(name: str) -> str:
    """Return the canonical name of a pool.

    :raises UserError: for a name that is neither a pool's nor a data set's.
    """
    canonical = name.strip().lower().replace("_", "-")
    if canonical in _BUILT_IN:
        return canonical
    try:
        return canonical_dataset(name)
    except ValueError:
        from art_divqat.data.sources import list_datasets

        raise unknown_name("query pool", name, [*_BUILT_IN, *list_datasets(), "npz:PATH", "folder:PATH"]) from None


def load_pool(
    name: str, dataset: Dataset, *, data_root: Path | None = None, download: bool = False, seed: int = 0
) -> QueryPool:
    """The attacker's images for a victim trained on `dataset`, of its shape; at most 60,000 of them.

    :param name: `in-distribution`, `photos`, `noise`, a data set's name, `npz:PATH` or `folder:PATH`.
    :raises UserError: for an unknown or missing one.

    >>> from art_divqat.data import load_dataset
    >>> load_pool("photos", load_dataset("digits")).x.shape[1:]
    (1, 8, 8)
    """
    canonical = canonical_pool(name)
    shape = dataset.input_shape
    labels: NDArray[np.int64] | None = None
    if canonical == IN_DISTRIBUTION or canonical == dataset.name:
        canonical, x, labels, adaptation = IN_DISTRIBUTION, dataset.x_pool, dataset.y_pool, "none"
    elif canonical == PHOTOS:
        from art_divqat.data.photos import photo_patches

        x = photo_patches(GENERATED_SIZE, shape, seed=seed, full_contrast=True)
        grey = ", luma" if shape[0] == 1 else ""
        adaptation = f"random square crops, scaled to {shape[1]}×{shape[2]}{grey}, each stretched to full contrast"
    elif canonical == NOISE:
        x = numpy_generator("noise pool", seed).random((GENERATED_SIZE, *shape), dtype=np.float32)
        adaptation = "none"
    else:
        raw = load_raw(canonical, data_root=data_root, download=download)
        rows = np.arange(len(raw.x))
        if len(rows) > LARGEST_POOL:
            rows = np.sort(numpy_generator("pool", seed).permutation(rows)[:LARGEST_POOL])
        x, adaptation = adapt_images(raw.x[rows], shape)
        labels = raw.y[rows]
    return QueryPool(canonical, x, labels, adaptation, checksum(x))


def adapt_images(x: NDArray[Any], shape: tuple[int, int, int]) -> tuple[NDArray[np.float32], str]:
    """Images of any size and 1 or 3 channels to float32 of `shape`, and what was done, in words.

    Size: bilinear with antialiasing. Channels: luma (ITU-R 601) from three to one, repeated from one to three.

    >>> adapt_images(np.zeros((2, 3, 32, 32), np.uint8), (1, 28, 28))[1]
    '32×32×3 to 28×28×1: luma, bilinear'
    """
    import torch

    source = x.shape[1:]
    if source == shape:
        return to_float(x), "none"
    steps = []
    images = to_float(x)
    if source[0] == 3 and shape[0] == 1:
        weights = np.array([0.299, 0.587, 0.114], np.float32)
        images = np.einsum("nchw,c->nhw", images, weights)[:, None]
        steps.append("luma")
    elif source[0] == 1 and shape[0] == 3:
        images = np.repeat(images, 3, axis=1)
        steps.append("grey repeated")
    if source[1:] != shape[1:]:
        resized = [
            torch.nn.functional.interpolate(
                torch.from_numpy(np.ascontiguousarray(images[i : i + 4096])),
                size=shape[1:],
                mode="bilinear",
                antialias=True,
                align_corners=False,
            ).numpy()
            for i in range(0, len(images), 4096)
        ]
        images = np.concatenate(resized)
        steps.append("bilinear")
    words = f"{source[1]}×{source[2]}×{source[0]} to {shape[1]}×{shape[2]}×{shape[0]}: {', '.join(steps)}"
    return np.ascontiguousarray(np.clip(images, 0, 1), dtype=np.float32), words
