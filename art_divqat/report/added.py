"""What the queries added: first the attacker's own images alone, then the best attacker who also queries."""

from __future__ import annotations

from art_divqat.metrics.table import AGREEMENT, THIEF_ACCURACY
from art_divqat.report.blocks import Section, Table, TableCell, Text
from art_divqat.report.results_view import ResultsView
from art_divqat.report.tables import range_text, value_text
from art_divqat.report.text import (
    NONE,
    attacker,
    clean,
    corrected,
    counted,
    percent,
    percent_range,
    points,
    points_range,
    short_name,
    undecided,
)
from art_divqat.results.schema import Comparison

_METRICS = (THIEF_ACCURACY, AGREEMENT)
_VERDICTS = {"higher": "the queries added to it", "lower": "worse than without queries"}
_MOST_NAMED = 4


def added_section(view: ResultsView) -> Section | None:
    """What an attacker with own images has without a query, and what the queries of the best one add."""
    rows: list[tuple[TableCell, ...]] = []
    for victim, defence in view.pairs:
        alone = view.best(victim, defence, THIEF_ACCURACY, 0)
        budgets = sorted({c.budget for c in view.added(victim, defence, THIEF_ACCURACY)})
        if alone is None or not budgets:
            continue
        name = TableCell(clean(victim), "" if defence == "none" else f"defence {clean(defence)}")
        estimates = ((metric, alone.metrics.get(metric)) for metric in _METRICS)
        measured = (TableCell(value_text(*each), range_text(*each)) for each in estimates)
        without = TableCell(attacker(alone.attack, alone.answers), "what no defence of answers takes away")
        rows.append((name, without, TableCell("0"), *measured, TableCell(NONE), TableCell(NONE)))
        rows += [(name, *_asking(view, victim, defence, budget)) for budget in budgets]
    if not rows:
        return None
    own = view.results.config.get("attacker_images")
    has = counted(own, "image") if isinstance(own, int) else "images"
    tested = ", ".join(f"{view.tested('queries_added', metric):,}" for metric in _METRICS)
    text = (
        f"The attacker has {has} of the victim's own kind. A thief trained on these alone asks the victim nothing, so "
        "that no defence of its answers can take that thief away. What a defence can take away is what the queries "
        "added: the best attacker who asks minus the best who does not, paired by seed and image."
    )
    note = (
        "Added are points of thief accuracy and of agreement, each by the attacker who is best in it. Verdicts are "
        f"corrected by Holm's method for the comparisons of thief accuracy and of agreement in the run ({tested})."
    )
    headings = ("Victim", "Attacker", "Queries", "Thief accuracy", "Agreement", "Accuracy added", "Agreement added")
    table = Table(headings, rows, "", frozenset(range(2, len(headings))), note)
    return Section("added", "What the queries added to the attacker's own images", [Text(text), table])


def _asking(view: ResultsView, victim: str, defence: str, budget: int) -> tuple[TableCell, ...]:
    best = {metric: view.best(victim, defence, metric, budget) for metric in _METRICS}
    leading = best[THIEF_ACCURACY]
    cells = []
    for metric, row in best.items():
        detail = range_text(metric, None if row is None else row.metrics[metric])
        if row is not None and leading is not None and (row.attack, row.answers) != (leading.attack, leading.answers):
            detail += f", {attacker(row.attack, row.answers)}"
        cells.append(TableCell(value_text(metric, None if row is None else row.metrics[metric]), detail))
    cells += [_added_cell(view.added_by_best(victim, defence, metric, budget)) for metric in _METRICS]
    who = NONE if leading is None else attacker(leading.attack, leading.answers)
    return (TableCell(who), TableCell(f"{budget:,}"), *cells)


def _added_cell(c: Comparison | None) -> TableCell:
    if c is None or c.value is None:
        return TableCell(NONE)
    detail = points_range(c.value)
    if c.value.low is not None:
        detail += f": {_VERDICTS.get(c.verdict or '', f'{undecided(c)}, cannot tell')}"
    return TableCell(points(c.value.mean), detail, "bad" if c.verdict == "higher" else "unknown")


def added_clause(view: ResultsView) -> str | None:
    """What the queries of the best attacker added, at the largest budget, against every victim and defence."""
    texts, alone = [], None
    for victim, defence in view.pairs:
        bare = view.best(victim, defence, THIEF_ACCURACY, 0)
        budget = max((c.budget for c in view.added(victim, defence, THIEF_ACCURACY)), default=0)
        c = view.added_by_best(victim, defence, THIEF_ACCURACY, budget)
        if bare is None or c is None or c.value is None:
            continue
        alone = alone or bare
        doubt = ""
        if c.verdict not in ("higher", "lower") and c.value.low is not None:
            doubt = f", cannot be told from zero{corrected(c)}"
        of = f"against {view.victim_name(victim)}"
        of += "" if defence == "none" else f" behind {short_name(defence, view.defences)}"
        interval = f"95 % interval {points_range(c.value)}" if c.value.low is not None else "no interval"
        texts.append(
            f"{points(c.value.mean)} {of} ({attacker(c.attack, c.answers)}, {budget:,} queries; {interval}{doubt})"
        )
    if alone is None:
        return None
    more = f", and {len(texts) - _MOST_NAMED} more below" if len(texts) > _MOST_NAMED else ""
    accuracy = alone.metrics[THIEF_ACCURACY]
    return (
        f"The attacker's own images alone, without a query, give a thief that is right on {percent(accuracy.mean)} of "
        f"test images ({percent_range(accuracy)}), which no defence of answers takes away; what the queries of the "
        f"best attacker add to it: {', '.join(texts[:_MOST_NAMED])}{more}"
    )
