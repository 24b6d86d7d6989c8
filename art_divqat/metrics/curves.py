"""Budget curves: interpolate the number of queries that reach a target."""

from __future__ import annotations

import itertools
from collections.abc import Sequence


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
