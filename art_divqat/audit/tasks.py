"""Tasks: the pieces of work that an executor performs, here or in another process. Importing this imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from art_divqat._types import PhaseProgress
from art_divqat.plan.cells import Cell, is_control_of
from art_divqat.victims.specs import VictimSpec

if TYPE_CHECKING:
    from art_divqat.audit.bench import Bench
    from art_divqat.audit.robustness import Robustness
    from art_divqat.results.journal import CellRecord


class Task(Protocol):
    """One piece of work on what a process has loaded."""

    @property
    def description(self) -> str:
        """In words."""

    def perform(self, bench: Bench, robustness: Robustness, progress: PhaseProgress) -> Any:
        """Do it and return what it is for."""


@dataclass(frozen=True)
class CheckAndDescribe:
    """Refuse what cannot be run, and describe the data; see :func:`art_divqat.audit.preflight.preflight`."""

    @property
    def description(self) -> str:
        """In words."""
        return "data"

    def perform(self, bench: Bench, robustness: Robustness, progress: PhaseProgress) -> dict[str, Any]:
        """The data in plain values."""
        from art_divqat.audit.preflight import preflight

        del robustness, progress
        return preflight(bench)


@dataclass(frozen=True)
class DescribeModel:
    """Try the audited model; see :func:`art_divqat.audit.external_model.describe_model`."""

    @property
    def description(self) -> str:
        """In words."""
        return "model"

    def perform(self, bench: Bench, robustness: Robustness, progress: PhaseProgress) -> dict[str, Any]:
        """What it is and answers, in plain values."""
        from art_divqat.audit.external_model import describe_model

        del robustness, progress
        return describe_model(bench)


@dataclass(frozen=True)
class _VictimTask:
    """Work on one victim.

    :param retrain: train it anew, even if the store has it.
    """

    victim: VictimSpec
    seed: int
    retrain: bool = False

    @property
    def description(self) -> str:
        """In words."""
        return f"victim {self.victim}, seed {self.seed}"


class PrepareVictim(_VictimTask):
    """Have a victim in the store, with its robustness, so that cells side by side find it there."""

    def perform(self, bench: Bench, robustness: Robustness, progress: PhaseProgress) -> str | None:
        """Load or train it, and measure it unless others are only quantized from it; its hash as the store has it."""
        prepared = bench.victims.get(self.victim, self.seed, progress, retrain=self.retrain)
        if self.victim in bench.config.victims and not is_control_of(bench.config, self.victim):
            robustness.of_victim(self.victim, self.seed, progress, retrain=self.retrain)
        return prepared.sha256


class MeasureVictim(_VictimTask):
    """Have a victim in the store, and measure it on the test images."""

    def perform(self, bench: Bench, robustness: Robustness, progress: PhaseProgress) -> tuple[Path, dict[str, float]]:
        """Where it is kept, and its accuracies."""
        from art_divqat.data.stored import answers_to
        from art_divqat.metrics import accuracy

        classifier = bench.victims.get(self.victim, self.seed, progress, retrain=self.retrain).classifier
        examples = robustness.examples(self.victim, self.seed, progress, retrain=self.retrain)
        x, y = bench.dataset.x_test, bench.dataset.y_test
        measured = {"victim_accuracy": accuracy(answers_to(classifier.predict, x), y)}
        if len(examples):
            measured["victim_robust_accuracy"] = accuracy(classifier.predict(examples), y[bench.evasion_rows])
        return bench.victims.folder(self.victim, self.seed), measured


@dataclass(frozen=True)
class MeasureCell:
    """Measure one cell."""

    cell: Cell

    @property
    def description(self) -> str:
        """In words."""
        cell = self.cell
        return f"{cell.attack} ({cell.answers}) on {cell.victim}, {cell.budget} queries"

    def perform(self, bench: Bench, robustness: Robustness, progress: PhaseProgress) -> CellRecord:
        """Its journal record."""
        from art_divqat.audit.cell import run_cell

        return run_cell(self.cell, bench, robustness, progress)
