"""The rating of an audit rests on evidence, in every form of the report; the control stands beside it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.builders import MODEL, make_audit, make_results

from art_divqat.cli.tables import print_results
from art_divqat.report import Thresholds, render
from art_divqat.report.content import compose
from art_divqat.report.rating import control_text, rate_row, rating_text
from art_divqat.report.results_view import ResultsView
from art_divqat.results.schema import Results

FLAT = {250: 0.40, 500: 0.42, 1000: 0.43}
STOLEN = {250: 0.85, 1000: 0.95}


def rating(results: Results, thresholds: Thresholds | None = None) -> str:
    view = ResultsView(results)
    row = view.most_stolen()
    assert row is not None
    return rate_row(view, row, thresholds or Thresholds()).name


@pytest.mark.parametrize(
    ("agreement", "changes", "expected"),
    [
        (STOLEN, {}, "Vulnerable"),
        (STOLEN, {"control": None}, "Vulnerable"),
        (STOLEN, {"control": 0.1}, "Vulnerable"),
        (STOLEN, {"details": {"majority_answer": 0.92}}, "Inconclusive"),
        ({250: 0.7, 1000: 0.8}, {"control": None}, "Warning"),
        ({250: 0.7, 1000: 0.8}, {"details": {"majority_answer": 0.76}}, "Inconclusive"),
        (FLAT, {}, "Desired"),
        (FLAT, {"control": None}, "Inconclusive"),
        (FLAT, {"control": 0.74}, "Inconclusive"),
        ({1000: 0.43}, {}, "Inconclusive"),
    ],
)
def test_the_rating_of_an_audit(agreement: dict[int, float], changes: dict[str, Any], expected: str) -> None:
    results = make_audit(agreement, **changes)
    assert rating(results) == expected
    assert compose(results).rating == expected
    assert render(results, "md").startswith(f"# Model extraction audit: {expected.lower()}\n")


def test_thresholds_decide_what_stolen_means_of_the_control_too() -> None:
    results = make_audit(FLAT, control=0.6)
    assert rating(results) == "Inconclusive"
    assert rating(results, Thresholds(vulnerable=0.8, warning=0.5)) == "Desired"


def test_a_run_that_audits_nothing_is_rated_as_ever() -> None:
    results = make_results(budgets=(20,), seeds=1, rates=lambda *_: {"thief_accuracy": 0.1, "agreement": 0.1})
    assert rating(results) == "Desired"
    view = ResultsView(results)
    assert rating_text(view, Thresholds()) == control_text(view, 20, Thresholds()) == ""


def test_desired_is_said_in_plain_words_and_the_control_has_a_row_and_a_sentence() -> None:
    text = render(make_audit(FLAT), "md")
    assert "Tried properly, and it resisted, at 1,000 queries" in text
    assert "Control: of an undefended model that was trained here on the same data (standard, small-cnn, right" in text
    (row,) = (line for line in text.splitlines() if line.startswith("| control"))
    assert row.startswith("| control (standard, small-cnn, trained here, undefended) | knockoff, soft answers (1,000")
    assert "95.0 %" in row
    assert row.endswith("| stolen |")
    # and is no victim of the audit
    assert f"victims: {MODEL} |" in text
    assert "most stealable" not in text


def test_inconclusive_says_why_everywhere(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    results = make_audit(FLAT, control=0.5)
    why = "the control, an undefended model trained here, was not stolen either (agreement 50.0 %)"
    assert f"rated inconclusive: {why}" in render(results, "md")
    (found,) = (r for r in json.loads(render(results, "sarif"))["runs"][0]["results"] if r["ruleId"] != "flag/one-pool")
    assert (found["kind"], found["level"]) == ("open", "none")
    assert why in found["message"]["text"]
    junit = render(results, "junit")
    assert "Inconclusive: agreement on 43.0 %" in junit
    assert why in junit
    print_results(results, tmp_path)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Rating: inconclusive (agreement 43.0 % at 1,000 queries), as {why}" in printed
    assert "it was not stolen, so that the attack is too weak." in printed


def test_what_a_terminal_says_of_a_model_that_resisted_and_of_one_that_was_stolen() -> None:
    view = ResultsView(make_audit(FLAT))
    assert rating_text(view, Thresholds()) == (
        "Rating: desired (agreement 43.0 % at 1,000 queries): tried properly, and it resisted, at 1,000 queries."
    )
    stolen = ResultsView(make_audit(STOLEN, control=0.2))
    assert rating_text(stolen, Thresholds()) == "Rating: vulnerable (agreement 95.0 % at 1,000 queries)."
    assert control_text(stolen, 1000, Thresholds()).endswith("it was not stolen, but the audited model was")
    for agreement, start in ((FLAT, "There is no control"), (STOLEN, "")):
        said = control_text(ResultsView(make_audit(agreement, control=None)), 1000, Thresholds())
        assert bool(said) == bool(start)
        assert said.startswith(start)


@pytest.mark.parametrize("agreement", [FLAT, STOLEN])
def test_nobody_says_that_a_model_from_outside_never_saw_the_test_images(agreement: dict[int, float]) -> None:
    for form in ("md", "html", "sarif"):
        assert "unseen" not in render(make_audit(agreement), form)
    text = render(make_audit(agreement), "md")
    assert "whether it was fitted on these images, which would flatter both, cannot be known here" in text
    assert (
        "Whether the model was fitted on the test images, or on those of the attacker's pool, cannot be known" in text
    )
    assert "unseen test images" in render(make_results(), "md")
