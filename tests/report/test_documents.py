"""The examples in docs/reading-a-report.md run as they stand."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "reading-a-report.md"


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(DOCUMENT.parents[1] / "evaluations" / "studies" / "robust-extraction" / "digits", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.S)
    exec(compile(code, str(DOCUMENT), "exec"), {})
    assert capsys.readouterr().out.startswith("Stealing the robust victim")
    assert {p.name for p in (tmp_path / "elsewhere").iterdir()} == {"results.json", "report.md", "report.html"}
    assert (tmp_path / "report.sarif").read_text("utf-8").startswith("{")
