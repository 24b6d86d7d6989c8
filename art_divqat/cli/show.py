"""`art-divqat report` and `art-divqat list`: rewrite a report, list names; without torch or ART."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from art_divqat.cli.completion import completed_kinds
from art_divqat.cli.names import KINDS, names_of


def list_names(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.", autocompletion=completed_kinds)],
) -> None:
    """List what a name on the command line can be, with one line each."""
    names = names_of(kind)
    width = max(map(len, names))
    for name, summary in names.items():
        typer.echo(f"{name:<{width}}  {summary}")


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, finished or not.")],
    output_format: Annotated[
        str | None,
        typer.Option("--format", help="html, md, json, sarif, junit or csv; by the name of --output, else md."),
    ] = None,
    fail_on: Annotated[
        list[str] | None, typer.Option(help="End with exit code 1 where this holds, such as 'agreement>0.9'.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write to this file instead of stdout.")] = None,
) -> None:
    """Make a report from a run's journal alone; needs no model and no torch."""
    # hundreds of thousands of objects and no cycles: the collector would walk them again and again, and free nothing
    gc.disable()
    try:
        _report(folder, output_format, fail_on or (), output)
    finally:
        gc.enable()


def _report(folder: Path, output_format: str | None, fail_on: Sequence[str], output: Path | None) -> None:
    from art_divqat._files import write_text_whole
    from art_divqat.report import render
    from art_divqat.report.files import FORMATS
    from art_divqat.results.build import read_results

    if output_format is None:
        suffix = "" if output is None else output.suffix.lower().removeprefix(".")
        output_format = suffix if suffix in FORMATS else "md"
    results = read_results(folder, fail_on)
    text = render(results, output_format)
    if output is None:
        sys.stdout.write(text)
    else:
        write_text_whole(output, text)
        typer.echo(str(output), err=True)
    if not results.gate.passed:
        raise typer.Exit(1)
