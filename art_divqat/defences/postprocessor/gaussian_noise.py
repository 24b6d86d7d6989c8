"""Gaussian noise: add seeded noise to the probabilities."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from art_divqat.defences.parameters import GAUSSIAN_NOISE
from art_divqat.defences.postprocessor._base import InputType, SeededPostprocessor
from art_divqat.defences.postprocessor._rows import Rows, normalised
from art_divqat.parameters import Parameters


class GaussianNoise(SeededPostprocessor):
    """ỹ ∝ max(0, y + N(0, scale²)), from a generator of its own.

    ART's class draws from numpy's global generator; this one does not. A row whose entries all become negative is
    served unchanged.

    :param scale: standard deviation, in (0, 1000].
    :param seed: seed of the generator, an int of at least 0.
    :raises UserError: for a parameter out of range.

    >>> import numpy as np
    >>> served = GaussianNoise(scale=0.1, seed=0)(np.array([[0.6, 0.3, 0.1]]))
    >>> bool(np.isclose(served.sum(), 1))
    True
    """

    params: ClassVar[list[str]] = ["scale", "seed", "input_type"]
    parameters: ClassVar[Parameters] = GAUSSIAN_NOISE

    def __init__(
        self,
        scale: float = 0.2,
        seed: int = 0,
        input_type: InputType = "auto",
        apply_fit: bool = False,
        apply_predict: bool = True,
    ) -> None:
        super().__init__(seed=seed, input_type=input_type, apply_fit=apply_fit, apply_predict=apply_predict)
        self.scale = scale
        self._check_params()

    def _perturb(self, rows: Rows) -> Rows:
        noise = self._generator.standard_normal(rows.shape, dtype=rows.dtype.type)
        noise *= self.scale
        noise += rows
        return normalised(np.maximum(noise, 0, out=noise), rows)
