"""Answers that leave something out: recognised, completed, and told from what is no probability."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit, softmax

from art_divqat.victims.external.answers import AnswerForm, form_of


def probabilities(classes: int, images: int = 128) -> NDArray[np.float64]:
    rows: NDArray[np.float64] = softmax(np.random.default_rng(0).normal(0, 3, (images, classes)), axis=1)
    return rows


def top(rows: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    return np.where(rows >= np.sort(rows, axis=1)[:, [-k]], rows, 0)


def completed(rows: NDArray[Any]) -> tuple[AnswerForm, NDArray[np.float32]]:
    answers = rows.astype(np.float32)
    form = form_of(answers)
    assert form is not None
    whole = form.complete(answers)
    np.testing.assert_allclose(whole.sum(axis=1), 1, atol=1e-5)
    # one at a time as in a batch, and the most probable class stays that
    np.testing.assert_array_equal(np.concatenate([form.complete(row[None]) for row in answers]), whole)
    assert (whole[np.arange(len(whole)), answers.argmax(axis=1)] == whole.max(axis=1)).all()
    return form, whole


@pytest.mark.parametrize("classes", [3, 10, 1000])
@pytest.mark.parametrize("decimals", [2, 3, 4])
@pytest.mark.parametrize("cut", [False, True])
def test_rounded_answers(classes: int, decimals: int, cut: bool) -> None:
    rows, unit = probabilities(classes), 10.0**decimals
    form, whole = completed(np.floor(rows * unit) / unit if cut else rows.round(decimals))
    assert form.notes == (f"answers are rounded to {decimals} decimals",)
    assert np.abs(whole - rows).max() <= classes / unit


@pytest.mark.parametrize("classes", [4, 10, 1000])
@pytest.mark.parametrize("k", [1, 3])
def test_top_k_answers(classes: int, k: int) -> None:
    rows = top(probabilities(classes), k)
    form, whole = completed(rows)
    assert form.notes == (f"top {k} of {classes}",)
    hidden = whole[0][rows[0] == 0]
    np.testing.assert_allclose(hidden, (1 - rows[0].sum()) / (classes - k), rtol=1e-4)


def test_both_at_once_and_the_smaller_kinds() -> None:
    rows = probabilities(10)
    assert completed(top(rows, 3).round(3))[0].notes == ("top 3 of 10", "answers are rounded to 3 decimals")
    renormalised = top(rows, 3) / top(rows, 3).sum(axis=1, keepdims=True)
    assert completed(renormalised)[0].notes == ("top 3 of 10",)
    form, whole = completed(np.eye(10)[rows.argmax(axis=1)])
    assert (form.notes, form.labels) == (("labels only",), True)
    assert set(np.unique(whole)) == {0, 1}
    # the shares of a vote were never rounded
    votes = np.random.default_rng(0).multinomial(20, rows) / 20
    assert completed(votes)[0].notes == ("answers have no more than 2 decimals",)
    assert completed(rows)[0].notes == ()


@pytest.mark.parametrize(
    ("classes", "decimals"), [(3, None), (3, 0), (24, 0), (24, 1), (24, 2), (1000, None), (1000, 2)]
)
def test_per_cent(classes: int, decimals: int | None) -> None:
    rows = probabilities(classes)
    answers = (100 * rows) if decimals is None else (100 * rows).round(decimals)
    form, whole = completed(answers)
    rounded = [] if decimals is None else [f"answers are rounded to {decimals + 2} decimals"]
    assert form.notes == ("answers are per cent", *rounded)
    assert np.abs(whole - rows).max() <= (1e-6 if decimals is None else 0.01 * classes / 10**decimals)
    labels, _ = completed(100 * np.eye(classes)[rows.argmax(axis=1)])
    assert (labels.labels, labels.notes) == (True, ("labels only",))


def test_what_is_not_per_cent() -> None:
    draws = np.random.default_rng(0)
    for logits in (draws.normal(50, 9, (64, 2)), np.abs(draws.normal(0, 9, (64, 14))), draws.normal(0, 50, (64, 10))):
        assert form_of(logits.astype(np.float32)) is None
    # of per cent too no part may be left out: logits that were cut off at 0 add up to anything
    assert form_of(np.array([[90.0, 5.0, 0, 0], [0, 7.0, 80.0, 0]], np.float32)) is None


@pytest.mark.parametrize("shift", [0, 4])
@pytest.mark.parametrize("decimals", [2, None])
def test_scores_of_a_sigmoid_are_no_probabilities(shift: int, decimals: int | None) -> None:
    scores = expit(np.random.default_rng(0).normal(0, 3, (128, 10)) - shift)
    scores = scores if decimals is None else scores.round(decimals)
    assert form_of(scores.astype(np.float32)) is None
    # what is missing has no room below the least that is shown
    assert form_of(np.array([[0.1, 0.0, 0.0, 0.0]], np.float32)) is None
    assert form_of(np.array([[1.9, 0.0]], np.float32)) is None
    # logits that happen to sum to 1, of which one is 0 in each row
    assert form_of(np.array([[2.0, -1.0], [3.0, -2.0]], np.float32)) is None
    assert form_of(np.array([[2.0, -1.0, 0.0], [3.0, 0.0, -2.0]], np.float32)) is None


def test_a_row_that_the_form_does_not_explain_is_left_alone() -> None:
    odd = np.array([[0.7, 0.7, 0.0], [0.2, 0.2, 0.2]], np.float32)
    for form in (AnswerForm(2, rounded=True, classes=3), AnswerForm(top=1, missing=True, classes=3), AnswerForm()):
        np.testing.assert_array_equal(form.complete(odd), odd)


@pytest.mark.parametrize("decimals", [2, None])
def test_sparse_logits_are_no_answers_of_the_top_classes(decimals: int | None) -> None:
    logits = np.maximum(np.random.default_rng(0).normal(0, 0.12, (128, 10)) - 0.05, 0)
    logits = np.minimum(logits, 0.9 * logits / np.maximum(logits.sum(axis=1, keepdims=True), 0.9))
    assert 0 < logits.sum(axis=1).max() < 1
    logits[:, 0] += 0.01
    assert form_of((logits if decimals is None else logits.round(decimals)).astype(np.float32)) is None


@pytest.mark.parametrize("decimals", [3, None])
@pytest.mark.parametrize("threshold", [0.02, 0.1])
def test_answers_above_a_threshold_are_taken(decimals: int | None, threshold: float) -> None:
    rows = probabilities(10)
    shown = np.where(rows >= threshold, rows, 0)
    form, _ = completed(shown if decimals is None else shown.round(decimals))
    assert form.missing
