"""Curves over ε in the report: both victims and both thieves, in every form, and the claims judged by them."""

from __future__ import annotations

import json

import pytest
from support.builders import CURVE_RATES, comparison, make_results, with_curves

from art_divqat.report import render_html, render_json, render_markdown
from art_divqat.report.claims import judge_claims
from art_divqat.report.epsilon import epsilon_figures
from art_divqat.report.results_view import ResultsView
from art_divqat.results.schema import Estimate, Results


@pytest.fixture(scope="module")
def results() -> Results:
    return with_curves(make_results())


def test_both_victims_and_both_thieves_are_drawn_with_every_number_beside_them(results: Results) -> None:
    white_box, crossing = epsilon_figures(ResultsView(results), "robust:epsilon=0.2", "standard")
    lines = [row[0].text for row in white_box.numbers.rows if row[1].text == "knockoff, soft answers"]
    assert lines == ["standard victim", "robust victim", "thief of standard", "thief of robust"]
    assert [row[0].text for row in crossing.numbers.rows][:2] == ["thief of standard", "thief of robust"]
    assert white_box.numbers.headings[2:] == ("ε = 0", "ε = 0.1", "ε = 0.2", "ε = 0.3")
    robust = next(row for row in white_box.numbers.rows if row[0].text == "robust victim")
    assert [cell.text for cell in robust[2:]] == ["96.0 %", "80.0 %", "50.0 %", "20.0 %"]
    assert robust[3].detail == "75.0–85.0 %"
    assert "robust victim (knockoff, soft answers): 96.0 % at 0, 80.0 % at 0.1" in white_box.alt
    assert white_box.svg == epsilon_figures(ResultsView(results), "robust:epsilon=0.2", "standard")[0].svg


def test_html_markdown_and_json_hold_the_curves(results: Results) -> None:
    page, text = render_html(results), render_markdown(results)
    assert page.count("Robust accuracy over ε: images on which no attack") == 2
    assert "| thief of robust | knockoff, soft answers | 89.0 % (84.0–94.0 %) | 40.0 % (35.0–45.0 %) |" in text
    record = json.loads(render_json(results))
    curve = next(row["curves"] for row in record["summary"] if row["curves"])["thief_robust_accuracy"]
    assert [point["mean"] for point in curve] == list(CURVE_RATES["thief_robust_accuracy"]["standard"])
    assert Results.model_validate(record) == results


def test_a_run_without_curves_draws_none_and_reads_back() -> None:
    results = make_results()
    assert epsilon_figures(ResultsView(results), "robust:epsilon=0.2", "standard") == []
    record = json.loads(render_json(results))
    for row in (*record["cells"], *record["summary"]):
        del row["curves"]
    for row in record["comparisons"]:
        del row["epsilon"]
    assert Results.model_validate(record) == results


def test_a_victim_without_a_baseline_has_its_own_curve() -> None:
    results = with_curves(make_results(victims=("standard",), baseline=None))
    text = render_markdown(results)
    assert text.count("**Robust accuracy over ε**") == 1
    assert "standard victim" in text


def test_transfer_is_judged_by_the_curve_and_says_where_it_cannot_be_told(results: Results) -> None:
    judged = [j for j in judge_claims(ResultsView(results)) if j.comparison.kind == "curve_difference"]
    assert {j.comparison.metric for j in judged} == {"thief_robust_accuracy", "transfer_robust_accuracy"}
    thief = next(j for j in judged if j.comparison.metric == "thief_robust_accuracy")
    assert thief.verdict == "holds"
    assert thief.measured == "+9.0 points"
    assert thief.interval == "+3.0 to +15.0 points; higher at ε = 0.1, 0.2; cannot tell at ε = 0.3"


@pytest.mark.parametrize(
    ("low", "high", "verdict", "expected"),
    [
        (-0.02, 0.2, "cannot tell", "includes zero"),
        (-0.2, -0.1, "does not hold", "−20.0 to −10.0 points"),
        (0.1, 0.2, "holds", "+10.0 to +20.0 points"),
    ],
)
def test_a_difference_over_the_curve_that_includes_zero_is_said_to(
    low: float, high: float, verdict: str, expected: str
) -> None:
    results = make_results()
    where = results.summary[-1].model_dump(exclude={"metrics", "n_seeds", "curves"})
    value = Estimate(mean=(low + high) / 2, low=low, high=high)
    where |= {"baseline": "standard", "n_seeds": 3, "epsilon": None}
    found = comparison("curve_difference", "transfer_robust_accuracy", value, **where)
    view = ResultsView(results.model_copy(update={"comparisons": [found]}))
    (judged,) = judge_claims(view)
    assert judged.verdict == verdict
    assert expected in judged.interval
