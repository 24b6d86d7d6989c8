"""The committed table of int8 networks has every family of torchvision's by each backend: figures, or a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torchvision

from art_divqat.quantization._names import BACKENDS

HERE = Path(__file__).resolve().parents[3] / "evaluations" / "benchmarks" / "int8-families"
ROWS = json.loads((HERE / "results.json").read_text(encoding="utf-8"))


def family(name: str) -> str:
    return str(torchvision.models.get_model_builder(name).__module__)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_family_has_a_row(backend: str) -> None:
    found = {family(row["family"]) for row in ROWS if row["backend"] == backend}
    assert found == {family(name) for name in torchvision.models.list_models(module=torchvision.models)}


def test_a_row_says_what_was_asked_or_why_not() -> None:
    page = (HERE / "README.md").read_text(encoding="utf-8")
    for row in ROWS:
        (line,) = (
            each
            for each in page.splitlines()
            if each.startswith(f"| `{row['family']}` |") and f"`{row['backend']}`" in each
        )
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        trains, function, share, agreement = cells[3:7]
        if "reason" in row:
            assert trains == f"no: {row['reason']}"
            continue
        assert (trains, function) == ("yes", "yes"), line
        assert 0 < float(share.removesuffix("%")) <= 100
        assert 0 <= float(agreement) <= 1
