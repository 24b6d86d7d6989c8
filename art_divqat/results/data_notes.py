"""What was done to the images on their way in, as a run recorded it of its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def data_notes(data: Mapping[str, Any]) -> list[str]:
    """The notes on the data set, and on the query pool, in the `data` of a run; empty for runs that recorded none.

    >>> data_notes({"dataset": {"notes": ["a"]}, "pool": {"notes": ["b"]}})
    ['a', 'queries: b']
    """
    found: list[str] = []
    for key, prefix in (("dataset", ""), ("pool", "queries: ")):
        part = data.get(key)
        notes = part.get("notes") if isinstance(part, Mapping) else None
        found += [f"{prefix}{note}" for note in notes] if isinstance(notes, list | tuple) else []
    return found
