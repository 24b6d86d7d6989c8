"""Select the weights of DivQAT on validation data, within a stated loss of accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray

from art_divqat._validation import check_float
from art_divqat.defences.trainer._preparation import class_ids, labels_as_tensor
from art_divqat.defences.trainer.divqat import DivQATTrainer
from art_divqat.errors import UserError
from art_divqat.estimators.conventions import top_classes
from art_divqat.estimators.quantized import QuantizedPyTorchClassifier

Weights = tuple[float, float]


@dataclass(frozen=True)
class Candidate:
    """One pair of weights and its result.

    :param accuracy: of the int8 classifier on the validation images, in [0, 1]; None if training diverged.
    :param agreement: share of the probe images that the int8 classifier and the full-precision one put in the same
        class, in [0, 1]: what a thief would learn of the original there. None if training diverged.
    """

    alpha: float
    alpha_auxiliary: float
    accuracy: float | None
    agreement: float | None


@dataclass(frozen=True)
class Selection:
    """The chosen weights, their classifier, plain QAT's accuracy, and everything that was tried.

    :param accuracy_floor: the accuracy that a candidate had to reach, in [0, 1].
    """

    alpha: float
    alpha_auxiliary: float
    classifier: QuantizedPyTorchClassifier
    plain_accuracy: float
    accuracy_floor: float
    candidates: tuple[Candidate, ...]


def select_alpha(
    classifier: PyTorchClassifier,
    x: NDArray[Any],
    y: NDArray[Any],
    validation_data: tuple[NDArray[Any], NDArray[Any]],
    probe_images: NDArray[Any],
    *,
    candidates: Sequence[Weights] = ((0.0, 0.03), (0.0, 0.1), (0.0, 0.3), (0.0, 1.0)),
    tolerance: float = 0.01,
    fit_options: dict[str, Any] | None = None,
    on_candidate: Callable[[Candidate], None] | None = None,
    **trainer_options: Any,
) -> Selection:
    """The weights whose network agrees least with its teacher on probe images and loses at most `tolerance` accuracy.

    Plain QAT is trained first, from the same seed; a candidate qualifies if its validation accuracy is at least plain
    QAT's minus `tolerance`. Among those, the one that agrees least with the full-precision classifier on
    `probe_images` is chosen; plain QAT itself is a candidate, so there is always one. No thief is trained.

    :param validation_data: (images, class ids), not used for training.
    :param probe_images: out-of-distribution images, preferably not the auxiliary ones.
    :param candidates: pairs (alpha, alpha_auxiliary).
    :param tolerance: accuracy that may be lost, a fraction in [0, 1).
    :param fit_options: passed to `fit`, such as `nb_epochs`.
    :param on_candidate: called with each :class:`Candidate` as it is done.
    :param trainer_options: passed to :class:`DivQATTrainer`.
    :raises UserError: for a tolerance outside its range, or no probe images.

    >>> from sklearn.datasets import load_digits
    >>> from art_divqat.estimators import RecipeClassifier, TrainingRecipe
    >>> from art_divqat.models import build_model
    >>> x, y = load_digits().images[:, None] / 16, load_digits().target
    >>> victim = RecipeClassifier(build_model("lenet5", (1, 8, 8), 10, seed=0), (1, 8, 8), 10, TrainingRecipe(epochs=1))
    >>> victim.fit(x[:300], y[:300])
    >>> chosen = select_alpha(
    ...     victim, x[:300], y[:300], (x[300:400], y[300:400]), 1 - x[400:500],
    ...     candidates=[(0.0, 0.3)], fit_options={"nb_epochs": 1}, auxiliary=1 - x[:300],
    ... )
    >>> len(chosen.candidates)
    2
    """
    tolerance = check_float("select_alpha", "tolerance", tolerance, 0, 1, closed="left")
    if len(probe_images) == 0:
        raise UserError("select_alpha needs probe images off the training distribution. Got none.")
    images, labels = validation_data
    labels = class_ids(labels_as_tensor(labels, classifier.nb_classes)).numpy()
    original = top_classes(classifier, probe_images)

    def attempt(weights: Weights) -> tuple[Candidate, QuantizedPyTorchClassifier | None]:
        # what each lost is compared here
        options = {**trainer_options, "alpha": weights[0], "alpha_auxiliary": weights[1], "tolerance": None}
        trainer = DivQATTrainer(classifier, **options)
        try:
            trainer.fit(x, y, validation_data=validation_data, **(fit_options or {}))
        except UserError:
            if weights == (0.0, 0.0):
                raise  # not the divergence term's doing
            return Candidate(*weights, None, None), None
        quantized = trainer.get_classifier()
        accuracy = float(np.mean(top_classes(quantized, images) == labels))
        agreement = float(np.mean(top_classes(quantized, probe_images) == original))
        return Candidate(*weights, accuracy, agreement), quantized

    tried: list[Candidate] = []
    best: tuple[Candidate, QuantizedPyTorchClassifier] | None = None
    floor = plain_accuracy = 0.0
    for weights in [(0.0, 0.0), *[pair for pair in candidates if tuple(pair) != (0.0, 0.0)]]:
        candidate, quantized = attempt((float(weights[0]), float(weights[1])))
        tried.append(candidate)
        if on_candidate is not None:
            on_candidate(candidate)
        if quantized is None or candidate.accuracy is None or candidate.agreement is None:
            continue
        if best is None:
            plain_accuracy, floor = candidate.accuracy, candidate.accuracy - tolerance
            best = candidate, quantized
        elif candidate.accuracy >= floor and candidate.agreement < (best[0].agreement or 0.0):
            best = candidate, quantized
    assert best is not None  # plain QAT raises rather than diverge in silence
    return Selection(best[0].alpha, best[0].alpha_auxiliary, best[1], plain_accuracy, floor, tuple(tried))
