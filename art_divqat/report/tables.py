"""Metrics as text: headings, values in their own unit, and rows for a terminal."""

from __future__ import annotations

from art_divqat.metrics.table import AGREEMENT, METRICS, select
from art_divqat.report.results_view import ResultsView
from art_divqat.report.text import NONE, percent, percent_range, plain, plain_range
from art_divqat.results.schema import Estimate, Results

_SUMMARISED = select(lambda metric: metric.summarised, first=AGREEMENT)


def heading(metric: str) -> str:
    """The name of a metric as a reader sees it; its own name if it is none of the vocabulary."""
    return METRICS[metric].heading if metric in METRICS else metric


def value_text(metric: str, estimate: Estimate | None) -> str:
    """The mean of a metric in its own unit."""
    if estimate is None:
        return NONE
    return percent(estimate.mean) if is_rate(metric) else plain(estimate.mean)


def range_text(metric: str, estimate: Estimate | None) -> str:
    """The interval of a metric in its own unit; empty if the metric is absent."""
    if estimate is None:
        return ""
    return percent_range(estimate) if is_rate(metric) else plain_range(estimate)


def is_rate(metric: str) -> bool:
    """Whether the metric is a fraction in [0, 1]."""
    return metric in METRICS and METRICS[metric].is_rate


def summary_table(results: Results) -> list[dict[str, str]]:
    """One row for every victim and defence at its full budget, against its best attacker (by agreement).

    Keys: victim, defence, attack, answers, budget, then the columns that were measured anywhere, by name.
    Values are text, ready to print.
    """
    view = ResultsView(results)
    best = [row for pair in view.pairs if (row := view.best(*pair, AGREEMENT)) is not None]
    columns = [m for m in _SUMMARISED if any(m in row.metrics for row in best)]
    return [
        {
            "victim": row.victim,
            "defence": row.defence,
            "attack": row.attack,
            "answers": row.answers,
            "budget": f"{row.budget:,}",
            **{metric: value_text(metric, row.metrics.get(metric)) for metric in columns},
        }
        for row in best
    ]
