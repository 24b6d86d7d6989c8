"""Features where no image is: what a network's head sees between the classes, and around the images of a class."""

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
    rows, partners = _partners(ids[:, None] != ids[None, :], generator)
    features = features.detach()
    return (features[rows.to(features.device)] + features[partners.to(features.device)]) / 2


def varied(features: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """h(x) + t (h(u) − h(v)) for every row x, u and v two random rows of one class, t uniform in [0, 1].

    What tells two images of a class apart is much the same in all classes. So this stands for an image of the class of
    x that was not in training. It stays in the range of the features, and gradients reach h(x) alone.

    :param features: h(x), (N, …).
    :param labels: class ids (N,) or rows of probabilities, whose top class counts.
    :param generator: on the CPU; the only thing that decides u, v and t.
    :return: (N, …); where no class is there twice, h(x) as it is.

    >>> h = torch.tensor([[0.0], [1.0], [5.0]])
    >>> found = varied(h, torch.tensor([0, 0, 1]), torch.Generator().manual_seed(0))
    >>> bool(((found - h).abs() <= 1).all()), bool((found == h).all())
    (True, False)
    """
    ids = class_ids(labels).cpu()
    same = ids[:, None] == ids[None, :]
    rows, partners = _partners(same.fill_diagonal_(False), generator)
    if not len(rows):
        return features
    pairs = torch.randint(len(rows), (len(ids),), generator=generator)
    amounts = torch.rand(len(ids), generator=generator).reshape(-1, *[1] * (features.ndim - 1))
    known = features.detach()
    rows, partners = rows[pairs].to(known.device), partners[pairs].to(known.device)
    step = amounts.to(known) * (known[rows] - known[partners])
    return (features + step).clamp(known.min(), known.max())


def _partners(allowed: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The rows that may be paired with some other, and for each a random one of those."""
    draws = torch.rand(allowed.shape, generator=generator).masked_fill_(~allowed, -1)
    best, partners = draws.max(dim=1) if len(allowed) else (torch.empty(0), torch.empty(0, dtype=torch.int64))
    rows = (best >= 0).nonzero().flatten()
    return rows, partners[rows]
