"""State dicts: read the tensors of a network from a file, without unpickling anything."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from art_divqat._files import first_line
from art_divqat.errors import UserError

_WRAPPED = ("state_dict", "model_state_dict", "model", "net", "weights")
_PREFIXES = ("module.", "_orig_mod.")


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, from safetensors or from torch's own format with `weights_only=True`.

    :raises UserError: for a damaged file, a file that holds more than tensors, or no state dict.
    """
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # damaged pickles, archives and headers each fail in a way of their own, MemoryError among them
        if "weights_only" in str(error) or "Weights only" in str(error):
            raise UserError(
                f"{path} holds pickled objects, which are code, and was not loaded: save model.state_dict() instead."
            ) from None
        raise UserError(f"{path} cannot be read as a state dict: {first_line(error, 200)}") from None
    for key in _WRAPPED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    tensors = isinstance(content, Mapping) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )
    if not tensors or not content:
        raise UserError(f"{path} holds no state dict: expected names and tensors, as model.state_dict() gives them.")
    state = dict(content)
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name[len(prefix) :]: value for name, value in state.items()}
    return state
