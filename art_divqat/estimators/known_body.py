"""Answers of an int8 network from cached features of its body, shared by networks with the same body."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from art_divqat._types import Images, Progress, Rows, Shape
from art_divqat.data.known_rows import KNOWN_BATCH, KnownRows
from art_divqat.data.stored import ImageSet, chunk_of
from art_divqat.quantization.engines import use_engine
from art_divqat.quantization.halves import Halves, digest_of


class KnownBody:
    """f(x) = head(body(x)), where body(x) is computed once per image for all networks with that body.

    Victims trained with a frozen body differ only in the head, but nearly all the time goes into the body. Its output
    is kept as float32, from which the int8 values are recovered exactly.

    :param network: an int8 network.
    :param engine: the engine that it runs on.
    :param shape: (channels, height, width) of the images.
    :param preprocess: from images to the network's input.
    :param path_of: the file to share, by the hash of the body.
    :raises UserError: for a network that cannot be cut.
    """

    def __init__(
        self,
        network: nn.Module,
        engine: str,
        shape: Shape,
        preprocess: Callable[[Images], Tensor],
        path_of: Callable[[str], Path | None],
    ) -> None:
        halves = Halves(network)
        self._body, self._head = halves.body, halves.head
        self._engine = engine
        self._preprocess = preprocess
        # scales are the graph's, and do not depend on the image
        self._like = self._features(np.zeros((2, *shape), np.float32))
        self.features = KnownRows(self._rows, chunk_of(shape, KNOWN_BATCH), path_of(digest_of(self._body)))

    def __call__(self, images: ImageSet, progress: Progress | None = None) -> Rows:
        """The network's answers, (N, classes), to images, of which there is one at least.

        :raises UserError: if the shared file cannot be used.
        """
        rows = torch.from_numpy(self.features(images, progress)).reshape(-1, *self._like.shape[1:])
        with use_engine(self._engine), torch.no_grad():
            return np.concatenate(
                [self._head(self._as_given(part)).float().numpy() for part in rows.split(KNOWN_BATCH)]
            )

    def _rows(self, images: Images) -> Rows:
        features = self._features(images)
        return (features.dequantize() if features.is_quantized else features).flatten(1).numpy()

    def _features(self, images: Images) -> Any:
        with use_engine(self._engine), torch.no_grad():
            return self._body(self._preprocess(images))

    def _as_given(self, features: Tensor) -> Tensor:
        """Features as the body gives them to the head."""
        like = self._like
        if not like.is_quantized:
            return features
        return torch.quantize_per_tensor(features, like.q_scale(), like.q_zero_point(), like.dtype)
