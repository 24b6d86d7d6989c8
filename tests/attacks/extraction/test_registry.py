"""Attacks by name: parameters, answers, recoveries and refusals."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.digits_victim import agreement, digits, metered, thief

from art_divqat.attacks import extraction
from art_divqat.attacks.extraction import ATTACKS, AttackContext, AttackEntry, list_attacks, run_attack
from art_divqat.attacks.extraction import registry as attack_registry
from art_divqat.attacks.extraction.registry import attack_spec
from art_divqat.defences.postprocessor import ReverseSigmoid
from art_divqat.errors import UserError
from art_divqat.registry import Registry

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


def test_a_thief_that_sees_smaller_images_is_asked_of_who_can_make_one() -> None:
    asked: list[int | None] = []

    def of_any_size(image_size: int | None = None) -> Any:
        asked.append(image_size)
        return thief(1, name="small-cnn")

    run_attack("knockoff", context(100, build_thief=of_any_size, parameters={"image_size": 6}))
    run_attack("knockoff", context(100, build_thief=lambda **given: of_any_size(**given), parameters={"image_size": 5}))
    assert asked == [6, 5]
    case = context(100, parameters={"image_size": 6})
    with pytest.raises(
        UserError, match=r"'knockoff:image_size=6' asks for .* build_thief\(image_size=None\)"
    ) as caught:
        run_attack("knockoff", case)
    assert "\n" not in str(caught.value)
    assert case.victim.ledger.charged == 0


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
        beta, gamma, variant, nu = 0.7, 0.1, "released", 1000.0

        def __call__(self, rows: np.ndarray) -> np.ndarray:
            return rows

    run_attack("knockoff", context(50, parameters={"recovery": "invert"}, known_defence=Heuristic()))
    other = ReverseSigmoid(beta=0.7, gamma=0.1)  # a beta and a gamma, and yet another defence
    for known in (None, other):
        with pytest.raises(UserError, match=r"add beta=… to the attack"):
            run_attack("knockoff", context(50, parameters={"recovery": "invert"}, known_defence=known))


def test_random_is_knockoff_with_another_draw() -> None:
    requested: dict[str, set[bytes]] = {}
    for name in ("knockoff", "random"):
        case = context(100)
        seen: set[bytes] = set()
        case.victim._log = lambda x, y, seen=seen: seen.update(image.tobytes() for image in x)
        run_attack(name, case)
        requested[name] = seen
    assert requested["knockoff"] != requested["random"]


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
    assert built.victim.ledger.requested == 0


def test_every_attack_takes_its_default_parameters() -> None:
    for name, summary in list_attacks().items():
        assert summary
        attack = attack_spec(name, {})
        assert attack.recovery is None
        assert attack.theirs == {}
        assert attack_spec(name, {k: v for k, v in attack.own.items() if v is not None}).own == attack.own
        assert callable(ATTACKS[name].load())


@pytest.mark.parametrize(
    ("attack_class", "name"),
    [("DFME", "dfme"), ("MAZE", "maze"), ("JacobianAugmentation", "jbda"), ("KnockoffNets", "knockoff-adaptive")],
)
def test_a_class_has_the_defaults_and_the_ranges_of_its_name(attack_class: str, name: str) -> None:
    attack = getattr(extraction, attack_class)(metered())
    for parameter, declared in ATTACKS[name].parameters.items():
        if parameter == "seeds":  # which images an attack starts from is the runner's to say, not the class's
            continue
        assert getattr(attack, parameter) == declared.default
        with pytest.raises(ValueError, match=f"(?i){parameter}"):
            attack.set_params(**{parameter: -1})


def test_a_parameter_that_an_attack_and_its_recovery_both_have_is_the_attacks() -> None:
    attack = attack_spec("jbda", {"recovery": "invert", "variant": "targeted-random"})
    assert (attack.own["variant"], attack.theirs["variant"]) == ("targeted-random", None)
    case = context(60, parameters={"recovery": "invert", "beta": 0.5, "nb_seeds": 30, "round_epochs": 1})
    assert run_attack("jbda", case).details["images_kept"] == 60


def test_case_and_underscores_do_not_matter() -> None:
    plain, odd = (context(60, parameters={"step": 8, "recovery": recovery, "k": 2}) for recovery in ("top-k", "Top_K"))
    first, second = run_attack("knockoff-adaptive", plain), run_attack("Knockoff_Adaptive", odd)
    assert np.array_equal(first.thief.predict(POOL), second.thief.predict(POOL))


@pytest.mark.parametrize(
    ("name", "parameters", "needed"),
    [
        ("knockoff", {}, 1000),
        ("copycat", {"recovery": "average", "repeats": 8}, 125),
        ("knockoff-adaptive", {"replacement": True}, 1),
        ("knockoff-adaptive", {}, 1000),
        ("jbda", {}, 100),
        ("jbda", {"nb_seeds": 5000}, 1000),
        ("jbda", {"recovery": "average", "repeats": 20}, 50),
        ("maze", {}, 0),
        ("fee", {}, 0),
    ],
)
def test_how_large_a_pool_must_be(name: str, parameters: dict[str, Any], needed: int) -> None:
    assert attack_spec(name, parameters).pool_needed(1000) == needed


@pytest.mark.parametrize("name", ["knockoff", "jbda", "knockoff-adaptive"])
def test_a_pool_of_just_the_size_needed_is_enough(name: str) -> None:
    small = {"jbda": {"nb_seeds": 30, "round_epochs": 1}, "knockoff-adaptive": {"replacement": True, "reward": "cert"}}
    parameters = {**small.get(name, {}), "recovery": "average", "repeats": 2}
    needed = attack_spec(name, parameters).pool_needed(120)
    case = context(120, parameters=parameters, pool=POOL[:needed], pool_labels=LABELS[:needed])
    assert run_attack(name, case).details["images_kept"] == 60
    with pytest.raises(UserError, match=f"holds {needed - 1} images, fewer than the {needed} needed"):
        run_attack(name, context(120, parameters=parameters, pool=POOL[: needed - 1], pool_labels=LABELS[:1]))


def test_an_attack_may_come_from_another_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stranger.py").write_text(
        "from art_divqat.attacks.extraction.contract import AttackEntry, AttackOutcome\n"
        "from art_divqat.parameters import integer\n\n"
        "def run(context):\n"
        "    context.victim.predict(context.pool[: context.parameters['images']])\n"
        "    return AttackOutcome(context.build_thief(), {'images_kept': context.parameters['images']})\n\n"
        "ENTRY = AttackEntry('asks a few', run, {'images': integer(3, 1)}, pool_needed=lambda n, own: own['images'])\n"
        "NAMED = AttackEntry('asks a few', 'stranger:run', {'images': integer(4, 1)})\n"
    )
    metadata = tmp_path / "stranger-2.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 2.0\n")
    points = "a-few = stranger:ENTRY\nnamed = stranger:NAMED\nbroken = stranger:NOTHING\n"
    (metadata / "entry_points.txt").write_text(f"[art_divqat.attacks]\n{points}")
    monkeypatch.syspath_prepend(tmp_path)
    plugged = Registry("attack", "attacks", AttackEntry, {"knockoff": ATTACKS["knockoff"]})
    monkeypatch.setattr(attack_registry, "ATTACKS", plugged)

    # other plug-ins may be installed
    assert {"a-few", "broken", "knockoff", "named"} <= set(list_attacks())
    assert "cannot be loaded" in list_attacks()["broken"]
    assert plugged.find("broken") is None
    assert run_attack("A_Few", context(10, parameters={"images": 5})).details["images_kept"] == 5
    assert run_attack("named", context(10)).details["images_kept"] == 4
    assert attack_spec("a-few", {}).pool_needed(1000) == 3
    assert attack_spec("a-few", {"recovery": "average"}).least_budget == 4
    attack = attack_spec("A_Few", {"recovery": "Labels", "images": 2})
    assert (attack.own, attack.recovery, attack.theirs) == ({"images": 2}, "labels", {})
    assert run_attack(attack, context(10)).details["images_kept"] == 2
