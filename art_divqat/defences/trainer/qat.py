"""Quantization-aware training: turn a full-precision ART classifier into an int8 one."""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from art.defences.trainer import Trainer
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray
from torch import Tensor, nn

from art_divqat._types import EpochProgress
from art_divqat._validation import check_bool, check_choice, check_float, check_int, parameter_error
from art_divqat.data.checks import check_pairs
from art_divqat.data.stored import ImageSet
from art_divqat.defences.trainer._loop import Batch, EpochRecord, Objective, QATLoop, shuffled_batches
from art_divqat.defences.trainer._preparation import (
    SeenImages,
    check_network,
    class_ids,
    evaluation_batch,
    labels_as_tensor,
    pixel_bounds,
    quantized_like,
    rebound_scheduler,
    rebuilt_optimizer,
    seen_images,
)
from art_divqat.defences.trainer._student import Student
from art_divqat.defences.trainer.adversary import as_adversary
from art_divqat.defences.trainer.centring import Centring, mean_before
from art_divqat.defences.trainer.comparison import AccuracyComparison, compare_accuracy
from art_divqat.defences.trainer.divqat_parameters import HEADS
from art_divqat.errors import AccuracyLossWarning, UserError
from art_divqat.estimators.conventions import (
    check_answers,
    class_logits,
    cross_entropy_like,
    warn_of_other_loss,
)
from art_divqat.estimators.quantized import QuantizedPyTorchClassifier
from art_divqat.estimators.standardisation import Architecture
from art_divqat.models.hidden import last_linear, with_hidden_layer
from art_divqat.quantization import get_backend, use_engine
from art_divqat.quantization.modes import check_weights

logger = logging.getLogger(__name__)

Validation = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class _Run:
    """One training: the network, batches of images or features an epoch, and the images that they come from."""

    student: Student
    source: Callable[[int], Iterable[Batch]]
    steps: int
    epochs: int
    objective: Objective
    teacher: Callable[[Tensor], Tensor]
    known: tuple[SeenImages, Tensor]


class QATTrainer(Trainer):  # type: ignore[misc]
    """Plain quantization-aware training: minimise CE(f_Q(x), y) over the weights of the fake-quantized network f_Q.

    Starts from the classifier's weights, with a fresh optimiser of the same kind and settings on the prepared network's
    own parameters. The given classifier does not change; :meth:`get_classifier` returns the int8 one. Follows
    Jacob et al., CVPR 2018 (arXiv 1712.05877).

    After :meth:`fit`, `history` has one record per epoch, and `comparison` an :class:`AccuracyComparison` of the int8
    network with the given classifier.

    Network code that reads `self.training` itself (`F.dropout(x, p, self.training)`, stochastic depth) always runs as
    in eval mode, also in training; dropout and batch norm modules keep both modes.

    :param classifier: an ART `PyTorchClassifier` with an optimizer; its network must give one logit a class, or with
        `BCEWithLogitsLoss` a single one for two. CE is the classifier's loss where that is a cross-entropy, class
        weights and label smoothing included, and the plain cross-entropy for any other, with a
        :class:`~art_divqat.errors.LossMismatchWarning`; so with a network that gives probabilities, which are then
        taken for logits. It may be adversarially trained.
    :param backend: `fx` or `pt2e`; see :func:`~art_divqat.quantization.get_backend`.
    :param engine: the int8 engine; None takes the best this CPU has.
    :param learning_rate: in (0, inf); None takes the one that the classifier's optimizer was built with.
    :param adversary: a :class:`PGDAdversary` or an ART `ProjectedGradientDescent` (its settings are used): train on
        adversarial examples of f_Q instead of the images.
    :param architecture: for the quantized classifier's `save` and `load`: a registered model's name or a function.
    :param train_body: False freezes the network's body at the classifier's weights, calibrates it, and trains only the
        layers after it, the last two layers with weights or more (:class:`~art_divqat.quantization.halves.Halves`).
        Every image passes through the body once, so training takes seconds with frozen public weights. Not with
        `adversary`.
    :param body_cache: with `train_body=False`, a folder for the body's ranges and its features of the training images:
        trainers with the same body and images, such as those of other seeds and weights, run it once. None keeps
        nothing.
    :param head: `kept`, or `hidden` for a hidden layer before the network's last one; at first, the answers stay the
        same (:func:`~art_divqat.models.hidden.with_hidden_layer`); saved as `hidden:ARCHITECTURE`.
    :param frozen_fraction: share of the epochs, at the end, with observers and batch norm frozen; in [0, 1).
    :param tolerance: accuracy that may be lost, in [0, 1). After training, the int8 network is compared with the given
        classifier on the validation images, or on the training images if there are none. If significantly more was
        lost, an :class:`~art_divqat.errors.AccuracyLossWarning` says so. None for no warning.
    :param seed: decides the order of the images, random starts and dropout. The global random state is not touched.
    :raises UserError: if the classifier is no `PyTorchClassifier`, has no optimizer, its network gives something else
        than logits, cannot be traced, or is no function in eval mode; from :meth:`fit`, if the int8 network is not one
        or not near the fake-quantized one.

    >>> from sklearn.datasets import load_digits
    >>> from art_divqat.estimators import RecipeClassifier, TrainingRecipe
    >>> from art_divqat.models import build_model
    >>> x, y = load_digits().images[:200, None] / 16, load_digits().target[:200]
    >>> network = build_model("lenet5", (1, 8, 8), 10, seed=0)
    >>> trainer = QATTrainer(RecipeClassifier(network, (1, 8, 8), 10, TrainingRecipe()), architecture="lenet5")
    >>> trainer.fit(x, y, nb_epochs=1)
    >>> trainer.predict(x[:3]).shape
    (3, 10)
    """

    remedy: ClassVar[str] = "Train more epochs, or give a lower learning_rate."

    def __init__(
        self,
        classifier: PyTorchClassifier,
        *,
        backend: str = "fx",
        engine: str | None = None,
        learning_rate: float | None = None,
        adversary: Any = None,
        architecture: Architecture | None = None,
        train_body: bool = True,
        body_cache: Path | None = None,
        head: str = "kept",
        frozen_fraction: float = 0.25,
        tolerance: float | None = 0.02,
        seed: int = 0,
    ) -> None:
        if not isinstance(classifier, PyTorchClassifier) or isinstance(classifier, QuantizedPyTorchClassifier):
            raise parameter_error(
                self, "classifier", "a full-precision ART PyTorchClassifier", type(classifier).__name__
            )
        if classifier.optimizer is None:
            raise UserError(
                f"{type(self).__name__} needs a classifier with an optimizer, whose kind and settings it takes over: "
                "build the PyTorchClassifier with optimizer=torch.optim.Adam(model.parameters())."
            )
        check_answers(self, classifier)
        check_weights(classifier.model)
        warn_of_other_loss(self, classifier)
        super().__init__(classifier)
        self.backend = get_backend(backend, engine)
        self.learning_rate = (
            None if learning_rate is None else check_float(self, "learning_rate", learning_rate, 0, closed="neither")
        )
        self._bounds = None if adversary is None else pixel_bounds(classifier)
        self.adversary = as_adversary(adversary, classifier.clip_values)
        check_choice(self, "head", head, HEADS)
        self.head = head
        if head == "hidden" and callable(architecture):
            raise UserError("With head='hidden' the architecture must be a registered name, or None: got a function.")
        self.architecture = f"hidden:{architecture}" if head == "hidden" and architecture else architecture
        self.train_body = check_bool(self, "train_body", train_body)
        self.body_cache = body_cache
        if self.adversary is not None and not self.train_body:
            raise UserError("An adversary asks for gradients through the body of the network: use train_body=True.")
        self.frozen_fraction = check_float(self, "frozen_fraction", frozen_fraction, 0, 1, closed="left")
        self.tolerance = None if tolerance is None else check_float(self, "tolerance", tolerance, 0, 1, closed="left")
        self.seed = check_int(self, "seed", seed)
        self.history: list[EpochRecord] = []
        self.comparison: AccuracyComparison | None = None
        self._quantized: QuantizedPyTorchClassifier | None = None

    def fit(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        validation_data: Validation | None = None,
        batch_size: int = 128,
        nb_epochs: int = 10,
        scheduler: Any = None,
        verbose: bool = False,
        progress: EpochProgress | None = None,
    ) -> None:
        """Train a quantized copy of the classifier; every call starts again from the given classifier.

        :param x: images of shape (N, C, H, W), in the classifier's range.
        :param y: class ids (N,), one-hot rows or probabilities (N, classes).
        :param validation_data: (images, labels); the epoch with the best accuracy on them is kept.
        :param batch_size: images a step, at least 1, at least 2 for a network with batch norm.
        :param nb_epochs: at least 1.
        :param scheduler: anything with `step`, bound to the classifier's optimizer (it is made to act on the new one
            while training runs), or a function from an optimizer to such a thing. Stepped once an epoch. None lets the
            learning rate fall to zero along half a cosine.
        :param verbose: log a line an epoch, at level INFO.
        :param progress: called with (steps done, total steps, current activity: "epoch 2/10", or work before or after
            the steps, such as "auxiliary images").
        :raises UserError: for bad images, labels or sizes, a loss that is not finite, or an int8 network that is no
            function of the image or far less accurate than the fake-quantized one; accuracy is compared on the
            validation data, or on the first batch without any.
        """
        check_int(self, "batch_size", batch_size, 1)
        check_int(self, "nb_epochs", nb_epochs, 1)
        images, labels = self._tensors(x, y, fit=True)
        check_network(self._classifier, min(batch_size, len(images)))
        teacher = self._teacher()
        steps = nb_epochs * max(1, math.ceil(len(images) / batch_size))
        student = self._student(images)
        objective = self._objective(teacher, student, x, batch_size, steps, progress)
        answers = None
        if objective.alpha > 0 and self.adversary is None:
            # The images stay as they are, so the teacher is asked once and not once an epoch.
            answers = ask_in_batches(teacher, images)
        source = shuffled_batches(student.seen(images), labels, answers, batch_size, self.seed)
        run = _Run(student, source, steps, nb_epochs, objective, teacher, (images, labels))
        self._train(run, validation_data, scheduler, verbose, progress)

    def fit_generator(
        self,
        generator: Any,
        nb_epochs: int = 10,
        validation_data: Validation | None = None,
        scheduler: Any = None,
        verbose: bool = False,
        progress: EpochProgress | None = None,
    ) -> None:
        """Train like :meth:`fit` on the batches of an ART `DataGenerator`; its images may be augmented.

        The teacher is then asked in every step. Auxiliary images are drawn in proportion to the generator's batch size.
        """
        check_int(self, "nb_epochs", nb_epochs, 1)
        steps_an_epoch = max(1, math.ceil(generator.size / generator.batch_size))
        check_network(self._classifier, generator.batch_size)
        teacher = self._teacher()

        def next_batch() -> tuple[SeenImages, Tensor]:
            x, y = generator.get_batch()
            return self._tensors(np.asarray(x), np.asarray(y), fit=True)

        first = next_batch()
        student = self._student(first[0])

        def source(epoch: int) -> Iterator[Batch]:
            for step in range(steps_an_epoch):
                images, labels = first if epoch == step == 0 else next_batch()
                answers = None
                if objective.alpha > 0 and not self.train_body:
                    answers = ask_in_batches(teacher, images)
                seen = student.seen(images)
                assert isinstance(seen, Tensor)
                yield Batch(seen, labels, answers)

        steps = nb_epochs * steps_an_epoch
        objective = self._objective(teacher, student, None, generator.batch_size, steps, progress)
        run = _Run(student, source, steps, nb_epochs, objective, teacher, first)
        self._train(run, validation_data, scheduler, verbose, progress)

    def predict(self, x: NDArray[Any], **kwargs: Any) -> NDArray[np.float32]:
        """What the int8 classifier answers; see :meth:`QuantizedPyTorchClassifier.predict`."""
        return self.get_classifier().predict(x, **kwargs)

    def get_classifier(self) -> QuantizedPyTorchClassifier:
        """The quantized classifier.

        :raises UserError: before :meth:`fit`.
        """
        if self._quantized is None:
            raise UserError(f"{type(self).__name__} has no quantized classifier yet: call fit first.")
        return self._quantized

    def _student(self, images: SeenImages) -> Student:
        network, mean = self._classifier.model, None
        if self.head == "hidden":
            mean = mean_before(last_linear(network), network, images) if self._mixes else None
            name, network = last_linear(network), with_hidden_layer(network, self.seed, mean)
        prepared = self.backend.prepare(network, self._classifier.input_shape)
        student = Student(
            prepared, self.backend, images, train_body=self.train_body, mixes=self._mixes, cache=self.body_cache
        )
        if mean is not None:
            weight, bias = (prepared.get_parameter(f"{name}.0.{each}") for each in ("weight", "bias"))
            student.centring = Centring(weight, bias, mean)
        return student

    @property
    def _mixes(self) -> bool:
        """Whether the objective asks for mixtures of features."""
        return False

    def _objective(
        self,
        teacher: Callable[[Tensor], Tensor],
        student: Student,
        x: ImageSet | None,
        batch_size: int,
        steps: int,
        progress: EpochProgress | None,
    ) -> Objective:
        return Objective()

    def _train(
        self,
        run: _Run,
        validation_data: Validation | None,
        scheduler: Any,
        verbose: bool,
        progress: EpochProgress | None,
    ) -> None:
        """Train; the comparison comes after it and draws nothing: the weights are those without it."""
        classifier, student = self._classifier, run.student
        self.comparison = None
        if validation_data is not None and len(validation_data) != 2:
            raise UserError(f"validation_data must be a pair, images and labels. Got {len(validation_data)} things.")
        validation = None if validation_data is None else self._tensors(*validation_data, fit=False)
        if validation is not None:
            validation = validation[0], class_ids(validation[1])
        optimizer = rebuilt_optimizer(classifier.optimizer, student.network, self.learning_rate)
        with rebound_scheduler(scheduler, optimizer) as bound:
            loop = QATLoop(
                student,
                self.backend,
                optimizer,
                run.objective,
                teacher=run.teacher,
                seed=self.seed,
                as_logits=class_logits(classifier),
                cross_entropy=cross_entropy_like(classifier.loss).to(classifier.device),
                adversary=self.adversary,
                bounds=None if self._bounds is None else self._bounds.to(classifier.device),
                frozen_fraction=self.frozen_fraction,
                scheduler=bound,
                progress=progress,
                on_epoch=(lambda record: logger.info("%s", record)) if verbose else None,
            )
            seen = None if validation is None else (student.seen(validation[0]), validation[1])
            images, labels = run.known if validation is None else validation
            try:
                loop.run(run.epochs, run.source, run.steps, seen)
            finally:
                self.history = loop.history
                self._quantized = None
                if loop.holds_a_result:
                    if progress is not None:
                        progress(run.steps, run.steps, "int8 network")
                    first = next(iter(images.split(evaluation_batch(images))))
                    proof = first, class_ids(labels)[: len(first)]
                    self._quantized = quantized_like(
                        classifier, student.network, self.backend, self.architecture, *proof
                    )
        source_name = "training images" if validation is None else "validation images"
        self._compare(run.teacher, images, class_ids(labels), source_name)

    def _compare(self, teacher: Callable[[Tensor], Tensor], images: SeenImages, labels: Tensor, source: str) -> None:
        """Set :attr:`comparison`, also in the last record of the history, and warn if it is past the tolerance."""
        int8, as_logits = self.get_classifier().int8_network, class_logits(self._classifier)
        with use_engine(self.backend.engine):
            found = compare_accuracy(teacher, lambda x: as_logits(int8(x)), images, labels, source)
        self.comparison = self.history[-1].comparison = found
        if self.tolerance is not None and found.exceeds(self.tolerance):
            remedy = self.remedy if self.adversary is None else f"Adversarial examples cost accuracy. {self.remedy}"
            message = f"{type(self).__name__}: {found}, past the tolerance of {self.tolerance:g}. {remedy}"
            warnings.warn(AccuracyLossWarning(message), stacklevel=4)

    def _teacher(self) -> Callable[[Tensor], Tensor]:
        network: nn.Module = copy.deepcopy(self._classifier.model).eval().requires_grad_(False)
        as_logits = class_logits(self._classifier)

        def ask(images: Tensor) -> Tensor:
            with torch.no_grad():
                return as_logits(network(images))

        return ask

    def _tensors(self, x: ImageSet, y: NDArray[Any], *, fit: bool) -> tuple[SeenImages, Tensor]:
        classifier = self._classifier
        check_pairs(len(x), len(y))
        labels = labels_as_tensor(y, classifier.nb_classes)
        return seen_images(classifier, x, fit=fit), labels.to(classifier.device)


def ask_in_batches(
    teacher: Callable[[Tensor], Tensor], images: SeenImages, progress: Callable[[int], None] | None = None
) -> Tensor:
    """The teacher's logits on all images.

    :param progress: called with the number of images that were answered.
    """
    answers: list[Tensor] = []
    size = evaluation_batch(images)
    for part in images.split(size):
        if progress is not None:
            progress(len(answers) * size)
        answers.append(teacher(part))
    return torch.cat(answers)
