"""The variants, auxiliary sets, query pools and recipes of the DivQAT study: data, no code that trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from art_divqat.estimators import TrainingRecipe


@dataclass(frozen=True)
class Sizes:
    """How large a study is. `full` is the one to quote; `quick` says whether the machinery works.

    `models` names the network of victim and thief for each data set; `width` and `hidden` are those of a small CNN, 32
    and 128 being the registered network.
    """

    train: int
    queries: int
    victim: TrainingRecipe
    quantization_epochs: int
    thief: TrainingRecipe
    models: Mapping[str, str]
    width: int = 32
    hidden: int = 128


SIZES = {
    "full": Sizes(
        train=10_000,
        queries=8_000,
        victim=TrainingRecipe(epochs=10, batch_size=64),
        quantization_epochs=8,
        thief=TrainingRecipe(epochs=15, batch_size=64),
        models={"mnist": "small-cnn", "fashion_mnist": "small-cnn", "cifar10": "resnet20"},
    ),
    "compact": Sizes(
        train=5_000,
        queries=4_000,
        victim=TrainingRecipe(epochs=8, batch_size=64, learning_rate=2e-3),
        quantization_epochs=6,
        thief=TrainingRecipe(epochs=8, batch_size=64, learning_rate=2e-3),
        models={"mnist": "lenet5", "fashion_mnist": "lenet5", "cifar10": "small-cnn"},
        width=16,
        hidden=64,
    ),
    "quick": Sizes(
        train=300,
        queries=300,
        victim=TrainingRecipe(epochs=2, batch_size=64),
        quantization_epochs=2,
        thief=TrainingRecipe(epochs=2, batch_size=64),
        models={"mnist": "lenet5", "fashion_mnist": "lenet5", "cifar10": "lenet5"},
    ),
}

QAT: dict[str, Any] = {"alpha": 0.0, "alpha_auxiliary": 0.0}
DEFAULT: dict[str, Any] = {}  # DivQATTrainer's own
NO_PENALTY: dict[str, Any] = {"spread_penalty": 0.0, "confidence_penalty": 0.0}
JS_T4: dict[str, Any] = {"divergence": "js", "temperature": 4.0, **NO_PENALTY}
KLR_T4: dict[str, Any] = {"divergence": "kl-reverse", "temperature": 4.0, **NO_PENALTY}

# The first row is the baseline; `kl-t1-*` is the literal reading of the paper.
VARIANTS: dict[str, dict[str, Any]] = {
    "qat": QAT,
    "divqat": DEFAULT,
    **{
        f"kl-t1-train-{alpha:g}": {"divergence": "kl", "temperature": 1.0, "alpha": alpha, "alpha_auxiliary": 0.0}
        for alpha in (0.1, 0.5, 0.9)
    },
    "klr-t4-train-0.04": {**KLR_T4, "alpha": 0.04, "alpha_auxiliary": 0.0},
    "klr-t4-train-0.1": {**KLR_T4, "alpha": 0.1, "alpha_auxiliary": 0.0},
    "klr-t4-train-0.1-cap1": {**KLR_T4, "alpha": 0.1, "alpha_auxiliary": 0.0, "max_divergence": 1.0},
    "js-t4-train-0.3": {**JS_T4, "alpha": 0.3, "alpha_auxiliary": 0.0},
    "js-t1-aux-1": {**JS_T4, "temperature": 1.0, "alpha_auxiliary": 1.0},
    **{f"js-t4-aux-{alpha:g}": {**JS_T4, "alpha_auxiliary": alpha} for alpha in (0.03, 0.1, 0.3)},
    **{
        f"js-t4-aux-0.1-spread-{penalty:g}": {**JS_T4, "alpha_auxiliary": 0.1, "spread_penalty": penalty}
        for penalty in (2.0, 5.0, 10.0)
    },
    # the penalty with next to none of the divergence
    "js-t4-aux-0.001-spread-500": {**JS_T4, "alpha_auxiliary": 0.001, "spread_penalty": 500.0},
    "klr-t4-aux-0.04": {**KLR_T4, "alpha_auxiliary": 0.04},
    "js-t4-both-0.1": {**JS_T4, "alpha": 0.1, "alpha_auxiliary": 0.1},
}

NPZ = {"tinyimagenet": "tinyimagenet32-small.npz", "cifar10": "cifar10-small.npz"}
POOLS = {
    "mnist": ("fashion_mnist", "tinyimagenet", "cifar10", "photos", "noise", "in-distribution"),
    "fashion_mnist": ("mnist", "tinyimagenet", "cifar10", "photos", "noise", "in-distribution"),
    "cifar10": ("tinyimagenet", "photos", "noise", "in-distribution"),
}
MAIN_POOL = {"mnist": "fashion_mnist", "fashion_mnist": "tinyimagenet", "cifar10": "tinyimagenet"}
AUXILIARIES = {
    "mnist": ("default", "fashion_mnist", "tinyimagenet", "cifar10", "photos", "noise", "strokes", "without-strokes"),
    "fashion_mnist": ("default", "mnist", "tinyimagenet", "cifar10", "photos", "noise", "strokes", "without-strokes"),
    "cifar10": ("default", "tinyimagenet", "photos", "noise"),
}
# what somebody gives as auxiliary images who expects attackers with other ones than the main pool's
GIVEN = {"mnist": "cifar10", "fashion_mnist": "cifar10", "cifar10": "photos"}
BESIDE_MIXTURE = "mixture+"
HEURISTIC_BETA = 0.9
# nats that the amplified log-probabilities of a class spread: about what those of plain QAT do by themselves
AMPLIFIED_SPREAD = 3.0


@dataclass(frozen=True)
class Victim:
    """One victim to train: a data set, a variant of the objective, its auxiliary images, a seed."""

    dataset: str
    variant: str
    auxiliary: str
    seed: int


@dataclass(frozen=True)
class Cell:
    """One thief: of a victim, with a pool and answers (`soft`, `hard`, `adjusted` or `amplified`), with or without the
    heuristic."""

    study: str
    victim: Victim
    pool: str
    answers: str
    heuristic: bool = False


def cells_of(study: str, dataset: str, seed: int) -> list[Cell]:
    """The cells of one of :data:`STUDIES`.

    >>> len(cells_of("in-distribution", "mnist", 0))
    6
    """
    main = MAIN_POOL[dataset]

    def victim(variant: str, auxiliary: str = "default") -> Victim:
        return Victim(dataset, variant, "none" if variant == "qat" or "train" in variant else auxiliary, seed)

    every = ("soft", "hard", "adjusted")
    if study == "variants":
        return [Cell(study, victim(name), main, answers) for name in VARIANTS for answers in every]
    if study == "matrix":
        rows = [victim("qat"), *[victim("divqat", name) for name in AUXILIARIES[dataset]]]
        # what the sets do by themselves, without the penalty on spread
        rows += [victim("js-t4-aux-0.03", name) for name in AUXILIARIES[dataset] if name != "default"]
        pools = [pool for pool in POOLS[dataset] if pool != "in-distribution"]
        return [Cell(study, row, pool, answers) for row in rows for pool in pools for answers in ("soft", "adjusted")]
    if study == "amplified":
        rows = [victim(name) for name in ("qat", "js-t4-aux-0.03", "divqat")]
        return [Cell(study, row, main, answers) for row in rows for answers in ("adjusted", "amplified")]
    if study == "given":
        given = GIVEN[dataset]
        names = ("default", BESIDE_MIXTURE + given, given)
        rows = [victim("qat"), *[victim("divqat", name) for name in names]]
        return [
            Cell(study, row, pool, answers)
            for row in rows
            for pool in (main, given)
            for answers in ("soft", "adjusted")
        ]
    rows = [victim("qat"), victim("divqat")]
    if study == "in-distribution":
        return [Cell(study, row, "in-distribution", answers) for row in rows for answers in every]
    return [
        Cell(study, row, main, answers, heuristic) for row in rows for heuristic in (False, True) for answers in every
    ]


STUDIES = ("variants", "matrix", "in-distribution", "stacked", "amplified", "given")
