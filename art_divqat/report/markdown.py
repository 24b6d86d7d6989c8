"""Markdown report, as GitHub and CI summaries show it: figures become their tables."""

from __future__ import annotations

import re

from art_divqat.report.blocks import Block, Bullets, Code, Figure, Notice, Report, Table, TableCell, Text
from art_divqat.report.content import compose
from art_divqat.report.rating import Thresholds
from art_divqat.report.text import clean
from art_divqat.results.schema import Results

_SPECIAL = re.compile(r"([\\`*\[\]<>|&~$#])")


def escape(text: str) -> str:
    r"""The text on one line, with everything that Markdown or HTML could read as more than text escaped.

    >>> print(escape("a|<b>\n*c*"))
    a\|\<b\>�\*c\*
    """
    return _SPECIAL.sub(r"\\\1", clean(text))


def render_markdown(results: Results, thresholds: Thresholds | None = None) -> str:
    """The whole report as Markdown.

    :param thresholds: what agreement counts as vulnerable or as a warning; those of AITG-APP-09 if None.
    """
    return write_markdown(compose(results, thresholds))


def write_markdown(report: Report) -> str:
    """A composed report as Markdown."""
    lines = [
        f"# {escape(report.title)}: {escape(report.rating.lower())}",
        "",
        escape(report.subtitle),
        "",
        f"**{escape(report.finding)}**",
        "",
    ]
    for paragraph in report.summary:
        lines += [escape(paragraph), ""]
    for section in report.sections:
        lines += [f"## {escape(section.title)}", ""]
        for block in section.blocks:
            lines += [*_block(block), ""]
    return "\n".join(lines).rstrip() + "\n"


def _block(block: Block) -> list[str]:
    if isinstance(block, Text):
        return [escape(block.text)]
    if isinstance(block, Bullets):
        return [f"- {escape(item)}" for item in block.items]
    if isinstance(block, Code):
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", block.text)), default=0))
        return [fence, block.text, fence]
    if isinstance(block, Notice):
        parts = [f"- {escape(label)}: {escape(text)}" for label, text in block.parts]
        return [f"**{escape(block.title)}**", "", *parts]
    if isinstance(block, Figure):
        return [escape(block.caption), "", *_table(block.numbers)]
    return _table(block)


def _table(table: Table) -> list[str]:
    lines = [f"**{escape(table.caption)}**", ""] if table.caption else []
    lines.append("| " + " | ".join(escape(text) for text in table.headings) + " |")
    lines.append("|" + "|".join("---:" if i in table.numeric else "---" for i in range(len(table.headings))) + "|")
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in table.rows]
    return lines + (["", escape(table.note)] if table.note else [])


def _cell(cell: TableCell) -> str:
    return escape(f"{cell.text} ({cell.detail})" if cell.detail else cell.text)
