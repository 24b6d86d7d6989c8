"""Softmax: turn logits into probabilities, as a postprocessor."""

from __future__ import annotations

from typing import ClassVar

from art_divqat.defences.postprocessor._base import ProbabilityPostprocessor
from art_divqat.defences.postprocessor._rows import Rows


class Softmax(ProbabilityPostprocessor):
    """ỹ_k = exp(z_k) / Σ_j exp(z_j): the step that turns a network's logits into probabilities.

    Put it first in `postprocessing_defences`; the network stays logit-valued, so gradients are untouched. A single
    column is the logit of class 1 and gives σ(z). The input must be logits: rows on the simplex are not recognised, and
    get a second softmax.

    >>> import numpy as np
    >>> Softmax()(np.array([[0.0, 0.0], [1000.0, 0.0]], dtype=np.float32))
    array([[0.5, 0.5],
           [1. , 0. ]], dtype=float32)
    """

    params: ClassVar[list[str]] = []

    def __init__(self, apply_fit: bool = False, apply_predict: bool = True) -> None:
        super().__init__(input_type="logits", apply_fit=apply_fit, apply_predict=apply_predict)
        self._check_params()

    def _perturb(self, rows: Rows) -> Rows:
        return rows

    def _perturb_column(self, column: Rows) -> Rows:
        return column
