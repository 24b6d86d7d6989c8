"""The metrics by name, and rows for a terminal."""

from __future__ import annotations

from art_divqat.report.results_view import ResultsView
from art_divqat.report.text import NONE, percent, percent_range, plain, plain_range
from art_divqat.results.schema import Estimate, Results

# name: (heading, whether it is a rate, what it is)
METRICS: dict[str, tuple[str, bool, str]] = {
    "victim_accuracy": ("Victim accuracy", True, "the victim, right on test images"),
    "defended_accuracy": ("Defended accuracy", True, "the victim behind its defence, right on test images"),
    "thief_accuracy": ("Thief accuracy", True, "the thief, right on test images"),
    "agreement": ("Agreement", True, "thief and victim give the same label; the labels that the victim serves"),
    "agreement_clean": ("Agreement, undefended", True, "thief and undefended victim give the same label"),
    "extraction_ratio": ("Extraction ratio", False, "thief accuracy over victim accuracy"),
    "victim_robust_accuracy": ("Victim robust accuracy", True, "the victim under white-box attack"),
    "thief_robust_accuracy": ("Thief robust accuracy", True, "the thief under white-box attack"),
    "transfer_robust_accuracy": ("Transfer robust accuracy", True, "the thief on examples crafted on the victim"),
    "transfer_attack_success": ("Transfer attack success", True, "examples crafted on the thief that fool the victim"),
    "label_flip_rate": ("Labels flipped", True, "served labels that the defence changed"),
    "l1_distortion": ("L1 distortion", False, "Σ|served − true probability| for an answer, from 0 to 2"),
    "kl_divergence": ("KL divergence", False, "of the served from the undefended answers, in nats"),
    "latency_us": ("Latency (µs)", False, "of one answer as it is served, from a few calls"),
}


def heading(metric: str) -> str:
    """The name of a metric as a reader sees it; its own name if it is none of the vocabulary."""
    return METRICS[metric][0] if metric in METRICS else metric


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
    return metric in METRICS and METRICS[metric][1]


def summary_table(results: Results) -> list[dict[str, str]]:
    """One row for every victim and defence at its full budget, against its best attacker (by agreement).

    Keys: victim, defence, attack, answers, budget, then the columns that were measured anywhere, headed as in METRICS.
    Values are text, ready to print.
    """
    view = ResultsView(results)
    best = [row for pair in view.pairs if (row := view.best(*pair, "agreement")) is not None]
    wanted = ("agreement", "thief_accuracy", "extraction_ratio", "victim_robust_accuracy", "thief_robust_accuracy")
    measured = [m for m in (*wanted, "transfer_robust_accuracy") if any(m in row.metrics for row in best)]
    return [
        {
            "victim": row.victim,
            "defence": row.defence,
            "attack": row.attack,
            "answers": row.answers,
            "budget": f"{row.budget:,}",
            **{metric: value_text(metric, row.metrics.get(metric)) for metric in measured},
        }
        for row in best
    ]
