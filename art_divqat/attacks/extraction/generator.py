"""Generator of the data-free attacks, and zeroth-order estimates of gradients through the victim."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from art_divqat._types import Shape


class Generator(nn.Module):
    """z ∈ R^latent → an image before its sigmoid: a linear layer, then twice (upsample, 3×3 convolution, batch norm).

    :param input_shape: (channels, height, width) of the victim's images, each side at least 4.
    :param latent: length of z.
    :param width: filters of the widest layer.

    >>> Generator((1, 8, 8), latent=16, width=8)(torch.zeros(2, 16)).shape
    torch.Size([2, 1, 8, 8])
    """

    def __init__(self, input_shape: Shape, latent: int, width: int) -> None:
        super().__init__()
        channels, height, breadth = input_shape
        self.start = (width, max(1, height // 4), max(1, breadth // 4))
        self.dense = nn.Linear(latent, self.start[0] * self.start[1] * self.start[2])
        self.layers = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(width, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Upsample(size=(height, breadth)),
            nn.Conv2d(width, max(1, width // 2), 3, padding=1),
            nn.BatchNorm2d(max(1, width // 2)),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(max(1, width // 2), channels, 3, padding=1),
            # a normalised output keeps the sigmoid from saturating, where its gradient would vanish
            nn.BatchNorm2d(channels, affine=False),
        )

    def forward(self, z: Tensor) -> Tensor:
        start = self.dense(z).view(-1, *self.start)
        if start.device.type == "cpu":
            # torch upsamples ten times faster so, and convolves faster too
            start = start.contiguous(memory_format=torch.channels_last)
        return self.layers(start)


def image_of(before_sigmoid: Tensor) -> Tensor:
    """Pixels in [0, 1]; the factor lets unit-variance values reach both ends."""
    return torch.sigmoid(2 * before_sigmoid)


def forward_differences(
    value: Callable[[Tensor], Tensor], at: Tensor, base: Tensor, directions: int, step: float
) -> Tensor:
    """ĝ = (d/m) Σᵢ (f(x + ε uᵢ) − f(x)) / ε · uᵢ with m random unit vectors uᵢ, for every image of a batch by itself.

    :param value: maps (N, …) images to (N,) values; called once, on all N·m displaced images.
    :param at: x, of shape (N, …).
    :param base: f(x), of shape (N,), already known.
    :param directions: m.
    :param step: ε.
    :return: the estimate of ∂f/∂x, of the shape of x.

    >>> x = torch.zeros(1, 3)
    >>> g = forward_differences(lambda v: v @ torch.tensor([1.0, 2.0, 0.0]), x, torch.zeros(1), 2000, 1e-2)
    >>> [round(float(v)) for v in g[0]]
    [1, 2, 0]
    """
    count, dimension = len(at), at[0].numel()
    u = torch.randn(directions, count, dimension, device=at.device)
    u /= u.norm(dim=2, keepdim=True)
    u = u.view(directions, *at.shape)
    moved = value((at[None] + step * u).flatten(0, 1)).view(directions, count)
    slope = (moved - base[None]) / step
    weights = slope.view(directions, count, *([1] * (at.dim() - 1)))
    return dimension / directions * (weights * u).sum(dim=0)
