"""The result object: what a notebook shows, tables, plots and files; the same from an audit and from a run folder."""

from __future__ import annotations

import builtins
import csv
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from support.builders import MODEL, make_audit, make_results

import art_divqat
from art_divqat.errors import MissingExtraError, UserError
from art_divqat.outcome import AuditResult
from art_divqat.report import render, render_json

matplotlib.use("Agg")
STUDY = Path(__file__).parents[1] / "evaluations" / "studies" / "mnist-one-seed"


@pytest.fixture
def result() -> AuditResult:
    return AuditResult.of(make_results(attacks=("knockoff", "scout"), answers=("soft", "hard")), Path("runs/a"))


def test_the_package_is_its_public_names_and_loads_nothing_heavy() -> None:
    assert dir(art_divqat) == sorted(art_divqat.__all__)
    code = (
        "import sys, art_divqat; heavy = {'torch', 'art', 'numpy', 'matplotlib', 'pydantic'}; "
        "print(sorted(heavy & set(sys.modules))); "
        f"r = art_divqat.load({str(STUDY)!r}); repr(r); r._repr_html_(); "
        "print(sorted({'torch', 'art', 'matplotlib.pyplot'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines() == ["[]", "[]"]
    namespace: dict[str, Any] = {}
    exec("from art_divqat import *", namespace)
    assert {"audit_model", "evaluate", "load", "AuditResult"} <= set(namespace)


def test_a_run_folder_gives_what_its_files_say(tmp_path: Path) -> None:
    loaded = art_divqat.load(STUDY)
    assert loaded.folder == STUDY
    assert loaded.finding in render(loaded, "md").replace("\\", "")
    assert (STUDY / "report.md").read_text("utf-8") == loaded.save_report(tmp_path / "again.md").read_text("utf-8")
    with pytest.raises(UserError, match=r"There is no journal at .*expected a run folder"):
        art_divqat.load(tmp_path)
    with pytest.raises(UserError, match="expected a run folder"):
        art_divqat.load(str(STUDY / "report.md"))


def test_it_is_the_results_and_writes_the_same_json(result: AuditResult) -> None:
    plain = make_results(attacks=("knockoff", "scout"), answers=("soft", "hard"))
    assert render_json(result) == render_json(plain)
    assert result.cells == plain.cells


@pytest.mark.parametrize("width", [80, 100, 160])
def test_it_prints_whole_numbers_and_its_folder(result: AuditResult, width: int, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    printed = repr(result)
    assert printed == str(result)
    assert max(map(len, printed.splitlines())) <= width
    assert "…" not in printed
    assert "\x1b" not in printed
    assert printed.endswith("Run folder: runs/a")
    for row in result.summary:
        assert f"{row.metrics['agreement'].mean:.3f}" in printed
    assert "".join(result.finding.split()) in "".join(printed.split())


def test_rich_and_notebooks_show_it(result: AuditResult) -> None:
    from rich.console import Console

    console = Console(width=120, record=True, file=io.StringIO())
    console.print(result)
    assert "Victims" in console.export_text()
    html = result._repr_html_()
    assert result.rating in html
    assert "runs/a" in html
    audit = AuditResult.of(make_audit({500: 0.94, 1000: 0.95}), None)
    assert audit.rating == "Vulnerable"
    assert "Run folder" not in audit._repr_html_()
    assert "Run folder" not in repr(audit)


def test_an_unfinished_run_prints_and_says_so() -> None:
    empty = AuditResult.of(make_results().model_copy(update={"cells": [], "summary": [], "comparisons": []}), None)
    assert "nothing to say yet" in repr(empty)
    assert "Nothing has been measured yet." in empty._repr_html_()
    assert empty.rating == "Not measured"
    for draw in (empty.plot, empty.plot_budget_curves):
        with pytest.raises(UserError, match="let the run finish"):
            draw()


def test_data_frames_have_the_names_of_the_file(result: AuditResult) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    cells = result.to_dataframe()
    assert len(cells) == len(result.cells)
    row = next(csv.reader(io.StringIO(render(result, "csv"))))
    assert set(cells.columns) == set(row)
    assert cells["agreement"].tolist() == [cell.metrics["agreement"] for cell in result.cells]
    summary = result.to_dataframe("summary")
    assert summary["agreement.high"].tolist() == [row.metrics["agreement"].high for row in result.summary]
    comparisons = result.to_dataframe("comparisons")
    assert set(comparisons["kind"]) == {c.kind for c in result.comparisons}
    assert "value.low" in comparisons.columns
    with pytest.raises(UserError, match="Unknown kind of rows 'cell': did you mean cells"):
        result.to_dataframe("cell")  # type: ignore[arg-type]


def test_without_pandas_there_is_one_sentence(result: AuditResult, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def refuse(name: str, *given: Any, **named: Any) -> Any:
        if name == "pandas":
            raise ImportError("No module named 'pandas'")
        return imported(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"needs pandas, which is not installed: pip install pandas"):
        result.to_dataframe()


def test_plots_draw_on_the_axes_given_and_leave_the_settings(result: AuditResult) -> None:
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    figure, (left, right) = pyplot.subplots(1, 2)
    assert result.plot(left) is left
    assert result.plot_budget_curves("thief_accuracy", attack="scout", answers="hard", ax=right) is right
    assert len(left.get_yticks()) == 2
    assert all("scout, hard answers" in text.get_text() for text in right.get_legend().get_texts())
    drawn = {round(float(y), 9) for line in right.get_lines() for y in line.get_ydata()}
    wanted = [r for r in result.summary if (r.attack, r.answers) == ("scout", "hard")]
    assert drawn == {round(row.metrics["thief_accuracy"].mean, 9) for row in wanted}
    assert right.get_ylabel() == "Thief accuracy"
    alone = result.plot_budget_curves()
    assert alone.figure is not figure
    assert dict(matplotlib.rcParams) == before
    pyplot.close("all")


def test_defences_with_long_names_stay_apart_in_a_plot() -> None:
    from matplotlib import pyplot

    names = [f"heuristic:beta=0.{digit},gamma=0.1,variant=released" for digit in (5, 7, 9)]
    results = make_results(
        victims=(MODEL,), baseline=None, defences=("none", *names), attacks=("scout:share=0.3,rounds=9",)
    )
    axes = AuditResult.of(results, None).plot()
    labels = [text.get_text() for text in axes.get_yticklabels()]
    pyplot.close("all")
    assert len(labels) == len(set(labels)) == 4
    assert [sum(f"beta=0.{digit}" in label for label in labels) for digit in (5, 7, 9)] == [1, 1, 1]
    assert all("\nscout:" in label and label.endswith(" answers") for label in labels), labels


def test_a_first_plot_leaves_the_mode_that_a_notebook_shows_figures_in(tmp_path: Path) -> None:
    # as the backend of notebooks does when it is loaded, which is with the first figure
    (tmp_path / "inline.py").write_text(
        "from matplotlib.backends.backend_agg import *\nimport matplotlib\nmatplotlib.interactive(True)\n"
    )
    code = f"import art_divqat, matplotlib; art_divqat.load({str(STUDY)!r}).plot(); print(matplotlib.is_interactive())"
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "MPLBACKEND": "module://inline", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metric": "agrement"}, "Unknown metric 'agrement': did you mean agreement"),
        ({"attack": "knokoff"}, "Unknown attack 'knokoff': did you mean knockoff"),
        ({"answers": "top-3"}, "Unknown kind of answers 'top-3': known are hard, soft"),
    ],
)
def test_what_was_not_measured_cannot_be_plotted(result: AuditResult, given: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        result.plot_budget_curves(**given)  # type: ignore[arg-type]


def test_reports_are_saved_by_the_name_of_the_file(result: AuditResult, tmp_path: Path) -> None:
    starts = {"a.html": "<!DOCTYPE", "a.MD": "# ", "a.json": "{", "a.csv": "dataset,", "a.sarif": "{", "a.xml": "<?xml"}
    for name, start in starts.items():
        assert result.save_report(tmp_path / "new" / name).read_text("utf-8").startswith(start)
    assert result.save_report(str(tmp_path / "page"), format="html").read_text("utf-8").startswith("<!DOCTYPE")
    with pytest.raises(UserError, match=r"The name of .*a\.pdf says no format: expected \.html"):
        result.save_report(tmp_path / "a.pdf")
    with pytest.raises(UserError, match="Unknown format 'htlm': did you mean html"):
        result.save_report(tmp_path / "a.html", "htlm")
