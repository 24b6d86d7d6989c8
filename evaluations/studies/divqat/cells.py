"""Training victims and thieves for the cells of the study; every number depends on the cell alone."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from art_divqat._rng import derive_seed, isolated_random_state, numpy_generator
from art_divqat.attacks.recovery import Recentre
from art_divqat.data import Dataset, load_dataset, load_pool
from art_divqat.data.auxiliary import FAMILIES, default_auxiliary
from art_divqat.defences.trainer import DivQATTrainer
from art_divqat.estimators import QuantizedPyTorchClassifier, RecipeClassifier
from art_divqat.models import SmallCNN, build_model
from evaluations.studies.divqat.settings import (
    AMPLIFIED_SPREAD,
    BESIDE_MIXTURE,
    HEURISTIC_BETA,
    NPZ,
    SIZES,
    VARIANTS,
    Cell,
    Sizes,
    Victim,
)

Images = NDArray[np.float32]
AUXILIARY_IMAGES = 6000
VALIDATION_IMAGES = 2000


def source_name(name: str, root: Path) -> str:
    """A data set's name as :mod:`art_divqat.data` takes it."""
    return f"npz:{root / NPZ[name]}" if name in NPZ else name


@lru_cache(maxsize=2)
def dataset_of(name: str, seed: int, size: str, root: Path) -> Dataset:
    """The data set of a cell, cut to the size of the study; the seed decides the splits."""
    return load_dataset(source_name(name, root), data_root=root, limit=SIZES[size].train, seed=seed)


@lru_cache(maxsize=16)
def images_of(name: str, dataset: str, count: int, seed: int, size: str, root: Path, purpose: str) -> Images:
    """`count` images of a pool, drawn by (seed, purpose): auxiliary images and queries are different draws."""
    data = dataset_of(dataset, seed, size, root)
    pool = load_pool(source_name(name, root), data, data_root=root, seed=derive_seed(purpose, seed))
    order = numpy_generator(purpose, name, seed).permutation(len(pool.x))[:count]
    return pool.x[order]


def network_of(model: str, data: Dataset, sizes: Sizes, seed: int) -> nn.Module:
    """A fresh network; small CNNs of the study's width."""
    if model == "small-cnn":
        with isolated_random_state("small CNN", sizes.width, seed):
            return SmallCNN(data.input_shape, data.nb_classes, sizes.width, sizes.hidden)
    return build_model(model, data.input_shape, data.nb_classes, seed=seed)


@lru_cache(maxsize=2)
def teacher_of(dataset: str, seed: int, size: str, root: Path) -> RecipeClassifier:
    """The full-precision victim."""
    data = dataset_of(dataset, seed, size, root)
    network = network_of(SIZES[size].models[dataset], data, SIZES[size], derive_seed("victim", seed))
    classifier = RecipeClassifier(network, data.input_shape, data.nb_classes, SIZES[size].victim, seed=seed)
    classifier.fit(data.x_train, data.y_train)
    return classifier


def quantized_of(victim: Victim, size: str, root: Path) -> tuple[QuantizedPyTorchClassifier, float]:
    """The int8 victim, and the seconds that its quantization-aware training took."""
    data = dataset_of(victim.dataset, victim.seed, size, root)
    auxiliary = None
    if victim.auxiliary == "strokes":
        auxiliary = default_auxiliary(data.input_shape, AUXILIARY_IMAGES, seed=victim.seed, families=("strokes",))
    elif victim.auxiliary == "without-strokes":
        auxiliary = default_auxiliary(
            data.input_shape,
            AUXILIARY_IMAGES,
            seed=derive_seed("default auxiliary", victim.seed),
            training_images=data.x_train,
            families=tuple(family for family in FAMILIES if family != "strokes"),
        )
    elif victim.auxiliary not in ("none", "default"):
        source = victim.auxiliary.removeprefix(BESIDE_MIXTURE)
        auxiliary = images_of(source, victim.dataset, AUXILIARY_IMAGES, victim.seed, size, root, "auxiliary")
    teacher = teacher_of(victim.dataset, victim.seed, size, root)
    # what a set does is measured by the set alone
    mixture = auxiliary is None or victim.auxiliary.startswith(BESIDE_MIXTURE)
    options = {"auxiliary": auxiliary, "auxiliary_mixture": mixture, **VARIANTS[victim.variant]}
    trainer = DivQATTrainer(teacher, seed=victim.seed, **options)
    started = time.perf_counter()
    trainer.fit(
        data.x_train,
        data.y_train,
        validation_data=(data.x_validation[:VALIDATION_IMAGES], data.y_validation[:VALIDATION_IMAGES]),
        batch_size=64,
        nb_epochs=SIZES[size].quantization_epochs,
    )
    return trainer.get_classifier(), time.perf_counter() - started


def softmax(logits: Images) -> Images:
    """Rows of probabilities."""
    return torch.softmax(torch.from_numpy(logits), dim=1).numpy()


def lesson(served: Images, answers: str) -> Any:
    """What the thief trains on: the probabilities, their top class, or the probabilities adjusted or amplified.

    `adjusted` is an attacker who sees that most answers name one class: it subtracts from every log-probability its
    mean over all answers, and so keeps only what tells the queries apart. `amplified` sees that this is little, and
    scales it up to the spread that answers usually have.
    """
    if answers == "hard":
        return served.argmax(axis=1)
    if answers == "amplified":
        return Recentre(AMPLIFIED_SPREAD).restore(served)
    if answers == "adjusted":
        logs = np.log(np.maximum(served, 1e-12))
        return softmax((logs - logs.mean(axis=0)).astype(np.float32))
    return served


def accuracy(scores: Images, labels: NDArray[np.int64]) -> float:
    """Share of rows whose largest entry is the label's."""
    return float(np.mean(scores.argmax(axis=1) == labels))


def run_cells(victim: Victim, cells: list[Cell], size: str, root: Path) -> list[dict[str, Any]]:
    """Train one victim and a fresh thief for each of its cells; one JSON-able record a cell."""
    torch.set_num_threads(1)
    sizes = SIZES[size]
    data = dataset_of(victim.dataset, victim.seed, size, root)
    classifier, seconds = quantized_of(victim, size, root)
    teacher = teacher_of(victim.dataset, victim.seed, size, root)
    clean = softmax(classifier.predict(data.x_test))
    records = []
    for cell in cells:
        defend = _defence(cell)
        queries = images_of(cell.pool, victim.dataset, sizes.queries, victim.seed, size, root, "queries")
        served = defend(softmax(classifier.predict(queries)))
        started = time.perf_counter()
        network = network_of(sizes.models[victim.dataset], data, sizes, derive_seed("thief", victim.seed))
        thief = RecipeClassifier(network, data.input_shape, data.nb_classes, sizes.thief, seed=victim.seed)
        thief.fit(queries, lesson(served, cell.answers))
        stolen = thief.predict(data.x_test)
        defended = defend(clean)
        records.append(
            {
                "study": cell.study,
                "size": size,
                "dataset": victim.dataset,
                "variant": victim.variant,
                "auxiliary": victim.auxiliary,
                "seed": victim.seed,
                "pool": cell.pool,
                "answers": cell.answers,
                "heuristic": cell.heuristic,
                "queries": len(queries),
                "teacher_accuracy": accuracy(teacher.predict(data.x_test), data.y_test),
                "victim_accuracy": accuracy(clean, data.y_test),
                "defended_accuracy": accuracy(defended, data.y_test),
                "thief_accuracy": accuracy(stolen, data.y_test),
                "agreement_clean": accuracy(stolen, clean.argmax(axis=1)),
                "query_agreement_with_teacher": accuracy(served, teacher.predict(queries).argmax(axis=1)),
                "query_top_class_share": float(np.bincount(served.argmax(axis=1)).max() / len(served)),
                "distinct_answers": len(np.unique(served, axis=0)),
                "query_mean_top_probability": float(served.max(axis=1).mean()),
                "agreement_with_twin": classifier.agreement_with_twin(data.x_test),
                "quantization_seconds": round(seconds, 1),
                "thief_seconds": round(time.perf_counter() - started, 1),
            }
        )
    return records


def _defence(cell: Cell) -> Any:
    if not cell.heuristic:
        return lambda probabilities: probabilities
    from art_divqat.defences.postprocessor import HeuristicPerturbation

    return HeuristicPerturbation(beta=HEURISTIC_BETA)
