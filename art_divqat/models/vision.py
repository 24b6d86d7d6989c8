"""Networks of torchvision, with stems and heads for small images; above 64×64 with the stems of ImageNet."""

from __future__ import annotations

from typing import Any

import torchvision
from torch import nn

from art_divqat._types import Shape
from art_divqat.models.libraries import take_channels
from art_divqat.models.registry import has_library_stem


def resnet18(input_shape: Shape, nb_classes: int) -> nn.Module:
    """ResNet-18; for small images with a 3×3 stem and no max-pool."""
    return _resnet(torchvision.models.resnet18, input_shape, nb_classes)


def resnet34(input_shape: Shape, nb_classes: int) -> nn.Module:
    """ResNet-34; for small images with a 3×3 stem and no max-pool."""
    return _resnet(torchvision.models.resnet34, input_shape, nb_classes)


def vgg11(input_shape: Shape, nb_classes: int) -> nn.Module:
    """VGG-11 with batch norm and a small head."""
    return _vgg(torchvision.models.vgg11_bn, input_shape, nb_classes)


def vgg16(input_shape: Shape, nb_classes: int) -> nn.Module:
    """VGG-16 with batch norm and a small head."""
    return _vgg(torchvision.models.vgg16_bn, input_shape, nb_classes)


def mobilenet_v2(input_shape: Shape, nb_classes: int) -> nn.Module:
    """MobileNetV2; for small images with a stride-1 stem."""
    network: Any = torchvision.models.mobilenet_v2(weights=None, num_classes=nb_classes)
    if has_library_stem(input_shape):
        return take_channels(network, input_shape[0])
    network.features[0][0] = nn.Conv2d(input_shape[0], 32, 3, padding=1, bias=False)
    return network


def _resnet(build: Any, input_shape: Shape, nb_classes: int) -> nn.Module:
    network = build(weights=None, num_classes=nb_classes)
    if has_library_stem(input_shape):
        return take_channels(network, input_shape[0])
    # A 7×7 stride-2 stem with a max-pool would leave nothing of a 32×32 image.
    network.conv1 = nn.Conv2d(input_shape[0], 64, 3, padding=1, bias=False)
    network.maxpool = nn.Identity()
    return network


def _vgg(build: Any, input_shape: Shape, nb_classes: int) -> nn.Module:
    network = build(weights=None, num_classes=nb_classes)
    if input_shape[0] != 3:
        network.features[0] = nn.Conv2d(input_shape[0], 64, 3, padding=1)
    network.avgpool = nn.AdaptiveAvgPool2d(1)
    network.classifier = nn.Sequential(
        nn.Linear(512, 512), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(512, nb_classes)
    )
    return network
