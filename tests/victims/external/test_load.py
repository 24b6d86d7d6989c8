"""Models of other people: read right, or refused in one line, and never run unless that was asked for."""

from __future__ import annotations

import contextlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax
from support.external_models import SHAPE, export_onnx

from art_divqat.attacks.evasion import craft
from art_divqat.data import Dataset
from art_divqat.errors import UserError
from art_divqat.victims.external import ExternalModel, load_external
from art_divqat.victims.external.adapter import decide_outputs, probe
from art_divqat.victims.external.answers import form_of
from art_divqat.victims.external.settings import external_name

LENET = {"architecture": "lenet5"}


def load(path: Path, *, trust: bool = False, classes: int = 10, shape: Any = SHAPE, **options: Any) -> Any:
    return load_external(ExternalModel(source=str(path), **options), shape, classes, trust_code=trust)


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "wrapped.pth", "script.pt", "m.pt2", "fixed.pt2"])
def test_every_form_answers_as_the_network_does(
    models: dict[str, Path], data: Dataset, expected: NDArray[np.float32], name: str
) -> None:
    code = name in ("script.pt", "m.pt2", "fixed.pt2")
    classifier = load(models[name], trust=code, **({} if code else LENET))
    able = probe(classifier, data.x_test, data.y_test, "auto").capabilities
    np.testing.assert_allclose(classifier.predict(data.x_test), expected, atol=1e-4)
    assert (able.outputs, able.remote, able.nondeterminism, able.own_defences) == ("logits", False, 0.0, 0)
    assert not able.in_train_mode()
    x, y = data.x_test[:8], data.y_test[:8]
    moved = craft(able.white_box, x, y, epsilon=0.2, steps=2)
    assert 0 < np.abs(moved - x).max() <= 0.2 + 1e-6


@pytest.mark.parametrize("name", ["script.pt", "m.pt2"])
def test_programs_are_code(models: dict[str, Path], name: str) -> None:
    with pytest.raises(UserError, match="Add --trust-code") as error:
        load(models[name])
    assert "\n" not in str(error.value)


def test_a_factory_is_code(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs_for_test.py").write_text(
        "from pathlib import Path\nPath('canary').touch()\n"
        "from art_divqat.models import build_model\n"
        "def make():\n    return build_model('lenet5', (1, 8, 8), 10, seed=0)\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--trust-code"):
        load(models["m.pt"], factory="theirs_for_test:make")
    assert not (tmp_path / "canary").exists()
    assert load(models["m.pt"], factory="theirs_for_test:make", trust=True).predict(np.zeros((2, *SHAPE))).shape == (
        2,
        10,
    )
    assert (tmp_path / "canary").exists()
    for bad in ("no_such_module_x:make", "theirs_for_test:missing"):
        with pytest.raises(UserError, match="--factory"):
            load(models["m.pt"], factory=bad, trust=True)


class _Canary:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["evil.pt", "evil.pth", "evil.bin", "evil.safetensors", "evil.onnx", "evil.pt2"])
@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_canary_in_a_pickle_is_never_sung(tmp_path: Path, name: str, how: str) -> None:
    path, canary = tmp_path / name, tmp_path / "canary"
    if how == "pickle":
        path.write_bytes(pickle.dumps(_Canary(canary)))
    else:
        torch.save({"weight": torch.zeros(2), "x": _Canary(canary)}, path)
    with pytest.raises(UserError) as error:
        load(path, **LENET)
    assert "\n" not in str(error.value)
    assert not canary.exists()
    # the canary does sing where somebody unpickles it
    content = path.read_bytes()
    torch.load(io.BytesIO(content), weights_only=False) if how == "torch" else pickle.loads(content)  # noqa: S301
    assert canary.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "say --model NAME"),
        ({"architecture": "lenet5", "classes": 11}, "does not fit the network: size mismatch"),
        ({"architecture": "small-cnn"}, "does not fit the network"),
        ({"architecture": "lenet6"}, "did you mean lenet5"),
        ({"architecture": "lenet5", "mean": (0.1, 0.2, 0.3)}, "gives 3 values; the images have 1 channels"),
    ],
)
def test_what_does_not_fit_is_said(models: dict[str, Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        load(models["m.pt"], **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("shape", "classes", "message"), [((3, 8, 8), 10, "fails on"), ((1, 8, 8), 11, "answers .* with shape")]
)
def test_a_program_of_other_data(models: dict[str, Path], shape: Any, classes: int, message: str) -> None:
    classifier = load(models["script.pt"], trust=True, shape=shape, classes=classes)
    with pytest.raises(UserError, match=message):
        classifier.predict(np.zeros((2, *shape), np.float32))


def test_onnx(tmp_path: Path, network: torch.nn.Module, data: Dataset, expected: NDArray[np.float32]) -> None:
    moving = export_onnx(network, tmp_path / "a.onnx", dynamic_axes={"image": {0: "batch"}})
    fixed = export_onnx(network, tmp_path / "b.onnx")
    for path in (moving, fixed):
        classifier = load(path)
        np.testing.assert_allclose(classifier.predict(data.x_test), expected, atol=1e-4)
        assert classifier.white_box is None
    with pytest.raises(UserError, match="the data has images of shape"):
        load(fixed, shape=(3, 8, 8))


def test_without_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.onnx").write_bytes(b"x")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install 'art-divqat\[onnx\]'"):
        load(tmp_path / "m.onnx")


def test_a_saved_int8_classifier(tmp_path: Path, data: Dataset) -> None:
    from support.digits_victim import victim

    from art_divqat.defences.trainer import quantize_post_training

    saved = quantize_post_training(victim("lenet5", 12), data.x_train[:128], architecture="lenet5")
    saved.postprocessing_defences = None
    saved.save(tmp_path / "int8")
    classifier = load(tmp_path / "int8")
    assert classifier.architecture == "lenet5, int8"
    probe(classifier, data.x_test, data.y_test, "auto")
    np.testing.assert_array_equal(classifier.predict(data.x_test[:50]), saved.predict(data.x_test[:50]))


def test_a_saved_int8_classifier_of_ones_own_network(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.digits_victim import victim

    from art_divqat.defences.trainer import quantize_post_training

    saved = quantize_post_training(victim("lenet5", 12), data.x_train[:128])
    saved.postprocessing_defences = None
    saved.save(tmp_path / "int8")
    (tmp_path / "mine_for_test.py").write_text(
        "from art_divqat.models import build_model\n"
        "def make():\n    return build_model('lenet5', (1, 8, 8), 10, seed=0)\n"
        "def other():\n    return build_model('small-cnn', (1, 8, 8), 10, seed=0)\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"--factory .* where it is audited"):
        load(tmp_path / "int8")
    with pytest.raises(UserError, match="--trust-code"):
        load(tmp_path / "int8", factory="mine_for_test:make")
    for options in ({"factory": "mine_for_test:make"}, LENET):
        classifier = load(tmp_path / "int8", trust=True, **options)
        assert classifier.architecture == f"{options.get('factory', 'lenet5')}, int8"
        np.testing.assert_array_equal(classifier.predict(data.x_test[:50]), saved.predict(data.x_test[:50]))
    with pytest.raises(UserError, match="do not fit the architecture that was given: "):
        load(tmp_path / "int8", trust=True, factory="mine_for_test:other")


class _Soft(torch.nn.Module):
    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.network(x), dim=1)


def test_probabilities_are_noticed_and_attacked_through_a_logarithm(
    tmp_path: Path, network: torch.nn.Module, data: Dataset, expected: NDArray[np.float32]
) -> None:
    torch.jit.trace(_Soft(network), torch.rand(2, *SHAPE)).save(str(tmp_path / "soft.pt"))
    classifier = load(tmp_path / "soft.pt", trust=True)
    able = probe(classifier, data.x_test, data.y_test, "auto").capabilities
    assert able.outputs == "probabilities"
    np.testing.assert_allclose(classifier.predict(data.x_test), softmax(expected, axis=1), atol=1e-5)
    with torch.no_grad():
        logits = able.white_box(torch.from_numpy(data.x_test))
    np.testing.assert_allclose(torch.softmax(logits, 1).numpy(), softmax(expected, axis=1), atol=1e-5)
    with pytest.raises(UserError, match="a second softmax would flatten them"):
        probe(classifier, data.x_test, data.y_test, "logits")


def test_normalisation_is_applied_and_its_lack_is_noticed(
    tmp_path: Path, models: dict[str, Path], data: Dataset
) -> None:
    shifted = load(models["m.pt"], **LENET, mean=(0.5,), std=(0.25,))
    plain = load(models["m.pt"], **LENET)
    np.testing.assert_allclose(
        shifted.predict(data.x_test[:9]), plain.predict((data.x_test[:9] - 0.5) / 0.25), atol=1e-4
    )
    state = torch.load(models["m.pt"], weights_only=True)
    torch.save({name: torch.zeros_like(value) for name, value in state.items()}, tmp_path / "zero.pt")
    with pytest.raises(UserError, match="no better than chance"):
        probe(load(tmp_path / "zero.pt", **LENET), data.x_test, data.y_test, "logits")
    torch.save({name: value * np.nan for name, value in state.items()}, tmp_path / "nan.pt")
    with pytest.raises(UserError, match="not finite"):
        probe(load(tmp_path / "nan.pt", **LENET), data.x_test, data.y_test, "auto")


def test_an_endpoint_is_asked_again_for_the_same_normalised_images(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("httpx")
    from art_divqat.estimators.remote import RemoteClassifier

    asked: list[Any] = []
    normalised = (data.x_test - np.float32(0.5)) / np.float32(0.25)
    labels = {image.tobytes(): label for image, label in zip(normalised, data.y_test, strict=True)}

    def first(self: Any, x: Any, *given: Any, **options: Any) -> Any:
        del self, given, options
        asked.append(x)
        known = [labels[image.astype(np.float32).tobytes()] for image in x]
        # right, beyond doubt, and of another scale than the second answer
        return softmax(5 * np.eye(10, dtype=np.float32)[known], axis=1)

    def second(self: Any, x: Any) -> Any:
        return first(self, x) + np.float32(0.25)

    monkeypatch.setattr(RemoteClassifier, "predict", first)
    monkeypatch.setattr(RemoteClassifier, "repeat", second)
    model = ExternalModel(source="http://127.0.0.1:1/v2/models/m", mean=(0.5,), std=(0.25,))
    classifier = load_external(model, SHAPE, 10, answers=tmp_path / "answers.jsonl")
    able = probe(classifier, data.x_test, data.y_test, "auto").capabilities
    assert able.remote
    assert able.white_box is None
    assert able.nondeterminism == pytest.approx(0.25)
    assert [len(x) for x in asked] == [128, 16]
    np.testing.assert_array_equal(asked[1], asked[0][:16])


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-30, 30, width=32), min_size=4, max_size=4), min_size=1, max_size=5), st.booleans())
def test_outputs_are_never_told_wrong(rows: list[list[float]], soft: bool) -> None:
    logits = np.array(rows, np.float32)
    answers = softmax(logits, axis=1) if soft else logits
    # rows that miss the simplex by a rounding error are probabilities to one check and logits to the other
    assume(not ((answers < 0) & (answers > -1e-5)).any())
    assume(not (np.abs(np.abs(answers.sum(axis=1) - 1) - 1e-3) < 1e-4).any())
    simplex = bool((answers >= 0).all() and np.allclose(answers.sum(axis=1), 1, atol=1e-3))
    try:
        kind = decide_outputs(answers, "auto")
    except UserError:
        assert not simplex
        assert (answers >= 0).all()
    else:
        # rows that leave something out are completed, and may be logits if that is said
        completed = not simplex and form_of(answers) is not None
        assert (kind == "probabilities") == (simplex or completed)
        if completed:
            assert (answers >= 0).all()
            assert (answers <= 1.001).all()
            assert decide_outputs(answers, "logits") == "logits"
            return
    with pytest.raises(UserError):
        decide_outputs(answers, "logits" if simplex else "probabilities")


@pytest.mark.parametrize("name", ["m.safetensors", "m.pt", "script.pt"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(draw=st.data())
def test_damaged_files_are_refused_in_one_line(
    models: dict[str, Path], tmp_path: Path, data: Dataset, name: str, draw: st.DataObject
) -> None:
    content = bytearray(models[name].read_bytes())
    cut = draw.draw(st.integers(0, len(content)))
    places = draw.draw(st.lists(st.integers(0, len(content) - 1), max_size=8))
    for place in places:
        content[place] ^= draw.draw(st.integers(1, 255))
    path = tmp_path / name
    path.write_bytes(bytes(content[: cut if draw.draw(st.booleans()) else None]))
    # any other exception fails the test
    with contextlib.suppress(UserError):
        classifier = load(path, **({} if name == "script.pt" else LENET))
        probe(classifier, data.x_test, data.y_test, "auto")


@pytest.mark.parametrize("name", ["m.txt", "missing.pt", "empty"])
def test_no_model(tmp_path: Path, name: str) -> None:
    (tmp_path / "m.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"There is no model|no kind of model|holds no model"):
        load(tmp_path / name)


def test_the_name_is_the_hash_of_the_content(models: dict[str, Path], tmp_path: Path) -> None:
    settings_ = ExternalModel()
    first = external_name(str(models["m.pt"]), settings_)
    copy = tmp_path / "m.pt"
    copy.write_bytes(models["m.pt"].read_bytes())
    assert external_name(f"file:{copy}", settings_) == first
    copy.write_bytes(copy.read_bytes() + b"x")
    assert external_name(str(copy), settings_) != first
    for url in ("http://u:p@h/x", "https://h/x?api_key=abc", "https://h/x?sig=abc"):
        with pytest.raises(UserError, match="carries a credential") as error:
            external_name(url, settings_)
        assert "abc" not in str(error.value)
