"""`build_model("resnet20", (3, 32, 32), 10, seed=0)`: a freshly initialised network by name.

Importing this module imports no torch; building does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from art_divqat._rng import isolated_random_state
from art_divqat.errors import UserError, unknown_name

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class ModelEntry:
    """How to build one architecture, what it is in a line, and the smallest side of an image it takes."""

    summary: str
    build: Callable[[Shape, int], Any]
    smallest_side: int


def _small(name: str, **options: Any) -> Callable[[Shape, int], Any]:
    def build(input_shape: Shape, nb_classes: int) -> Any:
        from art_divqat.models import small

        return getattr(small, name)(input_shape, nb_classes, **options)

    return build


def _cifar_resnet(depth: int) -> Callable[[Shape, int], Any]:
    def build(input_shape: Shape, nb_classes: int) -> Any:
        from art_divqat.models.resnet import CifarResNet

        return CifarResNet(input_shape, nb_classes, depth)

    return build


def _torchvision_resnet(name: str) -> Callable[[Shape, int], Any]:
    def build(input_shape: Shape, nb_classes: int) -> Any:
        import torchvision
        from torch import nn

        network = getattr(torchvision.models, name)(weights=None, num_classes=nb_classes)
        # A 7×7 stride-2 stem with a max-pool would leave nothing of a 32×32 image.
        network.conv1 = nn.Conv2d(input_shape[0], 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
        return network

    return build


def _torchvision_vgg(name: str) -> Callable[[Shape, int], Any]:
    def build(input_shape: Shape, nb_classes: int) -> Any:
        import torchvision
        from torch import nn

        network = getattr(torchvision.models, name)(weights=None, num_classes=nb_classes)
        if input_shape[0] != 3:
            network.features[0] = nn.Conv2d(input_shape[0], 64, 3, padding=1)
        network.avgpool = nn.AdaptiveAvgPool2d(1)
        network.classifier = nn.Sequential(
            nn.Linear(512, 512), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(512, nb_classes)
        )
        return network

    return build


def _torchvision_mobilenet(input_shape: Shape, nb_classes: int) -> Any:
    import torchvision
    from torch import nn

    network = torchvision.models.mobilenet_v2(weights=None, num_classes=nb_classes)
    network.features[0][0] = nn.Conv2d(input_shape[0], 32, 3, padding=1, bias=False)
    return network


MODELS: dict[str, ModelEntry] = {
    "small-cnn": ModelEntry("four 3×3 convolutions with batch norm and one hidden layer", _small("SmallCNN"), 4),
    "lenet5": ModelEntry("LeNet-5 with ReLU and max-pooling", _small("LeNet5"), 4),
    "mlp2": ModelEntry(
        "two-layer ReLU perceptron with 4 hidden units, for functionally equivalent extraction",
        _small("TwoLayerPerceptron"),
        1,
    ),
    "resnet20": ModelEntry("ResNet-20 for 32×32 images (He et al., 2016)", _cifar_resnet(20), 8),
    "resnet32": ModelEntry("ResNet-32 for 32×32 images (He et al., 2016)", _cifar_resnet(32), 8),
    "resnet18": ModelEntry(
        "torchvision's ResNet-18 with a 3×3 stem and no max-pool", _torchvision_resnet("resnet18"), 8
    ),
    "resnet34": ModelEntry(
        "torchvision's ResNet-34 with a 3×3 stem and no max-pool", _torchvision_resnet("resnet34"), 8
    ),
    "vgg11": ModelEntry("torchvision's VGG-11 with batch norm and a small head", _torchvision_vgg("vgg11_bn"), 32),
    "vgg16": ModelEntry("torchvision's VGG-16 with batch norm and a small head", _torchvision_vgg("vgg16_bn"), 32),
    "mobilenet-v2": ModelEntry("torchvision's MobileNetV2 with a stride-1 stem", _torchvision_mobilenet, 16),
}


def list_models() -> list[str]:
    """The names that :func:`build_model` knows, sorted.

    >>> "resnet20" in list_models()
    True
    """
    return sorted(MODELS)


def model_summary(name: str) -> str:
    """One line on an architecture."""
    return _entry(name).summary


def check_model(name: str, input_shape: Shape | None = None) -> str:
    """Return the canonical name of an architecture, or say which are near, or that the images are too small for it.

    :raises UserError: for an unknown name, or an image with a side smaller than the architecture takes.

    >>> check_model("ResNet20")
    'resnet20'
    """
    canonical = name.strip().lower().replace("_", "-")
    entry = _entry(canonical)
    if input_shape is not None and min(input_shape[1:]) < entry.smallest_side:
        height, width = input_shape[1:]
        raise UserError(
            f"Model {canonical!r} takes images of at least {entry.smallest_side}×{entry.smallest_side} pixels, "
            f"these are {height}×{width}: choose a smaller model, such as small-cnn."
        )
    return canonical


def _entry(name: str) -> ModelEntry:
    if name not in MODELS:
        raise unknown_name("model", name, MODELS)
    return MODELS[name]


def build_model(name: str, input_shape: Shape, nb_classes: int, *, seed: int) -> nn.Module:
    """A freshly initialised, logit-valued network in train mode; the same seed gives the same weights.

    :param input_shape: (channels, height, width) of the float32 images.
    :param nb_classes: number of logits, at least 2.
    :param seed: seeds the initialisation without touching the global random state.
    :raises UserError: for an unknown name, images too small, or fewer than two classes.

    >>> network = build_model("lenet5", (1, 28, 28), 10, seed=0)
    >>> sum(parameter.numel() for parameter in network.parameters())
    107786
    """
    canonical = check_model(name, input_shape)
    if nb_classes < 2:
        raise UserError(f"A classifier needs at least 2 classes. Got {nb_classes}.")
    with isolated_random_state("model", canonical, seed):
        network: nn.Module = _entry(canonical).build(input_shape, nb_classes)
    return network
