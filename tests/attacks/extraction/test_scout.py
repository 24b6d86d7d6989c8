"""The scout spends its budget where answers tell the classes apart, and never more than it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from art.estimators.classification import BlackBoxClassifier
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support.digits_victim import SHAPE, agreement, digits, metered, thief, victim

from art_divqat.attacks.extraction import KnockoffNets, PoolScout
from art_divqat.attacks.extraction.parameters import named_pools
from art_divqat.attacks.extraction.registry import parse_attack
from art_divqat.attacks.extraction.scout import REFINED, _allot, information
from art_divqat.data.pools import generate, generated_pools
from art_divqat.errors import QueryBudgetExceededError, UserError
from art_divqat.estimators import MeteredClassifier, QueryLedger

OWN = digits()[0][900:1300]
NOISE = generate("noise", SHAPE, 400, 0)


def generators(*names: str) -> dict[str, Any]:
    return {name: lambda count, seed, name=name: generate(name, SHAPE, count, seed) for name in names}


def scouted(budget: int = 200, pool: Any = NOISE, classifier: Any = None, **options: Any) -> tuple[PoolScout, Any]:
    attack = PoolScout(metered(budget) if classifier is None else classifier, nb_stolen=budget, nb_epochs=1, **options)
    return attack, attack.extract(pool, thieved_classifier=thief(1))


@settings(max_examples=40, deadline=None)
@given(arrays(np.float64, st.tuples(st.integers(1, 12), st.integers(2, 6)), elements=st.floats(0.001, 1)))
def test_information_is_the_mean_divergence_from_the_mean_answer(weights: np.ndarray) -> None:
    rows = weights / weights.sum(axis=1, keepdims=True)
    reference = float(np.mean((rows * np.log(rows / rows.mean(axis=0))).sum(axis=1)))
    assert information(rows) == pytest.approx(max(reference, 0), abs=1e-9)
    assert 0 <= information(rows) <= np.log(rows.shape[1]) + 1e-9
    assert information(rows.astype(np.float32)) == pytest.approx(information(rows), abs=1e-5)


def test_information_at_the_edges() -> None:
    assert information(np.eye(1000, dtype=np.float32)) == pytest.approx(np.log(1000))
    assert information(np.eye(2)[[0, 0, 0]]) == 0
    assert information(np.full((3, 2), 0.5)) == pytest.approx(0)


@given(st.integers(0, 500), st.lists(st.floats(0.01, 1), min_size=1, max_size=8))
def test_allotted_numbers_add_up_and_are_proportional(count: int, weights: list[float]) -> None:
    given_weights = {str(index): weight for index, weight in enumerate(weights)}
    counts = _allot(count, given_weights)
    assert sum(counts.values()) == count
    for name, weight in given_weights.items():
        assert abs(counts[name] - count * weight / sum(weights)) < 1


def test_the_budget_goes_to_the_pool_whose_answers_tell_classes_apart() -> None:
    attack, _ = scouted(400, OWN, sources=generators("noise", "smooth-noise"))
    asked = {name: attack.details[f"asked_{name}"] for name in ("pool", "noise", "smooth-noise")}
    assert asked["pool"] > 2 * max(asked["noise"], asked["smooth-noise"])
    assert attack.details["information_pool"] > attack.details["information_noise"]
    assert sum(value for name, value in attack.details.items() if name.startswith("asked_")) == 400


def test_every_query_is_charged_and_none_beyond_the_budget() -> None:
    ledger = QueryLedger(150)
    seen: list[np.ndarray] = []

    def answer(x: np.ndarray) -> np.ndarray:
        seen.extend(x.copy())
        return victim().predict(x)

    meter = MeteredClassifier(BlackBoxClassifier(answer, SHAPE, 10, clip_values=(0, 1)), ledger)
    scouted(150, classifier=meter, sources=generators("walks", "glyphs"))
    assert ledger.charged == 150 == len(seen)
    with pytest.raises(QueryBudgetExceededError):
        scouted(200, classifier=metered(100))


def test_a_seed_decides_everything() -> None:
    logits = [scouted(seed=seed, sources=generators("walks"))[1].logits(OWN[:20]) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(logits[0], logits[1])
    assert not np.array_equal(logits[0], logits[2])


def test_it_beats_the_random_policy_on_a_pool_that_tells_little() -> None:
    options = {"nb_stolen": 600, "nb_epochs": 20, "batch_size_fit": 16}
    scout = PoolScout(metered(), **options, sources=generators("walks", "strokes", "numerals"))
    noise = generate("noise", SHAPE, 600, 0)
    ours, theirs = (
        attack.extract(noise, thieved_classifier=thief(1)) for attack in (scout, KnockoffNets(metered(), **options))
    )
    assert agreement(ours) > agreement(theirs) + 0.2


@pytest.mark.parametrize("budget", [1, 3, 7])
def test_a_budget_smaller_than_the_number_of_pools_is_spent(budget: int) -> None:
    attack, _ = scouted(budget, sources=generators(*generated_pools()))
    assert attack.details["images_kept"] == budget


def test_a_small_pool_runs_dry_and_the_rest_is_asked_elsewhere() -> None:
    attack, _ = scouted(120, OWN[:10], sources={"own": OWN[10:30], **generators("walks")})
    assert attack.details["asked_pool"] == 10
    assert attack.details["asked_own"] == 20
    assert attack.details["images_kept"] == 120


def test_pools_alone_that_run_dry_are_refined() -> None:
    attack, _ = scouted(120, OWN[:30])
    assert attack.details["asked_pool"] == 30
    assert attack.details[f"asked_{REFINED}"] == 90


def test_a_victim_that_stops_answering_leaves_what_was_paid_for() -> None:
    calls = 0

    def answer(x: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        rows = victim().predict(x)
        if calls > 2:
            rows[len(rows) // 2 :] = np.nan
        return rows

    meter = MeteredClassifier(BlackBoxClassifier(answer, SHAPE, 10, clip_values=(0, 1)), QueryLedger(200))
    attack, _ = scouted(200, classifier=meter, batch_size_query=20, sources=generators("walks"))
    assert attack.details["stopped_early"] == 1
    assert 0 < attack.details["images_kept"] < 200


def test_nothing_to_scout_and_bad_parameters_are_refused() -> None:
    with pytest.raises(UserError, match="nothing to scout"):
        PoolScout(metered(), nb_stolen=10).extract(None, thieved_classifier=thief(1))
    for options in ({"share": 0.0}, {"share": 1.1}, {"power": -1.0}, {"rounds": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            PoolScout(metered(), **options)


def test_pools_are_named_once_in_any_spelling() -> None:
    assert named_pools({"pools": "walks+Fashion-MNIST+walks"}) == ("walks", "fashion_mnist")
    assert set(generated_pools()) < set(named_pools({"pools": "generated+mnist"}))
    with pytest.raises(UserError, match="did you mean walks"):
        named_pools({"pools": "wlaks"})


def test_any_budget_will_do_and_no_pool_is_needed() -> None:
    attack = parse_attack("scout:pools=walks")
    assert attack.pool_needed(10_000) == 0
    assert attack.least_budget == 1
