"""Shared types: images, rows of probabilities, progress callbacks, classifiers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Shape: TypeAlias = tuple[int, int, int]
"""(channels, height, width) of an image."""
Images: TypeAlias = NDArray[np.float32]
"""(N, C, H, W), in [0, 1]."""
Labels: TypeAlias = NDArray[np.int64]
"""Class ids from 0, (N,)."""
Rows: TypeAlias = NDArray[np.float32]
"""(N, classes): probabilities, or logits where that is said."""
Progress: TypeAlias = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""
EpochProgress: TypeAlias = Callable[[int, int, str], None]
"""Called with (steps done, steps in all, "epoch 2/10")."""
PhaseProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with (what is being done, steps done, steps in all)."""


class Classifier(Protocol):
    """What the audit needs of an ART classifier."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(channels, height, width)."""

    @property
    def nb_classes(self) -> int:
        """The columns of what `predict` gives."""

    @property
    def clip_values(self) -> Any:
        """The range of pixels."""

    def predict(self, x: NDArray[Any], *args: Any, **kwargs: Any) -> NDArray[Any]:
        """(N, C, H, W) to (N, classes)."""
