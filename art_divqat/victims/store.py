"""Victim store: one folder a trained victim, named by the hash of all that decides its weights."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from art_divqat._canonical import canonical_json, content_hash
from art_divqat._files import write_whole
from art_divqat.errors import UserError

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")


class VictimStore:
    """Trained networks and what was crafted on them, by content hash. Files appear whole or not at all.

    :param root: the folder; made when something is saved.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, identity: Mapping[str, Any]) -> Path:
        """Where the victim with this identity is or would be."""
        return self.root / content_hash(dict(identity))[:32]

    def load_weights(self, identity: Mapping[str, Any], network: nn.Module) -> bool:
        """Read the weights into `network`; False if there are none, or none that can be read whole."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        path = self.folder(identity) / "weights.safetensors"
        if not path.is_file():
            return False
        try:
            network.load_state_dict(load_file(path))
        except (SafetensorError, RuntimeError, OSError):
            # a damaged file is the same as none: the victim is trained again and the file replaced
            return False
        return True

    def save_weights(self, identity: Mapping[str, Any], network: nn.Module) -> None:
        """Write the weights and, beside them, what they are."""
        from safetensors.torch import save_file

        folder = self.folder(identity)
        state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
        write_whole(folder / "weights.safetensors", lambda path: save_file(state, path))
        write_whole(folder / "victim.json", lambda path: path.write_text(canonical_json(dict(identity)) + "\n"))

    def load_folder(self, identity: Mapping[str, Any], name: str, load: Callable[[Path], T]) -> T | None:
        """What `load` makes of a folder kept beside a victim, or None if it is not there or cannot be used."""
        folder = self.folder(identity) / name
        if not folder.is_dir():
            return None
        try:
            return load(folder)
        except UserError:
            return None

    def save_folder(self, identity: Mapping[str, Any], name: str, save: Callable[[Path], None]) -> None:
        """Let `save` fill a folder, then move it beside the victim, in place of what was there.

        :raises UserError: if the store cannot be written.
        """
        place = self.folder(identity) / name
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{name}.") as temporary:
                save(Path(temporary) / name)
                shutil.rmtree(place, ignore_errors=True)
                (Path(temporary) / name).replace(place)
        except OSError as error:
            raise UserError(f"{place} cannot be written: {error.strerror or error}.") from None
        write_whole(place.parent / "victim.json", lambda path: path.write_text(canonical_json(dict(identity)) + "\n"))

    def load_arrays(self, identity: Mapping[str, Any], name: str) -> dict[str, NDArray[Any]] | None:
        """Arrays kept beside a victim, or None."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = self.folder(identity) / f"{name}.safetensors"
        if not path.is_file():
            return None
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError):
            return None

    def save_arrays(self, identity: Mapping[str, Any], name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep arrays beside a victim."""
        from safetensors.numpy import save_file

        whole = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
        write_whole(self.folder(identity) / f"{name}.safetensors", lambda path: save_file(whole, path))
