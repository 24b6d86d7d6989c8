"""Static adversarial training: craft examples once on the natural network, then train on clean + adversarial."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from art_divqat._types import Progress
from art_divqat.attacks.evasion.crafting import craft
from art_divqat.defences.trainer._adversarial_loop import AdversarialLoop
from art_divqat.errors import UserError
from art_divqat.estimators.recipe import batches


class StaticTrainer(AdversarialLoop):
    """Train, craft PGD examples on the result, start again from the same weights on both sets of images.

    Follows what the paper's released code computes, but with `max_iter` steps that can reach the edge of the ball. The
    examples come from a network that no longer exists: expect robustness to these examples, but little to a fresh
    attack.

    Khaled, Nicolescu and Gohring de Magalhães, arXiv 2207.10561 (ε = 0.03 or 0.05 there).

    >>> import numpy as np
    >>> from art_divqat.estimators import RecipeClassifier, TrainingRecipe
    >>> from art_divqat.models import build_model
    >>> victim = RecipeClassifier(build_model("lenet5", (1, 8, 8), 10, seed=0), (1, 8, 8), 10, TrainingRecipe())
    >>> trainer = StaticTrainer(victim, epsilon=0.05, nb_epochs=2)
    >>> trainer.fit(np.full((8, 1, 8, 8), 0.5, np.float32), np.arange(8))
    >>> len(trainer.history)  # two natural epochs and two on both sets
    4
    """

    def _perturb(self, images: Tensor, labels: Tensor, radius: float) -> Tensor:
        return images

    def _fit(
        self, images: Tensor, labels: Tensor, validation_data: Any, batch_size: int, epochs: int, scheduler: Any
    ) -> None:
        weights = {name: value.detach().clone() for name, value in self._network.state_dict().items()}
        natural = len(batches(torch.arange(len(images)), batch_size))
        both = len(batches(torch.arange(2 * len(images)), batch_size))
        steps = (natural + both) * epochs
        self._run(self._shuffled(images, labels, batch_size), natural, epochs, progress=self._part(0, steps))
        crafted = craft(
            self._classifier,
            images.numpy(),
            labels.numpy(),
            epsilon=self.epsilon,
            steps=self.max_iter,
            step_size=self.eps_step,
            seed=self.seed,
        )
        images = torch.cat([images, torch.from_numpy(crafted)])
        labels = torch.cat([labels, labels])
        self._network.load_state_dict(weights)
        self._optimizer.state.clear()
        epoch, validation = self._shuffled(images, labels, batch_size), self._validation(validation_data)
        self._run(epoch, both, epochs, validation, scheduler, progress=self._part(natural * epochs, steps))

    def _part(self, before: int, total: int) -> Progress | None:
        """The trainer's progress for a training run that starts after `before` of `total` steps."""
        progress = self.progress
        return None if progress is None else lambda done, _: progress(before + done, total)

    def fit_generator(self, generator: Any, *args: Any, **kwargs: Any) -> None:
        """Refused: the examples are crafted once, on all images.

        :raises UserError: always.
        """
        raise UserError("StaticTrainer crafts its examples once on all images: use fit with arrays.")
