"""Every flag fires for its reason, and stays silent without it; every flag is documented."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.builders import make_results, robust_rates

from art_divqat.results.flags import DIAGNOSTICS, RULES, Tolerances, compute_flags
from art_divqat.results.schema import Results

DOCUMENT = Path(__file__).parents[2] / "docs" / "flags.md"


def names(results: Results, tolerances: Tolerances | None = None) -> list[str]:
    return [flag.name for flag in compute_flags(results, tolerances)]


def sound(**changes: object) -> Results:
    """A run that raises nothing: defended, with an attacker who knows the defence and flips within the tolerance."""
    given = {
        "rates": steady,
        "defences": ("none", "heuristic:beta=0.9"),
        "attacks": ("knockoff", "knockoff:recovery=invert", "scout"),
        "details": {
            "thief_final_loss_slope": -0.01,
            "linear_probe_accuracy": 0.2,
            "pool_overlap": 0.0,
            "victim_simplex_error": 1e-7,
            "victim_nondeterminism": 0.0,
            "victim_train_mode": 0.0,
            "zero_gradients": 0.0,
            "robust_accuracy_more_steps": 0.54,
            "robust_accuracy_black_box": 0.54,
            "robust_accuracy_large_epsilon": 0.0,
            "accuracy_rise": 0.0,
        },
        "noise": 0.0,
    }
    return make_results(**{**given, **changes})  # type: ignore[arg-type]


def steady(victim: str, defence: str, answers: str, budget: int) -> dict[str, float]:
    rates = dict(robust_rates(victim, defence, answers, budget))
    if defence != "none":
        rates["label_flip_rate"] = 0.005
    rates["victim_robust_accuracy"] = 0.55 if victim.startswith("robust") else 0.05
    return rates


def changed(**metrics: float) -> Callable[..., dict[str, float]]:
    return lambda *where: {**steady(*where), **metrics}


def with_detail(key: str, value: float) -> Results:
    return sound(details={key: value})


def spending(part: float) -> Results:
    results = sound()
    cells = [c.model_copy(update={"queries": int(c.budget * part)}) for c in results.cells]
    return results.model_copy(update={"cells": cells})


def images_of(channels: int, side: int = 32) -> dict[str, object]:
    return {"dataset": {"input_shape": [channels, side, side]}}


# what makes each flag fire, and a run that comes near but must not raise it
CASES: dict[str, tuple[Callable[[], Results], Callable[[], Results]]] = {
    "incomplete": (lambda: sound(planned=1_000), sound),
    "one-seed": (lambda: sound(seeds=1), lambda: sound(seeds=2)),
    "no-random-baseline": (
        lambda: sound(attacks=("knockoff-adaptive", "jbda", "dfme:recovery=invert")),
        lambda: sound(attacks=("knockoff-adaptive", "random:recovery=invert")),
    ),
    "one-pool": (
        lambda: sound(attacks=("knockoff", "knockoff-adaptive", "scout:pools=none", "random")),
        lambda: sound(attacks=("knockoff", "scout:pools=walks", "random")),
    ),
    "only-soft-answers": (lambda: sound(answers=("soft",)), lambda: sound(answers=("soft", "top-k"))),
    "no-adaptive-attacker": (
        lambda: sound(attacks=("knockoff", "knockoff-adaptive", "knockoff:recovery=labels", "random:recovery=top-k")),
        lambda: sound(attacks=("knockoff",), details={"adaptive_attacker": 1.0}),
    ),
    "thieves-from-nothing": (lambda: sound(data=images_of(3, 64)), lambda: sound(data=images_of(1, 224))),
    "thief-undertrained": (
        lambda: with_detail("thief_final_loss_slope", -0.2),
        lambda: with_detail("thief_final_loss_slope", 0.2),
    ),
    "agreement-saturated": (
        lambda: sound(rates=changed(agreement=0.9)),
        lambda: sound(rates=changed(agreement=0.1)),
    ),
    "pool-overlaps-training-data": (
        lambda: with_detail("pool_overlap", 0.01),
        lambda: with_detail("pool_overlap", 0.0),
    ),
    "test-images-in-training-data": (
        lambda: sound(data={"dataset": {"test": 360, "test_overlap": 0.25}}),
        lambda: sound(data={"dataset": {"test": 360, "test_overlap": 0.0005}}),
    ),
    "mixture-alone-on-colour-images": (
        lambda: sound(victims=("standard", "divqat:auxiliary=mixture"), data=images_of(3)),
        lambda: sound(victims=("standard", "divqat:auxiliary=cifar100,mixture=all"), data=images_of(3)),
    ),
    "answers-off-simplex": (
        lambda: with_detail("victim_simplex_error", 3.5),
        lambda: with_detail("victim_simplex_error", 1e-6),
    ),
    "victim-nondeterministic": (
        lambda: with_detail("victim_nondeterminism", 0.1),
        lambda: with_detail("victim_nondeterminism", 1e-7),
    ),
    "victim-in-train-mode": (
        lambda: with_detail("victim_train_mode", 1.0),
        lambda: with_detail("victim_train_mode", 0.0),
    ),
    "labels-flipped": (
        lambda: sound(rates=changed(label_flip_rate=0.011)),
        lambda: sound(rates=changed(label_flip_rate=0.01)),
    ),
    "budget-not-exhausted": (lambda: spending(0.9), lambda: spending(1.0)),
    "black-box-beats-white-box": (
        lambda: sound(rates=changed(transfer_robust_accuracy=0.1, thief_robust_accuracy=0.2)),
        lambda: sound(rates=changed(transfer_robust_accuracy=0.19, thief_robust_accuracy=0.2)),
    ),
    "robust-accuracy-suspicious": (
        lambda: sound(rates=changed(victim_robust_accuracy=0.55)),
        lambda: sound(rates=changed(victim_robust_accuracy=0.4)),
    ),
    "zero-gradients": (lambda: with_detail("zero_gradients", 0.3), lambda: with_detail("zero_gradients", 0.01)),
    "more-steps-matter": (
        lambda: with_detail("robust_accuracy_more_steps", 0.01),
        lambda: with_detail("robust_accuracy_more_steps", 0.55),
    ),
    "large-epsilon-survived": (
        lambda: with_detail("robust_accuracy_large_epsilon", 0.4),
        lambda: with_detail("robust_accuracy_large_epsilon", 0.05),
    ),
    "accuracy-rises-with-epsilon": (
        lambda: with_detail("accuracy_rise", 0.1),
        lambda: with_detail("accuracy_rise", 0.01),
    ),
    "evasion-sees-defence": (
        lambda: with_detail("evasion_sees_defence", 1.0),
        lambda: sound(defences=("none",), details={"evasion_sees_defence": 1.0}),
    ),
    "evasion-does-not-see-defence": (
        lambda: with_detail("evasion_sees_defence", 0.0),
        lambda: sound(defences=("none",), details={"evasion_sees_defence": 0.0}),
    ),
}


def test_a_sound_run_raises_nothing() -> None:
    assert names(sound()) == []


def test_every_rule_has_its_case() -> None:
    assert sorted(CASES) == sorted(rule.name for rule in RULES)


@pytest.mark.parametrize("name", CASES)
def test_it_fires_and_stays_silent(name: str) -> None:
    fires, silent = CASES[name]
    assert name in names(fires())
    assert name not in names(silent())


@pytest.mark.parametrize("name", CASES)
def test_each_says_why_what_it_means_and_what_to_do(name: str) -> None:
    flag = next(f for f in compute_flags(CASES[name][0]()) if f.name == name)
    for text in (flag.raised_because, flag.meaning, flag.remedy):
        assert text[0].isupper() or text[0].isdigit()
        assert text.endswith(".")
        assert "\n" not in text


def test_square_that_beats_gradients_on_the_victim_is_a_black_box_that_beats_a_white_box() -> None:
    def reason(value: float) -> str | None:
        flags = compute_flags(with_detail("robust_accuracy_black_box", value))
        return next((f.raised_because for f in flags if f.name == "black-box-beats-white-box"), None)

    assert reason(0.54) is None
    assert (reason(0.4) or "").startswith("Square, which sees no gradients, takes the victim's robust accuracy lower")
    assert "robust:epsilon=0.2" in (reason(0.4) or "")
    assert "standard" not in (reason(0.4) or "")


def test_surviving_a_large_epsilon_is_held_against_chance() -> None:
    def raised(classes: int) -> bool:
        data = {"dataset": {"name": "d", "test": 360, "classes": classes}, "evasion_images": 200}
        return "large-epsilon-survived" in names(sound(data=data, details={"robust_accuracy_large_epsilon": 0.15}))

    assert raised(10)
    assert not raised(5)


def test_a_thief_worse_than_a_linear_probe_is_undertrained() -> None:
    assert "thief-undertrained" in names(with_detail("linear_probe_accuracy", 0.95))
    assert "thief-undertrained" not in names(with_detail("linear_probe_accuracy", 0.22))


def test_overlap_may_also_be_said_with_the_data() -> None:
    results = sound(data={"pool": {"overlap": 0.02}})
    flag = next(f for f in compute_flags(results) if f.name == "pool-overlaps-training-data")
    assert flag.raised_because.startswith("2.00 % of the pool")


def test_an_attacker_may_be_left_with_less_than_one_image_costs() -> None:
    results = sound(details={"queries_per_image": 8.0}, budgets=(247, 503, 999))
    cells = [c.model_copy(update={"queries": c.budget // 8 * 8}) for c in results.cells]
    assert "budget-not-exhausted" not in names(results.model_copy(update={"cells": cells}))
    cells = [c.model_copy(update={"queries": c.budget // 8 * 8 - 8}) for c in results.cells]
    assert "budget-not-exhausted" in names(results.model_copy(update={"cells": cells}))


def test_a_spec_with_several_parameters_is_read() -> None:
    assert "no-adaptive-attacker" not in names(sound(attacks=("random", "knockoff:beta=0.9,recovery=invert")))


def test_attacks_of_packages_that_are_not_installed_here_are_read_too() -> None:
    raised = names(sound(attacks=("elsewhere:tries=3", "random attack, by hand", "knockoff:recovery=elsewhere")))
    assert "no-adaptive-attacker" in raised
    assert "no-random-baseline" not in raised
    raised = names(sound(attacks=("elsewhere",), details={"adaptive_attacker": 1.0}))
    assert "no-adaptive-attacker" not in raised
    assert "no-random-baseline" in raised


@pytest.mark.parametrize("name", ["Knockoff", "random:recovery=labels", "copycat"])
def test_an_attack_that_queries_at_random_is_a_baseline(name: str) -> None:
    assert "no-random-baseline" not in names(sound(attacks=(name, "jbda")))


def test_labels_that_a_model_flips_by_itself_are_no_defences_fault() -> None:
    found = names(sound(rates=changed(label_flip_rate=0.7), defences=("none",)))
    assert "labels-flipped" not in found


def test_tolerances_are_the_callers() -> None:
    results = sound(rates=changed(label_flip_rate=0.05))
    assert "labels-flipped" in names(results)
    assert "labels-flipped" not in names(results, Tolerances(flips=0.1))


def test_nothing_is_said_of_nothing() -> None:
    assert compute_flags(make_results(victims=(), baseline=None, planned=5)) == []


def test_every_flag_and_every_detail_is_documented() -> None:
    text = DOCUMENT.read_text("utf-8")
    headings = {line[3:].strip("` ") for line in text.splitlines() if line.startswith("## ")}
    assert {rule.name for rule in RULES} <= headings
    for key in DIAGNOSTICS:
        assert f"`{key}`" in text


def test_the_mixture_alone_is_no_fault_on_grey_images_nor_where_none_was_needed() -> None:
    for victims, channels in ((("divqat:auxiliary=mixture",), 1), (("standard", "quantized"), 3)):
        found = sound(victims=victims, baseline=None, data=images_of(channels))
        assert "mixture-alone-on-colour-images" not in names(found)
