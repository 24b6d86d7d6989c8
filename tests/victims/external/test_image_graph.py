"""Files for boards, int8 among them: audited as they answer, said to be int8, or refused by their name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.digits_victim import SHAPE, victim

from art_divqat.api import evaluate, prepare
from art_divqat.data import Dataset
from art_divqat.errors import UserError
from art_divqat.plan.config import make_config
from art_divqat.victims.external import ExternalModel, load_external
from art_divqat.victims.external.settings import external_name


def load(path: Path, **options: Any) -> Any:
    return load_external(ExternalModel(source=str(path), **options), SHAPE, 10)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, network: torch.nn.Module, data: Dataset) -> dict[str, Path]:
    """The digits' network, quantized here and by onnxruntime; each as whoever deploys it would write it."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    from art_divqat.defences.postprocessor import HeuristicPerturbation
    from art_divqat.defences.trainer import quantize_post_training

    folder = tmp_path_factory.mktemp("graphs")
    names = ("float", "logits", "defended", "static", "operators")
    paths = {name: folder / f"{name}.onnx" for name in names}
    quantized = quantize_post_training(victim("lenet5", 12), data.x_train)
    quantized.export(paths["logits"], check_images=data.x_test)
    perturbation = HeuristicPerturbation(beta=0.5)
    quantized.export(paths["defended"], softmax=True, postprocessor=perturbation, check_images=data.x_test)
    torch.onnx.export(network, (torch.rand(2, *SHAPE),), paths["float"], dynamo=False, input_names=["x"],
                      dynamic_axes={"x": {0: "n"}})  # fmt: skip

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter({"x": data.x_train[i : i + 32]} for i in range(0, 320, 32))

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self.batches, None)

    for name, form in (("static", QuantFormat.QDQ), ("operators", QuantFormat.QOperator)):
        quantize_static(paths["float"], paths[name], Reader(), quant_format=form, reduce_range=True)
    return paths


@pytest.fixture(scope="module")
def ir(files: dict[str, Path]) -> Path:
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    path = files["logits"].with_name("board.xml")
    openvino.save_model(openvino.Core().read_model(str(files["logits"])), str(path), compress_to_fp16=False)
    return path


@pytest.mark.parametrize("name", ["float", "logits", "defended", "static", "operators"])
def test_it_says_whether_it_is_int8(
    name: str, files: dict[str, Path], data: Dataset, expected: NDArray[np.float32]
) -> None:
    classifier = load(files[name])
    assert classifier.architecture.startswith("an ONNX graph" if name == "float" else "an int8 ONNX graph (")
    top = classifier.predict(data.x_test).argmax(1)
    assert (top == expected.argmax(1)).mean() > 0.95
    assert classifier.white_box is None


def test_operations_are_counted_where_onnx_is_there(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    operations = [node.op_type for node in onnx.load(files["logits"]).graph.node]
    count = operations.count("QuantizeLinear") + operations.count("DequantizeLinear")
    assert f"({count} quantize or dequantize operations)" in load(files["logits"]).architecture
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert load(files["logits"]).architecture == "an ONNX graph"


def audit(model: Path, output: Path, **options: Any) -> Any:
    given = {
        "dataset": "digits",
        "victims": [f"file:{model}"],
        "query_pool": "noise",
        "attacks": ["knockoff"],
        "budgets": [60],
        "seeds": 1,
        "jobs": 1,
        "device": "cpu",
        "control": False,
        "thief_model": "lenet5",
        "thief_recipe": {"epochs": 2},
        **options,
    }
    return evaluate(prepare(make_config(given)), output, store=output / "store")


@pytest.mark.parametrize(
    ("name", "outputs"), [("logits", "logits"), ("defended", "probabilities"), ("static", "logits")]
)
def test_an_int8_file_is_audited(name: str, outputs: str, files: dict[str, Path], tmp_path: Path) -> None:
    results = audit(files[name], tmp_path)
    model = results.data["model"]
    assert model["outputs"] == outputs
    assert "int8" in model["architecture"]
    assert "int8 ONNX graph" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert all(cell.metrics["victim_accuracy"] > 0.8 for cell in results.cells)


def test_an_openvino_model_is_audited(
    ir: Path, files: dict[str, Path], data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = load(ir)
    answers, same = classifier.predict(data.x_test), load(files["logits"]).predict(data.x_test)
    assert np.abs(answers - same).mean() < 0.05 * same.std()
    np.testing.assert_array_equal(classifier.predict(data.x_test[:7]), answers[:7])
    assert classifier.architecture.startswith("an int8 OpenVINO model (")
    results = audit(ir, tmp_path / "run")
    assert results.data["model"]["architecture"] == classifier.architecture
    name = external_name(str(ir), ExternalModel())
    weights = ir.with_suffix(".bin").read_bytes()
    copied = tmp_path / ir.name
    copied.write_bytes(ir.read_bytes())
    with pytest.raises(UserError, match=r"has no weights beside it: put board\.bin into the same folder"):
        load(copied)
    copied.with_suffix(".bin").write_bytes(weights)
    assert external_name(str(copied), ExternalModel()) == name
    copied.with_suffix(".bin").write_bytes(weights[:-1] + b"\x7f")
    assert external_name(str(copied), ExternalModel()) != name
    copied.write_text("<net>", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be read as an OpenVINO model") as error:
        load(copied)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"give the \.xml beside it"):
        load(copied.with_suffix(".bin"))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"pip install 'art-divqat\[openvino\]'"):
        load(ir)


def test_without_openvino(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.xml").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"openvino is not installed: pip install 'art-divqat\[openvino\]'"):
        load(tmp_path / "m.xml")


@pytest.mark.parametrize(
    ("name", "message"), [("m.pte", "an ExecuTorch program, .* as ONNX, .* audit that file"), ("M.TFLITE", "LiteRT")]
)
def test_what_is_not_read_is_named(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=message) as error:
        load(tmp_path / name)
    assert "\n" not in str(error.value)
