"""Results for a terminal: a caption, a table of victims, one of thieves, the finding and the rating."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from art_divqat.metrics.table import METRICS
from art_divqat.report.findings import finding
from art_divqat.report.rating import Thresholds, control_text, rating_text
from art_divqat.report.results_view import ResultsView
from art_divqat.report.seeds import seeds_added
from art_divqat.report.text import clean, counted, dataset_name
from art_divqat.results.data_notes import classes_note, data_notes

if TYPE_CHECKING:
    from art_divqat.results.schema import Estimate, Results, SummaryRow

# Headings break where the table of metrics has spaces: on 80 columns a number must keep its digits.
_LEAST_NAME = 10
_SHOWN = [metric for metric in METRICS.values() if metric.short]
_VICTIM_COLUMNS = {metric.name: metric.short for metric in _SHOWN if metric.subject == "victim"}
_THIEF_COLUMNS = {metric.name: metric.short for metric in _SHOWN if metric.subject == "thief"}


def terminal_summary(results: Results, width: int) -> Iterator[Any]:
    """What a terminal of so many columns shows of results, as rich's texts and tables."""
    from rich.text import Text

    view, thresholds = ResultsView(results), Thresholds()
    yield Text(_caption(results))
    for note in data_notes(results.data):
        yield Text(clean(f"Data: {note}"))
    if note := classes_note(results.data):
        yield Text(f"Model: {note}")
    yield from _tables(view, width)
    yield Text(finding(results))
    if rating := rating_text(view, thresholds):
        yield Text(rating)
        if control := control_text(view, max(results.config["budgets"]), thresholds):
            yield Text(f"{control}.")
    if added := seeds_added(results):
        yield Text(added)
    for condition in results.gate.conditions:
        if condition.failed:
            yield Text(f"Gate failed: {condition.condition} in {len(condition.where)} of the groups.")


def _caption(results: Results) -> str:
    seeds, epsilon = max((row.n_seeds for row in results.summary), default=0), results.config.get("epsilon")
    attacked = f"; robust accuracies at ε = {epsilon:g}" if isinstance(epsilon, int | float) else ""
    data = dataset_name(str(results.config["dataset"]))
    return f"{data}, {counted(seeds, 'seed')}: means and their 95 % intervals{attacked}"


def _tables(view: ResultsView, width: int) -> list[Any]:
    summary = view.summary
    if not summary:
        return []
    defended = view.defences != ["none"]
    of_victims = [name for name in _VICTIM_COLUMNS if defended or not METRICS[name].only_defended]
    victims = {(row.victim, row.defence): row for row in reversed(summary)}
    rows = [([view.pair_name(*pair)], victims[pair]) for pair in view.pairs]
    # of a model whose right answers nobody knows there is nothing to say
    measured = any(name in row.metrics for _, row in rows for name in of_victims)
    tables = [] if not measured else [_table("Victims", ["victim"], rows, of_victims, _VICTIM_COLUMNS, width)]
    # what is the same in every row stands in the title
    names: dict[str, list[str]] = {"attack": [r.attack for r in summary], "answers": [r.answers for r in summary]}
    varying = [name for name, values in names.items() if len(set(values)) > 1]
    same = ", ".join(
        values[0] if name == "attack" else f"{values[0]} answers"
        for name, values in names.items()
        if name not in varying
    )
    order = {pair: position for position, pair in enumerate(view.pairs)}
    thieves = []
    previous: tuple[str, str] | None = None
    for row in sorted(summary, key=lambda row: order[row.victim, row.defence]):
        pair = (row.victim, row.defence)
        label = "" if pair == previous else view.pair_name(*pair)
        thieves.append(([label, *(str(getattr(row, name)) for name in varying), f"{row.budget:,}"], row))
        previous = pair
    headings = ["of victim", *varying, "queries"]
    title = f"Thieves ({same})" if same else "Thieves"
    return [*tables, _table(title, headings, thieves, list(_THIEF_COLUMNS), _THIEF_COLUMNS, width)]


def _table(
    title: str,
    headings: Sequence[str],
    rows: Sequence[tuple[list[str], SummaryRow]],
    metrics: Iterable[str],
    titles: dict[str, str],
    width: int,
) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    columns = [name for name in metrics if any(name in row.metrics for _, row in rows)]
    names = [max(map(len, (heading, *column))) for heading, column in zip(headings, _columns(rows), strict=True)]
    gaps = 3 * len(headings)
    # an interval beside its number must leave names their width; for a number itself they are folded
    wide = max(names[0] // 2, len(headings[0])) + sum(names[1:])
    least = [max(name // 2, _LEAST_NAME, len(heading)) for name, heading in zip(names, headings, strict=True)]
    folded = sum(map(min, names, least))
    shown, layout = _fitting(columns, rows, titles, width - gaps - wide, width - gaps - folded)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        numeric = heading == "queries"
        # without a least width rich folds a heading within its word where the names of victims are long
        table.add_column(
            heading,
            justify="right" if numeric else "left",
            overflow="fold",
            no_wrap=numeric,
            min_width=len(heading),
        )
    for name in shown:
        table.add_column(layout.heading(titles[name]), justify="right", no_wrap=True)
    for number, (cells, row) in enumerate(rows):
        if number and cells[0] and len(headings) > 1:
            table.add_section()
        table.add_row(*map(Text, cells), *(Text(layout.number(row.metrics.get(name))) for name in shown))
    if unseen := [titles[name].replace("- ", "") for name in columns if name not in shown]:
        table.caption = f"Too narrow for {', '.join(unseen)}: results.json has all."
        table.caption_justify = "left"
    return table


def _columns(rows: Sequence[tuple[list[str], SummaryRow]]) -> list[tuple[str, ...]]:
    return list(zip(*(cells for cells, _ in rows), strict=True))


@dataclass(frozen=True)
class _Layout:
    """Where the interval of a number stands: beside it, below it, or one end below the other."""

    gap: str
    dash: str

    def heading(self, title: str) -> str:
        """A title, broken where it has spaces unless the interval is beside the number."""
        return title.replace("- ", "") if self.gap == " " else title.replace("- ", "-\n").replace(" ", "\n")

    def number(self, estimate: Estimate | None) -> str:
        """A number and its interval."""
        if estimate is None:
            return "–"
        if estimate.low is None or estimate.high is None:
            return f"{estimate.mean:.3f}"
        return f"{estimate.mean:.3f}{self.gap}{_end(estimate.low)}{self.dash}{_end(estimate.high)}"


_LAYOUTS = (_Layout(" ", "–"), _Layout("\n", "–"), _Layout("\n", "–\n"))


def _fitting(
    columns: list[str], rows: Sequence[tuple[list[str], SummaryRow]], titles: dict[str, str], room: int, most: int
) -> tuple[list[str], _Layout]:
    """The columns that there is room for, all if possible, and the widest layout in which they fit.

    :param room: what names leave for columns; in the narrowest layout they may take `most`.
    """

    def widths(layout: _Layout) -> list[int]:
        texts = (
            [layout.heading(titles[name]), *(layout.number(row.metrics.get(name)) for _, row in rows)]
            for name in columns
        )
        return [3 + max(len(line) for text in column for line in text.split("\n")) for column in texts]

    for layout in _LAYOUTS[:-1]:
        if sum(widths(layout)) <= room:
            return columns, layout
    narrow = widths(_LAYOUTS[-1])
    number = sum(sum(narrow[: i + 1]) <= most for i in range(len(columns)))
    return columns[: max(number, 1)], _LAYOUTS[-1]


def _end(value: float) -> str:
    """An end of an interval, without its leading zero: on 80 columns both ends must fit below their number.

    >>> _end(0.0), _end(0.2216), _end(1.0384), _end(-0.05)
    ('.000', '.222', '1.038', '-.050')
    """
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text
