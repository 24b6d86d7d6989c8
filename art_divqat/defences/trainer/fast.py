"""Fast adversarial training: train on one step of 1.25 ε from a uniform start, projected into the ball."""

from __future__ import annotations

from typing import Any

from art_divqat._validation import check_float
from art_divqat.defences.trainer.madry import MadryPGDTrainer


class FastTrainer(MadryPGDTrainer):
    """Train on CE at FGSM examples from random starts: each step costs two passes instead of eight.

    Measure its robustness with more than one step: it may overfit to the single step (catastrophic overfitting). With
    `validation_data`, the best epoch before that is kept. The learning rate is the classifier's; ART's `FBF` replaces
    it by its own schedule and needs one-hot labels.

    :param relative_step: the step in units of ε, in [1, 2]; the paper's 1.25 by default.

    Wong, Rice and Kolter, Fast is better than free: Revisiting adversarial training, ICLR 2020.

    >>> import numpy as np
    >>> from art_divqat.estimators import RecipeClassifier, TrainingRecipe
    >>> from art_divqat.models import build_model
    >>> victim = RecipeClassifier(build_model("lenet5", (1, 8, 8), 10, seed=0), (1, 8, 8), 10, TrainingRecipe())
    >>> FastTrainer(victim, epsilon=0.2, nb_epochs=1).fit(np.full((8, 1, 8, 8), 0.5, np.float32), np.arange(8))
    """

    def __init__(self, classifier: Any, *, epsilon: float, relative_step: float = 1.25, **settings: Any) -> None:
        super().__init__(classifier, epsilon=epsilon, max_iter=1, **settings)
        self.eps_step = self.epsilon * check_float(self, "relative_step", relative_step, 1, 2)
