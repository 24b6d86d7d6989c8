"""`--dry-run`: print the plan of a run."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from art_divqat.plan.config import ResolvedConfig


def show_plan(config: ResolvedConfig, *, json_output: bool) -> None:
    """Print the plan of a configuration; nothing is written, no model is read and no endpoint is asked for answers."""
    from art_divqat.audit.estimate import estimate
    from art_divqat.report.text import clean

    plan = estimate(config)
    if json_output:
        sys.stdout.write(json.dumps({"config": config.for_results(), "plan": plan.as_dict()}, indent=2) + "\n")
        return
    most = "until decided, at most " if config.seeds == "auto" else ""
    rows = [
        ("data", f"{config.dataset}, queries from {config.query_pool}"),
        *(("images" if number == 0 else "", clean(note)) for number, note in enumerate(plan.data_notes)),
        ("victims", ", ".join(map(str, config.victims))),
        ("defences", ", ".join(map(str, config.defences))),
        ("attacks", f"{', '.join(map(str, config.attacks))}; answers {', '.join(config.answers)}"),
        ("budgets", f"{', '.join(f'{budget:,}' for budget in config.budgets)}; {most}{plan.seeds} seeds"),
        ("cells", f"{plan.cells:,}"),
        ("queries", f"{plan.attack_queries:,} by all attackers together"),
    ]
    if plan.endpoint_queries is not None:
        rows.append(
            ("endpoint", f"asked for at most {plan.endpoint_queries:,} images, those of the evaluation included")
        )
    rows.append(("time", f"about {_duration(plan.seconds)} with {plan.jobs} side by side; nothing was run"))
    for name, text in rows:
        typer.echo(f"{name:<9} {text}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
