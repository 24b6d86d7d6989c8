"""Budget curves: interpolate the number of queries that reach a target."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def queries_to_reach(target: float, budgets: Sequence[float], values: Sequence[float]) -> float | None:
    """The fewest queries at which the piecewise linear curve through (budget, value) first reaches `target`.

    The smallest budget if the curve starts at or above the target (the true number may be smaller still); None if it
    never gets there.

    :param budgets: ascending.

    >>> queries_to_reach(0.75, [100, 200], [0.5, 1.0])
    150.0
    >>> queries_to_reach(0.75, [100, 200], [0.5, 0.7]) is None
    True
    """
    if values and values[0] >= target:
        return float(budgets[0])
    points = list(zip(budgets, values, strict=True))
    for (low_budget, low), (high_budget, high) in itertools.pairwise(points):
        if high >= target:
            return float(low_budget + (high_budget - low_budget) * (target - low) / (high - low))
    return None


def all_queries_to_reach(
    targets: NDArray[np.floating[Any]], budgets: Sequence[float], values: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    """:func:`queries_to_reach` of many curves at once; infinite where a curve never gets there.

    :param targets: (N,).
    :param values: (N, budgets), one curve a row.

    >>> all_queries_to_reach(np.array([0.75, 0.9]), [100, 200], np.array([[0.5, 1.0], [0.5, 0.7]]))
    array([150.,  inf])
    """
    there = values >= targets[:, None]
    first = there.argmax(axis=1)
    queries = np.asarray(budgets, dtype=np.float64)
    before, rows = np.maximum(first - 1, 0), np.arange(len(values))
    low, high = values[rows, before], values[rows, first]
    with np.errstate(divide="ignore", invalid="ignore"):
        between = queries[before] + (queries[first] - queries[before]) * (targets - low) / (high - low)
    return np.where(there.any(axis=1), np.where(first == 0, queries[0], between), np.inf)
