"""Array helpers: operations on rows of answers that several packages share; numpy only."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

F = TypeVar("F", bound=np.floating[Any])


def one_hot(answers: NDArray[F]) -> NDArray[F]:
    """Put a one at the highest entry of each row, the first of equals, and zeros elsewhere.

    :param answers: of shape (N, classes); left as they are.
    :returns: rows of the same shape and precision.

    >>> one_hot(np.array([[0.2, 0.5, 0.3]], np.float32))
    array([[0., 1., 0.]], dtype=float32)
    """
    rows = np.zeros_like(answers)
    rows[np.arange(len(answers)), answers.argmax(axis=1)] = 1
    return rows
