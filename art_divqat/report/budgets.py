"""Budget figures: thief metrics over the number of queries, or side by side where there is one number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from art_divqat.metrics.table import AGREEMENT, compared_by
from art_divqat.report.blocks import Block, Figure, Section
from art_divqat.report.data import curves_csv
from art_divqat.report.plots import MOST_SERIES, Panel, Series, draw_curves, draw_dots
from art_divqat.report.results_view import ResultsView
from art_divqat.report.selection import Attacker, Pair, left_out, most_telling
from art_divqat.report.series import series_table
from art_divqat.report.tables import heading
from art_divqat.report.text import attacker, percent
from art_divqat.results.schema import SummaryRow

_CURVES = compared_by("query_fraction", first=AGREEMENT)
_MOST_PANELS = 3


def curves_section(view: ResultsView) -> Section | None:
    """Agreement and thief accuracy over the budget, or as dots where there is one budget."""
    blocks: list[Block] = []
    for metric in _CURVES:
        if any(metric in row.metrics and row.budget for row in view.summary):
            blocks.append(_curves(view, metric))
    if not blocks:
        return None
    budgets = {row.budget for row in view.summary if row.budget}
    title = "What more queries buy" if len(budgets) > 1 else f"What {max(budgets):,} queries buy"
    return Section("curves", title, blocks)


def _curves(view: ResultsView, metric: str) -> Figure:
    lines: dict[Attacker, dict[Pair, list[SummaryRow]]] = {}
    for row in view.summary:
        if metric in row.metrics and row.budget:
            of_attacker = lines.setdefault((row.attack, row.answers), {})
            of_attacker.setdefault((row.victim, row.defence), []).append(row)
    panels, pairs = most_telling(view, lines, metric, _MOST_PANELS, MOST_SERIES)
    names = {pair: view.pair_name(*pair) for pair in pairs}
    drawn = [
        (
            attacker(*panel),
            [
                Series(
                    names[pair],
                    tuple((r.budget, r.metrics[metric]) for r in sorted(lines[panel][pair], key=lambda r: r.budget)),
                )
                for pair in pairs
                if pair in lines[panel]
            ],
        )
        for panel in panels
    ]
    budgets = sorted({x for _, series in drawn for one in series for x, _ in one.points})
    label = f"{heading(metric)} on test images"
    if len(budgets) > 1:
        draw = partial(draw_curves, drawn, label)
        what = f"{heading(metric)} of the thief over the number of queries; bands are 95 % intervals."
        if any(row.n_seeds > 1 for row in view.summary):
            what += " They show how seeds differ; a comparison by equal seeds is sharper than its bands."
    else:
        dots = [
            (name, [(t, s.points[0][1]) for t, series in drawn for s in series if s.name == name])
            for name in names.values()
        ]
        draw = partial(draw_dots, dots, label)
        what = f"{heading(metric)} of the thief at {budgets[0]:,.0f} queries; whiskers are 95 % intervals."
    what += left_out("attacker", [attacker(*panel) for panel in lines if panel not in panels])
    every = dict.fromkeys(pair for by_pair in lines.values() for pair in by_pair)
    what += left_out("line", [view.pair_name(*pair) for pair in every if pair not in names])
    numbers = series_table(drawn, metric, "Victim", "{:,.0f}".format, f"{heading(metric)} by number of queries")
    data = partial(curves_csv, drawn, metric, "budget")
    return Figure(draw, f"{metric}-over-budget", data, _alt(drawn, metric), what, numbers, fold=True)


def _alt(drawn: Sequence[Panel], metric: str) -> str:
    texts = []
    for title, series in drawn:
        for one in series:
            (first, low), (last, high) = one.points[0], one.points[-1]
            ends = f"{percent(high.mean)} at {last:,.0f} queries"
            if first != last:
                ends = f"{percent(low.mean)} at {first:,.0f} to {ends}"
            texts.append(f"{one.name} ({title}): {ends}")
    return f"{heading(metric)}. " + "; ".join(texts) + "."
