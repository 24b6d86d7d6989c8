"""ONNX files: run them through onnxruntime, as a black box on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._files import first_line
from art_divqat._types import Shape
from art_divqat.errors import MissingExtraError, UserError
from art_divqat.victims.external.image_graph import Answer, image_function

_FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
_INT8 = {
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    *("ConvInteger", "MatMulInteger", "QGemm", "QAttention"),
}


def onnx_function(path: Path, shape: Shape) -> Answer:
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

    def run(images: NDArray[Any]) -> Any:
        return session.run([rows[0].name], {inputs[0].name: images})[0]

    return image_function(run, list(inputs[0].shape or []), shape, path, _FLOATS[inputs[0].type])


def quantizers(path: Path) -> int:
    """How many operations of an ONNX file quantize or dequantize, or compute with int8; 0 too where that is unknown."""
    try:
        import onnx

        graph = onnx.load(str(path), load_external_data=False).graph
    except Exception:
        # without the library, or a file that onnxruntime alone can read: nothing depends on it
        return 0
    return sum(node.op_type in _INT8 or node.op_type.startswith("QLinear") for node in graph.node)


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
