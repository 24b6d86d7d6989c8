"""Fast kernel of the heuristic perturbation: :meth:`HeuristicPerturbation.formula` in few numpy calls.

A served answer takes about one microsecond in a batch and ten alone, so the cost is the number of numpy calls and the
buffers that leave the cache. Everything here is the same formula, rearranged for that: in place, in the answers' own
precision, without rows whose gate is closed, and with a shorter path for a single row. The result for a row does not
depend on other rows, to the bit.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from art_divqat.defences.postprocessor._rows import CLEARLY_ONE, Rows, ones, raise_top, row_sums, row_tops

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
# The gate counts as closed from ν(m − β) = 88 on: α is then below 1e-38, the smallest normal float32.
GATE_CLOSED = 88.0
# And as wide open below this: exp(−37) is less than half a spacing of 1, so that 1/(1 + exp) is 1 in float64 too.
GATE_OPEN = -37.0
# The released code clips the odds to [1e-12, 1 − 1e-12].
ODDS_CLIP = 1e-12
# No row that passes for probabilities has a larger entry.
_LARGEST = 1.01
# Odds of the smallest float to the power −γ stay below the largest one up to γ = .85, and exp does not warn.
_QUIET_GAMMA = 0.8
# Below this γ the noise on a small probability may be less than the rounding of ½.
_GENTLE_GAMMA = 1e-3


class HeuristicParameters(Protocol):
    """What the kernel reads of a :class:`HeuristicPerturbation`."""

    beta: float
    gamma: float
    nu: float
    variant: str
    preserve_label: bool


class NoiseNumbers(NamedTuple):
    """The numbers of :func:`subtract_reverse_sigmoid`, as arrays of the answers' precision.

    numpy converts a Python number anew at every operation, which costs as much again as a short row.
    """

    size: Rows
    half: Rows
    minus_gamma: Rows
    one: Rows
    clip_odds: tuple[Rows, Rows] | None
    gentle: bool


@functools.lru_cache(maxsize=64)
def noise_numbers(size: float, gamma: float, kind: str, clip_odds: float | None = None) -> NoiseNumbers:
    """For noise of a = `size` and γ on answers of the type with the character `kind`.

    :param clip_odds: c keeps the odds in [c, 1 − c].
    """

    def number(value: float) -> Rows:
        return np.array(value, dtype=kind)

    clips = None if clip_odds is None else (number(clip_odds), number(1 - clip_odds))
    return NoiseNumbers(number(size), number(size) / 2, number(-gamma), number(1), clips, gentle=gamma < _GENTLE_GAMMA)


def subtract_reverse_sigmoid(y: Rows, numbers: NoiseNumbers) -> Rows:
    """y − a(σ(γ·logit y) − ½) as a new array, for y in [0, 1]; a is a number or a column.

    1 − y is exact from ½ on, so the odds keep the precision of y, and every limit comes out: log 0 = −∞, y/0 = ∞ (the
    caller silences numpy's warnings). `exp` takes a quarter of the time of `tanh`, which serves the smallest γ only:
    there the difference from ½ would be lost.
    """
    size, half, minus_gamma, one, clip_odds, gentle = numbers
    t: Rows = np.subtract(one, y)
    np.divide(y, t, t)
    if clip_odds is not None:
        np.minimum(np.maximum(t, clip_odds[0], t), clip_odds[1], t)
    np.log(t, t)
    np.multiply(t, minus_gamma, t)
    if gentle:
        np.tanh(np.divide(t, one + one, t), t)
        np.multiply(t, half, t)
        np.add(y, t, t)
        return t
    np.exp(t, t)
    np.add(t, one, t)
    np.divide(size, t, t)
    np.subtract(y, t, t)
    np.add(t, half, t)
    return t


def perturb_row(parameters: HeuristicParameters, y: npt.NDArray[Any]) -> Rows | None:
    """A single ordinary answer (1, C), not checked yet, in a third of the numpy calls of :func:`perturb_rows`.

    Returns None, which leaves the row to the general path, if the row may be bad input, has an entry of 0 or 1 (whose
    limits make numpy warn), or is near the threshold, where α is neither 0 nor 1.
    """
    if (y.dtype is not _FLOAT32 and y.dtype is not _FLOAT64) or not y.flags.c_contiguous or y.size < 2:
        return None
    at = y.argmax()
    top = y.item(at)
    if not (top < 1 and y.item(y.argmin()) > 0):
        return None
    if not -CLEARLY_ONE <= y.dot(ones(y.size, y.dtype.char)).item() - 1 <= CLEARLY_ONE:
        return None
    numbers = _numbers(parameters, y)
    steps = parameters.nu * (top - numbers.size.item())
    if steps > GATE_CLOSED or not parameters.beta:
        return y.copy()
    if steps > GATE_OPEN or parameters.gamma > _QUIET_GAMMA:
        return None
    return _normalised_noise(parameters, y, numbers, at)


def perturb_rows(parameters: HeuristicParameters, y: Rows) -> Rows:
    """Checked probabilities (N ≥ 1, C ≥ 2, C-ordered) to the answers that are served; `y` stays as it is."""
    if not parameters.beta:
        return y.copy()
    with np.errstate(all="ignore"):  # the limits at 0 and 1; exp(∞) closes the gate
        return _gated(parameters, y)


def _gated(parameters: HeuristicParameters, y: Rows) -> Rows:
    # β as the answers hold it and the rest in float64, so that ν magnifies no rounding but theirs
    beta = _numbers(parameters, y).size.item()
    all_open = parameters.nu * (_LARGEST - beta) <= GATE_OPEN
    if all_open and not parameters.preserve_label:
        return _open(parameters, y, y.item(y.argmax()))
    at, tops = row_tops(y)
    largest = tops.item(tops.argmax())
    if all_open:
        return _open(parameters, y, largest, at)
    steps = parameters.nu * (tops[:, 0].astype(np.float64) - beta)
    is_open = steps <= GATE_CLOSED
    n_open = int(np.count_nonzero(is_open))
    if n_open == len(y):
        return _open(parameters, y, largest, at, steps)
    out = y.copy()
    if n_open:
        rows = np.flatnonzero(is_open)
        moved = at[rows] + (np.arange(n_open) - rows) * y.shape[1] if parameters.preserve_label else None
        out[rows] = _open(parameters, y.take(rows, axis=0), largest, moved, steps[rows])
    return out


def _open(
    parameters: HeuristicParameters,
    y: Rows,
    largest: float,
    at: npt.NDArray[np.intp] | None = None,
    steps: npt.NDArray[np.float64] | None = None,
) -> Rows:
    """The answers to rows whose gate is not closed.

    :param largest: no entry is larger.
    :param at: where the tops of the rows stand.
    :param steps: ν(m − β).
    """
    numbers = _numbers(parameters, y)
    if steps is not None and steps.item(steps.argmax()) > GATE_OPEN:
        # numpy may take another loop for one number than for two
        alpha = 1 / (1 + np.exp(steps if len(steps) > 1 else steps.repeat(2))[: len(steps), np.newaxis])
        size = (parameters.beta * alpha).astype(y.dtype)
        numbers = numbers._replace(size=size, half=size / 2)
    if largest > 1:  # rows may sum to 1.001; the odds of such an entry would be negative
        y = np.minimum(y, numbers.one)
    return _normalised_noise(parameters, y, numbers, at)


def _normalised_noise(
    parameters: HeuristicParameters, y: Rows, numbers: NoiseNumbers, at: npt.NDArray[np.intp] | np.intp | None
) -> Rows:
    t = subtract_reverse_sigmoid(y, numbers)
    # y − βr ≥ y(1 − β) + β/2 for γ ≤ 1, which is no less than 1 − β/2; up to 1.9 rounding cannot outweigh that.
    if parameters.beta > 1.9 or parameters.gamma > 1:
        np.maximum(t, 0, t)
    if at is not None and parameters.preserve_label:
        raise_top(t, at)
    np.divide(t, row_sums(t), t)
    return t


def _numbers(parameters: HeuristicParameters, y: Rows) -> NoiseNumbers:
    clip_odds = ODDS_CLIP if parameters.variant == "released" else None
    return noise_numbers(parameters.beta, parameters.gamma, y.dtype.char, clip_odds)
