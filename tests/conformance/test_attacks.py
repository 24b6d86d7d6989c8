"""Every registered attack keeps the contract, on every kind of victim, at every budget."""

from __future__ import annotations

import copy
import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
from art.estimators.classification import BlackBoxClassifier, SklearnClassifier
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from support.digits_victim import SHAPE, SoftmaxRows, digits, thief, victim

from art_divqat.attacks.extraction import ATTACKS, AttackContext, AttackOutcome, run_attack
from art_divqat.attacks.extraction.fee import hidden_units
from art_divqat.defences.trainer import DivQATTrainer, MadryPGDTrainer, quantize_post_training
from art_divqat.errors import UserError
from art_divqat.estimators import MeteredClassifier, QuantizedPyTorchClassifier, QueryLedger, RecipeClassifier
from art_divqat.testing.attack import check_attack

POOL, LABELS = digits()[0][900:1300], digits()[1][900:1300]
OWN, OWN_LABELS = digits()[0][1300:1330], digits()[1][1300:1330]
DATA_FREE = {"batch_size": 8, "width": 4, "latent": 4}
PARAMETERS: dict[str, dict[str, Any]] = {
    "dfme": DATA_FREE,
    "maze": {**DATA_FREE, "directions": 2},
    "jbda": {"nb_seeds": 20, "round_epochs": 1},
    "fee": {"time_limit": 30.0},
    "own-images": {"variants": 50},
}

# plug-ins have conformance checks of their own
BUILT_IN = sorted(name for name in ATTACKS if ATTACKS.origin(name) is None)
ASKING = [name for name in BUILT_IN if ATTACKS[name].asks_victim]


def robust() -> RecipeClassifier:
    classifier = thief(1, seed=50)
    classifier.set_params(postprocessing_defences=[SoftmaxRows()])
    MadryPGDTrainer(classifier, epsilon=0.1, nb_epochs=1, max_iter=2).fit(digits()[0][:256], digits()[1][:256])
    return classifier


def int8() -> QuantizedPyTorchClassifier:
    return quantize_post_training(victim(), digits()[0][:200])


def divqat() -> QuantizedPyTorchClassifier:
    trainer = DivQATTrainer(victim(), auxiliary=1 - digits()[0][:100], auxiliary_mixture=False)
    trainer.fit(digits()[0][:200], digits()[1][:200], nb_epochs=1)
    return trainer.get_classifier()


def scikit_learn() -> BlackBoxClassifier:
    images, labels = digits()
    inner = SklearnClassifier(LogisticRegression(max_iter=200).fit(images[:500].reshape(500, -1), labels[:500]))
    return BlackBoxClassifier(lambda x: inner.predict(x.reshape(len(x), -1)), SHAPE, 10, clip_values=(0, 1))


VICTIMS: dict[str, Any] = {
    "standard": victim,
    "two-layer": lambda: victim("mlp2", 2),
    "robust": robust,
    "int8": int8,
    "DivQAT": divqat,
    "scikit-learn": scikit_learn,
    "labels only": lambda: BlackBoxClassifier(
        lambda x: np.eye(10, dtype=np.float32)[victim().predict(x).argmax(1)], SHAPE, 10, clip_values=(0, 1)
    ),
}


@functools.cache
def build(kind: str) -> Any:
    return VICTIMS[kind]()


def context(name: str, target: Any, budget: int, seed: int, repeats: str = "paid") -> AttackContext:
    return AttackContext(
        victim=MeteredClassifier(target, QueryLedger(budget, repeats)),
        pool=POOL,
        build_thief=lambda: thief(1, seed=seed),
        budget=budget,
        answers="soft",
        seed=seed,
        pool_labels=LABELS,
        parameters=PARAMETERS.get(name, {}),
        known_hidden_units=hidden_units(target),
        own_images=OWN,
        own_labels=OWN_LABELS,
    )


@pytest.mark.parametrize("kind", VICTIMS)
@pytest.mark.parametrize("name", BUILT_IN)
def test_contract_on_every_kind_of_victim(name: str, kind: str) -> None:
    target = build(kind)
    attacked = check_attack(
        lambda case: run_attack(name, case),
        lambda budget, seed: context(name, target, budget, seed),
        budget=100 if name in ASKING else 0,
    )
    assert attacked == (name != "fee" or kind == "two-layer")


@settings(deadline=None, max_examples=20)
@given(
    st.sampled_from(sorted(set(ASKING) - {"fee"})),  # tests/attacks/test_fee.py: each run is a process
    st.integers(1, 120),
    st.sampled_from(["paid", "free", "averaged"]),
)
def test_budget_is_never_exceeded(name: str, budget: int, repeats: str) -> None:
    case = context(name, victim(), budget, 0, repeats.replace("averaged", "paid"))
    if repeats == "averaged":
        case = dataclasses.replace(case, parameters={**case.parameters, "recovery": "average", "repeats": 3})
    images = []
    case.victim._log = lambda x, y: images.append(len(x))
    try:
        outcome = run_attack(name, case)
    except UserError as error:
        if "One iteration" not in str(error) and "holds not one image" not in str(error):
            raise
        assert images == []
        return
    assert 0 < case.victim.ledger.charged <= budget
    assert sum(images) <= budget
    assert outcome.details["images_kept"] <= budget


@pytest.mark.parametrize("name", sorted(set(ASKING) - {"fee"}))
def test_free_repeats_with_replacement_do_not_charge_twice(name: str) -> None:
    case = context(name, victim(), 100, 0, "free")
    run_attack(name, case)
    assert case.victim.ledger.charged == case.victim.ledger.unique <= 100


# The checks themselves notice what they are for.


def honest(case: AttackContext) -> AttackOutcome:
    return run_attack("knockoff", case)


def returns_the_victim(case: AttackContext) -> AttackOutcome:
    honest(case)
    return AttackOutcome(case.victim._victim)


def returns_a_copy_of_the_victim(case: AttackContext) -> AttackOutcome:
    thief = honest(case).thief
    thief.model.load_state_dict(copy.deepcopy(case.victim._victim.model.state_dict()))
    return AttackOutcome(thief)


def goes_round_the_meter(case: AttackContext) -> AttackOutcome:
    case.victim._ask(case.pool[:200], 512)
    return honest(case)


def draws_from_the_global_state(case: AttackContext) -> AttackOutcome:
    np.random.random()
    return honest(case)


def changes_the_pool(case: AttackContext) -> AttackOutcome:
    outcome = honest(case)
    case.pool[0] = 1 - case.pool[0]
    return outcome


def is_not_decided_by_the_seed(case: AttackContext, calls: list[int] = []) -> AttackOutcome:  # noqa: B006
    calls.append(0)
    outcome = honest(case)
    outcome.thief.fit(case.pool[: 10 * len(calls)], LABELS[: 10 * len(calls)])
    return outcome


def refuses_too_late(case: AttackContext) -> AttackOutcome:
    honest(case)
    raise UserError("Too late.")


@pytest.mark.parametrize(
    ("cheat", "broken"),
    [
        (returns_the_victim, "shares weights with the victim"),
        (returns_a_copy_of_the_victim, "holds a copy of the victim's weights"),
        (goes_round_the_meter, "put 300 images to the victim on a budget of 100"),
        (draws_from_the_global_state, "disturbed the global random state"),
        (changes_the_pool, "changed the pool"),
        (is_not_decided_by_the_seed, "two thieves from one seed"),
        (refuses_too_late, "after asking"),
    ],
)
def test_the_checks_notice(cheat: Any, broken: str) -> None:
    pool = POOL.copy()

    def fresh(budget: int, seed: int) -> AttackContext:
        return dataclasses.replace(context("knockoff", victim("lenet5"), budget, seed), pool=pool)

    assert check_attack(honest, fresh, 100)
    with pytest.raises(AssertionError, match=broken):
        check_attack(cheat, fresh, 100)
