"""Natural-image patches: crop the two photographs that scikit-learn ships; no download."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._rng import numpy_generator


def photo_patches(
    count: int, shape: tuple[int, int, int], *, seed: int = 0, largest_side: int = 256, full_contrast: bool = False
) -> NDArray[np.float32]:
    """`count` random square crops of a temple and a flower, mirrored half of the time, scaled to `shape`.

    The side of a crop is log-uniform from the side of the target to `largest_side` pixels, so that the patches
    range from texture to scene.

    :param shape: (channels, height, width) with 1 (luma) or 3 channels.
    :param full_contrast: stretch every patch to the whole range from 0 to 1.
    :return: (count, C, H, W), float32 in [0, 1].

    >>> photo_patches(3, (3, 16, 16)).shape
    (3, 3, 16, 16)
    """
    from PIL import Image

    channels, height, width = shape
    rng = numpy_generator("photo patches", seed)
    mode = "L" if channels == 1 else "RGB"
    photographs = _photographs(mode)
    shortest = min(min(photograph.size) for photograph in photographs)
    smallest = min(max(height, width), shortest)
    largest = max(min(largest_side, shortest), smallest)
    patches = np.empty((count, height, width, channels), dtype=np.uint8)
    for index in range(count):
        photograph = photographs[rng.integers(len(photographs))]
        side = float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))
        left, top = (rng.uniform(0, extent - side) for extent in photograph.size)
        patch = photograph.resize(
            (width, height), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side), reducing_gap=2.0
        )
        pixels = np.asarray(patch).reshape(height, width, channels)
        patches[index] = pixels[:, ::-1] if rng.random() < 0.5 else pixels
    images = np.ascontiguousarray(patches.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)
    if full_contrast:
        low = images.min(axis=(1, 2, 3), keepdims=True)
        span = images.max(axis=(1, 2, 3), keepdims=True) - low
        images = np.divide(images - low, span, out=images, where=span > 0)
    return images


@functools.cache
def _photographs(mode: str) -> list[Any]:
    from PIL import Image
    from sklearn.datasets import load_sample_images

    return [Image.fromarray(picture).convert(mode) for picture in load_sample_images().images]
