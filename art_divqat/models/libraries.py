"""Unmodified networks of torchvision and timm, and any network behind the standardisation of its public weights."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from art_divqat._files import first_line
from art_divqat._rng import isolated_random_state
from art_divqat._types import Shape
from art_divqat.errors import MissingExtraError, UserError, unknown_name
from art_divqat.models.registry import MODELS, build_model

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# their public weights come from TensorFlow, and torchvision's own `transform_input` undoes ImageNet's mean for them
_HALVES = ("googlenet", "inception_v3")


def library_models(library: str) -> list[str]:
    """The classification networks of a library, sorted.

    :param library: `torchvision` or `timm`.
    :raises MissingExtraError: if timm is not installed.

    >>> "resnet18" in library_models("torchvision")
    True
    """
    if library == "timm":
        return sorted(timm_module().list_models())
    import torchvision

    return sorted(torchvision.models.list_models(module=torchvision.models))


def check_library_model(library: str, name: str, input_shape: Shape | None = None) -> None:
    """Refuse a network that the library does not have, or that does not take such images, tried on one of them.

    :raises UserError: saying which.
    """
    known = library_models(library)
    # timm's names may say which of several public weights are meant
    if name not in known and not (library == "timm" and name in timm_module().list_pretrained()):
        raise unknown_name(f"{library} network", name, known)
    if input_shape is not None:
        with isolated_random_state("tried model"):
            build_from(library, name, input_shape, 2)


def build_from(library: str, name: str, input_shape: Shape, nb_classes: int) -> nn.Module:
    """A network of a library, freshly initialised, for images of that many channels and that size.

    :raises UserError: for a name that the library does not have, or a network that does not take such images.
    """
    height, width = input_shape[1:]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if library == "timm":
                network = _from_timm(name, input_shape, nb_classes)
            else:
                network = _from_torchvision(name, input_shape, nb_classes)
            network.eval()
            with torch.no_grad():
                answers = network(torch.zeros(1, *input_shape))
        if not isinstance(answers, Tensor) or tuple(answers.shape) != (1, nb_classes):
            raise ValueError(f"it gives no {nb_classes} logits an image")
    except UserError:
        raise
    except Exception as error:
        check_library_model(library, name)
        raise UserError(
            f"Model '{library}:{name}' does not take images of {height}×{width}: {first_line(error, 200).rstrip('.')}. "
            "Choose another model, or another --image-size."
        ) from None
    return network.train()


def _from_torchvision(name: str, input_shape: Shape, nb_classes: int) -> nn.Module:
    import torchvision

    options: dict[str, Any] = {}
    if name in _HALVES:
        options = {"aux_logits": False, "init_weights": True}
    elif name.startswith("vit_"):
        options = {"image_size": input_shape[1]}
    elif name.startswith("maxvit_"):
        options = {"input_size": input_shape[1:]}
    network: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=nb_classes, **options)
    return take_channels(network, input_shape[0])


def take_channels(network: nn.Module, channels: int) -> nn.Module:
    """The network, its first convolution replaced by a fresh one where images have another number of channels.

    >>> take_channels(nn.Sequential(nn.Conv2d(3, 8, 3)), 1)[0].weight.shape
    torch.Size([8, 1, 3, 3])
    """
    name, first = next((name, each) for name, each in network.named_modules() if isinstance(each, nn.Conv2d))
    if first.in_channels == channels:
        return network
    fresh = nn.Conv2d(
        channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        first.dilation,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    network.set_submodule(name, fresh)
    return network


def timm_module() -> Any:
    try:
        import timm
    except ImportError:
        raise MissingExtraError(
            "Networks of timm need the package timm: pip install 'art-divqat[public-weights]', or choose one of "
            "torchvision's, such as torchvision:resnet18."
        ) from None
    return timm


def _from_timm(name: str, input_shape: Shape, nb_classes: int) -> nn.Module:
    from art_divqat.models.plain_layers import with_plain_layers

    timm = timm_module()
    channels, height, width = input_shape
    options: dict[str, Any] = {"pretrained": False, "num_classes": nb_classes, "in_chans": channels}
    fixed = getattr(timm.models.get_pretrained_cfg(name, allow_unregistered=True), "fixed_input_size", False)
    if fixed:
        options["img_size"] = (height, width)
    network: nn.Module = timm.create_model(name, **options)
    return with_plain_layers(network, input_shape)


class Standardised(nn.Module):
    """(x − mean) / std, then a network; images in [0, 1]. Grey images are repeated into three channels.

    mean and std are buffers of one value a channel, so that they go with the weights.

    :param channels: of the images; the network takes as many, or three where `repeat`.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    >>> Standardised(network, 0.5, 0.25, channels=1)(torch.rand(2, 1, 2, 2)).shape
    torch.Size([2, 5])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Any, std: Any, *, channels: int) -> None:
        super().__init__()
        self.repeat = channels == 1
        for name, value in (("mean", mean), ("std", std)):
            whole = torch.as_tensor(value, dtype=torch.float32).reshape(-1, 1, 1).expand(3, 1, 1).clone()
            self.register_buffer(name, whole)
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        if self.repeat:
            x = x.expand(-1, 3, -1, -1)
        return self.network((x - self.mean) / self.std)


def build_normalised(model: str, input_shape: Shape, nb_classes: int) -> Standardised:
    """A network of :func:`build_model` behind the standardisation that public weights of it expect."""
    seed = int(torch.randint(2**62, ()))
    network = build_model(model, (3, *input_shape[1:]), nb_classes, seed=seed)
    mean, std = mean_and_std(model)
    return Standardised(network, mean, std, channels=input_shape[0])


def mean_and_std(model: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What public weights of a network expect images to be standardised by; 0 and 1 where there are none.

    >>> mean_and_std("resnet18")[0], mean_and_std("small-cnn")
    ((0.485, 0.456, 0.406), ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    """
    library, _, name = (MODELS[model].library_name or "").partition(":")
    if library == "timm":
        known = timm_module().models.get_pretrained_cfg(name, allow_unregistered=True)
        return (tuple(known.mean), tuple(known.std)) if known is not None else (IMAGENET_MEAN, IMAGENET_STD)
    if library == "torchvision":
        return ((0.5,) * 3, (0.5,) * 3) if name in _HALVES else (IMAGENET_MEAN, IMAGENET_STD)
    return (0.0,) * 3, (1.0,) * 3
