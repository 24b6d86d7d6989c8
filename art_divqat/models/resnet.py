"""ResNets for 32×32 images, after He et al. (CVPR 2016), section 4.2."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from art_divqat._types import Shape


class _BasicBlock(nn.Module):
    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.relu2 = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu2(out + self.shortcut(x))


class CifarResNet(nn.Module):
    """ResNet of depth 6n + 2: three stages of n blocks with 16, 32 and 64 filters, then global average pooling.

    The shortcuts that change the size are 1×1 convolutions (option B of the paper).

    :param depth: 6n + 2, for example 20 or 32.

    >>> CifarResNet((3, 32, 32), 10, depth=20)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """

    def __init__(self, input_shape: Shape, nb_classes: int, depth: int = 20) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.stem = nn.Sequential(
            nn.Conv2d(input_shape[0], 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)
        )
        layers: list[nn.Module] = []
        channels = 16
        for stage, width in enumerate((16, 32, 64)):
            for block in range(blocks):
                layers.append(_BasicBlock(channels, width, 2 if stage > 0 and block == 0 else 1))
                channels = width
        self.stages = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.output = nn.Linear(64, nb_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.flatten(self.pool(self.stages(self.stem(x))), 1))


def resnet20(input_shape: Shape, nb_classes: int) -> nn.Module:
    """ResNet-20."""
    return CifarResNet(input_shape, nb_classes, 20)


def resnet32(input_shape: Shape, nb_classes: int) -> nn.Module:
    """ResNet-32."""
    return CifarResNet(input_shape, nb_classes, 32)
