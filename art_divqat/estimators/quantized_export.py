"""Export of quantized classifiers: ONNX with Q/DQ nodes, or TorchScript with int8 kernels.

torch's ONNX exporter refuses an FX int8 graph, whose packed weights are opaque to it. What it takes is the reference
graph of the same network: both backends write one, with the same scales and the same int8 weights, as explicit
quantize and dequantize operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from art_divqat._files import first_line
from art_divqat._rng import numpy_generator
from art_divqat.errors import UserError
from art_divqat.estimators.conventions import gives_one_value
from art_divqat.estimators.standardisation import QuantizedClassifier, standardisation_of
from art_divqat.quantization import use_engine
from art_divqat.quantization.onnx_graph import onnx_graph, quiet, require_libraries
from art_divqat.quantization.runtimes import RuntimeNetwork

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
    given: NDArray[Any] | None,
) -> ExportReport:
    """Write the file, run it, and compare; see :meth:`QuantizedPyTorchClassifier.export`."""
    if format == "onnx":
        require_libraries()
        core = classifier.backend.reference(classifier.twin.network)
        route = f"reference graph of backend {classifier.backend.name}, torch's dynamo exporter"
    else:
        core = classifier.backend.convert(classifier.twin.network)
        route = f"{classifier.backend.kernels} graph of backend {classifier.backend.name}, torch.jit"
    tail = _tail(classifier, softmax, postprocessor)
    head = _head(classifier)
    images = _given_or_noise(classifier, given)
    expected = _run(classifier, nn.Sequential(*head, classifier.int8_network, *tail), images)
    network = nn.Sequential(*head, core, *tail)
    path.parent.mkdir(parents=True, exist_ok=True)
    if format == "onnx":
        answers = _write_onnx(classifier, network, path, images)
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


def check_images(classifier: QuantizedClassifier, count: int) -> NDArray[np.float32]:
    """Noise over the range of the pixels, always the same, of shape (N, C, H, W)."""
    low, high = (0.0, 1.0) if classifier.clip_values is None else classifier.clip_values
    noise = numpy_generator("export check").random((count, *classifier.input_shape))
    return np.asarray(low + (np.asarray(high) - low) * noise, np.float32)


def _given_or_noise(classifier: QuantizedClassifier, images: NDArray[Any] | None) -> Tensor:
    images = check_images(classifier, 64) if images is None else images
    if images.shape[1:] != tuple(classifier.input_shape) or len(images) == 0:
        raise UserError(f"The check images must have shape (N, {classifier.input_shape}). Got {images.shape}.")
    return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))


def _run(classifier: QuantizedClassifier, network: Any, images: Tensor) -> NDArray[np.float32]:
    with use_engine(classifier.backend.torch_engine), torch.no_grad():
        return np.asarray(network(images).float().numpy())


def _write_onnx(classifier: QuantizedClassifier, network: nn.Module, path: Path, images: Tensor) -> NDArray[np.float32]:
    path.write_bytes(onnx_graph(network, images, seven_bits=classifier.backend.reduce_range))
    try:
        return np.asarray(RuntimeNetwork("onnxruntime", path.read_bytes())(images).numpy())
    except Exception as error:
        # whatever a runtime raises
        path.unlink()
        raise UserError(
            f"onnxruntime cannot run the file of this network ({first_line(error, 200)}): nothing was kept. Try the "
            "other backend, or format='torchscript'."
        ) from error


def _write_torchscript(
    classifier: QuantizedClassifier, network: nn.Module, path: Path, images: Tensor
) -> NDArray[np.float32]:
    if not hasattr(torch.jit, "script"):
        raise UserError("This torch has no TorchScript any more: use format='onnx'.")
    try:
        with quiet(), use_engine(classifier.backend.torch_engine):
            torch.jit.script(network).save(str(path))
            loaded = torch.jit.load(str(path))
    except (RuntimeError, TypeError, ValueError, NotImplementedError) as error:
        raise UserError(
            f"TorchScript cannot compile this network ({first_line(error)}): use backend='fx', or format='onnx'."
        ) from error
    return _run(classifier, loaded, images)
