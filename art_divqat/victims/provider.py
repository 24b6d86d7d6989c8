"""Victim provider: give a victim by name and seed, from memory, from the store, trained now, or external."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from art_divqat._progress import phase
from art_divqat._types import Images, PhaseProgress
from art_divqat.data import Dataset, load_pool
from art_divqat.data.auxiliary import compose_auxiliary
from art_divqat.data.known_rows import shared_rows
from art_divqat.data.stored import is_large
from art_divqat.errors import UserError
from art_divqat.estimators import RecipeClassifier, TrainingRecipe
from art_divqat.models.registry import MODELS, has_library_stem
from art_divqat.specs import Spec
from art_divqat.victims.external.settings import ExternalModel
from art_divqat.victims.specs import VictimSpec, auxiliary_sources, has_mixture, plugin_origins
from art_divqat.victims.store import WEIGHTS, VictimStore
from art_divqat.victims.training import VictimContext, train_victim
from art_divqat.victims.victim import Victim, trained_victim

if TYPE_CHECKING:
    from art_divqat.estimators import QuantizedPyTorchClassifier

# 2: adversarial training and attacks run channels last; sums differ from version 1 in the last digits
# 3: DivQAT has other defaults
STORE_VERSION = 3
# 2: the mixture of auxiliary images holds walks, glyphs, and strokes of all widths
MIXTURE_VERSION = 2
# 2: cross-entropy of varied features too; 3: without it, mixtures of three kinds, a hidden layer's steps are centred
FEATURE_MIXTURES_VERSION = 3
_INT8 = "quantized"


@dataclass(frozen=True)
class VictimSettings:
    """What decides the victims of a run, besides their names, their seeds and the data.

    :param model: the architecture of those that are trained here.
    :param recipe: how they are trained.
    :param device: `cpu` or `cuda:i`.
    :param threads: torch threads that they are trained with; part of their identity, to the last digit.
    :param data_root: where the data set of auxiliary images is.
    :param download: whether it, and public weights, may be downloaded.
    :param split_seed: decides which of its images are taken.
    :param external: where a model of somebody else's is, if one of the victims is that.
    :param trust_code: whether code of that model may run.
    :param answers_file: the file that keeps the answers of an endpoint.
    :param weights: public weights that those which are trained here begin from.
    :param training: with these, `probe` for a head alone; see :class:`art_divqat.victims.training.VictimContext`.
    """

    model: str
    recipe: TrainingRecipe
    device: str = "cpu"
    threads: int = 1
    data_root: Path | None = None
    download: bool = False
    split_seed: int = 0
    external: ExternalModel | None = None
    trust_code: bool = False
    answers_file: Path | None = None
    weights: str | None = None
    training: str | None = None


class VictimProvider:
    """Gives the victims of one data set; each is loaded or trained once.

    :param dataset: what they are trained on.
    :param settings: what else decides them.
    :param store: where they are kept.
    :param live: the victim that an `external` one of the run stands for, where that is an object of this process.
    """

    def __init__(
        self, dataset: Dataset, settings: VictimSettings, store: VictimStore, live: Victim | None = None
    ) -> None:
        self.dataset = dataset
        self.settings = settings
        self.store = store
        self._live = live
        self._trained: dict[tuple[VictimSpec, int], Victim] = {}
        self._external: dict[VictimSpec, Victim] = {}

    def get(
        self, spec: VictimSpec, seed: int, progress: PhaseProgress | None = None, *, retrain: bool = False
    ) -> Victim:
        """The victim of this specification and seed.

        :param retrain: train it anew, replacing what the store holds; not what it is quantized from.
        :raises UserError: for a model of somebody else's that cannot be read or does not fit the data.
        """
        if spec.is_external:
            return self.external(spec)
        key = (spec, seed)
        if retrain or key not in self._trained:
            self._trained[key] = self._load_or_train(spec, seed, progress, retrain)
        return self._trained[key]

    def external(self, spec: VictimSpec) -> Victim:
        """The model of somebody else, read and checked against the data; it has no seed.

        :raises UserError: if it cannot be read or does not fit the data.
        """
        from art_divqat.victims.external.open import external_victim

        if spec not in self._external:
            settings = self.settings
            self._external[spec] = self._live or external_victim(
                str(spec),
                settings.external,
                self.dataset,
                trust_code=settings.trust_code,
                device=settings.device,
                answers=settings.answers_file,
            )
        return self._external[spec]

    def parent(self, spec: VictimSpec, seed: int, progress: PhaseProgress | None = None) -> Victim | None:
        """The full-precision victim that a quantized one starts from; None for any other."""
        parent = spec.parent
        return None if parent is None else self.get(parent, seed, progress)

    def identity(self, spec: VictimSpec, seed: int) -> dict[str, Any]:
        """All that decides the victim's weights."""
        settings = self.settings
        return {
            "store_version": STORE_VERSION,
            "dataset": self.dataset.checksum,
            "victim": str(spec),
            "model": self._context(seed).architecture,
            "recipe": settings.recipe.as_dict(),
            "seed": seed,
            "threads": settings.threads,
            "device": settings.device.partition(":")[0],
            "torch": torch.__version__,
            # what is trained here is the same whatever else is audited
            **({"external": settings.external.for_results()} if spec.is_external and settings.external else {}),
            **({"mixture_version": MIXTURE_VERSION} if has_mixture(spec) else {}),
            **({"feature_mixtures_version": FEATURE_MIXTURES_VERSION} if spec.as_dict.get("alpha_mixtures") else {}),
            **({} if spec.is_external else self._beginning),
            **plugin_origins(spec, settings.model),
        }

    @functools.cached_property
    def _beginning(self) -> dict[str, str]:
        """What the network that victims start from has that those of small images and from nothing have not."""
        from art_divqat.models.weights import file_sha256, weights_file

        settings, found = self.settings, {}
        if MODELS[settings.model].stem_by_size and has_library_stem(self.dataset.input_shape):
            found["stem"] = "imagenet"
        if settings.weights is not None:
            file = weights_file(settings.model, settings.weights, download=settings.download)
            found["weights"] = file_sha256(file)
        if settings.training == "probe":
            found["training"] = settings.training
        return found

    def folder(self, spec: VictimSpec, seed: int) -> Path:
        """Where the store keeps the victim, or would."""
        return self.store.folder(self.identity(spec, seed))

    def untrained(self, seed: int) -> RecipeClassifier:
        """The network that a victim starts from, seeded for it."""
        return self._context(seed).fresh_classifier()

    def _context(self, seed: int, **more: Any) -> VictimContext:
        settings = self.settings
        return VictimContext(
            self.dataset,
            settings.model,
            settings.recipe,
            seed,
            settings.device,
            auxiliary=self._auxiliary_images,
            weights=settings.weights,
            training=settings.training,
            download=settings.download,
            **more,
        )

    def _load_or_train(self, spec: VictimSpec, seed: int, progress: PhaseProgress | None, retrain: bool) -> Victim:
        parent = self.parent(spec, seed, progress)
        doing = f"training {spec.name}, seed {seed}"
        context = self._context(
            seed,
            parent=None if parent is None else parent.classifier,
            progress=phase(progress, doing),
            phases=None if progress is None else lambda done, total, what: progress(f"{doing}: {what}", done, total),
        )
        identity = self.identity(spec, seed)
        classifier = None if retrain else self._load(identity, context, spec.entry.quantized)
        if classifier is None:
            classifier = train_victim(spec, context)
            self._save(identity, classifier)
        kept_in = WEIGHTS if isinstance(classifier, RecipeClassifier) else _INT8
        sha256 = self.store.sha256(identity, kept_in)
        if kept_in == _INT8 and sha256 is not None and is_large(1, self.dataset.input_shape):
            self._remember(classifier, sha256)
        return trained_victim(classifier, sha256)

    def _remember(self, classifier: QuantizedPyTorchClassifier, sha256: str) -> None:
        """Let it answer once: every cell asks about the same test images, and attacks of one seed the same pool."""
        if self.settings.training == "probe":
            # victims of all seeds and weights have one body; a network that cannot be cut has none
            with contextlib.suppress(UserError):
                classifier.remember_body(lambda body: shared_rows("bodies", body))
                return
        classifier.remember(shared_rows("answers", sha256))

    def _load(self, identity: dict[str, Any], context: VictimContext, quantized: bool) -> Any:
        if quantized:
            from art_divqat.estimators import QuantizedPyTorchClassifier

            return self.store.load_folder(identity, _INT8, QuantizedPyTorchClassifier.load)
        classifier = context.fresh_classifier()
        if not self.store.load_weights(identity, classifier.model):
            return None
        classifier.model.eval()
        return classifier

    def _save(self, identity: dict[str, Any], classifier: Any) -> None:
        if isinstance(classifier, RecipeClassifier):
            classifier.model.eval()
            self.store.save_weights(identity, classifier.model)
        else:
            self.store.save_folder(identity, _INT8, classifier.save)

    def _auxiliary_images(self, spec: Spec) -> Images:
        settings = self.settings
        name, left_out = auxiliary_sources(spec)
        images = None
        if name is not None:
            images = load_pool(
                name, self.dataset, data_root=settings.data_root, download=settings.download, seed=settings.split_seed
            ).x
        return compose_auxiliary(
            self.dataset.input_shape,
            images,
            seed=settings.split_seed,
            training_images=self.dataset.x_train,
            left_out=left_out,
        )
