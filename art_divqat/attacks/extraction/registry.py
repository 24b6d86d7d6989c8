"""Extraction attacks by name: `run_attack("knockoff", context)` spends a budget and returns a thief.

Importing this module imports neither torch nor ART; running an attack does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from art_divqat._rng import isolated_random_state
from art_divqat.errors import UserError, unknown_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from art_divqat.estimators import MeteredClassifier, RecipeClassifier


@dataclass(frozen=True)
class AttackContext:
    """All that an attacker has.

    :param victim: the metered victim; its ledger holds the budget.
    :param pool: images to query with, (N, C, H, W), float32 in [0, 1].
    :param pool_labels: class ids of the pool's own data set, (N,), or None; only adaptive attacks use them.
    :param build_thief: makes a fresh, untrained thief that trains by the one recipe of the comparison.
    :param budget: queries the attacker may spend.
    :param answers: `soft` uses the probabilities, `hard` only the class with the highest one.
    :param seed: decides every draw of the attack.
    :param parameters: what the attack's name was given, such as `{"reward": "all"}`.
    """

    victim: MeteredClassifier
    pool: NDArray[np.float32]
    build_thief: Callable[[], RecipeClassifier]
    budget: int
    answers: str
    seed: int
    pool_labels: NDArray[np.int64] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AttackOutcome:
    """What an attack leaves: an ART classifier that gives logits, and numbers of its own worth keeping."""

    thief: Any
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AttackEntry:
    """How to run one attack, and what it is in a line."""

    summary: str
    run: Callable[[AttackContext], AttackOutcome]
    needs_pool: bool = True


def _knockoff(context: AttackContext) -> AttackOutcome:
    from art.attacks.extraction import KnockoffNets

    thief = context.build_thief()
    attack = KnockoffNets(
        classifier=context.victim,
        batch_size_fit=thief.recipe.batch_size,
        batch_size_query=512,
        nb_epochs=thief.recipe.epochs,
        nb_stolen=context.budget,
        sampling_strategy="random",
        use_probability=context.answers == "soft",
        verbose=False,
    )
    # Under one seed numpy's choice without replacement draws nested prefixes, so budgets of one seed are nested.
    return AttackOutcome(attack.extract(context.pool, thieved_classifier=thief))


ATTACKS: dict[str, AttackEntry] = {
    "knockoff": AttackEntry(
        "KnockoffNets, random policy (Orekondy et al., CVPR 2019), ART's implementation", _knockoff
    ),
}


def list_attacks() -> dict[str, str]:
    """Every attack with one line on it."""
    return {name: entry.summary for name, entry in sorted(ATTACKS.items())}


def check_attack(name: str) -> str:
    """Return the name if it is an attack's, or say which are near.

    :raises UserError: for an unknown name.
    """
    if name not in ATTACKS:
        raise unknown_name("attack", name, ATTACKS)
    return name


def run_attack(name: str, context: AttackContext) -> AttackOutcome:
    """Run one attack inside its own random state.

    :raises UserError: for an unknown name, or a pool smaller than the budget.
    :raises QueryBudgetExceededError: if the attack asks for more than its budget; nothing beyond it is answered.
    """
    entry = ATTACKS[check_attack(name)]
    if entry.needs_pool and len(context.pool) < context.budget:
        raise UserError(f"The query pool holds {len(context.pool)} images, fewer than the budget of {context.budget}.")
    with isolated_random_state("attack", name, context.seed):
        return entry.run(context)
