"""Raw images: what a source returns before it is split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from art_divqat.data.stored import ImageSet


@dataclass(frozen=True)
class RawImages:
    """Images as they were stored, channels first: uint8 in 0–255, or float32 in [0, 1].

    :param x: (N, C, H, W), an array, or large ones in a file.
    :param y: class ids (N,), int64, from 0.
    :param x_test: the source's own test images, or None if it has none.
    :param class_names: one name a class.
    :param notes: what was done to the images on the way in, for the plan and the report.
    :param class_numbers: what the labels were called where these have gaps: of each class its number, as a model that
        knows more classes may number them. Empty where it is the place in `class_names`.
    :param x_validation: the source's own validation images, or None if it has none.
    """

    name: str
    x: ImageSet
    y: NDArray[np.int64]
    x_test: ImageSet | None
    y_test: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    x_validation: ImageSet | None = None
    y_validation: NDArray[np.int64] | None = None
    class_numbers: tuple[int, ...] = ()


def to_float(x: NDArray[Any]) -> NDArray[np.float32]:
    """uint8 in 0–255, or floats in [0, 1], to float32 in [0, 1], contiguous."""
    if x.dtype == np.uint8:
        return np.ascontiguousarray(x, dtype=np.float32) / np.float32(255)
    return np.ascontiguousarray(x, dtype=np.float32)
