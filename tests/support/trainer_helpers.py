"""What the trainers' tests build."""

from __future__ import annotations

from art_divqat.estimators import RecipeClassifier, TrainingRecipe
from art_divqat.models import build_model

SHAPE = (1, 8, 8)


def fresh_classifier(seed: int = 0, model: str = "small-cnn", **recipe) -> RecipeClassifier:
    return RecipeClassifier(build_model(model, SHAPE, 10, seed=seed), SHAPE, 10, TrainingRecipe(**recipe), seed=seed)
