"""Rounding: round answers to multiples of 10^−decimals that still sum to one."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from art_divqat.defences.parameters import ROUNDING
from art_divqat.defences.postprocessor._base import InputType, ProbabilityPostprocessor
from art_divqat.defences.postprocessor._rows import Rows, row_sums
from art_divqat.parameters import Parameters


class Rounding(ProbabilityPostprocessor):
    """Round each answer to multiples of 10^−decimals that still sum to one, by largest remainders.

    Every entry is rounded down, and the remaining units go to the entries that lost most (the first ones of a tie). No
    entry moves by a whole unit, and the row stays on the simplex, unlike with ART's `Rounded`.

    :param decimals: decimal places, from 1 to 6 (a float32 has no more).
    :raises UserError: for a parameter out of range.

    >>> import numpy as np
    >>> Rounding(decimals=1)(np.array([[0.55, 0.25, 0.2]]))
    array([[0.6, 0.2, 0.2]])
    """

    params: ClassVar[list[str]] = ["decimals", "input_type"]
    parameters: ClassVar[Parameters] = ROUNDING

    def __init__(
        self,
        decimals: int = 3,
        input_type: InputType = "auto",
        apply_fit: bool = False,
        apply_predict: bool = True,
    ) -> None:
        super().__init__(input_type=input_type, apply_fit=apply_fit, apply_predict=apply_predict)
        self.decimals = decimals
        self._check_params()

    def _perturb(self, rows: Rows) -> Rows:
        units = 10**self.decimals
        exact = rows.astype(np.float64) * units
        exact /= row_sums(rows.astype(np.float64))
        whole = np.floor(exact)
        missing = np.rint(units - whole.sum(axis=1, keepdims=True))
        order = np.argsort(whole - exact, axis=1, kind="stable")
        extra = np.zeros_like(whole)
        np.put_along_axis(extra, order, (np.arange(rows.shape[1]) < missing).astype(np.float64), axis=1)
        served: Rows = ((whole + extra) / units).astype(rows.dtype)
        return served
