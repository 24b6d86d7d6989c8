"""Robustness of victims and thieves in a run: accuracy at ε, curves over ε, and checks of gradient masking.

Once for each victim, kept in the store, in units of one white-box measurement (`steps` passes over the evasion images):
one for the figure at ε, one for each further radius of the curve, and less than three for the signs of
:func:`_gradient_masking_checks`. For each thief: one for the figure; at the largest budget alone also its curve, where
each radius costs the share of the images that still stand there, because those that were fooled are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._canonical import content_hash
from art_divqat._progress import phase
from art_divqat._rng import derive_seed
from art_divqat._types import Classifier, Images, Labels, PhaseProgress, Progress
from art_divqat.attacks.evasion import craft, craft_worst_case, gradient_norms, robust_mask, worst_case
from art_divqat.metrics import accuracy, transfer_attack_success
from art_divqat.metrics.table import SAMPLES
from art_divqat.plan.cells import Cell
from art_divqat.results.journal import PointRecord
from art_divqat.results.samples import curve_sample, pack
from art_divqat.victims.specs import VictimSpec
from art_divqat.victims.victim import Victim

if TYPE_CHECKING:
    from art_divqat.audit.bench import Bench

SQUARE_QUERIES = 200
LARGE_EPSILON = 0.5
MORE_STEPS = 5
# of the evasion images that withstood, how many are attacked again in other ways
_SUBSET = 0.2


@dataclass(frozen=True)
class VictimRobustness:
    """What is known of a victim's robustness besides the single figure.

    :param examples: radius → the evasion images perturbed on it at full strength, (images, C, H, W); 0 is not there.
    :param right: radius → which of them it still gets right, (images,).
    :param details: what the flags are computed from, by the keys of `results.flag_evidence.DIAGNOSTICS`.
    """

    examples: dict[float, NDArray[np.float32]]
    right: dict[float, NDArray[np.bool_]]
    details: dict[str, float]

    @property
    def robust_mask(self) -> NDArray[np.bool_]:
        """Which images nothing within each radius fooled, the smaller ones included; (radii, images)."""
        return np.logical_and.accumulate(np.stack(list(self.right.values())))


@dataclass
class Measured:
    """The robustness part of a cell's journal line."""

    metrics: dict[str, float | None]
    samples: dict[str, str]
    details: dict[str, float] = field(default_factory=dict)
    curves: dict[str, list[PointRecord]] = field(default_factory=dict)


class Robustness:
    """Measures robustness in one run: what concerns a victim once, kept in this process and in the store.

    :param bench: the data and the victims of the run.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._examples: dict[tuple[VictimSpec, int], Images] = {}
        self._victims: dict[tuple[VictimSpec, int], VictimRobustness] = {}

    def of_cell(
        self,
        cell: Cell,
        thief: Any,
        served: Classifier,
        served_answers: NDArray[Any],
        progress: PhaseProgress | None = None,
    ) -> Measured:
        """Robust accuracy of victim and thief, and what crosses from one to the other.

        :param served: the defended victim.
        :param served_answers: its answers to the clean evasion images.
        """
        bench = self._bench
        x, y = evasion_images(bench, bench.victim(cell.victim, cell.seed))
        steps_done = phase(progress, "attacking the thief")
        on_thief = _perturb(bench, thief, (x, y), cell.seed, steps_done)
        hits = {"thief_robust_accuracy": thief.predict(on_thief).argmax(axis=1) == y}
        success = transfer_attack_success(served_answers, served.predict(on_thief), y)
        on_victim = self.examples(cell.victim, cell.seed, progress)
        if len(on_victim):
            victim = bench.victim(cell.victim, cell.seed)
            hits["victim_robust_accuracy"] = victim.classifier.predict(on_victim).argmax(axis=1) == y
            hits["transfer_robust_accuracy"] = thief.predict(on_victim).argmax(axis=1) == y
        rates: dict[str, float | None] = {name: float(right.mean()) for name, right in hits.items()}
        rates["transfer_attack_success"] = success
        measured = Measured(rates, {SAMPLES[name]: pack(right) for name, right in hits.items()})
        known = self.of_victim(cell.victim, cell.seed, progress)
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
                    progress=steps_done,
                    **_pgd(bench, cell.seed),
                    early_stop=True,
                )
            }
            if known is not None:
                curves["victim_robust_accuracy"] = known.robust_mask
                crossed = (thief.predict(known.examples.get(radius, x)) for radius in radii)
                curves["transfer_robust_accuracy"] = np.stack([answers.argmax(axis=1) == y for answers in crossed])
            for name, right in curves.items():
                measured.curves[name] = [
                    {"epsilon": radius, "value": float(row.mean())} for radius, row in zip(radii, right, strict=True)
                ]
                measured.samples |= {curve_sample(name, r): pack(row) for r, row in zip(radii, right, strict=True)}
        return measured

    def examples(
        self, spec: VictimSpec, seed: int, progress: PhaseProgress | None = None, *, retrain: bool = False
    ) -> Images:
        """The evasion images perturbed at ε on a victim, (images, C, H, W); from memory, the store, or crafted now.

        For an int8 victim the worst of straight-through gradients, transfer from its full-precision parent, and Square.

        :param retrain: craft them anew, as for a victim that was.
        :return: no images if no robustness is measured, or the victim is a black box.
        """
        key = (spec, seed)
        if retrain or key not in self._examples:
            self._examples[key] = self._load_or_craft(spec, seed, progress, retrain)
        return self._examples[key]

    def of_victim(
        self, spec: VictimSpec, seed: int, progress: PhaseProgress | None = None, *, retrain: bool = False
    ) -> VictimRobustness | None:
        """The curve and the signs of one victim, from memory, the store, or measured now.

        :param retrain: measure them anew, the examples of the single figure among them.
        :return: None if no robustness is measured, or the victim is a black box.
        """
        examples = self.examples(spec, seed, progress, retrain=retrain)
        if len(examples) == 0:
            return None
        key = (spec, seed)
        if retrain or key not in self._victims:
            # only the last: the examples of a curve are many, and cells come victim by victim
            self._victims.clear()
            steps_done = phase(progress, f"curve and checks of {spec.name}")
            self._victims[key] = self._load_or_measure(spec, seed, examples, steps_done, retrain)
        return self._victims[key]

    def _load_or_craft(self, spec: VictimSpec, seed: int, progress: PhaseProgress | None, retrain: bool) -> Images:
        bench = self._bench
        config, rows = bench.config, bench.evasion_rows
        victim = bench.victim(spec, seed, progress)
        target = victim.capabilities.white_box
        if len(rows) == 0 or target is None:
            return bench.dataset.x_test[:0]
        identity = bench.victims.identity(spec, seed)
        # the curve does not decide the examples of the single figure
        settings = {
            **config.evasion.model_dump(exclude={"epsilons"}),
            "epsilon": config.epsilon,
            "rows": rows.tolist(),
        }
        file = f"evasion-{content_hash(settings)[:16]}"
        cached = None if retrain else bench.store.load_arrays(identity, file)
        if cached is not None and cached.get("x", rows).shape == (len(rows), *bench.dataset.input_shape):
            return cached["x"]
        steps_done = phase(progress, f"attacking {spec.name}")
        parent = bench.victims.parent(spec, seed)
        if parent is None:
            crafted = _perturb(bench, target, evasion_images(bench, victim), seed, steps_done)
        else:
            crafted, _ = craft_worst_case(
                target,
                *evasion_images(bench, victim),
                epsilon=config.epsilon,
                parent=parent.classifier,
                steps=config.evasion.steps,
                square_queries=SQUARE_QUERIES,
                seed=derive_seed("evasion", seed),
                progress=steps_done,
            )
        bench.store.save_arrays(identity, file, {"x": crafted})
        return crafted

    def _load_or_measure(
        self, spec: VictimSpec, seed: int, at_epsilon: Images, steps_done: Progress | None, retrain: bool
    ) -> VictimRobustness:
        bench = self._bench
        config, rows = bench.config, bench.evasion_rows
        victim = bench.victim(spec, seed)
        x, y = evasion_images(bench, victim)
        radii = config.evasion.epsilons or ()
        crafted = [radius for radius in radii if radius not in (0, config.epsilon)]
        identity = bench.victims.identity(spec, seed)
        settings = {**config.evasion.model_dump(), "epsilon": config.epsilon, "rows": rows.tolist(), "signs": 1}
        file = f"evasion-curve-{content_hash(settings)[:16]}"
        cached = None if retrain else bench.store.load_arrays(identity, file)
        shape = (len(crafted), len(rows), *bench.dataset.input_shape)
        if cached is None or cached.get("x", rows).shape != shape:
            # what is attacked with gradients: the victim or its twin, and the full-precision network it comes from
            parent = bench.victims.parent(spec, seed)
            targets = [victim.capabilities.white_box, *([] if parent is None else [parent.classifier])]
            predict = victim.classifier.predict
            examples = np.empty(shape, np.float32)
            for number, radius in enumerate(crafted):
                candidates = [craft(target, x, y, epsilon=radius, **_pgd(bench, seed)) for target in targets]
                examples[number] = candidates[0] if len(candidates) == 1 else worst_case(predict, candidates, y)[0]
                if steps_done is not None:
                    steps_done(number + 1, len(crafted) + 1)
            signs = _gradient_masking_checks(bench, seed, victim, at_epsilon, x, y)
            cached = {"x": examples, **{key: np.array([value]) for key, value in signs.items()}}
            bench.store.save_arrays(identity, file, cached)
        by_radius = dict(zip(crafted, cached.pop("x"), strict=True))
        if config.epsilon in radii and config.epsilon > 0:
            by_radius[config.epsilon] = at_epsilon
        right = {r: victim.classifier.predict(by_radius.get(r, x)).argmax(axis=1) == y for r in radii}
        details = {key: float(value[0]) for key, value in cached.items()}
        rates = {r: float(hit.mean()) for r, hit in right.items()}
        details["accuracy_rise"] = _largest_increase(rates | {LARGE_EPSILON: details["robust_accuracy_large_epsilon"]})
        return VictimRobustness(by_radius, right, details)


def evasion_images(bench: Bench, victim: Victim) -> tuple[Images, Labels]:
    """The test images that robustness is measured on, and their labels as a victim numbers its classes."""
    labels = victim.labels(bench.dataset.y_test[bench.evasion_rows])
    assert labels is not None, "of a victim whose right answers nobody knows no robustness is measured"
    return bench.dataset.x_test[bench.evasion_rows], labels


def _perturb(
    bench: Bench, target: Any, images: tuple[Images, Labels], seed: int, steps_done: Progress | None
) -> Images:
    """The evasion images, perturbed with white-box access to `target` to change the true label."""
    evasion = bench.config.evasion
    return craft(
        target,
        *images,
        attack="autoattack" if evasion.autoattack else "pgd",
        epsilon=bench.config.epsilon,
        steps=evasion.steps,
        seed=derive_seed("evasion", seed),
        progress=steps_done,
    )


def _pgd(bench: Bench, seed: int) -> dict[str, Any]:
    return {"attack": "pgd", "steps": bench.config.evasion.steps, "seed": derive_seed("evasion", seed)}


def _gradient_masking_checks(
    bench: Bench, seed: int, victim: Victim, at_epsilon: Images, x: Images, y: Labels
) -> dict[str, float]:
    """Whether the white-box figure is to be believed; prices in units of one white-box measurement.

    A pass for the gradients (1 / steps); ε = 0.5 on all images, left at the first success (at most one, where it works
    far less); five times the steps, and Square, each on at most a fifth of the images (at most one; 200 queries, about
    a third of 200 / steps / 5). The last two take images that withstood and say what would be left of the figure.
    """
    predict, epsilon = victim.classifier.predict, bench.config.epsilon
    target = victim.capabilities.white_box
    settings = _pgd(bench, seed)
    clean = predict(x).argmax(axis=1) == y
    still = gradient_norms(target, x[clean], y[clean]) == 0
    large = craft(target, x, y, epsilon=LARGE_EPSILON, **settings, early_stop=True)
    white = predict(at_epsilon).argmax(axis=1) == y
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


def _largest_increase(curve: dict[float, float]) -> float:
    """By how much a larger ball leaves more accuracy than a smaller one, at most; 0 if it never does.

    >>> _largest_increase({0.1: 0.5, 0.3: 0.25, 0.2: 0.75})
    0.25
    """
    rates = np.array([curve[radius] for radius in sorted(curve)])
    return float(np.max(rates - np.minimum.accumulate(rates)))
