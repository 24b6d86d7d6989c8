"""Reverse sigmoid: perturb probabilities with reverse-sigmoid noise, without a gate."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from art_divqat.defences.parameters import REVERSE_SIGMOID
from art_divqat.defences.postprocessor._base import InputType, ProbabilityPostprocessor
from art_divqat.defences.postprocessor._heuristic_kernel import noise_numbers, subtract_reverse_sigmoid
from art_divqat.defences.postprocessor._rows import Rows, row_sums
from art_divqat.parameters import Parameters


class ReverseSigmoid(ProbabilityPostprocessor):
    """ỹ_k ∝ max(0, y_k − β(σ(γ·logit y_k) − ½)).

    The formula of ART's class, but with the limits at 0 and 1 instead of a clip to 1e-9 (which float32 cannot represent
    near 1), and with logits refused instead of silently clipped to [0, 1].

    Lee, Edwards, Molloy and Su, 2019, https://arxiv.org/abs/1806.00054

    :param beta: magnitude, in (0, 1000].
    :param gamma: sharpness, in (0, 1000].
    :raises UserError: for a parameter out of range.

    >>> import numpy as np
    >>> ReverseSigmoid(beta=0.5, gamma=0.2)(np.array([[0.7, 0.2, 0.1]])).round(3)
    array([[0.636, 0.22 , 0.144]])
    """

    params: ClassVar[list[str]] = ["beta", "gamma", "input_type"]
    parameters: ClassVar[Parameters] = REVERSE_SIGMOID

    def __init__(
        self,
        beta: float = 1.0,
        gamma: float = 0.1,
        input_type: InputType = "auto",
        apply_fit: bool = False,
        apply_predict: bool = True,
    ) -> None:
        super().__init__(input_type=input_type, apply_fit=apply_fit, apply_predict=apply_predict)
        self.beta = beta
        self.gamma = gamma
        self._check_params()

    def _perturb(self, rows: Rows) -> Rows:
        numbers = noise_numbers(self.beta, self.gamma, rows.dtype.char)
        with np.errstate(all="ignore"):  # the limits at 0 and 1
            served = subtract_reverse_sigmoid(np.minimum(rows, numbers.one), numbers)
        np.maximum(served, 0, out=served)
        served /= row_sums(served)
        return served
