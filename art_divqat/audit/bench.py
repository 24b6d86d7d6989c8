"""Bench: hold the data, query pool, victims and untrained thieves that the cells of one configuration share."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._rng import derive_seed
from art_divqat._types import Images, PhaseProgress, Progress, Shape
from art_divqat.attacks.extraction.registry import AttackSpec
from art_divqat.audit.probe import ProbedThief
from art_divqat.data import Dataset, QueryPool, load_dataset, load_pool
from art_divqat.data.copies import shared_part
from art_divqat.data.pools import IN_DISTRIBUTION, generate, generated_pools
from art_divqat.data.splits import stratified_subset
from art_divqat.defences.registry import DefenceContext
from art_divqat.estimators import RecipeClassifier, TrainingRecipe
from art_divqat.estimators.public import begun_publicly
from art_divqat.models import build_model
from art_divqat.models.shrunk import Shrunk, shrunk_shape
from art_divqat.plan.config import Recipe, ResolvedConfig
from art_divqat.victims.provider import VictimProvider, VictimSettings
from art_divqat.victims.shared_store import SharedStore
from art_divqat.victims.specs import VictimSpec
from art_divqat.victims.store import VictimStore
from art_divqat.victims.victim import Victim

if TYPE_CHECKING:
    from art_divqat.attacks.extraction.contract import ImageSource


class Bench:
    """Loads what the cells of one configuration share, each thing once and when it is first asked for.

    :param config: a resolved configuration; its device is `cpu` or `cuda:i`.
    :param store: where trained victims are kept.
    :param live: the victim that an `external` one stands for, where that is an object of this process.
    """

    def __init__(self, config: ResolvedConfig, store: Path, live: Victim | None = None) -> None:
        self.config = config
        url = config.victim_store
        self.store = VictimStore(store, None if url is None else SharedStore(url))
        self._live = live
        self._other_pools: dict[str, Images] = {}

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The data, split."""
        config = self.config
        return load_dataset(
            config.dataset,
            data_root=config.data_root,
            download=config.download,
            form=config.image_form,
            limit=config.limit,
            seed=config.split_seed,
        )

    @functools.cached_property
    def pool(self) -> QueryPool:
        """What the attacker queries with."""
        return self._load_pool(self.config.query_pool)

    def other_pool(self, name: str) -> ImageSource:
        """A pool by name that an attack asks beside the query pool: a function that makes images, or images."""
        if name in generated_pools():
            shape = self.dataset.input_shape
            return lambda count, seed: generate(name, shape, count, seed)
        if name not in self._other_pools:
            self._other_pools[name] = self._load_pool(name).x
        return self._other_pools[name]

    def _load_pool(self, name: str) -> QueryPool:
        config = self.config
        return load_pool(
            name,
            self.dataset,
            data_root=config.data_root,
            download=config.download,
            fit=config.image_fit,
            seed=config.split_seed,
        )

    def own_images(self, seed: int) -> NDArray[np.int64]:
        """Which images of the data set's pool are the attacker's own: stratified, fewer a prefix of more."""
        return stratified_subset(self.dataset.y_pool, self.config.attacker_images, seed=derive_seed("own images", seed))

    def attackers_images(self, seed: int) -> dict[str, Any]:
        """The images of an attacker's context: the pool, and, not among them, those of the attacker's own."""
        pool, dataset = self.pool, self.dataset
        x, labels = pool.x, pool.labels
        if not self.config.attacker_images:
            return {"pool": x, "pool_labels": labels}
        own = self.own_images(seed)
        if pool.name == IN_DISTRIBUTION:
            others = np.setdiff1d(np.arange(len(x)), own)
            x, labels = x[others], None if labels is None else labels[others]
        own_labels = dataset.y_pool[own] if self.config.attacker_labels else None
        return {"pool": x, "pool_labels": labels, "own_images": dataset.x_pool[own], "own_labels": own_labels}

    @functools.cached_property
    def pool_overlap(self) -> float:
        """The fraction of the pool's images that are, pixel for pixel, among the victim's training images."""
        return shared_part(self.pool.x, self.dataset.x_train)

    @functools.cached_property
    def test_overlap(self) -> float:
        """The fraction of test images that are, pixel for pixel, among the data set's other images."""
        data = self.dataset
        return shared_part(data.x_test, data.x_train, data.x_validation, data.x_pool)

    @functools.cached_property
    def evasion_rows(self) -> NDArray[np.int64]:
        """Which test images robustness is measured on: a stratified subset, the same for every cell."""
        return stratified_subset(self.dataset.y_test, self.config.evasion.images, seed=self.config.split_seed)

    @functools.cached_property
    def victims(self) -> VictimProvider:
        """The victims of this configuration by name and seed."""
        config = self.config
        settings = VictimSettings(
            config.model,
            training_recipe(config.victim_recipe),
            device=config.device,
            threads=config.threads,
            data_root=config.data_root,
            download=config.download,
            split_seed=config.split_seed,
            external=config.external,
            trust_code=config.trust_code,
            answers_file=config.answers_file,
            weights=config.weights,
            training=config.training,
        )
        return VictimProvider(self.dataset, settings, self.store, self._live)

    def victim(self, spec: VictimSpec, seed: int, progress: PhaseProgress | None = None) -> Victim:
        """The victim of this specification and seed; see :meth:`VictimProvider.get`."""
        return self.victims.get(spec, seed, progress)

    @functools.cached_property
    def defence_context(self) -> DefenceContext:
        """What defences that need more than the answer may use: the victim's own images."""
        dataset, config = self.dataset, self.config
        return DefenceContext(
            dataset.x_train, dataset.y_train, dataset.x_validation, model=config.model, device=config.device
        )

    @functools.cached_property
    def thieves_see(self) -> dict[AttackSpec, Shape]:
        """The shape of what the thief of each attack sees of an image.

        :raises UserError: for an attack that shows its thief more than there is.
        """
        shape = self.dataset.input_shape
        return {
            attack: shape if attack.image_size is None else shrunk_shape(shape, attack.image_size)
            for attack in self.config.attacks
        }

    def fresh_thief(
        self,
        seed: int,
        progress: Progress | None = None,
        *,
        nb_classes: int | None = None,
        image_size: int | None = None,
    ) -> RecipeClassifier:
        """A thief before its training, by the one recipe of the comparison; never a copy of any victim.

        :param nb_classes: of its victim; those of the data if not given.
        :param image_size: the smaller side of what it sees of an image; all of it if not given.
        """
        config = self.config
        shape, classes = self.dataset.input_shape, nb_classes or self.dataset.nb_classes
        seed, recipe = derive_seed("thief", seed), training_recipe(config.thief_recipe)
        seen = shape if image_size is None else shrunk_shape(shape, image_size)
        if config.thief_weights is None:
            network = build_model(config.thief_model, seen, classes, seed=seed)
            if seen != shape:
                network = Shrunk(network, seen[1:])
            thief: RecipeClassifier = ProbedThief(network, shape, classes, recipe, seed=seed, device=config.device)
        else:
            thief = begun_publicly(
                config.thief_model,
                config.thief_weights,
                shape,
                classes,
                recipe,
                tuned=config.thief_training == "fine-tune",
                balanced=True,
                seen=seen,
                seed=seed,
                device=config.device,
                download=config.download,
            )
        thief.progress = progress
        return thief


def training_recipe(recipe: Recipe) -> TrainingRecipe:
    """A recipe of the configuration in the form that trains."""
    return TrainingRecipe(**recipe.model_dump())
