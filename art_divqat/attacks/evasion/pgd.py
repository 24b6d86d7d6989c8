"""Projected gradient descent in the L∞ ball (Madry et al., ICLR 2018; arXiv 1706.06083), on tensors."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def pgd_step(network: nn.Module, x: Tensor, y: Tensor, perturbed: Tensor, epsilon: float, step_size: float) -> Tensor:
    """clip(x' + step_size · sign ∇ₓ CE(network(x'), y)) to the ball around x and to [0, 1]; weights get no gradient.

    :param x: clean images (N, C, H, W) in [0, 1].
    :param y: class ids (N,).
    :param perturbed: x', where the step starts.
    """
    perturbed = perturbed.detach().requires_grad_(True)
    loss = nn.functional.cross_entropy(network(perturbed), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, perturbed)
    moved = perturbed.detach() + step_size * gradient.sign()
    return torch.clamp(torch.minimum(torch.maximum(moved, x - epsilon), x + epsilon), 0.0, 1.0)


def random_start(x: Tensor, epsilon: float, generator: torch.Generator) -> Tensor:
    """A uniform draw from the ball around x, cut to [0, 1]; the draw is made on the CPU, so that devices agree."""
    noise = torch.rand(x.shape, generator=generator, dtype=x.dtype).to(x.device)
    return torch.clamp(x + epsilon * (2 * noise - 1), 0.0, 1.0)


def pgd(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    steps: int,
    step_size: float,
    generator: torch.Generator,
) -> Tensor:
    """Perturb each image until the network gives another label than `y`, at most `steps` times.

    An image that is misclassified is not touched again: the answer is the first iterate that fooled the network, or the
    last one. An image that is misclassified unperturbed is returned as it is. The network must be in eval mode.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> x, y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> out = pgd(network, x, y, epsilon=0.1, steps=3, step_size=0.05, generator=torch.Generator().manual_seed(0))
    >>> bool((out - x).abs().max() <= 0.1 + 1e-6)
    True
    """
    result = x.clone()
    active = _not_fooled(network, x, y)
    current = random_start(x, epsilon, generator)[active]
    for step in range(steps + 1):
        if len(active) == 0:
            break
        if step > 0:
            current = pgd_step(network, x[active], y[active], current, epsilon, step_size)
        result[active] = current
        kept = _not_fooled(network, current, y[active])
        active, current = active[kept], current[kept]
    return result


def _not_fooled(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.nonzero(network(x).argmax(dim=1) == y).flatten()
