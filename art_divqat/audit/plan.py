"""From a configuration to cells: the unit of work, of caching, of resuming and of parallelism."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from art_divqat.audit.config import ResolvedConfig


@dataclass(frozen=True)
class Cell:
    """One (dataset, victim, defence, attack, answers, budget, seed).

    >>> Cell("digits", "robust:epsilon=0.2", "none", "knockoff", "soft", 500, 0).id
    'digits|robust:epsilon=0.2|none|knockoff|soft|500|0'
    """

    dataset: str
    victim: str
    defence: str
    attack: str
    answers: str
    budget: int
    seed: int

    @property
    def id(self) -> str:
        """A name that is unique in a run."""
        return "|".join(map(str, self.as_dict().values()))

    def as_dict(self) -> dict[str, Any]:
        """The seven coordinates, in order."""
        return asdict(self)


def plan_cells(config: ResolvedConfig) -> list[Cell]:
    """Every cell of a resolved configuration, seeds outermost so that an interrupted run holds whole seeds.

    >>> from art_divqat.audit.config import EvaluateConfig
    >>> from art_divqat.audit.presets import resolve
    >>> len(plan_cells(resolve(EvaluateConfig(victims=("robust",), seeds=2, budgets=(100, 200)))))
    16
    """
    return [
        Cell(config.dataset, victim, defence, attack, answers, budget, seed)
        for seed in range(config.seeds)
        for victim in config.victims
        for defence in config.defences
        for attack in config.attacks
        for answers in config.answers
        for budget in config.budgets
    ]
