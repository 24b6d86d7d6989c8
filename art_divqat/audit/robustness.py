"""Robustness in a run: single figures, curves over ε, and what tells whether an attack is to be believed.

Once for each victim, kept in the store, in units of one white-box measurement (`steps` passes over the evasion images):
one for the figure at ε, one for each further radius of the curve, and less than three for the signs of
:func:`_signs`. For each thief: one for the figure; at the largest budget alone also its curve, where each radius costs
the share of the images that still stand there, because those that were fooled are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._canonical import content_hash
from art_divqat._rng import derive_seed
from art_divqat.attacks.evasion import check_autoattack, craft, gradient_norms, robust_mask, worst_case
from art_divqat.audit.bench import SQUARE_QUERIES, phase
from art_divqat.metrics import accuracy, transfer_attack_success
from art_divqat.plan.cells import Cell
from art_divqat.results.samples import curve_sample, pack
from art_divqat.specs import parse_spec
from art_divqat.victims.external.settings import EXTERNAL
from art_divqat.victims.registry import parent_of

if TYPE_CHECKING:
    from art_divqat.audit.bench import Bench, Progress, Victim

LARGE_EPSILON = 0.5
MORE_STEPS = 5
# of the evasion images that withstood, how many are attacked again in other ways
_SUBSET = 0.2

Told = Callable[[int, int], None]


@dataclass(frozen=True)
class VictimRobustness:
    """What is known of a victim's robustness besides the single figure.

    :param examples: radius → the evasion images perturbed on it at full strength, (images, C, H, W); 0 is not there.
    :param right: radius → which of them it still gets right, (images,).
    :param details: what the flags are computed from, by the keys of `flag_rules.DETAILS`.
    """

    examples: dict[float, NDArray[np.float32]]
    right: dict[float, NDArray[np.bool_]]
    details: dict[str, float]

    @property
    def withstood(self) -> NDArray[np.bool_]:
        """Which images nothing within each radius fooled, the smaller ones included; (radii, images)."""
        return np.logical_and.accumulate(np.stack(list(self.right.values())))


@dataclass
class Measured:
    """The robustness part of a cell's journal line."""

    metrics: dict[str, float | None]
    samples: dict[str, str]
    details: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[dict[str, float]]] = field(default_factory=dict)


def measure(
    bench: Bench,
    cell: Cell,
    victim: Victim,
    thief: Any,
    served: Any,
    served_answers: NDArray[Any],
    progress: Progress | None,
) -> Measured:
    """Robust accuracy of victim and thief, and what crosses from one to the other.

    :param served_answers: of the defended victim to the clean evasion images.
    """
    x, y = evasion_images(bench)
    told = phase(progress, "attacking the thief")
    on_thief = bench.perturb(thief, derive_seed("evasion", cell.seed), told)
    hits = {"thief_robust_accuracy": thief.predict(on_thief).argmax(axis=1) == y}
    success = transfer_attack_success(served_answers, served.predict(on_thief), y)
    if len(victim.adversarial):
        hits["victim_robust_accuracy"] = victim.classifier.predict(victim.adversarial).argmax(axis=1) == y
        hits["transfer_robust_accuracy"] = thief.predict(victim.adversarial).argmax(axis=1) == y
    rates: dict[str, float | None] = {name: float(right.mean()) for name, right in hits.items()}
    rates["transfer_attack_success"] = success
    measured = Measured(rates, {name: pack(right) for name, right in hits.items()})
    known = victim_robustness(bench, cell.victim, cell.seed, progress)
    if known is not None:
        measured.details |= known.details
    radii = bench.config.evasion.epsilons
    if radii and cell.budget == bench.config.budgets[-1]:
        curves: dict[str, NDArray[np.bool_]] = {
            "thief_robust_accuracy": robust_mask(
                thief,
                x,
                y,
                epsilons=radii,
                predict=thief.predict,
                known={bench.config.epsilon: on_thief},
                progress=told,
                **_pgd(bench, cell.seed),
                early_stop=True,
            )
        }
        if known is not None:
            curves["victim_robust_accuracy"] = known.withstood
            crossed = (thief.predict(known.examples.get(radius, x)) for radius in radii)
            curves["transfer_robust_accuracy"] = np.stack([answers.argmax(axis=1) == y for answers in crossed])
        for name, right in curves.items():
            measured.curves[name] = [
                {"epsilon": radius, "value": float(row.mean())} for radius, row in zip(radii, right, strict=True)
            ]
            measured.samples |= {curve_sample(name, r): pack(row) for r, row in zip(radii, right, strict=True)}
    return measured


def check_evasion(bench: Bench) -> None:
    """Refuse, before anything is trained, an attack that the data has too few classes for.

    :raises UserError: for AutoAttack on fewer than four classes.
    """
    if bench.config.evasion.autoattack and len(bench.evasion_rows):
        remedy = "leave evasion.autoattack out, for PGD; every victim meets Square too"
        check_autoattack(bench.dataset.nb_classes, remedy)


def evasion_images(bench: Bench) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The test images that robustness is measured on, and their labels."""
    return bench.dataset.x_test[bench.evasion_rows], bench.dataset.y_test[bench.evasion_rows]


def victim_robustness(
    bench: Bench, name: str, seed: int, progress: Progress | None = None, *, retrain: bool = False
) -> VictimRobustness | None:
    """The curve and the signs of one victim, from this process, the store, or measured now.

    None if no robustness is measured, or the victim is a black box.
    """
    victim = bench.victim(name, seed, progress)
    if len(victim.adversarial) == 0:
        return None
    key = (name, seed)
    if retrain or key not in bench.robustness:
        # only the last: the examples of a curve are many, and cells come victim by victim
        bench.robustness.clear()
        told = phase(progress, f"curve and checks of {parse_spec(name).name}")
        bench.robustness[key] = _load_or_measure(bench, name, seed, victim, told, retrain)
    return bench.robustness[key]


def _load_or_measure(
    bench: Bench, name: str, seed: int, victim: Victim, told: Told | None, retrain: bool
) -> VictimRobustness:
    config, rows = bench.config, bench.evasion_rows
    x, y = evasion_images(bench)
    radii = config.evasion.epsilons or ()
    crafted = [radius for radius in radii if radius not in (0, config.epsilon)]
    identity = bench.victim_identity(name, seed)
    settings = {**config.evasion.model_dump(), "epsilon": config.epsilon, "rows": rows.tolist(), "signs": 1}
    file = f"evasion-curve-{content_hash(settings)[:16]}"
    held = None if retrain else bench.store.load_arrays(identity, file)
    shape = (len(crafted), len(rows), *bench.dataset.input_shape)
    if held is None or held.get("x", rows).shape != shape:
        targets = _targets(bench, name, seed, victim)
        predict = victim.classifier.predict
        examples = np.empty(shape, np.float32)
        for number, radius in enumerate(crafted):
            candidates = [craft(target, x, y, epsilon=radius, **_pgd(bench, seed)) for target in targets]
            examples[number] = candidates[0] if len(candidates) == 1 else worst_case(predict, candidates, y)[0]
            if told is not None:
                told(number + 1, len(crafted) + 1)
        signs = _signs(bench, seed, victim, targets[0], x, y)
        held = {"x": examples, **{key: np.array([value]) for key, value in signs.items()}}
        bench.store.save_arrays(identity, file, held)
    by_radius = dict(zip(crafted, held.pop("x"), strict=True))
    if config.epsilon in radii and config.epsilon > 0:
        by_radius[config.epsilon] = victim.adversarial
    right = {r: victim.classifier.predict(by_radius.get(r, x)).argmax(axis=1) == y for r in radii}
    details = {key: float(value[0]) for key, value in held.items()}
    details["accuracy_rise"] = _rise(
        {r: float(hit.mean()) for r, hit in right.items()} | {LARGE_EPSILON: details["robust_accuracy_large_epsilon"]}
    )
    return VictimRobustness(by_radius, right, details)


def _targets(bench: Bench, name: str, seed: int, victim: Victim) -> list[Any]:
    """What is attacked with gradients: the victim or its twin, and the full-precision network it comes from."""
    spec = parse_spec(name)
    if spec.name == EXTERNAL:
        return [victim.classifier.white_box]
    parent = parent_of(spec)
    return [victim.classifier, *([] if parent is None else [bench.victim(parent, seed).classifier])]


def _pgd(bench: Bench, seed: int) -> dict[str, Any]:
    return {"attack": "pgd", "steps": bench.config.evasion.steps, "seed": derive_seed("evasion", seed)}


def _signs(
    bench: Bench, seed: int, victim: Victim, target: Any, x: NDArray[np.float32], y: NDArray[np.int64]
) -> dict[str, float]:
    """Whether the white-box figure is to be believed; prices in units of one white-box measurement.

    A pass for the gradients (1 / steps); ε = 0.5 on all images, left at the first success (at most one, where it works
    far less); five times the steps, and Square, each on at most a fifth of the images (at most one; 200 queries, about
    a third of 200 / steps / 5). The last two take images that withstood and say what would be left of the figure.
    """
    predict, epsilon = victim.classifier.predict, bench.config.epsilon
    settings = _pgd(bench, seed)
    clean = predict(x).argmax(axis=1) == y
    still = gradient_norms(target, x[clean], y[clean]) == 0
    large = craft(target, x, y, epsilon=LARGE_EPSILON, **settings, early_stop=True)
    white = predict(victim.adversarial).argmax(axis=1) == y
    left = white.nonzero()[0]
    rows = left[:: max(1, -(-len(left) // max(1, int(_SUBSET * len(x)))))]
    more = {**settings, "steps": MORE_STEPS * bench.config.evasion.steps, "early_stop": True}
    square = {"attack": "square", "steps": SQUARE_QUERIES, "seed": settings["seed"]}
    kept = {"robust_accuracy_more_steps": 1.0, "robust_accuracy_black_box": 1.0}
    if len(rows) and epsilon > 0:
        for name, attack in zip(kept, (more, square), strict=True):
            crafted = craft(target, x[rows], y[rows], epsilon=epsilon, **attack)
            kept[name] = accuracy(predict(crafted), y[rows])
    return {
        "zero_gradients": float(still.mean()) if len(still) else 0.0,
        "robust_accuracy_large_epsilon": accuracy(predict(large), y),
        **{name: rate * float(white.mean()) for name, rate in kept.items()},
    }


def _rise(curve: dict[float, float]) -> float:
    """By how much a larger ball leaves more accuracy than a smaller one, at most; 0 if it never does.

    >>> _rise({0.1: 0.5, 0.3: 0.25, 0.2: 0.75})
    0.25
    """
    rates = np.array([curve[radius] for radius in sorted(curve)])
    return float(np.max(rates - np.minimum.accumulate(rates)))
