"""Training of victims: one function a kind, named as `train` by the entries of `art_divqat.victims.registry`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from art_divqat._files import cache_folder
from art_divqat._rng import derive_seed
from art_divqat._types import EpochProgress, Images, Progress
from art_divqat.data.sources import dataset_entry
from art_divqat.data.stored import take
from art_divqat.errors import UserError
from art_divqat.models.registry import MODELS
from art_divqat.registry import load_target
from art_divqat.specs import Spec
from art_divqat.victims.registry import VICTIMS, VictimEntry, robust_trainer

if TYPE_CHECKING:
    from art_divqat.data import Dataset
    from art_divqat.estimators import RecipeClassifier, TrainingRecipe

_CALIBRATION_IMAGES = 1024


@dataclass(frozen=True)
class VictimContext:
    """What training a victim may use; the test split is not among it.

    :param parent: the trained full-precision classifier of the entry's `parent`, which a quantized victim starts from.
    :param auxiliary: gives the images of another distribution that DivQAT's specification names.
    :param weights: public weights that the network begins from; see :mod:`art_divqat.models.weights`.
    :param training: `probe` fits a head on what they make of images, and leaves them as they are; else all is trained.
    :param download: whether they may be downloaded.
    :param phases: like `progress`, for a trainer that also says what it does: an epoch, what comes before and after.
    """

    dataset: Dataset
    model: str
    recipe: TrainingRecipe
    seed: int
    device: str
    progress: Progress | None = None
    parent: RecipeClassifier | None = None
    auxiliary: Callable[[Spec], Images] | None = None
    weights: str | None = None
    training: str | None = None
    download: bool = False
    phases: EpochProgress | None = None

    @property
    def architecture(self) -> str:
        """The name that builds the victim's network: the model's, in another form if it begins from public weights."""
        if self.weights is None:
            return self.model
        return MODELS.canonical(f"{'probed' if self.training == 'probe' else 'normalised'}:{self.model}")

    def fresh_classifier(self) -> RecipeClassifier:
        """A network of the wanted architecture, untrained or with public weights, seeded for this victim."""
        from art_divqat.estimators import RecipeClassifier
        from art_divqat.estimators.public import begun_publicly
        from art_divqat.models.weights import begun_from

        shape, classes = self.dataset.input_shape, self.dataset.nb_classes
        seed = derive_seed("victim", self.seed)
        if self.weights is not None and self.training == "probe":
            given: dict[str, Any] = {"tuned": False, "seed": seed, "device": self.device, "download": self.download}
            classifier: RecipeClassifier = begun_publicly(
                self.model, self.weights, shape, classes, self.recipe, **given
            )
        else:
            network = begun_from(self.weights, self.model, shape, classes, seed=seed, download=self.download)
            classifier = RecipeClassifier(network, shape, classes, self.recipe, seed=seed, device=self.device)
        classifier.progress = self.progress
        return classifier


def train_victim(spec: Spec, context: VictimContext) -> Any:
    """Train one victim from scratch; the same context gives the same weights.

    :param spec: the canonical specification.
    :return: an ART classifier, logit-valued: a `RecipeClassifier`, or a `QuantizedPyTorchClassifier` if the entry says
        that it is quantized.
    :raises UserError: for a plug-in that gives anything else.
    """
    return checked_victim(load_target(VICTIMS[spec.name].train)(context, spec), VICTIMS[spec.name], str(spec))


def checked_victim(classifier: Any, entry: VictimEntry, name: str) -> Any:
    """What an entry's `train` gave, if it is what the store can keep and give back.

    :raises UserError: if it is not.
    """
    from art_divqat.estimators import QuantizedPyTorchClassifier, RecipeClassifier

    expected = QuantizedPyTorchClassifier if entry.quantized else RecipeClassifier
    if not isinstance(classifier, expected):
        raise UserError(
            f"The victim {name!r} was trained to a {type(classifier).__name__}: expected a {expected.__name__}, as "
            f"its entry says quantized={entry.quantized}."
        )
    return classifier


def standard(context: VictimContext, spec: Spec) -> Any:
    """Train on the labels alone."""
    del spec
    classifier = context.fresh_classifier()
    classifier.fit(context.dataset.x_train, context.dataset.y_train)
    return classifier


def robust(context: VictimContext, spec: Spec) -> Any:
    """Train adversarially, with the trainer that the entry names."""
    classifier = context.fresh_classifier()
    # as the recipe says: a cell gives the same numbers on a CPU that computes in bfloat16 and on one that does not
    settings: dict[str, Any] = {"inner_precision": context.recipe.precision}
    steps = VICTIMS[spec.name].parameters.get("steps")
    if steps is not None:
        usual = dataset_entry(context.dataset.name).inner_steps or steps.default
        settings["max_iter"] = spec.as_dict.get("steps", usual)
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


def post_training(context: VictimContext, spec: Spec) -> Any:
    """Quantize the parent on some of its training images, without any training."""
    from art_divqat.defences.trainer import quantize_post_training

    images = take(context.dataset.x_train, slice(0, _CALIBRATION_IMAGES))
    options: dict[str, Any] = spec.as_dict
    return quantize_post_training(context.parent, images, architecture=context.architecture, **options)


def quantization_aware(context: VictimContext, spec: Spec) -> Any:
    """Train the parent on, quantization-aware."""
    from art_divqat.defences.trainer import QATTrainer

    return _trained_on(QATTrainer, context, spec.as_dict)


def divqat(context: VictimContext, spec: Spec) -> Any:
    """Train the parent on by DivQAT."""
    from art_divqat.defences.trainer import DivQATTrainer

    assert context.auxiliary is not None
    options: dict[str, Any] = spec.as_dict
    options.pop("mixture", None)
    # the mixture is among them where the specification has one
    images = None if options.get("alpha_auxiliary") == 0 else context.auxiliary(spec)
    options |= {"auxiliary": images, "auxiliary_mixture": False}
    return _trained_on(DivQATTrainer, context, options)


def _trained_on(trainer_class: Any, context: VictimContext, options: dict[str, Any]) -> Any:
    """The int8 classifier: `epsilon` makes the training adversarial, the other options are the trainer's."""
    from art_divqat.defences.trainer import PGDAdversary

    epochs = options.pop("epochs", context.recipe.epochs)
    radius = options.pop("epsilon", None)
    if radius is not None:
        options["adversary"] = PGDAdversary(eps=float(radius))
    if context.weights is not None and context.training == "probe":
        options |= {"train_body": False, "body_cache": cache_folder() / "bodies"}
    seed = derive_seed("quantization", context.seed) % 2**31
    # the report compares the victims' accuracies
    trainer = trainer_class(context.parent, architecture=context.architecture, seed=seed, tolerance=None, **options)
    trainer.fit(
        context.dataset.x_train,
        context.dataset.y_train,
        validation_data=(context.dataset.x_validation, context.dataset.y_validation),
        batch_size=context.recipe.batch_size,
        nb_epochs=epochs,
        progress=context.phases,
    )
    return trainer.get_classifier()


def external(context: VictimContext, spec: Spec) -> Any:
    """Refused: a model of somebody else's is not trained.

    :raises UserError: always.
    """
    del context
    raise UserError(f"{spec} is a model of your own: it is read, never trained here.")
