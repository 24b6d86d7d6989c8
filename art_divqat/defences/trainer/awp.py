"""Adversarial weight perturbation: min over θ of max over ‖v‖ ≤ γ‖θ‖ of the adversarial loss at θ + v."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from art_divqat._validation import check_float
from art_divqat.defences.trainer.madry import MadryPGDTrainer


class AWPTrainer(MadryPGDTrainer):
    """PGD adversarial training with the gradient taken at the worst nearby weights, for a flatter loss.

    One ascent step of length γ‖w‖ in every weight tensor (not in biases and norms), the gradient there, and back.
    Unlike ART's, it writes no checkpoints and needs no second classifier as a proxy.

    :param gamma: length of the step relative to the weights, in (0, 1]; the paper's 0.01 by default.
    :param awp_warm_up: fraction of the run before weights are perturbed, in [0, 1].

    Wu, Xia and Wang, Adversarial Weight Perturbation Helps Robust Generalization, NeurIPS 2020.

    >>> import numpy as np
    >>> from art_divqat.estimators import RecipeClassifier, TrainingRecipe
    >>> from art_divqat.models import build_model
    >>> victim = RecipeClassifier(build_model("lenet5", (1, 8, 8), 10, seed=0), (1, 8, 8), 10, TrainingRecipe())
    >>> AWPTrainer(victim, epsilon=0.2, nb_epochs=1).fit(np.full((8, 1, 8, 8), 0.5, np.float32), np.arange(8))
    """

    def __init__(
        self, classifier: Any, *, epsilon: float, gamma: float = 0.01, awp_warm_up: float = 0.1, **settings: Any
    ) -> None:
        super().__init__(classifier, epsilon=epsilon, **settings)
        self.gamma = check_float(self, "gamma", gamma, 0, 1, closed="right")
        self.awp_warm_up = check_float(self, "awp_warm_up", awp_warm_up, 0, 1)

    def _update(self, images: Tensor, perturbed: Tensor, labels: Tensor) -> Tensor:
        if self._fraction_done < self.awp_warm_up:
            return super()._update(images, perturbed, labels)
        weights = [w for w in self._network.parameters() if w.requires_grad and w.ndim > 1]
        assert self._descent is not None
        loss_of = self._descent.loss
        # The pass that finds the step must not count in the running statistics of batch norms.
        statistics = [buffer.clone() for buffer in self._network.buffers()]
        gradients = torch.autograd.grad(loss_of(images, perturbed, labels), weights, allow_unused=True)
        kept = [weight.detach().clone() for weight in weights]
        with torch.no_grad():
            for buffer, value in zip(self._network.buffers(), statistics, strict=True):
                buffer.copy_(value)
            for weight, gradient in zip(weights, gradients, strict=True):
                if gradient is not None:
                    weight.add_(gradient * (self.gamma * weight.norm() / gradient.norm().clamp_min(1e-12)))
        self._optimizer.zero_grad(set_to_none=True)
        loss = loss_of(images, perturbed, labels)
        loss.backward()
        with torch.no_grad():
            for weight, value in zip(weights, kept, strict=True):
                weight.copy_(value)
        self._optimizer.step()
        return loss.detach()
