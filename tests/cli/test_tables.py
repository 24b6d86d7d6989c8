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


def test_both_ends_of_an_interval_are_printed() -> None:
    assert tables._number(Estimate(mean=0.002, low=0.0, high=0.22), " ") == "0.002 .000–.220"
    assert tables._number(Estimate(mean=0.99, low=0.9, high=1.0), "\n") == "0.990\n.900–1.000"
    assert tables._number(Estimate(mean=1.2, low=0.9, high=10.25), " ") == "1.200 .900–10.250"
    assert tables._number(Estimate(mean=0.1, low=-0.05, high=0.25), " ") == "0.100 -.050–.250"
    assert tables._number(Estimate(mean=0.5), " ") == "0.500"


def test_nothing_measured_yet(capsys: pytest.CaptureFixture[str]) -> None:
    found = make_results().model_copy(update={"cells": [], "summary": [], "comparisons": []})
    tables.print_results(found, Path("run"))
    assert "nothing to say yet" in capsys.readouterr().out
