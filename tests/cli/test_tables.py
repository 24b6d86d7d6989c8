"""What `evaluate` prints keeps its numbers and its names whole, however wide the terminal is."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.builders import make_results

from art_divqat.cli import tables
from art_divqat.report import finding
from art_divqat.results.schema import Estimate

DEFENCES = ("none", "heuristic:beta=0.5,preserve_label=true", "heuristic:beta=0.9+rounding:decimals=2")


@pytest.mark.parametrize("width", [80, 120, 200])
@pytest.mark.parametrize("attacks", [("knockoff",), ("knockoff", "jbda:nb_seeds=100")])
def test_numbers_and_names_are_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int, attacks: tuple[str, ...]
) -> None:
    monkeypatch.setattr(tables, "_WIDTH", width)
    found = make_results(defences=DEFENCES, attacks=attacks, budgets=(1_000,))
    tables.print_results(found, Path("run"))
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= width
    for row in found.summary:
        for metric in ("thief_accuracy", "agreement", "victim_robust_accuracy"):
            assert f"{row.metrics[metric].mean:.3f}" in printed
    if width == 200:
        for name in (*DEFENCES, *attacks):
            assert name == "none" or name in printed
    assert "".join(finding(found).split()) in "".join(printed.split())


def test_nothing_measured_yet(capsys: pytest.CaptureFixture[str]) -> None:
    found = make_results().model_copy(update={"cells": [], "summary": [], "comparisons": []})
    tables.print_results(found, Path("run"))
    assert "nothing to say yet" in capsys.readouterr().out


def test_what_was_done_to_the_images_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    data = {"dataset": {"test": 360, "notes": ["2 of 9 pictures\x1b[31m turned"]}, "pool": {"notes": ["squashed"]}}
    tables.print_results(make_results(data={**data, "evasion_images": 200}), Path("run"))
    printed = capsys.readouterr().out.splitlines()
    assert printed[1:3] == ["Data: 2 of 9 pictures\ufffd[31m turned", "Data: queries: squashed"]


@pytest.mark.parametrize("width", [80, 200])
def test_both_ends_of_an_interval_are_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    """A rate near 0 has an interval of 0 to .22, which no half width says; one seed may have none."""
    monkeypatch.setattr(tables, "_WIDTH", width)
    found = make_results()
    for row in found.summary:
        row.metrics["thief_accuracy"] = Estimate(mean=0.002, low=0.0, high=0.2204)
        row.metrics["extraction_ratio"] = Estimate(mean=1.004, low=0.9996, high=10.25)
        row.metrics["agreement"] = Estimate(mean=0.507, low=None, high=None)
    tables.print_results(found, Path("run"))
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    assert "±" not in printed
    # on 80 columns the ends stand on two lines
    for ends in ([".000–", ".220"], ["1.000–", "10.250"]):
        assert all(f"{end} " in printed for end in ends) or "".join(ends) in printed
    assert "0.002" in printed
    assert "0.507" in printed
    assert "0.507 ." not in printed


def test_a_narrow_terminal_leaves_names_room_beside_both_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tables, "_WIDTH", 80)
    found = make_results(defences=DEFENCES, attacks=("knockoff", "jbda:nb_seeds=100"), budgets=(1_000,))
    for row in found.summary:
        row.metrics["thief_accuracy"] = Estimate(mean=0.002, low=0.0114, high=0.2204)
    tables.print_results(found, Path("run"))
    printed = capsys.readouterr().out
    assert ".011– " in printed
    assert ".220 " in printed
    # names are cut to pieces of a word, not to letters
    assert "knoc" in printed


@pytest.mark.parametrize("width", [80, 100, 120])
def test_headings_stay_whole_beside_long_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setattr(tables, "_WIDTH", width)
    long = "divqat:alpha_auxiliary=0.5,auxiliary=npz:images-of-other-classes.npz,epochs=3,mixture=none"
    tables.print_results(make_results(victims=("standard", long), attacks=("knockoff", "scout")), Path("run"))
    printed = capsys.readouterr().out
    heading = next(line for line in printed.splitlines() if "of victim" in line)
    assert {"attack", "answers", "queries"} <= set(heading.split())


@pytest.mark.parametrize("width", range(112, 132))
def test_no_interval_loses_its_last_digits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    """Just above and below the width at which intervals stand beside their numbers, where short names cannot fold."""
    monkeypatch.setattr(tables, "_WIDTH", width)
    found = make_results(answers=("soft", "hard"), budgets=(250, 1_000))
    for row in found.summary:
        for name in row.metrics:
            row.metrics[name] = Estimate(mean=0.131, low=0.1204, high=0.1432)
    tables.print_results(found, Path("run"))
    printed = capsys.readouterr().out
    table = printed[printed.index("Thieves") :].partition("Stealing")[0]
    assert table.count(".120") == table.count(".143") > 0
