"""Journal: append one line a finished cell to `journal.jsonl`, each chained by SHA-256 to the line before it.

The first line is the :class:`Header`, which says what the run is; every other one is the :class:`CellRecord` of a
finished cell, which :func:`cell_record` makes and :meth:`Journal.read` reads. The results and every report are made
from this file alone. Importing this module imports neither torch nor ART.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, cast

from art_divqat._canonical import canonical_json
from art_divqat.errors import UserError
from art_divqat.plan.cells import Cell

_GENESIS = "0" * 64
# a line, as canonical_json would write it: keys in their order, nothing between
_LINE = re.compile(
    rb'\{"entry":(?P<entry>.*),"hash":"(?P<hash>[0-9a-f]{64})","previous":"(?P<previous>[0-9a-f]{64})"\}'
)


class Header(TypedDict):
    """What a run is: who made it, where and when, its configuration in full, and what its data are."""

    schema_version: int
    tool: dict[str, str]
    environment: dict[str, Any]
    started: str
    config: dict[str, Any]
    data: dict[str, Any]


class CellCoordinates(TypedDict):
    """Which cell a record is about."""

    dataset: str
    victim: str
    defence: str
    attack: str
    answers: str
    budget: int
    seed: int


class PointRecord(TypedDict):
    """One point of a curve: the rate at a radius ε."""

    epsilon: float
    value: float


class _MayBeAbsent(TypedDict, total=False):
    victim_sha256: str


class CellRecord(_MayBeAbsent):
    """One finished cell.

    `samples` are the packed bits, one an image, that rates among `metrics` are means of; `details` is what flags are
    computed from. Lines of earlier versions may lack `samples` and `details`, and cells below the largest budget have
    no `curves`: a record that was read has them, empty. `victim_sha256` is the hash of the stored victim that the cell
    used, as the store's entry has it; absent for a model of somebody else's, and in earlier lines.
    """

    cell: CellCoordinates
    queries: int
    metrics: dict[str, float | None]
    samples: dict[str, str]
    details: dict[str, float]
    curves: dict[str, list[PointRecord]]
    seconds: float


class Group(NamedTuple):
    """What the records of cells that differ only in their seed have in common."""

    dataset: str
    victim: str
    defence: str
    attack: str
    answers: str
    budget: int


def cell_record(
    cell: Cell,
    *,
    queries: int,
    metrics: Mapping[str, float | None],
    samples: Mapping[str, str],
    seconds: float,
    details: Mapping[str, float] | None = None,
    curves: Mapping[str, Sequence[PointRecord]] | None = None,
    victim_sha256: str | None = None,
) -> CellRecord:
    """The record of a finished cell, for :meth:`Journal.append`.

    :param queries: what the attack spent.
    :param samples: as :func:`art_divqat.results.samples.pack` packs them, by name.

    >>> from art_divqat.plan.cells import plan_cells
    >>> from art_divqat.plan.config import make_config
    >>> from art_divqat.plan.presets import resolve
    >>> cell = plan_cells(resolve(make_config({"budgets": [100]})))[0]
    >>> cell_record(cell, queries=100, metrics={"agreement": 0.5}, samples={}, seconds=1.0)["curves"]
    {}
    """
    record: CellRecord = {
        "cell": {
            "dataset": cell.dataset,
            "victim": str(cell.victim),
            "defence": str(cell.defence),
            "attack": str(cell.attack),
            "answers": cell.answers,
            "budget": cell.budget,
            "seed": cell.seed,
        },
        "queries": queries,
        "metrics": dict(metrics),
        "samples": dict(samples),
        "details": dict(details or {}),
        "curves": {name: list(points) for name, points in (curves or {}).items()},
        "seconds": seconds,
    }
    if victim_sha256 is not None:
        record["victim_sha256"] = victim_sha256
    return record


def group_of(record: CellRecord) -> Group:
    """The group of a record: its cell without the seed."""
    cell = record["cell"]
    return Group(cell["dataset"], cell["victim"], cell["defence"], cell["attack"], cell["answers"], cell["budget"])


def group_seeds(records: Iterable[CellRecord]) -> dict[Group, list[CellRecord]]:
    """Records that differ only in their seed, in the order of their first appearance."""
    groups: dict[Group, list[CellRecord]] = {}
    for record in records:
        groups.setdefault(group_of(record), []).append(record)
    return groups


def _record(entry: dict[str, Any]) -> CellRecord:
    """A record from a line, with what lines may leave out; whoever uses it finds out if the rest is of another kind."""
    for name in ("samples", "details", "curves"):
        entry.setdefault(name, {})
    return cast(CellRecord, entry)


def _chained(entry: bytes, previous: str) -> str:
    """The hash of a line: `content_hash` of its entry and the hash before, from the text of the entry."""
    return hashlib.sha256(b'{"entry":%b,"previous":"%b"}' % (entry, previous.encode())).hexdigest()


class Journal:
    """The journal of one run folder.

    :param path: where it is or will be.

    >>> import tempfile
    >>> from art_divqat.plan.cells import plan_cells
    >>> from art_divqat.plan.config import make_config
    >>> from art_divqat.plan.presets import resolve
    >>> cell = plan_cells(resolve(make_config({"budgets": [100]})))[0]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     journal = Journal(Path(folder) / "journal.jsonl")
    ...     journal.start({"config": {}})
    ...     journal.append(cell_record(cell, queries=100, metrics={"agreement": 0.5}, samples={}, seconds=1.0))
    ...     header, records = journal.read()
    >>> [(group_of(record).attack, record["metrics"]) for record in records]
    [('knockoff', {'agreement': 0.5})]
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last_hash = _GENESIS

    def exists(self) -> bool:
        """Whether there is a file with at least one whole line; a torn first line counts as none."""
        return self.path.is_file() and b"\n" in self.path.read_bytes()[:1_000_000]

    def start(self, header: Header) -> None:
        """Write the first line, replacing a torn one."""
        self._last_hash = _GENESIS
        self.path.write_bytes(b"")
        self._write(header)

    def append(self, record: CellRecord) -> None:
        """Add the line of one cell and make sure it is on the disk before anything relies on it."""
        # a cell below the largest budget has no curves, and its line says nothing of them
        self._write({name: value for name, value in record.items() if name != "curves" or value})

    def _write(self, entry: Mapping[str, object]) -> None:
        text = canonical_json(dict(entry)).encode()
        line_hash = _chained(text, self._last_hash)
        line = b'{"entry":%b,"hash":"%b","previous":"%b"}' % (text, line_hash.encode(), self._last_hash.encode())
        with self.path.open("ab") as file:
            file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self._last_hash = line_hash

    def read(self, *, repair: bool = False) -> tuple[Header, list[CellRecord]]:
        """The header and the records of the finished cells, after checking the chain.

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
        return cast(Header, entries[0]), [_record(entry) for entry in entries[1:]]

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
