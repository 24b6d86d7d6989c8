"""CSV text of rows: numbers as they are, texts safe in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from art_divqat.report.plots import Dots, Panel
from art_divqat.report.text import clean
from art_divqat.results.schema import Estimate


def csv_text(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Headings and rows as CSV. A text that a spreadsheet would run as a formula gets an apostrophe in front, as OWASP
    advises.

    >>> csv_text(["name", "value"], [["=1+1", 0.5], ["b", None]])
    "name,value\\n'=1+1,0.5\\nb,\\n"
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in (headings, *rows):
        writer.writerow([_safe(value) if isinstance(value, str) else value for value in row])
    return out.getvalue()


def curves_csv(panels: Sequence[Panel], metric: str, place: str) -> str:
    """The numbers of a plot of curves, a row a point.

    :param place: what stands on the x axis.
    """
    rows = (
        (title, line.name, x, *_ends(estimate))
        for title, series in panels
        for line in series
        for x, estimate in line.points
    )
    return csv_text(("attacker", "line", place, metric, f"{metric}.low", f"{metric}.high"), rows)


def dots_csv(dots: Sequence[Dots]) -> str:
    """The numbers of a plot of dots, a row a dot."""
    rows = ((name, kind, *_ends(estimate)) for name, of_name in dots for kind, estimate in of_name)
    return csv_text(("line", "metric", "value", "value.low", "value.high"), rows)


def _ends(estimate: Estimate) -> tuple[float, float | None, float | None]:
    return estimate.mean, estimate.low, estimate.high


def _safe(text: str) -> str:
    text = clean(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
