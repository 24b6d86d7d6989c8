"""int8 training with a hidden layer before the last: kept by name, free until it is trained."""

from __future__ import annotations

import numpy as np
import pytest
from support.trainer_helpers import SHAPE
from torch import nn

from art_divqat.defences.trainer import DivQATTrainer, QATTrainer
from art_divqat.errors import UserError
from art_divqat.estimators import QuantizedPyTorchClassifier, RecipeClassifier, TrainingRecipe


def test_a_trainer_adds_it_and_its_network_is_kept(digits, lenet_teacher, tmp_path) -> None:
    x, y = digits
    trainer = DivQATTrainer(
        lenet_teacher,
        architecture="lenet5",
        head="hidden",
        train_body=False,
        alpha_auxiliary=0,
        alpha_mixtures=0.05,
        tolerance=None,
    )
    trainer.fit(x[:200], y[:200], nb_epochs=3, batch_size=32)
    quantized = trainer.get_classifier()
    assert quantized.architecture == "hidden:lenet5"
    quantized.save("deeper", str(tmp_path))
    loaded = QuantizedPyTorchClassifier.load(str(tmp_path / "deeper"))
    np.testing.assert_array_equal(loaded.predict(x[:50]), quantized.predict(x[:50]))


def test_without_training_steps_it_costs_nothing(digits, lenet_teacher) -> None:
    """At a learning rate of next to nothing the int8 network answers as the one without the layer."""
    x, y = digits
    answers = []
    for head in ("kept", "hidden"):
        trainer = QATTrainer(lenet_teacher, head=head, learning_rate=1e-9, tolerance=None)
        trainer.fit(x[:200], y[:200], nb_epochs=1)
        answers.append(trainer.predict(x[:200]).argmax(axis=1))
    assert np.mean(answers[0] == answers[1]) > 0.95


def test_what_cannot_be_is_refused(lenet_teacher) -> None:
    with pytest.raises(UserError, match="head"):
        QATTrainer(lenet_teacher, head="deep")
    with pytest.raises(UserError, match="registered name"):
        QATTrainer(lenet_teacher, head="hidden", architecture=lambda: None)
    network = nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten())
    with pytest.raises(UserError, match=r"no nn\.Linear inside"):
        QATTrainer(RecipeClassifier(network, SHAPE, 10, TrainingRecipe()), head="hidden").fit(
            np.zeros((4, *SHAPE), np.float32), np.zeros(4, np.int64), nb_epochs=1
        )
