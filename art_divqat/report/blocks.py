"""Blocks of a report, before it is HTML or Markdown: text, tables, figures, notices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

Tone = Literal["good", "bad", "warn", "unknown", "note", "outline", "plain"]


@dataclass(frozen=True)
class TableCell:
    """One cell of a table: a text, what stands small below it, and how it is to be seen."""

    text: str
    detail: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True)
class Table:
    """Rows under headings; `numeric` says which columns are numbers and stand to the right."""

    headings: tuple[str, ...]
    rows: Sequence[tuple[TableCell, ...]]
    caption: str = ""
    numeric: frozenset[int] = frozenset()
    note: str = ""
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Bullets:
    """Short points."""

    items: list[str]
    kind: str = field(default="bullets", init=False)


@dataclass(frozen=True)
class Figure:
    """A plot, its text alternative, and its numbers, folded away on the page if they stand elsewhere.

    :param draw: makes the SVG, where it is asked for: Markdown does without.
    :param name: of the file that its data can be saved as, without the `.csv`.
    :param data: makes that file, CSV with the numbers as they were measured.
    """

    draw: Callable[[], str]
    name: str
    data: Callable[[], str]
    alt: str
    caption: str
    numbers: Table
    fold: bool = False
    kind: str = field(default="figure", init=False)

    @cached_property
    def svg(self) -> str:
        """The plot as SVG text."""
        return self.draw()


@dataclass(frozen=True)
class Notice:
    """A warning: its name, and labelled sentences."""

    title: str
    tone: Tone
    parts: list[tuple[str, str]]
    kind: str = field(default="notice", init=False)


@dataclass(frozen=True)
class Code:
    """Something to type or to compare, as it is."""

    text: str
    kind: str = field(default="code", init=False)


Block: TypeAlias = Text | Bullets | Table | Figure | Notice | Code


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    slug: str
    title: str
    blocks: list[Block]


@dataclass(frozen=True)
class Tile:
    """One key figure."""

    label: str
    value: str
    detail: str


@dataclass(frozen=True)
class FirstPage:
    """What stands above the sections of the HTML report, for a reader who decides.

    :param verdict: the rating as a sentence.
    :param paragraphs: what was reached, and what limits the trust in it.
    :param advice: what to do, the most important first.
    :param costs: who pays, and what.
    """

    verdict: str
    paragraphs: list[str]
    advice: list[str]
    costs: list[tuple[str, str]]


@dataclass(frozen=True)
class Report:
    """All of a report.

    :param finding: the first line of the Markdown report, with `summary` below it.
    """

    title: str
    subtitle: str
    rating: str
    tone: Tone
    finding: str
    summary: list[str]
    first_page: FirstPage
    tiles: list[Tile]
    sections: list[Section]
