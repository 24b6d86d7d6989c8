"""The finding is true in every case: higher, lower, cannot tell, not reached, one seed, defences, nothing at all."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

import pytest
from support.builders import comparison, make_results, robust_rates

from art_divqat.report import finding, render, render_html, render_markdown
from art_divqat.report.claims import judge_claims
from art_divqat.report.results_view import ResultsView
from art_divqat.results.schema import Comparison, Estimate, Results

ROBUST = "robust:epsilon=0.2"
WHERE = {
    "dataset": "digits", "victim": ROBUST, "baseline": "standard", "defence": "none", "attack": "knockoff",
    "answers": "soft", "budget": 1_000, "n_seeds": 3,
}  # fmt: skip


def compared(*comparisons: Comparison, **fields: Any) -> Results:
    results = make_results(noise=0.0, **fields)
    return results.model_copy(update={"comparisons": list(comparisons)})


def agreement_ratio(low: float | None, mean: float, high: float | None, **where: Any) -> Comparison:
    return comparison("ratio", "agreement", Estimate(mean=mean, low=low, high=high), **{**WHERE, **where})


def fraction(value: Estimate | None, bound: Any, verdict: Any = "cannot tell", metric: str = "agreement") -> Comparison:
    return comparison("query_fraction", metric, value, bound=bound, verdict=verdict, **WHERE)


def test_a_robust_victim_that_is_easier_to_steal() -> None:
    results = compared(
        agreement_ratio(1.05, 1.14, 1.22), fraction(Estimate(mean=0.62, low=0.5, high=0.8), "exact", "lower")
    )
    assert finding(results) == (
        "Stealing the robust victim with 1,000 queries (knockoff, soft answers) gives a thief that agrees with it on "
        "87.0 % of test images, 1.14 times (95 % interval 1.05–1.22) the standard victim's; it reaches the standard "
        "thief's level with 0.62 of the queries (95 % interval 0.50–0.80)."
    )


def test_lower_is_told_as_it_is() -> None:
    assert "0.90 times (95 % interval 0.85–0.95) the standard victim's." in finding(
        compared(agreement_ratio(0.85, 0.9, 0.95))
    )


def test_an_interval_with_one_in_it_is_said_to_include_it() -> None:
    text = finding(compared(agreement_ratio(0.97, 1.04, 1.11)))
    assert "an interval of 0.97–1.11 that includes 1: they cannot be told apart" in text
    assert "higher" not in text


@pytest.mark.parametrize(
    ("seeds", "words"),
    [(12.0, "about 12 seeds would tell"), (inf, "more than 100 seeds: too small to tell"), (None, "")],
)
def test_what_cannot_be_told_says_how_many_seeds_would_tell(seeds: float | None, words: str) -> None:
    found = compared(agreement_ratio(0.97, 1.04, 1.11).model_copy(update={"seeds_needed": seeds}))
    end = f" ({words})." if words else "."
    assert finding(found).endswith(f"they cannot be told apart{end}")
    (judged,) = judge_claims(ResultsView(found))
    assert judged.interval == "0.97–1.11, includes 1" + (f"; {words}" if words else "")
    # the file is what it was before there were plans
    assert "seeds_needed" not in render(found, "json")


def test_without_an_interval_nothing_is_claimed() -> None:
    assert "with no interval to tell whether they differ" in finding(compared(agreement_ratio(None, 1.3, None)))


@pytest.mark.parametrize(
    ("value", "bound", "verdict", "expected"),
    [
        (None, "not reached", "higher", "it does not reach the standard thief's level within the budget."),
        (None, "not reached", "cannot tell", "within the budget, though the interval does not rule it out."),
        (Estimate(mean=0.25, low=0.25, high=0.25), "at most", "lower", "with at most 0.25 of the queries."),
        (Estimate(mean=0.9, low=0.7, high=None), "exact", "cannot tell",
         "with 0.90 of the queries (95 % interval from 0.70, no upper end, which includes 1)."),
        (None, None, "cannot tell", "the standard victim's."),
    ],
)  # fmt: skip
def test_the_fraction_of_the_queries(value: Estimate | None, bound: str | None, verdict: str, expected: str) -> None:
    assert finding(compared(agreement_ratio(1.1, 1.2, 1.3), fraction(value, bound, verdict))).endswith(expected)


def test_one_seed_says_so() -> None:
    assert "(one seed: how much another one would differ is not known)." in finding(make_results(seeds=1))
    assert "one seed" not in finding(make_results(seeds=2))


def test_an_unfinished_run_says_so() -> None:
    assert finding(make_results(planned=99)).startswith("So far, with 36 of 99 cells finished: Stealing")


def test_it_speaks_of_the_best_attacker_of_the_victim() -> None:
    def hard_is_best(victim: str, defence: str, answers: str, budget: int) -> Mapping[str, float]:
        return {"agreement": 0.9 if answers == "hard" else 0.5, "thief_accuracy": 0.5}

    results = make_results(hard_is_best, noise=0.0).model_copy(
        update={"comparisons": [agreement_ratio(1.1, 1.2, 1.3), agreement_ratio(1.4, 1.5, 1.6, answers="hard")]}
    )
    assert "hard answers" in finding(results)
    assert "90.0 %" in finding(results)
    assert "1.50 times" in finding(results)


def test_names_that_begin_alike_are_told_apart() -> None:
    victims = ("standard", "robust:epsilon=0.1", "robust:epsilon=0.2")
    assert "Stealing the robust:epsilon=0.1 victim" in finding(make_results(victims=victims))


def test_a_baseline_that_has_a_baseline_itself_does_not_lead() -> None:
    divqat = "divqat:auxiliary=mixture"
    results = compared(
        agreement_ratio(0.97, 1.01, 1.07, victim="quantized"),
        agreement_ratio(0.1, 0.14, 0.2, victim=divqat, baseline="quantized"),
        victims=("quantized", divqat, "standard", "ptq"),
    )
    assert finding(results).startswith("Stealing the divqat victim")
    assert "0.14 times (95 % interval 0.10–0.20) the quantized victim's" in finding(results)


def test_without_a_baseline_there_is_no_comparison() -> None:
    text = finding(make_results(victims=("standard",), baseline=None))
    assert "there is no baseline to compare it with." in text
    assert "times" not in text


def defended(before: Mapping[str, float], after: Mapping[str, float], **fields: Any) -> Results:
    def rates(victim: str, defence: str, answers: str, budget: int) -> Mapping[str, float]:
        value = (before if defence == "none" else after)[answers]
        return {"agreement": value, "thief_accuracy": value}

    given = {"victims": ("standard",), "baseline": None, "defences": ("none", "heuristic:beta=0.9"), "noise": 0.001}
    return make_results(rates, **{**given, **fields})


def test_defences_that_a_thief_with_labels_walks_round_are_named() -> None:
    rates = {"none": (0.9, 0.85), "mad": (0.3, 0.4), "heuristic:beta=0.9": (0.5, 0.85), "rounding": (0.9, 0.85)}

    def recipe(victim: str, defence: str, answers: str, budget: int) -> dict[str, float]:
        value = rates[defence][answers == "hard"]
        return {"agreement": value, "thief_accuracy": value}

    text = finding(
        make_results(recipe, victims=("standard",), baseline=None, defences=tuple(rates), noise=0.001)
    )  # fmt: skip
    assert text.startswith("Of 3 defences mad leaves the least")
    assert text.endswith("; a thief that trains on labels alone loses nothing that can be told from zero to heuristic.")


def test_a_defence_is_scored_by_its_best_attacker() -> None:
    text = finding(defended({"soft": 0.9, "hard": 0.89}, {"soft": 0.4, "hard": 0.89}))
    assert text.startswith(
        "The defence heuristic leaves the best thief of the standard victim at 1,000 queries (knockoff, hard answers) "
        "an accuracy of 89."
    )
    assert "not to be told from the 89." in text, "that attacker's own, not that of the best without the defence"
    assert "of that attacker without it; the best without it (knockoff, soft answers) has 9" in text
    assert "the thief with soft answers is hurt" in text
    assert "but the one with hard answers is not" in text


def test_a_defence_that_works_on_both_is_not_qualified() -> None:
    text = finding(defended({"soft": 0.9, "hard": 0.89}, {"soft": 0.4, "hard": 0.3}))
    assert "lowers" in text
    assert "is not" not in text


def test_a_defence_that_does_nothing_is_said_to_do_nothing() -> None:
    text = finding(defended({"soft": 0.9, "hard": 0.8}, {"soft": 0.9, "hard": 0.8}, noise=0.01))
    assert "a difference that cannot be told from zero" in text
    assert "lowers" not in text


def test_a_defence_that_helps_the_thief_is_said_to() -> None:
    assert "does not protect: it raises" in finding(defended({"soft": 0.5, "hard": 0.4}, {"soft": 0.8, "hard": 0.5}))


@pytest.mark.parametrize(("before", "text"), [(0.7, "higher than the 70."), (0.9, "lower than the 90.")])
def test_the_best_attacker_under_a_defence_is_compared_with_itself(before: float, text: str) -> None:
    results = defended({"soft": 0.95, "hard": before}, {"soft": 0.4, "hard": 0.8}, noise=0.0)
    assert f"{text}0 % of that attacker without it; the best without it (knockoff, soft answers)" in finding(results)
    row = next(line for line in render_markdown(results).splitlines() if "heuristic" in line and "points" in line)
    assert "of knockoff, hard answers, the best thief under it; without it knockoff, soft answers is the best" in row


def test_an_attacker_that_was_not_run_without_the_defence_has_no_effect() -> None:
    results = defended({"soft": 0.95, "hard": 0.7}, {"soft": 0.4, "hard": 0.8}, noise=0.0)
    kept = [c for c in results.comparisons if c.answers != "hard"]
    lacking = results.model_copy(update={"comparisons": kept})
    assert "and that attacker was not compared with itself without it; the best" in finding(lacking)
    assert "is not (" not in finding(lacking), "nothing says that labels are enough"
    assert "knockoff, hard answers, the best thief under it, was not compared with itself" in render_markdown(lacking)


def test_one_seed_of_a_defence_has_no_interval_and_no_claim() -> None:
    text = finding(defended({"soft": 0.9, "hard": 0.89}, {"soft": 0.4, "hard": 0.3}, seeds=1))
    assert "cannot be told from zero" in text


def test_both_victims_and_defences_are_one_sentence() -> None:
    text = finding(make_results(defences=("none", "heuristic:beta=0.9")))
    assert "the standard victim's" in text
    assert "; the defence heuristic" in text
    assert text.count(". ") == 0


def verdicts(*comparisons: Comparison) -> list[str]:
    return [judged.verdict for judged in judge_claims(ResultsView(compared(*comparisons)))]


def test_claims_follow_their_intervals() -> None:
    assert verdicts(agreement_ratio(1.05, 1.1, 1.2)) == ["holds"]
    assert verdicts(agreement_ratio(0.8, 0.9, 0.95)) == ["does not hold"]
    assert verdicts(agreement_ratio(0.9, 1.1, 1.2)) == ["cannot tell"]
    assert verdicts(agreement_ratio(None, 1.5, None)) == ["cannot tell"]


@pytest.mark.parametrize(
    ("value", "bound", "verdict", "judged"),
    [
        (Estimate(mean=0.5, low=0.4, high=0.7), "exact", "lower", "holds"),
        (Estimate(mean=0.7, low=0.6, high=0.8), "exact", "lower", "cannot tell"),
        (Estimate(mean=0.9, low=0.8, high=0.95), "exact", "lower", "does not hold"),
        (Estimate(mean=0.9, low=0.8, high=0.95), "at most", "lower", "cannot tell"),
        (Estimate(mean=0.2, low=0.2, high=0.3), "at most", "lower", "holds"),
        (Estimate(mean=0.6, low=0.5, high=None), "exact", "cannot tell", "cannot tell"),
        (None, "not reached", "higher", "does not hold"),
        (None, "not reached", "cannot tell", "cannot tell"),
        (None, None, "cannot tell", "cannot tell"),
    ],
)
def test_the_claim_on_queries_is_against_three_quarters(
    value: Estimate | None, bound: str | None, verdict: str, judged: str
) -> None:
    assert verdicts(fraction(value, bound, verdict)) == [judged]


def test_claims_are_about_robust_victims_alone() -> None:
    other = agreement_ratio(1.05, 1.1, 1.2, victim="quantized")
    results = make_results(victims=("standard", "quantized")).model_copy(update={"comparisons": [other]})
    assert judge_claims(ResultsView(results)) == []
    assert "Are robust models easier to steal?" not in render_markdown(results)


def test_differences_that_include_zero_are_said_to() -> None:
    gap = Estimate(mean=0.1, low=-0.05, high=0.25)
    results = compared(comparison("difference", "thief_robust_accuracy", gap, **WHERE))
    for text in (render_html(results), render_markdown(results)):
        assert "−5.0 to +25.0 points, includes zero" in text
        assert "cannot tell" in text


def test_a_rating_whose_interval_crosses_a_threshold_says_so() -> None:
    results = make_results(lambda *a: {**robust_rates(*a), "agreement": 0.89}, noise=0.02, seeds=3)
    assert "the interval reaches into vulnerable" in render_html(results)
