"""Base of the extraction attacks: query the victim, keep every paid answer, train a thief without copying images."""

from __future__ import annotations

import copy
import logging
import math
import tempfile
from typing import Any, ClassVar

import numpy as np
import torch
from art.attacks.attack import ExtractionAttack
from art.estimators.classification import PyTorchClassifier
from art.estimators.classification.classifier import ClassifierMixin
from art.estimators.estimator import BaseEstimator, NeuralNetworkMixin
from numpy.typing import NDArray
from torch import nn

from art_divqat._arrays import one_hot
from art_divqat.data.stored import ImageFile, ImageSet, StoredImages, chunk_of, is_large
from art_divqat.errors import UserError
from art_divqat.estimators import RecipeClassifier, UnusableAnswersError
from art_divqat.estimators.conventions import two_columns
from art_divqat.estimators.memory_format import probe_memory_format, set_memory_format
from art_divqat.estimators.metered import check_answers
from art_divqat.estimators.recipe import training_step
from art_divqat.parameters import Parameters, check_attributes

logger = logging.getLogger(__name__)

# Transfer sets that an attack makes (not those it picks from a pool) lie in a temporary file above this size.
DISK_ABOVE_BYTES = 256 * 2**20


def allocate(shape: tuple[int, ...], disk_above: int | None = None) -> NDArray[np.float32]:
    """An empty float32 array, memory-mapped from an unnamed temporary file if it takes more than `disk_above` bytes.

    :param disk_above: 256 MiB if not given; the file vanishes with the array.

    >>> type(allocate((2, 3))).__name__, type(allocate((2, 3), disk_above=8)).__name__
    ('ndarray', 'memmap')
    """
    if 4 * math.prod(shape) <= (DISK_ABOVE_BYTES if disk_above is None else disk_above) or 0 in shape:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=shape)


def allocate_images(count: int, shape: tuple[int, ...]) -> Any:
    """Room for images that an attack makes: float32, or, of large images, bytes in a file, rounded when written.

    >>> type(allocate_images(2, (1, 8, 8))).__name__, type(allocate_images(2, (3, 224, 224))).__name__
    ('ndarray', 'StoredImages')
    """
    if not is_large(count, shape):
        return allocate((count, *shape))
    channels, height, width = shape
    return StoredImages(ImageFile((channels, height, width), count))


def fill_images(room: Any, *parts: ImageSet) -> None:
    """Write images into the first places of a room of :func:`allocate_images`, one part after the other.

    >>> room = allocate_images(3, (1, 1, 1))
    >>> fill_images(room, np.zeros((1, 1, 1, 1), np.float32), np.ones((2, 1, 1, 1), np.float32))
    >>> room.ravel().tolist()
    [0.0, 1.0, 1.0]
    """
    place = 0
    for part in parts:
        step = chunk_of(part.shape[1:])
        for start in range(0, len(part), step):
            images = part[start : start + step]
            room[place : place + len(images)] = images
            place += len(images)


class QueryClient:
    """Asks the victim and remembers whether it has stopped answering usefully.

    :param victim: an ART classifier that answers with probabilities.
    :param batch_size: images a call.
    """

    def __init__(self, victim: Any, batch_size: int) -> None:
        self.victim = victim
        self.batch_size = batch_size
        self.stopped = False

    def ask(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """The answers to one call, of shape (kept, classes); fewer than images, and `stopped`, if some are not finite.

        :raises QueryBudgetExceededError: when the budget does not hold them all.
        :raises UserError: for answers that are not rows of probabilities.
        """
        try:
            answers = np.asarray(self.victim.predict(images, batch_size=self.batch_size), dtype=np.float32)
            if not hasattr(self.victim, "ledger"):  # a meter has looked already
                answers = two_columns(answers, probability=True)
                check_answers(answers, len(images), self.victim.nb_classes)
            return answers
        except UnusableAnswersError as error:
            self.stopped = True
            logger.warning("%s The attack stops here and keeps what it has paid for.", error)
            return error.answers

    def ask_rows(self, pool: ImageSet, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The answers to pool[rows], call by call, without holding a copy of those images.

        :raises UserError: if not one answer was usable.
        """
        answers = allocate((len(rows), self.victim.nb_classes))
        kept, step = 0, chunk_of(pool.shape[1:], self.batch_size)
        for start in range(0, len(rows), step):
            part = self.ask(np.asarray(pool[rows[start : start + step]], dtype=np.float32))
            answers[kept : kept + len(part)] = part
            kept += len(part)
            if self.stopped:
                break
        return self.checked(answers[:kept])

    def checked(self, answers: NDArray[np.float32]) -> NDArray[np.float32]:
        """The answers themselves, unless there are none.

        :raises UserError: if not one answer was usable.
        """
        if len(answers) == 0:
            raise UserError("The victim gave no usable answer: there is nothing to train a thief on.")
        return answers


def check_thief(victim: Any, thief: Any, needs_gradients: bool = False) -> Any:
    """Return the thief if it can learn from this victim's answers.

    :raises UserError: if it is no ART classifier, has another number of classes, or lacks gradients that are needed.
    """
    if not isinstance(thief, ClassifierMixin):
        raise UserError("The attack needs `thieved_classifier`, a fresh ART classifier to train.")
    if thief.nb_classes != victim.nb_classes:
        raise UserError(
            f"The thief has {thief.nb_classes} classes and the victim {victim.nb_classes}: build it with as many."
        )
    if needs_gradients and not isinstance(thief, PyTorchClassifier):
        raise UserError(
            f"The attack needs the gradients of a PyTorch thief. Got {type(thief).__name__}, which has none for it."
        )
    return thief


def fit_thief(
    thief: Any,
    images: ImageSet,
    answers: NDArray[np.float32],
    rows: NDArray[np.int64] | None = None,
    *,
    batch_size: int,
    nb_epochs: int,
) -> None:
    """Train a thief on (images[rows], answers); a `RecipeClassifier` copies no image, other classifiers need one."""
    if isinstance(thief, RecipeClassifier):
        thief.fit(images, answers, batch_size=batch_size, nb_epochs=nb_epochs, rows=rows)
        return
    chosen = np.asarray(images if rows is None else images[rows], dtype=np.float32)
    if isinstance(thief, NeuralNetworkMixin):
        thief.fit(chosen, answers, batch_size=batch_size, nb_epochs=nb_epochs, verbose=False)
    else:
        # scikit-learn's know neither batches nor soft labels, and take flat rows
        thief.fit(chosen.reshape(len(chosen), -1), one_hot(answers))


class ProxyModel:
    """A network that an attack trains on the way to choose its queries, so that the thief itself starts fresh.

    :param thief: its architecture, initial weights and optimiser settings are taken; it is not touched.
    """

    def __init__(self, thief: PyTorchClassifier) -> None:
        self.network: nn.Module = copy.deepcopy(thief.model).eval()
        self.device = thief.device
        two_images = torch.zeros(2, *thief.input_shape, device=self.device)
        set_memory_format(self.network, probe_memory_format(self.network, two_images))
        if isinstance(thief, RecipeClassifier):
            self.optimizer = thief.recipe.build_optimizer(self.network)
        else:
            self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)

    def learn(self, images: NDArray[Any], answers: NDArray[np.float32]) -> NDArray[np.float32]:
        """Take one step on the cross-entropy of the batch, and return the logits after it."""
        x = torch.from_numpy(np.ascontiguousarray(images, np.float32)).to(self.device)
        y = torch.from_numpy(np.ascontiguousarray(answers, np.float32)).to(self.device)
        self.network.train()
        training_step(self.network, self.optimizer, x, y)
        self.network.eval()
        with torch.no_grad():
            return self.network(x).cpu().numpy()


class SafeExtraction(ExtractionAttack):  # type: ignore[misc]
    """Base of this package's extraction attacks: a rejected parameter leaves the attack as it was.

    `declared` names the parameters that are checked, beside those that ART checks itself. `details` holds, after
    `extract`, numbers worth keeping; at least `images_kept` and `stopped_early`.
    """

    _estimator_requirements = (BaseEstimator, ClassifierMixin)

    declared: ClassVar[Parameters] = {}
    details: dict[str, float]

    def set_params(self, **kwargs: Any) -> None:
        """Set parameters, or none of them.

        :raises ValueError: for an unknown name or a bad value.
        """
        before = {name: getattr(self, name) for name in kwargs if name in self.attack_params}
        try:
            super().set_params(**kwargs)
        except ValueError:
            for name, value in before.items():
                setattr(self, name, value)
            raise

    def _check_params(self) -> None:
        super()._check_params()
        check_attributes(self, self.declared)

    def _note(self, kept: int, client: QueryClient, **more: float) -> None:
        self.details = {"images_kept": float(kept), "stopped_early": float(client.stopped), **more}
