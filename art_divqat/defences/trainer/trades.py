"""TRADES: CE(f(x), y) + β KL(f(x) ‖ f(x')), with x' the point of the ball where that divergence is largest."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from art_divqat._validation import check_float
from art_divqat.defences.trainer._adversarial_loop import AdversarialLoop


class TradesTrainer(AdversarialLoop):
    """Trade clean accuracy for stability: cross-entropy on the images, divergence of the answers within the ball.

    This replaces ART's version, which takes the first layer's output for the answer of an `nn.Sequential`, refuses
    every scheduler of torch 2, and validates on data that it preprocessed twice.

    :param beta: weight of the divergence, in (0, inf); the paper's 6 by default.

    Zhang, Yu, Jiao, Xing, El Ghaoui and Jordan, Theoretically Principled Trade-off between Robustness and Accuracy,
    ICML 2019.

    >>> import numpy as np
    >>> from art_divqat.estimators import RecipeClassifier, TrainingRecipe
    >>> from art_divqat.models import build_model
    >>> victim = RecipeClassifier(build_model("lenet5", (1, 8, 8), 10, seed=0), (1, 8, 8), 10, TrainingRecipe())
    >>> trainer = TradesTrainer(victim, epsilon=0.2, beta=3.0, nb_epochs=1)
    >>> trainer.fit(np.full((8, 1, 8, 8), 0.5, np.float32), np.arange(8))
    """

    def __init__(self, classifier: Any, *, epsilon: float, beta: float = 6.0, **settings: Any) -> None:
        super().__init__(classifier, epsilon=epsilon, **settings)
        self.beta = check_float(self, "beta", beta, 0, closed="neither")

    def _perturb(self, images: Tensor, labels: Tensor, radius: float) -> Tensor:
        with torch.no_grad():
            natural = self._inner(images).log_softmax(1)
        # The divergence and its gradient are zero at the image itself, so the paper starts a little beside it.
        noise = torch.empty_like(images).normal_(generator=self._generator)
        start = (images + 0.001 * noise).clamp_(0, 1)
        return self._ascend(start, images, lambda x: _divergence(natural, self._inner(x)) * len(x), radius)

    def _loss(self, images: Tensor, perturbed: Tensor, labels: Tensor) -> Tensor:
        natural = self._logits(images)
        divergence = _divergence(natural.log_softmax(1), self._logits(perturbed))
        return self._cross_entropy(natural, labels) + self.beta * divergence


def _divergence(log_natural: Tensor, logits: Tensor) -> Tensor:
    """Mean over the batch of KL(natural ‖ perturbed)."""
    return nn.functional.kl_div(logits.log_softmax(1), log_natural, reduction="batchmean", log_target=True)
