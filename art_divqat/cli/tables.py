"""What `evaluate` prints: one table, the finding in a sentence, and where the report is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from art_divqat.audit.schema import Estimate, Results, SummaryRow

_COLUMNS = {
    "victim_accuracy": "victim acc.",
    "defended_accuracy": "defended acc.",
    "thief_accuracy": "thief acc.",
    "agreement": "agreement",
    "extraction_ratio": "extr. ratio",
    "label_flip_rate": "label flips",
    "l1_distortion": "L1",
    "victim_robust_accuracy": "victim rob.",
    "thief_robust_accuracy": "thief rob.",
    "transfer_attack_success": "transfer succ.",
}
_DEFENCE_ONLY = ("defended_accuracy", "label_flip_rate", "l1_distortion")


def print_results(results: Results, folder: Path) -> None:
    """Print the summary to stdout, as wide as the terminal allows."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from art_divqat.report import finding

    defended = any(row.defence != "none" for row in results.summary)
    columns = {
        name: title
        for name, title in _COLUMNS.items()
        if (defended or name not in _DEFENCE_ONLY) and any(name in row.metrics for row in results.summary)
    }
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    table = Table(
        title=f"{results.config['dataset']}, {results.config['seeds']} seeds: mean and half of the 95 % interval"
    )
    for title in ("victim", *(["defence"] if defended else []), "attack", "answers", "queries"):
        table.add_column(title, justify="right" if title == "queries" else "left")
    for title in columns.values():
        table.add_column(title, justify="right")
    previous = None
    for row in results.summary:
        group = (row.victim, row.defence, row.attack, row.answers)
        if previous not in (None, group):
            table.add_section()
        previous = group
        table.add_row(*map(Text, _cells(row, list(columns), defended)))
    console.print(table)
    console.print(Text(finding(results)))
    for condition in results.gate.conditions:
        if condition.failed:
            console.print(Text(f"Gate failed: {condition.condition} in {len(condition.where)} of the groups."))
    console.print(Text(f"Report: {folder / 'report.html'}"))


def _cells(row: SummaryRow, columns: list[str], defended: bool) -> list[str]:
    names = [row.victim, *([row.defence] if defended else []), row.attack, row.answers, f"{row.budget:,}"]
    return names + [_number(row.metrics.get(name)) for name in columns]


def _number(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:.3f}"
    half = max(estimate.mean - estimate.low, estimate.high - estimate.mean)
    return f"{estimate.mean:.3f} ±{half:.3f}"
