"""Evidence sections of a report: tables and figures of what was measured."""

from __future__ import annotations

from functools import partial

from art_divqat.metrics.table import METRICS, VICTIM_ACCURACY, select
from art_divqat.report.blocks import Block, Bullets, Figure, Section, Table, TableCell, Text, Tone
from art_divqat.report.claims import judge_claims
from art_divqat.report.data import dots_csv
from art_divqat.report.epsilon import curved, epsilon_figures
from art_divqat.report.plots import Dots, draw_dots
from art_divqat.report.rating import Thresholds, rate_row
from art_divqat.report.results_view import DefenceEffect, ResultsView
from art_divqat.report.selection import strongest_rows
from art_divqat.report.tables import heading, range_text, value_text
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
    ratio,
    ratio_range,
    seeds_to_tell,
    undecided,
    used,
)
from art_divqat.results.doubts import control_row
from art_divqat.results.probes import is_probe
from art_divqat.results.schema import Comparison, SummaryRow

_ROBUSTNESS = select(lambda metric: metric.images == "evasion")
_COSTS = (VICTIM_ACCURACY, *select(lambda metric: metric.cost))
# comparisons that are no thief's, or follow from two others; side by side they stand in the claims
_OF_VICTIMS = select(lambda metric: metric.subject == "victim" or metric.quotient_of is not None)
_ONLY_DEFENDED = select(lambda metric: metric.only_defended)
_MOST_DOTS = 12
_OF_AUDITS = (
    " A model that was not stolen is rated so only where the same attackers steal the control, an undefended model "
    "trained here on the same data, and nothing else speaks against it; else the rating is inconclusive."
)
_OF_PROBES = (
    "thief=linear: a linear classifier, fitted to the same images and answers, which did better than the network that "
    "was trained on them."
)
_OF_HALVES = (
    "The best attacker is chosen on one half of the test images and measured on the other: its figures may differ from "
    "those in other tables."
)
# of a table on a page; results.json has all
_MOST_ROWS = 300


def metric_cell(metric: str, row: SummaryRow) -> TableCell:
    """A metric and its interval as a cell."""
    estimate = row.metrics.get(metric)
    return TableCell(value_text(metric, estimate), range_text(metric, estimate))


def comparison_section(view: ResultsView) -> Section | None:
    """Every victim against its baseline, at every budget: what thieves get of them."""
    comparisons = [
        c
        for kind in ("ratio", "difference", "query_fraction")
        for c in view.comparisons(kind)
        if c.metric not in _OF_VICTIMS
    ]
    if not comparisons:
        return None
    columns = list(dict.fromkeys((c.kind, c.metric) for c in comparisons))
    groups: dict[tuple[str | int, ...], dict[tuple[str, str], Comparison]] = {}
    for c in comparisons:
        key = (c.victim, c.baseline or "", c.defence, c.attack, c.answers, c.budget)
        groups.setdefault(key, {})[(c.kind, c.metric)] = c
    labels = {"ratio": "ratio of", "difference": "difference in", "query_fraction": "queries for the same"}
    rows = []
    # the largest budgets first, if not all can be shown
    shown = list(groups.items())
    if len(shown) > _MOST_ROWS:
        shown = sorted(shown, key=lambda item: -int(item[0][-1]))[:_MOST_ROWS]
    for (victim, baseline, defence, attack, answers, budget), by_column in shown:
        names = TableCell(clean(str(victim)), f"over {clean(str(baseline))}")
        how = TableCell(
            attacker(str(attack), str(answers)), "" if defence == "none" else f"defence {clean(str(defence))}"
        )
        values = [compared_cell(by_column.get(column)) for column in columns]
        rows.append((names, how, TableCell(f"{budget:,}"), *values))
    headings = (
        "Victim",
        "Attacker",
        "Queries",
        *(f"{labels[k]} {heading(m).lower()}".capitalize() for k, m in columns),
    )
    note = (
        "Ratios and fractions are against 1, differences against zero, paired by seed. An interval where nothing can "
        "be told is marked. Verdicts are corrected by Holm's method for the comparisons of a column at the largest "
        "budget, and those at smaller budgets among themselves: "
        + ", ".join(f"{labels[k]} {heading(m).lower()} {view.tested(k, m):,}" for k, m in columns)
        + ". The fraction of queries is of the largest budget."
    )
    note += _left_out(len(groups))
    table = Table(headings, rows, "", frozenset(range(2, len(headings))), note)
    return Section("comparison", "Each victim against its baseline", [table])


def _left_out(rows: int) -> str:
    return f" Of {rows:,} rows {_MOST_ROWS:,} are shown; results.json has all." if rows > _MOST_ROWS else ""


def compared_cell(c: Comparison | None) -> TableCell:
    """A ratio or difference with its interval, and whether that includes no difference."""
    if c is None:
        return TableCell(NONE)
    if c.value is None:
        return TableCell("not reached" if c.bound == "not reached" else "not measured")
    value, interval = (
        (points(c.value.mean), points_range(c.value))
        if c.kind == "difference"
        else (ratio(c.value.mean), ratio_range(c.value))
    )
    if c.bound == "at most":
        value = f"at most {value}"
    if c.verdict == "cannot tell" and c.value.low is not None:
        interval += f", {undecided(c)}"
    return TableCell(value, interval)


def robustness_section(view: ResultsView) -> Section | None:
    """Robust accuracy of victims and thieves, and what crosses from one to the other."""
    rows = [r for pair in view.pairs for r in view.rows(*pair) if any(m in r.metrics for m in _ROBUSTNESS)]
    if not rows:
        return None
    columns = [m for m in _ROBUSTNESS if any(m in r.metrics for r in rows)]
    table = Table(
        ("Victim", "Attacker", "Queries", *(heading(m) for m in columns)),
        [
            (
                TableCell(view.pair_name(r.victim, r.defence)),
                TableCell(attacker(r.attack, r.answers)),
                TableCell(f"{r.budget:,}"),
                *(metric_cell(m, r) for m in columns),
            )
            for r in rows[:_MOST_ROWS]
        ],
        "Robust accuracy of the victim, of the thief, and across",
        frozenset(range(2, 3 + len(columns))),
        "; ".join(f"{heading(m)}: {METRICS[m].meaning}" for m in columns) + "." + _left_out(len(rows)),
    )
    blocks: list[Block] = [
        Text(
            "An attacker may steal a model to have something to practise on: examples crafted on the thief that also "
            "fool the victim. And a thief may inherit the robustness that its victim was trained for."
        )
    ]
    rates = columns[:3]
    dots: list[Dots] = []
    plotted = strongest_rows(view, rows, _MOST_DOTS)
    for row in plotted:
        name = f"{view.pair_name(row.victim, row.defence)}, {row.answers}"
        if len({r.attack for r in rows}) > 1:
            name = f"{view.pair_name(row.victim, row.defence)}, {row.attack} {row.answers}"
        if rates_of_row := [(heading(m), row.metrics[m]) for m in rates if m in row.metrics]:
            dots.append((name, rates_of_row))
    if dots:
        text = "; ".join(f"{n}: " + ", ".join(f"{k.lower()} {percent(e.mean)}" for k, e in d) for n, d in dots)
        caption = "Accuracy under attack at the largest budget; whiskers are 95 % intervals."
        if len(plotted) < len(rows):
            caption += f" Shown are {len(plotted)} of {len(rows):,}, the best attackers; the table has the others."
        draw = partial(draw_dots, dots, "Accuracy under attack")
        data = partial(dots_csv, dots)
        blocks.append(Figure(draw, "accuracy-under-attack", data, f"{caption} {text}.", caption, table))
    else:
        blocks.append(table)
    shown = {name for j in judge_claims(view) for name in (j.comparison.victim, j.comparison.baseline)}
    left = [victim for victim in view.victims if victim not in shown]
    for victim in curved(left):
        blocks += epsilon_figures(view, victim, None)
    return Section("robustness", "Does robustness travel?", blocks)


def best_section(view: ResultsView, thresholds: Thresholds) -> Section | None:
    """The score of a defence is its best attacker."""
    rows: list[tuple[TableCell, ...]] = []
    differs = False
    for pair in view.pairs:
        best = view.best(*pair, "agreement")
        if best is None:
            continue
        agreement = view.score(best, "agreement")
        rating = rate_row(view, best, thresholds)
        accurate = view.best(*pair, "thief_accuracy")
        differs = differs or _differs(view, best, "agreement") or _differs(view, accurate, "thief_accuracy")
        rows.append(
            (
                TableCell(clean(pair[0]), "" if pair[1] == "none" else f"defence {clean(pair[1])}"),
                TableCell(attacker(best.attack, best.answers), f"{best.budget:,} queries"),
                TableCell(value_text("agreement", agreement), range_text("agreement", agreement)),
                TableCell(NONE)
                if accurate is None
                else TableCell(
                    value_text("thief_accuracy", view.score(accurate, "thief_accuracy")), _by(view, accurate, best)
                ),
                TableCell(rating.name, "; ".join(rating.doubts) or thresholds.doubt(agreement), rating.tone),
            )
        )
    if not rows:
        return None
    rows += _control_rows(view, thresholds)
    notes = [_OF_PROBES] if any(is_probe(row.attack) for row in view.summary) else []
    notes += [_OF_HALVES] if differs else []
    blocks: list[Block] = [
        Text(
            "The score of a defence is its best attacker: an attacker who is stopped one way will try the other. The "
            f"rating is agreement above {percent(thresholds.vulnerable, 0)} vulnerable, above "
            f"{percent(thresholds.warning, 0)} warning, below that desired (OWASP AITG-APP-09)."
            + (_OF_AUDITS if view.is_audit else "")
        ),
        Table(
            ("Victim", "Best attacker", "Agreement", "Highest thief accuracy", "Rating"),
            rows[:_MOST_ROWS],
            "",
            frozenset({2, 3}),
            " ".join(notes),
        ),
    ]
    if effects := _effects(view):
        tested = counted(view.tested("defence_effect", "thief_accuracy"), "comparison")
        blocks.append(
            Text(
                "What each defence does to the best thief, and to the thief with each kind of answers; whether it can "
                f"be told from zero is corrected by Holm's method for the {tested} of thief accuracy at the largest "
                "budget:"
            )
        )
        blocks.append(effects)
    return Section("best-attacker", "Best attacker against each victim and defence", blocks)


def _differs(view: ResultsView, row: SummaryRow | None, metric: str) -> bool:
    """Whether the best attacker's figure is not, as it is written, the one of the same attacker in other tables."""
    if row is None:
        return False
    shown, plain = view.score(row, metric), row.metrics[metric]
    return (value_text(metric, shown), range_text(metric, shown)) != (
        value_text(metric, plain),
        range_text(metric, plain),
    )


def _control_rows(view: ResultsView, thresholds: Thresholds) -> list[tuple[TableCell, ...]]:
    """What the best attacker got of the undefended model that was trained here beside an audited one."""
    budget = max((row.budget for row in view.summary), default=0)
    best = control_row(view.results, budget) if view.is_audit else None
    if best is None or best.victim in view.victims:
        return []
    agreement = view.score(best, "agreement")
    stolen = agreement.mean > thresholds.warning
    what = f"{clean(best.victim)}, {clean(str(view.results.config.get('model')))}, trained here, undefended"
    return [
        (
            TableCell("control", what),
            TableCell(attacker(best.attack, best.answers), f"{best.budget:,} queries"),
            TableCell(value_text("agreement", agreement), range_text("agreement", agreement)),
            metric_cell("thief_accuracy", best),
            TableCell("stolen" if stolen else "not stolen", "", "plain" if stolen else "warn"),
        )
    ]


def _by(view: ResultsView, row: SummaryRow, best: SummaryRow) -> str:
    interval = percent_range(view.score(row, "thief_accuracy"))
    same = (row.attack, row.answers) == (best.attack, best.answers)
    return interval if same else f"{interval}, {attacker(row.attack, row.answers)}"


def _effects(view: ResultsView) -> Table | None:
    rows = []
    kinds = list(dict.fromkeys(row.answers for row in view.summary if row.budget))
    for victim in view.victims:
        for defence in view.defences:
            if defence == "none" or view.defence_effect(victim, defence, "thief_accuracy") is None:
                continue
            effects = (view.defence_effect(victim, defence, "thief_accuracy", answers) for answers in (None, *kinds))
            cells = [TableCell(NONE) if effect is None else _effect_cell(effect) for effect in effects]
            rows.append((TableCell(clean(victim)), TableCell(clean(defence)), *cells))
    if not rows:
        return None
    headings = ("Victim", "Defence", "Best thief", *(f"Best with {clean(k)} answers" for k in kinds))
    caption = "Change of thief accuracy by the defence"
    return Table(headings, rows[:_MOST_ROWS], caption, frozenset(range(2, len(headings))))


def _effect_cell(effect: DefenceEffect) -> TableCell:
    """The change of the attacker that is best under the defence; who that is, where another one is best without it."""
    who = attacker(effect.defended.attack, effect.defended.answers)
    comparison = effect.comparison
    if comparison is None or comparison.value is None:
        return TableCell(NONE, f"{who}, the best thief under it, was not compared with itself without it", "unknown")
    detail = points_range(comparison.value)
    if effect.verdict == "cannot tell":
        planned = seeds_to_tell(comparison)
        detail += f", cannot be told from zero{corrected(comparison)}{f' ({planned})' if planned else ''}"
    if not effect.one_attacker:
        other = effect.best_without
        detail += (
            f"; of {who}, the best thief under it; without it {attacker(other.attack, other.answers)} is the best, "
            f"with {percent(other.metrics['thief_accuracy'].mean)}"
        )
    tone: Tone = "good" if effect.verdict == "lower" else "bad" if effect.verdict == "higher" else "unknown"
    return TableCell(points(comparison.value.mean), detail, tone)


def cost_section(view: ResultsView) -> Section | None:
    """What each defence costs those who use the model rightly."""
    rows: list[tuple[TableCell, ...]] = []
    columns = [m for m in _COSTS if any(m in r.metrics for r in view.summary)]
    defended = {victim for victim, defence in view.pairs if defence != "none"}
    for victim, defence in view.pairs:
        if victim not in defended:
            continue
        with_costs = view.rows(victim, defence)
        first = {m: next((r for r in with_costs if m in r.metrics), None) for m in columns}
        cells = [TableCell(NONE) if (row := first[m]) is None else metric_cell(m, row) for m in columns]
        rows.append((TableCell(clean(defence)), TableCell(clean(victim)), *cells))
    if not rows:
        return None
    table = Table(
        ("Defence", "Victim", *(heading(m) for m in columns)),
        rows[:_MOST_ROWS],
        "",
        frozenset(range(2, 2 + len(columns))),
        "; ".join(f"{heading(m)}: {METRICS[m].meaning}" for m in columns) + ".",
    )
    return Section("costs", "What each defence costs", [table])


def groups_section(view: ResultsView) -> Section | None:
    """Everything that was measured, one row for each group of seeds."""
    summary = view.results.summary
    if not summary:
        return None
    names = list(dict.fromkeys(m for row in summary for m in row.metrics))
    columns = [m for m in METRICS if m in names] + [m for m in names if m not in METRICS]
    twice = _ONLY_DEFENDED if view.defences == ["none"] else ()
    shown = [m for m in columns if m not in _COSTS[1:] and m not in twice][:9]
    rows = [
        (
            TableCell(clean(r.victim), "" if r.defence == "none" else f"defence {clean(r.defence)}"),
            TableCell(clean(r.attack), used(r.answers)),
            TableCell(f"{r.budget:,}", counted(r.n_seeds, "seed")),
            *(metric_cell(m, r) for m in shown),
        )
        for r in summary[:_MOST_ROWS]
    ]
    note = "Each number with its 95 % interval: over seeds and test images, or over test images alone with one seed."
    note += _left_out(len(summary))
    table = Table(
        ("Victim", "Attack", "Queries", *(heading(m) for m in shown)),
        rows,
        "",
        frozenset(range(2, 3 + len(shown))),
        note,
    )
    glossary = Bullets([f"{heading(m)}: {METRICS[m].meaning}" for m in shown if m in METRICS])
    return Section("all-results", "All results", [table, glossary])
