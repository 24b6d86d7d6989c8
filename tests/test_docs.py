"""The Python blocks of the README and of every page in docs/ run, in order, in one namespace for each page."""

from __future__ import annotations

import contextlib
import io
import random
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.plugins import EXAMPLE, copy_distribution, installed

from art_divqat.attacks.extraction.registry import ATTACKS
from art_divqat.attacks.recovery.registry import RECOVERIES
from art_divqat.data.pools import POOLS
from art_divqat.data.sources import DATASETS
from art_divqat.defences.registry import DEFENCES
from art_divqat.errors import AccuracyLossWarning
from art_divqat.models.registry import MODELS
from art_divqat.victims.registry import VICTIMS

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = sorted(
    page for page in [DOCS.parent / "README.md", *DOCS.glob("*.md")] if BLOCK.search(page.read_text(encoding="utf-8"))
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = page.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    # what a page calls `run` is the run folder of a committed study
    shutil.copytree(DOCS.parent / "evaluations" / "studies" / "robust-extraction" / "digits", tmp_path / "run")
    # the package of `add-your-own.md`, whether it is installed or not
    (site := tmp_path / "site").mkdir()
    copy_distribution(EXAMPLE, site)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    namespace: dict[str, object] = {"__name__": "docs"}
    try:
        with (
            installed(site, ATTACKS, RECOVERIES, DEFENCES, VICTIMS, MODELS, DATASETS, POOLS),
            warnings.catch_warnings(record=True) as caught,
        ):
            warnings.simplefilter("always", AccuracyLossWarning)
            for block in BLOCK.finditer(text):
                # Blank lines in front make a traceback name the line of the page.
                before = text[: block.start(1)].count("\n")
                exec(compile("\n" * before + block.group(1), str(page), "exec"), namespace)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
    if page.name == "audit-your-own-model.md":
        assert re.match(r"Rating: vulnerable \(agreement 9\d\.\d % at 200 queries\)\.", capsys.readouterr().out)
    assert not [each for each in caught if issubclass(each.category, AccuracyLossWarning)]
    if page.name == "README.md":
        assert namespace["result"].rating == "Vulnerable"
        assert (tmp_path / "audit.html").read_text("utf-8").startswith("<!DOCTYPE html>")
    if page.name == "divqat.md":
        stated = _figures(text)
        assert _accuracies(namespace["classifier"], namespace) == pytest.approx(stated["full precision"], abs=0.01)
        example = next(figures for row, figures in stated.items() if "the example" in row)
        assert _accuracies(namespace["quantized"], namespace) == pytest.approx(example, abs=0.01)
    if page.name == "reading-a-report.md":
        assert capsys.readouterr().out.startswith("Stealing the robust victim")
        assert {p.name for p in (tmp_path / "elsewhere").iterdir()} == {"results.json", "report.md", "report.html"}
        assert (tmp_path / "report.sarif").read_text("utf-8").startswith("{")


def _figures(text: str) -> dict[str, list[float]]:
    """The rows of the table of accuracies, validation and test, under the example of `divqat.md`."""
    table = text.split("| | validation | test |\n|---|---|---|\n")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {name: [float(cell) for cell in cells] for name, *cells in rows}


def _accuracies(classifier: Any, namespace: dict[str, Any]) -> list[float]:
    x, y = namespace["x"], namespace["y"]
    right = classifier.predict(x).argmax(axis=1) == y
    return [float(right[rows].mean()) for rows in (slice(1200, 1500), slice(1500, None))]


@pytest.mark.slow
def test_every_accuracy_that_the_example_of_divqat_states() -> None:
    text = (DOCS / "divqat.md").read_text(encoding="utf-8")
    block = next(block.group(1) for block in BLOCK.finditer(text) if "DivQATTrainer(" in block.group(1))
    namespace: dict[str, Any] = {"__name__": "docs"}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(block, namespace)
    x, y, teacher = namespace["x"], namespace["y"], namespace["classifier"]
    for row, stated in _figures(text).items():
        found = re.search(r"(plain QAT|DivQAT), (\d+) epochs", row)
        if found is None or "the example" in row:
            continue
        trainer = namespace["QATTrainer" if found[1] == "plain QAT" else "DivQATTrainer"](teacher, seed=0)
        expected = pytest.warns(AccuracyLossWarning) if "it warns" in row else contextlib.nullcontext()
        with expected:
            trainer.fit(x[:1200], y[:1200], (x[1200:1500], y[1200:1500]), batch_size=64, nb_epochs=int(found[2]))
        assert _accuracies(trainer.get_classifier(), namespace) == pytest.approx(stated, abs=0.01), row
        lost = re.search(r"(\.\d+) lost, (\.\d+) to (\.\d+)", row)
        if lost is not None:
            assert trainer.comparison.lost == pytest.approx(tuple(map(float, lost.groups())), abs=0.01)


def test_there_is_something_to_run() -> None:
    assert {"defend-a-classifier.md", "reading-a-report.md"} <= {page.name for page in PAGES}


GUIDE = DOCS / "choose-a-defence.md"


def _guide_rows(text: str) -> list[tuple[str, str, list[str]]]:
    """The rows of the guide's tables of figures: the report that each is from, what it is of, and its figures."""
    rows = []
    for table in re.finditer(r"((?:^\|.*\n)+)\n(.*(?:\n.+)*)", text, re.MULTILINE):
        links = re.findall(r"\]\((\.\./evaluations/\S+\.md)\)", table.group(2))
        for line in table.group(1).splitlines()[2:]:
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            sources = re.findall(r"\]\((\S+)\)", line) or links[:1]
            names = re.findall(r"`([^`]+)`", line)
            if sources and sources[0].startswith("../evaluations/") and len(names) == 1:
                figures = [cell for cell in cells if re.match(r"[−+]?\d", cell)]
                rows.append((sources[0], names[0], figures))
    return rows


def _not_in_report(source: str, name: str, figures: list[str]) -> list[str]:
    """The figures that stand in no line of the report that is about that victim or defence."""
    report = (DOCS / source).read_text(encoding="utf-8")
    # `none` is what a row is of that names no defence
    about = [
        line
        for line in report.splitlines()
        if re.search(rf"\| (standard \()?(defence )?{re.escape(name)}\)? \|", line)
        or (name == "none" and "| standard |" in line)
    ]
    # "(−2.7 to +1.3 points), cannot be told" is "(−2.7 to +1.3 points, cannot be told" there
    return [figure for figure in figures if not any(re.split(r"\), ", figure)[0].rstrip(")") in line for line in about)]


def test_figures_of_the_decision_guide_are_those_of_the_reports() -> None:
    rows = _guide_rows(GUIDE.read_text(encoding="utf-8"))
    assert len(rows) == 9 + 9 + 11
    missing = {(name, figure) for source, name, figures in rows for figure in _not_in_report(source, name, figures)}
    assert not missing


@pytest.mark.parametrize(
    "changed", [("80.4 %", "80.5 %"), ("6.05", "6.15"), ("38.5 %", "48.5 %"), ("| 1.022 |", "| 1.011 |")]
)
def test_a_figure_that_a_report_does_not_have_is_found(changed: tuple[str, str]) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    assert changed[0] in text
    rows = _guide_rows(text.replace(*changed))
    assert [figure for source, name, figures in rows for figure in _not_in_report(source, name, figures)]
