"""ONNX graphs of int8 networks: the reference graph's quantize and dequantize operations, in the form runtimes fuse.

torch's exporter writes each operation faithfully but one: it forgets that 7-bit values end at 127. And it leaves to the
reader what a reader should not have to do: rounding of weights, and zero points that differ from channel to channel.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from art_divqat._files import first_line
from art_divqat.errors import MissingExtraError, UserError
from art_divqat.quantization.backend import quiet_torch

INPUT, OUTPUT = "images", "answers"
# what comes out of these has the range of what goes in, so that it is clamped already
_WITHIN_RANGE = (
    *("Reshape", "Flatten", "Transpose", "Identity", "Relu"),
    *("MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean"),
)


def require_libraries() -> None:
    """Refuse to write ONNX where a library is missing.

    :raises MissingExtraError: naming it.
    """
    for library in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise MissingExtraError(
                f"Export to ONNX needs {library}: pip install 'art-divqat[onnx]', or format='torchscript'."
            ) from error


def onnx_graph(reference: nn.Module, images: Tensor, *, seven_bits: bool) -> bytes:
    """The ONNX file of a network with quantize and dequantize operations, as it lies on a disk.

    One input `images` of any number of images, one output `answers`.

    :param reference: from `backend.reference`, or a network that contains one.
    :param images: at least two that the network takes.
    :param seven_bits: whether activations end at 127.
    :raises UserError: for a network that torch cannot write as ONNX.
    """
    try:
        with quiet():
            program = torch.onnx.export(
                reference,
                (images[:2],),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                verbose=False,
            )
            assert program is not None
            model = program.model_proto
    except torch.onnx.OnnxExporterError as error:
        raise UserError(f"torch cannot write this network as ONNX: {first_line(error, 200)}") from error
    _forget_the_source(model)
    _round_weights(model.graph)
    _keep_float_weights(model.graph)
    if seven_bits:
        _keep_seven_bits(model.graph)
    data: bytes = model.SerializeToString()
    return data


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter prints its progress and warns about its own internals."""
    with quiet_torch(), contextlib.redirect_stdout(io.StringIO()):
        yield


def _forget_the_source(model: Any) -> None:
    """Drop what the exporter notes beside each node: lines of code, and the paths of the files they are in."""
    graph = model.graph
    for noted in (model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del noted.metadata_props[:]


def _constants(graph: Any) -> dict[str, NDArray[Any]]:
    from onnx import numpy_helper

    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def _round_weights(graph: Any) -> None:
    """Compute what is computed of constants: the float weights make a file 4× as large, a clip hides the int8 ones.

    A weight whose zero points differ stays in float32: of a channel with weights of one sign torch's fake quantizer
    uses all 256 steps, and onnxruntime takes one zero point for all channels.
    """
    from onnx import numpy_helper

    constants = _constants(graph)
    for node in list(graph.node):
        if any(name and name not in constants for name in node.input) or not node.input:
            continue
        inputs = [constants[name] for name in node.input if name]
        if node.op_type == "QuantizeLinear":
            weight, (scale, zero) = inputs[0], _along(node, inputs)
            limits = np.iinfo(inputs[2].dtype)
            value = np.clip(np.rint(weight / scale) + zero, limits.min, limits.max).astype(inputs[2].dtype)
        elif node.op_type == "Clip" and len(inputs) == 3:
            value = np.clip(*inputs)
        elif node.op_type == "DequantizeLinear" and inputs[2].ndim == 1 and len(np.unique(inputs[2])) > 1:
            scale, zero = _along(node, inputs)
            value = ((inputs[0].astype(np.float32) - zero) * scale).astype(np.float32)
        else:
            continue
        constants[node.output[0]] = value
        graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _keep_float_weights(graph: Any) -> None:
    """Put a clip without effect before each convolution whose weight stayed in float32.

    onnxruntime would take it for a weight that somebody forgot, and round it to int8 with one scale for all channels.
    """
    from onnx import helper, numpy_helper

    constants = _constants(graph)
    float_weights = {name for name, value in constants.items() if value.dtype == np.float32 and value.ndim > 1}
    limits = {"lowest_float": np.finfo(np.float32).min, "highest_float": np.finfo(np.float32).max}
    nodes = []
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul") and node.input[1] in float_weights:
            name = f"{node.output[0]}_input"
            nodes.append(helper.make_node("Clip", [node.input[0], *limits], [name], f"{name}_clip"))
            node.input[0] = name
        nodes.append(node)
    if len(nodes) > len(graph.node):
        graph.initializer.extend(numpy_helper.from_array(limit, name) for name, limit in limits.items())
        del graph.node[:]
        graph.node.extend(nodes)


def _along(node: Any, inputs: list[NDArray[Any]]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scale and zero point of a constant, in float32 and of the shape that multiplies it."""
    weight, scale, zero = inputs[0], inputs[1], inputs[2].astype(np.float32)
    if scale.ndim == 0:
        return scale, zero
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    shape = [-1 if dimension == axis else 1 for dimension in range(weight.ndim)]
    return scale.reshape(shape), zero.reshape(shape)


def _keep_seven_bits(graph: Any) -> None:
    """Clamp each quantized activation at 127, as its twin does: a QuantizeLinear clamps at 255.

    Above 127 the int8 kernels that need a reduced range add up wrongly, by several steps and without a word. The clamp
    stands behind the QuantizeLinear: before it, onnxruntime would no longer see an int8 convolution.
    """
    from onnx import helper, numpy_helper

    constants = _constants(graph)
    producer = {name: node for node in graph.node for name in node.output}
    limits = {"lowest_level": 0, "highest_level": 127}
    graph.initializer.extend(numpy_helper.from_array(np.uint8(level), name) for name, level in limits.items())
    nodes = []
    for node in graph.node:
        nodes.append(node)
        is_quantizer = node.op_type == "QuantizeLinear" and constants[node.input[2]].dtype == np.uint8
        if is_quantizer and not _is_within_range(node, producer, constants):
            name = node.output[0]
            node.output[0] = f"{name}_unclamped"
            nodes.append(helper.make_node("Clip", [node.output[0], *limits], [name], f"{name}_clamp"))
    del graph.node[:]
    graph.node.extend(nodes)


def _is_within_range(quantizer: Any, producer: dict[str, Any], constants: dict[str, NDArray[Any]]) -> bool:
    """Whether a quantizer reads values that were quantized by its own scale and have not left its range since."""
    before = producer.get(quantizer.input[0])
    while before is not None and before.op_type in _WITHIN_RANGE:
        before = producer.get(before.input[0])
    if before is None or before.op_type != "DequantizeLinear":
        return False
    return all(
        np.array_equal(constants[one], constants[other])
        for one, other in zip(before.input[1:], quantizer.input[1:], strict=True)
    )
