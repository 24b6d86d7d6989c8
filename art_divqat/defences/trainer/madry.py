"""Adversarial training with PGD (Madry et al., ICLR 2018; arXiv 1706.06083), on tensors from end to end."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from art.defences.trainer import Trainer
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray
from torch import Tensor, nn

from art_divqat._rng import derive_seed, isolated_random_state
from art_divqat._validation import check_float, check_int
from art_divqat.attacks.evasion.craft import check_epsilon
from art_divqat.attacks.evasion.pgd import pgd_step, random_start
from art_divqat.errors import UserError
from art_divqat.estimators.recipe import RecipeClassifier, batches


class MadryPGDTrainer(Trainer):  # type: ignore[misc]
    """min_θ E max_{‖δ‖∞ ≤ ε} CE(f_θ(x + δ), y): every step trains on PGD examples crafted on the network as it is.

    The method of ART's `AdversarialTrainerMadryPGD`, without its copies between numpy and torch for every batch and
    without gradients for the weights while examples are crafted. ε is in units of [0, 1] pixels: ART's default of 8 is
    refused.

    :param classifier: an ART `PyTorchClassifier` with an optimiser; trained in place. A `RecipeClassifier` brings its
        schedule along.
    :param epsilon: the radius, in (0, 1].
    :param step_size: of the inner maximisation; ε/4 if not given, as ART's defaults have it.
    :param steps: of the inner maximisation.
    :param warm_up: the fraction of the steps over which ε grows linearly from 0, in [0, 1).
    :param seed: decides shuffling and random starts; the global random state is left alone.

    >>> from art_divqat.estimators import TrainingRecipe
    >>> from art_divqat.models import build_model
    >>> network = build_model("lenet5", (1, 8, 8), 10, seed=0)
    >>> classifier = RecipeClassifier(network, (1, 8, 8), 10, TrainingRecipe(epochs=1))
    >>> trainer = MadryPGDTrainer(classifier, epsilon=0.1, steps=4)
    >>> trainer.fit(np.zeros((4, 1, 8, 8), np.float32), np.array([0, 1, 2, 3]), nb_epochs=1)
    >>> len(trainer.history)
    1
    """

    def __init__(
        self,
        classifier: PyTorchClassifier,
        epsilon: float,
        step_size: float | None = None,
        steps: int = 7,
        *,
        warm_up: float = 0.0,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        if not isinstance(classifier, PyTorchClassifier):
            raise UserError(f"MadryPGDTrainer needs an ART PyTorchClassifier. Got {type(classifier).__name__}.")
        if classifier.optimizer is None:
            raise UserError("MadryPGDTrainer needs a classifier with an optimizer: pass one to PyTorchClassifier.")
        super().__init__(classifier)
        self.epsilon = check_epsilon(epsilon)
        self.step_size = check_float(self, "step_size", epsilon / 4 if step_size is None else step_size, 0)
        self.steps = check_int(self, "steps", steps, 1)
        if self.steps * self.step_size < self.epsilon:
            raise UserError(
                f"{steps} steps of {self.step_size:g} cannot reach the edge of a ball of ε = {epsilon:g}: take more or "
                "larger steps."
            )
        self.warm_up = check_float(self, "warm_up", warm_up, 0, 1, closed="left")
        self.seed = check_int(self, "seed", seed, 0)
        self.progress = progress
        self.history: list[dict[str, float]] = []

    def fit(
        self,
        x: NDArray[np.float32],
        y: NDArray[Any],
        validation_data: tuple[NDArray[np.float32], NDArray[Any]] | None = None,
        batch_size: int = 128,
        nb_epochs: int = 20,
        **kwargs: Any,
    ) -> None:
        """Train in place; `history` gets the mean adversarial loss of every epoch.

        :param x: images (N, C, H, W) in [0, 1].
        :param y: class ids (N,) or one-hot rows (N, classes).
        :param validation_data: (x, y) whose clean accuracy is added to `history`.
        :raises UserError: for labels of another length, or a loss that is not finite.
        """
        del kwargs
        if len(x) == 0 or len(x) != len(y):
            raise UserError(f"Training needs as many labels as images, and at least one. Got {len(x)} and {len(y)}.")
        device = self._classifier.device
        images = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).to(device)
        ids = np.asarray(y).argmax(axis=1) if np.ndim(y) == 2 else np.asarray(y)
        labels = torch.from_numpy(np.ascontiguousarray(ids, dtype=np.int64)).to(device)
        with isolated_random_state("adversarial training", self.seed):
            self._train(images, labels, batch_size, nb_epochs, validation_data)

    def _train(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        epochs: int,
        validation: tuple[NDArray[np.float32], NDArray[Any]] | None,
    ) -> None:
        generator = torch.Generator().manual_seed(derive_seed("adversarial shuffle", self.seed))
        done, total = 0, epochs * len(batches(torch.arange(len(images)), batch_size))
        for _ in range(epochs):
            order = torch.randperm(len(images), generator=generator).to(images.device)
            epoch_loss = torch.zeros((), device=images.device)
            for rows in batches(order, batch_size):
                fraction = done / total
                epsilon = self.epsilon * min(1.0, fraction / self.warm_up) if self.warm_up else self.epsilon
                loss = self._step(images[rows], labels[rows], epsilon, fraction, generator)
                epoch_loss += loss * len(rows)
                done += 1
                if self.progress is not None:
                    self.progress(done, total)
            self._end_epoch(float(epoch_loss) / len(images), validation)
        self._classifier.model.eval()

    def _step(self, x: Tensor, y: Tensor, epsilon: float, fraction: float, generator: torch.Generator) -> Tensor:
        network, optimizer = self._classifier.model, self._classifier.optimizer
        network.eval()
        perturbed = random_start(x, epsilon, generator)
        step_size = self.step_size * epsilon / self.epsilon if self.epsilon else 0.0
        for _ in range(self.steps):
            perturbed = pgd_step(network, x, y, perturbed, epsilon, step_size)
        network.train()
        if isinstance(self._classifier, RecipeClassifier):
            for group in optimizer.param_groups:
                group["lr"] = self._classifier.recipe.learning_rate_at(fraction)
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.cross_entropy(network(perturbed), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def _end_epoch(self, loss: float, validation: tuple[NDArray[np.float32], NDArray[Any]] | None) -> None:
        if not math.isfinite(loss):
            raise UserError(f"Adversarial training diverged: the loss is {loss}. Lower the learning rate.")
        entry = {"loss": loss}
        if validation is not None:
            x, y = validation
            ids = np.asarray(y).argmax(axis=1) if np.ndim(y) == 2 else np.asarray(y)
            entry["validation_accuracy"] = float(np.mean(self._classifier.predict(x).argmax(axis=1) == ids))
        self.history.append(entry)

    def predict(self, x: NDArray[Any], **kwargs: Any) -> NDArray[Any]:
        """What the trained classifier answers."""
        answers: NDArray[Any] = self._classifier.predict(x, **kwargs)
        return answers
