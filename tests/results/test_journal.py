"""The journal: what was written is read; what was torn is repaired; what was changed is reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.builders import read_cell

from art_divqat._canonical import canonical_json
from art_divqat.errors import UserError
from art_divqat.results.journal import Journal, cell_record, group_of

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def filled(path: Path, lines: int = 3) -> Journal:
    journal = Journal(path)
    journal.start({"config": {}})
    for number in range(lines):
        journal.append({"cell": number})
    return journal


@given(st.lists(st.dictionaries(st.text(), JSON, max_size=3), max_size=4))
@settings(max_examples=40, deadline=None)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, entries: list[dict[str, Any]]) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal") / "journal.jsonl")
    journal.start({"h": 1})
    for entry in entries:
        journal.append(entry)
    header, lines = Journal(journal.path).read()
    assert header == {"h": 1}
    left_out = {"samples": {}, "details": {}, "curves": {}}
    assert canonical_json(lines) == canonical_json([left_out | entry for entry in entries])


def test_a_cell_without_curves_has_a_line_without_them(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.start({"config": {}})
    points = {"thief_robust_accuracy": [{"epsilon": 0.1, "value": 0.5}]}
    written = [
        cell_record(
            read_cell("digits", "standard", "none", "knockoff", "soft", 100 * (seed + 1), seed),
            queries=100,
            metrics={"agreement": 0.5, "extraction_ratio": None},
            samples={"agrees": "1:gA=="},
            seconds=1.5,
            curves=curves,
        )
        for seed, curves in enumerate(({}, points))
    ]
    for record in written:
        journal.append(record)
    assert Journal(journal.path).read()[1] == written
    lines = [json.loads(line)["entry"] for line in journal.path.read_text().splitlines()[1:]]
    assert ["curves" in line for line in lines] == [False, True]
    assert [group_of(record).budget for record in written] == [100, 200]


def test_torn_last_line_at_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    whole = path.read_bytes()
    start = whole[:-1].rfind(b"\n") + 1
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        journal = Journal(path)
        _, lines = journal.read(repair=True)
        assert [line["cell"] for line in lines] == [0, 1]
        journal.append({"cell": 2})
        assert path.read_bytes() == whole


def test_a_changed_byte_anywhere_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    whole = bytearray(path.read_bytes())
    for position in range(0, len(whole) - 1, 7):
        changed = bytearray(whole)
        changed[position] = changed[position] ^ 1
        path.write_bytes(bytes(changed))
        if b"\n" not in bytes(changed)[position : position + 1] and changed[position] != whole[position]:
            with pytest.raises(UserError, match="not what this program wrote"):
                Journal(path).read()


def test_lines_removed_or_swapped_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    filled(path)
    lines = path.read_text().splitlines(keepends=True)
    for altered in ([lines[0], *lines[2:]], [lines[0], lines[2], lines[1], lines[3]], lines[1:]):
        path.write_text("".join(altered))
        with pytest.raises(UserError, match="not what this program wrote"):
            Journal(path).read()


def test_missing_and_empty(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no journal"):
        Journal(tmp_path / "no.jsonl").read()
    (tmp_path / "empty.jsonl").write_text("")
    assert not Journal(tmp_path / "empty.jsonl").exists()
    with pytest.raises(UserError, match="is empty"):
        Journal(tmp_path / "empty.jsonl").read()


def test_a_line_is_one_line_whatever_it_holds(tmp_path: Path) -> None:
    journal = filled(tmp_path / "journal.jsonl", 0)
    journal.append({"text": "a\nb\r\u2028c"})
    assert [line["text"] for line in Journal(journal.path).read()[1]] == ["a\nb\r\u2028c"]
    assert all(json.loads(line) for line in journal.path.read_bytes().split(b"\n")[:-1])
