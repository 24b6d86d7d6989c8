"""The bench a cell is measured on: data, pool and victims of one configuration, each loaded once a process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from art_divqat._canonical import content_hash
from art_divqat._rng import derive_seed
from art_divqat.attacks.evasion import craft, craft_worst_case
from art_divqat.audit.probe import ProbedThief
from art_divqat.data import Dataset, QueryPool, load_dataset, load_pool
from art_divqat.data.auxiliary import compose_auxiliary
from art_divqat.data.splits import stratified_subset
from art_divqat.estimators import RecipeClassifier, TrainingRecipe
from art_divqat.metrics import accuracy
from art_divqat.models import build_model
from art_divqat.plan.config import Recipe, ResolvedConfig
from art_divqat.specs import Spec, parse_spec
from art_divqat.victims.external.settings import EXTERNAL
from art_divqat.victims.registry import VictimContext, auxiliary_sources, parent_of, train_victim
from art_divqat.victims.store import VictimStore

if TYPE_CHECKING:
    from art_divqat.audit.robustness import VictimRobustness

Progress = Callable[[str, int, int], None]
# 2: adversarial training and attacks run channels last; sums differ from version 1 in the last digits
# 3: DivQAT has other defaults
STORE_VERSION = 3
SQUARE_QUERIES = 200


@dataclass(frozen=True)
class Victim:
    """A trained victim and what is known of it without any defence.

    :param classifier: an ART PyTorchClassifier, logit-valued.
    :param adversarial: the evasion images perturbed on it; for an int8 one the worst of straight-through gradients,
        transfer from its full-precision parent, and Square, (M, C, H, W); empty if none are measured.
    """

    classifier: Any
    adversarial: NDArray[np.float32]


class Bench:
    """Loads what the cells of one configuration share.

    :param config: a resolved configuration; its device is `cpu` or `cuda:i`.
    :param store: where trained victims are kept.
    """

    def __init__(self, config: ResolvedConfig, store: Path) -> None:
        self.config = config
        self.store = VictimStore(store)

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The data, split."""
        config = self.config
        return load_dataset(
            config.dataset,
            data_root=config.data_root,
            download=config.download,
            limit=config.limit,
            seed=config.split_seed,
        )

    @functools.cached_property
    def pool(self) -> QueryPool:
        """What the attacker queries with."""
        config = self.config
        return load_pool(
            config.query_pool,
            self.dataset,
            data_root=config.data_root,
            download=config.download,
            seed=config.split_seed,
        )

    @functools.cached_property
    def pool_overlap(self) -> float:
        """The fraction of the pool's images that are, byte for byte, among the victim's training images."""
        known = {image.tobytes() for image in self.dataset.x_train}
        return float(np.mean([image.tobytes() in known for image in self.pool.x]))

    @functools.cached_property
    def evasion_rows(self) -> NDArray[np.int64]:
        """Which test images robustness is measured on: a stratified subset, the same for every cell."""
        return stratified_subset(self.dataset.y_test, self.config.evasion.images, seed=self.config.split_seed)

    def victim(self, spec_text: str, seed: int, progress: Progress | None = None, *, retrain: bool = False) -> Victim:
        """The victim of this name and seed: from this process, the store, or trained now.

        :param retrain: train it anew, replacing what the store holds; not what it is quantized from.
        """
        key = (spec_text, seed)
        if retrain or key not in self._victims:
            self._victims[key] = self._load_or_train(spec_text, seed, progress, retrain)
        return self._victims[key]

    def measured_victim(self, spec_text: str, seed: int) -> tuple[Path, dict[str, float]]:
        """Where a trained victim is kept, and its accuracies on the test images."""
        victim = self.victim(spec_text, seed)
        x, y, rows = self.dataset.x_test, self.dataset.y_test, self.evasion_rows
        measured = {"victim_accuracy": accuracy(victim.classifier.predict(x), y)}
        if len(rows):
            measured["victim_robust_accuracy"] = accuracy(victim.classifier.predict(victim.adversarial), y[rows])
        return self.store.folder(self.victim_identity(spec_text, seed)), measured

    @functools.cached_property
    def robustness(self) -> dict[tuple[str, int], VictimRobustness]:
        """The curves and checks of victims that this process holds."""
        return {}

    @functools.cached_property
    def _victims(self) -> dict[tuple[str, int], Victim]:
        return {}

    def victim_identity(self, spec_text: str, seed: int) -> dict[str, Any]:
        """All that decides the victim's weights."""
        config = self.config
        return {
            "store_version": STORE_VERSION,
            "dataset": self.dataset.checksum,
            "victim": spec_text,
            "model": config.model,
            "recipe": config.victim_recipe.model_dump(),
            "seed": seed,
            "threads": config.threads,
            "device": config.device.partition(":")[0],
            "torch": torch.__version__,
            **({} if config.external is None else {"external": config.external.for_results()}),
        }

    def _load_or_train(self, spec_text: str, seed: int, progress: Progress | None, retrain: bool) -> Victim:
        spec = parse_spec(spec_text)
        identity = self.victim_identity(spec_text, seed)
        if spec.name == EXTERNAL:
            return self._external_victim(spec_text, identity, phase(progress, f"attacking {spec.name}"), retrain)
        parent_name = parent_of(spec)
        parent = None if parent_name is None else self.victim(parent_name, seed, progress).classifier
        context = VictimContext(
            self.dataset,
            self.config.model,
            training_recipe(self.config.victim_recipe),
            seed,
            self.config.device,
            phase(progress, f"training {spec.name}, seed {seed}"),
            parent,
            self._auxiliary_images,
        )
        classifier = None if retrain else self._load(identity, context)
        if classifier is None:
            classifier = train_victim(spec, context)
            self._save(identity, classifier)
        told = phase(progress, f"attacking {spec.name}")
        return Victim(classifier, self._adversarial(classifier, parent, identity, told, retrain))

    def _external_victim(
        self, name: str, identity: dict[str, Any], progress: Callable[[int, int], None] | None, retrain: bool
    ) -> Victim:
        classifier = self.external(name)
        target = classifier.white_box
        if target is None:
            return Victim(classifier, self.dataset.x_test[:0])
        return Victim(classifier, self._adversarial(target, None, identity, progress, retrain))

    def external(self, name: str) -> Any:
        """The model of somebody else, read and checked against the data."""
        from art_divqat.victims.external.open import external_victim

        if name not in self._externals:
            self._externals[name] = external_victim(self.config, name, self.dataset)
        return self._externals[name]

    @functools.cached_property
    def _externals(self) -> dict[str, Any]:
        return {}

    def _load(self, identity: dict[str, Any], context: VictimContext) -> Any:
        if context.parent is not None:
            from art_divqat.estimators import QuantizedPyTorchClassifier

            return self.store.load_folder(identity, "quantized", QuantizedPyTorchClassifier.load)
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
            self.store.save_folder(identity, "quantized", classifier.save)

    def _auxiliary_images(self, spec: Spec) -> NDArray[np.float32]:
        name, left_out = auxiliary_sources(spec)
        given = None
        if name is not None:
            config = self.config
            given = load_pool(
                name, self.dataset, data_root=config.data_root, download=config.download, seed=config.split_seed
            ).x
        return compose_auxiliary(
            self.dataset.input_shape,
            given,
            seed=self.config.split_seed,
            training_images=self.dataset.x_train,
            left_out=left_out,
        )

    def _adversarial(
        self,
        classifier: Any,
        parent: Any,
        identity: dict[str, Any],
        progress: Callable[[int, int], None] | None,
        retrain: bool,
    ) -> NDArray[np.float32]:
        rows = self.evasion_rows
        if len(rows) == 0:
            return self.dataset.x_test[:0]
        # the curve does not decide the examples of the single figure
        settings = {
            **self.config.evasion.model_dump(exclude={"epsilons"}),
            "epsilon": self.config.epsilon,
            "rows": rows.tolist(),
        }
        file = f"evasion-{content_hash(settings)[:16]}"
        held = None if retrain else self.store.load_arrays(identity, file)
        if held is not None and held.get("x", rows).shape == (len(rows), *self.dataset.input_shape):
            return held["x"]
        seed = derive_seed("evasion", identity["seed"])
        if parent is None:
            x = self.perturb(classifier, seed, progress)
        else:
            x, _ = craft_worst_case(
                classifier,
                self.dataset.x_test[rows],
                self.dataset.y_test[rows],
                epsilon=self.config.epsilon,
                parent=parent,
                steps=self.config.evasion.steps,
                square_queries=SQUARE_QUERIES,
                seed=seed,
                progress=progress,
            )
        self.store.save_arrays(identity, file, {"x": x})
        return x

    def perturb(
        self, classifier: RecipeClassifier, seed: int, progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float32]:
        """The evasion images, perturbed with white-box access to `classifier` to change the true label."""
        config, evasion = self.config, self.config.evasion
        rows = self.evasion_rows
        return craft(
            classifier,
            self.dataset.x_test[rows],
            self.dataset.y_test[rows],
            attack="autoattack" if evasion.autoattack else "pgd",
            epsilon=config.epsilon,
            steps=evasion.steps,
            seed=seed,
            progress=progress,
        )

    def fresh_thief(self, seed: int, progress: Callable[[int, int], None] | None = None) -> ProbedThief:
        """An untrained thief, by the one recipe of the comparison; never a copy of any victim."""
        config = self.config
        shape, classes = self.dataset.input_shape, self.dataset.nb_classes
        seed = derive_seed("thief", seed)
        network = build_model(config.thief_model, shape, classes, seed=seed)
        thief = ProbedThief(
            network, shape, classes, training_recipe(config.thief_recipe), seed=seed, device=config.device
        )
        thief.progress = progress
        return thief


def training_recipe(recipe: Recipe) -> TrainingRecipe:
    """A recipe of the configuration in the form that trains."""
    return TrainingRecipe(**recipe.model_dump())


def phase(progress: Progress | None, description: str) -> Callable[[int, int], None] | None:
    """A callback for one phase of the work, or None if nobody watches."""
    if progress is None:
        return None
    return lambda done, total: progress(description, done, total)
