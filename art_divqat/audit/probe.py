"""Linear probe: fit a linear classifier to a thief's training data, a baseline that a well-trained thief must beat."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from art_divqat.data.stored import ImageSet, chunk_of
from art_divqat.estimators import RecipeClassifier
from art_divqat.models.shrunk import Shrunk, shrink

# images are averaged down to at most so many values: the cost stays a blink, and what is fitted is still linear
MOST_FEATURES = 1024
_RIDGE = 1e-2
_BATCH = 4096


class LinearProbe:
    """Ridge regression of answers on pixels: W = (XᵀX + λI)⁻¹XᵀY on centred X and Y, λ a hundredth of the variance.

    Closed form, in float64 and on the CPU: no seed, no schedule, and the same numbers on every machine but for the
    last digits.

    :param x: images (N, C, H, W), float32.
    :param y: the answers to them, (M, classes).
    :param rows: which images the answers are to, (M,); all in their order if None.
    :param size: (H, W) that images are shrunk to first, where the thief sees no more of them.

    >>> x = np.eye(4, dtype=np.float32).reshape(4, 1, 2, 2)
    >>> LinearProbe(x, np.eye(4, dtype=np.float32)).predict(x).argmax(axis=1).tolist()
    [0, 1, 2, 3]
    """

    def __init__(
        self,
        x: ImageSet,
        y: NDArray[Any],
        rows: NDArray[Any] | None = None,
        *,
        size: tuple[int, int] | None = None,
    ) -> None:
        channels = x.shape[1]
        self._seen = height, width = size or (x.shape[2], x.shape[3])
        shrink = max(1.0, math.sqrt(channels * height * width / MOST_FEATURES))
        self._size = (max(1, int(height / shrink)), max(1, int(width / shrink)))
        self.features = channels * self._size[0] * self._size[1]
        classes, count = y.shape[1], len(y)
        # sums of products, batch by batch: neither the images nor their copies are held
        batch = chunk_of(x.shape[1:], _BATCH)
        both = torch.zeros(self.features + classes, self.features + classes, dtype=torch.float64)
        total = torch.zeros(self.features + classes, dtype=torch.float64)
        for start in range(0, count, batch):
            part = slice(start, start + batch)
            images = self._flat(np.asarray(x[part] if rows is None else x[rows[part]], np.float32))
            block = torch.cat([images, torch.from_numpy(np.asarray(y[part], np.float64))], dim=1)
            both += block.T @ block
            total += block.sum(0)
        mean = total / count
        covariance = both / count - torch.outer(mean, mean)
        inner, outer = covariance[: self.features, : self.features], covariance[: self.features, self.features :]
        ridge = _RIDGE * float(inner.diagonal().mean()) + 1e-12
        inner.diagonal().add_(ridge)
        self._weights = torch.linalg.solve(inner, outer)
        self._bias = mean[self.features :] - mean[: self.features] @ self._weights

    def predict(self, x: ImageSet) -> NDArray[np.float64]:
        """Scores of shape (N, classes); the highest names the class."""
        batch = chunk_of(x.shape[1:], _BATCH)
        scores = [
            self._flat(np.asarray(x[start : start + batch], np.float32)) @ self._weights + self._bias
            for start in range(0, len(x), batch)
        ]
        return torch.cat(scores).numpy()

    def _flat(self, x: NDArray[np.float32]) -> Tensor:
        images = shrink(torch.from_numpy(np.ascontiguousarray(x)), self._seen)
        if tuple(images.shape[2:]) != self._size:
            images = functional.adaptive_avg_pool2d(images, self._size)
        return images.flatten(1).double()


class ProbedThief(RecipeClassifier):
    """A thief beside which a :class:`LinearProbe` learns from the same images and answers.

    `probe` is None until it was fitted: attacks that train their thief step by step never do.
    """

    probe: LinearProbe | None = None

    def _learn(
        self,
        x: ImageSet,
        y: NDArray[Any],
        batch_size: int | None,
        nb_epochs: int | None,
        rows: NDArray[np.int64] | None,
    ) -> None:
        super()._learn(x, y, batch_size, nb_epochs, rows)
        if np.ndim(y) == 2 and np.isfinite(y).all():
            size = self.model.size if isinstance(self.model, Shrunk) else None
            self.probe = LinearProbe(x, y, rows, size=size)
