"""GRAD²: perturb the answer to redirect the thief's gradient, within an L1 budget."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import torch
from torch import nn

from art_divqat.defences.gradient._base import InputDefence
from art_divqat.defences.parameters import GRAD2 as GRAD2_PARAMETERS
from art_divqat.defences.postprocessor._rows import Rows
from art_divqat.parameters import Parameters


class GRAD2(InputDefence):
    """ỹ = argmax ⟨Gᵀỹ, z⟩ over ỹ ∈ Δ with ‖ỹ − y‖₁ ≤ ε, for G = ∇_θ log softmax f_A(x) of a trained surrogate f_A.

    The program is linear in the scores Gz and solved exactly: up to ε/2 of mass goes to the class of the highest score,
    taken from the classes of the lowest. `ones`: z is all ones over all parameters. `clean`: z = −Gᵀy, against the
    clean gradient, over the last linear layer. ε is a bound, not a quota; `docs/defend-a-classifier.md` derives this.

    Mazeika, Li and Forsyth, "How to Steer Your Adversary", ICML 2022.

    :param surrogate: logit-valued network, trained on the victim's answers.
    :param epsilon: L1 budget, in [0, 2].
    :param target: `ones` or `clean`.
    :param batch_size: inputs a forward pass.
    :raises UserError: for a parameter out of range.

    >>> from art_divqat.defences.gradient import untrained_surrogate
    >>> defence = GRAD2(untrained_surrogate((1, 8, 8), 3, seed=0), epsilon=0.5)
    >>> answers = np.array([[0.8, 0.1, 0.1]], dtype=np.float32)
    >>> served = defence.perturb(np.ones((1, 1, 8, 8), dtype=np.float32), answers)
    >>> bool(np.abs(served - answers).sum() <= 0.5001)
    True
    """

    params: ClassVar[list[str]] = ["epsilon", "target", "batch_size"]
    parameters: ClassVar[Parameters] = GRAD2_PARAMETERS

    def __init__(
        self,
        surrogate: nn.Module,
        epsilon: float = 1.0,
        target: Literal["ones", "clean"] = "ones",
        batch_size: int = 256,
    ) -> None:
        super().__init__(surrogate, batch_size=batch_size)
        self.epsilon: float = self._own("epsilon", epsilon)
        self.target: str = self._own("target", target)
        self._parameters = {name: value.detach() for name, value in surrogate.named_parameters()}
        self._ones = {name: torch.ones_like(value) for name, value in self._parameters.items()}

    def _perturb(self, x: torch.Tensor, rows: Rows) -> Rows:
        if self.target == "clean":
            return self.from_scores(self.network_probabilities(x, rows) - rows, rows)
        scores = self.gradient_scores(x)
        self._check_width(scores.shape[1], rows.shape[1])
        return self.from_scores(scores.astype(rows.dtype), rows)

    def gradient_scores(self, x: torch.Tensor) -> Rows:
        """Σ_θ ∂ log softmax f_A(x)_j / ∂θ for every class j, of shape (N, C)."""
        inputs = x.to(self._device())

        def log_probabilities(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
            logits: torch.Tensor = torch.func.functional_call(self.network, parameters, (inputs,))
            return torch.log_softmax(logits, dim=1)

        with torch.no_grad():
            scores: torch.Tensor = torch.func.jvp(log_probabilities, (self._parameters,), (self._ones,))[1]
        return np.asarray(scores.cpu().numpy())

    def from_scores(self, scores: Rows, y: Rows) -> Rows:
        """The served answers, from the scores s (N, C) and the clean answers y (N, C)."""
        order = np.argsort(scores, axis=1, kind="stable")
        ascending = np.take_along_axis(y, order, axis=1)
        before = np.cumsum(ascending, axis=1) - ascending
        taken = np.clip(self.epsilon / 2 - before, 0, ascending)
        ascending -= taken
        ascending[:, -1] += taken.sum(axis=1)
        served = np.empty_like(y)
        np.put_along_axis(served, order, ascending, axis=1)
        return served
