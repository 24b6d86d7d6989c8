"""results.json as text: what `json.dumps(…, indent=2)` writes, with the leaves left to json's fast encoder."""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any

from pydantic import BaseModel

_FREE = ("tool", "environment", "config", "data", "metrics", "details", "curves")


def indented_json(value: Any, free: bool = False, depth: int = 0) -> str:
    """A value of models, dicts, lists and scalars: fields in their order, keys below free fields sorted, two spaces.

    Numbers that are not finite become null, so that every JSON reader can read it.

    >>> print(indented_json({"metrics": {"b": 1e-07, "a": float("nan")}, "cells": []}))
    {
      "metrics": {
        "a": null,
        "b": 1e-07
      },
      "cells": []
    }
    """
    if isinstance(value, dict):
        return _indented_object(value, free, depth)
    if isinstance(value, list | tuple):
        if not value:
            return "[]"
        inner = "\n" + "  " * (depth + 1)
        items = [indented_json(item, free, depth + 1) for item in value]
        return f"[{inner}{f',{inner}'.join(items)}\n{'  ' * depth}]"
    if isinstance(value, BaseModel):
        return _indented_object(value.__dict__, free, depth)
    if isinstance(value, float) and not math.isfinite(value):
        return "null"
    return _encoder(0).encode(value)


def _indented_object(value: dict[str, Any], free: bool, depth: int) -> str:
    if not value:
        return "{}"
    if free:
        value = {key: value[key] for key in sorted(value)}
    inner, end = "\n" + "  " * (depth + 1), "\n" + "  " * depth
    if _SCALARS.issuperset(map(type, value.values())):
        try:
            # json's fast encoder writes no indents, but this separator makes them
            return f"{{{inner}{_encoder(depth + 1).encode(value)[1:-1]}{end}}}"
        except ValueError:
            pass  # a number that is not finite
    items = [
        f"{_encoder(0).encode(key)}: {indented_json(item, free or key in _FREE, depth + 1)}"
        for key, item in value.items()
    ]
    return f"{{{inner}{f',{inner}'.join(items)}{end}}}"


_SCALARS = frozenset({str, int, float, bool, type(None)})


@cache
def _encoder(depth: int) -> json.JSONEncoder:
    separator = ",\n" + "  " * depth
    return json.JSONEncoder(separators=(separator, ": "), ensure_ascii=False, allow_nan=False, check_circular=False)
