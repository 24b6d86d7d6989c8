"""The notebooks are whole, and hold no outputs: the site runs them (`.ci/docs`), and one that fails fails the site."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def cells(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return found


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {"audit", "defend", "gallery"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_no_output_is_stored(path: Path) -> None:
    for cell in cells(path):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
            compile("".join(cell["source"]), str(path), "exec")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    # as in pages, which test_links.py reads; notebooks are one string a line
    from test_links import _LINK

    text = "".join("".join(cell["source"]) for cell in cells(path) if cell["cell_type"] == "markdown")
    links = [link for link in _LINK.findall(text) if "://" not in link]
    assert links
    assert not [link for link in links if not (path.parent / link.partition("#")[0]).exists()]
