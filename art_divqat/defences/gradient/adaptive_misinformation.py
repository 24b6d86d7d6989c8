"""Adaptive misinformation: mix uncertain answers with those of a network that is trained to be wrong."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import nn

from art_divqat.defences.gradient._base import InputDefence
from art_divqat.defences.parameters import ADAPTIVE_MISINFORMATION
from art_divqat.defences.postprocessor._rows import Rows, row_tops
from art_divqat.parameters import Parameters


class AdaptiveMisinformation(InputDefence):
    """ỹ = (1 − a) y + a softmax f_mis(x), a = σ(ν(τ − max_k y_k)).

    f_mis sees the query, not the answer: ART's postprocessors are given probabilities only, so this one wraps a
    classifier. :func:`train_misinformation` trains f_mis, with the loss −log(1 − p_y).

    Kariyappa and Qureshi, CVPR 2020, https://arxiv.org/abs/1911.07100

    :param network: the misinformation network f_mis.
    :param tau: threshold on the top probability, in [0, 1].
    :param nu: steepness of the gate, in (0, 1e6].
    :param batch_size: inputs a forward pass.
    :raises UserError: for a parameter out of range.

    >>> from art_divqat.defences.gradient import untrained_surrogate
    >>> defence = AdaptiveMisinformation(untrained_surrogate((1, 8, 8), 3, seed=0), tau=0.5)
    >>> answers = np.array([[0.8, 0.1, 0.1]], dtype=np.float32)
    >>> defence.perturb(np.zeros((1, 1, 8, 8), dtype=np.float32), answers)
    array([[0.8, 0.1, 0.1]], dtype=float32)
    """

    params: ClassVar[list[str]] = ["tau", "nu", "batch_size"]
    parameters: ClassVar[Parameters] = ADAPTIVE_MISINFORMATION

    def __init__(self, network: nn.Module, tau: float = 0.5, nu: float = 1000.0, batch_size: int = 256) -> None:
        super().__init__(network, batch_size=batch_size)
        self.tau: float = self._own("tau", tau)
        self.nu: float = self._own("nu", nu)

    def _perturb(self, x: torch.Tensor, rows: Rows) -> Rows:
        misinformation = self.network_probabilities(x, rows)
        with np.errstate(over="ignore"):  # exp(∞) closes the gate
            share = 1 / (1 + np.exp(self.nu * (row_tops(rows)[1] - rows.dtype.type(self.tau))))
        served: Rows = rows + share * (misinformation - rows)
        return served
