"""The bench a cell is measured on: data, pool and victims of one configuration, each loaded once a process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from art_divqat._rng import derive_seed
from art_divqat.attacks.evasion import craft
from art_divqat.audit.config import Recipe, ResolvedConfig
from art_divqat.audit.journal import content_hash
from art_divqat.audit.store import VictimStore
from art_divqat.audit.victims import VictimContext, train_victim
from art_divqat.data import Dataset, QueryPool, load_dataset, load_pool
from art_divqat.data.splits import stratified_subset
from art_divqat.estimators import RecipeClassifier, TrainingRecipe
from art_divqat.models import build_model
from art_divqat.specs import parse_spec

Progress = Callable[[str, int, int], None]
STORE_VERSION = 1


@dataclass(frozen=True)
class Victim:
    """A trained victim and what is known of it without any defence.

    :param classifier: logit-valued.
    :param adversarial: the evasion images perturbed on it, (M, C, H, W); empty if none are measured.
    """

    classifier: RecipeClassifier
    adversarial: NDArray[np.float32]


class Bench:
    """Loads what the cells of one configuration share.

    :param config: a resolved configuration; its device is `cpu` or `cuda:i`.
    :param store: where trained victims are kept.
    :param retrain: train every victim anew, replacing what the store holds.
    """

    def __init__(self, config: ResolvedConfig, store: Path, *, retrain: bool = False) -> None:
        self.config = config
        self.store = VictimStore(store)
        self._retrain = retrain

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
    def evasion_rows(self) -> NDArray[np.int64]:
        """Which test images robustness is measured on: a stratified subset, the same for every cell."""
        return stratified_subset(self.dataset.y_test, self.config.evasion.images, seed=self.config.split_seed)

    def victim(self, spec_text: str, seed: int, progress: Progress | None = None) -> Victim:
        """The victim of this name and seed: from this process, the store, or trained now."""
        key = (spec_text, seed)
        if key not in self._victims:
            self._victims[key] = self._load_or_train(spec_text, seed, progress)
        return self._victims[key]

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
        }

    def _load_or_train(self, spec_text: str, seed: int, progress: Progress | None) -> Victim:
        identity = self.victim_identity(spec_text, seed)
        context = VictimContext(
            self.dataset,
            self.config.model,
            training_recipe(self.config.victim_recipe),
            seed,
            self.config.device,
            phase(progress, f"training {spec_text}, seed {seed}"),
        )
        classifier = context.fresh_classifier()
        if self._retrain or not self.store.load_weights(identity, classifier.model):
            classifier = train_victim(parse_spec(spec_text), context)
            self.store.save_weights(identity, classifier.model)
        classifier.model.eval()
        return Victim(classifier, self._adversarial(classifier, identity, progress, spec_text))

    def _adversarial(
        self, classifier: RecipeClassifier, identity: dict[str, Any], progress: Progress | None, name: str
    ) -> NDArray[np.float32]:
        evasion = self.config.evasion
        rows = self.evasion_rows
        if len(rows) == 0:
            return self.dataset.x_test[:0]
        settings = {**evasion.model_dump(), "epsilon": self.config.epsilon, "rows": rows.tolist()}
        file = f"evasion-{content_hash(settings)[:16]}"
        held = None if self._retrain else self.store.load_arrays(identity, file)
        if held is not None and held.get("x", rows).shape == (len(rows), *self.dataset.input_shape):
            return held["x"]
        x = self.perturb(classifier, derive_seed("evasion", identity["seed"]), phase(progress, f"attacking {name}"))
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

    def fresh_thief(self, seed: int, progress: Callable[[int, int], None] | None = None) -> RecipeClassifier:
        """An untrained thief, by the one recipe of the comparison; never a copy of any victim."""
        config = self.config
        shape, classes = self.dataset.input_shape, self.dataset.nb_classes
        seed = derive_seed("thief", seed)
        network = build_model(config.thief_model, shape, classes, seed=seed)
        thief = RecipeClassifier(
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
