"""Adversarial trainers by name. Importing this module imports neither torch nor ART."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RobustTrainer:
    """A line on the method, and how to build its trainer around a classifier.

    `build(classifier, *, epsilon, seed, progress)` gives an ART `Trainer`; ε is in units of [0, 1] pixels.
    """

    summary: str
    build: Callable[..., Any]


def _madry(classifier: Any, *, epsilon: float, seed: int, progress: Callable[[int, int], None] | None) -> Any:
    from art_divqat.defences.trainer.madry import MadryPGDTrainer

    return MadryPGDTrainer(classifier, epsilon=epsilon, seed=seed, progress=progress)


ROBUST_TRAINERS: dict[str, RobustTrainer] = {
    "robust": RobustTrainer("adversarially trained with PGD (Madry et al., 2018)", _madry),
}
