"""Attacks by name: parameters, answers, recoveries and refusals."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.digits_victim import agreement, digits, metered, thief

from art_divqat.attacks.extraction import AttackContext, list_attacks, run_attack
from art_divqat.attacks.extraction.registry import check_attack, check_parameters
from art_divqat.defences.postprocessor import ReverseSigmoid
from art_divqat.errors import UserError

POOL, LABELS = digits()[0][900:1300], digits()[1][900:1300]


def context(budget: int = 300, **options: Any) -> AttackContext:
    values: dict[str, Any] = {
        "victim": metered(budget),
        "pool": POOL,
        "build_thief": lambda: thief(10, name="small-cnn"),
        "budget": budget,
        "answers": "soft",
        "seed": 0,
        "pool_labels": LABELS,
    }
    return AttackContext(**{**values, **options})


@pytest.mark.parametrize("name", ["knockoff", "knockoff-adaptive", "copycat", "random"])
@pytest.mark.parametrize("answers", ["soft", "hard", "top-3"])
def test_pool_attacks_steal_with_any_answers(name: str, answers: str) -> None:
    case = context(answers=answers)
    outcome = run_attack(name, case)
    assert agreement(outcome.thief) > 0.8
    assert case.victim.ledger.charged == 300
    assert outcome.details["queries_per_image"] == 1


def test_averaging_asks_fewer_images_for_the_same_budget() -> None:
    case = context(parameters={"recovery": "average", "repeats": 3})
    outcome = run_attack("knockoff", case)
    assert outcome.details["images_kept"] == 100
    assert case.victim.ledger.charged == 300
    assert case.victim.ledger.unique == 100


@pytest.mark.parametrize("recovery", ["labels", "top-k", "dae", "bayes", "invert"])
def test_recoveries_run_from_their_names(recovery: str) -> None:
    def defence(rows: np.ndarray) -> np.ndarray:
        return 0.5 * rows + 0.05

    parameters: dict[str, Any] = {"recovery": recovery}
    parameters |= {"invert": {"beta": 0.5}, "dae": {"pairs": 2000}, "bayes": {"samples": 2000}}.get(recovery, {})
    outcome = run_attack("knockoff", context(parameters=parameters, known_defence=defence))
    assert agreement(outcome.thief) > 0.6


def test_invert_reads_the_parameters_of_the_known_defence() -> None:
    class Heuristic:
        beta, gamma, variant = 0.7, 0.1, "released"

        def __call__(self, rows: np.ndarray) -> np.ndarray:
            return rows

    run_attack("knockoff", context(50, parameters={"recovery": "invert"}, known_defence=Heuristic()))
    other = ReverseSigmoid(beta=0.7, gamma=0.1)  # a beta and a gamma, and yet another defence
    for known in (None, other):
        with pytest.raises(UserError, match=r"add beta=… to the attack"):
            run_attack("knockoff", context(50, parameters={"recovery": "invert"}, known_defence=known))


def test_random_is_knockoff_with_another_draw() -> None:
    asked: dict[str, set[bytes]] = {}
    for name in ("knockoff", "random"):
        case = context(100)
        seen: set[bytes] = set()
        case.victim._log = lambda x, y, seen=seen: seen.update(image.tobytes() for image in x)
        run_attack(name, case)
        asked[name] = seen
    assert asked["knockoff"] != asked["random"]


REFUSED: list[tuple[str, Callable[[], AttackContext], str]] = [
    ("knokoff", context, "Unknown attack 'knokoff': did you mean knockoff"),
    ("knockoff", lambda: context(500), "holds 400 images, fewer than the 500"),
    ("knockoff", lambda: dataclasses.replace(context(100), victim=metered(50)), "is to spend 100 .* has 50 left"),
    ("knockoff", lambda: context(answers="medium"), "use soft, hard or top-k"),
    ("knockoff", lambda: context(parameters={"reward": "all"}), "has no parameter 'reward'"),
    ("knockoff", lambda: context(parameters={"repeats": 3}), "has no parameter 'repeats'"),
    ("knockoff", lambda: context(parameters={"recovery": "dea"}), "Unknown recovery 'dea': did you mean dae"),
    ("knockoff-adaptive", lambda: context(parameters={"rewrad": "all"}), "did you mean reward"),
    ("knockoff-adaptive", lambda: context(parameters={"reward": "fame"}), "must be one of 'cert'"),
    ("knockoff-adaptive", lambda: context(parameters={"step": 0.5}), "must be an int of at least 1. Got 0.5"),
    ("knockoff-adaptive", lambda: context(pool_labels=None), "needs a query pool with labels"),
    ("knockoff", lambda: context(3, parameters={"recovery": "average"}), "holds not one image at 4 queries"),
]


@pytest.mark.parametrize(("name", "case", "message"), REFUSED, ids=[message for *_, message in REFUSED])
def test_refusals_ask_nothing(name: str, case: Callable[[], AttackContext], message: str) -> None:
    built = case()
    with pytest.raises(UserError, match=message):
        run_attack(name, built)
    assert built.victim.ledger.asked == 0


def test_every_attack_takes_its_default_parameters() -> None:
    for name, summary in list_attacks().items():
        assert summary
        assert check_attack(name) == name
        own, recovery, theirs = check_parameters(name, {})
        assert recovery is None
        assert theirs == {}
        assert check_parameters(name, {k: v for k, v in own.items() if v is not None})[0] == own
