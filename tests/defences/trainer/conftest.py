"""A small trained classifier and the digits, shared by the trainers' tests."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from support.trainer_helpers import fresh_classifier

from art_divqat.estimators import RecipeClassifier


@pytest.fixture(scope="session")
def digits() -> tuple[np.ndarray, np.ndarray]:
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.images))
    return (bunch.images[order, None] / 16).astype(np.float32), bunch.target[order].astype(np.int64)


@pytest.fixture(scope="session")
def teacher(digits) -> RecipeClassifier:
    x, y = digits
    classifier = fresh_classifier(epochs=4)
    classifier.fit(x[:1000], y[:1000])
    return classifier


@pytest.fixture(scope="session")
def lenet_teacher(digits) -> RecipeClassifier:
    x, y = digits
    classifier = fresh_classifier(model="lenet5", epochs=10)
    classifier.fit(x[:1000], y[:1000])
    return classifier
