"""Torch files: read state dicts, TorchScript and torch.export programs without unpickling anything."""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from art_divqat._files import first_line
from art_divqat._types import Shape
from art_divqat.errors import UserError
from art_divqat.models.registry import build_model, list_models
from art_divqat.models.state_dicts import read_state as read_state
from art_divqat.victims.external.adapter import ExternalClassifier, channels, in_train_mode
from art_divqat.victims.external.settings import ExternalModel
from art_divqat.victims.victim import Outputs


def build(architecture: str | None, factory: str | None, shape: Shape, nb_classes: int, source: str) -> nn.Module:
    """The network that a state dict belongs to, by a registered name or by the user's function.

    :raises UserError: for neither, both, an unknown name, or a function that cannot be called or gives no module.
    """
    if (architecture is None) == (factory is None):
        known = ", ".join(list_models())
        raise UserError(
            f"{source} holds weights without their network: say --model NAME ({known}) or --factory "
            "package.module:function, one of the two."
        )
    if architecture is not None:
        return build_model(architecture, shape, nb_classes, seed=0)
    assert factory is not None
    module_name, _, function = factory.partition(":")
    here = os.getcwd()  # noqa: PTH109
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        network = getattr(importlib.import_module(module_name), function)()
    except Exception as error:
        raise UserError(f"--factory {factory} failed: {type(error).__name__}: {first_line(error, 200)}") from None
    finally:
        if added:
            sys.path.remove(here)
    if not isinstance(network, nn.Module):
        raise UserError(f"--factory {factory} gave a {type(network).__name__}; expected a torch.nn.Module.")
    return network


def classes_of(network: nn.Module, state: Mapping[str, Tensor]) -> int:
    """How many classes a state dict has, by the last tensor of a network of that architecture; 0 if it cannot be told.

    >>> classes_of(nn.Linear(4, 3), nn.Linear(4, 20).state_dict())
    20
    """
    last = list(network.state_dict())[-1]
    tensor = state.get(last)
    return len(tensor) if tensor is not None and tensor.ndim else 0


def architecture_of(folder: Path) -> str | None:
    """The architecture that `victim.json` of a victim-store folder names, or None."""
    try:
        card = json.loads((folder / "victim.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    name = card.get("model") if isinstance(card, dict) else None
    return name if isinstance(name, str) else None


def fill(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load every tensor, none missing and none left over.

    :raises UserError: naming the first that does not fit.
    """
    try:
        network.load_state_dict(dict(state), strict=True)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(f"{source} does not fit the network: {' '.join(lines[1:2] or lines[:1])[:300]}") from None


def read_program(path: Path, kind: str) -> nn.Module:
    """The module of a TorchScript or torch.export file. **This runs code of whoever made the file.**

    :raises UserError: for a damaged file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if kind == "torchscript":
                return torch.jit.load(str(path), map_location="cpu")
            program = torch.export.load(str(path))
            return _Exported(program.module(), _fixed_batch(program))
    except Exception as error:
        raise UserError(f"{path} cannot be read as a program of torch's: {first_line(error, 200)}") from None


def _fixed_batch(program: Any) -> int | None:
    """The batch size that an exported program is bound to, or None if it takes any."""
    names = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in names:
            value = node.meta.get("val")
            size = value.shape[0] if isinstance(value, Tensor) and value.ndim else None
            return size if isinstance(size, int) else None
    return None


class _Exported(nn.Module):
    """An exported program, which knows neither train nor eval mode, and may take one batch size alone."""

    def __init__(self, inner: nn.Module, batch: int | None) -> None:
        super().__init__()
        # held out of the module tree: exported modules refuse train() and eval()
        self._inner = [inner]
        self._batch = batch

    def parameters(self, recurse: bool = True) -> Any:
        """The parameters of the program."""
        return self._inner[0].parameters(recurse)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._inner[0]._apply(fn)
        return super()._apply(fn, recurse)

    def forward(self, x: Tensor) -> Tensor:
        """The program's answer, in parts of its own batch size, the last one padded."""
        if self._batch is None:
            return self._inner[0](x)
        parts = []
        for part in torch.split(x, self._batch):
            short = self._batch - len(part)
            whole = torch.cat([part, part[-1:].expand(short, *part.shape[1:])]) if short else part
            parts.append(self._inner[0](whole)[: len(part)])
        return torch.cat(parts)


class _Prepared(nn.Module):
    """Normalisation before a network, and log-probabilities behind one that answers with probabilities.

    :param outputs: what the network answers.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: NDArray[Any], std: NDArray[Any], outputs: Outputs = "logits") -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.from_numpy(mean))
        self.register_buffer("std", torch.from_numpy(std))
        self._outputs = outputs

    def answer(self, x: Tensor) -> Tensor:
        """What the network itself answers."""
        answers = self.network((x - self.mean) / self.std)
        return answers[0] if isinstance(answers, (tuple, list)) else answers

    def forward(self, x: Tensor) -> Tensor:
        """Logits: the answers, or the logarithm of probabilities, whose softmax is those probabilities."""
        answers = self.answer(x)
        return answers.clamp_min(torch.finfo(answers.dtype).tiny).log() if self._outputs == "probabilities" else answers


def classifier_of(
    network: nn.Module, model: ExternalModel, shape: Shape, nb_classes: int, device: str, source: str
) -> ExternalClassifier:
    """A white-box external classifier on a torch module, in eval mode, on a device."""
    network.eval()
    scale = channels(model, shape)
    whole = _Prepared(network, *scale)
    try:
        whole.to(device)
    except Exception as error:
        raise UserError(f"{source} cannot be moved to {device}: {first_line(error, 200)}") from None

    def answer(x: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return whole.answer(torch.from_numpy(x).to(device)).float().cpu().numpy()

    return ExternalClassifier(
        answer,
        shape,
        nb_classes,
        white_box=lambda outputs: _Prepared(network, *scale, outputs).to(device),
        train_mode=lambda: in_train_mode(network),
        description=source,
        architecture=_described(network),
    )


def _described(network: nn.Module) -> str:
    """What a network is, in a few words."""
    if isinstance(network, _Exported):
        return "a torch.export program"
    name = getattr(network, "original_name", None) or type(network).__name__
    return f"{name}, {sum(each.numel() for each in network.parameters()):,} parameters"
