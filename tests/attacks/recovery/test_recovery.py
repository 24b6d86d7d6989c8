"""What a thief makes of defended answers: each recovery undoes what it says, and pays for what it asks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from art.estimators.classification import BlackBoxClassifier
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support.digits_victim import SHAPE, digits, metered, victim

from art_divqat.attacks.recovery import (
    AverageRepeats,
    InvertHeuristic,
    Labels,
    LearnedRestorer,
    PartialBayes,
    RecoveredClassifier,
    TopK,
    sample_answers,
)
from art_divqat.attacks.recovery.contract import RecoveryRequest
from art_divqat.attacks.recovery.invert import KnownHeuristic, perturb
from art_divqat.attacks.recovery.registry import RECOVERIES, attackers_view, top_of
from art_divqat.defences.postprocessor import HeuristicPerturbation
from art_divqat.defences.registry import DEFENCES, build_postprocessors, parse_defence
from art_divqat.errors import QueryBudgetExceededError, UserError
from art_divqat.estimators import MeteredClassifier, QueryLedger, UnusableAnswersError

POOL = digits()[0][900:1300]
CLEAN = sample_answers(120, 10, seed=3)


def l1(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).sum(axis=1).mean())


@given(st.integers(1, 12), st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_top_k_keeps_the_largest_and_stays_on_the_simplex(k: int, classes: int, seed: int) -> None:
    rows = np.random.default_rng(seed).dirichlet(np.ones(classes), 5).astype(np.float32)
    before = rows.copy()
    restored = TopK(k).restore(rows)
    np.testing.assert_allclose(restored.sum(axis=1), 1, atol=1e-5)
    for row, out in zip(rows, restored, strict=True):
        top = np.argsort(-row)[:k]
        assert np.array_equal(out[top], row[top])
        assert len(np.unique(np.delete(out, top))) <= 1
    assert np.array_equal(rows, before)


def test_labels_are_what_argmax_says() -> None:
    restored = Labels().restore(CLEAN)
    assert np.array_equal(restored.argmax(1), CLEAN.argmax(1))
    assert np.array_equal(np.unique(restored), [0, 1])


@pytest.mark.parametrize("variant", ["exact", "released"])
@pytest.mark.parametrize("beta", [0.3, 0.9, 1.2])
def test_the_thief_writes_down_the_same_defence(beta: float, variant: Any) -> None:
    served = HeuristicPerturbation(beta, 0.2, variant, input_type="probabilities")(CLEAN)
    np.testing.assert_allclose(perturb(CLEAN.astype(float), beta, 0.2, variant), served, atol=1e-4)


@settings(deadline=None, max_examples=15)
@given(
    st.floats(0.1, 1.5),
    st.floats(0.05, 0.5),
    st.integers(0, 1000),
    st.sampled_from(["exact", "released"]),
)
def test_inverse_goes_back_to_what_was_served(beta: float, gamma: float, seed: int, variant: str) -> None:
    served = perturb(sample_answers(3, 10, seed).astype(float), beta, gamma, variant)
    inverse = InvertHeuristic(beta, gamma, variant)
    restored = inverse.restore(served.astype(np.float32))
    np.testing.assert_allclose(restored.sum(axis=1), 1, atol=1e-4)
    again = perturb(restored.astype(float), beta, gamma, variant)
    made_it = np.abs(again - served).max(axis=1) < 0.01  # float32 rows near the gate move it a little
    unchanged = np.abs(restored - served).max(axis=1) < 1e-6
    assert (made_it | unchanged).all()


@pytest.mark.parametrize("variant", ["exact", "released"])
@pytest.mark.parametrize("beta", [0.5, 0.9])
def test_inverse_comes_closer_to_the_clean_answers(beta: float, variant: str) -> None:
    served = perturb(CLEAN.astype(float), beta, 0.2, variant).astype(np.float32)
    inverse = InvertHeuristic(beta, 0.2, variant)
    restored = inverse.restore(served)
    assert inverse.solved > 0.9
    assert l1(restored, CLEAN) < 0.9 * l1(served, CLEAN)


def test_inverse_leaves_confident_answers_alone() -> None:
    confident = CLEAN[CLEAN.max(axis=1) > 0.95]
    assert np.array_equal(InvertHeuristic(0.5).restore(confident), confident)


def heuristic(rows: np.ndarray) -> np.ndarray:
    return perturb(rows.astype(float), 0.9, 0.2).astype(np.float32)


def test_learned_and_bayesian_recovery_come_closer_to_unseen_answers() -> None:
    served = heuristic(CLEAN)
    before = l1(served, CLEAN)
    for recovery in (LearnedRestorer(heuristic, 10, pairs=8000), PartialBayes(heuristic, 10, samples=8000)):
        restored = recovery.restore(served)
        np.testing.assert_allclose(restored.sum(axis=1), 1, atol=1e-4)
        assert l1(restored, CLEAN) < 0.8 * before
        assert np.array_equal(restored, recovery.restore(served))


def test_bayes_is_the_mean_of_the_near_samples_or_the_nearest() -> None:
    clean = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9]], np.float32)
    bayes = PartialBayes(lambda y: y, 2, clean=clean, tolerance=0.3)
    answers = np.array([[0.85, 0.15], [0.5, 0.5]], np.float32)
    np.testing.assert_allclose(bayes.restore(answers), [[0.85, 0.15], [0.8, 0.2]], atol=1e-6)


def test_samples_are_answers() -> None:
    rows = sample_answers(2000, 10, seed=0)
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-5)
    assert rows.min() > 0
    assert 0.2 < (rows.max(axis=1) > 0.95).mean() < 0.8
    assert np.array_equal(rows, sample_answers(2000, 10, seed=0))


def noisy(seed: int = 0) -> BlackBoxClassifier:
    random = np.random.default_rng(seed)

    def answer(x: np.ndarray) -> np.ndarray:
        return (0.5 * victim().predict(x) + 0.5 * random.dirichlet(np.ones(10), len(x))).astype(np.float32)

    return BlackBoxClassifier(answer, SHAPE, 10, clip_values=(0, 1))


def test_averaging_pays_for_every_repeat_and_undoes_noise() -> None:
    meter = MeteredClassifier(noisy(), QueryLedger(1700))
    expected = 0.5 * victim().predict(POOL[:100]) + 0.05
    once = l1(meter.predict(POOL[:100]), expected)
    view = RecoveredClassifier(meter, AverageRepeats(16))
    averaged = view.predict(POOL[:100])
    assert view.queries_per_image == 16
    assert meter.ledger.charged == 1700
    assert meter.ledger.unique == 100
    assert l1(averaged, expected) < 0.35 * once  # 1/√16 = .25
    with pytest.raises(QueryBudgetExceededError):
        view.predict(POOL[:1])


def test_averaging_is_refused_where_repeats_come_from_memory() -> None:
    with pytest.raises(UserError, match="an image asked again is answered from memory"):
        RecoveredClassifier(metered(10, repeats="free"), AverageRepeats(2))


def test_unusable_answers_are_recovered_as_far_as_they_go() -> None:
    def answer(x: np.ndarray) -> np.ndarray:
        rows = victim().predict(x)
        rows[3:] = np.nan
        return rows

    view = RecoveredClassifier(MeteredClassifier(BlackBoxClassifier(answer, SHAPE, 10)), Labels())
    with pytest.raises(UnusableAnswersError) as caught:
        view.predict(POOL[:5])
    assert caught.value.answers.shape == (3, 10)
    assert set(np.unique(caught.value.answers)) == {0, 1}


def test_a_copy_of_a_view_has_no_budget_of_its_own() -> None:
    import copy

    view = RecoveredClassifier(metered(3), Labels())
    copy.deepcopy(view).predict(POOL[:2])
    assert view.ledger.remaining == 1


@pytest.mark.parametrize("answers", ["medium", "top-0", "top-", "top-x", "top"])
def test_unknown_answers(answers: str) -> None:
    with pytest.raises(UserError, match="use soft, hard or top-k"):
        top_of(answers)


@pytest.mark.parametrize(
    ("answers", "recovery", "message"),
    [
        ("top-11", None, "ask for 11 classes; the victim has 10"),
        ("hard", "dae", "works on whole rows of probabilities"),
        ("soft", "dae", "needs a defence that the thief can rebuild"),
        ("soft", "bayes", "needs a defence that the thief can rebuild"),
    ],
)
def test_views_that_cannot_work(answers: str, recovery: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        attackers_view(metered(), answers, recovery, {}, None, 0)


@pytest.mark.parametrize("name", RECOVERIES)
def test_an_entry_says_how_often_its_recovery_asks(name: str) -> None:
    entry = RECOVERIES[name]
    values = {key: parameter.default for key, parameter in entry.parameters.items()}
    known = HeuristicPerturbation(beta=0.9, input_type="probabilities")
    small = {"pairs": 300, "samples": 100}
    values |= {key: small[key] for key in values if key in small}
    recovery = entry.load()(RecoveryRequest(10, known, 0, values))
    assert recovery.repeats == entry.repeats(values)
    for key, value in values.items():
        if isinstance(value, int | float) and hasattr(recovery, key):
            assert getattr(recovery, key) == value


def test_of_all_defences_only_the_heuristic_is_known_as_one() -> None:
    single = [name for name in DEFENCES if DEFENCES[name].needs == "nothing"]
    steps = {name: build_postprocessors(parse_defence(name), 0) for name in single}
    assert [name for name, (step,) in steps.items() if isinstance(step, KnownHeuristic)] == ["heuristic"]


def test_a_defence_that_breaks_the_rows_is_named() -> None:
    with pytest.raises(UserError, match="must map"):
        PartialBayes(lambda y: y[:, :3], 10, samples=10)


def test_recentring_forgets_any_constant_shift_of_the_logits() -> None:
    from scipy.special import softmax

    from art_divqat.attacks.recovery import Recentre

    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 6))
    shifted = logits + np.array([8.0, 0, 0, -3.0, 0, 1.0])
    plain, biased = (Recentre().restore(softmax(z, axis=1).astype(np.float32)) for z in (logits, shifted))
    assert np.allclose(plain, biased, atol=1e-4)
    assert np.allclose(biased.sum(axis=1), 1, atol=1e-6)
    assert (softmax(shifted, axis=1).argmax(axis=1) == 0).mean() > 0.9
    centred = logits - logits.mean(axis=0)
    assert np.mean(biased.argmax(axis=1) == centred.argmax(axis=1)) > 0.98
    zero = np.array([[1.0, 0.0], [1.0, 0.0]], np.float32)
    assert np.isfinite(Recentre().restore(zero)).all()


@given(scale=st.floats(1e-3, 3), offset=arrays(np.float64, 6, elements=st.floats(-3, 3)), spread=st.floats(0.5, 4))
@settings(max_examples=30, deadline=None)
def test_recentring_to_a_spread_finds_the_same_answers_however_small_they_were_made(scale, offset, spread) -> None:
    """Whoever shrinks all differences and adds a constant has hidden nothing from it, to the precision of float32."""
    from scipy.special import softmax

    from art_divqat.attacks.recovery import Recentre

    logits = np.random.default_rng(0).normal(size=(50, 6))
    logits -= logits.mean(axis=1, keepdims=True)
    found = Recentre(spread).restore(softmax(scale * logits + offset, axis=1).astype(np.float32))
    centred = logits - logits.mean(axis=0)
    assert np.allclose(found, softmax(spread * centred / centred.std(axis=0), axis=1), atol=5e-3)


def test_recentring_to_a_spread_at_the_edges() -> None:
    from art_divqat.attacks.recovery import Recentre

    alike = np.tile(np.array([[1.0, 0.0, 0.0]], np.float32), (3, 1))
    assert np.allclose(Recentre(3.0).restore(alike), 1 / 3)
    assert np.allclose(Recentre(3.0).restore(alike[:1]), 1 / 3)
    with pytest.raises(UserError, match="spread"):
        Recentre(0.0)


def test_the_complement_finds_the_class_that_misinformation_avoids() -> None:
    """Of rows that give the right class little, whatever else they say and whatever class they like, it is found."""
    from scipy.special import softmax

    from art_divqat.attacks.recovery import Complement

    rng = np.random.default_rng(0)
    right = rng.integers(6, size=200)
    logits = rng.normal(size=(200, 6)) + np.array([4.0, 0, 0, -3.0, 0, 0])
    logits[np.arange(200), right] -= 4
    served = softmax(logits, axis=1).astype(np.float32)
    found = Complement().restore(served)
    assert np.mean(found.argmax(axis=1) == right) > 0.9
    assert np.mean(served.argmin(axis=1) == right) < 0.75, "the least of a row alone would not do"
    assert np.allclose(found.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("rows", [np.zeros((0, 3)), [[1.0, 0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.5]] * 3])
def test_the_complement_at_the_edges(rows) -> None:
    from art_divqat.attacks.recovery import Complement

    served = np.array(rows, np.float32)
    found = Complement().restore(served)
    assert found.shape == served.shape
    assert found.dtype == np.float32
    assert np.allclose(found.sum(axis=1), 1)
