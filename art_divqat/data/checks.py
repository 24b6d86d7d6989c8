"""Checks of image arrays and labels; each returns the array in the project's form."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat.errors import UserError

# Without a known number of classes, a larger id is taken for something else than a class.
_MOST_CLASSES = 100_000
# what is outside [0, 1] by no more is rounding; a grey level is 0.004
_ROUNDING = 1e-4


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


def check_images(x: NDArray[Any], source: str, notes: list[str] | None = None) -> NDArray[Any]:
    """Images as they come from a file or an owner: uint8 in 0–255, kept as such, or float32 in [0, 1].

    What is outside by less than a fortieth of a grey level, as un-normalising leaves it, is rounding and is clipped.

    :param notes: is told if values were clipped.
    :raises UserError: for another type, values that are not finite, or values outside the range.

    >>> check_images(np.array([[[[-3e-8, 1.0000001]]]]), "demo").ravel().tolist()
    [0.0, 1.0]
    """
    if x.dtype == np.uint8:
        return x
    if not np.issubdtype(x.dtype, np.floating):
        raise UserError(
            f"{source}: images have dtype {x.dtype}; expected uint8 in 0–255 or floats in [0, 1]: {_remedy(x)}."
        )
    _check_range(x, f"{source}: images", (0.0, 1.0), _ROUNDING)
    images = x.astype(np.float32)
    least, most = images.min(initial=0), images.max(initial=1)
    if least < 0 or most > 1:
        if notes is not None:
            notes.append(f"values from {least:.2g} to {most:.9g} clipped to [0, 1], as rounding leaves them")
        np.clip(images, 0, 1, out=images)
    return images


def _remedy(x: NDArray[Any]) -> str:
    """What to do with images of a type that does not say which value is white."""
    if x.dtype == np.bool_:
        return "save x.astype('float32')"
    if not np.issubdtype(x.dtype, np.integer):
        return "convert them"
    least, most = int(x.min(initial=0)), int(x.max(initial=0))
    if least >= 0 and most <= 255:
        return f"their values run from {least} to {most}, so save x.astype('uint8') if 255 is white"
    white = 4095 if most <= 4095 else 65535 if most <= 65535 else None
    if least < 0 or white is None:
        return f"their values run from {least} to {most}, so bring black to 0 and white to 1 and save them as float32"
    return f"their values run to {most}, so save (x / {white}).astype('float32'), or divide by what is white"


def float_images(
    x: Any,
    subject: str,
    *,
    shape: tuple[int, ...] | None = None,
    clip_values: Any = (0.0, 1.0),
    tolerance: float = 0.0,
) -> NDArray[np.float32]:
    """Images to compute on: contiguous float32 of shape (N, C, H, W), finite and within their range.

    :param subject: what they are called in messages, in the plural, such as `The auxiliary images`.
    :param shape: (C, H, W) that they must have; any if not given.
    :param clip_values: a classifier's (low, high), numbers or arrays that broadcast; None for no range.
    :param tolerance: how far outside the range is still inside.
    :raises UserError: for another shape, values that are not finite, or values outside the range.

    >>> float_images(np.full((1, 1, 2, 2), 255), "The images")
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: The images must lie in [0, 1]. Got values from 255 to 255: divide 0–255 pixels by \
255, and put a normalisation into the network instead of the data.
    """
    images = np.ascontiguousarray(x, dtype=np.float32)
    if images.ndim != 4 if shape is None else images.shape[1:] != tuple(shape):
        expected = "channels, height, width" if shape is None else ", ".join(map(str, shape))
        raise UserError(f"{subject} must have shape (N, {expected}). Got {images.shape}.")
    _check_range(images, subject, clip_values, tolerance)
    return images


def check_image_shape(x: Any, shape: tuple[int, ...], taker: str) -> None:
    """Refuse images of another shape than what is to answer them takes.

    :param shape: (C, H, W).
    :param taker: who takes them, such as `The victim`.
    :raises UserError: for another shape.
    """
    if x.shape[1:] != tuple(shape):
        raise UserError(f"{taker} takes images of shape {tuple(shape)}. Got {x.shape[1:]}.")


def check_pairs(images: int, labels: int) -> None:
    """Refuse a training set without images, or with another number of labels than of images.

    :raises UserError: saying how many came.
    """
    if images == 0 or images != labels:
        raise UserError(f"Training needs as many labels as images, and at least one. Got {images} and {labels}.")


def is_one_hot(y: NDArray[Any]) -> bool:
    """Whether labels are rows of zeros with a single one, (N, classes), two classes or more.

    >>> is_one_hot(np.eye(3)), is_one_hot(np.array([[1], [1]]))
    (True, False)
    """
    return y.ndim == 2 and y.shape[1] > 1 and bool(((y == 0) | (y == 1)).all() and (y.sum(axis=1) == 1).all())


def check_labels(
    y: Any, images: int, subject: str, classes: int | None = None, *, remedy: str = ""
) -> NDArray[np.int64]:
    """Class ids (N,), int64, from 0; one-hot rows and a single column are turned into ids.

    :param images: how many labels there must be.
    :param subject: what they are called in messages, in the plural.
    :param classes: ids lie below it, if it is known.
    :param remedy: what to do with the names, besides numbering them, where labels are texts.
    :raises UserError: for another shape or type, another count than of images, or an id out of range.

    >>> check_labels(np.eye(3)[[2, 0]], 2, "Labels")
    array([2, 0])
    >>> check_labels([0, 3], 2, "Labels", classes=3)
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: Labels run from 0 to 3; expected class ids from 0 to 2.
    """
    y = np.asarray(y)
    if is_one_hot(y):
        y = y.argmax(axis=1)
    elif y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or len(y) != images:
        no_rows = " and are not one-hot" if y.ndim == 2 else ""
        raise UserError(f"{subject} have shape {y.shape}{no_rows}; expected ({images},), one class id an image.")
    if not np.issubdtype(y.dtype, np.integer):
        integral = np.issubdtype(y.dtype, np.floating) and np.isfinite(y).all() and (y == np.floor(y)).all()
        if y.dtype.kind in "OUS" and len(y) and isinstance(y[0], (str, bytes)):
            raise UserError(
                f"{subject} are texts, such as {str(y[0])[:40]!r}; expected class ids: number them, with names, y = "
                f"numpy.unique(labels, return_inverse=True){remedy}."
            )
        if not integral:
            raise UserError(f"{subject} have dtype {y.dtype} and are not whole numbers; expected class ids.")
    if len(y) and (y.min() < 0 or y.max() > (_MOST_CLASSES if classes is None else classes - 1)):
        upwards = "" if classes is None else f" to {classes - 1}"
        raise UserError(f"{subject} run from {y.min():g} to {y.max():g}; expected class ids from 0{upwards}.")
    return y.astype(np.int64)


def check_targets(y: Any, images: int, subject: str, classes: int) -> NDArray[np.int64] | NDArray[np.float32]:
    """What a network can be trained on: class ids (N,), int64, or rows of one value a class, float32, as they came.

    :param images: how many labels there must be.
    :param subject: what they are called in messages, in the plural.
    :raises UserError: for another shape, type or count, or an id out of range.
    """
    y = np.asarray(y)
    if y.ndim != 2 or y.shape[1] == 1:
        return check_labels(y, images, subject, classes)
    if y.shape != (images, classes):
        raise UserError(
            f"{subject} have shape {y.shape}; expected ({images},), class ids, or ({images}, {classes}), rows of "
            f"{classes} values."
        )
    return np.ascontiguousarray(y, dtype=np.float32)


def _check_range(x: NDArray[Any], subject: str, clip_values: Any, tolerance: float) -> None:
    if x.size == 0:
        return
    least, most = float(x.min()), float(x.max())
    if not np.isfinite([least, most]).all():
        raise UserError(f"{subject} hold values that are not finite (NaN or infinite).")
    if clip_values is None:
        return
    low, high = (np.asarray(value) for value in clip_values)
    if least >= low.max() - tolerance and most <= high.min() + tolerance:
        return
    if not (x < low - tolerance).any() and not (x > high + tolerance).any():
        return
    of_unit_pixels = (low == 0).all() and (high == 1).all()
    whose, advice = "", ": divide 0–255 pixels by 255, and put a normalisation into the network instead of the data"
    if not of_unit_pixels:
        whose, advice = ", the classifier's clip_values", ""
    raise UserError(
        f"{subject} must lie in [{low.min():g}, {high.max():g}]{whose}. Got values from {least:g} to {most:g}{advice}."
    )
