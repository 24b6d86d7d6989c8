"""Conformance check of architectures: test your own against the contract."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from art_divqat._rng import isolated_random_state
from art_divqat.models.registry import ModelEntry
from art_divqat.registry import load_target
from art_divqat.testing._common import require

if TYPE_CHECKING:
    from torch import nn

_SUBJECT = "The model"
_CLASSES = 3


def check_architecture(entry: ModelEntry) -> None:
    """Build networks for grey and for colour images and check what every architecture must keep.

    It gives a float32 `torch.nn.Module` that maps (N, C, H, W) to finite logits (N, classes), for images as small as
    the entry says too; a gradient reaches its weights; in eval mode an image's answer does not depend on its batch;
    its first weights come from torch's global generator alone, so that one seed gives one network; it can be copied,
    and kept and restored as safetensors. An entry that says `two_layers` must be linear, ReLU, linear.

    :raises AssertionError: naming what was broken.

    >>> from art_divqat.models.registry import MODELS
    >>> check_architecture(MODELS["lenet5"])
    """
    least = entry.smallest_side
    for shape in ((1, least, least), (3, max(least, 8), max(least, 8) + 4)):
        _check_shape(entry, shape)


def _check_shape(entry: ModelEntry, shape: tuple[int, int, int]) -> None:
    import torch
    from torch import nn

    network = _built(entry, shape, seed=0)
    require(isinstance(network, nn.Module), _SUBJECT, f"built a {type(network).__name__}: expected a torch.nn.Module")
    images = torch.from_numpy(np.random.default_rng(0).random((6, *shape), np.float32))
    logits = network.train()(images)
    size = f"for images of shape {shape}"
    expected = (6, _CLASSES)
    require(tuple(logits.shape) == expected, _SUBJECT, f"answers {tuple(logits.shape)} {size}: expected {expected}")
    require(logits.dtype == torch.float32, _SUBJECT, f"answers in {logits.dtype}: expected torch.float32")
    require(bool(torch.isfinite(logits).all()), _SUBJECT, f"gives logits that are not finite {size}")
    logits.square().sum().backward()
    reached = [bool((p.grad != 0).any()) for p in network.parameters() if p.grad is not None]
    require(any(reached), _SUBJECT, "has no weight that a gradient reaches: it cannot be trained")
    network.eval()
    with torch.no_grad():
        together, alone = network(images), torch.cat([network(image[None]) for image in images])
    close = torch.allclose(together, alone, rtol=1e-4, atol=1e-4)
    require(close, _SUBJECT, "answers differently in another batch, in eval mode")
    rows_sum_to_one = bool((together >= 0).all()) and bool(((together.sum(dim=1) - 1).abs() < 1e-4).all())
    require(not rows_sum_to_one, _SUBJECT, "gives probabilities: leave the softmax out, logits are expected")
    _check_seeds(entry, shape)
    _check_copies(entry, network, shape, images)


def _built(entry: ModelEntry, shape: tuple[int, int, int], seed: int) -> Any:
    with isolated_random_state("checked model", seed):
        return load_target(entry.build)(shape, _CLASSES)


def _check_seeds(entry: ModelEntry, shape: tuple[int, int, int]) -> None:
    first, again, other = (_flat(_built(entry, shape, seed)) for seed in (0, 0, 1))
    alone = "draw its first weights from torch's global generator alone"
    require(np.array_equal(first, again), _SUBJECT, f"has other weights for the same seed: {alone}")
    require(not np.array_equal(first, other), _SUBJECT, f"has the same weights for another seed: {alone}")


def _flat(network: nn.Module) -> Any:
    return np.concatenate([value.detach().numpy().ravel() for value in network.parameters()])


def _check_copies(entry: ModelEntry, network: nn.Module, shape: tuple[int, int, int], images: Any) -> None:
    import torch

    from art_divqat.attacks.extraction.fee import hidden_units
    from art_divqat.estimators import RecipeClassifier, TrainingRecipe
    from art_divqat.victims.store import VictimStore

    restored = _built(entry, shape, seed=1)
    with tempfile.TemporaryDirectory() as folder:
        store = VictimStore(Path(folder))
        try:
            store.save_weights({}, network)
        except RuntimeError as error:
            raise AssertionError(f"{_SUBJECT} has weights that safetensors cannot keep: {error}") from error
        require(store.load_weights({}, restored), _SUBJECT, "cannot be restored from its state dict")
    with torch.no_grad():
        expected = network(images)
        for same, what in ((copy.deepcopy(network), "copied"), (restored.eval(), "restored from its state dict")):
            require(torch.allclose(same(images), expected, atol=1e-5), _SUBJECT, f"answers differently once {what}")
    two = hidden_units(RecipeClassifier(network, shape, _CLASSES, TrainingRecipe())) is not None
    require(two or not entry.two_layers, _SUBJECT, "says two_layers and is not linear, ReLU, linear")
