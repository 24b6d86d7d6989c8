"""What image arrays and labels must look like; each check returns the array in the project's form."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat.errors import UserError


def as_nchw(x: NDArray[Any], source: str) -> NDArray[Any]:
    """Images as (N, C, H, W), C being 1 or 3, from (N, H, W), (N, H, W, C) or (N, C, H, W).

    Where both the second and the last axis could be channels, the last one is.

    :raises UserError: for any other shape, or no images.

    >>> as_nchw(np.zeros((5, 8, 8, 3)), "demo").shape
    (5, 3, 8, 8)
    """
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[-1] in (1, 3):
        x = x.transpose(0, 3, 1, 2)
    if x.ndim != 4 or x.shape[1] not in (1, 3) or 0 in x.shape:
        raise UserError(
            f"{source}: images have shape {x.shape}; expected (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 "
            "channels and at least one image."
        )
    return x


def check_images(x: NDArray[Any], source: str) -> NDArray[Any]:
    """Images as uint8 in 0–255 or float32 in [0, 1].

    :raises UserError: for another type, values that are not finite, or values outside the range.
    """
    if x.dtype == np.uint8:
        return x
    if not np.issubdtype(x.dtype, np.floating):
        raise UserError(f"{source}: images have dtype {x.dtype}; expected uint8 in 0–255 or floats in [0, 1].")
    if not np.isfinite(x).all():
        raise UserError(f"{source}: images hold NaN or infinite values; expected floats in [0, 1].")
    low, high = float(x.min()), float(x.max())
    if low < 0 or high > 1:
        raise UserError(f"{source}: images hold values from {low:g} to {high:g}; expected [0, 1], or uint8 in 0–255.")
    return x.astype(np.float32)


def check_labels(y: NDArray[Any], images: int, source: str) -> NDArray[np.int64]:
    """Class ids (N,), int64, from 0; one-hot rows are turned into ids.

    :raises UserError: for another shape or type, another count than of images, or a negative id.
    """
    if y.ndim == 2 and y.shape[1] > 1 and np.array_equal(y.sum(axis=1), np.ones(len(y))) and np.isin(y, (0, 1)).all():
        y = y.argmax(axis=1)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or len(y) != images:
        raise UserError(f"{source}: labels have shape {y.shape}; expected ({images},), one class id an image.")
    if not np.issubdtype(y.dtype, np.integer):
        integral = np.issubdtype(y.dtype, np.floating) and np.isfinite(y).all() and (y == np.floor(y)).all()
        if not integral:
            raise UserError(f"{source}: labels have dtype {y.dtype} and are not whole numbers; expected class ids.")
    if y.min() < 0 or y.max() > 100_000:
        raise UserError(f"{source}: labels run from {y.min()} to {y.max()}; expected class ids from 0.")
    return y.astype(np.int64)
