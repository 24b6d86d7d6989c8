"""Top k: serve the k largest probabilities."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from art_divqat.defences.parameters import TOP_K
from art_divqat.defences.postprocessor._base import InputType, ProbabilityPostprocessor
from art_divqat.defences.postprocessor._rows import Rows, normalised
from art_divqat.parameters import Parameters


class TopK(ProbabilityPostprocessor):
    """ỹ_k ∝ y_k for the k largest entries (the first ones of a tie), 0 for the others.

    :param k: how many classes keep their probability, at least 1; more than there are keeps all.
    :raises UserError: for a parameter out of range.

    >>> import numpy as np
    >>> TopK(k=2)(np.array([[0.6, 0.2, 0.1, 0.1]]))
    array([[0.75, 0.25, 0.  , 0.  ]])
    """

    params: ClassVar[list[str]] = ["k", "input_type"]
    parameters: ClassVar[Parameters] = TOP_K

    def __init__(
        self, k: int = 3, input_type: InputType = "auto", apply_fit: bool = False, apply_predict: bool = True
    ) -> None:
        super().__init__(input_type=input_type, apply_fit=apply_fit, apply_predict=apply_predict)
        self.k = k
        self._check_params()

    def _perturb(self, rows: Rows) -> Rows:
        if self.k >= rows.shape[1]:
            return rows.copy()
        largest = np.argsort(-rows, axis=1, kind="stable")[:, : self.k]
        out = np.zeros_like(rows)
        np.put_along_axis(out, largest, np.take_along_axis(rows, largest, axis=1), axis=1)
        return normalised(out, rows)
