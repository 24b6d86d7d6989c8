"""Surrogates of the gradient defences: networks untrained, trained on the victim's answers, or trained to be wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from art_divqat._rng import derive_seed, isolated_random_state
from art_divqat.errors import UserError
from art_divqat.models import build_model

if TYPE_CHECKING:
    from art_divqat.estimators import TrainingRecipe


def untrained_surrogate(
    input_shape: tuple[int, int, int], nb_classes: int, *, model: str = "small-cnn", seed: int
) -> nn.Module:
    """A freshly initialised network in eval mode, as MAD uses it.

    >>> untrained_surrogate((1, 8, 8), 10, seed=0).training
    False
    """
    return build_model(model, input_shape, nb_classes, seed=derive_seed("surrogate", seed)).eval()


def train_surrogate(
    x: npt.NDArray[Any],
    answers: npt.NDArray[Any],
    *,
    model: str = "small-cnn",
    recipe: TrainingRecipe | None = None,
    seed: int,
    device: str = "cpu",
) -> nn.Module:
    """A network trained with cross-entropy on the victim's answers, as GRAD² uses it.

    :param x: images (N, C, H, W), float32 in [0, 1].
    :param answers: the victim's probabilities for them, (N, classes).
    :param model: architecture by name.
    :param recipe: default: ten epochs.
    """
    from art_divqat.estimators import RecipeClassifier

    shape, nb_classes = _shape_of(x), answers.shape[1]
    network = build_model(model, shape, nb_classes, seed=derive_seed("surrogate", seed))
    classifier = RecipeClassifier(network, shape, nb_classes, recipe or _default_recipe(), seed=seed, device=device)
    classifier.fit(x, answers)
    return network.eval()


def train_misinformation(
    x: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    nb_classes: int,
    *,
    model: str = "small-cnn",
    recipe: TrainingRecipe | None = None,
    seed: int,
    device: str = "cpu",
) -> nn.Module:
    """A network trained with −log(1 − p_y) to give the right class no probability.

    :param x: images (N, C, H, W), float32 in [0, 1].
    :param labels: their class ids, (N,).
    :param model: architecture by name.
    :param recipe: default: ten epochs.
    """
    from art_divqat.estimators.recipe import batches

    if len(x) == 0 or len(x) != len(labels):
        raise UserError(f"Training needs as many labels as images, and at least one. Got {len(x)} and {len(labels)}.")
    recipe = recipe or _default_recipe()
    network = build_model(model, _shape_of(x), nb_classes, seed=derive_seed("misinformation", seed)).to(device)
    images = torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(device)
    targets = torch.from_numpy(np.ascontiguousarray(labels, np.int64)).to(device)
    optimizer = recipe.build_optimizer(network)
    generator = torch.Generator().manual_seed(derive_seed("misinformation", "shuffle", seed))
    steps = recipe.epochs * len(batches(torch.arange(len(images)), recipe.batch_size))
    done = 0
    with isolated_random_state("misinformation", seed):
        network.train()
        for _ in range(recipe.epochs):
            order = torch.randperm(len(images), generator=generator).to(device)
            for rows in batches(order, recipe.batch_size):
                for group in optimizer.param_groups:
                    group["lr"] = recipe.learning_rate_at(done / steps)
                optimizer.zero_grad(set_to_none=True)
                misinformation_loss(network(images[rows]), targets[rows]).backward()
                optimizer.step()
                done += 1
    return network.eval()


def misinformation_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """mean of −log(1 − softmax(z)_y) = logsumexp(z) − logsumexp(z without y), which does not cancel at p_y = 1.

    >>> misinformation_loss(torch.tensor([[100.0, 0.0]]), torch.tensor([0]))
    tensor(100.)
    """
    others = logits.scatter(1, labels[:, None], float("-inf"))
    return (torch.logsumexp(logits, dim=1) - torch.logsumexp(others, dim=1)).mean()


def _shape_of(x: npt.NDArray[Any]) -> tuple[int, int, int]:
    if x.ndim != 4:
        raise UserError(f"A surrogate trains on images of shape (N, C, H, W) but got {x.ndim}D, shape {x.shape}.")
    return x.shape[1], x.shape[2], x.shape[3]


def _default_recipe() -> TrainingRecipe:
    from art_divqat.estimators import TrainingRecipe

    return TrainingRecipe(epochs=10)
