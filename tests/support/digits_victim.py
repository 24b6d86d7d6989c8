"""A small network trained on scikit-learn's digits: made once for a session, cheap to attack."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from art.defences.postprocessor import Postprocessor
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from art_divqat.estimators import MeteredClassifier, QueryLedger, RecipeClassifier, TrainingRecipe
from art_divqat.models import build_model

SHAPE = (1, 8, 8)


class SoftmaxRows(Postprocessor):
    """Logits to probabilities; the tests' own, independent of the package's postprocessor."""

    def __init__(self) -> None:
        super().__init__(is_fitted=True, apply_fit=False, apply_predict=True)

    def __call__(self, preds: NDArray[Any]) -> NDArray[Any]:
        exponentials = np.exp(preds - preds.max(axis=1, keepdims=True))
        return exponentials / exponentials.sum(axis=1, keepdims=True)


@functools.lru_cache
def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """1,797 images in [0, 1] in a fixed random order, and their labels."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.images))
    images = (data.images[order] / 16).astype(np.float32)[:, None]
    return images, data.target[order].astype(np.int64)


@functools.lru_cache
def victim(name: str = "small-cnn", epochs: int = 6) -> RecipeClassifier:
    """Trained on the first 900 images; answers with probabilities."""
    images, labels = digits()
    network = build_model(name, SHAPE, 10, seed=100)
    classifier = RecipeClassifier(
        network, SHAPE, 10, TrainingRecipe(epochs=epochs, learning_rate=3e-3), postprocessing_defences=[SoftmaxRows()]
    )
    classifier.fit(images[:900], labels[:900])
    return classifier


def metered(budget: int | None = None, **options: Any) -> MeteredClassifier:
    """The victim behind a fresh ledger."""
    return MeteredClassifier(victim(), QueryLedger(budget, **options))


def thief(epochs: int = 5, seed: int = 0, name: str = "lenet5") -> RecipeClassifier:
    """A fresh thief."""
    network = build_model(name, SHAPE, 10, seed=seed)
    return RecipeClassifier(network, SHAPE, 10, TrainingRecipe(epochs=epochs, learning_rate=3e-3), seed=seed)


def agreement(classifier: Any, images: NDArray[np.float32] | None = None) -> float:
    """Share of the last 497 images on which the classifier and the victim give the same class."""
    images = digits()[0][1300:] if images is None else images
    return float((classifier.predict(images).argmax(1) == victim().predict(images).argmax(1)).mean())
