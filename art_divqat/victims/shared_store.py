"""Shared victim store: trained victims at a URL, which machines without a common folder read and write.

At the URL stands a folder a victim, as in :mod:`art_divqat.victims.store`; in it every content under its SHA-256, and
for each name an entry, `NAME.json`, that says what the victim is and which contents it has. An entry is written last.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from art_divqat._canonical import canonical_json
from art_divqat._files import first_line, write_whole
from art_divqat.errors import UserError

_ENTRY, _FILES = ".json", "files"

logger = logging.getLogger(__name__)


class SharedStore:
    """What :class:`art_divqat.victims.store.VictimStore` keeps, at a URL; contents are checked when they are read.

    :param url: a folder as fsspec names it: `file:///mnt/victims`, or `s3://bucket/victims` where s3fs is installed.
    :raises UserError: for a URL of a kind that is not known or not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            from fsspec.core import url_to_fs
            from fsspec.implementations.local import LocalFileSystem

            self._system, self._root = url_to_fs(url)
            self._is_folder = isinstance(self._system, LocalFileSystem)
        except (ImportError, ValueError) as error:
            raise UserError(f"--victim-store {url!r} cannot be used: {first_line(error)}.") from None

    def holds(self, folder: str, name: str) -> bool:
        """Whether there is something of this name, whatever it is.

        :raises UserError: if the store cannot be reached.
        """
        return self._read(folder, name + _ENTRY) is not None

    def read(self, folder: str, identity: Mapping[str, Any], name: str) -> dict[str, bytes]:
        """The file, or the files of the folder, of this name; empty if they are absent or not those that were stored.

        :raises UserError: if the store cannot be reached.
        """
        entry = self._read(folder, name + _ENTRY)
        if entry is None:
            return {}
        found: dict[str, bytes] = {}
        try:
            described = json.loads(entry)
            hashes: dict[str, str] = described.pop(_FILES)
            intact = canonical_json(described) == canonical_json(dict(identity))
            for file, sha256 in hashes.items() if intact else ():
                # a name is a part of a path here, and comes from elsewhere
                if file != name and (not file.startswith(f"{name}/") or ".." in file.split("/") or "\\" in file):
                    raise ValueError(file)
                content = self._read(folder, str(sha256))
                if content is None or hashlib.sha256(content).hexdigest() != sha256:
                    intact = False
                    break
                found[file] = content
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            intact = False
        if not intact:
            logger.warning("%s/%s/%s is not what was stored there: it is made anew.", self.url, folder, name)
        return found if intact else {}

    def write(self, folder: str, identity: Mapping[str, Any], name: str, files: Mapping[str, bytes]) -> None:
        """Keep a file, or the files of a folder; whole, or in no entry.

        :raises UserError: if the store cannot be written.
        """
        hashes = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
        for file, content in files.items():
            self._write(folder, hashes[file], content)
        self._write(folder, name + _ENTRY, canonical_json({**identity, _FILES: hashes}).encode())

    def _read(self, folder: str, name: str) -> bytes | None:
        try:
            return bytes(self._system.cat_file(f"{self._root}/{folder}/{name}"))
        except FileNotFoundError:
            return None
        except Exception as error:  # each system has errors of its own
            raise UserError(f"The victim store {self.url} cannot be read: {first_line(error)}.") from None

    def _write(self, folder: str, name: str, content: bytes) -> None:
        path = f"{self._root}/{folder}/{name}"
        if self._is_folder:
            write_whole(Path(path), lambda temporary: temporary.write_bytes(content))
            return
        try:
            # an object store has an object whole or not at all
            self._system.pipe_file(path, content)
        except Exception as error:
            raise UserError(f"The victim store {self.url} cannot be written: {first_line(error)}.") from None
