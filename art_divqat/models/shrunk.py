"""Shrunk images: a network that shrinks its input images itself."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from art_divqat._types import Shape
from art_divqat.errors import UserError


def shrunk_shape(input_shape: Shape, side: int) -> Shape:
    """The shape of images whose smaller side becomes `side`, in the same proportions.

    :param input_shape: (channels, height, width) before.
    :raises UserError: for a side above the images' own.

    >>> shrunk_shape((3, 224, 224), 96), shrunk_shape((1, 100, 150), 50)
    ((3, 96, 96), (1, 50, 75))
    """
    channels, height, width = input_shape
    smaller = min(height, width)
    if side > smaller:
        raise UserError(
            f"A thief cannot see images of {side} pixels where the victim's are {height}×{width}: give image_size at "
            f"most {smaller}."
        )
    return channels, round(height * side / smaller), round(width * side / smaller)


class Shrunk(nn.Module):
    """f(shrink(x)): a network behind antialiased bilinear interpolation to the size of its own images.

    It takes the larger images, so that whatever asks the victim may ask it too, gradients included; what it costs is
    what the network costs at the smaller size.

    :param network: for images of `size`.
    :param size: (height, width).

    >>> import torch
    >>> Shrunk(nn.Flatten(), (4, 4))(torch.ones(2, 1, 8, 8)).shape
    torch.Size([2, 16])
    """

    def __init__(self, network: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return self.network(shrink(x, self.size))


def shrink(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Images brought to (height, width) as pictures are when they are read: bilinear, antialiased.

    >>> import torch
    >>> shrink(torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]]), (1, 1)).item()
    0.5
    """
    if tuple(x.shape[2:]) == size:
        return x
    return functional.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)
