"""One image is one query, through every route; nothing over the budget reaches the victim."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from art.attacks.evasion import ProjectedGradientDescent
from art.estimators.classification import BlackBoxClassifier
from art.exceptions import EstimatorError
from hypothesis import given
from hypothesis import strategies as st

from art_divqat.errors import QueryBudgetExceededError, UserError
from art_divqat.estimators import MeteredClassifier, QueryLedger, UnusableAnswersError


class Spy:
    """A black box that keeps what it was asked; its answer depends on the first pixel."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []
        self.classifier = BlackBoxClassifier(self.answer, (1, 2, 2), 3, clip_values=(0, 1))

    def answer(self, x: np.ndarray) -> np.ndarray:
        self.seen.extend(x.copy())
        top = np.asarray(x[:, 0, 0, 0], np.float32)
        return np.stack([top / 2, (1 - top) / 2, np.full_like(top, 0.5)], axis=1)


def images(*values: float) -> np.ndarray:
    return np.stack([np.full((1, 2, 2), v, np.float32) for v in values])


def test_refuses_a_call_as_a_whole_before_the_victim_sees_anything() -> None:
    spy = Spy()
    meter = MeteredClassifier(spy.classifier, QueryLedger(budget=3))
    meter.predict(images(0.1, 0.2))
    with pytest.raises(QueryBudgetExceededError, match="A call of 2 queries was refused: 2 of the budget of 3"):
        meter.predict(images(0.3, 0.4))
    assert len(spy.seen) == 2
    assert (meter.ledger.charged, meter.ledger.remaining, meter.ledger.refused, meter.ledger.requested) == (2, 1, 1, 2)
    meter.predict(images(0.3))
    assert meter.ledger.remaining == 0


@given(st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=8), st.sampled_from(["paid", "free"]))
def test_the_ledger_agrees_with_a_model_of_itself(calls: list[list[int]], repeats: str) -> None:
    spy = Spy()
    ledger = QueryLedger(budget=10, repeats=repeats)
    meter = MeteredClassifier(spy.classifier, ledger)
    seen: set[int] = set()
    charged = requested = 0
    for call in calls:
        price = len(call) if repeats == "paid" else len(set(call) - seen)
        batch = images(*(v / 8 for v in call)) if call else np.zeros((0, 1, 2, 2), np.float32)
        if charged + price > 10:
            with pytest.raises(QueryBudgetExceededError):
                meter.predict(batch)
            continue
        answers = meter.predict(batch)
        np.testing.assert_allclose(answers[:, 0], [v / 16 for v in call], atol=1e-6)
        charged, requested = charged + price, requested + len(call)
        seen.update(call)
    assert (ledger.charged, ledger.requested) == (charged, requested)
    assert (ledger.unique, ledger.repeated) == (len(seen), requested - len(seen))
    assert len(spy.seen) == (charged if repeats == "free" else requested)


def test_the_log_gets_every_answered_batch_and_evaluation_is_not_charged() -> None:
    spy, log = Spy(), []
    meter = MeteredClassifier(spy.classifier, QueryLedger(5), log=lambda x, y: log.append((x, y)))
    answers = meter.predict(images(0.5, 0.25))
    spy.classifier.predict(images(0.9))  # the evaluator asks the victim itself
    assert len(log) == 1
    assert np.array_equal(log[0][0], images(0.5, 0.25))
    assert np.array_equal(log[0][1], answers)
    assert meter.ledger.charged == 2


def test_every_route_to_the_victim_is_metered() -> None:
    spy = Spy()
    meter = MeteredClassifier(spy.classifier, QueryLedger(5))
    meter._predict_fn(images(0.1))
    copy.deepcopy(meter).predict(images(0.2))
    copy.copy(meter).predict(images(0.3))
    copy.deepcopy(meter)._predict_fn(images(0.4))
    assert meter.ledger.charged == 4
    with pytest.raises(QueryBudgetExceededError):
        copy.deepcopy(meter).predict(images(0.5, 0.6))
    with pytest.raises(UserError, match="cannot be pickled"):
        pickle.dumps(meter)
    with pytest.raises(UserError, match="no network to clone"):
        meter.clone_for_refitting()
    with pytest.raises(NotImplementedError):
        meter.fit(images(0.1), np.zeros(1))
    assert len(spy.seen) == 4


def test_an_attack_that_needs_gradients_is_refused() -> None:
    with pytest.raises(EstimatorError):
        ProjectedGradientDescent(MeteredClassifier(Spy().classifier))


def black_box(answer: Any) -> MeteredClassifier:
    return MeteredClassifier(BlackBoxClassifier(answer, (1, 2, 2), 3), QueryLedger(10))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([[4.0, -2.0, 1.0]], "values from -2 to 4, not probabilities: put Softmax first"),
        ([[0.3, 0.3, 0.3]], "sum to between 0.9 and 0.9, not to 1"),
    ],
)
def test_answers_off_the_simplex_are_refused(answer: list[list[float]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        black_box(lambda x: np.array(answer, np.float32)).predict(images(0.1))


def test_answers_of_another_shape_are_refused() -> None:
    victim = Spy().classifier
    victim.predict = lambda x, **_: np.full((len(x), 2), 0.5)
    with pytest.raises(UserError, match=r"answered with shape \(1, 2\); expected \(1, 3\)"):
        MeteredClassifier(victim).predict(images(0.1))


@pytest.mark.parametrize("repeats", ["paid", "free"])
def test_answers_before_a_non_finite_one_are_kept_and_paid_for(repeats: str) -> None:
    def answer(x: np.ndarray) -> np.ndarray:
        rows = np.full((len(x), 3), 1 / 3, np.float32)
        rows[x[:, 0, 0, 0] > 0.8] = np.nan
        return rows

    meter = MeteredClassifier(BlackBoxClassifier(answer, (1, 2, 2), 3), QueryLedger(10, repeats))
    with pytest.raises(UnusableAnswersError, match="1 of 3 images with values that are not finite") as caught:
        meter.predict(images(0.1, 0.2, 0.9))
    assert caught.value.answers.shape == (2, 3)
    assert np.isfinite(caught.value.answers).all()
    assert meter.ledger.charged == meter.ledger.requested == 3


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (np.zeros((2, 4)), r"images of shape \(1, 2, 2\). Got \(4,\)"),
        (np.full((1, 1, 2, 2), np.inf), "Images must be finite. 4 of 4 values are not"),
    ],
)
def test_images_that_cannot_be_asked_are_not_charged(batch: np.ndarray, message: str) -> None:
    spy = Spy()
    meter = MeteredClassifier(spy.classifier, QueryLedger(5))
    with pytest.raises(UserError, match=message):
        meter.predict(batch)
    assert (meter.ledger.charged, len(spy.seen)) == (0, 0)


@pytest.mark.parametrize("repeats", ["paid", "free"])
def test_memory_is_flat_beyond_what_the_ledger_remembers(repeats: str) -> None:
    meter = MeteredClassifier(Spy().classifier, QueryLedger(repeats=repeats, remember=2))
    meter.predict(images(0.1, 0.2, 0.3, 0.4))
    meter.predict(images(0.1, 0.4))
    assert len(meter.ledger._answers) == 2
    assert meter.ledger.unique == 5  # 0.4 was forgotten, so it counts again
    assert meter.ledger.charged == (6 if repeats == "paid" else 5)


def test_a_caller_cannot_change_a_remembered_answer() -> None:
    meter = MeteredClassifier(Spy().classifier, QueryLedger(repeats="free"))
    first = meter.predict(images(0.5))
    kept = first.copy()
    first[:] = 7
    assert np.array_equal(meter.predict(images(0.5)), kept)


def test_ledger_parameters() -> None:
    with pytest.raises(UserError, match="'budget' parameter of QueryLedger must be an int of at least 0"):
        QueryLedger(budget=-1)
    with pytest.raises(UserError, match="'repeats' parameter of QueryLedger must be one of 'paid', 'free'"):
        QueryLedger(repeats="cheap")


def test_repr_ends() -> None:
    uniform = BlackBoxClassifier(lambda x: np.full((len(x), 4), 0.25, np.float32), (1, 2, 2), 4)
    metered = MeteredClassifier(uniform, QueryLedger(budget=3))
    metered.predict(np.zeros((2, 1, 2, 2), np.float32))
    assert repr(metered) == "MeteredClassifier(input_shape=(1, 2, 2), nb_classes=4, charged=2, budget=3)"


def test_a_single_probability_is_passed_on_as_two() -> None:
    class Single(BlackBoxClassifier):
        def predict(self, x, batch_size=128, **kwargs):
            return np.full((len(x), 1), 0.25, np.float32)

    victim = Single(lambda x: x, (1, 2, 2), 2)
    answers = MeteredClassifier(victim).predict(np.zeros((3, 1, 2, 2), np.float32))
    np.testing.assert_allclose(answers, [[0.75, 0.25]] * 3)
