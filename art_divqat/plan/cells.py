"""Cells: expand a configuration into the units of work, of caching, of resuming and of parallelism."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from art_divqat.attacks.extraction.registry import ATTACKS, AttackSpec, read_attack
from art_divqat.attacks.recovery.contract import PublicDefence
from art_divqat.defences.registry import DEFENCES, DefenceSpec
from art_divqat.plan.config import ResolvedConfig
from art_divqat.victims.registry import is_control
from art_divqat.victims.specs import VictimSpec

# what an attack uses of the answers that asks for none
NO_ANSWERS = "none"


@dataclass(frozen=True)
class Cell:
    """One (dataset, victim, defence, attack, answers, budget, seed).

    The cell of an attack that asks nothing has the answers `none` and the budget 0.

    >>> victim = VictimSpec("robust", (("epsilon", 0.2),))
    >>> Cell("digits", victim, DefenceSpec(), AttackSpec("knockoff"), "soft", 500, 0).id
    'digits|robust:epsilon=0.2|none|knockoff|soft|500|0'
    """

    dataset: str
    victim: VictimSpec
    defence: DefenceSpec
    attack: AttackSpec
    answers: str
    budget: int
    seed: int

    @property
    def id(self) -> str:
        """A name that is unique in a run."""
        return cell_id(self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """The seven coordinates, in order, as journals and results have them."""
        return {
            "dataset": self.dataset,
            "victim": str(self.victim),
            "defence": str(self.defence),
            "attack": str(self.attack),
            "answers": self.answers,
            "budget": self.budget,
            "seed": self.seed,
        }


COORDINATES = tuple(field.name for field in fields(Cell))


def cell_id(cell: Mapping[str, Any]) -> str:
    """The :attr:`Cell.id` of a cell as a journal has it.

    :raises KeyError: if a coordinate is missing.
    """
    return "|".join([str(cell[name]) for name in COORDINATES])


def plan_cells(config: ResolvedConfig) -> list[Cell]:
    """Every cell of a resolved configuration, seeds outermost so that an interrupted run holds whole seeds.

    With `seeds: auto` those of the largest number of seeds; see :mod:`art_divqat.plan.looks`. An attack
    that asks nothing has one cell for a seed, victim and defence, whatever the answers and budgets are.

    >>> from art_divqat.plan.config import EvaluateConfig
    >>> from art_divqat.plan.presets import resolve
    >>> len(plan_cells(resolve(EvaluateConfig(victims=("robust",), seeds=2, budgets=(100, 200)))))
    32
    """
    attacked = [
        (defence, attack, answers, config.budgets if attack.asks_victim else (0,))
        for defence in config.defences
        for attack in config.attacks
        for answers in (config.answers if attack.asks_victim else (NO_ANSWERS,))
        if applies(attack, defence, answers)
    ]
    seeds = range(config.max_seeds if config.seeds == "auto" else config.seeds)
    plans = dict.fromkeys(config.victims, attacked)
    plans |= {victim: _on_control(config) for victim in config.victims if is_control_of(config, victim)}
    return [
        Cell(config.dataset, victim, defence, attack, answers, budget, seed)
        for seed in seeds
        for victim in config.victims
        if seed == 0 or not is_control_of(config, victim)
        for defence, attack, answers, budgets in plans[victim]
        for budget in budgets
    ]


def is_control_of(config: ResolvedConfig, victim: VictimSpec) -> bool:
    """Whether a victim is the positive control of a run: attacked with one seed, undefended, at the largest budget."""
    return is_control(str(victim), {"control": config.control})


def _on_control(config: ResolvedConfig) -> list[tuple[DefenceSpec, AttackSpec, str, tuple[int, ...]]]:
    """What is tried on the control: every attack of the run that asks, where it has nothing to undo."""
    attacks = dict.fromkeys(attack.without_recovery for attack in config.attacks if attack.asks_victim)
    return [
        (DefenceSpec(), attack, answers, config.budgets[-1:])
        for attack in attacks
        if (entry := ATTACKS.find(attack.name)) is None or entry.refusal(config.model, attack.own) is None
        for answers in config.answers
    ]


def applies(attack: AttackSpec, defence: DefenceSpec, answers: str) -> bool:
    """Whether an attack that undoes a defence has something to undo, and whole rows of probabilities to do it on.

    A run that is only read may name plug-ins that are not installed here; of those nothing is known that speaks
    against it. :func:`~art_divqat.plan.presets.resolve` has checked the names of a run to be made.

    >>> from art_divqat.attacks.extraction.registry import parse_attack
    >>> from art_divqat.defences.registry import parse_defence
    >>> applies(parse_attack("knockoff:recovery=invert"), parse_defence("heuristic:beta=0.9"), "soft")
    True
    >>> applies(parse_attack("knockoff:recovery=dae"), parse_defence("none"), "soft")
    False
    """
    recovery = attack.recovery_entry
    entries = [DEFENCES.find(link.name) for link in defence.links]
    if recovery is None or None in entries:
        return True
    links = tuple(
        PublicDefence(
            link.name,
            rebuildable=entry.needs == "nothing",
            invertible=entry.invertible,
            misinforms=entry.misinforms,
        )
        for link, entry in zip(defence.links, entries, strict=True)
        if entry is not None
    )
    return (answers == "soft" or not recovery.whole_rows) and recovery.applies_to(links)


def without_recovery(attack: str) -> str:
    """An attack of some results as it is where it has no defence to undo: its name and its own parameters.

    >>> without_recovery("knockoff:recovery=dae,pairs=500"), without_recovery("dfme:replay_steps=2")
    ('knockoff', 'dfme:replay_steps=2')
    """
    return str(read_attack(attack).without_recovery)
