"""Jacobian augmentation: doubling rounds, steps within λ and the image range, the budget to the last query."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from art.estimators.classification import BlackBoxClassifier, SklearnClassifier
from sklearn.linear_model import LogisticRegression
from support.digits_victim import SHAPE, agreement, digits, metered, thief, victim

from art_divqat.attacks.extraction import JacobianAugmentation
from art_divqat.attacks.extraction._base import ProxyModel
from art_divqat.errors import QueryBudgetExceededError, UserError
from art_divqat.estimators import MeteredClassifier

POOL = digits()[0][900:1300]


def logged(budget: int) -> tuple[MeteredClassifier, list[np.ndarray]]:
    queried: list[np.ndarray] = []
    meter = metered(budget)
    meter._log = lambda x, y: queried.append(x.copy())
    return meter, queried


@pytest.mark.parametrize("variant", ["papernot", "targeted-random"])
def test_steals_from_a_few_seeds_and_spends_exactly_the_budget(variant: str) -> None:
    meter, queried = logged(350)
    attack = JacobianAugmentation(meter, nb_stolen=350, nb_epochs=15, nb_seeds=80, variant=variant)
    learner = attack.extract(POOL, thieved_classifier=thief(15, name="small-cnn"))
    assert agreement(learner) > 0.75
    assert [len(batch) for batch in queried] == [80, 80, 160, 30]
    assert attack.details == {"images_kept": 350, "stopped_early": 0, "seeds": 80, "rounds": 3}
    # each new image is one step away from an earlier one, and still an image
    flat = [batch.reshape(len(batch), -1) for batch in queried]
    distance = np.abs(flat[1] - flat[0]).max(axis=1)
    assert distance.max() <= 0.1 + 1e-6
    assert distance.min() > 0
    assert min(batch.min() for batch in queried) >= 0
    assert max(batch.max() for batch in queried) <= 1


@pytest.mark.parametrize("variant", ["papernot", "targeted-random"])
def test_the_step_follows_the_gradient_of_the_scout(variant: str) -> None:
    learner = victim()
    attack = JacobianAugmentation(metered(), variant=variant, steps=1, step_size=1e-3)
    proxy = ProxyModel(learner)
    proxy.network.eval()
    images, answers = np.clip(POOL[:20], 0.1, 0.9), victim().predict(POOL[:20])
    moved = attack._augmented(proxy, images, answers, np.random.RandomState(0))
    rows, labels = np.arange(20), answers.argmax(axis=1)
    before, after = learner.logits(images), learner.logits(moved)
    if variant == "papernot":
        assert (after[rows, labels] > before[rows, labels]).mean() > 0.9
    else:
        targets = (labels + np.random.RandomState(0).randint(1, 10, 20)) % 10
        loss = [
            torch.nn.functional.cross_entropy(torch.from_numpy(z), torch.from_numpy(targets)) for z in (before, after)
        ]
        assert loss[1] < loss[0]


def test_stops_where_answers_become_unusable() -> None:
    calls: list[int] = []

    def answer(x: np.ndarray) -> np.ndarray:
        calls.append(len(x))
        rows = victim().predict(x)
        if len(calls) == 2:
            rows[7:] = np.nan
        return rows

    meter = MeteredClassifier(BlackBoxClassifier(answer, SHAPE, 10))
    attack = JacobianAugmentation(meter, nb_stolen=200, nb_seeds=50, nb_epochs=2)
    attack.extract(POOL, thieved_classifier=thief(2))
    assert attack.details["images_kept"] == 57
    assert attack.details["stopped_early"] == 1
    assert len(calls) == 2


@pytest.mark.parametrize("budget", [1, 2, 3, 5])
def test_tiny_budgets(budget: int) -> None:
    meter, queried = logged(budget)
    JacobianAugmentation(meter, nb_stolen=budget, nb_seeds=2, nb_epochs=1).extract(POOL, thieved_classifier=thief(1))
    assert sum(map(len, queried)) == budget


def test_bad_calls() -> None:
    forest = LogisticRegression(max_iter=50).fit(np.eye(64)[:10], np.arange(10))
    with pytest.raises(UserError, match="needs the gradients of a PyTorch thief"):
        JacobianAugmentation(metered()).extract(POOL, thieved_classifier=SklearnClassifier(model=forest))
    with pytest.raises(UserError, match="holds 9 images, fewer than the 100 needed"):
        JacobianAugmentation(metered()).extract(POOL[:9], thieved_classifier=thief())
    with pytest.raises(QueryBudgetExceededError):
        JacobianAugmentation(metered(10)).extract(POOL, thieved_classifier=thief())
    bad: list[tuple[dict[str, Any], str]] = [
        ({"variant": "papernott"}, "'variant'"),
        ({"step_size": 0.0}, "'step_size'"),
    ]
    for options, name in bad:
        with pytest.raises(UserError, match=name):
            JacobianAugmentation(metered(), **options)
