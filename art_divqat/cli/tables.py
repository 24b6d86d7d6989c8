"""Terminal summary of `evaluate`: a table of victims, one of thieves, the finding, and the path of the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from art_divqat.metrics.table import METRICS

if TYPE_CHECKING:
    from art_divqat.report.results_view import ResultsView
    from art_divqat.results.schema import Estimate, Results, SummaryRow

# Headings break where the table of metrics has spaces: on 80 columns a number must keep its digits.
_SHOWN = [metric for metric in METRICS.values() if metric.short]
_VICTIM_COLUMNS = {metric.name: metric.short for metric in _SHOWN if metric.subject == "victim"}
_THIEF_COLUMNS = {metric.name: metric.short for metric in _SHOWN if metric.subject == "thief"}
# a terminal that says nothing of its width, such as a file
_WIDTH = 120


def print_results(results: Results, folder: Path) -> None:
    """Print the summary to stdout, as wide as the terminal allows."""
    from rich.console import Console
    from rich.text import Text

    from art_divqat.report import Thresholds, finding
    from art_divqat.report.rating import control_text, rating_text
    from art_divqat.report.results_view import ResultsView
    from art_divqat.report.seeds import seeds_added
    from art_divqat.report.text import clean, counted, dataset_name
    from art_divqat.results.data_notes import classes_note, data_notes

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    seeds, epsilon = max((row.n_seeds for row in results.summary), default=0), results.config.get("epsilon")
    attacked = f"; robust accuracies at ε = {epsilon:g}" if isinstance(epsilon, int | float) else ""
    data = dataset_name(str(results.config["dataset"]))
    caption = f"{data}, {counted(seeds, 'seed')}: means and their 95 % intervals{attacked}"
    console.print(Text(caption))
    for note in data_notes(results.data):
        console.print(Text(clean(f"Data: {note}")))
    if note := classes_note(results.data):
        console.print(Text(f"Model: {note}"))
    view, thresholds = ResultsView(results), Thresholds()
    for table in _tables(view, console.width):
        console.print(table)
    console.print(Text(finding(results)))
    if rating := rating_text(view, thresholds):
        console.print(Text(rating))
        if control := control_text(view, max(results.config["budgets"]), thresholds):
            console.print(Text(f"{control}."))
    if added := seeds_added(results):
        console.print(Text(added))
    for condition in results.gate.conditions:
        if condition.failed:
            console.print(Text(f"Gate failed: {condition.condition} in {len(condition.where)} of the groups."))
    console.print(Text(f"Report: {folder / 'report.html'}"))


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
    # where that leaves the names half of the first column, on one line or the interval below its number; else in three
    needed = sum(names[1:]) + names[0] // 2 + 3 * len(headings)
    one_line = needed + 18 * len(columns) < width
    gap = " " if one_line else "\n"
    dash = "–" if needed + 11 * len(columns) < width else "–\n"
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
    for name in columns:
        heading = titles[name].replace("- ", "" if one_line else "-\n").replace(" ", " " if one_line else "\n")
        table.add_column(heading, justify="right", no_wrap=True)
    for number, (cells, row) in enumerate(rows):
        if number and cells[0] and len(headings) > 1:
            table.add_section()
        table.add_row(*map(Text, cells), *(Text(_number(row.metrics.get(name), gap, dash)) for name in columns))
    return table


def _columns(rows: Sequence[tuple[list[str], SummaryRow]]) -> list[tuple[str, ...]]:
    return list(zip(*(cells for cells, _ in rows), strict=True))


def _number(estimate: Estimate | None, gap: str, dash: str) -> str:
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:.3f}"
    return f"{estimate.mean:.3f}{gap}{_end(estimate.low)}{dash}{_end(estimate.high)}"


def _end(value: float) -> str:
    """An end of an interval, without its leading zero: on 80 columns both ends must fit below their number.

    >>> _end(0.0), _end(0.2216), _end(1.0384), _end(-0.05)
    ('.000', '.222', '1.038', '-.050')
    """
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.9995 else text
