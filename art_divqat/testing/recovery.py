"""Conformance check of recoveries: test your own against the contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat.attacks.recovery.contract import RecoveryEntry, RecoveryRequest
from art_divqat.parameters import resolve
from art_divqat.testing._common import require, undisturbed

_SUBJECT = "The recovery"


def check_recovery(entry: RecoveryEntry, parameters: Mapping[str, Any] | None = None) -> None:
    """Build a recovery twice, restore answers with it, and check what every recovery must keep.

    Rows on the simplex go in, and rows on the simplex come out: finite, of the same shape, float32; what goes in is
    left as it was; one seed gives the same rows; it asks each image as often as its entry says; the global random
    states are left alone. The defence that a thief is told of here rounds answers to two decimals.

    :param parameters: those that its name is given; the others have their defaults.
    :raises AssertionError: naming what was broken.
    :raises UserError: for parameters that it does not take.

    >>> from art_divqat.attacks.recovery import RECOVERIES
    >>> check_recovery(RECOVERIES["top-k"], {"k": 2})
    """
    values = resolve("checked", parameters or {}, entry.parameters, "Recovery")
    for classes in (2, 10):
        served = _rounded(_answers(classes))
        restored = []
        for _ in range(2):
            given = served.copy()
            with undisturbed(_SUBJECT):
                recovery = entry.load()(RecoveryRequest(classes, _rounded, 0, values))
                repeats = entry.repeats(values)
                differing = f"asks each image {recovery.repeats} times, and its entry says {repeats}"
                require(recovery.repeats == repeats >= 1, _SUBJECT, differing)
                rows = recovery.restore(given)
            require(np.array_equal(given, served), _SUBJECT, "changed the answers that it was given")
            _check_rows(rows, served.shape)
            restored.append(np.array(rows))
        require(np.allclose(restored[0], restored[1], atol=1e-6), _SUBJECT, "gave other rows for the same seed")


def _answers(classes: int) -> NDArray[np.float32]:
    generator = np.random.default_rng(classes)
    flat_to_peaked = [generator.dirichlet(np.full(classes, a), 16) for a in (5.0, 0.5, 0.05)]
    return np.concatenate([*flat_to_peaked, np.eye(classes)]).astype(np.float32)


def _rounded(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    kept = np.round(rows, 2) + np.float32(1e-3)
    return np.asarray(kept / kept.sum(axis=1, keepdims=True), np.float32)


def _check_rows(rows: Any, shape: tuple[int, ...]) -> None:
    require(isinstance(rows, np.ndarray), _SUBJECT, f"gave a {type(rows).__name__}: expected an array")
    require(rows.shape == shape, _SUBJECT, f"gave rows of shape {rows.shape} for answers of shape {shape}")
    require(rows.dtype == np.float32, _SUBJECT, f"gave rows of {rows.dtype}: expected float32")
    require(bool(np.isfinite(rows).all()), _SUBJECT, "gave rows that are not finite")
    off = float(np.abs(rows.sum(axis=1) - 1).max())
    require(
        bool(rows.min() >= 0) and off < 1e-4, _SUBJECT, "gave rows that are no probabilities: below 0, or not of sum 1"
    )
