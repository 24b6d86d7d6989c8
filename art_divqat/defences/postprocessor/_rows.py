"""Arithmetic on rows that every postprocessor shares: checks, sums, softmax, in cache-sized blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from art_divqat.errors import UserError

Rows = npt.NDArray[np.floating[Any]]

# How far from 1 a row may sum and still count as probabilities: the tolerance of art.utils.is_probability.
SUM_TOLERANCE = 1e-3
# 32,768 float32 numbers are 128 KiB: two such buffers and the block itself stay in a level-2 cache.
_BLOCK_NUMBERS = 1 << 15
# An order that is four float spacings wide survives one rounding of a product and one of a division.
LIFT_SPACINGS = 4


def row_sums(rows: Rows) -> Rows:
    """Sums of shape (N, 1). `einsum` takes a third of the time of `sum(axis=1)` and adds each row by itself."""
    sums: Rows = np.einsum("ij->i", rows)[:, np.newaxis]
    return sums


def row_tops(rows: Rows) -> tuple[npt.NDArray[np.intp], Rows]:
    """The first largest entry of every row: positions (N,) and values (N, 1); half the time of `max(axis=1)`."""
    positions = rows.argmax(axis=1)
    return positions, rows[np.arange(rows.shape[0]), positions][:, np.newaxis]


def row_blocks(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Slices over the rows that each span about 128 KiB of float32."""
    step = max(1, _BLOCK_NUMBERS // max(1, n_columns))
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
    with np.errstate(over="ignore", invalid="ignore"):
        sums = row_sums(rows)[:, 0]
        off = ~(np.abs(sums - 1) <= SUM_TOLERANCE)
    if rows.min() >= 0 and not off.any():
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


def scaled_logit_tanh(rows: Rows, gamma: float, out: Rows, clip_odds: float | None = None) -> None:
    """tanh(γ/2 · logit y) = 2σ(γ·logit y) − 1 into `out`, with the limits ∓1 at y = 0 and y = 1.

    1 − y is exact from ½ on, so the odds keep the precision of y, and no step of it overflows: log 0 = −∞ and y/0 = ∞
    are the limits that tanh expects. `clip_odds` = c keeps the odds in [c, 1 − c].
    """
    with np.errstate(divide="ignore"):
        np.subtract(1, rows, out=out)
        np.divide(rows, out, out=out)
        if clip_odds is not None:
            np.clip(out, clip_odds, 1 - clip_odds, out=out)
        np.log(out, out=out)
    out *= gamma / 2
    np.tanh(out, out=out)


def one_hot(positions: npt.NDArray[np.intp], like: Rows) -> Rows:
    """Rows of the shape and precision of `like` with a one at each position."""
    out = np.zeros_like(like)
    out[np.arange(out.shape[0]), positions] = 1
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


def raise_top(rows: Rows, positions: npt.NDArray[np.intp]) -> None:
    """Raise, in place, the entry at `positions` four float spacings above its largest rival where it is below that.

    The order then survives the division by the row's sum.
    """
    at = (np.arange(rows.shape[0]), positions)
    top = rows[at]
    rows[at] = 0
    rows[at] = np.maximum(top, row_tops(rows)[1][:, 0] * (1 + LIFT_SPACINGS * float(np.finfo(rows.dtype).eps)))
