"""Figures of robust accuracy over ε: for a victim and its baseline, and for the thieves of both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from art_divqat.metrics.table import THIEF_ROBUST_ACCURACY as _THIEF
from art_divqat.metrics.table import TRANSFER_ROBUST_ACCURACY as _CROSSING
from art_divqat.metrics.table import VICTIM_ROBUST_ACCURACY as _VICTIM
from art_divqat.report.blocks import Figure
from art_divqat.report.data import curves_csv
from art_divqat.report.plots import Panel, Series, draw_curves
from art_divqat.report.results_view import ResultsView
from art_divqat.report.series import series_table
from art_divqat.report.tables import heading
from art_divqat.report.text import attacker, percent
from art_divqat.results.schema import CurveEstimate

_MOST_VICTIMS, _OF_MANY = 5, 2
_MOST_PANELS = 3


def curved(victims: Sequence[str]) -> Sequence[str]:
    """The victims whose curves are drawn: all if they are few, else the first ones; results.json has all numbers."""
    return victims if len(victims) <= _MOST_VICTIMS else victims[:_OF_MANY]


def epsilon_figures(view: ResultsView, victim: str, baseline: str | None, defence: str = "none") -> list[Figure]:
    """The curves of a victim and its baseline under attack, of their thieves, and of what crosses; none if unmeasured.

    At the largest budget, for the attackers whose thieves agree most.
    """
    victims = [name for name in (baseline, victim) if name]
    rows = {(r.attack, r.answers, v): r for v in victims for r in view.rows(v, defence) if r.curves}
    attackers = list(dict.fromkeys((attack, answers) for attack, answers, _ in rows))
    strongest = sorted(attackers, key=lambda a: -max(view.agreement(rows.get((*a, v))) for v in victims))[:_MOST_PANELS]
    shown = [a for a in attackers if a in strongest]
    networks = {v: view.the_victim(v).removeprefix("the ") for v in victims}
    thieves = {v: f"thief of {view.victim_name(v)}" for v in victims}

    def panels(*lines: tuple[str, dict[str, str]]) -> list[Panel]:
        filled: list[Panel] = []
        for attack, answers in shown:
            series = [
                Series(names[v], _points(row.curves[metric]))
                for metric, names in lines
                for v in victims
                if (row := rows.get((attack, answers, v))) is not None and metric in row.curves
            ]
            if series:
                filled.append((attacker(attack, answers), series))
        return filled

    white_box = panels((_VICTIM, networks), (_THIEF, thieves))
    crossing = panels((_CROSSING, thieves))
    figures = []
    if white_box:
        what = "Robust accuracy over ε: images on which no attack within ε, smaller ones included, succeeded"
        figures.append(_figure(white_box, what, "Robust accuracy", _VICTIM))
    if crossing:
        what = "Thieves over ε on examples that were crafted on their own victim"
        figures.append(_figure(crossing, what, heading(_CROSSING), _CROSSING))
    return figures


def _points(curve: Sequence[CurveEstimate]) -> tuple[tuple[float, CurveEstimate], ...]:
    return tuple((point.epsilon, point) for point in curve)


def _figure(panels: Sequence[Panel], what: str, label: str, metric: str) -> Figure:
    draw = partial(
        draw_curves, panels, label, xlabel="ε, in units of [0, 1] pixels", x_text=lambda value: f"{value:.3g}"
    )
    text = "; ".join(
        f"{line.name} ({title}): " + ", ".join(f"{percent(e.mean)} at {x:.3g}" for x, e in line.points)
        for title, series in panels
        for line in series
    )
    numbers = series_table(panels, metric, "Network", "ε = {:.3g}".format, f"{label} over ε")
    data = partial(curves_csv, panels, metric, "epsilon")
    return Figure(
        draw,
        f"{metric}-over-epsilon",
        data,
        f"{what}. {text}.",
        f"{what}; bands are 95 % intervals.",
        numbers,
        fold=True,
    )
