"""Journal of remote answers: each is on disk before it is used; append-only, one line per image.

Importing this module imports neither torch nor ART.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from art_divqat.errors import UserError


def image_key(image: NDArray[np.float32]) -> str:
    """SHA-256 of an image's bytes, its first 32 hex digits.

    >>> image_key(np.zeros((1, 2, 2), np.float32))
    '374708fff7719dd5979ec875d56cd228'
    """
    return hashlib.sha256(np.ascontiguousarray(image, dtype="<f4").tobytes()).hexdigest()[:32]


class AnswerJournal:
    """What an endpoint answered, by image.

    An incomplete last line, left by a killed process, is cut off; any other damage is reported.

    :param path: the file; made with its folder.
    :param endpoint: what answered, without anything secret; a file of another endpoint is refused.
    :param nb_classes: the minimum number of values per answer; all answers have as many as the first.
    :raises UserError: if the file is of another endpoint, is damaged, or cannot be written.
    """

    def __init__(self, path: Path, endpoint: str, nb_classes: int) -> None:
        self.path = path
        self._header = {"endpoint": endpoint, "classes": nb_classes, "version": 1}
        self._nb_classes = nb_classes
        # values an answer, known once there is one
        self.width: int | None = None
        self._answers: dict[str, NDArray[np.float32]] = {}
        try:
            self._open()
        except OSError as error:
            raise UserError(
                f"The answers of the endpoint cannot be kept in {path}: {error.strerror or error}."
            ) from None

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> NDArray[np.float32] | None:
        """The answer to an image, or None if it was never asked."""
        return self._answers.get(key)

    def add(self, answers: Mapping[str, NDArray[np.float32]]) -> None:
        """Write answers to disk, and only then keep them in memory.

        :raises UserError: if they cannot be written; what is on the disk is still whole.
        """
        lines = [
            json.dumps({"image": key, "answer": base64.b64encode(answer.astype("<f4").tobytes()).decode()})
            for key, answer in answers.items()
        ]
        try:
            self._append(lines)
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror or error}.") from None
        self._answers.update(answers)
        self.width = next((len(answer) for answer in answers.values()), self.width)

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with self.path.open("r+b") as file:
                file.truncate(whole)
        lines = content[:whole].splitlines()
        if not lines:
            self._append([json.dumps(self._header)])
            return
        for number, line in enumerate(lines, start=1):
            self._read(number, line)

    def _read(self, number: int, line: bytes) -> None:
        try:
            record = json.loads(line)
            if number == 1:
                if record != self._header:
                    raise UserError(f"{self.path} holds the answers of another endpoint: give --output another folder.")
                return
            answer = np.frombuffer(base64.b64decode(record["answer"], validate=True), "<f4").astype(np.float32)
            key = record["image"]
            fits = len(answer) >= self._nb_classes if self.width is None else len(answer) == self.width
            intact = isinstance(key, str) and answer.ndim == 1 and fits and bool(np.isfinite(answer).all())
        except UserError:
            raise
        except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
            intact = False
        if not intact:
            raise UserError(
                f"Line {number} of {self.path} is not what this program wrote: the answers were changed or damaged."
            )
        self._answers[key] = answer
        self.width = len(answer)

    def _append(self, lines: list[str]) -> None:
        with self.path.open("ab") as file:
            start = file.tell()
            try:
                file.write("".join(f"{line}\n" for line in lines).encode())
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                file.truncate(start)
                raise
