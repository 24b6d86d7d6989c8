"""What stands against concluding that an audited model was stolen, or that it resisted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from support.builders import MODEL, make_audit

from art_divqat.report import rating_sentence
from art_divqat.results.doubts import control_row, doubts_of_resistance, doubts_of_theft, least_queries
from art_divqat.results.flags import RULES, compute_flags
from art_divqat.results.gate import evaluate_gate
from art_divqat.results.schema import Results, SummaryRow

FLAT = {250: 0.40, 500: 0.42, 1000: 0.43}
STOLEN = {250: 0.85, 1000: 0.95}


def best(results: Results) -> SummaryRow:
    rows = [row for row in results.summary if row.victim == MODEL]
    return max(rows, key=lambda row: (row.budget, row.metrics["agreement"].mean))


def resisted(results: Results) -> list[str]:
    return doubts_of_resistance(results, best(results), 0.75)


def with_cells(results: Results, **details: float) -> Results:
    """The details of every cell of the audited model, changed."""
    cells = [
        cell if cell.victim != MODEL else cell.model_copy(update={"details": {**cell.details, **details}})
        for cell in results.cells
    ]
    return results.model_copy(update={"cells": cells})


def test_a_flat_curve_a_stolen_control_and_enough_queries_leave_no_doubt() -> None:
    assert resisted(make_audit(FLAT)) == []
    assert resisted(make_audit({30: 0.5, 60: 0.51}, classes=4)) == []
    assert doubts_of_theft(make_audit(STOLEN), best(make_audit(STOLEN)), 0.9) == []


@pytest.mark.parametrize(
    ("agreement", "changes", "said"),
    [
        (FLAT, {"control": 0.75}, "the control, an undefended model trained here, was not stolen either"),
        (FLAT, {"control": 0.1}, "agreement 10.0 %"),
        (FLAT, {"control": None}, "no control was run"),
        (
            FLAT,
            {"control": 0.96, "details": {"majority_answer": 0.9}},
            "the control gives 90.0 % of the test images one",
        ),
        ({250: 0.40, 500: 0.50, 1000: 0.60}, {}, "still rises at the largest budget, by 10.0 points for twice"),
        ({250: 0.40, 1000: 0.52}, {}, "by 6.0 points for twice"),
        ({500: 0.4}, {}, "one budget does not show"),
        (FLAT, {"original": 0.41}, "is right on 42.0 % of the test images and the original on 41.0 %"),
        ({25: 0.4, 50: 0.4}, {}, "50 queries are few for 10 classes: at least 53"),
        (FLAT, {"classes": 1000}, "at least 9,904"),
        (FLAT, {"attacks": ("knockoff",)}, "every attacker asked the images of photos"),
        (FLAT, {"answers": ("soft",)}, "every attacker used probabilities"),
        (FLAT, {"defences": ("heuristic:beta=0.9",)}, "no attacker did anything about heuristic"),
        (FLAT, {"details": {"thief_final_loss_slope": -0.2}}, "loss was still falling"),
        (FLAT, {"details": {"linear_probe_accuracy": 0.9}}, "a linear classifier trained on the same answers did"),
        (FLAT, {"details": {"victim_train_mode": 1.0}}, "answered in train mode"),
        (FLAT, {"details": {"victim_nondeterminism": 0.1}}, "got answers up to 0.1 apart"),
    ],
)
def test_what_makes_a_model_that_was_not_stolen_inconclusive(
    agreement: dict[int, float], changes: dict[str, Any], said: str
) -> None:
    found = resisted(make_audit(agreement, **changes))
    assert any(said in doubt for doubt in found), found
    assert all(doubt == doubt.strip(". ") and "\n" not in doubt for doubt in found)


def _with_colour_images(results: Results) -> Results:
    dataset = {**results.dataset, "input_shape": [3, 64, 64]}
    return results.model_copy(update={"data": {**results.data, "dataset": dataset}})


def _with_queries_left(results: Results) -> Results:
    return results.model_copy(update={"cells": [cell.model_copy(update={"queries": 20}) for cell in results.cells]})


# what raises each flag that voids
VOIDING: dict[str, Callable[[], Results]] = {
    "one-pool": lambda: make_audit(FLAT, attacks=("knockoff",)),
    "only-soft-answers": lambda: make_audit(FLAT, answers=("soft",)),
    "no-adaptive-attacker": lambda: make_audit(FLAT, defences=("rounding:decimals=1",)),
    "thieves-from-nothing": lambda: _with_colour_images(make_audit(FLAT)),
    "thief-undertrained": lambda: make_audit(FLAT, details={"thief_final_loss_slope": -0.2}),
    "answers-off-simplex": lambda: make_audit(FLAT, details={"victim_simplex_error": 0.5}),
    "victim-nondeterministic": lambda: make_audit(FLAT, details={"victim_nondeterminism": 0.1}),
    "victim-in-train-mode": lambda: make_audit(FLAT, details={"victim_train_mode": 1.0}),
    "budget-not-exhausted": lambda: _with_queries_left(make_audit(FLAT)),
}


def test_every_flag_that_voids_is_known_here() -> None:
    assert set(VOIDING) == {rule.name for rule in RULES if rule.voids}


@pytest.mark.parametrize("name", VOIDING)
def test_each_flag_that_voids_makes_a_model_that_was_not_stolen_inconclusive(name: str) -> None:
    results = VOIDING[name]()
    (flag,) = (flag for flag in compute_flags(results) if flag.name == name)
    # of the best attacker alone, where the flag names all of them
    (said,) = (each for each in resisted(results) if flag.raised_because.casefold().startswith(each[:20].casefold()))
    rating = rating_sentence(results)
    assert rating.startswith("Rating: inconclusive (agreement 43.0 % at 1,000 queries), as ")
    assert said in rating


def test_cells_that_are_missing() -> None:
    results = make_audit(FLAT)
    assert resisted(results.model_copy(update={"planned": results.planned + 3})) == ["40 of 43 cells have finished"]
    unmeasured = results.model_copy(update={"summary": [row for row in results.summary if row.victim == MODEL]})
    assert resisted(unmeasured) == ["the control has not been measured"]


def test_a_weak_attacker_beside_a_sound_one_voids_nothing() -> None:
    results = make_audit(FLAT)
    cells = [
        cell.model_copy(update={"details": {"thief_final_loss_slope": -0.5}}) if cell.attack == "scout" else cell
        for cell in results.cells
    ]
    summary = [
        row
        if row.attack != "scout" or row.victim != MODEL
        else row.model_copy(update={"metrics": {k: e.model_copy(update={"mean": 0.2}) for k, e in row.metrics.items()}})
        for row in results.summary
    ]
    weak = results.model_copy(update={"cells": cells, "summary": summary})
    assert "thief-undertrained" in {flag.name for flag in compute_flags(weak)}
    assert resisted(weak) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"details": {"majority_answer": 0.93}}, "the model gives 93.0 % of the test images one class"),
        ({"test_overlap": 0.6}, "60.0 % of the test images are training or query images too"),
        ({"test_overlap": 1.0}, "100.0 % of the test images"),
        ({"details": {"pool_overlap": 0.2}}, "20.0 % of the attacker's pool are the victim's training images"),
    ],
)
def test_what_makes_a_model_that_was_stolen_inconclusive(changes: dict[str, Any], said: str) -> None:
    results = make_audit(STOLEN, **changes)
    (found,) = doubts_of_theft(results, best(results), 0.9)
    assert said in found


@pytest.mark.parametrize(
    "changes",
    [
        {"control": 0.2},
        {"control": None},
        {"test_overlap": 0.002},
        {"details": {"majority_answer": 0.85}},
        {"details": {"pool_overlap": 0.005}},
        {"details": {"thief_final_loss_slope": -0.5}},
        {"classes": 1000},
    ],
)
def test_what_leaves_a_theft_a_theft(changes: dict[str, Any]) -> None:
    results = make_audit(STOLEN, **changes)
    assert doubts_of_theft(results, best(results), 0.9) == []


def test_the_control_is_in_no_flag_and_no_gate() -> None:
    results = make_audit(FLAT, control=0.99)
    assert "one-seed" not in {flag.name for flag in compute_flags(results)}
    assert evaluate_gate(results, ["agreement>0.9"]).passed
    assert not evaluate_gate(results, ["agreement>0.42"]).passed
    row = control_row(results, 1000)
    assert row is not None
    assert row.metrics["agreement"].mean == pytest.approx(0.99)
    assert control_row(results, 500) is None


def test_a_thief_cannot_give_a_class_that_it_never_saw() -> None:
    for classes in (2, 7, 100):
        queries = least_queries(classes)
        # the expected number of classes that even answers miss is about what was allowed
        assert classes * math.exp(-queries / classes) <= 0.05 < classes * math.exp(-(queries - 1) / classes) * 1.01
