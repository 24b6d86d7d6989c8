"""HTML report: one file, no network, no scripts; names from users are text and nothing else."""

from __future__ import annotations

import base64
from functools import cache
from typing import Any

from art_divqat.report.content import compose
from art_divqat.report.rating import Thresholds
from art_divqat.report.text import clean
from art_divqat.results.schema import Results


def render_html(results: Results, thresholds: Thresholds | None = None) -> str:
    """The whole report as one self-contained HTML page.

    :param thresholds: what agreement counts as vulnerable or as a warning; those of AITG-APP-09 if None.
    """
    return str(_template().render(report=compose(results, thresholds)))


@cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("art_divqat.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["clean"] = clean
    environment.filters["svg_address"] = _svg_address
    return environment.get_template("report.html.j2")


def _svg_address(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
