"""An int8 network whose body ran before: the same answers to the last bit, from one pass an image for all its heads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from sklearn.datasets import load_digits
from torch import nn

from art_divqat.data.known_rows import forgetting
from art_divqat.defences.trainer import QATTrainer
from art_divqat.errors import UserError
from art_divqat.estimators import QuantizedPyTorchClassifier, RecipeClassifier, TrainingRecipe
from art_divqat.estimators.known_body import KnownBody
from art_divqat.models import build_model

SHAPE = (1, 8, 8)
X = (load_digits().images[:400, None] / 16).astype(np.float32)
Y = load_digits().target[:400].astype(np.int64)


def victims(backend: str, **options) -> list[QuantizedPyTorchClassifier]:
    """Two heads on one body."""
    teacher = RecipeClassifier(build_model("lenet5", SHAPE, 10, seed=0), SHAPE, 10, TrainingRecipe(epochs=2))
    teacher.fit(X[:200], Y[:200])
    found = []
    for seed in (0, 1):
        trainer = QATTrainer(teacher, train_body=False, seed=seed, backend=backend, tolerance=None, **options)
        trainer.fit(X[:200], Y[:200], nb_epochs=2, batch_size=32)
        found.append(trainer.get_classifier())
    return found


@pytest.mark.parametrize("options", [{}, {"head": "hidden"}])
@pytest.mark.parametrize("backend", ["fx", "pt2e"])
def test_answers_are_the_same_and_the_body_runs_once_for_both_heads(
    tmp_path, backend: str, options, monkeypatch
) -> None:
    if backend == "pt2e":
        pytest.importorskip("torchao")
    passed = []
    rows = KnownBody._rows
    monkeypatch.setattr(KnownBody, "_rows", lambda self, images: (passed.append(len(images)), rows(self, images))[1])
    first, second = victims(backend, **options)
    for classifier in (first, second):
        expected = classifier.predict(X[200:])
        classifier.remember_body(lambda body: tmp_path / f"{body}.sqlite")
        if backend == "fx":
            np.testing.assert_array_equal(classifier.predict(X[200:]), expected)
        else:  # float32 arithmetic, in other batches
            np.testing.assert_allclose(classifier.predict(X[200:]), expected, atol=1e-4)
    assert sum(passed) == 7 * 32
    assert len(list(tmp_path.iterdir())) == 1
    assert not np.array_equal(first.predict(X[200:]), second.predict(X[200:]))


def test_one_image_none_and_a_clock(tmp_path) -> None:
    classifier, _ = victims("fx")
    expected = classifier.predict(X[300:301])
    classifier.remember_body()
    np.testing.assert_array_equal(classifier.predict(X[300:301]), expected)
    assert classifier.predict(X[:0]).shape == (0, 10)
    with forgetting(classifier):
        assert classifier.memory is None
        np.testing.assert_array_equal(classifier.predict(X[300:301]), expected)
    assert isinstance(classifier.memory, KnownBody)


def test_preprocessing_comes_before_it() -> None:
    network = build_model("lenet5", SHAPE, 10, seed=0)
    classifier = PyTorchClassifier(
        network,
        nn.CrossEntropyLoss(),
        SHAPE,
        10,
        optimizer=torch.optim.Adam(network.parameters()),
        clip_values=(0, 1),
        preprocessing=(0.3, 0.4),
    )
    trainer = QATTrainer(classifier, train_body=False, tolerance=None)
    trainer.fit(X[:64], Y[:64], nb_epochs=1, batch_size=32)
    quantized = trainer.get_classifier()
    expected = quantized.predict(X[200:250])
    quantized.remember_body()
    np.testing.assert_array_equal(quantized.predict(X[200:250]), expected)


def test_a_network_without_a_place_to_cut_is_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    teacher = RecipeClassifier(network, SHAPE, 10, TrainingRecipe(epochs=1))
    trainer = QATTrainer(teacher, tolerance=None)
    trainer.fit(X[:64], Y[:64], nb_epochs=1)
    classifier = trainer.get_classifier()
    with pytest.raises(UserError, match="no place with 2 layers"):
        classifier.remember_body()
    assert classifier.memory is None


def test_a_network_in_a_runtime_is_in_one_piece() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    classifier, _ = victims("fx", engine="onnxruntime")
    with pytest.raises(UserError, match="in one piece"):
        classifier.remember_body()
