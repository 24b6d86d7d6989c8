"""Where torchvision and timm keep the public weights of a network on this machine, and how they get there."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from art_divqat._files import first_line
from art_divqat.errors import UserError
from art_divqat.models.libraries import timm_module
from art_divqat.models.registry import MODELS, check_model

_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


def find_cached(model: str, *, download: bool = False) -> Path:
    """The file of the weights that a network's library gives for it by default.

    :param download: whether they may be downloaded; else they must be in the library's cache.
    :raises UserError: for a network that no library has weights for, or weights that are not in the cache.
    """
    library, _, name = (MODELS[check_model(model)].library_name or "").partition(":")
    if not library:
        raise UserError(
            f"There are no public weights for {model!r}: choose a network of torchvision or timm, such as "
            "torchvision:resnet18, or give the path of a state dict."
        )
    if library == "timm":
        return _of_timm(model, name, download)
    import torchvision

    known: Any = torchvision.models.get_model_weights(name)
    if not hasattr(known, "DEFAULT"):
        raise _none_published(model)
    return _at_url(model, known.DEFAULT.url, download)


def _of_timm(model: str, name: str, download: bool) -> Path:
    known = timm_module().models.get_pretrained_cfg(name, allow_unregistered=True)
    if known is None or not (known.hf_hub_id or known.url):
        raise _none_published(model)
    if not known.hf_hub_id:
        return _at_url(model, known.url, download)
    import huggingface_hub

    files = (known.hf_hub_filename,) if known.hf_hub_filename else _HUB_FILES
    for file in files:
        found = huggingface_hub.try_to_load_from_cache(known.hf_hub_id, file)
        if isinstance(found, str):
            return Path(found)
    if not download:
        raise _not_cached(model, f"the Hugging Face cache of {known.hf_hub_id}")
    try:
        return Path(huggingface_hub.hf_hub_download(known.hf_hub_id, files[0]))
    except Exception as error:
        raise _not_loaded(model, error) from None


def _at_url(model: str, url: str, download: bool) -> Path:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / Path(urlsplit(url).path).name
    if file.is_file():
        return file
    if not download:
        raise _not_cached(model, file)
    # the first digits of its checksum stand in its name
    digits = torch.hub.HASH_REGEX.search(file.name)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(file), digits.group(1) if digits else None, progress=False)
    except Exception as error:
        raise _not_loaded(model, error) from None
    return file


def _none_published(model: str) -> UserError:
    return UserError(f"Its library has no public weights for {model!r}: choose another model, or a state dict's path.")


def _not_cached(model: str, where: object) -> UserError:
    return UserError(
        f"The ImageNet weights of {model!r} are not on this machine, in {where}: put them there, or allow --download."
    )


def _not_loaded(model: str, error: Exception) -> UserError:
    return UserError(f"The ImageNet weights of {model!r} could not be downloaded: {first_line(error, 200)}")
