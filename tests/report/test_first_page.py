"""The first page says what to do and what it costs, as far as the results say it; every figure carries its data."""

from __future__ import annotations

import base64
import csv
import io
import re

import pytest
from support.builders import make_audit, make_results, with_curves

from art_divqat.report.content import compose
from art_divqat.report.html import render_html, render_notebook
from art_divqat.report.markdown import render_markdown
from art_divqat.results.schema import Flag, Results

FLAT = {500: 0.42, 1000: 0.43}
LINK = re.compile(r'download="([^"]+)" href="data:text/csv;charset=utf-8;base64,([^"]+)"')


@pytest.mark.parametrize(
    ("results", "said"),
    [
        (make_audit({500: 0.94, 1000: 0.95}), "The audited model can be copied."),
        (make_audit({500: 0.8, 1000: 0.81}), "The audited model can be copied in part."),
        (make_audit(FLAT), "No attacker got a good copy of the audited model."),
        (make_audit(FLAT, control=0.5), "This audit allows no verdict."),
    ],
)
def test_the_verdict_is_plain_and_follows_the_rating(results: Results, said: str) -> None:
    assert compose(results).first_page.verdict == said
    assert f"<h1>{said}</h1>" in render_html(results)


def test_nothing_measured_is_said_and_costs_nothing() -> None:
    page = compose(make_results().model_copy(update={"cells": [], "summary": [], "comparisons": []})).first_page
    assert page.verdict == "Nothing has been measured yet."
    assert page.costs == []
    assert len(page.advice) == 1


def test_advice_weighs_labels_only_where_both_kinds_were_tried() -> None:
    def rates(victim: str, defence: str, answers: str, budget: int) -> dict[str, float]:
        return {"victim_accuracy": 0.97, "thief_accuracy": 0.8, "agreement": 0.61 if answers == "hard" else 0.93}

    both = compose(make_results(rates, answers=("soft", "hard"), noise=0.0)).first_page.advice
    assert any("agrees on 61.0 % of test images, from probabilities on 93.0 %" in point for point in both)
    one = compose(make_results(rates, answers=("soft",), noise=0.0)).first_page.advice
    assert not any("labels" in point for point in one)


def test_a_defence_that_does_nothing_is_not_recommended_and_its_cost_is_said() -> None:
    def rates(victim: str, defence: str, answers: str, budget: int) -> dict[str, float]:
        helps = defence.startswith("strong")
        return {
            "victim_accuracy": 0.97,
            "defended_accuracy": 0.97 if defence == "none" else 0.912,
            "latency_us": 186.0 if defence == "none" else 321.0,
            "label_flip_rate": 0.0 if defence == "none" else 0.06,
            "thief_accuracy": 0.3 if helps else 0.9,
            "agreement": 0.9,
        }

    weak = compose(make_results(rates, defences=("none", "weak"), noise=0.0)).first_page
    assert any(point.startswith("Do not rely on the defence weak") for point in weak.advice)
    (cost,) = (what for who, what in weak.costs if who.startswith("Users, behind standard"))
    assert cost == (
        "defended accuracy 91.2 % (without it 97.0 %); labels flipped 6.0 %; latency 321 µs (without it 186)."
    )
    strong = compose(make_results(rates, defences=("none", "weak", "strong"), noise=0.0)).first_page
    assert any("strong, which leaves the least" in point and "30.0 %" in point for point in strong.advice)
    # the one that is advised stands first
    assert next(who for who, _ in strong.costs if who.startswith("Users")).endswith("+ strong")


def test_warnings_become_one_piece_of_advice() -> None:
    flags = [
        Flag(name=f"f{number}", raised_because="r", meaning="m", remedy=f"Do thing {number}.") for number in range(5)
    ]
    points = compose(make_results(flags=[flags[0], *flags])).first_page.advice
    assert [point for point in points if "audit:" in point] == [
        "For a firmer audit: do thing 0. Do thing 1. Do thing 2."
    ]
    assert not any("firmer" in point for point in compose(make_results(flags=[])).first_page.advice)


def test_what_markdown_says_does_not_depend_on_the_first_page() -> None:
    markdown = render_markdown(make_results())
    assert "What it costs" not in markdown
    assert "What to do" not in markdown.split("## ")[0]


def test_every_figure_carries_its_numbers_unrounded() -> None:
    results = with_curves(make_results(answers=("soft", "hard"), defences=("none", "=1+1")))
    html = render_html(results)
    files = [(name, base64.b64decode(text).decode()) for name, text in LINK.findall(html)]
    assert len(files) == html.count("<figure>") > 3
    assert {"agreement-over-budget.csv", "accuracy-under-attack.csv"} <= {name for name, _ in files}
    (curves,) = (text for name, text in files if name == "agreement-over-budget.csv")
    rows = list(csv.DictReader(io.StringIO(curves)))
    values = {float(row["agreement"]) for row in rows}
    assert values <= {row.metrics["agreement"].mean for row in results.summary}
    assert {"agreement.low", "agreement.high", "budget", "attacker", "line"} <= set(rows[0])
    dots = next(text for name, text in files if name == "accuracy-under-attack.csv")
    assert "\n=" not in dots


def test_dark_and_print_are_seen_to() -> None:
    html = render_html(make_results())
    assert "@media screen and (prefers-color-scheme: dark)" in html
    assert ".first { break-after: page; }" in html
    assert '<meta name="color-scheme" content="light dark">' in html


def test_a_notebook_gets_text_and_nothing_that_runs_or_stands_out_of_its_cell() -> None:
    results = make_audit(FLAT, flags=[])
    hostile = results.model_copy(update={"tool": {"name": "x", "version": "<script>1</script>"}})
    html = render_notebook(hostile, "runs/<b>a&b</b>")
    assert "<script" not in html
    assert "runs/&lt;b&gt;a&amp;b&lt;/b&gt;" in html
    assert html.startswith('<div class="art-divqat">')
    assert html.rstrip().endswith("</div>")
    style = html.split("<style>")[1].split("</style>")[0]
    assert all(line.lstrip().startswith(".art-divqat") for line in style.strip().splitlines())
    assert html.count("<img") == 1
    assert "id=" not in html.split("</style>")[1].split("base64,")[0]
