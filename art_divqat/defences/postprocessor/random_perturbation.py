"""Random perturbation: move probability to a random class."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from art_divqat.defences.parameters import RANDOM
from art_divqat.defences.postprocessor._base import InputType, SeededPostprocessor
from art_divqat.defences.postprocessor._rows import Rows
from art_divqat.parameters import Parameters


class RandomPerturbation(SeededPostprocessor):
    """ỹ = (1 − ε/2) y + (ε/2) e_j, with j uniform among the classes that are not the top one.

    The L1 change is ε(1 − y_j) ≤ ε. The baseline of GRAD² (Mazeika, Li and Forsyth, ICML 2022).

    :param epsilon: L1 budget, in [0, 2].
    :param seed: seed of the generator, an int of at least 0.
    :raises UserError: for a parameter out of range.

    >>> import numpy as np
    >>> RandomPerturbation(epsilon=1.0, seed=0)(np.array([[0.8, 0.2]]))
    array([[0.4, 0.6]])
    """

    params: ClassVar[list[str]] = ["epsilon", "seed", "input_type"]
    parameters: ClassVar[Parameters] = RANDOM

    def __init__(
        self,
        epsilon: float = 1.0,
        seed: int = 0,
        input_type: InputType = "auto",
        apply_fit: bool = False,
        apply_predict: bool = True,
    ) -> None:
        super().__init__(seed=seed, input_type=input_type, apply_fit=apply_fit, apply_predict=apply_predict)
        self.epsilon = epsilon
        self._check_params()

    def _perturb(self, rows: Rows) -> Rows:
        # 1 to C − 1 steps on from the top class, around the end, is a uniform draw among the others.
        steps = self._generator.integers(1, rows.shape[1], size=rows.shape[0])
        others = (np.argmax(rows, axis=1) + steps) % rows.shape[1]
        out = rows * (1 - self.epsilon / 2)
        out[np.arange(rows.shape[0]), others] += self.epsilon / 2
        return out
