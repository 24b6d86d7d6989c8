"""DFME and MAZE: they steal without data, count every query, and hold no more memory after many than after few."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from art.estimators.classification import BlackBoxClassifier
from hypothesis import given, settings
from hypothesis import strategies as st
from support.digits_victim import SHAPE, agreement, metered, thief, victim

from art_divqat.attacks.extraction import DFME, MAZE
from art_divqat.attacks.extraction.datafree import _last_of_each, recovered_logits
from art_divqat.attacks.extraction.generator import Generator, forward_differences
from art_divqat.attacks.extraction.registry import attack_spec
from art_divqat.errors import QueryBudgetExceededError, UserError
from art_divqat.estimators import MeteredClassifier, QueryLedger

SMALL: dict[str, Any] = {"batch_size": 8, "width": 4, "latent": 4}


@pytest.mark.parametrize(("attack_class", "budget"), [(DFME, 30_000), (MAZE, 15_000)])
def test_steals_without_data(attack_class: Any, budget: int) -> None:
    meter = metered(budget)
    attack = attack_class(meter, budget, width=32)
    learner = attack.extract(thieved_classifier=thief(name="small-cnn"))
    assert agreement(learner) > 0.4  # a constant answer reaches about .12
    assert meter.ledger.charged == budget


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 300), st.sampled_from([DFME, MAZE]))
def test_spends_exactly_its_budget_or_refuses_it(budget: int, attack_class: Any) -> None:
    meter = metered(budget)
    attack = attack_class(meter, budget, **SMALL)
    assert attack.queries_per_iteration == attack_spec(attack_class.__name__.lower(), SMALL).least_budget
    if budget < attack.queries_per_iteration:
        with pytest.raises(UserError, match=r"One iteration of .* asks .* queries, more than the"):
            attack.extract(thieved_classifier=thief())
        assert meter.ledger.requested == 0
        return
    attack.extract(thieved_classifier=thief())
    assert meter.ledger.charged == budget == attack.details["images_kept"]


@pytest.mark.parametrize("attack_class", [DFME, MAZE])
def test_memory_is_flat_in_the_queries(attack_class: Any) -> None:
    allocated: list[int] = []
    traced: list[int] = []

    def monitor(queries: int, learner: Any) -> None:
        gc.collect()
        allocated.append(sum(t.numel() for t in gc.get_objects() if isinstance(t, torch.Tensor)))
        traced.append(tracemalloc.get_traced_memory()[0])

    meter = MeteredClassifier(victim(), QueryLedger(remember=100))
    attack = attack_class(meter, 6000, monitor=monitor, monitor_every=1000, **SMALL)
    tracemalloc.start()
    try:
        attack.extract(thieved_classifier=thief())
    finally:
        tracemalloc.stop()
    assert len(allocated) >= 5
    assert allocated[-1] <= allocated[1]
    # what Python and numpy hold: the images of these 4,000 queries alone would be a mebibyte
    assert traced[-1] - traced[1] < 100_000
    assert len(meter.ledger._answers) == 100


def test_recovered_logits_are_the_centred_logits_and_never_infinite() -> None:
    logits = torch.randn(50, 10, dtype=torch.float64)
    recovered = recovered_logits(torch.softmax(logits, dim=1))
    torch.testing.assert_close(recovered, logits - logits.mean(dim=1, keepdim=True))
    assert torch.isfinite(recovered_logits(torch.eye(10))).all()


def test_forward_differences_estimate_the_gradient_of_each_image_by_itself() -> None:
    torch.manual_seed(0)
    weights = torch.randn(1, 4, 4)

    def value(images: torch.Tensor) -> torch.Tensor:
        return ((images * weights).flatten(1).sum(dim=1)) ** 2

    x = torch.rand(3, 1, 4, 4)
    exact = torch.autograd.functional.jacobian(lambda v: value(v).sum(), x)
    estimate = forward_differences(value, x, value(x), 4000, 1e-2)
    similarity = torch.cosine_similarity(exact.flatten(1), estimate.flatten(1))
    assert similarity.min() > 0.97
    ratio = estimate.flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    assert ((ratio > 0.9) & (ratio < 1.1)).all()


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 32, 32), (1, 28, 28), (1, 9, 13)])
def test_generator_draws_images_of_any_size(shape: tuple[int, int, int]) -> None:
    assert Generator(shape, 5, 6)(torch.randn(2, 5)).shape == (2, *shape)


@pytest.mark.parametrize("attack_class", [DFME, MAZE])
def test_labels_only_do_not_make_nan(attack_class: Any) -> None:
    labels = BlackBoxClassifier(lambda x: np.eye(10, dtype=np.float32)[victim().predict(x).argmax(1)], SHAPE, 10)
    learner = attack_class(MeteredClassifier(labels), 2000, **SMALL).extract(thieved_classifier=thief())
    assert np.isfinite(learner.predict(np.zeros((1, *SHAPE)))).all()


@pytest.mark.parametrize("attack_class", [DFME, MAZE])
def test_stops_where_answers_become_unusable(attack_class: Any) -> None:
    calls: list[int] = []

    def answer(x: np.ndarray) -> np.ndarray:
        calls.append(len(x))
        return np.full((len(x), 10), np.nan if len(calls) == 5 else 0.1, np.float32)

    attack = attack_class(MeteredClassifier(BlackBoxClassifier(answer, SHAPE, 10)), 5000, **SMALL)
    learner = attack.extract(thieved_classifier=thief())
    assert len(calls) == 5
    assert attack.details["stopped_early"] == 1
    assert np.isfinite(learner.predict(np.zeros((1, *SHAPE)))).all()


def test_refuses_more_than_the_meter_holds_before_the_call() -> None:
    meter = metered(100)
    with pytest.raises(QueryBudgetExceededError):
        DFME(meter, 1000, **SMALL).extract(thieved_classifier=thief())
    assert meter.ledger.charged <= 100


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"batch_size": 1}, "batch_size"),
        ({"step": 0.0}, "step"),
        ({"directions": 0}, "directions"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_parameters(options: dict[str, Any], name: str) -> None:
    with pytest.raises(UserError, match=f"'{name}' parameter of DFME"):
        DFME(metered(), **options)


@given(slots=st.lists(st.integers(0, 30), max_size=60), size=st.integers(1, 20))
def test_the_replay_writes_every_place_once_with_what_came_last(slots: list[int], size: int) -> None:
    rows = _last_of_each(torch.tensor(slots, dtype=torch.int64), size).tolist()
    written = {slots[row]: row for row in rows}
    assert len(written) == len(rows)
    assert written == {slot: row for row, slot in enumerate(slots) if slot < size}
