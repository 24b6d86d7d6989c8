"""Mixtures of features: what a network's head sees half way between two images of different classes."""

from __future__ import annotations

import torch
from torch import Tensor

from art_divqat.defences.trainer._preparation import class_ids


def mixed(features: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """½ h(x₁) + ½ h(x₂) for every row x₁ and a random row x₂ of another class; no gradient reaches h.

    :param features: h(x), (N, …).
    :param labels: class ids (N,) or rows of probabilities, whose top class counts.
    :param generator: on the CPU; the only thing that decides the pairs.
    :return: (M, …); M is N, or less by the rows that no other class is there for.

    >>> h = torch.tensor([[0.0], [1.0], [5.0]])
    >>> mixed(h, torch.tensor([0, 0, 1]), torch.Generator().manual_seed(0)).T
    tensor([[2.5000, 3.0000, ...]])
    """
    ids = class_ids(labels).cpu()
    draws = torch.rand(len(ids), len(ids), generator=generator)
    draws[ids[:, None] == ids[None, :]] = -1
    best, partners = draws.max(dim=1) if len(ids) else (torch.empty(0), torch.empty(0, dtype=torch.int64))
    rows = (best >= 0).nonzero().flatten()
    features = features.detach()
    return (features[rows.to(features.device)] + features[partners[rows].to(features.device)]) / 2
