"""Export of quantized classifiers: ONNX with Q/DQ nodes, or TorchScript with int8 kernels.

torch's ONNX exporter refuses an FX int8 graph, whose packed weights are opaque to it. What it takes is the reference
graph of the same network: both backends write one, with the same scales and the same int8 weights, as explicit
quantize and dequantize operations.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from art_divqat._files import first_line
from art_divqat._rng import numpy_generator
from art_divqat.errors import MissingExtraError, UserError
from art_divqat.estimators.conventions import gives_one_value
from art_divqat.estimators.standardisation import QuantizedClassifier, standardisation_of
from art_divqat.quantization import use_engine
from art_divqat.quantization.backend import quiet_torch

MIN_AGREEMENT = 0.95


@dataclass(frozen=True)
class ExportReport:
    """What was written and how well it follows the classifier.

    :param route: which graph was exported, in words.
    :param bytes: size of the file.
    :param agreement: share of the check images with the same top class, in [0, 1].
    :param max_difference: largest difference of any output, in the units of the output.
    """

    path: Path
    format: str
    route: str
    bytes: int
    agreement: float
    max_difference: float


class _Standardise(nn.Module):
    if TYPE_CHECKING:
        # torch.jit reads annotations of a class, and not those that are texts
        mean: Tensor
        std: Tensor

    def __init__(self, mean: NDArray[np.float32], std: NDArray[np.float32]) -> None:
        super().__init__()
        shape = (1, -1, 1, 1) if mean.ndim == 1 else mean.shape
        self.register_buffer("mean", torch.from_numpy(mean.reshape(shape)))
        self.register_buffer("std", torch.from_numpy(np.broadcast_to(std, mean.shape).reshape(shape).copy()))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def export_quantized(
    classifier: QuantizedClassifier,
    path: Path,
    format: str,
    softmax: bool,
    postprocessor: Any,
    check_images: NDArray[Any] | None,
) -> ExportReport:
    """Write the file, run it, and compare; see :meth:`QuantizedPyTorchClassifier.export`."""
    if format == "onnx":
        _require_onnx()
        core = classifier.backend.reference(classifier.twin.network)
        route = f"reference graph of backend {classifier.backend.name}, torch's dynamo exporter"
    else:
        core = classifier.int8_network
        route = f"{classifier.backend.kernels} graph of backend {classifier.backend.name}, torch.jit"
    tail = _tail(classifier, softmax, postprocessor)
    head = _head(classifier)
    images = _check_images(classifier, check_images)
    expected = _run(classifier, nn.Sequential(*head, classifier.int8_network, *tail), images)
    network = nn.Sequential(*head, core, *tail)
    path.parent.mkdir(parents=True, exist_ok=True)
    if format == "onnx":
        answers = _write_onnx(network, path, images)
    else:
        answers = _write_torchscript(classifier, network, path, images)
    # of a single value one half is the middle between the classes if it is a probability, else 0
    middle = 0.5 if softmax or postprocessor is not None or isinstance(classifier.loss, nn.BCELoss) else 0.0
    is_column = expected.shape[1] == 1
    top, expected_top = ((rows > middle) if is_column else rows.argmax(1) for rows in (answers, expected))
    agreement = float(np.mean(top == expected_top))
    report = ExportReport(path, format, route, path.stat().st_size, agreement, float(np.abs(answers - expected).max()))
    if agreement < MIN_AGREEMENT:
        path.unlink()
        raise UserError(
            f"The exported network agrees with the classifier on {100 * agreement:.1f} % of the check images only: "
            "nothing was kept. Try the other backend, or other check_images."
        )
    return report


def _head(classifier: QuantizedClassifier) -> list[nn.Module]:
    if classifier.preprocessing_defences:
        raise UserError(
            "A classifier with preprocessing_defences cannot be exported: they are not part of the network."
        )
    standardisation = standardisation_of(classifier)
    return [] if standardisation is None else [_Standardise(*standardisation)]


def _tail(classifier: QuantizedClassifier, softmax: bool, postprocessor: Any) -> list[nn.Module]:
    tail: list[nn.Module] = []
    if softmax and not isinstance(classifier.loss, nn.BCELoss):
        tail.append(nn.Sigmoid() if gives_one_value(classifier) else nn.Softmax(dim=1))
    if postprocessor is not None:
        module = postprocessor if isinstance(postprocessor, nn.Module) else getattr(postprocessor, "as_module", None)
        module = module() if module is not None and not isinstance(module, nn.Module) else module
        if not isinstance(module, nn.Module):
            raise UserError(
                "A postprocessor in the graph must be a torch module or have as_module(). "
                f"Got {type(postprocessor).__name__}."
            )
        tail.append(module.eval())
    return tail


def _check_images(classifier: QuantizedClassifier, images: NDArray[Any] | None) -> Tensor:
    if images is None:
        low, high = (0.0, 1.0) if classifier.clip_values is None else classifier.clip_values
        noise = numpy_generator("export check").random((64, *classifier.input_shape))
        images = np.asarray(low + (np.asarray(high) - low) * noise)
    if images.shape[1:] != tuple(classifier.input_shape) or len(images) == 0:
        raise UserError(f"The check images must have shape (N, {classifier.input_shape}). Got {images.shape}.")
    return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))


def _run(classifier: QuantizedClassifier, network: Any, images: Tensor) -> NDArray[np.float32]:
    with use_engine(classifier.backend.engine), torch.no_grad():
        return np.asarray(network(images).float().numpy())


def _require_onnx() -> None:
    for library in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise MissingExtraError(
                f"Export to ONNX needs {library}: pip install 'art-divqat[onnx]', or format='torchscript'."
            ) from error


def _write_onnx(network: nn.Module, path: Path, images: Tensor) -> NDArray[np.float32]:
    import onnxruntime

    with _quiet():
        program = torch.onnx.export(
            network,
            (images[:2],),
            dynamo=True,
            input_names=["images"],
            output_names=["answers"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            verbose=False,
        )
        assert program is not None
        model = program.model_proto
    _fold_weights(model)
    path.write_bytes(model.SerializeToString())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"images": images.numpy()})[0])


def _fold_weights(model: Any) -> None:
    """Replace every quantize operation on a constant by its int8 result: the float weights make a file 4× as large."""
    from onnx import numpy_helper

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in list(graph.node):
        if node.op_type != "QuantizeLinear" or any(name not in constants for name in node.input):
            continue
        weight, scale, zero_point = (numpy_helper.to_array(constants[name]) for name in node.input)
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        if scale.ndim == 1:
            shape = [-1 if dimension == axis else 1 for dimension in range(weight.ndim)]
            scale, wide_zero = scale.reshape(shape), zero_point.reshape(shape).astype(np.float32)
        else:
            wide_zero = zero_point.astype(np.float32)
        limits = np.iinfo(zero_point.dtype)
        quantized = np.clip(np.rint(weight / scale) + wide_zero, limits.min, limits.max).astype(zero_point.dtype)
        graph.initializer.append(numpy_helper.from_array(quantized, node.output[0]))
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)


def _write_torchscript(
    classifier: QuantizedClassifier, network: nn.Module, path: Path, images: Tensor
) -> NDArray[np.float32]:
    if not hasattr(torch.jit, "script"):
        raise UserError("This torch has no TorchScript any more: use format='onnx'.")
    try:
        with _quiet(), use_engine(classifier.backend.engine):
            torch.jit.script(network).save(str(path))
            loaded = torch.jit.load(str(path))
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"TorchScript cannot compile this network ({first_line(error)}): use backend='fx', or format='onnx'."
        ) from error
    return _run(classifier, loaded, images)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its progress and warns about its own internals."""
    with quiet_torch(), contextlib.redirect_stdout(io.StringIO()):
        yield
