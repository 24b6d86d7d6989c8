"""Adversarial training against PGD: min over θ of E max over |δ| ≤ ε of CE(f(x + δ), y)."""

from __future__ import annotations

from torch import Tensor, nn

from art_divqat.defences.trainer._adversarial_loop import AdversarialLoop


class MadryPGDTrainer(AdversarialLoop):
    """Descend on CE(f(x'), y), with x' from `max_iter` PGD steps on the same loss from a uniform start in the ball.

    ART's `AdversarialTrainerMadryPGD` in one loop on the device: same method, ε in units of [0, 1] pixels, validation
    data that is used, and class ids or one-hot labels. Parameters and errors are those of the common loop.

    Madry, Makelov, Schmidt, Tsipras and Vladu, Towards Deep Learning Models Resistant to Adversarial Attacks,
    ICLR 2018.

    >>> import numpy as np
    >>> from art_divqat.estimators import RecipeClassifier, TrainingRecipe
    >>> from art_divqat.models import build_model
    >>> victim = RecipeClassifier(build_model("lenet5", (1, 8, 8), 10, seed=0), (1, 8, 8), 10, TrainingRecipe())
    >>> trainer = MadryPGDTrainer(victim, epsilon=0.2, nb_epochs=2, max_iter=3)
    >>> trainer.fit(np.full((8, 1, 8, 8), 0.5, np.float32), np.arange(8))
    >>> len(trainer.history), trainer.get_classifier() is victim
    (2, True)
    """

    def _perturb(self, images: Tensor, labels: Tensor, radius: float) -> Tensor:
        start = self._uniform_start(images, radius)
        return self._ascend(
            start, images, lambda x: nn.functional.cross_entropy(self._inner(x), labels, reduction="sum"), radius
        )
