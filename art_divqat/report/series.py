"""Tables of plotted series: the numbers behind a plot of curves, which fold out under it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from art_divqat.report.blocks import Table, TableCell
from art_divqat.report.plots import Panel
from art_divqat.report.tables import range_text, value_text


def series_table(
    panels: Sequence[Panel],
    metric: str,
    first_heading: str,
    column: Callable[[float], str],
    caption: str,
) -> Table:
    """A row for each line of each panel, a column for each place on the x axis; every value with its interval.

    :param panels: attacker and lines.
    :param column: the heading of a column from its place.
    """
    places = sorted({x for _, series in panels for line in series for x, _ in line.points})
    rows = []
    for title, series in panels:
        for line in series:
            at = dict(line.points)
            values = [TableCell(value_text(metric, at.get(x)), range_text(metric, at.get(x))) for x in places]
            rows.append((TableCell(line.name), TableCell(title), *values))
    headings = (first_heading, "Attacker", *(column(x) for x in places))
    return Table(headings, rows, caption, frozenset(range(2, len(headings))))
