"""Any model as one kind of ART classifier, checked against the data before anything relies on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from art.estimators.classification import BlackBoxClassifierNeuralNetwork
from numpy.typing import NDArray
from scipy import stats

from art_divqat.errors import UserError

Outputs = Literal["logits", "probabilities"]
Predict = Callable[[NDArray[np.float32]], Any]
_SIMPLEX = 1e-3
_NEGATIVE = 1e-6
_BATCH = 512
PROBE_IMAGES = 128
_LUCK = 1e-3


class ExternalClassifier(BlackBoxClassifierNeuralNetwork):  # type: ignore[misc]
    """An ART classifier on float32 NCHW images in [0, 1] that answers as the model behind it does.

    :param answer: the model: (N, C, H, W) in, (N, classes) out.
    :param outputs: what the answers are; decided by :func:`decide_outputs` where the user does not say.
    :param white_box: a logit-valued torch module or ART classifier to take gradients of; None for a black box.
    :param train_mode: says whether the model answers in train mode, where that can be known.
    :param remote: whether every answer is paid for at an endpoint.
    :param own_defences: postprocessors that stand between the network and its answers, which gradients do not see.
    """

    def __init__(
        self,
        answer: Predict,
        input_shape: tuple[int, int, int],
        nb_classes: int,
        *,
        white_box: Any = None,
        train_mode: Callable[[], bool] | None = None,
        remote: bool = False,
        own_defences: int = 0,
        description: str = "the model",
    ) -> None:
        super().__init__(self._answer, input_shape, nb_classes, clip_values=(0.0, 1.0))
        self._behind = answer
        self.outputs: Outputs | None = None
        self.white_box = white_box
        self.remote = remote
        self.own_defences = own_defences
        self.description = description
        self.nondeterminism: float | None = None
        self._train_mode = train_mode

    def __repr__(self) -> str:
        return f"ExternalClassifier({self.description!r}, outputs={self.outputs!r})"

    @property
    def answers_in_train_mode(self) -> bool:
        """Whether dropout and batch statistics are active; False where that cannot be known."""
        return self._train_mode is not None and self._train_mode()

    def predict(self, x: NDArray[Any], batch_size: int = _BATCH, **kwargs: Any) -> NDArray[np.float32]:
        """The model's own answers, (N, classes), float32.

        :raises UserError: if the model fails, or answers with another shape.
        """
        del kwargs
        return self._answer(x, batch_size)

    def _answer(self, x: NDArray[Any], batch_size: int = _BATCH) -> NDArray[np.float32]:
        x = np.ascontiguousarray(x, dtype=np.float32)
        if len(x) == 0:
            return np.zeros((0, self.nb_classes), np.float32)
        parts = [self._one(x[i : i + batch_size]) for i in range(0, len(x), batch_size)]
        return np.concatenate(parts)

    def _one(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            given: Any = self._behind(x)
            answers = np.asarray(given, dtype=np.float32)
        except UserError:
            raise
        except Exception as error:
            # the model is somebody else's: it may fail in any way it likes
            raise UserError(
                f"{self.description} fails on {len(x)} images of shape {x.shape[1:]}: {first_line(error)}"
            ) from None
        if answers.shape != (len(x), self.nb_classes):
            raise UserError(
                f"{self.description} answers {len(x)} images with shape {answers.shape}; the data has "
                f"{self.nb_classes} classes, so {(len(x), self.nb_classes)} is expected."
            )
        return answers


def in_train_mode(network: Any) -> bool:
    """Whether a torch module, or any part of it, is in train mode; False for anything else."""
    modules = getattr(network, "modules", None)
    return callable(modules) and any(getattr(part, "training", False) is True for part in modules())


def prepare(classifier: ExternalClassifier, x: NDArray[np.float32], y: NDArray[np.int64], asked: str) -> None:
    """Probe a model on labelled images: decide what its answers are, and refuse one that does not fit the data.

    :param x: test images; the first 128 are asked.
    :param asked: `auto`, `logits` or `probabilities`.
    :raises UserError: for answers that are not finite, that cannot be told or are not what was said, or that are right
        no more often than chance (p > 0.001), which normalisation, channel or class order missing its due looks like.
    """
    x, y = x[:PROBE_IMAGES], y[:PROBE_IMAGES]
    answers = classifier.predict(x)
    classifier.outputs = decide_outputs(answers, asked, classifier.description)
    if hasattr(classifier.white_box, "takes_logarithm"):
        classifier.white_box.takes_logarithm = classifier.outputs == "probabilities"
    right = int((answers.argmax(axis=1) == y).sum())
    chance = max(np.bincount(y).max() / len(y), 1 / classifier.nb_classes)
    if stats.binomtest(right, len(y), float(min(chance, 1.0)), alternative="greater").pvalue > _LUCK:
        raise UserError(
            f"{classifier.description} is right on {right} of {len(y)} test images, no better than chance: check that "
            "it belongs to this data, the order of its classes, and its normalisation (--mean, --std)."
        )


def decide_outputs(answers: NDArray[np.float32], asked: str, description: str = "The model") -> Outputs:
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
    if asked == "probabilities" and not simplex:
        raise UserError(
            f"{description} was said to answer probabilities; its answers run from {low:g} to {high:g} and sum to "
            f"between {sums.min():g} and {sums.max():g}. Leave --outputs out, or say logits."
        )
    if asked == "logits" and simplex:
        raise UserError(
            f"{description} was said to answer logits; its answers are probabilities, and a second softmax would "
            "flatten them. Leave --outputs out, or say probabilities."
        )
    shares = high <= 1 or float(np.ptp(sums)) <= _SIMPLEX * abs(float(sums.mean()))
    if asked == "auto" and not simplex and low >= 0 and shares:
        raise UserError(
            f"{description} answers with values from {low:g} to {high:g} that do not sum to 1: these may be scores of "
            "a sigmoid, per cent or logits. Say --outputs logits if a softmax belongs behind them."
        )
    return "probabilities" if simplex else "logits"


def first_line(error: BaseException) -> str:
    """The first line of what an error says, cut to a readable length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return f"{text[:200]}{'…' if len(text) > 200 else ''}"
