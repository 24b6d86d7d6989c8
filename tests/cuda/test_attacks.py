"""Every registered extraction attack, and every recovery, with victim and thief on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from support.digits_victim import SHAPE, SoftmaxRows, digits

from art_divqat.attacks.extraction import AttackContext, run_attack
from art_divqat.attacks.extraction.fee import hidden_units
from art_divqat.attacks.extraction.registry import ATTACKS, attack_spec
from art_divqat.attacks.recovery import RECOVERIES
from art_divqat.defences.registry import build_postprocessors, parse_defence
from art_divqat.estimators import MeteredClassifier, QueryLedger, RecipeClassifier, TrainingRecipe
from art_divqat.models import build_model

pytestmark = pytest.mark.cuda

BUDGET = 256
SMALL: Mapping[str, Mapping[str, Any]] = {"knockoff-adaptive": {"reward": "all"}}


@pytest.fixture(scope="module")
def victims(device: str) -> dict[str, RecipeClassifier]:
    images, labels = digits()
    found = {}
    for name in ("small-cnn", "mlp2"):
        recipe = TrainingRecipe(epochs=4, learning_rate=3e-3)
        found[name] = RecipeClassifier(
            build_model(name, SHAPE, 10, seed=100),
            SHAPE,
            10,
            recipe,
            device=device,
            postprocessing_defences=[SoftmaxRows()],
        )
        found[name].fit(images[:900], labels[:900])
    return found


def stolen(
    device: str, victims: Mapping[str, RecipeClassifier], name: str, parameters: Mapping[str, Any], **options: Any
) -> tuple[Any, int, int]:
    """The thief, what it was charged, and its budget."""
    images, labels = digits()
    attack = attack_spec(name, parameters)
    refused = attack.entry.refusal("small-cnn", attack.own) is not None
    victim = victims["mlp2" if refused else "small-cnn"]
    budget = max(BUDGET, 2 * attack.least_budget) if attack.asks_victim else 0
    recipe = TrainingRecipe(epochs=2, learning_rate=3e-3, **options)

    def thief() -> RecipeClassifier:
        return RecipeClassifier(build_model("lenet5", SHAPE, 10, seed=7), SHAPE, 10, recipe, seed=7, device=device)

    rows = np.arange(max(600, attack.pool_needed(budget))) % 600
    ledger = QueryLedger(budget)
    outcome = run_attack(
        attack,
        AttackContext(
            victim=MeteredClassifier(victim, ledger),
            pool=images[900:1500][rows],
            build_thief=thief,
            budget=budget,
            answers="soft",
            seed=0,
            pool_labels=labels[900:1500][rows],
            known_defence=build_postprocessors(parse_defence("rounding:decimals=2"), 0)[0],
            known_hidden_units=hidden_units(victim),
            own_images=images[1500:1560],
            own_labels=labels[1500:1560],
        ),
    )
    return outcome.thief, ledger.charged, budget


@pytest.mark.parametrize("name", list(ATTACKS))
def test_an_attack_trains_the_same_thief_twice(device: str, victims: Mapping[str, RecipeClassifier], name: str) -> None:
    images, answers = digits()[0][1600:], []
    for _ in range(2):
        thief, charged, budget = stolen(device, victims, name, SMALL.get(name, {}))
        answers.append(thief.predict(images))
        assert min(budget, 1) <= charged <= budget
        assert np.isfinite(answers[-1]).all()
    if name != "fee":  # which solves equations in numpy, on the CPU
        assert thief.device.type == torch.device(device).type
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("recovery", list(RECOVERIES))
def test_recoveries_work_on_what_a_gpu_served(
    device: str, victims: Mapping[str, RecipeClassifier], recovery: str
) -> None:
    known = {"beta": 0.5} if recovery == "invert" else {}
    thief, charged, budget = stolen(device, victims, "knockoff", {"recovery": recovery, **known})
    assert 1 <= charged <= budget
    assert np.isfinite(thief.predict(digits()[0][1600:])).all()


def test_a_thief_may_train_by_the_later_options(device: str, victims: Mapping[str, RecipeClassifier]) -> None:
    options = {"augmentation": "crop-flip", "label_smoothing": 0.1, "precision": "bfloat16", "cuda_graphs": True}
    thief, charged, _ = stolen(device, victims, "knockoff", {}, **options)
    assert charged == BUDGET
    assert np.isfinite(thief.predict(digits()[0][1600:])).all()
