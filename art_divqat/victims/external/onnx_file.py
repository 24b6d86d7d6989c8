"""ONNX files: run them through onnxruntime, as a black box on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._files import first_line
from art_divqat._types import Shape
from art_divqat.errors import MissingExtraError, UserError

_FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


def onnx_function(path: Path, shape: Shape) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    """The function of an ONNX file with one image input; channels-last and fixed batches are seen to.

    :raises MissingExtraError: without onnxruntime.
    :raises UserError: for a damaged file, several inputs, or one that is no batch of images of this shape.
    """
    session = _session(path)
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or inputs[0].type not in _FLOATS:
        signature = ", ".join(f"{each.name}: {each.type}" for each in inputs)
        raise UserError(f"{path} takes {signature or 'nothing'}; expected one float tensor of images.")
    # a converter may put the label beside the scores
    rows = [each for each in outputs if each.type in _FLOATS and len(each.shape or []) == 2] or outputs
    declared = list(inputs[0].shape or [])
    channels_last = _layout(declared, shape, path)
    batch = declared[0] if declared and isinstance(declared[0], int) and declared[0] > 0 else None
    dtype = _FLOATS[inputs[0].type]

    def answer(x: NDArray[np.float32]) -> NDArray[Any]:
        images = np.ascontiguousarray(x.transpose(0, 2, 3, 1) if channels_last else x, dtype=dtype)
        size = batch or len(images)
        parts = []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            whole = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            (output,) = session.run([rows[0].name], {inputs[0].name: whole})
            parts.append(np.asarray(output)[: len(part)])
        return np.concatenate(parts)

    return answer


def declared_shape(path: Path) -> list[Any]:
    """What an ONNX file says of the shape of its first input: a number, or a name or None, for each axis.

    :raises MissingExtraError: without onnxruntime.
    :raises UserError: for a damaged file.
    """
    inputs = _session(path, optimise=False).get_inputs()
    return list(inputs[0].shape or []) if inputs else []


def _session(path: Path, *, optimise: bool = True) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError(
            f"{path} is an ONNX model, and onnxruntime is not installed: pip install 'art-divqat[onnx]'."
        ) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # two threads may add in another order; results must not depend on the machine's load
    options.intra_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(f"{path} cannot be read as an ONNX model: {first_line(error, 200)}") from None


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
