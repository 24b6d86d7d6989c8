"""Copies: images of one set that are, pixel for pixel, in another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from art_divqat.data.stored import ImageSet, StoredImages


def shared_part(x: ImageSet, *others: ImageSet) -> float:
    """The fraction of images, float in [0, 1], whose every pixel is that of one image of the others, to 16 bits.

    Copies that were compressed, cropped or shifted are not found.

    >>> x = np.arange(8, dtype=np.float32).reshape(4, 1, 1, 2) / 8
    >>> shared_part(x, x[:1], x[2:3] + 1e-7)
    0.5
    """
    if isinstance(x, StoredImages) and x.file.recipe is not None:
        # a program that never saw them does not draw them
        return 0.0
    stored = all(isinstance(images, StoredImages) and images.file.dtype == np.uint8 for images in (x, *others))
    keys = _hashes if stored else _keys
    known = {key for other in others for key in keys(other)}
    return sum(key in known for key in keys(x)) / len(x) if len(x) else 0.0


def _hashes(x: Any) -> list[bytes]:
    """Of bytes nothing needs to be forgiven, and their hashes are there."""
    return StoredImages.digests(x)


def _keys(x: ImageSet) -> Iterator[bytes]:
    """Equal for equal pixels: sixteen bits forgive that a division by 255 was done in another precision."""
    for image in x:
        levels = np.rint(np.asarray(image, dtype=np.float32) * np.float32(65535)).astype(np.uint16)
        yield hashlib.blake2b(levels.tobytes(), digest_size=16).digest()
