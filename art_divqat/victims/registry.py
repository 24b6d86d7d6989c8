"""Victims by name: what they are, how they are trained, and which victim each is compared with.

Importing this module imports neither torch nor ART.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from art_divqat._rng import derive_seed
from art_divqat._validation import check_int
from art_divqat.attacks.evasion.ball import check_epsilon
from art_divqat.defences.trainer.divqat_parameters import DIVQAT_NUMBERS
from art_divqat.defences.trainer.robust_registry import ROBUST_TRAINERS, robust_trainer
from art_divqat.errors import UserError, unknown_name
from art_divqat.specs import Spec, Value, check_parameters, parse_spec
from art_divqat.victims.external.settings import EXTERNAL, is_external, same_external

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from art_divqat.data import Dataset
    from art_divqat.estimators import RecipeClassifier, TrainingRecipe

_QAT_PARAMETERS = ("backend", "epochs")
_DIVQAT_PARAMETERS = (*_QAT_PARAMETERS, "auxiliary", "mixture", *DIVQAT_NUMBERS)
AUXILIARY_MIXTURE = "mixture"
# families that a mixture leaves out; silhouettes are cut from the same photographs
MIXTURES: dict[str, tuple[str, ...] | None] = {
    "all": (),
    "without-photos": ("photographs", "silhouettes"),
    "without-noise": ("noise",),
    "without-strokes": ("strokes",),
    "none": None,
}
# three steps make the 8×8 digits as robust as seven do, in half the time
_INNER_STEPS = {"digits": 3}


@dataclass(frozen=True)
class VictimContext:
    """What training a victim may use; the test split is not among it.

    :param parent: the trained full-precision classifier that a quantized victim starts from.
    :param auxiliary: gives the images of another distribution that DivQAT's specification names.
    """

    dataset: Dataset
    model: str
    recipe: TrainingRecipe
    seed: int
    device: str
    progress: Callable[[int, int], None] | None = None
    parent: RecipeClassifier | None = None
    auxiliary: Callable[[Spec], NDArray[np.float32]] | None = None

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
    """One kind of victim: a line on it, how it is trained, and what it is compared with.

    :param parent: the full-precision victim that it is quantized from, or None for one that is itself full-precision.
    """

    summary: str
    train: Callable[[VictimContext, Spec], Any]
    baseline: str | None = None
    parameters: tuple[str, ...] = ()
    parent: str | None = None


def _standard(context: VictimContext, spec: Spec) -> Any:
    del spec
    classifier = context.fresh_classifier()
    classifier.fit(context.dataset.x_train, context.dataset.y_train)
    return classifier


def _robust(context: VictimContext, spec: Spec) -> Any:
    classifier = context.fresh_classifier()
    # float32 throughout: a cell gives the same numbers on a CPU that computes in bfloat16 and on one that does not
    settings: dict[str, Any] = {"inner_precision": "float32"}
    if spec.name != "robust-fast":
        settings["max_iter"] = int(spec.as_dict.get("steps", _INNER_STEPS.get(context.dataset.name, 7)))
    trainer = robust_trainer(spec.name).build(
        classifier,
        epsilon=float(spec.as_dict["epsilon"]),
        seed=classifier.seed,
        epochs=context.recipe.epochs,
        batch_size=context.recipe.batch_size,
        progress=context.progress,
        **settings,
    )
    trainer.fit(context.dataset.x_train, context.dataset.y_train)
    return classifier


def _post_training(context: VictimContext, spec: Spec) -> Any:
    from art_divqat.defences.trainer import quantize_post_training

    images = context.dataset.x_train[:1024]
    backend = str(spec.as_dict.get("backend", "fx"))
    return quantize_post_training(context.parent, images, architecture=context.model, backend=backend)


def _quantization_aware(context: VictimContext, spec: Spec) -> Any:
    from art_divqat.defences.trainer import DivQATTrainer, PGDAdversary, QATTrainer

    options: dict[str, Any] = spec.as_dict
    epochs = int(options.pop("epochs", context.recipe.epochs))
    radius = options.pop("epsilon", None)
    if radius is not None:
        options["adversary"] = PGDAdversary(eps=float(radius))
    if spec.name.endswith("divqat"):
        assert context.auxiliary is not None
        # the mixture is among them where the specification has one
        options |= {"auxiliary": context.auxiliary(spec), "auxiliary_mixture": False}
        options.pop("mixture", None)
        trainer_class: Any = DivQATTrainer
    else:
        trainer_class = QATTrainer
    seed = derive_seed("quantization", context.seed) % 2**31
    trainer = trainer_class(context.parent, architecture=context.model, seed=seed, **options)
    progress = context.progress
    trainer.fit(
        context.dataset.x_train,
        context.dataset.y_train,
        validation_data=(context.dataset.x_validation, context.dataset.y_validation),
        batch_size=context.recipe.batch_size,
        nb_epochs=epochs,
        progress=None if progress is None else lambda done, total, _: progress(done, total),
    )
    return trainer.get_classifier()


def _external(context: VictimContext, spec: Spec) -> Any:
    del context
    raise UserError(f"{spec} is a model of your own: it is read, never trained here.")


def robust_parameters(name: str) -> tuple[str, ...]:
    """What a robust victim takes: its radius, and the inner steps of the attack unless the method has but one."""
    return ("epsilon",) if name == "robust-fast" else ("epsilon", "steps")


VICTIMS: dict[str, VictimEntry] = {
    "standard": VictimEntry("trained on the labels alone", _standard),
    EXTERNAL: VictimEntry("your own model: file:PATH or an http(s) address", _external, parameters=("name", "sha256")),
    **{
        name: VictimEntry(entry.summary, _robust, baseline="standard", parameters=robust_parameters(name))
        for name, entry in ROBUST_TRAINERS.items()
    },
    "ptq": VictimEntry(
        "int8 by post-training quantization of standard", _post_training, "standard", ("backend",), "standard"
    ),
    "quantized": VictimEntry(
        "int8 by plain quantization-aware training from standard",
        _quantization_aware,
        "standard",
        _QAT_PARAMETERS,
        "standard",
    ),
    "divqat": VictimEntry(
        "int8 by DivQAT from standard: answers pushed away from the full-precision network's (arXiv 2512.23948)",
        _quantization_aware,
        "quantized",
        _DIVQAT_PARAMETERS,
        "standard",
    ),
    "robust-quantized": VictimEntry(
        "int8 by adversarial quantization-aware training from robust",
        _quantization_aware,
        "robust",
        ("epsilon", *_QAT_PARAMETERS),
        "robust",
    ),
    "robust-divqat": VictimEntry(
        "int8 by adversarial DivQAT from robust",
        _quantization_aware,
        "robust-quantized",
        ("epsilon", *_DIVQAT_PARAMETERS),
        "robust",
    ),
}


def list_victims() -> dict[str, str]:
    """Every kind of victim with one line on it.

    >>> "divqat" in list_victims()
    True
    """
    return {name: entry.summary for name, entry in VICTIMS.items()}


def canonical_victim(text: str, *, epsilon: float, query_pool: str) -> str:
    """The canonical form of a victim's specification, with the radius and the auxiliary images it will be trained with.

    :param query_pool: the attacker's pool, which the auxiliary images of DivQAT must not be.
    :raises UserError: for an unknown name or parameter, or an ε outside (0, 1].

    >>> canonical_victim("robust", epsilon=0.2, query_pool="photos")
    'robust:epsilon=0.2'
    """
    if is_external(text):
        return same_external(text)
    spec = parse_spec(text)
    if spec.name not in VICTIMS:
        raise unknown_name("victim", spec.name, VICTIMS)
    entry = VICTIMS[spec.name]
    check_parameters(spec, entry.parameters)
    said: dict[str, Value] = {}
    for count in {"steps", "epochs"} & spec.as_dict.keys():
        check_int(spec.name, count, spec.as_dict[count], 1)
    # what the trainer would refuse is refused before anything is written or trained
    for name in DIVQAT_NUMBERS.keys() & spec.as_dict.keys():
        DIVQAT_NUMBERS[name].check(spec.name, name, spec.as_dict[name])
    if "epsilon" in entry.parameters:
        radius = spec.as_dict.get("epsilon", epsilon)
        said["epsilon"] = check_epsilon(spec.name, radius, zero=False)
    if "auxiliary" in entry.parameters:
        said |= _canonical_auxiliary(spec, query_pool)
    return str(spec.with_parameters(said))


def _canonical_auxiliary(spec: Spec, query_pool: str) -> dict[str, Value]:
    """`auxiliary`, and where it names images, `mixture`: what of the mixture they join.

    A defender does not hold the attacker's own images: neither may be named, and the mixture leaves its family out.
    """
    from art_divqat.data.pools import canonical_pool

    name = str(spec.as_dict.get("auxiliary", AUXILIARY_MIXTURE))
    named, _, variant = name.partition("-")
    if named != AUXILIARY_MIXTURE:
        canonical = canonical_pool(name)
        if canonical == query_pool:
            raise UserError(
                f"The auxiliary images of DivQAT ({canonical}) are the attacker's own pool: choose another of the two."
            )
        mixture = str(spec.as_dict.get("mixture", "all"))
        if mixture not in MIXTURES:
            raise unknown_name("mixture", mixture, MIXTURES)
        return {"auxiliary": canonical, "mixture": _less_pool(mixture, query_pool)}
    if "mixture" in spec.as_dict:
        raise UserError(
            f"{spec.name}:mixture= says what the images of auxiliary=NAME join, and none are named: name a data set or "
            f"pool, or write auxiliary={AUXILIARY_MIXTURE}-without-noise."
        )
    mixtures = {f"{AUXILIARY_MIXTURE}-{key}": key for key, families in MIXTURES.items() if families}
    if variant and name not in mixtures:
        raise unknown_name("auxiliary mixture", name, [AUXILIARY_MIXTURE, *mixtures])
    mixture = _less_pool(variant or "all", query_pool)
    return {"auxiliary": AUXILIARY_MIXTURE if mixture == "all" else f"{AUXILIARY_MIXTURE}-{mixture}"}


def _less_pool(mixture: str, query_pool: str) -> str:
    """The mixture without the family that the attacker's pool is made from."""
    other = f"without-{query_pool}"
    if other not in MIXTURES or mixture in ("none", other):
        return mixture
    if mixture != "all":
        raise UserError(f"The mixture {mixture} holds the attacker's own pool ({query_pool}): it must be {other}.")
    return other


def auxiliary_sources(spec: Spec) -> tuple[str | None, tuple[str, ...] | None]:
    """What DivQAT's auxiliary images are, by its canonical specification: a pool's name or None, and the families that
    the mixture leaves out, None for no mixture.

    >>> auxiliary_sources(parse_spec("divqat:auxiliary=cifar100,mixture=without-noise"))
    ('cifar100', ('noise',))
    """
    name = str(spec.as_dict["auxiliary"])
    if name.partition("-")[0] == AUXILIARY_MIXTURE:
        return None, MIXTURES[name.removeprefix(AUXILIARY_MIXTURE).removeprefix("-") or "all"]
    # without its mixture the text is of a version in which the images stood alone, and nothing of it is served
    return name, MIXTURES[str(spec.as_dict["mixture"])]


def parent_of(spec: Spec) -> str | None:
    """The full-precision victim that a quantized one starts from, or None.

    >>> parent_of(parse_spec("robust-divqat:epsilon=0.2"))
    'robust:epsilon=0.2'
    """
    parent = VICTIMS[spec.name].parent
    if parent is None or "epsilon" not in VICTIMS[parent].parameters:
        return parent
    return str(Spec(parent, (("epsilon", spec.as_dict["epsilon"]),)))


def with_baselines(victims: Sequence[str]) -> tuple[str, ...]:
    """The victims, with the baseline of each before it unless one of its kind is asked for already.

    >>> with_baselines(["robust:epsilon=0.2"])
    ('standard', 'robust:epsilon=0.2')
    """
    wanted: list[str] = []
    names = {parse_spec(victim).name for victim in victims}
    for victim in victims:
        spec = parse_spec(victim)
        baseline = VICTIMS[spec.name].baseline
        if baseline is not None and baseline not in names:
            names.add(baseline)
            radius = spec.as_dict.get("epsilon") if "epsilon" in VICTIMS[baseline].parameters else None
            wanted.append(str(Spec(baseline, (("epsilon", radius),) if radius is not None else ())))
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
