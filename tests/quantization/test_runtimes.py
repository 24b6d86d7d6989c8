"""A runtime answers as torch's int8 kernels do, or is refused; its file keeps 7 bits and every weight."""

from __future__ import annotations

import copy
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from art_divqat.errors import MissingExtraError, UserError
from art_divqat.quantization import check_engine, get_backend, runtimes, use_engine
from art_divqat.quantization._names import RUNTIMES
from art_divqat.quantization.onnx_graph import onnx_graph
from art_divqat.quantization.runtimes import RuntimeNetwork, in_runtime

SHAPE = (3, 12, 12)


def lacking(*libraries: str) -> bool:
    return any(importlib.util.find_spec(library) is None for library in libraries)


ENGINES = [
    pytest.param(name, marks=pytest.mark.skipif(lacking(*libraries), reason=f"{name} is not installed"))
    for name, (_, libraries) in RUNTIMES.items()
]
BACKENDS = ["fx", pytest.param("pt2e", marks=pytest.mark.skipif(lacking("torchao"), reason="torchao"))]
needs_onnxruntime = pytest.mark.skipif(lacking(*RUNTIMES["onnxruntime"][1]), reason="onnxruntime is not installed")


def images(n: int, brightest: float = 1.0, seed: int = 0) -> Tensor:
    return brightest * torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


class Residual(nn.Module):
    """What networks for boards are made of: a skip, a depthwise convolution with weights of one sign, a pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8 * 36, 5)
        with torch.no_grad():
            self.depthwise.weight[2:4].abs_()
            self.depthwise.weight[5] = -self.depthwise.weight[5].abs()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = nn.functional.relu(x + self.depthwise(x))
        return self.head(nn.functional.max_pool2d(x, 2).flatten(1))


def calibrated(backend, brightest: float = 1.0) -> nn.Module:
    torch.manual_seed(0)
    prepared = backend.prepare(Residual().eval(), SHAPE)
    backend.calibrate(prepared, [images(64, brightest)])
    return backend.freeze(prepared).network


def deployed(engine: str, backend_name: str = "fx", brightest: float = 1.0) -> tuple[nn.Module, RuntimeNetwork]:
    """torch's int8 network, and the same in a runtime."""
    backend = get_backend(backend_name, engine)
    network = calibrated(backend, brightest)
    int8 = backend.convert(network)
    return int8, in_runtime(backend, network, int8, images(8))


@pytest.mark.parametrize("backend_name", BACKENDS)
@pytest.mark.parametrize("engine", ENGINES)
def test_it_answers_as_torch_does_for_any_batch(engine: str, backend_name: str) -> None:
    int8, network = deployed(engine, backend_name)
    for n in (1, 2, 17):
        x = images(n, seed=5)
        expected, answers = int8(x), network(x)
        assert answers.dtype == torch.float32
        assert answers.shape == (n, 5)
        assert (answers - expected).abs().max() < 0.1 * int8(images(64)).std()


@pytest.mark.parametrize("backend_name", BACKENDS)
@pytest.mark.parametrize("engine", ENGINES)
def test_images_brighter_than_any_before_are_cut_off_alike(engine: str, backend_name: str) -> None:
    """torch's exporter loses the upper end of 7 bits: above it sums overflow, or are those of another network."""
    backend = get_backend(backend_name, engine, reduce_range=True)
    network, x = calibrated(backend, brightest=0.3), images(32, seed=6)
    runtime = RuntimeNetwork(engine, onnx_graph(backend.reference(network), x, seven_bits=True))
    with torch.no_grad():
        expected = network(x)
        assert not torch.allclose(expected, network(0.3 * x), atol=0.1 * float(expected.std())), "nothing is cut off"
    assert (runtime(x) - expected).abs().max() < 0.1 * expected.std()


@needs_onnxruntime
def test_a_file_says_nothing_of_where_it_was_made() -> None:
    backend = get_backend("fx")
    graph = onnx_graph(backend.reference(calibrated(backend)), images(2), seven_bits=True)
    assert __file__.encode() not in graph
    assert b".py" not in graph


@needs_onnxruntime
def test_weights_are_int8_and_those_of_one_sign_are_float() -> None:
    """onnxruntime takes one zero point for all channels of a weight."""
    import onnx

    backend = get_backend("fx", reduce_range=True)
    graph = onnx.load_from_string(onnx_graph(backend.reference(calibrated(backend)), images(2), seven_bits=True)).graph
    kinds = {tuple(tensor.dims): tensor.data_type for tensor in graph.initializer if len(tensor.dims) > 1}
    assert kinds == {
        (8, 3, 3, 3): onnx.TensorProto.INT8,
        (8, 1, 3, 3): onnx.TensorProto.FLOAT,
        (5, 288): onnx.TensorProto.INT8,
    }
    clamped = [node for node in graph.node if node.op_type == "Clip" and node.input[2] == "highest_level"]
    quantized = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert 0 < len(clamped) < len(quantized), "the flattened maxima are clamped already"


@needs_onnxruntime
def test_onnxruntime_leaves_float_weights_alone(tmp_path: Path) -> None:
    """It rounds such a weight to int8 with one scale for all channels, if it sees quantized images beside it."""
    import onnx
    import onnxruntime

    backend, options = get_backend("fx"), onnxruntime.SessionOptions()
    graph = onnx_graph(backend.reference(calibrated(backend)), images(2), seven_bits=True)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    weights = onnx.load(tmp_path / "optimised.onnx").graph.initializer
    assert [each.data_type for each in weights if list(each.dims) == [8, 1, 3, 3]] == [onnx.TensorProto.FLOAT]


@needs_onnxruntime
def test_it_follows_the_number_of_threads_and_is_copied() -> None:
    _, network = deployed("onnxruntime")
    x, before = images(4), torch.get_num_threads()
    expected = network(x)
    try:
        for threads in (2, 1):
            torch.set_num_threads(threads)
            assert torch.equal(network(x), expected)
            assert network._opened[0] == threads
    finally:
        torch.set_num_threads(before)
    copied = copy.deepcopy(network)
    assert copied._opened is None
    assert torch.equal(copied(x), expected)


@needs_onnxruntime
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: np.zeros((len(x), 5), np.float32), "other answers than torch's int8 kernels.*0.1 is allowed"),
        (lambda x: np.full((len(x), 5), np.nan, np.float32), "other answers"),
        (lambda x: 1 / 0, r"cannot run this network \(division by zero\)"),
    ],
)
def test_a_runtime_that_answers_otherwise_is_refused(answer, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(runtimes._OPEN, "onnxruntime", lambda graph, threads: answer)
    with pytest.raises(UserError, match=message) as caught:
        deployed("onnxruntime")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("engine", "lost", "message"),
    [
        ("onnxruntime", "onnxruntime", r"engine='onnxruntime' needs onnxruntime: pip install 'art-divqat\[onnx\]'"),
        ("onnxruntime", "onnxscript", r"needs onnxscript: pip install 'art-divqat\[onnx\]'"),
        ("openvino", "onnx", r"engine='openvino' needs onnx: pip install 'art-divqat\[openvino\]'"),
    ],
)
def test_a_missing_library_is_a_sentence(engine: str, lost: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, lost, None)
    with pytest.raises(MissingExtraError, match=message):
        check_engine(engine)


@needs_onnxruntime
def test_a_runtime_is_no_engine_of_torchs() -> None:
    before = torch.backends.quantized.engine
    with use_engine("onnxruntime"):
        assert torch.backends.quantized.engine == before
    backend = get_backend("fx", "onnxruntime")
    assert (backend.engine, backend.torch_engine) == ("onnxruntime", check_engine(None))
    with pytest.raises(UserError, match=r"choose one of .*onnxruntime, openvino"):
        check_engine("tensorrt")
