"""Files of quantized classifiers: save and load the twin's state as safetensors, everything else as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import nn

from art_divqat.errors import UserError
from art_divqat.estimators.standardisation import Architecture, QuantizedClassifier, standardisation_of
from art_divqat.models import build_model
from art_divqat.quantization import get_backend, needs_reduced_range

Built = TypeVar("Built")

FORMAT = "art-divqat quantized classifier"
VERSION = 1
CARD, WEIGHTS = "classifier.json", "twin.safetensors"
LOSSES: dict[str, type[nn.Module]] = {
    loss.__name__: loss for loss in (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss, nn.BCELoss)
}
USUAL_LOSS = "CrossEntropyLoss"


def save_quantized(classifier: QuantizedClassifier, folder: Path) -> None:
    """Write `classifier.json` and `twin.safetensors` into `folder`.

    :raises UserError: if `folder` is a file or holds something else, or the loss is none of :data:`LOSSES`.
    """
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / CARD).exists())):
        raise UserError(f"{folder} holds something other than a quantized classifier: choose another folder.")
    loss = type(classifier.loss).__name__
    if loss not in LOSSES:
        raise UserError(f"Only a loss of {', '.join(LOSSES)} can be saved. Got {loss}.")
    state = {
        key: value.detach().cpu().contiguous().clone() for key, value in classifier.twin.network.state_dict().items()
    }
    weights = save_tensors(state)
    standardisation = standardisation_of(classifier)
    card = {
        "format": FORMAT,
        "version": VERSION,
        "architecture": classifier.architecture if isinstance(classifier.architecture, str) else None,
        "input_shape": list(classifier.input_shape),
        "nb_classes": classifier.nb_classes,
        "channels_first": classifier.channels_first,
        "clip_values": None if classifier.clip_values is None else [_plain(value) for value in classifier.clip_values],
        "preprocessing": None if standardisation is None else [_plain(value) for value in standardisation],
        "preprocessing_defences": _names(classifier.preprocessing_defences),
        "postprocessing_defences": _names(classifier.postprocessing_defences),
        "backend": classifier.backend.name,
        "engine": classifier.backend.engine,
        "reduce_range": classifier.backend.reduce_range,
        "torch": torch.__version__,
        "sha256": hashlib.sha256(weights).hexdigest(),
        **({} if loss == USUAL_LOSS else {"loss": loss}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(weights)
    (folder / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")


def load_quantized(
    build: Callable[..., Built],
    folder: Path,
    architecture: Architecture | None,
    engine: str | None,
    preprocessing_defences: Any,
    postprocessing_defences: Any,
) -> Built:
    """Read what :func:`save_quantized` wrote; see :meth:`QuantizedPyTorchClassifier.load`."""
    card = _read_card(folder)
    state = _read_weights(folder, card["sha256"])
    for kind, given in (
        ("preprocessing_defences", preprocessing_defences),
        ("postprocessing_defences", postprocessing_defences),
    ):
        if _names(given) != card[kind]:
            expected = ", ".join(card[kind]) or "none"
            raise UserError(f"{folder} was saved with {kind} {expected}: give the same. Got {_names(given) or 'none'}.")
    shape = tuple(card["input_shape"])
    architecture = architecture if architecture is not None else card["architecture"]
    if architecture is None:
        raise UserError(
            f"{folder} holds weights of a network that has no name: say what builds it, as architecture=function where "
            "it is loaded, or --factory package.module:function where it is audited."
        )
    if isinstance(architecture, str):
        network = build_model(architecture, shape, card["nb_classes"], seed=0)
    else:
        network = architecture()
    backend = get_backend(card["backend"], engine or card["engine"], card["reduce_range"])
    if backend.kernels == "int8" and not backend.reduce_range and needs_reduced_range(backend.engine):
        raise UserError(
            f"{folder} has 8-bit activations, from a CPU with VNNI instructions; {backend.engine} overflows on them "
            "on this CPU, which has none: load it on a CPU that has, or quantize the network again on this one."
        )
    prepared = backend.prepare(network, shape)
    try:
        prepared.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        name = repr(architecture) if isinstance(architecture, str) else "that was given"
        raise UserError(f"The weights in {folder} do not fit the architecture {name}: {reason}") from error
    loss = card.get("loss", USUAL_LOSS)
    if loss not in LOSSES:
        raise UserError(f"{folder} has the loss {loss!r}: this release knows {', '.join(LOSSES)}.")
    return build(
        prepared,
        backend,
        shape,
        card["nb_classes"],
        architecture=architecture,
        loss=LOSSES[loss](),
        channels_first=card["channels_first"],
        clip_values=None if card["clip_values"] is None else tuple(map(_unplain, card["clip_values"])),
        preprocessing=(0.0, 1.0) if card["preprocessing"] is None else tuple(map(_unplain, card["preprocessing"])),
        preprocessing_defences=preprocessing_defences,
        postprocessing_defences=postprocessing_defences,
    )


def _read_card(folder: Path) -> dict[str, Any]:
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder} holds no quantized classifier: there is no {CARD} in it.") from None
    except (ValueError, OSError) as error:
        raise UserError(f"{folder / CARD} cannot be read: {error}") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise UserError(f"{folder / CARD} does not describe a quantized classifier.")
    if card.get("version") != VERSION:
        raise UserError(f"{folder / CARD} has version {card.get('version')}; this release reads version {VERSION}.")
    return card


def _read_weights(folder: Path, sha256: str) -> dict[str, torch.Tensor]:
    try:
        data = (folder / WEIGHTS).read_bytes()
    except FileNotFoundError:
        raise UserError(f"{folder} is incomplete: there is no {WEIGHTS} in it.") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"{folder / WEIGHTS} is damaged or was changed: its checksum is not the one in {CARD}.")
    try:
        return load_tensors(data)
    except SafetensorError as error:
        raise UserError(f"{folder / WEIGHTS} cannot be read: {error}") from error


def _plain(value: Any) -> Any:
    return np.asarray(value).tolist()


def _unplain(value: Any) -> Any:
    return np.asarray(value, np.float32) if isinstance(value, list) else float(value)


def _names(defences: Any) -> list[str]:
    if defences is None:
        return []
    return [type(defence).__name__ for defence in (defences if isinstance(defences, (list, tuple)) else [defences])]
