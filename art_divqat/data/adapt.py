"""Images into another type, size or number of channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._types import Images, Shape
from art_divqat.data.pictures import ImageForm, centred_box
from art_divqat.data.raw import RawImages, to_float
from art_divqat.data.stored import ImageFile, ImageSet, StoredImages, as_bytes, chunk_of, is_large

_BATCH = 4096
ROUNDED = "rounded to 8 bits"


def adapt_images(x: NDArray[Any], shape: Shape) -> tuple[Images, str]:
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
                torch.from_numpy(np.ascontiguousarray(images[i : i + _BATCH])),
                size=shape[1:],
                mode="bilinear",
                antialias=True,
                align_corners=False,
            ).numpy()
            for i in range(0, len(images), _BATCH)
        ]
        images = np.concatenate(resized)
        steps.append("bilinear")
    words = f"{source[1]}×{source[2]}×{source[0]} to {shape[1]}×{shape[2]}×{shape[0]}: {', '.join(steps)}"
    return np.ascontiguousarray(np.clip(images, 0, 1), dtype=np.float32), words


def adapt_source(x: ImageSet, shape: Shape) -> tuple[ImageSet, str]:
    """As :func:`adapt_images`, for as many images as there are.

    What is large becomes so an image at a time, when it is asked for, and is rounded to 8 bits as pictures are.

    >>> images, words = adapt_source(np.zeros((5, 1, 8, 8), np.uint8), (3, 224, 224))
    >>> type(images).__name__, words
    ('StoredImages', '8×8×1 to 224×224×3: grey repeated, bilinear, rounded to 8 bits')
    """
    if tuple(x.shape[1:]) == tuple(shape):
        return (x if isinstance(x, StoredImages) else to_float(x)), "none"
    words = adapt_images(_some(x, slice(0, 1)), shape)[1]
    if is_large(len(x), shape):
        file = ImageFile(shape, len(x), lambda row: as_bytes(adapt_images(_some(x, slice(row, row + 1)), shape)[0])[0])
        return StoredImages(file), f"{words}, {ROUNDED}"
    if not isinstance(x, StoredImages):
        return adapt_images(x, shape)
    images = np.empty((len(x), *shape), np.float32)
    step = chunk_of(x.shape[1:], _BATCH)
    for start in range(0, len(x), step):
        images[start : start + step] = adapt_images(x[start : start + step], shape)[0]
    return images, words


def _some(x: ImageSet, part: slice) -> NDArray[Any]:
    return x[part]


def in_form(raw: RawImages, form: ImageForm) -> RawImages:
    """Images as a source keeps them, in another form; a note says how they came to it."""
    channels, height, width = raw.x.shape[1:]
    target = (form.channels or channels, *(form.size or (height, width)))
    if target == (channels, height, width):
        return raw
    left, top, right, bottom = 0, 0, width, height
    if form.fit == "crop":
        left, top, right, bottom = (round(edge) for edge in centred_box((width, height), (target[2], target[1])))
    cropped = (right - left, bottom - top) != (width, height)

    def converted(x: ImageSet) -> ImageSet:
        return adapt_source(_cropped(x, slice(top, bottom), slice(left, right)) if cropped else x, target)[0]

    cut = f", of the centre of images of {height}×{width}" if cropped else ""
    first = _some(raw.x, slice(0, 1))[:, :, top:bottom, left:right]
    rounded = f", {ROUNDED}" if is_large(len(raw.x), target) else ""
    return replace(
        raw,
        x=converted(raw.x),
        x_validation=None if raw.x_validation is None else converted(raw.x_validation),
        x_test=None if raw.x_test is None else converted(raw.x_test),
        notes=(*raw.notes, adapt_images(first, target)[1] + rounded + cut),
    )


def _cropped(x: ImageSet, rows: slice, columns: slice) -> ImageSet:
    """A part of every image; of stored ones, when they are asked for."""
    if not isinstance(x, StoredImages):
        return x[:, :, rows, columns]
    shape = (x.shape[1], rows.stop - rows.start, columns.stop - columns.start)
    make = lambda row: x.bytes_of([row])[0][:, rows, columns]  # noqa: E731
    return StoredImages(ImageFile(shape, len(x), make, dtype=x.file.dtype))
