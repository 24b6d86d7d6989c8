"""External classifiers: any model behind one ART interface, probed on the data before anything relies on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from art.estimators.classification import BlackBoxClassifierNeuralNetwork
from numpy.typing import NDArray

from art_divqat._files import first_line
from art_divqat._types import Images, Labels, Shape
from art_divqat.data.known_rows import KNOWN_BATCH, KnownRows, shared_rows
from art_divqat.data.splits import stratified_subset
from art_divqat.data.stored import chunk_of, is_large
from art_divqat.errors import UserError
from art_divqat.estimators.named_answers import labels_to_rows
from art_divqat.victims.external.answers import AnswerForm, form_of
from art_divqat.victims.external.classes import match_classes
from art_divqat.victims.external.settings import ExternalModel
from art_divqat.victims.victim import Capabilities, Outputs, Probe, Victim, never

AnswerFunction = Callable[[NDArray[np.float32]], Any]
_SIMPLEX = 1e-3
_NEGATIVE = 1e-6
_BATCH = 512
PROBE_IMAGES = 128
REPEATED_IMAGES = 16


class ExternalClassifier(BlackBoxClassifierNeuralNetwork):  # type: ignore[misc]
    """An ART classifier on float32 NCHW images in [0, 1] that answers as the model behind it does.

    What else it can do is known once it was probed: see :func:`probe`. It has as many classes as its first answer,
    which may be more than the data has.

    :param answer: the model: (N, C, H, W) in, (N, classes) out, or (N,) class ids or names.
    :param white_box: gives a logit-valued torch module or ART classifier to take gradients of, from what the answers
        are; None for a black box.
    :param train_mode: says whether the model answers in train mode, where that can be known.
    :param repeat: asks an endpoint again, where every answer is paid for; None for a model that is here.
    :param own_defences: postprocessors that stand between the network and its answers, which gradients do not see.
    :param architecture: what it is, in a few words.
    :param class_names: of the data, for a model that answers with names, or has more classes than the data.
    """

    def __init__(
        self,
        answer: AnswerFunction,
        input_shape: tuple[int, int, int],
        nb_classes: int,
        *,
        white_box: Callable[[Outputs], Any] | None = None,
        train_mode: Callable[[], bool] | None = None,
        repeat: AnswerFunction | None = None,
        own_defences: int = 0,
        description: str = "the model",
        architecture: str = "a model",
        class_names: Sequence[str] = (),
    ) -> None:
        super().__init__(self._answer, input_shape, nb_classes, clip_values=(0.0, 1.0))
        self._behind = answer
        self.white_box = white_box
        self.train_mode = train_mode
        self.repeat = repeat
        self.own_defences = own_defences
        self.description = description
        self.architecture = architecture
        self.class_names = tuple(class_names)
        # known once it was probed; the memory is of a model that always answers an image alike
        self.form = AnswerForm()
        self.memory: KnownRows | None = None
        self._has_answered = False

    def __repr__(self) -> str:
        return f"ExternalClassifier({self.description!r})"

    def predict(self, x: NDArray[Any], batch_size: int = _BATCH, **kwargs: Any) -> NDArray[np.float32]:
        """The model's own answers, (N, classes), float32; once it was probed, with what they leave out completed.

        :raises UserError: if the model fails, or answers with another shape.
        """
        del kwargs
        return self._answer(x, batch_size)

    def _answer(self, x: NDArray[Any], batch_size: int = _BATCH) -> NDArray[np.float32]:
        x = np.ascontiguousarray(x, dtype=np.float32)
        if len(x) == 0:
            return np.zeros((0, self.nb_classes), np.float32)
        if self.memory is not None:
            return self.form.complete(self.memory(x))
        batch_size = chunk_of(x.shape[1:], batch_size)
        parts = [self.asked(x[i : i + batch_size]) for i in range(0, len(x), batch_size)]
        return self.form.complete(np.concatenate(parts))

    def asked(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the model answers to one call, as it is.

        :raises UserError: if it fails, or answers with another shape.
        """
        try:
            raw = np.asarray(self._behind(x))
            rows = labels_to_rows(raw, self.nb_classes, self.class_names)
            answers = np.asarray(raw, dtype=np.float32) if rows is None else rows
        except UserError:
            raise
        except Exception as error:
            # the model is somebody else's: it may fail in any way it likes
            raise UserError(
                f"{self.description} fails on {len(x)} images of shape {x.shape[1:]}: {first_line(error, 200)}"
            ) from None
        if not self._has_answered and answers.ndim == 2 and answers.shape[1] > self.nb_classes:
            self._nb_classes = answers.shape[1]
        if answers.shape != (len(x), self.nb_classes):
            raise UserError(
                f"{self.description} answers {len(x)} images with shape {answers.shape}; the data has "
                f"{self.nb_classes} classes, so {(len(x), self.nb_classes)} is expected."
            )
        self._has_answered = True
        return answers


def in_train_mode(network: Any) -> bool:
    """Whether a torch module, or any part of it, is in train mode; False for anything else."""
    modules = getattr(network, "modules", None)
    return callable(modules) and any(getattr(part, "training", False) is True for part in modules())


def normalised(function: AnswerFunction, model: ExternalModel, shape: Shape) -> AnswerFunction:
    """The function behind (x − mean) / std, each one value or one a channel."""
    if model.mean is None and model.std is None:
        return function
    mean, std = channels(model, shape)
    return lambda x: function(((x - mean) / std).astype(np.float32))


def channels(model: ExternalModel, shape: Shape) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of (1, channels or 1, 1, 1).

    :raises UserError: if there are as many values as the images have no channels.
    """
    for name, values in (("mean", model.mean), ("std", model.std)):
        if values is not None and len(values) not in (1, shape[0]):
            raise UserError(f"--{name} gives {len(values)} values; the images have {shape[0]} channels.")
    mean, std = model.mean or (0.0,), model.std or (1.0,)
    as_row = (1, -1, 1, 1)
    return np.array(mean, np.float32).reshape(as_row), np.array(std, np.float32).reshape(as_row)


def probe(
    classifier: ExternalClassifier,
    x: Images,
    y: Labels,
    requested: str,
    decided_by: tuple[object, ...] | None = None,
    numbers: Sequence[int] = (),
) -> Victim:
    """Probe a model on labelled images: say what it can do, and refuse one that does not fit the data.

    :param x: test images; 128 of all classes are asked, 16 of these a second time where that may give other answers.
    :param requested: `auto`, `logits` or `probabilities`.
    :param decided_by: all that decides what the model answers on this machine, where that is known: other processes and
        later runs then share its answers to large images.
    :param numbers: of the data's classes, where its labels have gaps.
    :raises UserError: for answers that are not finite, that cannot be told or are not what was said, or that are right
        no more often than chance (p > 0.001), which normalisation, channel or class order missing its due looks like,
        and noise.
    """
    # of all classes, however the images are sorted
    rows = stratified_subset(y, PROBE_IMAGES, seed=0)
    x, y = x[rows], y[rows]
    classifier.form = AnswerForm()
    few, repeat = x[:REPEATED_IMAGES], classifier.repeat
    if repeat is None and is_large(1, x.shape[1:]) and np.array_equal(classifier.predict(few), classifier.predict(few)):
        # a pass over a large image is dear, and every cell asks the same test images
        path = None if decided_by is None else shared_rows("answers", *decided_by)
        classifier.memory = KnownRows(classifier.asked, chunk_of(x.shape[1:], KNOWN_BATCH), path)
    answers = classifier.predict(x)
    outputs = decide_outputs(answers, requested, classifier.description)
    form = (form_of(answers) if outputs == "probabilities" else None) or AnswerForm()
    answers, classifier.form = form.complete(answers), form

    def again() -> NDArray[np.float32]:
        return classifier.predict(few) if repeat is None else form.complete(repeat(few))

    size = f"{x.shape[-2]}×{x.shape[-1]}"
    matched = match_classes(answers, y, classifier.class_names, classifier.description, again, size, numbers)
    nondeterminism = 0.0 if repeat is None else float(np.abs(answers[:REPEATED_IMAGES] - again()).max())
    # what a network leaves out of its own answers has no gradient; what stands behind it leaves that as it is
    seen = classifier.white_box is not None and (classifier.own_defences > 0 or not form.notes)
    # an attack on a model starts from what is right
    seen = seen and matched.ids is not None
    return Victim(
        classifier,
        Capabilities(
            outputs,
            white_box=classifier.white_box(outputs) if seen and classifier.white_box is not None else None,
            remote=classifier.repeat is not None,
            nondeterminism=nondeterminism,
            own_defences=classifier.own_defences,
            probe=Probe(len(x), matched.right, form.notes, form.labels),
            class_ids=matched.ids,
            in_train_mode=classifier.train_mode or never,
        ),
    )


def decide_outputs(answers: NDArray[np.float32], requested: str, description: str = "The model") -> Outputs:
    """Whether rows of answers are logits or probabilities; what was asked for is checked, never believed.

    :raises UserError: if they are neither beyond doubt.

    >>> decide_outputs(np.array([[2.0, -1.0]]), "auto")
    'logits'
    >>> decide_outputs(np.array([[0.9, 0.6]]), "auto")
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: The model answers with values from 0.6 to 0.9 that do not sum to 1: these may be \
scores of a sigmoid, per cent or logits. Say --outputs logits if a softmax belongs behind them.
    """
    if not np.isfinite(answers).all():
        raise UserError(f"{description} answers with values that are not finite.")
    low, high = float(answers.min()), float(answers.max())
    sums = answers.sum(axis=1, dtype=np.float64)
    simplex = low >= -_NEGATIVE and bool(np.abs(sums - 1).max() <= _SIMPLEX)
    completed = not simplex and form_of(answers) is not None
    if requested == "probabilities" and not (simplex or completed):
        raise UserError(
            f"{description} was said to answer probabilities; its answers run from {low:g} to {high:g} and sum to "
            f"between {sums.min():g} and {sums.max():g}. Leave --outputs out, or say logits."
        )
    if requested == "logits" and simplex:
        raise UserError(
            f"{description} was said to answer logits; its answers are probabilities, and a second softmax would "
            "flatten them. Leave --outputs out, or say probabilities."
        )
    if completed and requested != "logits":
        return "probabilities"
    shares = high <= 1 or float(np.ptp(sums)) <= _SIMPLEX * abs(float(sums.mean()))
    if requested == "auto" and not simplex and low >= 0 and shares:
        raise UserError(
            f"{description} answers with values from {low:g} to {high:g} that do not sum to 1: these may be scores of "
            "a sigmoid, per cent or logits. Say --outputs logits if a softmax belongs behind them."
        )
    return "probabilities" if simplex else "logits"
