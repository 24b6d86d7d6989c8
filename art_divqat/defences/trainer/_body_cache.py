"""Cache of a frozen body's features in a folder: trainers with the same body run it once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from art_divqat._files import write_whole
from art_divqat.data.known_rows import computed_key
from art_divqat.quantization.halves import digest_of, state_digest

_MOST_BYTES = 2**28
_HASH, _KEY = "hash", "key"


def kept_tensors(
    folder: Path | None, body: nn.Module, batches: Iterable[Tensor], make: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The tensors that `make` computes from a body and images, from the file if it is there and undamaged.

    :param folder: for the files, which may be deleted at any time; None keeps nothing.
    :param batches: the images, as they are given to the body.
    :raises UserError: if the folder cannot be written.
    """
    if folder is None:
        return make()
    images = hashlib.sha256()
    for batch in batches:
        images.update(f"{tuple(batch.shape)} {batch.dtype} {batch.device}".encode())
        images.update(batch.cpu().contiguous().numpy().tobytes())
    path = folder / f"{computed_key(digest_of(body), images.hexdigest())}.safetensors"
    tensors = _read(path)
    if tensors is None:
        tensors = make()
        if sum(each.nbytes for each in tensors.values()) <= _MOST_BYTES:
            plain = {name: each.detach().cpu().contiguous().clone() for name, each in tensors.items()}
            write_whole(path, lambda to: save_file(plain, to, {_HASH: state_digest(plain), _KEY: path.stem}))
    return tensors


def _read(path: Path) -> dict[str, Tensor] | None:
    try:
        with safe_open(path, "pt") as file:
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
            said = file.metadata() or {}
    except (OSError, SafetensorError):
        return None
    return tensors if said == {_HASH: state_digest(tensors), _KEY: path.stem} else None
