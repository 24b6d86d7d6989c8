"""Claims of arXiv 2207.10561 on adversarially trained victims: judge each by what was measured.

The paper, as published: thief accuracy and agreement up to 1.2 times higher at equal budget, with less than 0.75 of the
queries; and a thief of a robust victim is more accurate on adversarial examples than a thief of a standard one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from art_divqat.metrics.table import AGREEMENT, THIEF_ACCURACY, THIEF_ROBUST_ACCURACY, TRANSFER_ROBUST_ACCURACY
from art_divqat.report.results_view import ResultsView
from art_divqat.report.text import points, points_range, ratio, ratio_range, seeds_to_tell, undecided
from art_divqat.results.schema import Comparison
from art_divqat.victims.registry import known_victim

PAPER = "arXiv 2207.10561"
PAPER_FRACTION = 0.75
ClaimVerdict = Literal["holds", "does not hold", "cannot tell"]

_CLAIMS = {
    ("ratio", THIEF_ACCURACY): "A higher thief accuracy at equal budget (paper: up to 1.2 times)",
    ("ratio", AGREEMENT): "A higher agreement at equal budget (paper: up to 1.2 times)",
    ("query_fraction", THIEF_ACCURACY): "Less than 0.75 of the queries for the same thief accuracy",
    ("query_fraction", AGREEMENT): "Less than 0.75 of the queries for the same agreement",
    ("difference", TRANSFER_ROBUST_ACCURACY): "Robustness transfers: the thief on examples crafted on its victim",
    ("difference", THIEF_ROBUST_ACCURACY): "Robustness transfers: the thief under white-box attack",
    ("curve_difference", TRANSFER_ROBUST_ACCURACY): (
        "Robustness transfers, mean over ε: the thief on examples crafted on its victim"
    ),
    ("curve_difference", THIEF_ROBUST_ACCURACY): (
        "Robustness transfers, mean over ε: the thief under white-box attack"
    ),
}


@dataclass(frozen=True)
class Judged:
    """A claim, the comparison it was judged by, the number as text, and the verdict."""

    claim: str
    comparison: Comparison
    measured: str
    interval: str
    verdict: ClaimVerdict


def is_robust(victim: str) -> bool:
    """Whether the claims are about this victim: one that was adversarially trained, as far as is known here."""
    entry = known_victim(victim)
    return entry is not None and entry.adversarial


def judge_claims(view: ResultsView) -> list[Judged]:
    """Every claim for every adversarially trained victim and attacker, undefended, at the full budget."""
    judged: list[Judged] = []
    for (kind, metric), claim in _CLAIMS.items():
        comparisons = [c for c in view.comparisons(kind, metric) if is_robust(c.victim) and c.defence == "none"]
        full = {v: max((c.budget for c in comparisons if c.victim == v), default=0) for v in view.victims}
        of_claim = [c for c in comparisons if c.budget == full.get(c.victim)]
        curves: dict[tuple[str, str, str], list[Comparison]] = {}
        for c in of_claim:
            if c.epsilon is not None:
                curves.setdefault((c.victim, c.attack, c.answers), []).append(c)
        judged += [
            _judge(claim, c, _along(curves.get((c.victim, c.attack, c.answers), [])))
            for c in of_claim
            if c.epsilon is None
        ]
    return sorted(judged, key=lambda j: view.victims.index(j.comparison.victim))


def _along(of_curve: list[Comparison]) -> str:
    """Where along its curve a difference is told, and where it cannot be."""
    words = {"higher": "higher", "lower": "lower", "cannot tell": "cannot tell"}
    texts = []
    for verdict, word in words.items():
        radii = [f"{c.epsilon:.3g}" for c in of_curve if c.verdict == verdict]
        if radii:
            texts.append(f"{word} at ε = {', '.join(radii)}")
    return "; ".join(texts)


def _judge(claim: str, comparison: Comparison, along: str = "") -> Judged:
    value = comparison.value
    if comparison.kind == "query_fraction":
        return Judged(claim, comparison, *_fraction_text(comparison), judge_fraction(comparison))
    verdict: ClaimVerdict = {"higher": "holds", "lower": "does not hold"}.get(comparison.verdict or "", "cannot tell")  # type: ignore[assignment]
    if value is None:
        return Judged(claim, comparison, "not measured", "", "cannot tell")
    measured, interval = (
        (ratio(value.mean), ratio_range(value))
        if comparison.kind == "ratio"
        else (points(value.mean), points_range(value))
    )
    if value.low is None or value.high is None:
        interval = "no interval from one seed" if comparison.n_seeds == 1 else "no interval"
    elif verdict == "cannot tell":
        interval += f", {undecided(comparison)}{_planned(comparison)}"
    return Judged(claim, comparison, measured, f"{interval}; {along}" if along else interval, verdict)


def _planned(comparison: Comparison) -> str:
    """How many seeds would tell, as the end of what was measured."""
    planned = seeds_to_tell(comparison)
    return f"; {planned}" if planned else ""


def judge_fraction(comparison: Comparison) -> ClaimVerdict:
    """Whether less than 0.75 of the queries were enough; a fraction that is only an upper bound cannot refute it.

    Enough by the interval, and less than all of them by the verdict, which is corrected for the number of comparisons.
    """
    value = comparison.value
    if value is None:
        return (
            "does not hold" if comparison.bound == "not reached" and comparison.verdict == "higher" else "cannot tell"
        )
    if comparison.verdict == "lower" and value.high is not None and value.high < PAPER_FRACTION:
        return "holds"
    if comparison.bound == "exact" and value.low is not None and value.low > PAPER_FRACTION:
        return "does not hold"
    return "cannot tell"


def _fraction_text(comparison: Comparison) -> tuple[str, str]:
    if comparison.value is None:
        return ("not reached" if comparison.bound == "not reached" else "not measured"), seeds_to_tell(comparison)
    prefix = "at most " if comparison.bound == "at most" else ""
    interval = ratio_range(comparison.value)
    low, high = comparison.value.low, comparison.value.high
    if low is not None and low <= PAPER_FRACTION and (high is None or high >= PAPER_FRACTION):
        interval += f", includes {PAPER_FRACTION:g}"
    return f"{prefix}{ratio(comparison.value.mean)}", interval + _planned(comparison)
