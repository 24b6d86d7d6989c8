"""Torch module of the heuristic perturbation, to deploy with the model it protects."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from art_divqat.defences.postprocessor._heuristic_kernel import GATE_CLOSED, ODDS_CLIP
from art_divqat.defences.postprocessor._rows import LIFT_SPACINGS


class HeuristicModule(nn.Module):
    """:class:`HeuristicPerturbation` on tensors; see :meth:`HeuristicPerturbation.as_module`.

    >>> import torch
    >>> module = HeuristicModule(0.9, 0.2, 1000.0, False, False, False)
    >>> torch.jit.script(module)(torch.tensor([[0.5, 0.3, 0.2]]))
    tensor([[0.4545, 0.3073, 0.2382]])
    """

    def __init__(
        self, beta: float, gamma: float, nu: float, released: bool, preserve_label: bool, from_logits: bool
    ) -> None:
        super().__init__()
        self.beta = beta
        self.gamma = gamma
        self.nu = nu
        self.released = released
        self.preserve_label = preserve_label
        self.from_logits = from_logits
        self.gate_closed = GATE_CLOSED
        self.odds_clip = ODDS_CLIP
        self.lift32 = 1 + LIFT_SPACINGS * torch.finfo(torch.float32).eps
        self.lift64 = 1 + LIFT_SPACINGS * torch.finfo(torch.float64).eps

    def extra_repr(self) -> str:
        return f"beta={self.beta}, gamma={self.gamma}, nu={self.nu}, released={self.released}"

    def forward(self, answers: Tensor) -> Tensor:
        binary = answers.shape[1] == 1
        if self.from_logits:
            answers = torch.sigmoid(answers) if binary else torch.softmax(answers, dim=1)
        if binary:
            answers = torch.cat([1 - answers, answers], dim=1)
        served = self.perturb(answers)
        return served[:, 1:] if binary else served

    def perturb(self, answers: Tensor) -> Tensor:
        beta = torch.full_like(answers[:, :1], self.beta)
        y = torch.clamp(answers, max=1.0)
        steps = self.nu * (torch.amax(answers, dim=1, keepdim=True) - beta)
        odds = y / (1 - y)
        if self.released:
            odds = torch.clamp(odds, self.odds_clip, 1 - self.odds_clip)
        noise = torch.tanh(torch.log(odds) * (self.gamma / 2))
        t = torch.clamp(y - torch.sigmoid(-steps) * (self.beta / 2) * noise, min=0.0)
        if self.preserve_label:
            top = torch.argmax(answers, dim=1, keepdim=True)
            is_top = torch.arange(answers.shape[1], device=answers.device).unsqueeze(0) == top
            lift = self.lift64 if answers.dtype == torch.float64 else self.lift32
            rival = torch.amax(torch.where(is_top, torch.zeros_like(t), t), dim=1, keepdim=True) * lift
            t = torch.where(is_top, torch.maximum(t, rival), t)
        served = t / t.sum(dim=1, keepdim=True)
        closed = steps > self.gate_closed
        if self.beta == 0.0:
            closed = torch.ones_like(closed)
        return torch.where(closed, answers, served)
