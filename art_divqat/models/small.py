"""Small networks for small images, built so that every quantization backend can trace and fuse them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from art_divqat._types import Shape


def _conv_bn_relu(channels_in: int, channels_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


class SmallCNN(nn.Module):
    """Four 3×3 convolutions with batch norm (32, 32, 64, 64), two 2×2 max-pools, one hidden layer of 128.

    :param input_shape: (channels, height, width), height and width at least 4.
    :param nb_classes: number of logits.

    >>> SmallCNN((1, 8, 8), 10)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(self, input_shape: Shape, nb_classes: int, width: int = 32, hidden: int = 128) -> None:
        super().__init__()
        channels, height, breadth = input_shape
        self.features = nn.Sequential(
            _conv_bn_relu(channels, width),
            _conv_bn_relu(width, width),
            nn.MaxPool2d(2),
            _conv_bn_relu(width, 2 * width),
            _conv_bn_relu(2 * width, 2 * width),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(2 * width * (height // 4) * (breadth // 4), hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, nb_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al., 1998) with ReLU and max-pooling: 6 and 16 filters of 5×5, then 120 and 84 units.

    Both convolutions keep the size of the image, so that 8×8 images work as well as 32×32 ones.

    >>> LeNet5((1, 28, 28), 10)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(self, input_shape: Shape, nb_classes: int) -> None:
        super().__init__()
        channels, height, breadth = input_shape
        self.features = nn.Sequential(
            nn.Conv2d(channels, 6, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(16 * (height // 4) * (breadth // 4), 120),
            nn.ReLU(inplace=True),
            nn.Linear(120, 84),
            nn.ReLU(inplace=True),
            nn.Linear(84, nb_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


class TwoLayerPerceptron(nn.Module):
    """W₁ relu(W₀ x + b₀) + b₁: the only kind of network that FunctionallyEquivalentExtraction can take apart.

    >>> TwoLayerPerceptron((1, 8, 8), 10)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(self, input_shape: Shape, nb_classes: int, hidden: int = 4) -> None:
        super().__init__()
        channels, height, breadth = input_shape
        self.hidden = nn.Linear(channels * height * breadth, hidden)
        self.output = nn.Linear(hidden, nb_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(torch.relu(self.hidden(torch.flatten(x, 1))))
