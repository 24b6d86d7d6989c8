"""`--dry-run`: what a run would do."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from art_divqat.plan.config import EvaluateConfig


def show_plan(wanted: EvaluateConfig, *, json_output: bool) -> None:
    """Print the plan of a configuration; nothing is written, no model is read and no endpoint is asked."""
    from art_divqat.audit.estimate import estimate
    from art_divqat.plan.presets import resolve

    resolved, found = resolve(wanted), estimate(wanted)
    if json_output:
        sys.stdout.write(json.dumps({"config": resolved.for_results(), "plan": found.as_dict()}, indent=2) + "\n")
        return
    rows = [
        ("data", f"{resolved.dataset}, queries from {resolved.query_pool}"),
        ("victims", ", ".join(resolved.victims)),
        ("defences", ", ".join(resolved.defences)),
        ("attacks", f"{', '.join(resolved.attacks)}; answers {', '.join(resolved.answers)}"),
        ("budgets", f"{', '.join(f'{budget:,}' for budget in resolved.budgets)}; {found.seeds} seeds"),
        ("cells", f"{found.cells:,}"),
        ("queries", f"{found.attack_queries:,} by all attackers together"),
    ]
    if found.endpoint_queries is not None:
        rows.append(
            ("endpoint", f"asked for at most {found.endpoint_queries:,} images, those of the evaluation included")
        )
    rows.append(("time", f"about {_duration(found.seconds)} with {found.jobs} side by side; nothing was run"))
    for name, text in rows:
        typer.echo(f"{name:<9} {text}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
