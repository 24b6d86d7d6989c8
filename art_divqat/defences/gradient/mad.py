"""MAD: perturb the answer so that the thief's gradient points away from the clean one, within an L1 budget."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import nn

from art_divqat.defences.gradient._base import InputDefence
from art_divqat.defences.parameters import MAD as MAD_PARAMETERS
from art_divqat.defences.postprocessor._rows import Rows, raise_top, row_sums
from art_divqat.parameters import Parameters


class MAD(InputDefence):
    """ỹ = (1 − a) y + a v, with v the corner of the simplex that maximises 1 − cos(Gᵀv, Gᵀy), a = min(1, ε/‖y − v‖₁).

    G = ∇_θ log softmax f_A(x) of a surrogate f_A over its last, linear layer; a forward pass suffices
    (`docs/defend-a-classifier.md` derives it). `preserve_label=True` keeps the top class c: the corners are then e_c
    and (e_c + e_j)/2 instead of the e_j (*our reading*).

    Orekondy, Schiele and Fritz, ICLR 2020, https://arxiv.org/abs/1906.10908

    :param surrogate: logit-valued network whose last layer is linear; MAD uses an untrained one.
    :param epsilon: L1 budget, in [0, 2].
    :param preserve_label: never change the top class.
    :param batch_size: inputs a forward pass.
    :raises UserError: for a parameter out of range.

    >>> from art_divqat.defences.gradient import untrained_surrogate
    >>> mad = MAD(untrained_surrogate((1, 8, 8), 3, seed=0), epsilon=0.5)
    >>> answers = np.array([[0.8, 0.1, 0.1]], dtype=np.float32)
    >>> served = mad.perturb(np.zeros((1, 1, 8, 8), dtype=np.float32), answers)
    >>> round(float(np.abs(served - answers).sum()), 6)
    0.5
    """

    params: ClassVar[list[str]] = ["epsilon", "preserve_label", "batch_size"]
    parameters: ClassVar[Parameters] = MAD_PARAMETERS

    def __init__(
        self, surrogate: nn.Module, epsilon: float = 1.0, preserve_label: bool = False, batch_size: int = 256
    ) -> None:
        super().__init__(surrogate, batch_size=batch_size)
        self.epsilon: float = self._own("epsilon", epsilon)
        self.preserve_label: bool = self._own("preserve_label", preserve_label)

    def _perturb(self, x: torch.Tensor, rows: Rows) -> Rows:
        return self.from_surrogate(self.network_probabilities(x, rows), rows)

    def from_surrogate(self, p: Rows, y: Rows) -> Rows:
        """The served answers, from the surrogate's probabilities p (N, C) and the clean answers y (N, C)."""
        each = np.arange(len(y))
        difference = y - p
        # ⟨e_j − p, y − p⟩ and ‖e_j − p‖² for every class j at once
        products = difference - np.einsum("ij,ij->i", p, difference)[:, None]
        own_norm = np.einsum("ij,ij->i", p, p)[:, None]
        norms = 1 - 2 * p + own_norm
        tops = y.argmax(axis=1)
        if self.preserve_label:
            top_p = p[each, tops][:, None]
            cross = own_norm - p - top_p
            cross[each, tops] += 1
            norms = (norms + norms[each, tops][:, None] + 2 * cross) / 4
            products = (products + products[each, tops][:, None]) / 2
        # A corner at the surrogate's own answer has no gradient, hence no direction.
        chosen = np.argmin(np.where(norms > 1e-12, products / np.sqrt(np.maximum(norms, 1e-12)), 0), axis=1)
        corners = np.zeros_like(y)
        corners[each, chosen] += 0.5
        corners[each, tops if self.preserve_label else chosen] += 0.5
        distance = np.abs(y - corners).sum(axis=1, keepdims=True)
        share = np.minimum(1, self.epsilon / np.maximum(distance, np.finfo(y.dtype).tiny))
        served: Rows = y + share * (corners - y)
        if self.preserve_label:
            raise_top(served, tops + np.arange(0, served.size, served.shape[1]))
            served /= row_sums(served)
        return served
