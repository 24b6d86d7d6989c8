"""Adversarial training and evasion on a GPU: networks become robust, in either precision, from one seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.digits_victim import SHAPE, digits

from art_divqat.attacks.evasion import craft
from art_divqat.estimators import RecipeClassifier, TrainingRecipe
from art_divqat.models import build_model
from art_divqat.victims.registry import VICTIMS, robust_trainer

pytestmark = pytest.mark.cuda

NAMES = [name for name in VICTIMS if VICTIMS[name].trainer is not None]
EPSILON = 0.15
FAST = {"precision": "bfloat16", "cuda_graphs": True}


def robust(device: str, name: str, epochs: int = 8, **options: Any) -> RecipeClassifier:
    images, labels = digits()
    recipe = TrainingRecipe(epochs=epochs, learning_rate=3e-3, **options)
    classifier = RecipeClassifier(build_model("small-cnn", SHAPE, 10, seed=0), SHAPE, 10, recipe, device=device)
    trainer = robust_trainer(name).build(
        classifier, epsilon=EPSILON, epochs=epochs, batch_size=64, inner_precision=recipe.precision
    )
    trainer.fit(images[:900], labels[:900])
    return classifier


def accuracy_under_attack(classifier: RecipeClassifier) -> float:
    images, labels = digits()
    crafted = craft(classifier, images[1300:], labels[1300:], epsilon=EPSILON, steps=20)
    assert np.abs(crafted - images[1300:]).max() <= EPSILON
    return float((classifier.predict(crafted).argmax(1) == labels[1300:]).mean())


@pytest.fixture(scope="module")
def plain(device: str) -> RecipeClassifier:
    images, labels = digits()
    recipe = TrainingRecipe(epochs=8, learning_rate=3e-3)
    classifier = RecipeClassifier(build_model("small-cnn", SHAPE, 10, seed=0), SHAPE, 10, recipe, device=device)
    classifier.fit(images[:900], labels[:900])
    return classifier


@pytest.mark.parametrize("options", [{}, FAST], ids=["float32", "bfloat16, recorded"])
@pytest.mark.parametrize("name", [name for name in NAMES if name != "robust-static"])
def test_it_makes_robust_in_either_precision(
    device: str, plain: RecipeClassifier, name: str, options: dict[str, Any]
) -> None:
    if options and not device.startswith("cuda"):
        pytest.skip("most CPUs emulate bfloat16, which takes minutes")
    assert accuracy_under_attack(robust(device, name, **options)) > accuracy_under_attack(plain) + 0.1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in NAMES),
        *((name, FAST | {"augmentation": "crop-flip"}) for name in ("robust", "robust-trades")),
    ],
)
def test_one_seed_gives_one_network(device: str, name: str, options: dict[str, Any]) -> None:
    # eight epochs of fifteen steps are enough of them to be recorded
    epochs = 8 if device.startswith("cuda") else 1
    one, other = (robust(device, name, epochs, **options).model.state_dict() for _ in range(2))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "autoattack", "square"])
def test_attacks_find_on_the_device_what_they_find_on_the_cpu(
    device: str, plain: RecipeClassifier, attack: str
) -> None:
    images, labels = digits()[0][1300:1360], digits()[1][1300:1360]
    if attack == "autoattack":  # whose searches take long
        few = 16 if device.startswith("cuda") else 4
        images, labels = images[:few], labels[:few]
    on_cpu = RecipeClassifier(build_model("small-cnn", SHAPE, 10, seed=1), SHAPE, 10, TrainingRecipe())
    on_cpu.model.load_state_dict({name: value.cpu() for name, value in plain.model.state_dict().items()})
    left = []
    for classifier in (plain, on_cpu):
        crafted = craft(
            classifier, images, labels, attack=attack, epsilon=0.1, steps=50 if attack == "square" else None
        )
        assert np.abs(crafted - images).max() <= np.float32(0.1)
        assert crafted.min() >= 0
        assert crafted.max() <= 1
        left.append((on_cpu.predict(crafted).argmax(1) == labels).mean())
        if attack == "autoattack":
            break
    assert abs(left[0] - left[-1]) < 0.15
    if attack == "pgd":
        again = craft(plain, images, labels, attack=attack, epsilon=0.1)
        np.testing.assert_array_equal(crafted if classifier is plain else again, again)
