"""The result of an audit in Python: it prints as a summary, and gives tables, plots and report files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PrivateAttr

from art_divqat._files import write_text_whole
from art_divqat.errors import MissingExtraError, UserError, unknown_name
from art_divqat.results.build import read_results
from art_divqat.results.schema import Estimate, Results

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from matplotlib.axes import Axes
    from rich.console import Console, ConsoleOptions

Rows = Literal["cells", "summary", "comparisons"]
# of text that goes to no terminal
_WIDTH = 100
# a report's file by the end of its name, where that is not the format's own
_SUFFIXES = {"xml": "junit", "markdown": "md", "htm": "html"}


class AuditResult(Results):
    """The results of a run, with all fields of results.json, as an object that a notebook shows.

    :func:`art_divqat.audit_model`, :func:`art_divqat.evaluate` and :func:`art_divqat.load` make it.
    """

    _folder: Path | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, results: Results, folder: Path | None) -> AuditResult:
        """The same results, with their run folder."""
        # they are valid already, and a large run has a hundred thousand values
        made = cls.model_construct(**{name: getattr(results, name) for name in Results.model_fields})
        made._folder = folder
        return made

    @property
    def folder(self) -> Path | None:
        """The run folder, which holds the journal and the reports."""
        return self._folder

    @property
    def rating(self) -> str:
        """`Vulnerable`, `Warning`, `Desired`, `Inconclusive` or `Not measured`, as the report has it."""
        from art_divqat.report.rating import Thresholds, overall_rating
        from art_divqat.report.results_view import ResultsView

        return overall_rating(ResultsView(self), Thresholds()).name

    @property
    def finding(self) -> str:
        """The main result in one sentence."""
        from art_divqat.report.findings import finding

        return finding(self)

    def to_dataframe(self, rows: Rows = "cells") -> pd.DataFrame:
        """A pandas data frame; its columns are named as in results.json.

        :param rows: `cells`: one row per cell, metrics by name, details as `details.NAME`. `summary`: one row for all
            seeds of a cell, each metric's mean under its name and its 95 % interval as `NAME.low` and `NAME.high`.
            `comparisons`: one row per comparison, its mean as `value`, its interval as `value.low` and `value.high`.
        :raises MissingExtraError: without pandas.
        :raises UserError: for another kind of rows.
        """
        makers = {"cells": self._cell_rows, "summary": self._summary_rows, "comparisons": self._comparison_rows}
        if rows not in makers:
            raise unknown_name("kind of rows", rows, makers)
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtraError(
                "to_dataframe needs pandas, which is not installed: pip install pandas; results.json and "
                "save_report('cells.csv') hold the same without it."
            ) from None
        return pd.DataFrame(list(makers[rows]()))

    def _cell_rows(self) -> Iterator[dict[str, Any]]:
        for cell in self.cells:
            own = cell.model_dump(exclude={"metrics", "details", "curves"})
            yield own | dict(cell.metrics) | {f"details.{name}": value for name, value in cell.details.items()}

    def _summary_rows(self) -> Iterator[dict[str, Any]]:
        for row in self.summary:
            metrics = [_columns(name, estimate) for name, estimate in row.metrics.items()]
            yield row.model_dump(exclude={"metrics", "curves"}) | {k: v for each in metrics for k, v in each.items()}

    def _comparison_rows(self) -> Iterator[dict[str, Any]]:
        for comparison in self.comparisons:
            own = comparison.model_dump(exclude={"value", "seeds_needed"})
            yield own | _columns("value", comparison.value)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the agreement and accuracy of the best thief for each victim and defence, with 95 % intervals.

        :param ax: matplotlib axes to draw on; those of a new figure if not given.
        :return: the axes drawn on.
        :raises UserError: if no cell has finished.
        """
        from art_divqat.report.axes import plot_best

        return plot_best(self, ax)

    def plot_budget_curves(
        self,
        metric: str = "agreement",
        *,
        attack: str | None = None,
        answers: str | None = None,
        ax: Axes | None = None,
    ) -> Axes:
        """Draw a metric of the thief over the number of queries, one line per victim and defence, with 95 % bands.

        :param metric: as results.json names it, such as `agreement` or `thief_accuracy`.
        :param attack: the attack to show; by default the best one against each victim.
        :param answers: what the attacker uses, such as `soft` or `hard`; likewise.
        :param ax: matplotlib axes to draw on; those of a new figure if not given.
        :return: the axes drawn on.
        :raises UserError: for a metric, an attack or answers that are not among the results.
        """
        from art_divqat.report.axes import plot_budget_curves

        return plot_budget_curves(self, metric, attack=attack, answers=answers, ax=ax)

    def save_report(self, path: Path | str, format: str | None = None) -> Path:
        """Write the report to a file, whole or not at all.

        :param path: the file; its extension determines the format: .html, .md, .json, .csv, .sarif or .xml (JUnit).
        :param format: `html`, `md`, `json`, `csv`, `sarif` or `junit`; overrides the extension.
        :return: the path.
        :raises UserError: for an unknown format, or a file that cannot be written.
        """
        from art_divqat.report.files import FORMATS, render

        path = Path(path)
        if format is None:
            suffix = path.suffix.lower().removeprefix(".")
            format = _SUFFIXES.get(suffix, suffix)
            if format not in FORMATS:
                raise UserError(
                    f"The name of {path} says no format: expected .html, .md, .json, .csv, .sarif or .xml, or format=."
                )
        write_text_whole(path, render(self, format))
        return path

    def log_to_mlflow(self) -> str:
        """Log the results as an MLflow run; MLflow must be installed, and nothing is logged unless asked.

        Parameters are the configuration; metrics are the means over the seeds and both ends of their intervals, as
        `VICTIM/DEFENCE/ATTACK/ANSWERS/METRIC`, with `.low` and `.high`, with the budget as step; artifacts are the
        reports, results.json, the journal and config.yaml. The destination is MLflow's own setting, by
        `mlflow.set_tracking_uri` and `mlflow.set_experiment`. An active MLflow run becomes the parent.

        :return: the id of MLflow's run.
        :raises MissingExtraError: without MLflow.
        :raises UserError: if MLflow cannot keep it.
        """
        from art_divqat.report.mlflow_run import log_run

        return log_run(self, self._folder)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        """The tables of victims and thieves, the finding and the rating, as the command line prints them."""
        from rich.text import Text

        from art_divqat.report.terminal import terminal_summary

        yield from terminal_summary(self, options.max_width)
        if self._folder is not None:
            # a path that is broken cannot be copied
            yield Text(f"Run folder: {self._folder}", no_wrap=True, overflow="ignore")

    def __eq__(self, other: object) -> bool:
        # results read from a file are these results
        return dict(self) == dict(other) if isinstance(other, Results) else NotImplemented

    def __repr__(self) -> str:
        from rich.console import Console

        console = Console(
            width=shutil.get_terminal_size((_WIDTH, 24)).columns,
            color_system=None,
            highlight=False,
            force_jupyter=False,
        )
        with console.capture() as captured:
            console.print(self)
        return "\n".join(line.rstrip() for line in captured.get().rstrip().splitlines())

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """The first page of the report, for a notebook: verdict, key figures, agreement over the budget, warnings."""
        from art_divqat.report.html import render_notebook

        return render_notebook(self, str(self._folder or ""))


def load(run_folder: Path | str) -> AuditResult:
    """The results of a run folder, finished or not, as :func:`art_divqat.audit_model` gave them; needs no torch.

    :raises UserError: if there is no journal, it was changed, or it is not that of a run.
    """
    folder = Path(run_folder)
    return AuditResult.of(read_results(folder), folder)


def _columns(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    """A metric and both ends of its interval.

    >>> _columns("agreement", Estimate(mean=0.5, low=0.4, high=0.6))
    {'agreement': 0.5, 'agreement.low': 0.4, 'agreement.high': 0.6}
    """
    if estimate is None:
        return {name: None, f"{name}.low": None, f"{name}.high": None}
    return {name: estimate.mean, f"{name}.low": estimate.low, f"{name}.high": estimate.high}
