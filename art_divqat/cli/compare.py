"""`art-divqat compare RUN_A RUN_B`: compare two runs, metric by metric."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN_A", help="The run folder from before.")],
    second: Annotated[Path, typer.Argument(metavar="RUN_B", help="The run folder from after.")],
    fail_on_worse: Annotated[
        bool, typer.Option("--fail-on-worse", help="End with exit code 1 if anything is worse beyond its interval.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print JSON to stdout and nothing else.")] = False,
) -> None:
    """Compare two runs on the same images: RUN_B minus RUN_A, paired by seed and by test image, with 95 % intervals.

    Worse means easier to steal, or less accurate; where the interval holds 0
    nothing is said.
    """
    from art_divqat.results.run_diff import compare_runs

    difference = compare_runs(first, second)
    if json_output:
        sys.stdout.write(difference.model_dump_json(indent=2) + "\n")
    else:
        heads = ("victim", "defence", "attack", "answers", "queries", "metric", "before", "after", "difference", "")
        rows = [heads]
        for change in difference.changes:
            low, high = change.difference.low, change.difference.high
            bounds = "" if low is None or high is None else f" ({low:+.3f} to {high:+.3f})"
            rows.append(
                (
                    *(
                        change.victim,
                        change.defence,
                        change.attack,
                        change.answers,
                        f"{change.budget:,}",
                        change.metric,
                    ),
                    *(f"{change.before:.3f}", f"{change.after:.3f}", f"{change.difference.mean:+.3f}{bounds}"),
                    change.verdict,
                )
            )
        widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
        for row in rows:
            typer.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
        counts = {kind: sum(change.verdict == kind for change in difference.changes) for kind in ("worse", "better")}
        apart = difference.only_in_a + difference.only_in_b
        more = f" {apart} cells are in one of the runs only." if apart else ""
        typer.echo(f"{counts['worse']} worse, {counts['better']} better, of {len(difference.changes)} compared.{more}")
    if fail_on_worse and difference.got_worse:
        raise typer.Exit(1)
