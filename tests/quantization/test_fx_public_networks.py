"""Networks that begin from public weights become int8 networks: the standardisation in front, and timm's layers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from art_divqat.defences.trainer import QATTrainer, quantize_post_training
from art_divqat.estimators import QuantizedPyTorchClassifier, RecipeClassifier, TrainingRecipe
from art_divqat.models import build_model, load_public

MODELS = ["torchvision:resnet18", "timm:tf_efficientnet_lite0"]


@pytest.fixture(scope="module", params=[(MODELS[0], 3), (MODELS[1], 1)], ids=["resnet18", "lite0 on grey images"])
def begun(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, RecipeClassifier]:
    """The architecture's name, and a classifier that was trained for a little from random public weights."""
    model, channels = request.param
    if model.startswith("timm"):
        pytest.importorskip("timm")
    shape = (channels, 33, 40)
    file = tmp_path_factory.mktemp("weights") / "public.safetensors"
    save_file(build_model(model, (3, *shape[1:]), 9, seed=5).state_dict(), file)
    network = load_public(model, str(file), shape, 3, seed=0)
    classifier = RecipeClassifier(network, shape, 3, TrainingRecipe(epochs=3, batch_size=24), seed=0)
    classifier.fit(*images(shape))
    return f"normalised:{model}", classifier


def images(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    y = np.arange(48) % 3
    noise = np.random.default_rng(0).random((48, *shape), np.float32)
    return (0.3 * noise + 0.3 * y[:, None, None, None]).astype(np.float32), y


def test_post_training(begun: tuple[str, RecipeClassifier], tmp_path: Path) -> None:
    name, classifier = begun
    x, _ = images(classifier.input_shape)
    quantized = quantize_post_training(classifier, x, architecture=name, backend="fx")
    kinds = [type(module) for module in quantized.int8_network.modules()]
    assert not any(
        issubclass(kind, (nn.BatchNorm2d, nn.Conv2d)) and kind.__module__.startswith("torch.nn") for kind in kinds
    )
    assert np.corrcoef(quantized.predict(x).ravel(), classifier.predict(x).ravel())[0, 1] > 0.95
    quantized.save(tmp_path / "kept")
    loaded = QuantizedPyTorchClassifier.load(tmp_path / "kept")
    assert np.array_equal(loaded.predict(x), quantized.predict(x))


def test_quantization_aware_training(begun: tuple[str, RecipeClassifier]) -> None:
    name, classifier = begun
    x, y = images(classifier.input_shape)
    before = {key: value.clone() for key, value in classifier.model.state_dict().items()}
    trainer = QATTrainer(classifier, architecture=name, seed=0, tolerance=None)
    # it compares the int8 network with its twin, and raises where they part
    trainer.fit(x, y, nb_epochs=1, batch_size=24)
    answers = trainer.get_classifier().predict(x)
    assert answers.shape == (48, 3)
    assert np.abs(answers - classifier.predict(x)).max() > 1e-3
    # the teacher stays as it was
    assert all(torch.equal(value, before[key]) for key, value in classifier.model.state_dict().items())
