"""Inverse of the heuristic perturbation: recover the probabilities of a defence whose β and γ are known.

β and γ are public, and nothing else in the defence is secret.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from art_divqat._validation import check_float
from art_divqat.attacks.recovery.answers import Recovery
from art_divqat.attacks.recovery.parameters import INVERT

_TINY = 1e-12

Float = NDArray[np.float64]


@runtime_checkable
class KnownHeuristic(Protocol):
    """The heuristic perturbation as a thief knows it: all four of its numbers, which no other defence has."""

    beta: float
    gamma: float
    variant: str
    nu: float


def perturb(y: Float, beta: float, gamma: float, variant: str = "exact", nu: float = 1000.0) -> Float:
    """ỹ = (y − α r) / Σ(y − α r), with r = β(σ(γ logit y) − ½) and the gate α = σ(ν(β − max y)).

    The forward map as a thief writes it down, for the round trip; `released` clips the odds to [1e-12, 1 − 1e-12].

    >>> perturb(np.array([[0.9, 0.1]]), beta=0.5, gamma=0.2).round(3)
    array([[0.9, 0.1]])
    """
    gate = expit(nu * (beta - y.max(axis=1, keepdims=True)))
    raised = y - gate * _noise(y, beta, gamma, variant)
    return raised / raised.sum(axis=1, keepdims=True)


def _noise(y: Float, beta: float, gamma: float, variant: str) -> Float:
    if variant == "released":
        log_odds = np.log(np.clip(y / np.maximum(1 - y, _TINY), _TINY, 1 - _TINY))
    else:
        log_odds = logit(np.clip(y, 1e-300, 1 - 1e-16))
    return beta * (expit(gamma * log_odds) - 0.5)


@dataclass(frozen=True)
class _Branch:
    """A piece of h(y) = y − α r(y) on which it is monotone: values ascending, and where they are taken."""

    values: Float
    at: Float
    log_slope: Float

    @property
    def low(self) -> float:
        return float(self.values[0])

    @property
    def high(self) -> float:
        return float(self.values[-1])


class InvertHeuristic(Recovery):
    """Solve ỹ = (y − α r(y)) / Z for y: the gate α and the normaliser Z are two unknown numbers a row.

    While the gate is shut, ỹ = y. While it is open, each class obeys Z ỹ_k = h(y_k), and h falls from h(0) = β/2 to a
    minimum and then rises, so that a class may be tiny or middling. Every choice of the middling classes (up to four of
    ten) leaves one equation, Σ y_k(Z) = 1, for Z; its roots are exact preimages, of which the most plausible is taken
    under a symmetric Dirichlet(0.1) prior, whose density is divided by Π|h′|. Each row is verified by a round trip;
    rows without a preimage to within `tolerance`, those of a half-open gate among them, stay as they were served.
    After `restore`, `solved` is the share of rows that made the round trip.

    :param beta: β, in (0, inf).
    :param gamma: γ, in (0, inf).
    :param variant: `exact`, or `released`, the form with clipped odds.
    :param tolerance: largest difference of an entry after the round trip.
    :param nu: ν, the sharpness of the gate, in (0, inf).

    >>> served = perturb(np.array([[0.70, 0.29, 0.009, 0.001]]), beta=0.9, gamma=0.2)
    >>> restored = InvertHeuristic(beta=0.9, gamma=0.2).restore(served.astype(np.float32))
    >>> bool(np.allclose(perturb(restored.astype(float), beta=0.9, gamma=0.2), served, atol=1e-3))
    True
    """

    def __init__(
        self, beta: float, gamma: float = 0.2, variant: str = "exact", tolerance: float = 1e-4, nu: float = 1000.0
    ) -> None:
        self.beta = INVERT["beta"].check(self, "beta", beta)
        self.gamma = INVERT["gamma"].check(self, "gamma", gamma)
        self.variant = INVERT["variant"].check(self, "variant", variant)
        self.tolerance = check_float(self, "tolerance", tolerance, 0, closed="neither")
        self.nu = check_float(self, "nu", nu, 0, closed="neither")
        self.solved = 0.0
        self._branches = self._monotone_pieces()

    def _monotone_pieces(self) -> list[_Branch]:
        # dense in logit, where softmax answers live
        log_odds = np.linspace(-27, 27, 8192)
        y = expit(log_odds)
        h = y - _noise(y[None], self.beta, self.gamma, self.variant)[0]
        step = np.diff(h)
        log_slope = np.log(np.maximum(np.abs(np.gradient(h, y)), 1e-12))
        turns = np.flatnonzero(np.sign(step[1:]) * np.sign(step[:-1]) < 0) + 1
        pieces = []
        for first, last in itertools.pairwise([0, *turns, len(h) - 1]):
            piece = slice(first, last + 1)
            order = slice(None) if h[last] > h[first] else slice(None, None, -1)
            pieces.append(_Branch(h[piece][order], y[piece][order], log_slope[piece][order]))
        return pieces

    def restore(self, answers: NDArray[np.float32]) -> NDArray[np.float32]:
        restored = np.array(answers, dtype=np.float64)
        solved = 0
        for row, served in enumerate(restored):
            if served.max() > self.beta and self._error(served, served) < self.tolerance:
                solved += 1  # the gate was shut
                continue
            clean = self._solve(served)
            if clean is not None:
                restored[row] = clean
                solved += 1
        self.solved = solved / max(1, len(answers))
        return restored.astype(np.float32)

    def _error(self, clean: Float, served: Float) -> float:
        return float(np.abs(perturb(clean[None], self.beta, self.gamma, self.variant, self.nu)[0] - served).max())

    def _solve(self, served: Float) -> Float | None:
        choices = self._choices(served)
        candidates = self._roots(served, choices)
        best, best_score = None, -np.inf
        for clean, score in candidates:
            if score > best_score and self._error(clean, served) < self.tolerance:
                best, best_score = clean, score
        return best

    def _choices(self, served: Float) -> NDArray[np.int64]:
        """Which branch each class may lie on, of shape (choices, classes); branch 0 holds the tiny ones."""
        classes = len(served)
        middling = range(1, len(self._branches))
        # with many classes only those that stand out from the others are tried
        outliers = np.argsort(-np.abs(served - np.median(served)))[:10]
        rows = [np.zeros(classes, np.int64)]
        for count in range(1, (4 if classes <= 10 else 3) + 1):
            for chosen in itertools.combinations(outliers, count):
                for branches in itertools.product(middling, repeat=count):
                    if sum(branch > 1 for branch in branches) <= 1:  # only one class can be above one half
                        rows.append(np.zeros(classes, np.int64))
                        rows[-1][list(chosen)] = branches
        return np.stack(rows)

    def _roots(self, served: Float, choices: NDArray[np.int64]) -> list[tuple[Float, float]]:
        lows = np.array([branch.low for branch in self._branches])[choices]
        highs = np.array([branch.high for branch in self._branches])[choices]
        safe = np.maximum(served, 1e-300)
        first, last = (lows / safe).max(axis=1), (highs / safe).min(axis=1)
        feasible = first < last
        choices, first, last = choices[feasible], first[feasible], last[feasible]
        if len(choices) == 0:
            return []
        steps = np.linspace(0, 1, 12)
        excess = np.stack([self._excess(served, choices, first + s * (last - first)) for s in steps])
        which, rows = np.nonzero(excess[:-1] * excess[1:] <= 0)
        choices, width = choices[rows], (last - first)[rows]
        left, right = first[rows] + steps[which] * width, first[rows] + steps[which + 1] * width
        sign = np.sign(excess[which, rows])
        for _ in range(40):
            middle = (left + right) / 2
            same = np.sign(self._excess(served, choices, middle)) == sign
            left, right = np.where(same, middle, left), np.where(same, right, middle)
        y, log_slope = self._invert(served, choices, left)
        scores = (0.1 - 1) * np.log(y).sum(axis=1) - log_slope.sum(axis=1)
        return list(zip(y / y.sum(axis=1, keepdims=True), scores.tolist(), strict=True))

    def _excess(self, served: Float, choices: NDArray[np.int64], normaliser: Float) -> Float:
        return self._invert(served, choices, normaliser)[0].sum(axis=1) - 1

    def _invert(self, served: Float, choices: NDArray[np.int64], normaliser: Float) -> tuple[Float, Float]:
        targets = normaliser[:, None] * served
        y, log_slope = np.empty_like(targets), np.empty_like(targets)
        for number, branch in enumerate(self._branches):
            mine = choices == number
            y[mine] = np.interp(targets[mine], branch.values, branch.at)
            log_slope[mine] = np.interp(targets[mine], branch.values, branch.log_slope)
        return y, log_slope
