"""Classifiers that start from a public network: a linear head on its features, then optionally the whole network."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from art_divqat._types import Progress, Rows, Shape
from art_divqat.data.checks import is_one_hot
from art_divqat.data.known_rows import KNOWN_BATCH, KnownRows, shared_rows
from art_divqat.data.stored import ImageSet, chunk_of, take
from art_divqat.estimators.memory_format import probe_memory_format, set_memory_format
from art_divqat.estimators.recipe import RecipeClassifier, TrainingRecipe
from art_divqat.models.registry import MODELS
from art_divqat.models.shrunk import Shrunk
from art_divqat.models.weights import FrozenBody, KeptStatistics, public_body

# L2 on the weights of the head, of standardised features: answers to a few hundred photographs and to thousands, soft
# and hard, are learned about as well by it as by any between a third and three times of it
WEIGHT_DECAY = 3e-3
_STEPS = 200


class Features:
    """φ(x): the output of a frozen public network before its head, computed once per image.

    :param body: images (N, C, H, W) in [0, 1] to features (N, width); it is put into eval mode and never trained.
    :param width: how many features.
    :param device: where it computes.
    :param path: a file that other processes and later runs share; None for this process alone.
    """

    def __init__(
        self, body: nn.Module, width: int, shape: Shape, device: str = "cpu", path: Path | None = None
    ) -> None:
        self.body = body.to(device).eval().requires_grad_(False)
        self.width = width
        self.shape = shape
        self.device = torch.device(device)
        self._batch = chunk_of(shape, KNOWN_BATCH)
        self.memory: KnownRows | None = KnownRows(lambda images: self.computed(images), self._batch, path)
        set_memory_format(self.body, probe_memory_format(self.body, torch.zeros(2, *shape, device=self.device)))

    def __call__(self, images: ImageSet, progress: Progress | None = None) -> NDArray[np.float32]:
        """The features of images, (N, width); without a memory of those that were computed, computed again."""
        if not len(images):
            return np.zeros((0, self.width), np.float32)
        return KnownRows(self.computed, self._batch)(images) if self.memory is None else self.memory(images, progress)

    def computed(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """The features of a batch, whether they are known or not."""
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
            return self.body(batch).float().cpu().numpy()  # type: ignore[no-any-return]


def fit_head(
    features: NDArray[np.float32],
    targets: NDArray[Any],
    nb_classes: int,
    weight_decay: float = WEIGHT_DECAY,
    *,
    balanced: bool = False,
) -> nn.Linear:
    """min over W, b of −mean Σₖ yₖ log softmax(W z + b)ₖ + λ‖W‖² / 2, z the standardised features; by L-BFGS from zero.

    No seed, no schedule. The returned head takes unstandardised features.

    :param features: (N, width).
    :param targets: class ids (N,) or rows of probabilities (N, classes).
    :param weight_decay: λ.
    :param balanced: with labels, subtract the log of each class's frequency from its logit, because class frequencies
        among the queries are arbitrary and the head is used on balanced classes. No effect with probabilities.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((60, 4)).astype(np.float32)
    >>> head = fit_head(x, (x[:, 0] > 0).astype(np.int64), 2)
    >>> bool((head(torch.from_numpy(x)).argmax(1).numpy() == (x[:, 0] > 0)).mean() > 0.95)
    True
    """
    x = torch.from_numpy(features).double()
    y = torch.from_numpy(np.asarray(targets))
    y = functional.one_hot(y, nb_classes) if y.ndim == 1 else y
    y = y.double()
    mean, std = x.mean(0), x.std(0, correction=0)
    std = torch.where(std > 1e-6, std, torch.ones_like(std))
    z = (x - mean) / std
    weight = torch.zeros(x.shape[1], nb_classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(nb_classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -(y * functional.log_softmax(z @ weight + bias, dim=1)).sum(1).mean()
        loss = loss + weight_decay / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    head = nn.Linear(x.shape[1], nb_classes)
    with torch.no_grad():
        scaled = weight / std[:, None]
        head.weight.copy_(scaled.T)
        head.bias.copy_(bias - mean @ scaled)
        if balanced and (np.ndim(targets) == 1 or is_one_hot(np.asarray(targets))):
            # a class that never came counts as half a time
            head.bias.sub_((y.sum(0).clamp(min=0.5) / len(y)).log())
    return head


@functools.lru_cache(maxsize=4)
def public_features(
    model: str, weights: str, shape: Shape, device: str = "cpu", download: bool = False, seen: Shape | None = None
) -> Features:
    """The features of a public network, shared by all classifiers in this process that start from it.

    :param model: an architecture, and `weights` whose; see :func:`art_divqat.models.weights.load_public`.
    :param shape: (channels, height, width) of the images.
    :param seen: the smaller shape to which they are shrunk for the network, if any.
    :raises UserError: for weights that are not there or do not fit.
    """
    body, width = _body(model, weights, shape, seen, download)
    path = None
    if device == "cpu":
        state = hashlib.sha256()
        for name, value in body.state_dict().items():
            state.update(name.encode() + value.numpy().tobytes())
        path = shared_rows("features", MODELS.canonical(model), MODELS.origin(model), shape, seen, state.hexdigest())
    return Features(body, width, shape, device, path)


def _body(model: str, weights: str, shape: Shape, seen: Shape | None, download: bool) -> tuple[nn.Module, int]:
    if seen is None:
        return public_body(model, weights, shape, download=download)
    body, width = public_body(model, weights, seen, download=download)
    return Shrunk(body, seen[1:]), width


class HeadProbe:
    """A head of its own on the features: what the answers give away to somebody who trains nothing else."""

    def __init__(self, features: Features, head: nn.Linear) -> None:
        self._features = features
        self._head = head

    def predict(self, x: ImageSet) -> Rows:
        """Logits, (N, classes)."""
        with torch.no_grad():
            return self._head(torch.from_numpy(self._features(x))).numpy()  # type: ignore[no-any-return]


class PublicClassifier(RecipeClassifier):
    """An ART classifier with a public body: `fit` fits a linear head on its features and, if it is tuned, then all.

    Fine-tuning begins from the fitted head, by the recipe, and keeps the statistics of batch norms; the head alone is
    then its `probe`.

    :param features: of the public network, shared by all that begin from it.
    :param body: that network once more, to be trained, if it is to be tuned; None shares the frozen one.
    :param balanced: see :func:`fit_head`.
    """

    probe: HeadProbe | None = None

    def __init__(
        self,
        features: Features,
        nb_classes: int,
        recipe: TrainingRecipe,
        *,
        body: nn.Module | None = None,
        balanced: bool = False,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        head = nn.Linear(features.width, nb_classes)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        shared = FrozenBody(features.body)
        network = nn.Sequential(shared if body is None else KeptStatistics(body.requires_grad_(True)), head)
        super().__init__(network, features.shape, nb_classes, recipe, seed=seed, device=device)
        self.features = features
        self._tunes = body is not None
        self._balanced = balanced

    @property
    def memory(self) -> KnownRows | None:
        """The features that were computed already, where its answers are made of them."""
        return None if self._tunes else self.features.memory

    @memory.setter
    def memory(self, memory: KnownRows | None) -> None:
        self.features.memory = memory

    def _learn(
        self,
        x: ImageSet,
        y: NDArray[Any],
        batch_size: int | None,
        nb_epochs: int | None,
        rows: NDArray[np.int64] | None,
    ) -> None:
        _, labels, _ = self._check_training_set(x, np.asarray(y), rows)
        images = x if rows is None else take(x, rows)
        features = self.features(images, None if self._tunes else self.progress)
        head = fit_head(features, labels.numpy(), self.nb_classes, balanced=self._balanced)
        self.model[1].load_state_dict(head.state_dict())
        if self._tunes:
            super()._learn(x, y, batch_size, nb_epochs, rows)
            self.probe = HeadProbe(self.features, head)

    def logits(self, x: NDArray[Any], batch_size: int = 512) -> NDArray[np.float32]:
        """The network's answers, from the features that are known already where its body is the public one."""
        if self._tunes:
            return super().logits(x, batch_size)
        with torch.no_grad():
            features = torch.from_numpy(self.features(x)).to(self._device)
            return self.model[1](features).cpu().numpy()  # type: ignore[no-any-return]


def begun_publicly(
    model: str,
    weights: str,
    shape: Shape,
    nb_classes: int,
    recipe: TrainingRecipe,
    *,
    tuned: bool,
    balanced: bool = False,
    seen: Shape | None = None,
    seed: int = 0,
    device: str = "cpu",
    download: bool = False,
) -> PublicClassifier:
    """A classifier that begins from public weights: see :class:`PublicClassifier`.

    :param tuned: whether all of it is trained after its head.
    :param balanced: see :func:`fit_head`.
    :param seen: the shape that images are shrunk to before it sees them, if it is smaller.
    :raises UserError: for weights that are not there or do not fit.
    """
    seen = None if seen == shape else seen
    features = public_features(model, weights, shape, device, download, seen)
    body = _body(model, weights, shape, seen, download)[0] if tuned else None
    return PublicClassifier(features, nb_classes, recipe, body=body, balanced=balanced, seed=seed, device=device)
