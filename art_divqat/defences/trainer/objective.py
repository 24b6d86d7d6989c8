"""Objective of DivQAT: divergences D(teacher, student) of the quantized answers from the full-precision teacher's."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from art_divqat._validation import check_choice
from art_divqat.defences.trainer.divqat_parameters import DIVERGENCES


def divergence(
    teacher_logits: Tensor, student_logits: Tensor, kind: str = "js", temperature: float = 1.0, cap: float | None = None
) -> Tensor:
    """Mean over the rows of min(D(p, q), cap), p = softmax(teacher / T), q = softmax(student / T); in nats.

    `kl` is KL(p‖q) = Σ p log(p/q), `kl-reverse` is KL(q‖p), `js` is ½ KL(p‖m) + ½ KL(q‖m) with m = ½ (p + q), at most
    log 2. A row beyond the cap gives no gradient.

    :param teacher_logits: of shape (N, C).
    :param student_logits: of shape (N, C); gradients flow here.
    :param kind: `js`, `kl` or `kl-reverse`.
    :param temperature: T, in (0, inf).
    :param cap: an upper bound a row, in nats, or None.
    :raises UserError: for an unknown kind.

    >>> a, b = torch.tensor([[0.0, 0.0]]), torch.tensor([[100.0, 0.0]])
    >>> round(float(divergence(a, a)), 6), round(float(divergence(a, b, "kl-reverse")), 6)
    (0.0, 0.693147)
    """
    check_choice("divergence", "kind", kind, DIVERGENCES)
    log_p = functional.log_softmax(teacher_logits / temperature, dim=1)
    log_q = functional.log_softmax(student_logits / temperature, dim=1)
    if kind == "kl":
        rows = _kl(log_p, log_q)
    elif kind == "kl-reverse":
        rows = _kl(log_q, log_p)
    else:
        log_m = torch.logaddexp(log_p, log_q) - torch.log(torch.tensor(2.0, device=log_p.device))
        rows = 0.5 * _kl(log_p, log_m) + 0.5 * _kl(log_q, log_m)
    return (rows if cap is None else rows.clamp(max=cap)).mean()


def spread(logits: Tensor) -> Tensor:
    """Mean over the rows a of ‖log q(a) − mean over the rows of log q‖ / √C, each less its mean over the C classes.

    How far the answers lie from a constant answer, in nats. At 0 every row has the same answer, and an attacker who
    subtracts the mean answer has nothing left.

    :param logits: of shape (N, C); a constant added to a row changes nothing.

    >>> alike = torch.tensor([[9.0, 1.0], [9.0, 1.0]])
    >>> float(spread(alike)), float(spread(alike + torch.tensor([[1.0, -1.0], [-1.0, 1.0]])))
    (0.0, 1.0)
    """
    return confidence(logits - logits.mean(dim=0))


def confidence(logits: Tensor) -> Tensor:
    """Mean over the rows a of ‖log q(a) − its mean over the C classes‖ / √C: how far answers lie from the uniform one.

    In nats; 0 if all classes are equally likely.

    :param logits: of shape (N, C); a constant added to a row changes nothing.

    >>> float(confidence(torch.tensor([[9.0, 9.0]]))), float(confidence(torch.tensor([[9.0, 1.0]])))
    (0.0, 4.0)
    """
    centred = logits - logits.mean(dim=1, keepdim=True)
    return torch.linalg.vector_norm(centred, dim=1).mean() / math.sqrt(logits.shape[1])


def _kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    return (log_a.exp() * (log_a - log_b)).sum(dim=1)
