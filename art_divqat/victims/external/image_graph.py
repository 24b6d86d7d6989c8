"""Graphs of inference runtimes as functions of images: layout, fixed batches and number format are seen to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._types import Shape
from art_divqat.errors import UserError

Answer = Callable[[NDArray[np.float32]], NDArray[Any]]


def image_function(
    run: Callable[[NDArray[Any]], Any], declared: Sequence[Any], shape: Shape, path: Path, dtype: Any = np.float32
) -> Answer:
    """A function of (N, C, H, W) from what a runtime runs.

    :param run: the graph, of a batch as it wants it.
    :param declared: the shape of its input: a number, or a name or None, for each axis.
    :param shape: (channels, height, width) of the images.
    :param dtype: of its input.
    :raises UserError: if the input is no batch of images of this shape.
    """
    channels_last = _layout(list(declared), shape, path)
    batch = declared[0] if declared and isinstance(declared[0], int) and declared[0] > 0 else None

    def answer(x: NDArray[np.float32]) -> NDArray[Any]:
        images = np.ascontiguousarray(x.transpose(0, 2, 3, 1) if channels_last else x, dtype=dtype)
        size = batch or len(images)
        parts = []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            whole = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            parts.append(np.asarray(run(whole))[: len(part)])
        return np.concatenate(parts)

    return answer


def described(kind: str, quantizers: int) -> str:
    """What a graph is, in a few words, by its number of operations that quantize or dequantize.

    >>> described("ONNX graph", 0), described("OpenVINO model", 40)
    ('an ONNX graph', 'an int8 OpenVINO model (40 quantize or dequantize operations)')
    """
    if not quantizers:
        return f"an {kind}"
    return f"an int8 {kind} ({quantizers} quantize or dequantize operations)"


def _layout(declared: list[Any], shape: Shape, path: Path) -> bool:
    """Whether images go in as (N, H, W, C)."""

    def fits(expected: tuple[int, ...]) -> bool:
        return len(declared) == 4 and all(
            not isinstance(size, int) or size <= 0 or size == required
            for size, required in zip(declared[1:], expected, strict=True)
        )

    if fits(shape):
        return False
    if fits((shape[1], shape[2], shape[0])):
        return True
    raise UserError(
        f"{path} takes inputs of shape {declared}; the data has images of shape {shape}: give --image-size or "
        "--image-channels."
    )
