"""Victim store: one folder per trained victim, named by the hash of everything that determines its weights.

Its entry, `victim.json`, says what the victim is and has the SHA-256 of every file beside it. A file that is not the
one that was stored is never used: it is moved into the folder `set-aside`, which is logged, and counts as absent.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from art_divqat._canonical import canonical_json, content_hash
from art_divqat._files import write_text_whole, write_whole
from art_divqat.errors import UserError
from art_divqat.victims.shared_store import SharedStore

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")
SET_ASIDE = "set-aside"
WEIGHTS = "weights.safetensors"
_ENTRY = "victim.json"
_FILES = "files"

logger = logging.getLogger(__name__)


class VictimStore:
    """Trained networks and what was crafted on them, by content hash. Files appear whole or not at all.

    :param root: the folder; made when something is saved.
    :param shared: where other machines keep theirs: what is absent here is taken from there, and what is saved here is
        put there.
    """

    def __init__(self, root: Path, shared: SharedStore | None = None) -> None:
        self.root = root
        self._shared = shared

    def folder(self, identity: Mapping[str, Any]) -> Path:
        """Where the victim with this identity is or would be."""
        return self.root / content_hash(dict(identity))[:32]

    def sha256(self, identity: Mapping[str, Any], name: str = WEIGHTS) -> str | None:
        """The hash that the entry has of a file, or of the hashes of a folder's files; None if it has none."""
        hashes = _of(self._entry(identity) or {}, name)
        return hashes.get(name) or (content_hash(hashes) if hashes else None)

    def load_weights(self, identity: Mapping[str, Any], network: nn.Module) -> bool:
        """Read the weights into `network`; False if there are none, or not those that were stored."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if not self._holds(identity, WEIGHTS):
            return False
        try:
            network.load_state_dict(load_file(self.folder(identity) / WEIGHTS))
        except (SafetensorError, RuntimeError, OSError):
            # whole, and yet not of this network: the same as none
            return False
        return True

    def save_weights(self, identity: Mapping[str, Any], network: nn.Module) -> None:
        """Keep the weights.

        :raises UserError: if the store cannot be written.
        """
        from safetensors.torch import save

        state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
        self._put_file(identity, WEIGHTS, save(state), of_victim=True)

    def load_folder(self, identity: Mapping[str, Any], name: str, load: Callable[[Path], T]) -> T | None:
        """What `load` makes of a folder that holds the victim, or None if it is absent or cannot be used."""
        if not self._holds(identity, name):
            return None
        try:
            return load(self.folder(identity) / name)
        except UserError:
            return None

    def save_folder(self, identity: Mapping[str, Any], name: str, save: Callable[[Path], None]) -> None:
        """Let `save` fill a folder that holds the victim, and keep it.

        :raises UserError: if the store cannot be written.
        """
        place = self.folder(identity) / name

        def move(filled: Path) -> None:
            shutil.rmtree(place, ignore_errors=True)
            filled.replace(place)

        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{name}.") as temporary:
                filled = Path(temporary) / name
                save(filled)
                self._put(identity, name, _hashes(filled, name), lambda: move(filled), of_victim=True)
        except OSError as error:
            raise UserError(f"{place} cannot be written: {error.strerror or error}.") from None

    def load_arrays(self, identity: Mapping[str, Any], name: str) -> dict[str, NDArray[Any]] | None:
        """Arrays that were made from a victim, or None if they are absent or not those that were stored."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        file = f"{name}.safetensors"
        if not self._holds(identity, file):
            return None
        try:
            return dict(load_file(self.folder(identity) / file))
        except (SafetensorError, OSError):
            return None

    def save_arrays(self, identity: Mapping[str, Any], name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep arrays that were made from a victim.

        :raises UserError: if the store cannot be written.
        """
        from safetensors.numpy import save

        whole = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
        self._put_file(identity, f"{name}.safetensors", save(whole))

    def _put_file(self, identity: Mapping[str, Any], name: str, content: bytes, *, of_victim: bool = False) -> None:
        place = self.folder(identity) / name
        hashes = {name: hashlib.sha256(content).hexdigest()}
        self._put(identity, name, hashes, lambda: write_whole(place, lambda path: path.write_bytes(content)), of_victim)

    def _put(
        self,
        identity: Mapping[str, Any],
        name: str,
        hashes: Mapping[str, str],
        write: Callable[[], None],
        of_victim: bool = False,
    ) -> None:
        """Enter the hashes, then write: killed between the two, the store holds a file that it will not use."""
        place = self.folder(identity) / name
        with self._locked(identity):
            kept = self._entry(identity)
            if kept is None:
                self._set_aside(place.parent / _ENTRY, "is not what was stored there")
            files = dict(kept or {})
            if of_victim and _of(files, name) not in ({}, hashes):
                files = {}  # what was crafted on another victim
            if place.is_symlink() or place.is_dir() != (name not in hashes):
                self._set_aside(place, "is of another kind than what is stored there")
            files = {file: value for file, value in files.items() if file not in _of(files, name)} | dict(hashes)
            write_text_whole(place.parent / _ENTRY, canonical_json({**identity, _FILES: files}) + "\n")
            write()
        self._share(identity, name, hashes, anew=True)

    def _share(self, identity: Mapping[str, Any], name: str, files: Iterable[str], *, anew: bool) -> None:
        """Put files into the shared store, unless it has some of this name; anew, where they replace those."""
        folder = self.folder(identity)
        if self._shared is not None and (anew or not self._shared.holds(folder.name, name)):
            contents = {file: (folder / file).read_bytes() for file in files}
            self._shared.write(folder.name, identity, name, contents)

    def _fetch(self, identity: Mapping[str, Any], name: str) -> None:
        """Take from the shared store what is not here."""
        place = self.folder(identity) / name
        if self._shared is None or os.path.lexists(place):
            return
        files = self._shared.read(place.parent.name, identity, name)
        here = VictimStore(self.root)
        if name in files:
            here._put_file(identity, name, files[name], of_victim=name == WEIGHTS)
        elif files:

            def fill(folder: Path) -> None:
                for file, content in files.items():
                    path = folder.parent / file
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)

            here.save_folder(identity, name, fill)

    def _holds(self, identity: Mapping[str, Any], name: str) -> bool:
        """Whether a file or folder is there and is the one that was stored; if it is another, it is set aside."""
        place = self.folder(identity) / name
        self._fetch(identity, name)
        if not os.path.lexists(place):
            return False
        if self._is_intact(identity, name):
            return True
        with self._locked(identity):
            # whoever was writing it has written it now
            if not os.path.lexists(place):
                return False
            if self._is_intact(identity, name):
                return True
            kept = self._entry(identity)
            if kept is None:
                self._set_aside(place.parent / _ENTRY, "is not what was stored there")
            why = "does not have the SHA-256 that it was stored with"
            if not _of(kept or {}, name):
                why = f"has no SHA-256 in {_ENTRY}"
            self._set_aside(place, why)
        return False

    def _is_intact(self, identity: Mapping[str, Any], name: str) -> bool:
        expected = _of(self._entry(identity) or {}, name)
        if not expected or _hashes(self.folder(identity) / name, name) != expected:
            return False
        self._share(identity, name, expected, anew=False)
        return True

    def _entry(self, identity: Mapping[str, Any]) -> dict[str, str] | None:
        """The hashes that the entry has; none if there is no entry, None if it is not what was written."""
        path = self.folder(identity) / _ENTRY
        if not os.path.lexists(path):
            return {}
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            files = entry.pop(_FILES, {})
            same = canonical_json(entry) == canonical_json(dict(identity))
            return dict(files) if same and all(isinstance(value, str) for value in files.values()) else None
        except (OSError, ValueError, AttributeError, TypeError, RecursionError):
            return None

    def _set_aside(self, place: Path, why: str) -> None:
        if not os.path.lexists(place):
            return
        aside = place.parent / SET_ASIDE
        try:
            aside.mkdir(exist_ok=True)
            to = Path(tempfile.mkdtemp(dir=aside, prefix="")) / place.name
            place.replace(to)
        except OSError as error:
            raise UserError(
                f"{place} {why}, and cannot be moved away ({error.strerror or error}): remove it, or give a store that "
                "can be written."
            ) from None
        logger.warning("%s %s: it was moved to %s and is made anew.", place, why, to)

    @contextlib.contextmanager
    def _locked(self, identity: Mapping[str, Any]) -> Iterator[None]:
        """Keep other writers of one victim out."""
        folder = self.folder(identity)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / ".lock")
            lock.acquire()
        except OSError as error:
            raise UserError(f"{folder} cannot be written: {error.strerror or error}.") from None
        try:
            yield
        finally:
            lock.release()


def _of(files: Mapping[str, str], name: str) -> dict[str, str]:
    """The hashes of a file, or of the files of a folder.

    >>> _of({"a/b": "0", "a/c": "1", "ab": "2"}, "a")
    {'a/b': '0', 'a/c': '1'}
    """
    return {file: value for file, value in files.items() if file == name or file.startswith(f"{name}/")}


def _hashes(place: Path, name: str) -> dict[str, str]:
    """The SHA-256 of a file, or of each file of a folder by its path; empty for what cannot be read."""
    paths = sorted(path for path in place.rglob("*") if not path.is_dir()) if place.is_dir() else [place]
    try:
        return {
            "/".join([name, *path.relative_to(place).parts]): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in paths
        }
    except OSError:
        return {}
