"""`art-divqat runs`, `open` and `mlflow`: list past runs, show or log one; without torch or ART."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import textwrap
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from art_divqat.errors import UserError

if TYPE_CHECKING:
    from art_divqat.audit.past_runs import PastRun

_REPORT = "report.html"
_WIDEST = 100


def runs(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Where the run folders are; art-divqat-runs if not given.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON to stdout and nothing else.")] = False,
) -> None:
    """List past runs, the newest first: when each was begun, how far it came, and what it found."""
    from art_divqat.audit.past_runs import RUNS, past_runs

    where = RUNS if folder is None else folder
    found = past_runs(where) if folder is not None or where.is_dir() else []
    if json_output:
        sys.stdout.write(json.dumps([_record(run) for run in found], indent=2, ensure_ascii=False) + "\n")
        return
    if not found:
        typer.echo(f"There is no run in {where}: art-divqat evaluate or audit makes one.")
    width = min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)
    for run in found:
        typer.echo(f"{_when(run):<16}  {_how_far(run):<16}  {run.folder}")
        for line in textwrap.wrap(_found(run), width - 2):
            typer.echo(f"  {line}")


def open_report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or its name in art-divqat-runs.")],
    only_print: Annotated[bool, typer.Option("--print", help="Print where the report is, and open nothing.")] = False,
) -> None:
    """Open the report of a run in the browser."""
    report = _report_of(run)
    typer.echo(str(report))
    if only_print:
        return
    import webbrowser

    if not webbrowser.open(report.resolve().as_uri()):
        raise UserError(f"No browser could be started: open {report} in one.")


def log_to_mlflow(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or its name in art-divqat-runs.")],
) -> None:
    """Log a run to MLflow, where MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME say; print its id there."""
    from art_divqat.outcome import load

    # of a server it prints where the run is to be seen
    with contextlib.redirect_stdout(sys.stderr):
        run_id = load(_folder_of(run)).log_to_mlflow()
    typer.echo(run_id)


def _folder_of(run: Path) -> Path:
    from art_divqat.audit.past_runs import RUNS

    return RUNS / run if not run.exists() and (RUNS / run).is_dir() else run


def _report_of(run: Path) -> Path:
    """The report of a run folder.

    :raises UserError: if there is none, with the command that makes it.
    """
    from art_divqat.audit.past_runs import RUNS

    folder = _folder_of(run)
    report = folder / _REPORT
    if report.is_file():
        return report
    if (folder / "journal.jsonl").is_file():
        raise UserError(f"{folder} holds no {_REPORT} yet: art-divqat report {folder} --output {report} makes it.")
    raise UserError(f"{run} is no run folder: art-divqat runs lists those in {RUNS}, and runs FOLDER others.")


def _record(run: PastRun) -> dict[str, Any]:
    return {
        "folder": str(run.folder),
        "started": run.started,
        "state": run.state,
        "cells": run.done,
        "planned": run.planned,
        "finding": _found(run),
    }


def _when(run: PastRun) -> str:
    """When it was begun, by the clock of this machine."""
    try:
        return datetime.fromisoformat(run.started).astimezone().strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return "–"


def _how_far(run: PastRun) -> str:
    return run.state if run.state in ("finished", "failed") else f"{run.state} at {run.done:,}/{run.planned:,}"


def _found(run: PastRun) -> str:
    from art_divqat.report.findings import finding
    from art_divqat.report.text import clean

    return clean(run.reason if run.results is None else finding(run.results))
