"""DivQAT: quantization-aware training that moves the answers away from the full-precision teacher's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from art.estimators.classification import PyTorchClassifier
from numpy.typing import NDArray
from torch import Tensor

from art_divqat._rng import derive_seed
from art_divqat._types import EpochProgress
from art_divqat._validation import check_bool
from art_divqat.data.auxiliary import compose_auxiliary
from art_divqat.data.stored import ImageSet, StoredImages
from art_divqat.defences.trainer._loop import Objective
from art_divqat.defences.trainer._preparation import images_like, preprocess
from art_divqat.defences.trainer._student import Student
from art_divqat.defences.trainer.divqat_parameters import DIVQAT_NUMBERS
from art_divqat.defences.trainer.qat import QATTrainer, ask_in_batches
from art_divqat.errors import UserError

_ALONE = "give images with auxiliary= and auxiliary_mixture=False"


class DivQATTrainer(QATTrainer):
    """Minimise CE(f_Q(x), y) − α T² D(f(x), f_Q(x)) − Σ α_a [T² D(f(a), f_Q(a)) − γ S − δ P]; f is frozen.

    f is the full-precision network, the teacher. D compares softmax(f / T) with softmax(f_Q / T). a are auxiliary
    images, from outside the training distribution, with weight α_aux; and, with weight α_mix, mixtures of the features
    of two or three training images of different classes (:func:`~art_divqat.defences.trainer.mixtures.mixed`), at the
    point where :class:`~art_divqat.quantization.halves.Halves` cuts the network. S is the spread of the answers f_Q(a),
    P their distance from the uniform answer. The first two terms are the published method (Khaled, Gohring de
    Magalhães, Nicolescu: DivQAT, 2025; arXiv 2512.23948); the rest is this project's, and `docs/divqat.md` explains it.
    With α = α_aux = α_mix = 0 this is :class:`QATTrainer`, bit for bit.

    :param classifier: an ART `PyTorchClassifier` with an optimizer; the teacher, left as it was.
    :param alpha: α, weight on training images; in [0, inf). The published method has α > 0.
    :param temperature: T, in (0, inf).
    :param divergence: `js` (bounded by log 2), `kl` (teacher‖student: the literal reading) or `kl-reverse`.
    :param max_divergence: cap on D for one image, in nats; None for none. Without a cap, a KL can grow without bound.
    :param auxiliary: images of the kind that an attacker may query, of the classifier's shape and range, (N, C, H, W).
        They join a mixture that needs no download (:func:`~art_divqat.data.auxiliary.default_auxiliary`), as one more
        of its families (:func:`~art_divqat.data.auxiliary.compose_auxiliary`). None for the mixture alone.
    :param alpha_auxiliary: α_aux, weight on auxiliary images; in [0, inf).
    :param alpha_mixtures: α_mix, weight on mixtures of features, as many a step as there are training images; in
        [0, inf). They need no images, and earlier layers get no gradient from them.
    :param spread_penalty: γ, in [0, inf), relative to α_aux and α_mix.
    :param confidence_penalty: δ, in [0, inf), likewise.
    :param auxiliary_fraction: auxiliary images a step, as a share of the batch size; in (0, 1].
    :param auxiliary_mixture: False makes no mixture and uses all of `auxiliary` alone. That protects only against an
        attacker with similar images.
    :param options: those of :class:`QATTrainer`, `tolerance` for the accuracy that may be lost among them.
    :raises UserError: for a weight that is negative or not finite, auxiliary images of another shape or range or none
        at all, and where :class:`QATTrainer` does.

    >>> from sklearn.datasets import load_digits
    >>> from art_divqat.estimators import RecipeClassifier, TrainingRecipe
    >>> from art_divqat.models import build_model
    >>> x, y = load_digits().images[:200, None] / 16, load_digits().target[:200]
    >>> network = build_model("lenet5", (1, 8, 8), 10, seed=0)
    >>> classifier = RecipeClassifier(network, (1, 8, 8), 10, TrainingRecipe())
    >>> trainer = DivQATTrainer(classifier, auxiliary=1 - x)  # 200 images beside the 6,000 of the mixture
    >>> trainer.fit(x, y, nb_epochs=2)
    >>> trainer.history[-1].divergence_auxiliary > trainer.history[0].divergence_auxiliary
    True
    """

    remedy: ClassVar[str] = (
        "Train more epochs, as many as the classifier had; lower alpha_auxiliary and alpha; or let select_alpha choose."
    )

    def __init__(
        self,
        classifier: PyTorchClassifier,
        alpha: float = 0.0,
        temperature: float = 4.0,
        divergence: str = "js",
        max_divergence: float | None = None,
        auxiliary: NDArray[Any] | None = None,
        alpha_auxiliary: float = 0.1,
        *,
        alpha_mixtures: float = 0.0,
        spread_penalty: float = 5.0,
        confidence_penalty: float = 1.5,
        auxiliary_fraction: float = 0.25,
        auxiliary_mixture: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(classifier, **options)
        self.alpha: float = _checked(self, "alpha", alpha)
        self.temperature: float = _checked(self, "temperature", temperature)
        self.divergence: str = _checked(self, "divergence", divergence)
        self.max_divergence: float | None = (
            None if max_divergence is None else _checked(self, "max_divergence", max_divergence)
        )
        self.alpha_auxiliary: float = _checked(self, "alpha_auxiliary", alpha_auxiliary)
        self.alpha_mixtures: float = _checked(self, "alpha_mixtures", alpha_mixtures)
        self.spread_penalty: float = _checked(self, "spread_penalty", spread_penalty)
        self.confidence_penalty: float = _checked(self, "confidence_penalty", confidence_penalty)
        self.auxiliary_fraction: float = _checked(self, "auxiliary_fraction", auxiliary_fraction)
        self.auxiliary_mixture = check_bool(self, "auxiliary_mixture", auxiliary_mixture)
        if auxiliary is not None:
            auxiliary = images_like(classifier, auxiliary, "The auxiliary images")
            if len(auxiliary) == 0:
                raise UserError("There are no auxiliary images: give some, or None for the default mixture.")
        elif not self.auxiliary_mixture and self.alpha_auxiliary > 0:
            raise UserError("Without a mixture there are no auxiliary images: give some with auxiliary=.")
        self.auxiliary = auxiliary
        if self.auxiliary_mixture and self.alpha_auxiliary > 0:
            _check_mixture(tuple(classifier.input_shape), classifier.clip_values)

    @property
    def _mixes(self) -> bool:
        return self.alpha_mixtures > 0

    def _objective(
        self,
        teacher: Callable[[Tensor], Tensor],
        student: Student,
        x: ImageSet | None,
        batch_size: int,
        steps: int,
        progress: EpochProgress | None,
    ) -> Objective:
        images = answers = None
        rows = max(1, round(self.auxiliary_fraction * batch_size))

        def tell(phase: str) -> None:
            if progress is not None:
                progress(0, steps, phase)

        if self.alpha_auxiliary > 0:
            tell("auxiliary images")
            images = preprocess(self._classifier, self._auxiliary_images(x), fit=False).to(self._classifier.device)
            number = len(images)
            # of few steps the teacher is asked in each: on tiny data it would be asked thousands of images in vain
            if steps * min(rows, number) >= number or not self.train_body:
                answers = ask_in_batches(
                    teacher, images, lambda done: tell(f"teacher on auxiliary images, {done:,}/{number:,}")
                )
            if not self.train_body:
                tell("features of auxiliary images")
                seen = student.seen(images)
                assert isinstance(seen, Tensor)
                images = seen
        return Objective(
            alpha=self.alpha,
            alpha_auxiliary=self.alpha_auxiliary,
            alpha_mixtures=self.alpha_mixtures,
            temperature=self.temperature,
            kind=self.divergence,
            cap=self.max_divergence,
            auxiliary=images,
            auxiliary_teacher=answers,
            spread_penalty=self.spread_penalty,
            confidence_penalty=self.confidence_penalty,
            auxiliary_batch_size=min(rows, 0 if images is None else len(images)),
        )

    def _auxiliary_images(self, x: ImageSet | None) -> NDArray[np.float32]:
        if self.auxiliary is not None and not self.auxiliary_mixture:
            return self.auxiliary
        return compose_auxiliary(
            tuple(self._classifier.input_shape),
            self.auxiliary,
            seed=derive_seed("default auxiliary", self.seed),
            training_images=x,
            value_range=self._value_range(x),
        )

    def _value_range(self, x: ImageSet | None) -> tuple[Any, Any]:
        """The least and the greatest pixel; [0, 1] where the classifier does not say and no image tells otherwise."""
        if self._classifier.clip_values is not None:
            low, high = self._classifier.clip_values
            return low, high
        for images in (self.auxiliary, None if isinstance(x, StoredImages) else x):
            if images is not None and (np.min(images) < 0 or np.max(images) > 1):
                raise UserError(
                    f"The auxiliary mixture lies in [0, 1], the images from {np.min(images):g} to {np.max(images):g}: "
                    f"build the classifier with clip_values, or {_ALONE}."
                )
        return 0.0, 1.0


def _check_mixture(shape: tuple[int, ...], clip_values: Any) -> None:
    """Refuse a classifier whose images the mixture cannot be like."""
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UserError(
            "The auxiliary mixture is made with 1 or 3 channels, (C, H, W), and the classifier's shape is "
            f"{shape}: {_ALONE}."
        )
    if clip_values is not None:
        low, high = clip_values
        if not (np.isfinite(low).all() and np.isfinite(high).all() and np.all(np.less(low, high))):
            raise UserError(f"The auxiliary mixture needs finite clip_values. Got ({low}, {high}): {_ALONE}.")


def _checked(owner: object, name: str, value: Any) -> Any:
    return DIVQAT_NUMBERS[name].check(owner, name, value)
