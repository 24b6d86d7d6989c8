"""Row arithmetic of the postprocessors: checks, sums, softmax, in cache-sized blocks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from art_divqat.errors import UserError

_einsum: Callable[..., Any]
try:
    # What np.einsum calls, without the microsecond or two that it takes to choose a contraction order: half of a short
    # sum, and 9 to 14 % of a single answer of the heuristic perturbation (evaluations/benchmarks/latency).
    from numpy._core.multiarray import c_einsum as _einsum
except ImportError:  # numpy 1, or a numpy that moves its private modules again
    _einsum = np.einsum

Rows = npt.NDArray[np.floating[Any]]

# How far from 1 a row may sum and still count as probabilities: the tolerance of art.utils.is_probability.
SUM_TOLERANCE = 1e-3
# BLAS adds faster than einsum but may add the same row differently in another batch. A sum this near to 1 is within
# the tolerance whichever way it was added; any other is added again by einsum.
CLEARLY_ONE = 0.9 * SUM_TOLERANCE
# 32,768 float32 numbers are 128 KiB: two such buffers and the block itself stay in a level-2 cache.
BLOCK_NUMBERS = 1 << 15
# An order that is four float spacings wide survives one rounding of a product and one of a division.
LIFT_SPACINGS = 4
_LIFT32, _LIFT64 = (1 + LIFT_SPACINGS * float(np.finfo(kind).eps) for kind in (np.float32, np.float64))


def row_sums(rows: Rows) -> Rows:
    """Sums of shape (N, 1). `einsum` takes half the time of `sum(axis=1)` and adds each row by itself."""
    sums: Rows = _einsum("ij->i", rows)[:, np.newaxis]
    return sums


@functools.lru_cache(maxsize=64)
def ones(n: int, kind: str) -> Rows:
    """A vector of `n` ones of the type with the character `kind`, made once and never to be written to."""
    vector: Rows = np.ones(n, dtype=kind)
    vector.flags.writeable = False
    return vector


def row_tops(rows: Rows) -> tuple[npt.NDArray[np.intp], Rows]:
    """The first largest entry of every row of a C-ordered array, half the time of `max(axis=1)`.

    :returns: where they stand in `rows.ravel()`, (N,), and their values (N, 1).
    """
    at = rows.argmax(axis=1)
    at += np.arange(0, rows.size, rows.shape[1])
    return at, rows.ravel()[at][:, np.newaxis]


def row_blocks(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Slices over the rows that each span about 128 KiB of float32."""
    step = max(1, BLOCK_NUMBERS // max(1, n_columns))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def checked_array(owner: str, preds: Any) -> Rows:
    """`preds` as a C-ordered float32 or float64 array of rank two with at least one column.

    :raises UserError: for any other type, rank or width.
    """
    rows = np.asarray(preds)
    if rows.dtype not in (np.float32, np.float64):
        raise UserError(
            f"{owner} expects an array of float32 or float64 answers but got {rows.dtype} "
            f"of shape {rows.shape}; convert it with .astype(np.float32)."
        )
    if rows.ndim != 2:
        raise UserError(f"{owner} expects answers of shape (N, C) or (N, 1) but got {rows.ndim}D, shape {rows.shape}.")
    if rows.shape[1] == 0:
        raise UserError(f"{owner} expects at least one column of answers but got shape {rows.shape}, no class at all.")
    return np.ascontiguousarray(rows)


def check_finite(owner: str, rows: Rows) -> None:
    """:raises UserError: where an entry is NaN or infinite, naming the first such row."""
    # A sum is finite when every entry is, unless huge entries overflow it; only then look at each of them.
    with np.errstate(over="ignore", invalid="ignore"):
        suspect = ~np.isfinite(row_sums(rows)[:, 0])
    if suspect.any():
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            raise UserError(f"{owner} expects finite answers but row {int(bad.argmax())} has NaN or infinite entries.")


def check_simplex(owner: str, rows: Rows, remedy: str) -> None:
    """:raises UserError: where a row has a non-finite or negative entry or does not sum to one within 1e-3."""
    if rows.size == 0:
        return
    if rows.shape[1] == 1:
        _check_binary(owner, rows, remedy)
        return
    # argmin and argmax point at a NaN where there is one, and a single index costs a fraction of min and max.
    nonnegative = rows.item(rows.argmin()) >= 0
    if nonnegative:
        sums = rows.dot(ones(rows.shape[1], rows.dtype.char))
        lowest, highest = sums.item(sums.argmin()) - 1, sums.item(sums.argmax()) - 1
        if lowest >= -CLEARLY_ONE and highest <= CLEARLY_ONE:
            return
    with np.errstate(over="ignore", invalid="ignore"):
        sums = row_sums(rows)[:, 0]
        off = ~(np.abs(sums - 1) <= SUM_TOLERANCE)
    if nonnegative and not off.any():
        return
    check_finite(owner, rows)
    negative = (rows < 0).any(axis=1)
    if negative.any():
        row = int(negative.argmax())
        raise UserError(
            f"{owner} expects probabilities, none negative, but row {row} has an entry of "
            f"{rows[row].min():.6g}; {remedy}"
        )
    row = int(off.argmax())
    raise UserError(f"{owner} expects probabilities that sum to 1 but row {row} sums to {sums[row]:.6g}; {remedy}")


def _check_binary(owner: str, rows: Rows, remedy: str) -> None:
    check_finite(owner, rows)
    outside = ((rows < 0) | (rows > 1))[:, 0]
    if outside.any():
        row = int(outside.argmax())
        raise UserError(
            f"{owner} expects one column of probabilities in [0, 1] but row {row} is {rows[row, 0]:.6g}; {remedy}"
        )


def two_columns(column: Rows) -> Rows:
    """The rows (1 − p, p) of a binary answer (N, 1), so that a tie at p = ½ stays with class 0, as `p > 0.5` has it."""
    return np.concatenate([1 - column, column], axis=1)


def softmax_rows(logits: Rows) -> Rows:
    """softmax of every row, in the array's own precision; a single column is the logit of class 1."""
    out = np.empty_like(logits)
    if logits.shape[1] == 1:
        # exp of a negative number only, whatever the sign of the logit
        small = np.exp(-np.abs(logits))
        np.divide(np.where(logits >= 0, 1, small), 1 + small, out=out)
        return out
    for block in row_blocks(*logits.shape):
        part = out[block]
        with np.errstate(over="ignore"):  # exp(−∞) = 0 is right for logits further apart than the largest float
            np.subtract(logits[block], row_tops(logits[block])[1], out=part)
        np.exp(part, out=part)
        part /= row_sums(part)
    return out


def normalised(rows: Rows, fallback: Rows) -> Rows:
    """Divide the rows by their sums, in place; rows that sum to zero are replaced by those of `fallback`."""
    sums = row_sums(rows)
    empty = sums[:, 0] <= 0
    if empty.any():
        rows[empty] = fallback[empty]
        sums[empty] = row_sums(fallback[empty])
    rows /= sums
    return rows


def lift(rows: Rows) -> float:
    """The factor that :func:`raise_top` puts between the top class and its largest rival."""
    return _LIFT32 if rows.itemsize == 4 else _LIFT64


def raise_top(rows: Rows, at: npt.NDArray[np.intp] | np.intp) -> None:
    """Raise, in place, the entries at `at` four float spacings above the largest rival of their row, if below that.

    The order then survives the division by the row's sum. `rows` is C-ordered, `at` as :func:`row_tops` gives it.
    """
    if len(rows) == 1:  # Python's numbers: the same bits in half of the time
        column = at.item()
        top = rows.item(column)
        rows[0, column] = 0
        rows[0, column] = max(top, rows.item(rows.argmax()) * lift(rows))
        return
    flat = rows.ravel()  # a view
    tops = flat[at]
    flat[at] = 0
    rivals = row_tops(rows)[1][:, 0]
    rivals *= lift(rows)
    flat[at] = np.maximum(tops, rivals, out=rivals)
