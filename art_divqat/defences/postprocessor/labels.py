"""Labels only: serve the top class as a one-hot answer."""

from __future__ import annotations

from typing import ClassVar

from art_divqat._arrays import one_hot
from art_divqat.defences.postprocessor._base import InputType, ProbabilityPostprocessor
from art_divqat.defences.postprocessor._rows import Rows


class ClassLabels(ProbabilityPostprocessor):
    """ỹ = e_c with c = argmax_k y_k: the answer is the label and nothing else.

    ART's class of this name writes a one into every row for the label of any row, so already with two rows each may get
    two ones; this class labels each row separately. A tie goes to the first class; a column p becomes 1 where p > ½.

    >>> import numpy as np
    >>> ClassLabels()(np.array([[0.6, 0.4], [0.1, 0.9]]))
    array([[1., 0.],
           [0., 1.]])
    """

    params: ClassVar[list[str]] = ["input_type"]

    def __init__(self, input_type: InputType = "auto", apply_fit: bool = False, apply_predict: bool = True) -> None:
        super().__init__(input_type=input_type, apply_fit=apply_fit, apply_predict=apply_predict)
        self._check_params()

    def _perturb(self, rows: Rows) -> Rows:
        return one_hot(rows)
