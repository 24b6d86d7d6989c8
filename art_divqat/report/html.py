"""HTML report: one file, no network, no scripts; names from users are text and nothing else."""

from __future__ import annotations

import base64
from functools import cache
from typing import Any

from art_divqat.report.blocks import Figure
from art_divqat.report.content import compose
from art_divqat.report.rating import Thresholds
from art_divqat.report.text import clean
from art_divqat.results.schema import Results


def render_html(results: Results, thresholds: Thresholds | None = None) -> str:
    """The whole report as one self-contained HTML page.

    :param thresholds: what agreement counts as vulnerable or as a warning; those of AITG-APP-09 if None.
    """
    return str(_environment().get_template("report.html.j2").render(report=compose(results, thresholds)))


def render_notebook(results: Results, folder: str = "", thresholds: Thresholds | None = None) -> str:
    """The first page as a piece of HTML for a notebook, with agreement over the budget and the warnings.

    :param folder: the run folder, to be named; nothing if empty.
    :param thresholds: what agreement counts as vulnerable or as a warning; those of AITG-APP-09 if None.
    """
    report = compose(results, thresholds)
    curves = (section for section in report.sections if section.slug == "curves")
    figure = next((block for section in curves for block in section.blocks if isinstance(block, Figure)), None)
    template = _environment().get_template("notebook.html.j2")
    return str(template.render(report=report, figure=figure, flags=results.flags, folder=folder))


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("art_divqat.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clean"] = clean
    environment.filters["prose"] = _prose
    environment.filters["svg_address"] = _svg_address
    environment.filters["csv_address"] = _csv_address
    return environment


def _prose(text: str) -> str:
    """A sentence whose numbers keep their unit on their line.

    >>> _prose("83.6 %")
    '83.6\\xa0%'
    """
    return clean(text).replace(" %", "\u00a0%")


def _svg_address(svg: str) -> str:
    return f"data:image/svg+xml;base64,{_base64(svg)}"


def _csv_address(text: str) -> str:
    return f"data:text/csv;charset=utf-8;base64,{_base64(text)}"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "backslashreplace")).decode()
