"""Plots: draw SVG text, deterministic, without pyplot, safe for colour-blind readers and for grey printers."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from art_divqat.report.text import shorten_apart
from art_divqat.results.schema import Estimate

# Okabe and Ito's palette, its darker colours first: distinct to every kind of colour vision, and by marker in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#8A4F7D", "#56B4E9", "#B8860B", "#000000", "#7F7F7F")
_MARKERS = "osD^vPX*"
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
MOST_SERIES = len(_COLOURS)
_INK, _GRID = "#26323d", "#d9dee3"
STYLE = {
    "svg.hashsalt": "art-divqat",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#5b6570",
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.axisbelow": True,
}


@dataclass(frozen=True)
class Series:
    """A named line of (position, estimate), positions ascending."""

    name: str
    points: tuple[tuple[float, Estimate], ...]


Panel: TypeAlias = tuple[str, Sequence[Series]]
"""An attacker and its lines."""
Dots: TypeAlias = tuple[str, Sequence[tuple[str, Estimate]]]
"""A name and its measurements, each by what it measures."""


def draw_curves(
    panels: Sequence[Panel],
    ylabel: str,
    xlabel: str = "queries",
    x_text: Callable[[float], str] = "{:,.0f}".format,
) -> str:
    """Curves with 95 % bands, over the budget unless `xlabel` says otherwise; a panel an attacker, one shared scale."""

    def draw(figure: Any) -> None:
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        styles = {name: i % MOST_SERIES for i, name in enumerate(_names(panels))}
        handles: dict[str, Any] = {}
        titles = shorten_apart(title for title, _ in panels)
        for axis, title, (_, series) in zip(axes, titles, panels, strict=True):
            handles |= lines_on(axis, series, xlabel, x_text, styles)
            axis.set_title(title, fontsize=9, loc="left", color=_INK)
        axes[0].set_ylabel(ylabel)
        axes[0].yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        names = shorten_apart(handles)
        figure.legend(list(handles.values()), names, loc="lower center", ncols=min(len(names), 3), frameon=False)
        # nothing here is wider in one plot than in another; matplotlib's own layout takes twice the time of drawing
        figure.subplots_adjust(
            left=0.75 / width, right=1 - 0.15 / width, top=1 - 0.32 / height, bottom=legend / height, wspace=0.1
        )

    legend = 0.55 + 0.22 * -(-len(_names(panels)) // 3)
    width, height = 2.4 + 2.9 * len(panels), 2.35 + legend
    return _to_svg(draw, (width, height))


def draw_dots(rows: Sequence[Dots], xlabel: str) -> str:
    """Dots with 95 % whiskers: a line of the page for each name, a marker for each measurement of it."""
    kinds = _kinds(rows)

    def draw(figure: Any) -> None:
        short = zip(shorten_apart(name for name, _ in rows), (dots for _, dots in rows), strict=True)
        handles = dots_on(figure.subplots(), list(short), xlabel)
        if len(kinds) > 1:
            names = shorten_apart(handles, 48)
            figure.legend(
                list(handles.values()), names, loc="outside lower center", ncols=min(len(names), 3), frameon=False
            )

    height = 1.0 + len(rows) * max(0.3, 0.13 * len(kinds)) + 0.2 * (-(-len(kinds) // 3))
    return _to_svg(draw, (7.6, height), layout="constrained")


def lines_on(
    axis: Any,
    series: Sequence[Series],
    xlabel: str = "queries",
    x_text: Callable[[float], str] = "{:,.0f}".format,
    styles: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Curves with 95 % bands on matplotlib axes, which get ticks at the places of the points; the lines by name.

    :param styles: which colour, marker and dash each name has; by their order if None.
    """
    styles = {one.name: i % MOST_SERIES for i, one in enumerate(series)} if styles is None else styles
    handles = {one.name: _draw_line(axis, one, styles[one.name]) for one in series}
    axis.set_xlabel(xlabel)
    ticks = sorted({x for one in series for x, _ in one.points})
    axis.set_xticks(ticks if len(ticks) <= 5 else [ticks[0], ticks[len(ticks) // 2], ticks[-1]])
    axis.xaxis.set_major_formatter(lambda value, _: x_text(value))
    axis.margins(x=0.08)
    axis.grid(axis="y", color=_GRID, linewidth=0.6)
    return handles


def dots_on(axis: Any, rows: Sequence[Dots], xlabel: str) -> dict[str, Any]:
    """Rates as dots with 95 % whiskers on matplotlib axes, a line for each name; the markers by what they measure."""
    kinds = _kinds(rows)
    handles: dict[str, Any] = {}
    for y, (_, dots) in enumerate(rows):
        for kind, estimate in dots:
            index = kinds.index(kind) % MOST_SERIES
            shift = (kinds.index(kind) - (len(kinds) - 1) / 2) * 0.8 / max(len(kinds), 1) * 0.8
            if estimate.low is not None and estimate.high is not None:
                axis.plot([estimate.low, estimate.high], [y + shift] * 2, color=_COLOURS[index], linewidth=1.6)
            (handles[kind],) = axis.plot(
                [estimate.mean], [y + shift], _MARKERS[index], color=_COLOURS[index], markersize=6, linestyle="none"
            )
    axis.set_yticks(range(len(rows)), [name for name, _ in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel(xlabel)
    axis.set_xlim(-0.02, 1.02)
    axis.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axis.grid(axis="x", color=_GRID, linewidth=0.6)
    return handles


def _kinds(rows: Sequence[Dots]) -> list[str]:
    return list(dict.fromkeys(kind for _, dots in rows for kind, _ in dots))


def _names(panels: Sequence[Panel]) -> list[str]:
    return list(dict.fromkeys(one.name for _, series in panels for one in series))


def _draw_line(axis: Any, series: Series, index: int) -> Any:
    known = [(x, estimate) for x, estimate in series.points]
    banded = [(x, e.low, e.high) for x, e in known if e.low is not None and e.high is not None]
    if banded:
        xs, lows, highs = zip(*banded, strict=True)
        axis.fill_between(xs, lows, highs, color=_COLOURS[index], alpha=0.14, linewidth=0)
    (line,) = axis.plot(
        [x for x, _ in known],
        [estimate.mean for _, estimate in known],
        color=_COLOURS[index],
        marker=_MARKERS[index],
        linestyle=_DASHES[index % len(_DASHES)],
        markersize=5,
        linewidth=1.6,
    )
    return line


def _to_svg(
    draw: Callable[[Any], None], size: tuple[float, float], layout: Literal["constrained"] | None = None
) -> str:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    out = io.StringIO()
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in a script that the font lacks
        figure = Figure(figsize=size, layout=layout)
        FigureCanvasSVG(figure)
        draw(figure)
        # the page behind it may be dark
        figure.savefig(
            out, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    return out.getvalue()
