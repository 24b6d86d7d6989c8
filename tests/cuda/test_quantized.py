"""Quantization-aware training on a GPU: int8 networks on the CPU that know what was learnt, from one seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.digits_victim import SHAPE, digits

from art_divqat.defences.trainer import DivQATTrainer, PGDAdversary, QATTrainer
from art_divqat.estimators import RecipeClassifier, TrainingRecipe
from art_divqat.models import build_model

pytestmark = pytest.mark.cuda


@pytest.fixture(scope="module")
def parent(device: str) -> RecipeClassifier:
    images, labels = digits()
    recipe = TrainingRecipe(epochs=6, learning_rate=3e-3)
    classifier = RecipeClassifier(build_model("small-cnn", SHAPE, 10, seed=0), SHAPE, 10, recipe, device=device)
    classifier.fit(images[:900], labels[:900])
    return classifier


@pytest.mark.parametrize(
    ("trainer", "options"),
    [
        (QATTrainer, {}),
        (QATTrainer, {"adversary": PGDAdversary(eps=0.05)}),
        (DivQATTrainer, {"alpha": 0.05}),
        (DivQATTrainer, {"adversary": PGDAdversary(eps=0.05)}),
    ],
    ids=["qat", "qat, adversarial", "divqat", "divqat, adversarial"],
)
def test_int8_networks_come_of_a_gpu(parent: RecipeClassifier, trainer: Any, options: dict[str, Any]) -> None:
    images, labels = digits()
    answers = []
    for _ in range(2):
        training = trainer(parent, architecture="small-cnn", seed=0, **options)
        training.fit(images[:600], labels[:600], (images[900:1000], labels[900:1000]), batch_size=64, nb_epochs=3)
        answers.append(training.get_classifier().predict(images[1300:]))
    assert (answers[0].argmax(1) == labels[1300:]).mean() > 0.85
    np.testing.assert_array_equal(*answers)
    assert all(np.isfinite(epoch.loss) for epoch in training.history)
