"""Past runs are listed as they are, and their reports are opened or refused in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import webbrowser
from pathlib import Path

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from art_divqat.audit.past_runs import past_runs
from art_divqat.cli.app import app
from art_divqat.errors import UserError
from art_divqat.report import finding
from art_divqat.results.build import read_results

STUDIES = Path(__file__).parents[2] / "evaluations" / "studies"
OLD, NEW = STUDIES / "attacks-compared", STUDIES / "mnist-one-seed"
CLI = CliRunner()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four runs: a finished one, one that stopped, one that never got a line, one whose journal was changed."""
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "art-divqat-runs"
    for name, source, lines in (("whole", OLD, None), ("a/part", NEW, 3), ("begun", NEW, 1)):
        (runs / name).mkdir(parents=True)
        text = (source / "journal.jsonl").read_text("utf-8").splitlines(keepends=True)
        (runs / name / "journal.jsonl").write_text("".join(text[:lines]), "utf-8")
    (runs / "changed").mkdir()
    (runs / "changed" / "journal.jsonl").write_text('{"entry":{},"hash":"0","previous":"0"}\n')
    (runs / "no-run").mkdir()
    return runs


def test_states_and_findings_newest_first(folder: Path) -> None:
    found = past_runs(folder)
    states = {run.folder.relative_to(folder).as_posix(): run.state for run in found}
    assert states == {"whole": "finished", "a/part": "stopped", "begun": "stopped", "changed": "failed"}
    assert [run.started for run in found] == sorted((run.started for run in found), reverse=True)
    planned = read_results(NEW).planned
    by_name = {run.folder.name: run for run in found}
    assert (by_name["part"].done, by_name["part"].planned) == (2, planned)
    assert by_name["begun"].done == 0
    assert "journal was changed or damaged" in by_name["changed"].reason


def test_the_list_says_when_how_far_and_what(folder: Path) -> None:
    listed = CLI.invoke(app, ["runs"], env={"TZ": "UTC", "COLUMNS": "80"}).output
    assert max(map(len, listed.splitlines())) <= 80
    assert f"stopped at 2/{read_results(NEW).planned}" in listed
    whole = " ".join(listed.split())
    assert " ".join(finding(read_results(OLD)).split())[:200] in whole
    assert str(folder.name) in listed
    as_data = json.loads(CLI.invoke(app, ["runs", str(folder), "--json"]).output)
    assert {run["state"] for run in as_data} == {"finished", "stopped", "failed"}
    assert as_data[0].keys() == {"folder", "started", "state", "cells", "planned", "finding"}
    alone = json.loads(CLI.invoke(app, ["runs", str(folder / "whole"), "--json"]).output)
    assert [Path(run["folder"]).name for run in alone] == ["whole"]


def test_results_of_another_journal_are_not_believed(folder: Path) -> None:
    part, results = folder / "a" / "part", read_results(OLD)
    (part / "results.json").write_text(results.model_dump_json(), "utf-8")
    os.utime(part / "results.json", (1, 1))
    (run,) = past_runs(part)
    assert run.done == 2
    (part / "results.json").write_text("{", "utf-8")
    (run,) = past_runs(part)
    assert run.done == 2


def test_a_run_at_work_is_running(folder: Path) -> None:
    part = folder / "a" / "part"
    code = f"import filelock, sys; lock = filelock.FileLock({str(part / '.lock')!r}); lock.acquire(); "
    command = [sys.executable, "-c", f"{code}print('held', flush=True); sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "held\n"
        assert past_runs(part)[0].state == "running"
        process.stdin.close()
    assert past_runs(part)[0].state == "stopped"
    with FileLock(part / ".lock", timeout=0):
        pass


def test_nothing_to_list_and_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CLI.invoke(app, ["runs"]).output == (
        "There is no run in art-divqat-runs: art-divqat evaluate or audit makes one.\n"
    )
    with pytest.raises(UserError, match="There is no folder nothing: expected one with run folders in it"):
        CLI.invoke(app, ["runs", "nothing"], catch_exceptions=False)


def test_a_report_is_opened_or_its_path_printed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda address: bool(opened.append(address)) or True)
    (folder / "whole" / "report.html").write_text("<html>")
    by_name = CLI.invoke(app, ["open", "whole", "--print"])
    assert by_name.output == f"{Path('art-divqat-runs') / 'whole' / 'report.html'}\n"
    assert opened == []
    CLI.invoke(app, ["open", str(folder / "whole")], catch_exceptions=False)
    assert opened == [(folder / "whole" / "report.html").as_uri()]
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    with pytest.raises(UserError, match=r"No browser could be started: open .*report\.html in one"):
        CLI.invoke(app, ["open", str(folder / "whole")], catch_exceptions=False)


def test_no_report_is_one_line_with_the_command_that_makes_it(folder: Path) -> None:
    with pytest.raises(UserError) as caught:
        CLI.invoke(app, ["open", str(folder / "whole")], catch_exceptions=False)
    command = str(caught.value).split(": art-divqat ")[1].removesuffix(" makes it.").split()
    assert command[0] == "report"
    CLI.invoke(app, command, catch_exceptions=False)
    assert CLI.invoke(app, ["open", str(folder / "whole"), "--print"]).exit_code == 0
    for name in ("nothing", str(folder / "no-run")):
        with pytest.raises(UserError, match="is no run folder: art-divqat runs lists those"):
            CLI.invoke(app, ["open", name], catch_exceptions=False)


def test_listing_and_opening_need_neither_torch_nor_art(folder: Path) -> None:
    shutil.copy(OLD / "journal.jsonl", folder / "whole" / "report.html")
    code = (
        "import sys; from typer.testing import CliRunner; from art_divqat.cli.app import app; "
        f"assert CliRunner().invoke(app, ['runs', {str(folder)!r}]).exit_code == 0; "
        f"assert CliRunner().invoke(app, ['open', {str(folder / 'whole')!r}, '--print']).exit_code == 0; "
        "print(sorted({'torch', 'art', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "[]\n"
