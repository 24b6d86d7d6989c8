"""Forms of answers: recognise rounded, top-k and label-only ones, and complete them to rows of probabilities.

Importing this module imports neither torch nor ART.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

_MOST_DECIMALS = 6
_SUM = 1e-3
# a float32 that holds a decimal number differs from it by no more
_FLOAT32 = 3e-7


@dataclass(frozen=True)
class AnswerForm:
    """What a model leaves out of its answers; each row is completed by itself.

    :param decimals: how many each number has; None where no few decimals tell them whole.
    :param rounded: whether rows miss a sum of 1 by what the rounding explains.
    :param top: how many classes a row names; None for all of them.
    :param missing: whether the others' probability is missing from the sum.
    :param labels: whether a row is one class alone, with probability 1.
    :param classes: how many there are.
    :param percent: whether rows sum to 100; the other fields are of the rows divided by it.

    >>> form_of(np.array([[0.33, 0.33, 0.33], [0.98, 0.01, 0.02]], np.float32)).notes
    ('answers are rounded to 2 decimals',)
    """

    decimals: int | None = None
    rounded: bool = False
    top: int | None = None
    missing: bool = False
    labels: bool = False
    classes: int = 0
    percent: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """What to say of it; nothing for whole rows."""
        if self.labels:
            return ("labels only",)
        notes = ["answers are per cent"] if self.percent else []
        notes += [] if self.top is None else [f"top {self.top} of {self.classes}"]
        if self.decimals is not None:
            what = "are rounded to" if self.rounded else "have no more than"
            notes.append(f"answers {what} {self.decimals} decimal{'' if self.decimals == 1 else 's'}")
        return tuple(notes)

    def complete(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Rows on the simplex: rounded ones divided by their sum, the missing part of top-k ones spread evenly.

        A row that this form does not explain is left as it is, for whoever checks it.

        >>> AnswerForm(top=1, missing=True, classes=3).complete(np.array([[0.0, 0.5, 0.0]], np.float32)).tolist()
        [[0.25, 0.5, 0.25]]
        """
        if self.percent:
            rows = rows / np.float32(100)
        if not (self.rounded or self.missing):
            return rows
        whole = rows.astype(np.float64)
        sums = whole.sum(axis=1, keepdims=True)
        if self.missing:
            hidden = whole == 0
            short = (sums < 1) & hidden.any(axis=1, keepdims=True) & _fits_top(whole, self.decimals, self.top)[:, None]
            whole = np.where(short & hidden, (1 - sums) / np.maximum(hidden.sum(axis=1, keepdims=True), 1), whole)
            sums = whole.sum(axis=1, keepdims=True)
        if self.rounded:
            empty = sums == 0
            explained = _rounding_explains(whole, self.decimals)[:, None]
            divided = np.where(empty, 1 / rows.shape[1], whole / np.where(empty, 1, sums))
            whole = np.where(explained, divided, whole)
        return whole.astype(np.float32)


def form_of(answers: NDArray[np.float32]) -> AnswerForm | None:
    """The form of (N, classes) answers of probabilities; None if they are none, whatever was left out of them.

    >>> form_of(np.array([[0.7, 0.2, 0.0, 0.0], [0.0, 0.5, 0.4, 0.0]], np.float32)).notes
    ('top 2 of 4', 'answers are rounded to 1 decimal')
    >>> form_of(np.array([[0.9, 0.6]], np.float32)) is None
    True
    """
    rows, classes = answers.astype(np.float64), answers.shape[1]
    sums = rows.sum(axis=1)
    decimals = decimals_of(answers)
    whole = bool(np.abs(sums - 1).max() <= _SUM)
    low, high = rows.min(), rows.max()
    if low < 0 or high > 1 + _SUM:
        # logits may sum to 1 too
        return AnswerForm(classes=classes) if whole and low >= -1e-6 else _percent_of(answers)
    shown = (rows != 0).sum(axis=1)
    if whole and bool((shown == 1).all()):
        return AnswerForm(labels=True, classes=classes)
    # a softmax leaves no class without probability, unless what is left out was never sent
    same = bool((shown == shown[0]).all()) and 1 < shown[0] < classes
    if whole and np.abs(sums - 1).max() <= 1e-5:
        return AnswerForm(decimals, top=int(shown[0]) if same else None, classes=classes)
    # what is cut off never comes to more than 1
    lost = 0.5 if sums.max() > 1 + 1e-5 else 1.0
    if decimals is not None and bool(_rounding_explains(rows, decimals, lost).all()):
        return AnswerForm(decimals, rounded=True, top=int(shown[0]) if same else None, classes=classes)
    top = int(shown.max())
    if 0 < top < classes and bool(_fits_top(rows, decimals, top).all()) and _fits_threshold(rows, decimals, top):
        return AnswerForm(decimals, rounded=decimals is not None, top=top, missing=True, classes=classes)
    return AnswerForm(classes=classes) if whole else None


def _percent_of(answers: NDArray[np.float32]) -> AnswerForm | None:
    """The form of rows that are whole, or rounded, once they are divided by 100; None for others."""
    if answers.min() < 0 or abs(float(answers.sum(axis=1).mean()) - 100) > 10:
        return None
    form = form_of(answers / np.float32(100))
    return None if form is None or form.missing else replace(form, percent=True)


def decimals_of(answers: NDArray[np.float32]) -> int | None:
    """The fewest decimals, from 1 to 6, that tell every number whole; None if none do, or all are 0 or 1.

    >>> decimals_of(np.array([0.25, 0.5], np.float32)), decimals_of(np.array([1 / 3], np.float32))
    (2, None)
    """
    values = np.asarray(answers, np.float64)
    if bool(np.isin(values, (0.0, 1.0)).all()):
        return None
    for decimals in range(1, _MOST_DECIMALS + 1):
        if bool(np.isclose(values, values.round(decimals), rtol=_FLOAT32, atol=1e-12).all()):
            return decimals
    return None


def _rounding_explains(rows: NDArray[np.float64], decimals: int | None, lost: float = 1.0) -> NDArray[np.bool_]:
    """Which rows may be probabilities, each number rounded (which loses up to .5 units a class) or cut off (1)."""
    if decimals is None:
        return np.zeros(len(rows), np.bool_)
    unit, sums, shown = 10.0**-decimals, rows.sum(axis=1), (rows > 0).sum(axis=1)
    # nothing is rounded up to 0
    return (sums - 1 <= 0.5 * unit * shown + 1e-5) & (1 - sums <= lost * unit * rows.shape[1] + 1e-5)


def _fits_threshold(rows: NDArray[np.float64], decimals: int | None, top: int) -> bool:
    """Whether rows that show fewer classes than `top` leave out only what is below the least that any row shows.

    The k highest leave out nothing there, and a threshold no more than that; sparse logits add up to anything.
    """
    unit = 0.0 if decimals is None else 10.0**-decimals
    shown, missing = (rows > 0).sum(axis=1), 1 - rows.sum(axis=1)
    hidden, least = rows.shape[1] - shown, rows[rows > 0].min()
    return bool((missing <= hidden * (least + unit) + 1e-5)[shown < top].all())


def _fits_top(rows: NDArray[np.float64], decimals: int | None, top: int | None) -> NDArray[np.bool_]:
    """Which rows may be the highest probabilities alone: what is missing has room below the least that is shown."""
    unit = 0.0 if decimals is None else 10.0**-decimals
    shown = (rows > 0).sum(axis=1)
    least = np.where(rows > 0, rows, np.inf).min(axis=1)
    missing, hidden = 1 - rows.sum(axis=1), rows.shape[1] - shown
    room = np.where(np.isinf(least), 0, least) + unit
    enough = missing <= hidden * room + 1e-5
    return (missing >= -0.5 * unit * shown - 1e-5) & enough & (shown <= (top or 0))
