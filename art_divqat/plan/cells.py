"""Cells: expand a configuration into the units of work, of caching, of resuming and of parallelism."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from art_divqat.attacks.extraction.registry import check_parameters
from art_divqat.attacks.recovery.contract import PublicDefence
from art_divqat.attacks.recovery.registry import RECOVERIES
from art_divqat.defences.registry import DEFENCES, parse_defence
from art_divqat.errors import UserError
from art_divqat.plan.config import ResolvedConfig
from art_divqat.specs import Spec, parse_spec


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
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def plan_cells(config: ResolvedConfig) -> list[Cell]:
    """Every cell of a resolved configuration, seeds outermost so that an interrupted run holds whole seeds.

    >>> from art_divqat.plan.config import EvaluateConfig
    >>> from art_divqat.plan.presets import resolve
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
        if applies(attack, defence, answers)
        for budget in config.budgets
    ]


def applies(attack: str, defence: str, answers: str) -> bool:
    """Whether an attack that undoes a defence has something to undo, and whole rows of probabilities to do it on.

    A run that is only read may name plug-ins that are not installed here; of those nothing is known that speaks
    against it. :func:`~art_divqat.plan.presets.resolve` has checked the names of a run to be made.

    >>> applies("knockoff:recovery=invert", "heuristic:beta=0.9", "soft")
    True
    >>> applies("knockoff:recovery=dae", "none", "soft")
    False
    """
    spec = parse_spec(attack)
    try:
        recovery = check_parameters(spec.name, spec.as_dict).recovery
        if recovery is None:
            return True
        entry, links = RECOVERIES[recovery], _links(defence)
    except UserError:
        return True
    return (answers == "soft" or not entry.whole_rows) and entry.applies_to(links)


def _links(defence: str) -> tuple[PublicDefence, ...]:
    links = parse_defence(defence).links
    entries = [DEFENCES[link.name] for link in links]
    return tuple(
        PublicDefence(link.name, rebuildable=entry.needs == "nothing", invertible=entry.invertible)
        for link, entry in zip(links, entries, strict=True)
    )


def without_recovery(attack: str) -> str:
    """An attack as it is where it has no defence to undo: its name and its own parameters.

    >>> without_recovery("knockoff:recovery=dae,pairs=500"), without_recovery("dfme:replay_steps=2")
    ('knockoff', 'dfme:replay_steps=2')
    """
    spec = parse_spec(attack)
    recovery = spec.as_dict.get("recovery")
    entry = None if recovery is None else RECOVERIES.find(str(recovery))
    if entry is None:
        return attack
    undone = {"recovery", *entry.parameters}
    return str(Spec(spec.name, tuple((name, value) for name, value in spec.parameters if name not in undone)))
