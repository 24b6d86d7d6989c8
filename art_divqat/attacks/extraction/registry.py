"""Registry of extraction attacks: `run_attack("knockoff", context)` spends a budget and returns a thief.

Importing this module imports neither torch nor ART; running an attack does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from art_divqat._rng import derive_seed, isolated_random_state
from art_divqat.attacks.extraction import parameters as declared
from art_divqat.attacks.extraction.contract import AttackContext, AttackEntry, AttackOutcome
from art_divqat.attacks.recovery.registry import RECOVERIES, attackers_view
from art_divqat.errors import UserError
from art_divqat.parameters import Parameter, refuse_unknown, resolve
from art_divqat.registry import Registry
from art_divqat.specs import Spec

_RUNNERS = "art_divqat.attacks.extraction.runners"

ATTACKS: Registry[AttackEntry] = Registry(
    "attack",
    "attacks",
    AttackEntry,
    {
        "copycat": AttackEntry(
            "CopycatCNN (Correia-Silva et al., IJCNN 2018): random images, labels only",
            f"{_RUNNERS}:copycat",
            queries_at_random=True,
        ),
        "dfme": AttackEntry(
            "DFME (Truong et al., CVPR 2021): no data, a generator trained by zeroth-order gradients of the victim",
            f"{_RUNNERS}:dfme",
            declared.DFME,
            needs_pool=False,
            step=declared.data_free_step,
        ),
        "fee": AttackEntry(
            "functionally equivalent extraction (Jagielski et al., USENIX Security 2020) of two-layer ReLU networks",
            f"{_RUNNERS}:fee",
            declared.FEE,
            needs_pool=False,
            refusal=declared.fee_refusal,
        ),
        "jbda": AttackEntry(
            "Jacobian augmentation of a small seed set (Papernot et al., 2017; targeted-random: Juuti et al., 2019)",
            f"{_RUNNERS}:jbda",
            declared.JBDA,
            pool_needed=declared.seeds_only,
        ),
        "knockoff": AttackEntry(
            "KnockoffNets, random policy (Orekondy et al., CVPR 2019): random images, the answers as they are",
            f"{_RUNNERS}:knockoff",
            queries_at_random=True,
        ),
        "knockoff-adaptive": AttackEntry(
            "KnockoffNets, adaptive policy: a bandit chooses the class of the pool to ask next",
            f"{_RUNNERS}:knockoff_adaptive",
            declared.KNOCKOFF_ADAPTIVE,
            needs_labels=True,
            pool_needed=declared.unless_replaced,
        ),
        "maze": AttackEntry(
            "MAZE (Kariyappa et al., CVPR 2021): data-free with KL, ten directions and experience replay",
            f"{_RUNNERS}:maze",
            declared.MAZE,
            needs_pool=False,
            step=declared.data_free_step,
        ),
        "random": AttackEntry(
            "the baseline: KnockoffNets' random policy again, with another draw of the pool; how far it lies from "
            "`knockoff` is the noise of the comparison",
            f"{_RUNNERS}:random",
            queries_at_random=True,
        ),
    },
)


def list_attacks() -> dict[str, str]:
    """Every attack with one line on it."""
    return dict(sorted(ATTACKS.summaries().items()))


class AttackParameters(NamedTuple):
    """What an attack's name was given, every parameter with a value.

    :param own: the attack's.
    :param recovery: its canonical name, or None.
    :param theirs: the recovery's.
    """

    own: dict[str, Any]
    recovery: str | None
    theirs: dict[str, Any]

    @property
    def queries_per_image(self) -> int:
        """What one image costs the attacker."""
        return 1 if self.recovery is None else RECOVERIES[self.recovery].repeats(self.theirs)


def check_parameters(name: str, given: Mapping[str, Any]) -> AttackParameters:
    """The attack's own parameters, the name of the recovery or None, and the recovery's parameters.

    Every attack takes `recovery=` and, with it, that recovery's parameters; one that both have is the attack's.

    :raises UserError: for an unknown name or a bad value.

    >>> own, recovery, theirs = check_parameters("knockoff", {"recovery": "average", "repeats": 8})
    >>> own, recovery, theirs
    ({}, 'average', {'repeats': 8})
    """
    name = ATTACKS.canonical(name)
    own = ATTACKS[name].parameters
    recovery, theirs = None, dict[str, Parameter]()
    if given.get("recovery") is not None:
        recovery = RECOVERIES.canonical(str(given["recovery"]))
        theirs = dict(RECOVERIES[recovery].parameters)
    refuse_unknown(name, given, [*own, *theirs, "recovery"])
    return AttackParameters(
        resolve(name, {key: given[key] for key in given if key in own}, own),
        recovery,
        resolve(name, {key: given[key] for key in given if key in theirs and key not in own}, theirs),
    )


def canonical_spec(spec: Spec) -> Spec:
    """The same attack with its name, and its recovery's, as the tables have them.

    :raises UserError: for an unknown name or a bad value.

    >>> from art_divqat.specs import parse_spec
    >>> str(canonical_spec(parse_spec("Knockoff_Adaptive:reward=cert,recovery=Top_K")))
    'knockoff-adaptive:recovery=top-k,reward=cert'
    """
    _, recovery, _ = check_parameters(spec.name, spec.as_dict)
    named = Spec(ATTACKS.canonical(spec.name), spec.parameters)
    return named if recovery is None else named.with_parameters({"recovery": recovery})


def least_budget(name: str, given: Mapping[str, Any]) -> int:
    """The queries of one step of the attack, below which it cannot run: one image, or one iteration of a data-free one.

    :raises UserError: for an unknown name or a bad value.

    >>> least_budget("dfme", {}), least_budget("knockoff", {"recovery": "average", "repeats": 8})
    (896, 8)
    """
    parameters = check_parameters(name, given)
    return ATTACKS[name].step(parameters.own) * parameters.queries_per_image


def pool_needed(name: str, given: Mapping[str, Any], budget: int) -> int:
    """How many images the query pool must hold for an attack to spend a budget; 0 if it looks at no pool.

    :raises UserError: for an unknown name or a bad value.

    >>> pool_needed("knockoff", {}, 1000), pool_needed("knockoff", {"recovery": "average", "repeats": 8}, 1000)
    (1000, 125)
    >>> pool_needed("jbda", {}, 1000), pool_needed("dfme", {}, 1000)
    (100, 0)
    """
    entry, parameters = ATTACKS[name], check_parameters(name, given)
    return entry.pool_needed(budget // parameters.queries_per_image, parameters.own) if entry.needs_pool else 0


def _check_context(name: str, context: AttackContext, cost: int) -> None:
    if context.budget < cost:
        raise UserError(f"A budget of {context.budget} holds not one image at {cost} queries an image.")
    remaining = context.victim.ledger.remaining
    if remaining is not None and remaining < context.budget:
        raise UserError(f"Attack {name!r} is to spend {context.budget} queries; the ledger has {remaining} left.")
    if not ATTACKS[name].needs_pool:
        return
    declared.check_pool(len(context.pool), pool_needed(name, context.parameters, context.budget))
    if ATTACKS[name].needs_labels and context.pool_labels is None:
        raise UserError(f"Attack {name!r} needs a query pool with labels; this one has none. Use knockoff instead.")


def run_attack(name: str, context: AttackContext) -> AttackOutcome:
    """Run one attack inside its own random state.

    :raises UserError: for an unknown name, parameter or kind of answers, a pool smaller than the attack needs, a ledger
        with less left than the budget, or a budget smaller than one step of the attack; nothing is asked then.
    :raises QueryBudgetExceededError: if the attack asks for more than its budget; nothing beyond it is answered.
    """
    name = ATTACKS.canonical(name)
    own, recovery, theirs = check_parameters(name, context.parameters)
    run = ATTACKS[name].load()
    with isolated_random_state("attack", name, context.seed):
        view = attackers_view(
            context.victim,
            context.answers,
            recovery,
            theirs,
            context.known_defence,
            derive_seed("recovery", context.seed),
        )
        cost = getattr(view, "queries_per_image", 1)
        _check_context(name, context, cost)
        outcome = run(replace(context, victim=view, budget=context.budget // cost, parameters=own))
    return replace(outcome, details={**outcome.details, "queries_per_image": float(cost)})
