"""Runtimes: an int8 network that onnxruntime or OpenVINO answers for, in place of torch's own int8 kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from art_divqat._files import first_line
from art_divqat.errors import UserError
from art_divqat.quantization.backend import QuantizationBackend
from art_divqat.quantization.engines import use_engine
from art_divqat.quantization.onnx_graph import INPUT, onnx_graph
from art_divqat.quantization.verification import spread

# Of the answers' standard deviation, on average: what values beside a quantization step may change when they are summed
# in another order. A layer that is computed otherwise, or sums that overflow, move answers by more.
TOLERANCE = 0.1
# The same as a multiple of what the network itself makes of noise of that size: where many layers carry a rounding on,
# nothing that rounds in another order can be nearer.
ROUNDINGS, NOISE = 3, 1e-5

Answer = Callable[[NDArray[np.float32]], NDArray[Any]]


class RuntimeNetwork(nn.Module):
    """A network that a runtime answers for: an ONNX file, as a buffer, behind the call of a torch module.

    It has no gradient. The runtime uses as many threads as torch does when it is asked.

    :param runtime: `onnxruntime` or `openvino`.
    :param graph: the ONNX file.
    """

    graph: Tensor

    def __init__(self, runtime: str, graph: bytes) -> None:
        super().__init__()
        self.runtime = runtime
        self.register_buffer("graph", torch.frombuffer(bytearray(graph), dtype=torch.uint8))
        self._opened: tuple[int, Answer] | None = None

    def forward(self, x: Tensor) -> Tensor:
        threads = torch.get_num_threads()
        if self._opened is None or self._opened[0] != threads:
            self._opened = threads, _OPEN[self.runtime](self.graph.numpy().tobytes(), threads)
        images = np.ascontiguousarray(x.detach().cpu().numpy(), dtype=np.float32)
        return torch.from_numpy(self._opened[1](images))

    def __getstate__(self) -> dict[str, Any]:
        # an open session is neither copied nor pickled
        return {**self.__dict__, "_opened": None}


def in_runtime(backend: QuantizationBackend, prepared: nn.Module, int8: nn.Module, images: Tensor) -> RuntimeNetwork:
    """An int8 network in the runtime that is the backend's engine, compared with torch's int8 network.

    On average over `images`, the answers may be a tenth of their standard deviation apart, or three times as far as
    noise of 10⁻⁵ moves those of torch's network.

    :param prepared: a network prepared and trained or calibrated by `backend`.
    :param int8: what `backend.convert` makes of it.
    :param images: at least two that the network takes.
    :raises UserError: if the runtime cannot run the network, or answers otherwise; the message says by how much.
    """
    graph = onnx_graph(backend.reference(prepared), images, seven_bits=backend.reduce_range)
    found = RuntimeNetwork(backend.engine, graph)
    with torch.no_grad(), use_engine(backend.torch_engine):
        expected = int8(images)
        noise = NOISE * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
        rounding = float((int8(images + noise) - expected).abs().mean()) / spread(expected)
    try:
        answers = found(images)
    except Exception as error:
        # whatever a runtime raises
        raise UserError(
            f"engine={backend.engine!r} cannot run this network ({first_line(error, 200)}): leave engine out for the "
            "int8 kernels of torch."
        ) from error
    apart = float((answers - expected).abs().mean()) / spread(expected)
    allowed = max(TOLERANCE, ROUNDINGS * rounding)
    if not apart <= allowed:
        raise UserError(
            f"engine={backend.engine!r} gives other answers than torch's int8 kernels: on average they are {apart:.2g} "
            f"standard deviations of the answers apart, and {allowed:.2g} is allowed. Leave engine out for torch's own."
        )
    return found


def _onnxruntime(graph: bytes, threads: int) -> Answer:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(None, {INPUT: images})[0])


def _openvino(graph: bytes, threads: int) -> Answer:
    import openvino

    core = openvino.Core()
    # float32 in between: on some CPUs the default is bfloat16, whose answers are others
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = core.compile_model(core.read_model(graph), "CPU", settings).create_infer_request()
    return lambda images: np.array(request.infer({INPUT: images})[0])


_OPEN: dict[str, Callable[[bytes, int], Answer]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}
