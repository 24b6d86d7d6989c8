"""Arrays of images into another type, size or number of channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat.data.pictures import ImageForm, centred_box
from art_divqat.data.raw import RawImages


def to_float(x: NDArray[Any]) -> NDArray[np.float32]:
    """uint8 in 0–255, or floats in [0, 1], to float32 in [0, 1], contiguous."""
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x, dtype=np.float32) / np.float32(255)
    return np.ascontiguousarray(x, dtype=np.float32)


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


def in_form(raw: RawImages, form: ImageForm) -> RawImages:
    """Images as a source keeps them, in another form; a note says how they came to it."""
    channels, height, width = raw.x.shape[1:]
    target = (form.channels or channels, *(form.size or (height, width)))
    if target == (channels, height, width):
        return raw
    left, top, right, bottom = 0, 0, width, height
    if form.fit == "crop":
        left, top, right, bottom = (round(edge) for edge in centred_box((width, height), (target[2], target[1])))

    def converted(x: NDArray[Any]) -> NDArray[np.float32]:
        return adapt_images(x[:, :, top:bottom, left:right], target)[0]

    cut = "" if (right - left, bottom - top) == (width, height) else f", of the centre of images of {height}×{width}"
    return replace(
        raw,
        x=converted(raw.x),
        x_validation=None if raw.x_validation is None else converted(raw.x_validation),
        x_test=None if raw.x_test is None else converted(raw.x_test),
        notes=(*raw.notes, adapt_images(raw.x[:1, :, top:bottom, left:right], target)[1] + cut),
    )
