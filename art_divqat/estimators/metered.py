"""Metered victim: answers with probabilities, counts every image as a query, and refuses queries beyond the budget."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from art.estimators.classification import BlackBoxClassifierNeuralNetwork
from numpy.typing import NDArray

from art_divqat._validation import check_choice, check_int
from art_divqat.data.checks import check_image_shape
from art_divqat.errors import QueryBudgetExceededError, UserError
from art_divqat.estimators.conventions import two_columns

AnswerLog = Callable[[NDArray[np.float32], NDArray[np.float32]], None]


class UnusableAnswersError(UserError):
    """Some answers of a call are not finite; `answers` holds the rows before the first of them.

    The call is still charged: an attack keeps those rows, stops querying, and uses the answers that it paid for.
    """

    def __init__(self, message: str, answers: NDArray[np.float32]) -> None:
        super().__init__(message)
        self.answers = answers


class QueryLedger:
    """Counts an attacker's queries and refuses those beyond the budget.

    :param budget: how many charged queries are allowed, possibly 0; None for no limit.
    :param repeats: `paid` charges every image; `free` charges an image once and then answers it from memory.
    :param remember: how many distinct images are remembered, at about 100 bytes each (plus the answer, if repeats are
        free). Further images always count as unique, so memory stays constant for any number of queries.

    >>> ledger = QueryLedger(budget=3)
    >>> ledger.charge(2)
    >>> ledger.remaining
    1
    >>> ledger.charge(2)
    Traceback (most recent call last):
    ...
    art_divqat.errors.QueryBudgetExceededError: A call of 2 queries was refused: 2 of the budget of 3 are spent, 1 left.
    """

    def __init__(self, budget: int | None = None, repeats: str = "paid", remember: int = 1_000_000) -> None:
        self.budget = None if budget is None else check_int(self, "budget", budget, 0)
        self.repeats = check_choice(self, "repeats", repeats, ("paid", "free"))
        self.remember = check_int(self, "remember", remember, 0)
        self.charged = 0
        self.requested = 0
        self.refused = 0
        self._forgotten = 0
        self._answers: dict[bytes, NDArray[np.float32] | None] = {}

    @property
    def remaining(self) -> int | None:
        """Queries left in the budget, or None without a limit."""
        return None if self.budget is None else self.budget - self.charged

    @property
    def unique(self) -> int:
        """How many distinct images were queried; an upper bound beyond `remember` images."""
        return len(self._answers) + self._forgotten

    @property
    def repeated(self) -> int:
        """How many queries repeated an earlier image."""
        return self.requested - self.unique

    def charge(self, queries: int) -> None:
        """Take `queries` from the budget, or refuse all of them.

        :raises QueryBudgetExceededError: when fewer are left.
        """
        remaining = self.remaining
        if remaining is not None and queries > remaining:
            self.refused += 1
            raise QueryBudgetExceededError(
                f"A call of {queries} queries was refused: {self.charged} of the budget of {self.budget} are spent, "
                f"{remaining} left."
            )
        self.charged += queries

    def _note(self, key: bytes, answer: NDArray[np.float32] | None) -> None:
        if key in self._answers or len(self._answers) < self.remember:
            self._answers[key] = answer
        else:
            self._forgotten += 1


class MeteredClassifier(BlackBoxClassifierNeuralNetwork):  # type: ignore[misc]
    """An ART black-box classifier that passes every `predict` through a :class:`QueryLedger` to the victim.

    It has no gradients and no weights: an attack sees only the answers. Rows must be probabilities; a victim that
    answers with logits is refused, because ART would train a thief on them without a warning.

    :param victim: any ART classifier whose `predict` returns probabilities, including its defences; a single
        probability, of class 1, is passed on as two columns.
    :param ledger: counts and limits queries; by default a new one without a limit.
    :param log: called with (images, answers) after every call that the victim answered.

    >>> from art.estimators.classification import BlackBoxClassifier
    >>> uniform = BlackBoxClassifier(lambda x: np.full((len(x), 4), 0.25, np.float32), (1, 2, 2), 4)
    >>> metered = MeteredClassifier(uniform, QueryLedger(budget=10))
    >>> metered.predict(np.zeros((3, 1, 2, 2), np.float32)).shape, metered.ledger.charged
    ((3, 4), 3)
    """

    def __init__(self, victim: Any, ledger: QueryLedger | None = None, log: AnswerLog | None = None) -> None:
        super().__init__(
            predict_fn=self._answer,
            input_shape=victim.input_shape,
            nb_classes=victim.nb_classes,
            clip_values=victim.clip_values,
        )
        self.ledger = ledger or QueryLedger()
        self._victim = victim
        self._log = log

    def __repr__(self) -> str:
        # ART's own repr writes out `predict_fn`, a method bound to this very object, without end
        ledger = self.ledger
        return (
            f"{type(self).__name__}(input_shape={self.input_shape}, nb_classes={self.nb_classes}, "
            f"charged={ledger.charged}, budget={ledger.budget})"
        )

    def predict(self, x: NDArray[Any], batch_size: int = 512, **kwargs: Any) -> NDArray[np.float32]:
        """The victim's probabilities, of shape (N, classes); charged one query per image, either all or none.

        :raises QueryBudgetExceededError: before the victim sees anything, if the budget does not cover all images.
        :raises UnusableAnswersError: if some answers are not finite; it carries the rows before the first of them.
        :raises UserError: if the images have another shape than the victim's or are not finite (nothing is charged), or
            if the answers are not rows of probabilities.
        """
        del kwargs
        return self._answer(x, batch_size)

    def __copy__(self) -> MeteredClassifier:
        return MeteredClassifier(self._victim, self.ledger, self._log)

    def __deepcopy__(self, memo: dict[int, Any]) -> MeteredClassifier:
        """The same victim behind the same ledger: a copied meter must not be a second budget."""
        del memo
        return self.__copy__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refused: a pickled meter would count for itself, and carry the victim's weights away.

        :raises UserError: always.
        """
        raise UserError("A metered victim cannot be pickled: each copy would have a ledger of its own.")

    def clone_for_refitting(self) -> Any:
        """Refused: a thief is built fresh, never from the victim.

        :raises UserError: always.
        """
        raise UserError("A metered victim has no network to clone; build the thief with build_model.")

    def _answer(self, x: NDArray[Any], batch_size: int = 512) -> NDArray[np.float32]:
        x = self._check_images(x)
        ledger = self.ledger
        keys = [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in x]
        if ledger.repeats == "paid":
            ledger.charge(len(x))
            ledger.requested += len(x)
            for key in keys:
                ledger._note(key, None)
            return self._ask(x, batch_size)
        first_row: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if ledger._answers.get(key) is None:
                first_row.setdefault(key, row)
        ledger.charge(len(first_row))
        ledger.requested += len(x)
        known = {key: answer for key in keys if (answer := ledger._answers.get(key)) is not None}
        try:
            fresh = self._ask(x[list(first_row.values())], batch_size)
        except UnusableAnswersError as error:
            known.update(self._remember(first_row, error.answers))
            answered = next((row for row, key in enumerate(keys) if key not in known), len(keys))
            rows = [known[key] for key in keys[:answered]]
            raise UnusableAnswersError(str(error), self._stack(rows)) from None
        known.update(self._remember(first_row, fresh))
        return self._stack([known[key] for key in keys])

    def _check_images(self, x: NDArray[Any]) -> NDArray[np.float32]:
        x = np.ascontiguousarray(x, dtype=np.float32)
        check_image_shape(x, self.input_shape, "The victim")
        if not np.isfinite(x).all():
            raise UserError(f"Images must be finite. {int((~np.isfinite(x)).sum())} of {x.size} values are not.")
        return x

    def _remember(self, keys: Iterable[bytes], answers: NDArray[np.float32]) -> dict[bytes, NDArray[np.float32]]:
        """Keep the answers, and return them by key; keys without an answer (the last ones) are left out."""
        fresh = dict(zip(keys, answers, strict=False))
        for key, answer in fresh.items():
            self.ledger._note(key, answer.copy())
        return fresh

    def _stack(self, rows: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.stack(rows) if rows else np.zeros((0, self.nb_classes), np.float32)

    def _ask(self, x: NDArray[np.float32], batch_size: int) -> NDArray[np.float32]:
        if len(x) == 0:
            return np.zeros((0, self.nb_classes), np.float32)
        answers = np.array(self._victim.predict(x, batch_size=batch_size), dtype=np.float32)
        answers = two_columns(answers, probability=True)
        if self._log is not None:
            self._log(x, answers)
        check_answers(answers, len(x), self.nb_classes)
        return answers


def check_answers(answers: NDArray[np.float32], images: int, nb_classes: int) -> None:
    """Raise unless `answers` is a finite (images, nb_classes) array of rows on the simplex, to 1e-3.

    :raises UnusableAnswersError: if some rows are not finite.
    :raises UserError: naming what is wrong and the remedy.

    >>> check_answers(np.array([[2.0, -1.0]], np.float32), 1, 2)
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: The victim answers with values from -1 to 2, not probabilities: put Softmax first in \
its postprocessing_defences.
    """
    if answers.shape != (images, nb_classes):
        raise UserError(f"The victim answered with shape {answers.shape}; expected {(images, nb_classes)}.")
    finite = np.isfinite(answers).all(axis=1)
    usable = answers if finite.all() else answers[: int(np.argmin(finite))]
    if len(usable):
        _check_simplex(usable)
    if not finite.all():
        raise UnusableAnswersError(
            f"The victim answered {int((~finite).sum())} of {images} images with values that are not finite: "
            "look at its defences for log 0 or 0/0.",
            usable,
        )


def _check_simplex(answers: NDArray[np.float32]) -> None:
    low, high = float(answers.min()), float(answers.max())
    if low < -1e-6 or high > 1 + 1e-3:
        raise UserError(
            f"The victim answers with values from {low:g} to {high:g}, not probabilities: put Softmax first in "
            "its postprocessing_defences."
        )
    sums = answers.sum(axis=1)
    if np.abs(sums - 1).max() > 1e-3:
        raise UserError(
            f"The victim's answers sum to between {sums.min():g} and {sums.max():g}, not to 1: "
            "end its postprocessing_defences with one that normalises."
        )
