"""Recoveries of rows: labels, top k, averages, recentred answers, complements; and the classifier that applies one."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np
from art.estimators.classification import BlackBoxClassifierNeuralNetwork
from numpy.typing import NDArray
from scipy.special import softmax

from art_divqat._arrays import one_hot
from art_divqat.attacks.recovery.parameters import AVERAGE, RECENTRE, TOP_K
from art_divqat.errors import UserError
from art_divqat.estimators import UnusableAnswersError


class Recovery(abc.ABC):
    """Turns the rows that a victim served into rows that a thief would rather learn from.

    `repeats` says how often each image is asked, and so how many queries it costs; the answers are averaged first.
    """

    repeats: int = 1

    @abc.abstractmethod
    def restore(self, answers: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows on the simplex, of the same shape (N, classes); the input is left as it was."""


class Labels(Recovery):
    """y ↦ e_argmax y: the thief believes nothing but the class; no label-preserving defence touches it.

    >>> Labels().restore(np.array([[0.2, 0.5, 0.3]], np.float32))
    array([[0., 1., 0.]], dtype=float32)
    """

    def restore(self, answers: NDArray[np.float32]) -> NDArray[np.float32]:
        return one_hot(answers)


class TopK(Recovery):
    """Keep the k largest entries and spread the remaining mass evenly over the other classes.

    It stands for a service that shows k classes only, and for a thief who trusts no more of them.

    :param k: from 1 to the number of classes.

    >>> TopK(1).restore(np.array([[0.6, 0.1, 0.3]], np.float32)).round(3)
    array([[0.6, 0.2, 0.2]], dtype=float32)
    """

    def __init__(self, k: int) -> None:
        self.k = TOP_K["k"].check(self, "k", k)

    def restore(self, answers: NDArray[np.float32]) -> NDArray[np.float32]:
        classes = answers.shape[1]
        if self.k >= classes:
            return answers.copy()
        top = np.argpartition(-answers, self.k - 1, axis=1)[:, : self.k]
        kept = np.take_along_axis(answers, top, axis=1)
        rest = np.maximum(0, 1 - kept.sum(axis=1, keepdims=True)) / (classes - self.k)
        rows = np.repeat(rest, classes, axis=1).astype(np.float32)
        np.put_along_axis(rows, top, kept, axis=1)
        return rows


class AverageRepeats(Recovery):
    """ȳ = (1/n) Σ yᵢ over n answers to the same image, each of them paid for: undoes independent noise.

    :param repeats: n, at least 2.
    """

    def __init__(self, repeats: int = AVERAGE["repeats"].default) -> None:
        self.repeats = AVERAGE["repeats"].check(self, "repeats", repeats)

    def restore(self, answers: NDArray[np.float32]) -> NDArray[np.float32]:
        return answers


class Recentre(Recovery):
    """z = log y − mean over the images of log y, ỹ = softmax(z): what is left once each class's usual level is gone.

    A DivQAT victim names one class for nearly every image that is not of its own kind. The differences between its
    answers still tell the classes apart, and this brings them to the front. It needs many images in one call.

    :param spread: s, in nats: z, less its mean over the classes, is then scaled to that standard deviation in every
        class, because DivQAT leaves small differences; None leaves them as they are.

    >>> y = np.array([[0.90, 0.06, 0.04], [0.90, 0.04, 0.06]], np.float32)
    >>> Recentre().restore(y).argmax(axis=1)
    array([1, 2])
    >>> [round(float(recovery.restore(y)[0, 1]), 2) for recovery in (Recentre(), Recentre(spread=3.0))]
    [0.4, 0.95]
    """

    def __init__(self, spread: float | None = None) -> None:
        self.spread = None if spread is None else RECENTRE["spread"].check(self, "spread", spread)

    def restore(self, answers: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = _recentred(answers)
        if self.spread is not None:
            logits -= logits.mean(axis=1, keepdims=True)
            # a class that is served alike for every image tells nothing, and its rounding errors are not to be blown up
            deviation = logits.std(axis=0)
            logits *= np.divide(self.spread, deviation, out=np.zeros_like(deviation), where=deviation > 1e-6)
        return softmax(logits, axis=1).astype(np.float32)  # type: ignore[no-any-return]


class Complement(Recovery):
    """z = log y − mean over the images of log y, ỹ = softmax(−z): believe the class that an answer avoids.

    Adaptive misinformation (Kariyappa and Qureshi, CVPR 2020, arXiv 1911.07100) answers images that are unlike the
    victim's own from a network that was trained to give the right class no probability. Which class gets least then
    tells which is right; a label that an answer rules out is a complementary one (Ishida et al., NeurIPS 2017, arXiv
    1705.07541). It needs many images in one call. Honest answers it turns upside down.

    >>> y = np.array([[0.05, 0.60, 0.35], [0.45, 0.15, 0.40]], np.float32)
    >>> Complement().restore(y).argmax(axis=1)
    array([0, 1])
    """

    def restore(self, answers: NDArray[np.float32]) -> NDArray[np.float32]:
        return softmax(-_recentred(answers), axis=1).astype(np.float32)  # type: ignore[no-any-return]


def _recentred(answers: NDArray[np.float32]) -> NDArray[np.float64]:
    """Log-probabilities less each class's mean over the images."""
    logits: NDArray[np.float64] = np.log(np.maximum(answers.astype(np.float64), 1e-12))
    return logits - logits.mean(axis=0) if len(logits) else logits


class RecoveredClassifier(BlackBoxClassifierNeuralNetwork):  # type: ignore[misc]
    """An ART black-box classifier that answers with what a :class:`Recovery` makes of the victim's answers.

    Every image goes through the meter, `recovery.repeats` times; there is no other way to the victim.

    :param victim: a :class:`~art_divqat.estimators.MeteredClassifier`, or another `RecoveredClassifier`.
    :param recovery: what is done with the answers.
    :raises UserError: if the recovery asks repeatedly where repeats are answered from memory: it would learn nothing.

    >>> from art.estimators.classification import BlackBoxClassifier
    >>> from art_divqat.estimators import MeteredClassifier
    >>> uneven = BlackBoxClassifier(lambda x: np.tile(np.array([.3, .7], np.float32), (len(x), 1)), (1, 2, 2), 2)
    >>> RecoveredClassifier(MeteredClassifier(uneven), Labels()).predict(np.zeros((1, 1, 2, 2), np.float32))
    array([[0., 1.]], dtype=float32)
    """

    def __init__(self, victim: Any, recovery: Recovery) -> None:
        super().__init__(
            predict_fn=self.predict,
            input_shape=victim.input_shape,
            nb_classes=victim.nb_classes,
            clip_values=victim.clip_values,
        )
        self.victim = victim
        self.recovery = recovery
        if recovery.repeats > 1 and self.ledger.repeats == "free":
            raise UserError(
                "Averaging repeated queries learns nothing here: with free repeats an image asked again is answered "
                "from memory. Use --repeat-queries paid."
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.victim!r}, {type(self.recovery).__name__})"

    @property
    def ledger(self) -> Any:
        """The ledger of the meter behind."""
        return self.victim.ledger

    @property
    def queries_per_image(self) -> int:
        """What one image costs."""
        return self.recovery.repeats * int(getattr(self.victim, "queries_per_image", 1))

    def predict(self, x: NDArray[Any], batch_size: int = 512, **kwargs: Any) -> NDArray[np.float32]:
        """The recovered answers, of shape (N, classes), at `queries_per_image` queries an image.

        :raises QueryBudgetExceededError: when the budget does not hold them.
        :raises UnusableAnswersError: if some answers are not finite; it carries the recovered rows before them.
        """
        del kwargs
        rounds: list[NDArray[np.float32]] = []
        failure: UnusableAnswersError | None = None
        for _ in range(self.recovery.repeats):
            try:
                rounds.append(self.victim.predict(x, batch_size=batch_size))
            except UnusableAnswersError as error:
                failure = error
                rounds.append(error.answers)
                break
        usable = min(len(answers) for answers in rounds)
        mean = np.asarray(np.mean([answers[:usable] for answers in rounds], axis=0, dtype=np.float64), np.float32)
        restored = self.recovery.restore(mean) if usable else mean
        if failure is not None:
            raise UnusableAnswersError(str(failure), restored)
        return restored

    def __deepcopy__(self, memo: dict[int, Any]) -> RecoveredClassifier:
        """The same victim behind the same ledger."""
        del memo
        return RecoveredClassifier(self.victim, self.recovery)
