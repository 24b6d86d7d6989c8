"""Every postprocessor here and every one of ART's against the public checks; ART's known failures by name."""

from __future__ import annotations

import tracemalloc

import art.defences.postprocessor as art_postprocessors
import numpy as np
import pytest
from art.estimators.classification import BlackBoxClassifier

import art_divqat.defences.postprocessor as ours
from art_divqat.testing import POSTPROCESSOR_CHECKS, check_postprocessor

OURS = {
    "Softmax": lambda: ours.Softmax(),
    "Heuristic": lambda: ours.HeuristicPerturbation(0.5, 0.2),
    "Heuristic-open": lambda: ours.HeuristicPerturbation(1.5, 0.2),
    "Heuristic-released": lambda: ours.HeuristicPerturbation(0.9, 0.2, variant="released"),
    "Heuristic-preserving": lambda: ours.HeuristicPerturbation(1.2, 0.1, preserve_label=True),
    "Heuristic-beyond": lambda: ours.HeuristicPerturbation(7.0, 5.0),
    "Heuristic-logits": lambda: ours.HeuristicPerturbation(0.9, 0.2, input_type="logits"),
    "ClassLabels": lambda: ours.ClassLabels(),
    "ReverseSigmoid": lambda: ours.ReverseSigmoid(1.0, 0.2),
    "Rounding": lambda: ours.Rounding(2),
    "TopK": lambda: ours.TopK(2),
    "HighConfidence": lambda: ours.HighConfidence(0.25),
    "GaussianNoise": lambda: ours.GaussianNoise(0.2, seed=1),
    "RandomPerturbation": lambda: ours.RandomPerturbation(1.0, seed=1),
    "ModelGuard": lambda: ours.ModelGuard(0.8),
}

# None of ART's refuses anything, except that some raise IndexError for a vector.
UNCHECKED = {"refuses_logits", "refuses_what_is_not_finite", "refuses_wrong_arrays", "refuses_unknown_parameters"}
ARTS = {
    "ClassLabels": ({}, {"stays_on_the_simplex", "treats_rows_independently"}),
    "GaussianNoise": (
        {"scale": 0.2},
        {"takes_a_binary_column", "leaves_the_global_random_state_alone", "validates_before_it_assigns"},
    ),
    "HighConfidence": ({"cutoff": 0.25}, {"stays_on_the_simplex", "validates_before_it_assigns"}),
    "ReverseSigmoid": ({"beta": 1.0, "gamma": 0.1}, {"warns_of_nothing", "validates_before_it_assigns"}),
    "Rounded": ({"decimals": 3}, {"stays_on_the_simplex", "validates_before_it_assigns"}),
}


@pytest.mark.parametrize("check", POSTPROCESSOR_CHECKS)
@pytest.mark.parametrize("name", OURS)
def test_ours(name: str, check: str) -> None:
    POSTPROCESSOR_CHECKS[check](OURS[name]())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("c", [1, 2, 100, 1000])
@pytest.mark.parametrize("name", OURS)
def test_memory_stays_within_three_times_the_input(name: str, c: int, dtype: type) -> None:
    generator = np.random.default_rng(0)
    if name == "ModelGuard" and c > 2:
        pytest.skip("a minute each; its blocks are cut where those of the others are")
    n = 2_000_000 // c
    rows = generator.uniform(0, 1, (n, c)).astype(dtype)
    if c > 1:
        rows /= rows.sum(axis=1, keepdims=True)
    post = OURS[name]()
    tracemalloc.start()
    try:
        post(rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 3 * rows.nbytes, f"{peak / rows.nbytes:.2f} times the input"


def test_a_large_batch_is_served_as_its_parts_are() -> None:
    rows = np.random.default_rng(0).dirichlet(np.ones(10), 9_000).astype(np.float32)
    for name, make in OURS.items():
        parts = make()
        expected = np.concatenate([parts(rows[i : i + 1_800]) for i in range(0, 9_000, 1_800)])
        np.testing.assert_array_equal(make()(rows), expected, err_msg=name)


def _art_cases() -> list[object]:
    cases: list[object] = []
    for name, (arguments, failures) in ARTS.items():
        for check in POSTPROCESSOR_CHECKS:
            known = check in failures | UNCHECKED
            marks = [pytest.mark.xfail(strict=True, reason=f"ART 1.20.1: {name} {check}")] if known else []
            cases.append(pytest.param(name, arguments, check, marks=marks, id=f"{name}-{check}"))
    return cases


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("name", "arguments", "check"), _art_cases())
def test_arts(name: str, arguments: dict[str, float], check: str) -> None:
    np.random.seed(0)
    POSTPROCESSOR_CHECKS[check](getattr(art_postprocessors, name)(**dict(arguments)))


def test_all_failures_are_reported_at_once_and_by_name() -> None:
    with pytest.raises(AssertionError) as caught:
        check_postprocessor(art_postprocessors.ClassLabels())
    assert "stays_on_the_simplex" in str(caught.value)
    assert "treats_rows_independently" in str(caught.value)


def test_a_check_can_be_skipped_but_not_misspelt() -> None:
    failing = ARTS["ClassLabels"][1] | UNCHECKED
    check_postprocessor(art_postprocessors.ClassLabels(), skip=failing)
    with pytest.raises(ValueError, match="did you mean refuses_logits"):
        check_postprocessor(ours.TopK(), skip=["refuse_logits"])


def test_checks_do_not_change_the_object() -> None:
    post = ours.HeuristicPerturbation(0.7, 0.2)
    check_postprocessor(post)
    assert post.get_params() == ours.HeuristicPerturbation(0.7, 0.2).get_params()


@pytest.mark.parametrize("name", [name for name in OURS if "logits" not in name and name != "Softmax"])
def test_inside_a_black_box_classifier(name: str) -> None:
    answers = np.random.default_rng(0).dirichlet(np.ones(5), 12).astype(np.float32)
    clean = BlackBoxClassifier(lambda x: answers[: len(x)], (3,), 5)
    defended = BlackBoxClassifier(lambda x: answers[: len(x)], (3,), 5, postprocessing_defences=[OURS[name]()])
    x = np.zeros((12, 3), dtype=np.float32)
    np.testing.assert_array_equal(defended.predict(x), OURS[name]()(clean.predict(x)))
