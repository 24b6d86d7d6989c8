"""Victims by name: what they are, how they are trained, and which victim each is compared with.

Importing this module imports neither torch nor ART.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from art_divqat._rng import derive_seed
from art_divqat._validation import check_float
from art_divqat.defences.trainer.robust_registry import ROBUST_TRAINERS, robust_trainer
from art_divqat.errors import unknown_name
from art_divqat.specs import Spec, check_parameters, parse_spec

if TYPE_CHECKING:
    from art_divqat.data import Dataset
    from art_divqat.estimators import RecipeClassifier, TrainingRecipe


@dataclass(frozen=True)
class VictimContext:
    """What training a victim may use; the test split is not among it."""

    dataset: Dataset
    model: str
    recipe: TrainingRecipe
    seed: int
    device: str
    progress: Callable[[int, int], None] | None = None

    def fresh_classifier(self) -> RecipeClassifier:
        """An untrained network of the wanted architecture, seeded for this victim."""
        from art_divqat.estimators import RecipeClassifier
        from art_divqat.models import build_model

        shape, classes = self.dataset.input_shape, self.dataset.nb_classes
        seed = derive_seed("victim", self.seed)
        network = build_model(self.model, shape, classes, seed=seed)
        classifier = RecipeClassifier(network, shape, classes, self.recipe, seed=seed, device=self.device)
        classifier.progress = self.progress
        return classifier


@dataclass(frozen=True)
class VictimEntry:
    """One kind of victim: a line on it, its parameters, the victim it is compared with, and how it is trained."""

    summary: str
    train: Callable[[VictimContext, Spec], Any]
    baseline: str | None = None
    parameters: tuple[str, ...] = ()


def _standard(context: VictimContext, spec: Spec) -> RecipeClassifier:
    del spec
    classifier = context.fresh_classifier()
    classifier.fit(context.dataset.x_train, context.dataset.y_train)
    return classifier


def _robust(context: VictimContext, spec: Spec) -> RecipeClassifier:
    classifier = context.fresh_classifier()
    trainer = robust_trainer(spec.name).build(
        classifier,
        epsilon=float(spec.as_dict["epsilon"]),
        seed=classifier.seed,
        epochs=context.recipe.epochs,
        batch_size=context.recipe.batch_size,
        progress=context.progress,
    )
    trainer.fit(context.dataset.x_train, context.dataset.y_train)
    return classifier


VICTIMS: dict[str, VictimEntry] = {
    "standard": VictimEntry("trained on the labels alone", _standard),
} | {
    name: VictimEntry(entry.summary, _robust, baseline="standard", parameters=("epsilon",))
    for name, entry in ROBUST_TRAINERS.items()
}


def list_victims() -> dict[str, str]:
    """Every kind of victim with one line on it.

    >>> sorted(list_victims())[:2]
    ['robust', 'robust-awp']
    """
    return {name: entry.summary for name, entry in VICTIMS.items()}


def canonical_victim(text: str, *, epsilon: float) -> str:
    """The canonical form of a victim's specification, with the radius it will be trained for.

    :raises UserError: for an unknown name or parameter, or an ε outside (0, 1].

    >>> canonical_victim("robust", epsilon=0.2)
    'robust:epsilon=0.2'
    """
    spec = parse_spec(text)
    if spec.name not in VICTIMS:
        raise unknown_name("victim", spec.name, VICTIMS)
    entry = VICTIMS[spec.name]
    check_parameters(spec, entry.parameters)
    if "epsilon" in entry.parameters:
        radius = spec.as_dict.get("epsilon", epsilon)
        spec = spec.with_parameters({"epsilon": check_float(spec.name, "epsilon", radius, 0, 1, closed="right")})
    return str(spec)


def with_baselines(victims: Sequence[str]) -> tuple[str, ...]:
    """The victims, with the baseline of each before it unless it is asked for already.

    >>> with_baselines(["robust:epsilon=0.2"])
    ('standard', 'robust:epsilon=0.2')
    """
    wanted: list[str] = []
    names = {parse_spec(victim).name for victim in victims}
    for victim in victims:
        baseline = VICTIMS[parse_spec(victim).name].baseline
        if baseline is not None and baseline not in names and baseline not in wanted:
            wanted.append(baseline)
        wanted.append(victim)
    return tuple(wanted)


def baseline_of(victim: str, victims: Sequence[str]) -> str | None:
    """The one among `victims` that `victim` is compared with, or None."""
    name = victim.partition(":")[0]
    baseline = VICTIMS[name].baseline if name in VICTIMS else None
    if baseline is None:
        return None
    return next((other for other in victims if other.partition(":")[0] == baseline), None)


def train_victim(spec: Spec, context: VictimContext) -> Any:
    """Train one victim from scratch; the same context gives the same weights."""
    return VICTIMS[spec.name].train(context, spec)
