"""The committed report of every study is what its journal makes, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from art_divqat.cli.app import app

STUDIES = Path(__file__).parents[1] / "evaluations" / "studies"
JOURNALS = sorted(STUDIES.rglob("journal.jsonl"))


@pytest.mark.parametrize("journal", JOURNALS, ids=lambda path: path.parent.relative_to(STUDIES).as_posix())
def test_report_is_made_of_its_journal(journal: Path, tmp_path: Path) -> None:
    output = tmp_path / "report.md"
    command = ["report", str(journal.parent), "--format", "md", "--output", str(output)]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    committed = journal.with_name("report.md")
    assert output.read_bytes() == committed.read_bytes(), (
        f"{committed} is not what its journal makes: see what changed; if it is meant, commit what "
        f"`art-divqat report {journal.parent} --format md --output {committed}` writes."
    )


def test_every_study_has_its_three_files() -> None:
    configured = {path.parent for path in STUDIES.rglob("config.yaml")}
    assert configured == {path.parent for path in JOURNALS} == {path.parent for path in STUDIES.rglob("report.md")}
    assert len(JOURNALS) >= 11
