"""High-confidence answers: serve only the probabilities above a cutoff."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from art_divqat._arrays import one_hot
from art_divqat.defences.parameters import HIGH_CONFIDENCE
from art_divqat.defences.postprocessor._base import InputType, ProbabilityPostprocessor
from art_divqat.defences.postprocessor._rows import Rows, normalised
from art_divqat.parameters import Parameters


class HighConfidence(ProbabilityPostprocessor):
    """ỹ_k ∝ y_k where y_k ≥ cutoff, else 0; an answer with no such class is its label alone.

    ART's class does not renormalise, so its rows sum to anything between 0 and 1.

    :param cutoff: smallest probability that is served, in (0, 1].
    :raises UserError: for a parameter out of range.

    >>> import numpy as np
    >>> HighConfidence(cutoff=0.2)(np.array([[0.6, 0.2, 0.1, 0.1]]))
    array([[0.75, 0.25, 0.  , 0.  ]])
    """

    params: ClassVar[list[str]] = ["cutoff", "input_type"]
    parameters: ClassVar[Parameters] = HIGH_CONFIDENCE

    def __init__(
        self,
        cutoff: float = 0.25,
        input_type: InputType = "auto",
        apply_fit: bool = False,
        apply_predict: bool = True,
    ) -> None:
        super().__init__(input_type=input_type, apply_fit=apply_fit, apply_predict=apply_predict)
        self.cutoff = cutoff
        self._check_params()

    def _perturb(self, rows: Rows) -> Rows:
        out = np.where(rows >= self.cutoff, rows, np.zeros((), dtype=rows.dtype))
        return normalised(out, one_hot(rows))
