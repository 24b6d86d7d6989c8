"""Plots on matplotlib axes, for notebooks: each victim's best attacker, and a thief metric over the budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from art_divqat.errors import UserError, unknown_name
from art_divqat.metrics.table import AGREEMENT, THIEF_ACCURACY
from art_divqat.report.plots import MOST_SERIES, STYLE, Series, dots_on, lines_on
from art_divqat.report.results_view import ResultsView
from art_divqat.report.tables import heading, is_rate
from art_divqat.report.text import attacker, percent, plain, shorten, shorten_apart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from art_divqat.results.schema import Results, SummaryRow

_ROW_INCHES = 0.42
# characters of a line beside the plot
_LABEL = 48


def plot_best(results: Results, ax: Axes | None = None) -> Axes:
    """Agreement and accuracy of the best thief of each victim and defence, at its largest budget, with 95 % intervals.

    :param ax: where to draw; axes of a new figure if not given.
    :return: the axes drawn on.
    :raises UserError: if no cell has finished.
    """
    view = ResultsView(results)
    best = [row for pair in view.pairs if (row := view.best(*pair, AGREEMENT)) is not None]
    if not best:
        raise _nothing(AGREEMENT)
    names = shorten_apart((view.pair_name(row.victim, row.defence) for row in best), _LABEL)
    rows = [
        (
            f"{name}\n{shorten(attacker(row.attack, row.answers), _LABEL)}",
            [(heading(m), view.score(row, m)) for m in (AGREEMENT, THIEF_ACCURACY) if m in row.metrics],
        )
        for name, row in zip(names, best, strict=True)
    ]

    def draw(axis: Axes) -> None:
        handles = dots_on(axis, rows, "Test images")
        axis.legend(
            list(handles.values()), list(handles), loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False
        )

    return _on(ax, draw, (7.6, 1.2 + _ROW_INCHES * len(rows)))


def plot_budget_curves(
    results: Results,
    metric: str = AGREEMENT,
    *,
    attack: str | None = None,
    answers: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A metric of the thief over the number of queries, a line for each victim and defence, with 95 % bands.

    :param metric: as results.json names it, such as `agreement` or `thief_accuracy`.
    :param attack: the attack to show; where there are several, the best against each victim at its largest budget.
    :param answers: what the attacker uses, such as `soft` or `hard`; likewise.
    :param ax: where to draw; axes of a new figure if not given.
    :return: the axes drawn on.
    :raises UserError: for a metric, an attack or answers that are not among the results.
    """
    view = ResultsView(results)
    asked = [row for row in view.summary if row.budget]
    for name, wanted in (("attack", attack), ("answers", answers)):
        known = {getattr(row, name) for row in asked}
        if wanted is not None and known and wanted not in known:
            raise unknown_name("attack" if name == "attack" else "kind of answers", wanted, known)
        asked = [row for row in asked if wanted in (None, getattr(row, name))]
    measured = {name for row in asked for name in row.metrics}
    if not measured:
        raise _nothing(metric)
    if metric not in measured:
        raise unknown_name("metric", metric, measured)
    lines = _best_lines(view, [row for row in asked if metric in row.metrics], metric)

    def draw(axis: Axes) -> None:
        handles = lines_on(axis, lines)
        axis.set_ylabel(heading(metric))
        axis.yaxis.set_major_formatter(lambda value, _: percent(value, 0) if is_rate(metric) else plain(value))
        axis.legend(list(handles.values()), list(handles), frameon=False)

    return _on(ax, draw, (7.6, 4.0))


def _best_lines(view: ResultsView, rows: list[SummaryRow], metric: str) -> list[Series]:
    """Of each victim and defence the curve of the attacker that does best at the largest budget."""
    lines = []
    for pair in view.pairs:
        of_pair = [row for row in rows if (row.victim, row.defence) == pair]
        if of_pair:
            best = max(of_pair, key=lambda row: (row.budget, row.metrics[metric].mean))
            curve = [row for row in of_pair if (row.attack, row.answers) == (best.attack, best.answers)]
            points = tuple((row.budget, row.metrics[metric]) for row in sorted(curve, key=lambda row: row.budget))
            lines.append(Series(f"{view.pair_name(*pair)}, {attacker(best.attack, best.answers)}", points))
    return lines[:MOST_SERIES]


def _nothing(metric: str) -> UserError:
    return UserError(f"No thief has a value of {metric!r} yet: let the run finish a cell, then load it again.")


def _on(ax: Axes | None, draw: Callable[[Any], None], size: tuple[float, float]) -> Axes:
    import matplotlib

    figure = None
    if ax is None:
        from matplotlib import pyplot

        # not in the context: a notebook's backend is loaded with the first figure and turns interactive mode on, which
        # the end of the context would take back, and no later figure be shown
        figure = pyplot.figure(figsize=size, layout="constrained")
    with matplotlib.rc_context(STYLE):
        if figure is not None:
            ax = figure.subplots()
        draw(ax)
    assert ax is not None
    return ax
