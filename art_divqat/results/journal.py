"""`journal.jsonl`: append-only, one line a finished cell, each chained by SHA-256 to the line before it.

The first line says what the run is. Every other line is a finished cell. The results and every report are made from
this file alone. Importing this module imports neither torch nor ART.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from art_divqat._canonical import canonical_json
from art_divqat.errors import UserError

_GENESIS = "0" * 64
# a line, as canonical_json would write it: keys in their order, nothing between
_LINE = re.compile(
    rb'\{"entry":(?P<entry>.*),"hash":"(?P<hash>[0-9a-f]{64})","previous":"(?P<previous>[0-9a-f]{64})"\}'
)


def _chained(entry: bytes, previous: str) -> str:
    """The hash of a line: `content_hash` of its entry and the hash before, from the text of the entry."""
    return hashlib.sha256(b'{"entry":%b,"previous":"%b"}' % (entry, previous.encode())).hexdigest()


class Journal:
    """The journal of one run folder.

    :param path: where it is or will be.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     journal = Journal(Path(folder) / "journal.jsonl")
    ...     journal.start({"config": {}})
    ...     journal.append({"cell": {"seed": 0}})
    ...     header, lines = journal.read()
    >>> lines
    [{'cell': {'seed': 0}}]
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last_hash = _GENESIS

    def exists(self) -> bool:
        """Whether there is a file with at least one whole line; a torn first line counts as none."""
        return self.path.is_file() and b"\n" in self.path.read_bytes()[:1_000_000]

    def start(self, header: Mapping[str, Any]) -> None:
        """Write the first line, replacing a torn one."""
        self._last_hash = _GENESIS
        self.path.write_bytes(b"")
        self.append(header)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add one line and make sure it is on the disk before anything relies on it."""
        text = canonical_json(dict(entry)).encode()
        line_hash = _chained(text, self._last_hash)
        line = b'{"entry":%b,"hash":"%b","previous":"%b"}' % (text, line_hash.encode(), self._last_hash.encode())
        with self.path.open("ab") as file:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._last_hash = line_hash

    def read(self, *, repair: bool = False) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The header and the finished cells, after checking the chain.

        A last line without its newline is what a killed process leaves: it is left out, and cut off with `repair`.

        :raises UserError: if the file is missing or empty, or any whole line is not what was written.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise UserError(f"There is no journal at {self.path} ({error.strerror}): expected a run folder.") from None
        whole = content.rfind(b"\n") + 1
        if repair and whole < len(content):
            with self.path.open("r+b") as file:
                file.truncate(whole)
        entries: list[dict[str, Any]] = []
        previous = _GENESIS
        for number, line in enumerate(content[:whole].splitlines(), start=1):
            entry, previous = self._check(number, line, previous)
            entries.append(entry)
        if not entries:
            raise UserError(f"The journal {self.path} is empty: the run never started. Remove it and run again.")
        self._last_hash = previous
        return entries[0], entries[1:]

    def _check(self, number: int, line: bytes, previous: str) -> tuple[dict[str, Any], str]:
        found = _LINE.fullmatch(line)
        entry, line_hash = None, ""
        if found is not None and found["previous"] == previous.encode():
            line_hash = _chained(found["entry"], previous)
            if found["hash"] == line_hash.encode():
                with contextlib.suppress(ValueError, RecursionError):
                    entry = json.loads(found["entry"])
        if not isinstance(entry, dict):
            raise UserError(
                f"Line {number} of {self.path} is not what this program wrote: the journal was changed or damaged. "
                "Results from it cannot be trusted; run again into a fresh folder."
            )
        return entry, line_hash
