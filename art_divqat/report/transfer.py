"""Robustness-transfer section: compare standard and robust victims, judge the paper's claims, draw curves over ε."""

from __future__ import annotations

from art_divqat.metrics.table import select
from art_divqat.report.blocks import Block, Section, Table, TableCell, Text, Tone
from art_divqat.report.claims import PAPER, Judged, judge_claims
from art_divqat.report.epsilon import curved, epsilon_figures
from art_divqat.report.evidence import compared_cell, metric_cell
from art_divqat.report.results_view import ResultsView
from art_divqat.report.seeds import level_text
from art_divqat.report.tables import heading
from art_divqat.report.text import NONE, attacker, clean, counted, short_name

_VERDICT_TONES: dict[str, Tone] = {"holds": "note", "does not hold": "outline", "cannot tell": "unknown"}
_SIDE_BY_SIDE = select(lambda metric: not metric.cost and not metric.only_defended)


def claims_section(view: ResultsView) -> Section | None:
    """The paper's claims, if an adversarially trained victim stands beside its baseline."""
    judged = judge_claims(view)
    if not judged:
        return None
    blocks: list[Block] = [
        Text(
            f"The published study ({PAPER}) claims that adversarially trained models are easier to steal and that "
            f"robustness transfers to the thief. A claim holds here if a test at the {level_text(view.results)} level "
            "puts the truth on the claimed side of no difference, does not hold if it puts it on the other side, and "
            "cannot be told otherwise. The tests are corrected by Holm's method for all comparisons of one kind "
            f"and metric at the largest budget ({_tested(view, judged)}), so that a 95 % interval may leave out no "
            "difference and the claim not be told. How many seeds would tell is planned for a difference as large as "
            "measured, to be told from none with a probability of 80 %. "
            "Whether robustness transfers is judged at the ε of the run and by the mean over all ε of the curves; at "
            "small ε a difference is also one of plain accuracy."
        )
    ]
    victims = list(dict.fromkeys(j.comparison.victim for j in judged))
    drawn = curved(victims)
    for victim in victims:
        mine = [j for j in judged if j.comparison.victim == victim]
        first = mine[0].comparison
        rows = [
            (
                TableCell(j.claim),
                TableCell(attacker(j.comparison.attack, j.comparison.answers)),
                TableCell(j.measured, j.interval),
                TableCell(j.verdict, tone=_VERDICT_TONES[j.verdict]),
            )
            for j in _by_claim(mine)
        ]
        caption = (
            f"{clean(victim)} against {clean(first.baseline or '')}, {first.budget:,} queries, "
            f"{counted(first.n_seeds, 'seed')}"
        )
        if first.baseline is not None:
            blocks.append(_side_by_side(view, first.victim, first.baseline))
        blocks.append(Table(("Claim", "Attacker", "Measured", "Verdict"), rows, caption, frozenset({2})))
        if victim in drawn:
            blocks += epsilon_figures(view, victim, first.baseline)
    if more := len(victims) - len(drawn):
        left = counted(more, "more victim")
        blocks.append(Text(f"Curves over ε are drawn for {len(drawn)} victims; those of {left} are in results.json."))
    return Section("claims", "Are robust models easier to steal?", blocks)


def _tested(view: ResultsView, judged: list[Judged]) -> str:
    """How many comparisons the verdicts are corrected for: from the least to the most."""
    numbers = [view.tested(kind, metric) for kind, metric in {(j.comparison.kind, j.comparison.metric) for j in judged}]
    low, high = min(numbers), max(numbers)
    return counted(high, "comparison") if low == high else f"{low:,} to {high:,} comparisons"


def _by_claim(judged: list[Judged]) -> list[Judged]:
    order = list(dict.fromkeys(j.claim for j in judged))
    return sorted(judged, key=lambda j: order.index(j.claim))


def _side_by_side(view: ResultsView, victim: str, baseline: str) -> Table:
    """Everything measured of both at the largest budget, undefended: one row for each attacker and metric."""
    ours, theirs = ({(row.attack, row.answers): row for row in view.rows(name, "none")} for name in (victim, baseline))
    comparisons = {
        (c.attack, c.answers, c.metric): c
        for kind in ("ratio", "difference")
        for c in view.comparisons(kind)
        if (c.victim, c.baseline, c.defence) == (victim, baseline, "none")
        and c.budget == ours[c.attack, c.answers].budget
    }
    rows = []
    for name in (name for name in ours if name in theirs):
        for metric in _SIDE_BY_SIDE:
            if metric in ours[name].metrics and metric in theirs[name].metrics:
                compared = comparisons.get((*name, metric))
                rows.append(
                    (
                        TableCell(heading(metric)),
                        TableCell(attacker(*name)),
                        metric_cell(metric, theirs[name]),
                        metric_cell(metric, ours[name]),
                        TableCell(NONE) if compared is None else compared_cell(compared),
                    )
                )
    names = [short_name(name, view.victims) for name in (baseline, victim)]
    budget = max((row.budget for row in ours.values()), default=0)
    return Table(
        ("Measured", "Attacker", *names, "Compared"),
        rows,
        f"{names[0].capitalize()} against {names[1]}, {budget:,} queries",
        frozenset({2, 3, 4}),
        "Compared: a ratio for the thief's accuracy, agreement and extraction ratio, a difference for the victim's "
        "accuracy and for what is measured under attack.",
    )
