"""Prepare a trainer: read preprocessing, labels, optimizer and bounds from the given classifier."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any, overload

import numpy as np
import torch
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray
from torch import Tensor, nn

from art_divqat.data.checks import check_image_shape, check_targets, float_images, is_one_hot
from art_divqat.data.stored import ImageSet, StoredImages, chunk_of
from art_divqat.defences.trainer.adversary import PixelBounds
from art_divqat.errors import UserError
from art_divqat.estimators.conventions import class_logits, gives_one_value, pixel_range
from art_divqat.estimators.quantized import QuantizedPyTorchClassifier
from art_divqat.estimators.standardisation import Architecture, standardisation_of
from art_divqat.quantization import QuantizationBackend, use_engine
from art_divqat.quantization.verification import check_fidelity, check_function

# From here on a range counts grey levels, and images within [0, 1] were left in other units.
_GREY_LEVELS = 100


def preprocess(classifier: PyTorchClassifier, x: NDArray[Any], *, fit: bool) -> Tensor:
    """The images as the classifier's network sees them, once.

    :raises UserError: for another shape, or values that are not finite or outside `clip_values`.
    """
    x = images_like(classifier, x, "The images")
    preprocessed, _ = classifier._apply_preprocessing(x, y=None, fit=fit)
    return torch.from_numpy(np.ascontiguousarray(preprocessed, dtype=np.float32))


class Preprocessed:
    """Stored images as the classifier's network sees them, a batch at a time: they may be more than memory holds.

    :param x: all of one shape; read when they are asked for.
    """

    def __init__(self, classifier: PyTorchClassifier, x: StoredImages, *, fit: bool) -> None:
        self.classifier = classifier
        self.x = x
        self.fit = fit
        self.shape = torch.Size((len(x), *classifier.input_shape))
        self.device: torch.device = classifier.device

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Tensor) -> Tensor:
        return preprocess(self.classifier, self.x[rows.cpu().numpy()], fit=self.fit).to(self.device)

    def split(self, size: int) -> Iterator[Tensor]:
        """Batches of at most `size` images."""
        for rows in torch.arange(len(self)).split(size):
            yield self[rows]


SeenImages = Tensor | Preprocessed


def evaluation_batch(images: SeenImages, most: int = 512) -> int:
    """How many images, or features, a network is asked about at once; fewer of large ones."""
    return chunk_of(tuple(images.shape[1:]), most)


@overload
def some_of(images: Tensor, most: int) -> Tensor: ...


@overload
def some_of(images: SeenImages, most: int) -> SeenImages: ...


def some_of(images: SeenImages, most: int) -> SeenImages:
    """At most so many of the images, evenly spaced."""
    step = max(1, -(-len(images) // most))
    if isinstance(images, Tensor):
        return images[::step]
    return Preprocessed(images.classifier, images.x.take(slice(None, None, step)), fit=images.fit)


def seen_images(classifier: PyTorchClassifier, x: ImageSet, *, fit: bool) -> SeenImages:
    """The images as the classifier's network sees them: all at once, or one batch after the other if they are stored.

    :raises UserError: as :func:`preprocess`, of stored images when a batch is read.
    """
    if isinstance(x, StoredImages):
        check_image_shape(x, tuple(classifier.input_shape), "The network")
        return Preprocessed(classifier, x, fit=fit)
    return preprocess(classifier, x, fit=fit).to(classifier.device)


def images_like(classifier: PyTorchClassifier, x: Any, subject: str) -> NDArray[np.float32]:
    """`x` as float32 if it has the shape and range that the classifier takes.

    :raises UserError: naming what was expected and what came.
    """
    shape, clip_values = tuple(classifier.input_shape), classifier.clip_values
    images = float_images(x, subject, shape=shape, clip_values=clip_values, tolerance=1e-4)
    white = np.inf if clip_values is None else float(np.min(clip_values[1]))
    if _GREY_LEVELS <= white < np.inf and 0 < images.max(initial=0) <= 1:
        raise UserError(
            f"{subject} lie in [0, 1], the classifier's clip_values reach {white:g}: multiply them by {white:g}, or "
            "build the classifier with clip_values=(0, 1)."
        )
    return images


def labels_as_tensor(y: NDArray[Any], nb_classes: int) -> Tensor:
    """Class ids (N,) as int64, from ids or one-hot rows; rows of probabilities stay rows, float32.

    :raises UserError: for ids outside 0 … classes − 1, or rows of another width.

    >>> labels_as_tensor(np.eye(3)[[2, 0]], 3)
    tensor([2, 0])
    """
    targets = check_targets(y, len(y), "Labels", nb_classes)
    return torch.from_numpy(targets.argmax(axis=1) if is_one_hot(targets) else targets)


def class_ids(labels: Tensor) -> Tensor:
    """Class ids (N,) of ids, or of the top class of rows."""
    return labels if labels.ndim == 1 else labels.argmax(dim=1)


def check_network(classifier: PyTorchClassifier, batch_size: int) -> None:
    """Refuse batches of one for a network with batch norm.

    :raises UserError: naming the remedy.
    """
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
    if batch_size < 2 and any(isinstance(module, norms) for module in classifier.model.modules()):
        raise UserError("Batch norm cannot be trained on batches of one image: use batch_size=2 or more.")


def rebuilt_optimizer(
    optimizer: torch.optim.Optimizer, prepared: nn.Module, learning_rate: float | None
) -> torch.optim.Optimizer:
    """A fresh optimizer of the same kind and settings on the parameters of the prepared network.

    The settings are the initial ones, because a finished schedule leaves a learning rate near zero.

    :raises UserError: if its class cannot be built from its own settings.
    """
    accepted = inspect.signature(type(optimizer)).parameters
    settings = {key: value for key, value in optimizer.defaults.items() if key in accepted}
    if learning_rate is not None:
        settings["lr"] = learning_rate
    try:
        return type(optimizer)([p for p in prepared.parameters() if p.requires_grad], **settings)
    except TypeError as error:
        raise UserError(
            f"The optimizer {type(optimizer).__name__} cannot be rebuilt from its defaults ({error}): give the "
            "classifier one of torch.optim."
        ) from error


@contextlib.contextmanager
def rebound_scheduler(scheduler: Any, optimizer: torch.optim.Optimizer) -> Iterator[Any]:
    """Let a scheduler that was built for the classifier's optimizer act on another one inside the block.

    :raises UserError: for something that neither steps nor builds something that does.
    """
    if isinstance(scheduler, type) or (scheduler is not None and not hasattr(scheduler, "step")):
        if not callable(scheduler):
            raise UserError(f"A scheduler must have step(), or build one from an optimizer. Got {scheduler!r}.")
        scheduler = scheduler(optimizer)
        if not hasattr(scheduler, "step"):
            raise UserError(f"The scheduler function returned {scheduler!r}, which has no step().")
    original = getattr(scheduler, "optimizer", None)
    if original is None or original is optimizer:
        yield scheduler
        return
    for group, source in zip(optimizer.param_groups, original.param_groups, strict=False):
        group["lr"] = source["lr"]
        if "initial_lr" in source:
            group["initial_lr"] = source["initial_lr"]
    scheduler.optimizer = optimizer
    try:
        yield scheduler
    finally:
        scheduler.optimizer = original


def pixel_bounds(classifier: PyTorchClassifier) -> PixelBounds:
    """The box of valid images and its sides, as the network sees them.

    :raises UserError: for preprocessing defences, or without `clip_values` that are finite.
    """
    pixel_range(classifier)  # refuses bounds that are not finite
    if classifier.preprocessing_defences or classifier.clip_values is None:
        raise UserError(
            "Adversarial examples in the training loop need a classifier with clip_values and without "
            "preprocessing_defences: their images would not be the ones that are attacked."
        )
    mean, std = standardisation_of(classifier) or (np.float32(0), np.float32(1))
    low, high = (np.asarray(value, np.float32) for value in classifier.clip_values)

    def shaped(value: Any) -> Tensor:
        array = np.asarray(value, np.float32)
        return torch.from_numpy(array.reshape(1, -1, 1, 1) if array.ndim <= 1 else array)

    mean_t, std_t = shaped(mean), shaped(std)
    low_t, high_t = shaped(low), shaped(high)
    return PixelBounds((low_t - mean_t) / std_t, (high_t - mean_t) / std_t, (high_t - low_t) / std_t)


def quantized_like(
    classifier: PyTorchClassifier,
    prepared: nn.Module,
    backend: QuantizationBackend,
    architecture: Architecture | None,
    images: Tensor,
    labels: Tensor | None = None,
) -> QuantizedPyTorchClassifier:
    """The quantized classifier of a prepared network, with the preprocessing and postprocessing of `classifier`.

    :param images: preprocessed images on which it is verified, with their class ids if `labels` is given.
    :raises UserError: if the int8 network is no function of the image, or not the network that was trained.
    """
    preprocessing: Any = classifier.preprocessing
    # a single value's own loss, without weights as the other's cross-entropy
    loss = type(classifier.loss)() if gives_one_value(classifier) else None
    as_logits = class_logits(classifier)
    with contextlib.suppress(UserError):
        # built anew, because ART binds it to the device of the classifier
        preprocessing = standardisation_of(classifier) or (0.0, 1.0)
    quantized = QuantizedPyTorchClassifier(
        prepared,
        backend,
        classifier.input_shape,
        classifier.nb_classes,
        architecture=architecture,
        loss=loss,
        channels_first=classifier.channels_first,
        clip_values=classifier.clip_values,
        preprocessing_defences=classifier.preprocessing_defences,
        postprocessing_defences=classifier.postprocessing_defences,
        preprocessing=preprocessing,
    )
    images, int8 = images.cpu(), quantized.int8_network
    with use_engine(backend.engine):
        check_function(int8, images, "The int8 network")
        check_function(quantized.twin, images, "The fake-quantized network")
        served, trained = (lambda x: as_logits(int8(x))), (lambda x: as_logits(quantized.twin(x)))
        check_fidelity(served, trained, images, None if labels is None else labels.cpu())
    return quantized
