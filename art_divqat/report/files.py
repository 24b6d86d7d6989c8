"""Report files: write each format, whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic_core import PydanticSerializationError

from art_divqat._files import write_text_whole
from art_divqat.errors import UserError, unknown_name
from art_divqat.report.html import render_html
from art_divqat.report.machine import render_csv, render_junit, render_sarif
from art_divqat.report.markdown import render_markdown
from art_divqat.report.rating import Thresholds
from art_divqat.results.schema import Results


def render_json(results: Results) -> str:
    """results.json: the fields in the order of the schema, free keys sorted, two spaces, one line end at the end.

    Numbers that are not finite become null, so that every JSON reader can read it.
    """
    free = {name: _in_order(getattr(results, name)) for name in ("tool", "environment", "config", "data")}
    try:
        return results.model_copy(update=free).model_dump_json(indent=2) + "\n"
    except PydanticSerializationError as error:
        raise UserError(f"The results hold text that is no Unicode and cannot be written: {error}.") from None


def _in_order(value: Any) -> Any:
    """The same with the keys of every dict in it sorted; those of cells and summaries are sorted when they are made."""
    if isinstance(value, dict):
        return {key: _in_order(value[key]) for key in sorted(value)}
    return [_in_order(item) for item in value] if isinstance(value, list | tuple) else value


FORMATS: dict[str, Callable[[Results, Thresholds | None], str]] = {
    "csv": lambda results, _: render_csv(results),
    "html": render_html,
    "json": lambda results, _: render_json(results),
    "junit": render_junit,
    "md": render_markdown,
    "sarif": render_sarif,
}


def render(results: Results, format: str, thresholds: Thresholds | None = None) -> str:
    """The results in one of FORMATS.

    :raises UserError: for an unknown format.
    """
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    return FORMATS[format](results, thresholds)


def write_report(results: Results, folder: Path, thresholds: Thresholds | None = None) -> list[Path]:
    """Write results.json, report.md and report.html into a folder and return their paths.

    :raises UserError: if they cannot be written; a file that was there before is then still whole.
    """
    # everything is rendered before anything is written, so that a failure leaves one generation of files
    rendered = {
        "results.json": render_json(results),
        "report.md": render_markdown(results, thresholds),
        "report.html": render_html(results, thresholds),
    }
    for name, text in rendered.items():
        write_text_whole(folder / name, text)
    return [folder / name for name in rendered]
