"""Functionally equivalent extraction: it recovers a small network, and it always ends."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
import torch
from support.digits_victim import SHAPE, SoftmaxRows, digits, metered, thief, victim
from torch import nn

from art_divqat.attacks.extraction import AttackContext, FunctionallyEquivalentExtraction, run_attack
from art_divqat.attacks.extraction.fee import hidden_units
from art_divqat.errors import UserError
from art_divqat.estimators import MeteredClassifier, QueryLedger, RecipeClassifier, TrainingRecipe
from art_divqat.models import TwoLayerPerceptron


def small_network(hidden: int = 2) -> RecipeClassifier:
    """3×3 images, 3 classes, weights of a size at which the softmax does not saturate."""
    torch.manual_seed(1)
    with torch.random.fork_rng():
        network = TwoLayerPerceptron((1, 3, 3), 3, hidden)
    return RecipeClassifier(network, (1, 3, 3), 3, TrainingRecipe(), postprocessing_defences=[SoftmaxRows()])


def learner() -> RecipeClassifier:
    return RecipeClassifier(TwoLayerPerceptron((1, 3, 3), 3, 2), (1, 3, 3), 3, TrainingRecipe(epochs=1))


def test_recovers_a_small_network() -> None:
    target = small_network()
    meter = MeteredClassifier(target, QueryLedger(20_000))
    attack = FunctionallyEquivalentExtraction(meter, 2, 20_000, scale=0.5, seed=1)
    stolen = attack.extract(thieved_classifier=learner())
    assert attack.details["completed"] == 1
    x = np.random.default_rng(0).uniform(-3, 3, (500, 1, 3, 3)).astype(np.float32)
    ours = stolen.logits(x) - stolen.logits(x).mean(axis=1, keepdims=True)
    theirs = target.logits(x) - target.logits(x).mean(axis=1, keepdims=True)
    assert (ours.argmax(1) == theirs.argmax(1)).mean() > 0.85
    assert np.corrcoef(ours.flatten(), theirs.flatten())[0, 1] > 0.9
    assert attack.details["fidelity"] > 0.9
    assert meter.ledger.charged == attack.details["images_kept"] < 20_000


def test_ends_at_its_query_limit_and_trains_on_what_it_paid_for() -> None:
    meter = MeteredClassifier(small_network(), QueryLedger(40))
    attack = FunctionallyEquivalentExtraction(meter, 2, 40, scale=0.5)
    trained = learner()
    assert attack.extract(thieved_classifier=trained) is trained
    assert attack.details["completed"] == 0
    assert 0 < meter.ledger.charged <= 40
    assert trained.training_losses


def test_ends_at_its_time_limit() -> None:
    # a victim of other hidden width than told: the critical points never add up, so it would start again for ever
    meter = MeteredClassifier(small_network(hidden=6), QueryLedger())
    attack = FunctionallyEquivalentExtraction(meter, 2, 500_000, scale=0.5, time_limit=0.5)
    start = time.monotonic()
    attack.extract(thieved_classifier=learner())
    assert attack.details["completed"] == 0
    assert time.monotonic() - start < 120


def context(model: str, budget: int = 50) -> AttackContext:
    target = victim(model, 1)
    return AttackContext(
        victim=MeteredClassifier(target, QueryLedger(budget)),
        pool=digits()[0][:100],
        build_thief=lambda: thief(1, name="mlp2"),
        budget=budget,
        answers="soft",
        seed=0,
        known_hidden_units=hidden_units(target),
    )


def test_refuses_other_networks_with_a_sentence() -> None:
    case = context("small-cnn")
    with pytest.raises(UserError, match="works only on two-layer ReLU networks"):
        run_attack("fee", case)
    assert case.victim.ledger.requested == 0


def test_the_architecture_is_told_and_not_looked_up_behind_the_meter() -> None:
    with pytest.raises(UserError, match="this victim is not known to be one"):
        run_attack("fee", dataclasses.replace(context("mlp2"), known_hidden_units=None))


@pytest.mark.parametrize("budget", [1, 2, 50])
def test_runs_by_name_on_a_two_layer_network(budget: int) -> None:
    case = context("mlp2", budget)
    outcome = run_attack("fee", case)
    assert 0 < case.victim.ledger.charged <= budget
    assert 0 <= outcome.details["fidelity"] <= 1


def test_knows_a_two_layer_network() -> None:
    class Holder:
        def __init__(self, model: nn.Module) -> None:
            self.model = model

    assert hidden_units(Holder(TwoLayerPerceptron(SHAPE, 10, 5))) == 5
    assert hidden_units(Holder(nn.Sequential(nn.Flatten(), nn.Linear(64, 7), nn.ReLU(), nn.Linear(7, 10)))) == 7
    assert hidden_units(Holder(nn.Sequential(nn.Linear(64, 7), nn.Tanh(), nn.Linear(7, 10)))) is None
    assert hidden_units(metered()) is None


class _EnoughError(Exception):
    pass


def test_art_has_no_limit_of_its_own() -> None:
    # with ART's defaults a network with four hidden units takes hundreds of thousands of queries, mostly for ever
    from art.attacks.extraction import FunctionallyEquivalentExtraction as ArtExtraction
    from art.estimators.classification import BlackBoxClassifierNeuralNetwork

    from art_divqat._rng import isolated_random_state

    target, requested = victim("mlp2", 2), 0

    def answer(x: np.ndarray) -> np.ndarray:
        nonlocal requested
        requested += len(x)
        if requested > 3000:
            raise _EnoughError
        return target.logits(x.reshape(-1, *SHAPE).astype(np.float32))

    with isolated_random_state(0):
        attack = ArtExtraction(BlackBoxClassifierNeuralNetwork(answer, (64,), 10), num_neurons=4)
        with np.errstate(all="ignore"), pytest.raises(_EnoughError):
            attack.extract(digits()[0][:100].reshape(100, 64).astype(np.float64))
    assert attack.attack_params == []
