"""`art-divqat report` and `art-divqat list`: rewrite a report, list names; without torch or ART."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from art_divqat.cli.completion import completed_kinds
from art_divqat.errors import unknown_name

KINDS = ("datasets", "pools", "models", "victims", "attacks", "recoveries", "defences", "presets")


def list_names(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.", autocompletion=completed_kinds)],
) -> None:
    """List what a name on the command line can be, with one line each."""
    names = names_of(kind)
    width = max(map(len, names))
    for name, summary in names.items():
        typer.echo(f"{name:<{width}}  {summary}")


def names_of(kind: str) -> dict[str, str]:
    if kind == "datasets":
        from art_divqat.data.sources import list_datasets

        return list_datasets() | {
            "npz:PATH": "an .npz archive with x_train, y_train, x_test and y_test",
            "folder:PATH": "a folder of pictures, one sub-folder a class, or train and test over them",
        }
    if kind == "pools":
        from art_divqat.data.pools import list_pools

        return list_pools() | {"DATASET": "the training images of any data set, made to fit"}
    if kind == "models":
        from art_divqat.models.registry import MODEL_FORMS, MODELS

        return dict(sorted(MODELS.summaries().items())) | MODEL_FORMS
    if kind == "victims":
        from art_divqat.victims.registry import list_victims

        return list_victims()
    if kind == "attacks":
        from art_divqat.attacks.extraction.registry import list_attacks

        return list_attacks()
    if kind == "recoveries":
        from art_divqat.attacks.recovery.registry import list_recoveries

        return list_recoveries()
    if kind == "defences":
        from art_divqat.defences.registry import list_defences

        return list_defences()
    if kind == "presets":
        from art_divqat.plan.presets import PRESETS

        return PRESETS
    raise unknown_name("kind of name", kind, KINDS)


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
