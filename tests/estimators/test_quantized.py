"""The quantized classifier as ART's attacks, a disk and other runtimes see it."""

from __future__ import annotations

import copy
import importlib.util
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from art.attacks.evasion import (
    AutoProjectedGradientDescent,
    CarliniL2Method,
    DeepFool,
    HopSkipJump,
    ProjectedGradientDescent,
    SquareAttack,
)
from art.attacks.extraction import KnockoffNets
from art.estimators.classification import PyTorchClassifier
from sklearn.datasets import load_digits
from torch import nn

from art_divqat._rng import isolated_random_state
from art_divqat.errors import MissingExtraError, UserError
from art_divqat.estimators import QuantizedPyTorchClassifier, RecipeClassifier, TrainingRecipe
from art_divqat.models import build_model
from art_divqat.quantization import get_backend, serialized_bytes, supported_engines, use_engine

SHAPE = (1, 8, 8)
HAS_TORCHAO = importlib.util.find_spec("torchao") is not None
needs_onnx = pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime")


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    bunch = load_digits()
    return (bunch.images[:, None] / 16).astype(np.float32), bunch.target.astype(np.int64)


@pytest.fixture(scope="module")
def float_classifier(digits) -> RecipeClassifier:
    x, y = digits
    classifier = RecipeClassifier(build_model("small-cnn", SHAPE, 10, seed=0), SHAPE, 10, TrainingRecipe(epochs=4))
    classifier.fit(x[:1200], y[:1200])
    return classifier


def quantize(network: nn.Module, x: np.ndarray, backend_name: str = "fx", **options) -> QuantizedPyTorchClassifier:
    backend = get_backend(backend_name)
    prepared = backend.prepare(network, SHAPE)
    standardised = torch.from_numpy((x - options.pop("mean", 0.0)) / options.pop("std", 1.0)).float()
    backend.calibrate(prepared, standardised.split(256))
    return QuantizedPyTorchClassifier(prepared, backend, SHAPE, 10, **options)


@pytest.fixture(scope="module")
def classifier(digits, float_classifier) -> QuantizedPyTorchClassifier:
    return quantize(float_classifier.model, digits[0][:1200], architecture="small-cnn")


def accuracy(classifier, x, y) -> float:
    return float(np.mean(classifier.predict(x).argmax(1) == y))


def test_accuracy_and_size_against_full_precision(digits, float_classifier, classifier) -> None:
    x, y = digits[0][1200:], digits[1][1200:]
    assert accuracy(classifier, x, y) >= accuracy(float_classifier, x, y) - 0.01
    assert classifier.agreement_with_twin(x) > 0.99
    assert classifier.description.bytes < 0.45 * serialized_bytes(float_classifier.model)
    assert classifier.description.engine in supported_engines()


def test_predict_is_int8_stateless_float32_and_batch_free(digits, classifier) -> None:
    x = digits[0][:50]
    first = classifier.predict(x)
    assert any("quantized" in type(module).__module__ for module in classifier.int8_network.modules())
    assert first.dtype == np.float32
    assert classifier.predict(np.zeros((0, *SHAPE))).shape == (0, 10)
    for other in (x.astype(np.float64), x.tolist()):
        np.testing.assert_array_equal(first, classifier.predict(np.asarray(other), training_mode=True, batch_size=7))


def test_predict_works_whatever_the_global_engine(digits, classifier) -> None:
    expected = classifier.predict(digits[0][:20])
    for engine in supported_engines():
        with use_engine(engine):
            np.testing.assert_array_equal(classifier.predict(digits[0][:20]), expected)
            assert torch.backends.quantized.engine == engine


def test_gradients_are_those_of_the_twin(digits, classifier) -> None:
    x, y = digits[0][:6], digits[1][:6]
    images = torch.from_numpy(x).requires_grad_()
    nn.functional.cross_entropy(classifier.twin(images), torch.from_numpy(y), reduction="sum").backward()
    one_hot = np.eye(10, dtype=np.float32)[y]
    ours = classifier.loss_gradient(x.astype(np.float64), one_hot)
    np.testing.assert_allclose(ours / np.abs(ours).max(), images.grad / images.grad.abs().max(), atol=1e-5)
    assert classifier.class_gradient(x, label=3).shape == (6, 1, *SHAPE)
    assert isinstance(classifier.loss_gradient(torch.from_numpy(x), torch.from_numpy(one_hot)), torch.Tensor)


ATTACKS = {
    "pgd": lambda c: ProjectedGradientDescent(c, eps=0.3, eps_step=0.05, max_iter=10, verbose=False),
    "auto-pgd": lambda c: AutoProjectedGradientDescent(
        c, eps=0.3, eps_step=0.1, max_iter=5, nb_random_init=1, verbose=False
    ),
    "deepfool": lambda c: DeepFool(c, max_iter=10, verbose=False),
    "carlini-wagner": lambda c: CarliniL2Method(c, max_iter=5, binary_search_steps=3, initial_const=10, verbose=False),
    "hop-skip-jump": lambda c: HopSkipJump(c, max_iter=3, max_eval=200, init_eval=10, verbose=False),
    "square": lambda c: SquareAttack(c, eps=0.3, max_iter=100, verbose=False),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_evasion_attacks_fool_the_int8_network(name: str, digits, classifier) -> None:
    x, y = digits[0][1200:1216], digits[1][1200:1216]
    before = {key: value.clone() for key, value in classifier.twin.state_dict().items()}
    with isolated_random_state("attack"):
        adversarial = ATTACKS[name](classifier).generate(x, np.eye(10, dtype=np.float32)[y])
    assert accuracy(classifier, adversarial, y) <= accuracy(classifier, x, y) - 0.25
    assert all(torch.equal(value, before[key]) for key, value in classifier.twin.state_dict().items())


def test_extraction_attack_steals_it(digits, classifier) -> None:
    x = digits[0]
    thief = RecipeClassifier(build_model("lenet5", SHAPE, 10, seed=1), SHAPE, 10, TrainingRecipe(epochs=1))
    with isolated_random_state("knockoff"):
        attack = KnockoffNets(
            classifier, nb_stolen=1000, nb_epochs=15, batch_size_fit=64, batch_size_query=64, verbose=False
        )
        stolen = attack.extract(x[:1200], thieved_classifier=thief)
    assert np.mean(stolen.predict(x[1200:]).argmax(1) == classifier.predict(x[1200:]).argmax(1)) > 0.7


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.fit(np.zeros((1, *SHAPE)), np.zeros(1)), "cannot be fitted"),
        (lambda c: c.fit_generator(None), "cannot be fitted"),
        (lambda c: c.clone_for_refitting(), "cannot be cloned"),
        (lambda c: c.reset(), "no fresh state"),
        (lambda c: c.get_activations(np.zeros((1, *SHAPE)), 0), "no activations"),
        (lambda c: pickle.dumps(c), "save"),
        (lambda c: c.agreement_with_twin(np.zeros((0, *SHAPE))), "at least one image"),
        (lambda c: c.export("x", "tflite"), "one of 'onnx', 'torchscript'"),
        (lambda c: c.export("x", "torchscript", postprocessor=3), "as_module"),
        (lambda c: QuantizedPyTorchClassifier(c.twin.network, c.backend, SHAPE, 10, device_type="gpu"), "CPU only"),
    ],
)
def test_refusals_are_sentences(call, message: str, classifier) -> None:
    with pytest.raises(UserError, match=message):
        call(classifier)


def test_deepcopy_answers_the_same(digits, classifier) -> None:
    np.testing.assert_array_equal(copy.deepcopy(classifier).predict(digits[0][:20]), classifier.predict(digits[0][:20]))


BACKENDS = ["fx", pytest.param("pt2e", marks=[pytest.mark.slow, pytest.mark.skipif(not HAS_TORCHAO, reason="torchao")])]


@pytest.mark.parametrize("backend_name", BACKENDS)
def test_save_and_load_are_bit_identical(backend_name: str, digits, float_classifier, tmp_path: Path) -> None:
    x = digits[0]
    mean, std = np.float32(0.3), np.float32(0.4)
    saved = quantize(
        float_classifier.model,
        x[:1200],
        backend_name,
        mean=mean,
        std=std,
        preprocessing=(mean, std),
        architecture="small-cnn",
    )
    saved.save("classifier", tmp_path)
    loaded = QuantizedPyTorchClassifier.load(tmp_path / "classifier")
    np.testing.assert_array_equal(loaded.predict(x[:200]), saved.predict(x[:200]))
    y = np.eye(10, dtype=np.float32)[:4]
    np.testing.assert_array_equal(loaded.loss_gradient(x[:4], y), saved.loss_gradient(x[:4], y))
    assert loaded.clip_values is not None
    assert sorted(path.name for path in (tmp_path / "classifier").iterdir()) == ["classifier.json", "twin.safetensors"]


class Custom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1))


def test_load_with_a_function_that_builds_the_network(digits, tmp_path: Path) -> None:
    saved = quantize(Custom(), digits[0][:256], architecture=Custom)
    saved.save(tmp_path / "custom")
    with pytest.raises(UserError, match="architecture="):
        QuantizedPyTorchClassifier.load(tmp_path / "custom")
    loaded = QuantizedPyTorchClassifier.load(tmp_path / "custom", architecture=Custom)
    np.testing.assert_array_equal(loaded.predict(digits[0][:50]), saved.predict(digits[0][:50]))
    with pytest.raises(UserError, match="do not fit the architecture 'small-cnn'"):
        QuantizedPyTorchClassifier.load(tmp_path / "custom", architecture="small-cnn")


def test_load_refuses_what_it_did_not_write(classifier, tmp_path: Path) -> None:
    load = QuantizedPyTorchClassifier.load
    with pytest.raises(UserError, match="no quantized classifier"):
        load(tmp_path / "nowhere")
    folder = tmp_path / "saved"
    classifier.save(folder)
    with pytest.raises(UserError, match="postprocessing_defences none"):
        load(folder, postprocessing_defences=object())
    card = json.loads((folder / "classifier.json").read_text())
    for change, message in (
        ({"version": 99}, "version 99"),
        ({"format": "x"}, "does not describe"),
        ({"engine": "tpu"}, "tpu"),
    ):
        (folder / "classifier.json").write_text(json.dumps({**card, **change}))
        with pytest.raises(UserError, match=message):
            load(folder)
    (folder / "classifier.json").write_text(json.dumps(card))
    weights = bytearray((folder / "twin.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "twin.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match="checksum"):
        load(folder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("keep")
    with pytest.raises(UserError, match="something other"):
        classifier.save(tmp_path / "full")


@pytest.mark.parametrize(("kernels", "bits", "loads"), [("fx", 8, False), ("fx", 7, True), ("pt2e", 8, True)])
def test_load_refuses_8_bit_activations_where_int8_kernels_overflow(
    kernels: str, bits: int, loads: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernels == "pt2e":
        pytest.importorskip("torchao")
    backend = get_backend(kernels, reduce_range=bits == 7)
    prepared = backend.prepare(build_model("lenet5", SHAPE, 10, seed=0), SHAPE)
    backend.calibrate(prepared, [torch.rand(4, *SHAPE)])
    classifier = QuantizedPyTorchClassifier(prepared, backend, SHAPE, 10, architecture="lenet5")
    classifier.save(tmp_path / "saved")
    monkeypatch.setattr("art_divqat.estimators.quantized_files.needs_reduced_range", lambda engine: True)
    if loads:
        assert QuantizedPyTorchClassifier.load(tmp_path / "saved").backend.reduce_range == (bits == 7)
    else:
        with pytest.raises(UserError, match=f"{backend.engine} overflows on them on this CPU"):
            QuantizedPyTorchClassifier.load(tmp_path / "saved")


@needs_onnx
def test_a_runtime_answers_and_the_twin_gives_gradients(digits, classifier, tmp_path: Path) -> None:
    x, y = digits[0][1200:], np.eye(10, dtype=np.float32)[digits[1][1200:]]
    classifier.save(tmp_path / "torch")
    runtime = QuantizedPyTorchClassifier.load(tmp_path / "torch", engine="onnxruntime")
    described = runtime.description
    assert (described.engine, described.kernels) == ("onnxruntime", "int8")
    assert described.bytes < 1.2 * classifier.description.bytes + 20_000
    assert "onnxruntime" in repr(runtime)
    assert (runtime.predict(x).argmax(1) == classifier.predict(x).argmax(1)).mean() > 0.99
    assert runtime.agreement_with_twin(x) > 0.99
    np.testing.assert_array_equal(runtime.loss_gradient(x[:9], y[:9]), classifier.loss_gradient(x[:9], y[:9]))
    np.testing.assert_array_equal(runtime.predict(x[:9]), runtime.predict(x[:9], batch_size=2))
    assert runtime.predict(x[:0]).shape == (0, 10)
    report = runtime.export(tmp_path / "net.pt", "torchscript", check_images=x)
    assert report.agreement > 0.99
    # saved with its engine, and back to torch's
    runtime.save(tmp_path / "runtime")
    loaded = QuantizedPyTorchClassifier.load(tmp_path / "runtime")
    assert loaded.description == described
    np.testing.assert_array_equal(loaded.predict(x), runtime.predict(x))
    np.testing.assert_array_equal(copy.deepcopy(loaded).predict(x[:20]), runtime.predict(x[:20]))
    again = QuantizedPyTorchClassifier.load(tmp_path / "runtime", engine=classifier.backend.engine)
    np.testing.assert_array_equal(again.predict(x), classifier.predict(x))


@needs_onnx
def test_a_trainer_hands_out_a_runtime(digits, float_classifier) -> None:
    """Compared with torch on images as the network takes them, standardised."""
    from art_divqat.defences.trainer import quantize_post_training

    teacher = PyTorchClassifier(
        copy.deepcopy(float_classifier.model),
        nn.CrossEntropyLoss(),
        SHAPE,
        10,
        clip_values=(0.0, 255.0),
        preprocessing=(0.0, 255.0),
        device_type="cpu",
    )
    digits = (255 * digits[0], digits[1])
    served, usual = (
        quantize_post_training(teacher, digits[0][:400], engine=engine) for engine in ("onnxruntime", None)
    )
    assert served.description.engine == "onnxruntime"
    assert (served.predict(digits[0]).argmax(1) == usual.predict(digits[0]).argmax(1)).mean() > 0.98
    assert (served.predict(digits[0]).argmax(1) == digits[1]).mean() > 0.8


@needs_onnx
def test_a_file_that_onnxruntime_cannot_run_is_a_sentence(classifier, tmp_path: Path, monkeypatch) -> None:
    from art_divqat.estimators import quantized_export

    monkeypatch.setattr(quantized_export, "onnx_graph", lambda *arguments, **options: b"no graph")
    with pytest.raises(UserError, match=r"onnxruntime cannot run the file of this network .*nothing was kept"):
        classifier.export(tmp_path / "net.onnx")
    assert not (tmp_path / "net.onnx").exists()


class Halve(nn.Module):
    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return 0.5 * y + 0.05


class HalvePostprocessor:
    def as_module(self) -> nn.Module:
        return Halve()


@needs_onnx
@pytest.mark.parametrize("backend_name", BACKENDS)
def test_onnx_answers_like_the_int8_network(backend_name: str, digits, float_classifier, tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    x, mean, std = digits[0], np.float32(0.3), np.float32(0.4)
    exported = quantize(float_classifier.model, x[:1200], backend_name, mean=mean, std=std, preprocessing=(mean, std))
    report = exported.export(
        tmp_path / "net.onnx", softmax=True, postprocessor=HalvePostprocessor(), check_images=x[:200]
    )
    assert report.agreement > 0.98
    kinds = {node.op_type for node in onnx.load(report.path).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Softmax"} <= kinds
    session = onnxruntime.InferenceSession(str(report.path))
    for n in (1, 13):  # the batch is not baked in
        answers = session.run(None, {"images": x[:n]})[0]
        expected = torch.softmax(torch.from_numpy(exported.predict(x[:n])), 1).numpy() * 0.5 + 0.05
        np.testing.assert_allclose(answers, expected, atol=0.05)
    np.testing.assert_allclose(session.run(None, {"images": x[:64]})[0].sum(1), 1.0, atol=1e-5)


@needs_onnx
def test_onnx_file_is_small(classifier, float_classifier, tmp_path: Path) -> None:
    report = classifier.export(tmp_path / "net.onnx")
    assert report.bytes < 0.6 * serialized_bytes(float_classifier.model)


def test_onnx_without_the_extra(classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"art-divqat\[onnx\]"):
        classifier.export(tmp_path / "net.onnx")


def test_torchscript_is_bit_identical(digits, classifier, tmp_path: Path) -> None:
    report = classifier.export(tmp_path / "net.pt", "torchscript")
    assert report.max_difference == 0
    network = torch.jit.load(str(report.path))
    with use_engine(classifier.backend.engine):
        answers = network(torch.from_numpy(digits[0][:9])).numpy()
    np.testing.assert_array_equal(answers, classifier.predict(digits[0][:9]))


@pytest.mark.parametrize(
    "values", [(0.4, 0.3), (np.full((1, 1, 1), 0.4, np.float32), np.full((1, 1, 1), 0.3, np.float32))]
)
def test_torchscript_standardises_as_the_classifier_does(values, digits, tmp_path: Path) -> None:
    x = digits[0][:100]
    network = build_model("lenet5", SHAPE, 10, seed=0)
    classifier = quantize(network, x, preprocessing=values)
    report = classifier.export(tmp_path / "net.pt", "torchscript", check_images=x)
    assert report.agreement == 1
    with use_engine(classifier.backend.engine):
        answers = torch.jit.load(str(report.path))(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(answers, classifier.predict(x), atol=1e-5)


def test_an_export_that_answers_differently_is_not_kept(classifier, tmp_path: Path, monkeypatch) -> None:
    from art_divqat.estimators import quantized_export

    monkeypatch.setattr(
        quantized_export, "_write_torchscript", lambda c, n, path, x: path.write_text("") or -c.predict(x)
    )
    with pytest.raises(UserError, match="nothing was kept"):
        classifier.export(tmp_path / "net.pt", "torchscript")
    assert not (tmp_path / "net.pt").exists()


@needs_onnx
@pytest.mark.parametrize("format", ["onnx", "torchscript"])
def test_the_heuristic_perturbation_goes_into_the_graph(format: str, digits, classifier, tmp_path: Path) -> None:
    from art_divqat.defences.postprocessor import HeuristicPerturbation

    defence = HeuristicPerturbation(beta=0.9)
    x = digits[0][:200]
    path = tmp_path / f"net.{format}"
    report = classifier.export(path, format, softmax=True, postprocessor=defence, check_images=x)
    assert report.agreement > 0.98
    expected = defence(torch.softmax(torch.from_numpy(classifier.predict(x)), 1).numpy())
    if format == "onnx":
        import onnxruntime

        answers = onnxruntime.InferenceSession(str(path)).run(None, {"images": x})[0]
    else:
        with use_engine(classifier.backend.engine):
            answers = torch.jit.load(str(path))(torch.from_numpy(x)).numpy()
    assert np.median(np.abs(answers - expected)) < 1e-3


def test_what_is_remembered_is_asked_once_and_is_the_same(digits, tmp_path) -> None:
    """The postprocessors come after it; a second process finds it in the file."""
    x, _ = digits
    network = build_model("lenet5", SHAPE, 10, seed=0)
    quantized, asked = quantize(network, x[:64]), []
    network = quantized.int8_network
    quantized._int8[0] = lambda batch: (asked.append(len(batch)), network(batch))[1]
    expected = quantized.predict(x[:40])
    asked.clear()
    quantized.remember(tmp_path / "answers.sqlite")
    np.testing.assert_allclose(quantized.predict(x[:40]), expected, atol=1e-4)
    assert sum(asked) == 64, "two batches of 32"
    first = quantized.predict(x[20:40])
    assert sum(asked) == 64
    assert quantized.predict(x[:0]).shape == (0, 10)
    quantized.remember(tmp_path / "answers.sqlite")
    np.testing.assert_array_equal(quantized.predict(x[20:40]), first)
    assert sum(asked) == 64
