"""Relative costs: weigh each piece of a run for the progress bar and the plan's estimate."""

from __future__ import annotations

import math
from typing import Any

from art_divqat.plan.cells import Cell, is_control_of
from art_divqat.plan.config import ResolvedConfig
from art_divqat.victims.specs import VictimSpec

# in units of one image seen once by a training loop; nothing but the time left depends on them
_ADVERSARIAL_COST = 8.0
_EVASION_COST = 1.0
_QUANTIZED_COST = 2.0
# fitting a linear head to the features of an image, in units of finding these
_HEAD_COST = 0.02
_WORST_CASE_COST = 8.0
# in white-box measurements: what audit/robustness.py adds to a victim, and the curve of a thief
_SIGNS_COST = 2.5
_THIEF_RADIUS_COST = 0.6


class Costs:
    """What each piece of work costs relative to the others, for an honest estimate of the time left.

    :param victim_image: the cost of an image in the victim's network, in units of one in the thief's.
    """

    def __init__(self, config: ResolvedConfig, data: dict[str, Any], victim_image: float = 1.0) -> None:
        self._config = config
        self._victim_image = victim_image
        self._train, self._test = data["dataset"]["train"], data["dataset"].get("test", 0)
        self._shape = data["dataset"].get("input_shape", (1, 1, 1))
        self._thief_images = data.get("thief_images", {})
        self._evasion = data["evasion_images"] * config.evasion.steps * _EVASION_COST
        # the accuracy and the single figure are there already
        self._radii = len(set(config.evasion.epsilons or ()) - {0.0, config.epsilon})

    @property
    def of_test(self) -> float:
        """Test images, which pass through the public network of thieves once in a run."""
        return float(self._test) if self._config.thief_training == "probe" else 0.0

    def of_victim(self, victim: tuple[VictimSpec, int]) -> float:
        """Training, dearer if adversarial, the evasion images, and the robustness curve with its checks."""
        spec, _ = victim
        evasion = self._evasion * (1 + self._radii + _SIGNS_COST)
        if spec.is_external:
            return evasion
        if is_control_of(self._config, spec):
            evasion = 0.0
        entry = spec.entry
        if self._config.training == "probe":
            return self._train + evasion
        factor = _ADVERSARIAL_COST if entry.adversarial else 1.0
        training = self._train * self._config.victim_recipe.epochs * factor
        worst_case = self._evasion * _WORST_CASE_COST if entry.quantized else 0.0
        return (training * (_QUANTIZED_COST if entry.quantized else 1.0) + evasion + worst_case) * self._victim_image

    def of_cell(self, cell: Cell) -> float:
        """Training the thief and attacking it, with its curve at the largest budget."""
        curve = self._radii * _THIEF_RADIUS_COST if cell.budget == self._config.budgets[-1] else 0.0
        evasion = 0.0 if is_control_of(self._config, cell.victim) else self._evasion * (1 + curve)
        # one that asks nothing learns from about as many images
        images = cell.budget or self._config.budgets[-1]
        if self._config.thief_training == "probe":
            return self._newly_seen(cell, images) * self._smaller(cell) + evasion
        return images * self._config.thief_recipe.epochs * self._smaller(cell) + evasion

    def _smaller(self, cell: Cell) -> float:
        """What an image costs in a thief that sees fewer pixels of it."""
        whole = self._shape[1:]
        return math.prod(self._thief_images.get(str(cell.attack), whole)) / math.prod(whole)

    def _newly_seen(self, cell: Cell, images: int) -> float:
        """Images that pass through the public network for this cell: budgets are nested, and each passes once."""
        if cell.answers != self._config.answers[0]:
            return _HEAD_COST * images
        smaller = [budget for budget in self._config.budgets if budget < cell.budget]
        return images - max(smaller, default=0) + _HEAD_COST * images
