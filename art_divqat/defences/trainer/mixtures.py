"""Mixtures of features: inputs of a network's head between two or three images of different classes."""

from __future__ import annotations

import torch
from torch import Tensor

from art_divqat.defences.trainer._preparation import class_ids

_KINDS = 3


def mixed(features: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """A mixture of every row h(x₁) with rows x₂ and x₃ of other classes, one of three kinds; no gradient reaches h.

    ½ h(x₁) + ½ h(x₂); w₁ h(x₁) + w₂ h(x₂) + w₃ h(x₃), w uniform among the weights that sum to 1; or each coordinate
    from h(x₁) or h(x₂) by a coin toss. There are several kinds because a thief's images may lie anywhere between
    classes.

    :param features: h(x), (N, …).
    :param labels: class ids (N,) or rows of probabilities, whose top class counts.
    :param generator: on the CPU; the only thing that decides the rows, the kinds and the weights.
    :return: (M, …); M is N, minus the rows without any row of another class.

    >>> h = torch.tensor([[0.0], [1.0], [5.0]])
    >>> found = mixed(h, torch.tensor([0, 0, 1]), torch.Generator().manual_seed(0))
    >>> found.shape, bool((found >= 0).all() and (found <= 5).all())
    (torch.Size([3, 1]), True)
    """
    ids = class_ids(labels).cpu()
    features = features.detach()
    rows, second = _others(ids, generator)
    _, third = _others(ids, generator)
    one, two, three = (features[chosen.to(features.device)] for chosen in (rows, second, third))
    each = (-1, *[1] * (features.ndim - 1))
    kinds = torch.randint(_KINDS, (len(rows),), generator=generator)
    weights = torch.rand(len(rows), 3, generator=generator).clamp(min=1e-6).log()
    weights = weights / weights.sum(dim=1, keepdim=True)
    weights[kinds == 0] = torch.tensor([0.5, 0.5, 0.0])
    first_share, second_share, third_share = (share.reshape(each) for share in weights.to(features).T)
    coin = (torch.rand(one.shape, generator=generator) < 0.5).to(features.device)
    blends = first_share * one + second_share * two + third_share * three
    return torch.where((kinds == _KINDS - 1).reshape(each).to(features.device), torch.where(coin, one, two), blends)


def _others(ids: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The rows that another class is there for, and for each a random row of another class."""
    draws = torch.rand(len(ids), len(ids), generator=generator)
    draws[ids[:, None] == ids[None, :]] = -1
    best, partners = draws.max(dim=1) if len(ids) else (torch.empty(0), torch.empty(0, dtype=torch.int64))
    rows = (best >= 0).nonzero().flatten()
    return rows, partners[rows]
