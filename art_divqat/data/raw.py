"""Raw images: what a source returns before it is split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class RawImages:
    """Images as they were stored, channels first: uint8 in 0–255, or float32 in [0, 1].

    :param x: (N, C, H, W).
    :param y: class ids (N,), int64, from 0.
    :param x_test: the source's own test images, or None if it has none.
    :param class_names: one name a class.
    :param notes: what was done to the images on the way in, for the plan and the report.
    :param x_validation: the source's own validation images, or None if it has none.
    """

    name: str
    x: NDArray[Any]
    y: NDArray[np.int64]
    x_test: NDArray[Any] | None
    y_test: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    x_validation: NDArray[Any] | None = None
    y_validation: NDArray[np.int64] | None = None
