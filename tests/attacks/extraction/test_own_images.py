"""Attacks with images of one's own: what is asked, what is learned, and what is refused before anything is asked."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from art.estimators.classification import BlackBoxClassifier
from support.digits_victim import SHAPE, agreement, digits, metered, thief, victim

from art_divqat.attacks.extraction import AttackContext, run_attack
from art_divqat.attacks.extraction.registry import parse_attack
from art_divqat.errors import UserError
from art_divqat.estimators import MeteredClassifier, QueryLedger
from art_divqat.testing import check

IMAGES, LABELS = digits()
POOL, OWN, OWN_LABELS = IMAGES[900:1200], IMAGES[1200:1260], LABELS[1200:1260]
TEST, TEST_LABELS = IMAGES[1300:], LABELS[1300:]
ASKING = ("own-and-pool", "own-augmented", "jbda:seeds=own", "semi-supervised", "semi-supervised:pool_share=0.5")
Asked = list[np.ndarray]


def context(budget: int, *, epochs: int = 5, **changes: Any) -> tuple[AttackContext, Asked]:
    asked: Asked = []
    meter = metered(budget)
    meter._log = lambda x, y: asked.append(x.copy())
    values: dict[str, Any] = {
        "victim": meter,
        "pool": POOL,
        "build_thief": lambda: thief(epochs, name="small-cnn"),
        "budget": budget,
        "answers": "soft",
        "seed": 0,
        "own_images": OWN,
        "own_labels": OWN_LABELS,
        **changes,
    }
    return AttackContext(**values), asked


def are_among(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    known = {image.tobytes() for image in others}
    return np.array([image.tobytes() in known for image in images])


def accuracy(outcome: Any) -> float:
    return float((outcome.thief.predict(TEST).argmax(1) == TEST_LABELS).mean())


def test_images_alone_give_a_thief_without_a_query() -> None:
    case, asked = context(0)
    outcome = run_attack(parse_attack("own-images:variants=900"), case)
    assert asked == []
    assert case.victim.ledger.requested == 0
    assert outcome.details == {"images_kept": 0, "stopped_early": 0, "queries_per_image": 1}
    assert accuracy(outcome) > 0.7


def test_the_baseline_does_not_depend_on_victim_answers_or_pool() -> None:
    blind = BlackBoxClassifier(lambda x: np.full((len(x), 10), np.nan), SHAPE, 10, clip_values=(0, 1))
    cases = [
        context(0)[0],
        context(0, victim=MeteredClassifier(blind, QueryLedger(0)), answers="none", pool=POOL[:0])[0],
    ]
    thieves = [run_attack(parse_attack("own-images:variants=100"), case).thief for case in cases]
    assert np.array_equal(thieves[0].predict(TEST), thieves[1].predict(TEST))


def test_variants_make_a_better_thief_than_the_images_as_they_are() -> None:
    few = run_attack(parse_attack("own-images:variants=1"), context(0, epochs=20)[0])
    many = run_attack(parse_attack("own-images:variants=1200"), context(0, epochs=20)[0])
    assert accuracy(many) > accuracy(few)


def test_own_images_are_asked_before_the_pool() -> None:
    case, asked = context(160)
    outcome = run_attack("own-and-pool", case)
    queries = np.concatenate(asked)
    assert len(queries) == outcome.details["images_kept"] == 160
    assert are_among(queries[:60], OWN).all()
    assert are_among(queries[60:], POOL).all()
    assert len(np.unique(queries.reshape(160, -1), axis=0)) == 160


@pytest.mark.parametrize("name", ASKING)
@pytest.mark.parametrize("budget", [1, 25, 59])
def test_a_budget_smaller_than_the_own_images(name: str, budget: int) -> None:
    case, asked = context(budget, epochs=1)
    run_attack(parse_attack(name), case)
    queries = np.concatenate(asked)
    assert len(queries) == case.victim.ledger.charged == budget
    if "pool_share" not in name:
        assert are_among(queries, OWN).all()


@pytest.mark.parametrize("name", ASKING)
@pytest.mark.parametrize("answers", ["soft", "hard", "top-2"])
def test_every_attack_steals_from_every_kind_of_answers(name: str, answers: str) -> None:
    case, asked = context(200, epochs=8, answers=answers)
    outcome = run_attack(parse_attack(name), case)
    assert sum(map(len, asked)) == 200
    assert agreement(outcome.thief) > 0.6


@pytest.mark.parametrize("name", ASKING[:3])
def test_labels_are_not_looked_at_where_they_are_not_needed(name: str) -> None:
    attack = parse_attack(name)
    with_labels, without = (
        run_attack(attack, context(80, epochs=1, own_labels=labels)[0]) for labels in (OWN_LABELS, None)
    )
    assert np.array_equal(with_labels.thief.predict(TEST), without.thief.predict(TEST))


@pytest.mark.parametrize("name", ["own-images", "semi-supervised"])
def test_missing_labels_are_refused_before_anything_is_asked(name: str) -> None:
    case, asked = context(100, own_labels=None)
    with pytest.raises(UserError, match=f"{name}.* needs the true labels .*--no-attacker-labels"):
        run_attack(parse_attack(name), case)
    assert asked == []


@pytest.mark.parametrize("name", [*ASKING, "own-images"])
@pytest.mark.parametrize("own", [None, OWN[:0]])
def test_missing_images_are_refused_before_anything_is_asked(name: str, own: Any) -> None:
    case, asked = context(100, own_images=own)
    with pytest.raises(UserError, match=r"needs images of the attacker's own.*--attacker-images\.$"):
        run_attack(parse_attack(name), case)
    assert asked == []


def test_jacobian_augmentation_starts_from_all_own_images() -> None:
    case, asked = context(150)
    outcome = run_attack(parse_attack("jbda:seeds=own,nb_seeds=5"), case)
    assert len(asked[0]) == outcome.details["seeds"] == 60
    assert are_among(asked[0], OWN).all()
    without = dataclasses.replace(context(150)[0], own_images=None)
    assert run_attack("jbda", without).details["seeds"] == 100


def test_budgets_of_one_seed_are_nested() -> None:
    for name in ("own-augmented", "own-and-pool", "semi-supervised"):
        queries = []
        for budget in (90, 140):
            case, asked = context(budget, epochs=1)
            run_attack(name, case)
            queries.append(np.concatenate(asked))
        assert np.array_equal(queries[0], queries[1][:90]), name


def test_the_share_of_the_pool_is_asked_of_the_pool() -> None:
    for share, expected in ((0.0, 0), (0.25, 25), (1.0, 100)):
        attack = parse_attack(f"semi-supervised:pool_share={share}")
        assert attack.pool_needed(100) == expected
        case, asked = context(100, epochs=1)
        run_attack(attack, case)
        assert are_among(np.concatenate(asked), POOL).sum() == expected


def test_a_victim_that_lies_is_outvoted_by_the_true_labels() -> None:
    liar = BlackBoxClassifier(
        lambda x: np.roll(victim().predict(x), 1, axis=1), SHAPE, 10, clip_values=(0, 1)
    )  # every answer names the next class

    def stolen(name: str) -> float:
        case, _ = context(120, epochs=8, victim=MeteredClassifier(liar, QueryLedger(120)))
        return accuracy(run_attack(parse_attack(name), case))

    assert stolen("own-augmented") < 0.2
    assert stolen("semi-supervised:label_weight=1") > 0.6
    assert stolen("semi-supervised:label_weight=0.9") > 0.6


def test_answers_that_become_unusable_leave_what_was_paid_for() -> None:
    def answers(x: np.ndarray) -> np.ndarray:
        rows = victim().predict(x)
        rows[30:] = np.nan
        return rows

    for name in ("own-augmented", "own-and-pool", "semi-supervised:pool_share=0.5"):
        target = BlackBoxClassifier(answers, SHAPE, 10, clip_values=(0, 1))
        outcome = run_attack(
            parse_attack(name), context(100, epochs=1, victim=MeteredClassifier(target, QueryLedger(100)))[0]
        )
        assert outcome.details["stopped_early"] == 1
        assert outcome.details["images_kept"] == 30


def test_what_asks_nothing_takes_no_recovery() -> None:
    with pytest.raises(UserError, match="'own-images' has no parameter 'recovery'"):
        parse_attack("own-images:recovery=labels")
    assert parse_attack("own-augmented:recovery=average").queries_per_image == 4


@pytest.mark.parametrize("name", [*ASKING, "own-images:variants=60"])
def test_the_public_check_gives_own_images(name: str) -> None:
    check(name)
