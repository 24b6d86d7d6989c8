"""The variants, auxiliary sets, query pools and recipes of the DivQAT study: data, no code that trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from art_divqat.estimators import TrainingRecipe


@dataclass(frozen=True)
class Sizes:
    """How large a study is. `full` is the one to quote; `quick` says whether the machinery works.

    `width` and `hidden` are those of the small CNNs, victim and thief alike; 32 and 128 is the registered network.
    """

    train: int
    queries: int
    victim: TrainingRecipe
    quantization_epochs: int
    thief: TrainingRecipe
    thief_model: str
    width: int = 32
    hidden: int = 128


SIZES = {
    "full": Sizes(
        train=10_000,
        queries=8_000,
        victim=TrainingRecipe(epochs=10, batch_size=64),
        quantization_epochs=8,
        thief=TrainingRecipe(epochs=15, batch_size=64),
        thief_model="small-cnn",
    ),
    "compact": Sizes(
        train=5_000,
        queries=6_000,
        victim=TrainingRecipe(epochs=8, batch_size=64),
        quantization_epochs=6,
        thief=TrainingRecipe(epochs=8, batch_size=64),
        thief_model="small-cnn",
        width=16,
        hidden=64,
    ),
    "quick": Sizes(
        train=300,
        queries=300,
        victim=TrainingRecipe(epochs=2, batch_size=64),
        quantization_epochs=2,
        thief=TrainingRecipe(epochs=2, batch_size=64),
        thief_model="lenet5",
    ),
}

QAT: dict[str, Any] = {"alpha": 0.0, "alpha_auxiliary": 0.0}
DEFAULT: dict[str, Any] = {}  # DivQATTrainer's own

# The first row is the baseline; `kl-t1-*` is the literal reading of the paper.
VARIANTS: dict[str, dict[str, Any]] = {
    "qat": QAT,
    "divqat": DEFAULT,
    **{
        f"kl-t1-train-{alpha:g}": {"divergence": "kl", "temperature": 1.0, "alpha": alpha, "alpha_auxiliary": 0.0}
        for alpha in (0.1, 0.5, 0.9)
    },
    "klr-t4-train-0.04": {"divergence": "kl-reverse", "temperature": 4.0, "alpha": 0.04, "alpha_auxiliary": 0.0},
    "klr-t4-train-0.1": {"divergence": "kl-reverse", "temperature": 4.0, "alpha": 0.1, "alpha_auxiliary": 0.0},
    "klr-t4-train-0.1-cap1": {
        "divergence": "kl-reverse",
        "temperature": 4.0,
        "alpha": 0.1,
        "alpha_auxiliary": 0.0,
        "max_divergence": 1.0,
    },
    "js-t4-train-0.3": {"divergence": "js", "temperature": 4.0, "alpha": 0.3, "alpha_auxiliary": 0.0},
    "js-t1-aux-1": {"divergence": "js", "temperature": 1.0, "alpha_auxiliary": 1.0},
    **{
        f"js-t4-aux-{alpha:g}": {"divergence": "js", "temperature": 4.0, "alpha_auxiliary": alpha}
        for alpha in (0.01, 0.1, 0.3, 1.0)
    },
    "klr-t4-aux-0.04": {"divergence": "kl-reverse", "temperature": 4.0, "alpha_auxiliary": 0.04},
    "js-t4-both-0.1": {"divergence": "js", "temperature": 4.0, "alpha": 0.1, "alpha_auxiliary": 0.1},
}

NPZ = {"tinyimagenet": "tinyimagenet32-small.npz", "cifar10": "cifar10-small.npz"}
POOLS = {
    "mnist": ("fashion_mnist", "tinyimagenet", "cifar10", "photos", "noise", "in-distribution"),
    "fashion_mnist": ("mnist", "tinyimagenet", "cifar10", "photos", "noise", "in-distribution"),
    "cifar10": ("tinyimagenet", "photos", "noise", "in-distribution"),
}
MAIN_POOL = {"mnist": "fashion_mnist", "fashion_mnist": "tinyimagenet", "cifar10": "tinyimagenet"}
AUXILIARIES = {
    "mnist": ("default", "fashion_mnist", "tinyimagenet", "cifar10", "photos", "noise"),
    "fashion_mnist": ("default", "mnist", "tinyimagenet", "cifar10", "photos", "noise"),
    "cifar10": ("default", "tinyimagenet", "photos", "noise"),
}
VICTIM_MODEL = {"mnist": "small-cnn", "fashion_mnist": "small-cnn", "cifar10": "resnet20"}
HEURISTIC_BETA = 0.9


@dataclass(frozen=True)
class Victim:
    """One victim to train: a data set, a variant of the objective, its auxiliary images, a seed."""

    dataset: str
    variant: str
    auxiliary: str
    seed: int


@dataclass(frozen=True)
class Cell:
    """One thief: of a victim, with a pool and answers (`soft`, `hard` or `adjusted`), with or without the heuristic."""

    study: str
    victim: Victim
    pool: str
    answers: str
    heuristic: bool = False


def cells_of(study: str, dataset: str, seed: int) -> list[Cell]:
    """The cells of one study: `variants`, `matrix`, `in-distribution` or `stacked`.

    >>> len(cells_of("in-distribution", "mnist", 0))
    6
    """
    main = MAIN_POOL[dataset]

    def victim(variant: str, auxiliary: str = "default") -> Victim:
        return Victim(dataset, variant, "none" if variant == "qat" or "train" in variant else auxiliary, seed)

    both = ("soft", "hard", "adjusted")
    if study == "variants":
        return [Cell(study, victim(name), main, answers) for name in VARIANTS for answers in both]
    if study == "matrix":
        rows = [victim("qat"), *[victim("divqat", name) for name in AUXILIARIES[dataset]]]
        pools = [pool for pool in POOLS[dataset] if pool != "in-distribution"]
        return [Cell(study, row, pool, answers) for row in rows for pool in pools for answers in both]
    rows = [victim("qat"), victim("divqat")]
    if study == "in-distribution":
        return [Cell(study, row, "in-distribution", answers) for row in rows for answers in both]
    return [
        Cell(study, row, main, answers, heuristic) for row in rows for heuristic in (False, True) for answers in both
    ]


STUDIES = ("variants", "matrix", "in-distribution", "stacked")
