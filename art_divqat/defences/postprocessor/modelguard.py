"""ModelGuard-W: serve the least likely answer within an L1 budget."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from art_divqat.defences.parameters import MODELGUARD
from art_divqat.defences.postprocessor._base import InputType, ProbabilityPostprocessor
from art_divqat.defences.postprocessor._rows import Rows, raise_top
from art_divqat.parameters import Parameters


class ModelGuard(ProbabilityPostprocessor):
    """ỹ = argmin Σ_k ỹ_k log y_k over ỹ ∈ Δ with ‖ỹ − y‖₁ ≤ ε and ỹ_c ≥ ỹ_k for the top class c.

    A linear program, solved exactly. For a given height u = ỹ_c of the top class the solution is greedy: every rival is
    cut at u, and mass moves from the likeliest classes to the least likely ones, up to u, until the budget ε/2 is
    spent. Its value is convex in u. The lowest u that the budget allows is usually the best; otherwise a golden-section
    search finds the optimum. Finally, the top class is raised by at most a few float spacings, so that it wins ties.

    Tang, Dai, Xiao, et al., "ModelGuard", USENIX Security 2024.

    :param epsilon: L1 budget, in [0, 2].
    :raises UserError: for a parameter out of range.

    >>> import numpy as np
    >>> ModelGuard(epsilon=0.4)(np.array([[0.7, 0.2, 0.1]])).round(6)
    array([[0.5, 0.2, 0.3]])
    """

    params: ClassVar[list[str]] = ["epsilon", "input_type"]
    parameters: ClassVar[Parameters] = MODELGUARD

    def __init__(
        self,
        epsilon: float = 1.0,
        input_type: InputType = "auto",
        apply_fit: bool = False,
        apply_predict: bool = True,
    ) -> None:
        super().__init__(input_type=input_type, apply_fit=apply_fit, apply_predict=apply_predict)
        self.epsilon = epsilon
        self._check_params()

    def _perturb(self, rows: Rows) -> Rows:
        if self.epsilon == 0:
            return rows.copy()
        y = rows.astype(np.float64)
        y /= y.sum(axis=1, keepdims=True)
        order = np.argsort(-y, axis=1, kind="stable")
        served = _sorted_optimum(np.take_along_axis(y, order, axis=1), self.epsilon / 2).astype(rows.dtype)
        raise_top(served, np.arange(0, served.size, served.shape[1]))
        out = np.empty_like(rows)
        np.put_along_axis(out, order, served, axis=1)
        return out


# 0.618^64 < 1e-13 of the interval
_SEARCH_STEPS = 64
_GOLDEN = (5**0.5 - 1) / 2


def _sorted_optimum(y: Rows, budget: float) -> Rows:
    """The optimum for rows in descending order, with `budget` = ε/2 of mass to move."""
    counts = np.arange(1, y.shape[1] + 1)
    cost = np.log(np.maximum(y, np.finfo(np.float64).tiny))
    # Σ_k max(y_k − u, 0) is the largest of the prefix sums less n·u: the least u whose cut the budget pays for.
    low = np.maximum(((np.cumsum(y, axis=1) - budget) / counts).max(axis=1), 1 / y.shape[1])
    high = np.minimum(1.0, y[:, 0] + budget)
    best = _for_height(y, low, budget)
    nudge = np.minimum(low + 1e-7, high)
    slopes = _value(cost, _for_height(y, nudge, budget)) - _value(cost, best)
    inner = np.flatnonzero(slopes < 0)
    if inner.size:
        best[inner] = _search(y[inner], cost[inner], low[inner], high[inner], budget)
    return best


def _value(cost: Rows, served: Rows) -> Rows:
    value: Rows = np.einsum("ij,ij->i", cost, served)
    return value


def _search(y: Rows, cost: Rows, low: Rows, high: Rows, budget: float) -> Rows:
    for _ in range(_SEARCH_STEPS):
        width = (high - low) * _GOLDEN
        left, right = high - width, low + width
        downhill = _value(cost, _for_height(y, right, budget)) < _value(cost, _for_height(y, left, budget))
        low, high = np.where(downhill, left, low), np.where(downhill, high, right)
    return _for_height(y, (low + high) / 2, budget)


def _for_height(y: Rows, height: Rows, budget: float) -> Rows:
    """The best answers whose top class has the probability `height`; `y` descending, the top class first."""
    u = height[:, np.newaxis]
    top, others = y[:, :1], y[:, 1:]
    base = np.minimum(others, u)
    cut = (others - base).sum(axis=1, keepdims=True)
    # Without a budget the least likely classes would be filled to u, one after the other.
    from_bottom = np.arange(others.shape[1] - 1, -1, -1)
    unbounded = np.clip(1 - u * (1 + from_bottom), 0, u)
    movable = np.maximum(base - unbounded, 0).sum(axis=1, keepdims=True)
    moved = np.clip(budget - np.maximum(top - u, 0) - cut, 0, movable)
    before = np.cumsum(base, axis=1) - base
    taken = np.clip(moved - before, 0, base)
    room = u - base
    below = np.cumsum(room[:, ::-1], axis=1)[:, ::-1] - room
    given = np.clip(moved + (top - u) + cut - below, 0, room)
    return np.concatenate([u, base - taken + given], axis=1)
