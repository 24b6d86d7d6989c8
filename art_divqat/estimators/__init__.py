"""ART estimators: classifiers that train by a recipe, and the metered victim that attacks see."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "metered": ["MeteredClassifier", "QueryLedger", "UnusableAnswersError"],
        "quantized": ["QuantizedPyTorchClassifier"],
        "remote": ["RemoteClassifier"],
        "recipe": ["RecipeClassifier", "TrainingRecipe"],
    },
)

if TYPE_CHECKING:
    from art_divqat.estimators.metered import MeteredClassifier as MeteredClassifier
    from art_divqat.estimators.metered import QueryLedger as QueryLedger
    from art_divqat.estimators.metered import UnusableAnswersError as UnusableAnswersError
    from art_divqat.estimators.quantized import QuantizedPyTorchClassifier as QuantizedPyTorchClassifier
    from art_divqat.estimators.recipe import RecipeClassifier as RecipeClassifier
    from art_divqat.estimators.recipe import TrainingRecipe as TrainingRecipe
    from art_divqat.estimators.remote import RemoteClassifier as RemoteClassifier
