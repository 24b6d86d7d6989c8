"""Terminal summary of `evaluate` and `audit`: the results as they are shown anywhere, and the path of the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from art_divqat.results.schema import Results

# a terminal that says nothing of its width, such as a file
_WIDTH = 120


def print_results(results: Results, folder: Path) -> None:
    """Print the summary to stdout, as wide as the terminal allows."""
    from rich.console import Console
    from rich.text import Text

    from art_divqat.report.terminal import terminal_summary

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    for block in terminal_summary(results, console.width):
        console.print(block)
    console.print(Text(f"Report: {folder / 'report.html'}"))
