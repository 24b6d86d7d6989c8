"""Registry of models: `build_model("resnet20", (3, 32, 32), 10, seed=0)` builds a freshly initialised network.

Importing this module imports no torch; building does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from art_divqat._rng import isolated_random_state
from art_divqat._types import Shape as Shape
from art_divqat.errors import UserError
from art_divqat.registry import Registry, load_target

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelEntry:
    """One architecture: a line on it, its code, and the smallest side of an image it takes.

    :param build: a function or `package.module:function`; called with (input_shape, nb_classes) it gives a logit-valued
        `torch.nn.Module`, freshly initialised from torch's global generator, which is seeded around the call.
    :param two_layers: whether it is linear, ReLU, linear, which functionally equivalent extraction can copy exactly.
    """

    summary: str
    build: str | Callable[[Shape, int], Any]
    smallest_side: int = 1
    two_layers: bool = False


_SMALL = "art_divqat.models.small"
_RESNET = "art_divqat.models.resnet"
_VISION = "art_divqat.models.vision"

MODELS = Registry(
    "model",
    "models",
    ModelEntry,
    {
        "small-cnn": ModelEntry("four 3×3 convolutions with batch norm and one hidden layer", f"{_SMALL}:SmallCNN", 4),
        "lenet5": ModelEntry("LeNet-5 with ReLU and max-pooling", f"{_SMALL}:LeNet5", 4),
        "mlp2": ModelEntry(
            "two-layer ReLU perceptron with 4 hidden units, for functionally equivalent extraction",
            f"{_SMALL}:TwoLayerPerceptron",
            two_layers=True,
        ),
        "resnet20": ModelEntry("ResNet-20 for 32×32 images (He et al., 2016)", f"{_RESNET}:resnet20", 8),
        "resnet32": ModelEntry("ResNet-32 for 32×32 images (He et al., 2016)", f"{_RESNET}:resnet32", 8),
        "resnet18": ModelEntry("torchvision's ResNet-18 with a 3×3 stem and no max-pool", f"{_VISION}:resnet18", 8),
        "resnet34": ModelEntry("torchvision's ResNet-34 with a 3×3 stem and no max-pool", f"{_VISION}:resnet34", 8),
        "vgg11": ModelEntry("torchvision's VGG-11 with batch norm and a small head", f"{_VISION}:vgg11", 32),
        "vgg16": ModelEntry("torchvision's VGG-16 with batch norm and a small head", f"{_VISION}:vgg16", 32),
        "mobilenet-v2": ModelEntry("torchvision's MobileNetV2 with a stride-1 stem", f"{_VISION}:mobilenet_v2", 16),
    },
)


def list_models() -> list[str]:
    """The names that :func:`build_model` knows, sorted.

    >>> "resnet20" in list_models()
    True
    """
    return sorted(MODELS)


def model_summary(name: str) -> str:
    """One line on an architecture."""
    return MODELS[name].summary


def check_model(name: str, input_shape: Shape | None = None) -> str:
    """Return the canonical name of an architecture, or say which are near, or that the images are too small for it.

    :raises UserError: for an unknown name, or an image with a side smaller than the architecture takes.

    >>> check_model("ResNet20")
    'resnet20'
    """
    canonical = MODELS.canonical(name)
    entry = MODELS[canonical]
    if input_shape is not None and min(input_shape[1:]) < entry.smallest_side:
        height, width = input_shape[1:]
        raise UserError(
            f"Model {canonical!r} takes images of at least {entry.smallest_side}×{entry.smallest_side} pixels, "
            f"these are {height}×{width}: choose a smaller model, such as small-cnn."
        )
    return canonical


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
        network: nn.Module = load_target(MODELS[canonical].build)(input_shape, nb_classes)
    return network
