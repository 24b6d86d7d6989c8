"""Extraction attacks by name: `run_attack("knockoff", context)` spends a budget and returns a thief.

Importing this module imports neither torch nor ART; running an attack does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from art_divqat._rng import derive_seed, isolated_random_state
from art_divqat.attacks.recovery.registry import RECOVERIES, attackers_view, recovery_entry
from art_divqat.errors import UserError, unknown_name
from art_divqat.parameters import Parameter, Parameters, choice, flag, integer, real, resolve

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from art_divqat.attacks.recovery.learned import Defence
    from art_divqat.estimators import MeteredClassifier, RecipeClassifier


@dataclass(frozen=True)
class AttackContext:
    """All that an attacker has.

    :param victim: the metered victim; its ledger holds the budget.
    :param pool: images to query with, (N, C, H, W), float32 in [0, 1]; data-free attacks leave it alone.
    :param pool_labels: class ids of the pool's own data set, (N,), or None; only adaptive attacks use them.
    :param build_thief: makes a fresh, untrained thief that trains by the one recipe of the comparison.
    :param budget: queries the attacker may spend.
    :param answers: `soft` uses the probabilities, `hard` only the highest class, `top-k` (`top-3`) the k highest.
    :param seed: decides every draw of the attack.
    :param parameters: what the attack's name was given, such as `{"reward": "all", "recovery": "labels"}`.
    :param known_defence: the defence as the attacker can rebuild it: clean rows in, served rows out; None if there is
        none, or none that depends on the answer alone. The recoveries `dae`, `bayes` and `invert` use it.
    :param known_hidden_units: width of the hidden layer of a victim that is linear, ReLU, linear; None for any other.
        Only `fee` uses it: its published attacker knows the architecture.
    """

    victim: MeteredClassifier
    pool: NDArray[np.float32]
    build_thief: Callable[[], RecipeClassifier]
    budget: int
    answers: str
    seed: int
    pool_labels: NDArray[np.int64] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    known_defence: Defence | None = None
    known_hidden_units: int | None = None


@dataclass(frozen=True)
class AttackOutcome:
    """What an attack leaves: an ART classifier that gives logits, and numbers of its own worth keeping."""

    thief: Any
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AttackEntry:
    """How to run one attack, what it is in a line, what it needs, and its parameters.

    :param pool_holds_budget: whether every query is an image of the pool, so that it must hold as many as the budget.
    :param step: the queries of one step, of the attack's own parameters; the attack cannot run on fewer.
    :param refusal: why the attack cannot run on a network of this name, with its own parameters; None if it can.
    """

    summary: str
    run: Callable[[AttackContext], AttackOutcome]
    needs_pool: bool = True
    pool_holds_budget: bool = True
    needs_labels: bool = False
    parameters: Parameters = field(default_factory=dict)
    step: Callable[[Mapping[str, Any]], int] = lambda own: 1
    refusal: Callable[[str, Mapping[str, Any]], str | None] = lambda model, own: None


def _run(name: str, attack_class: type[Any], context: AttackContext, **options: Any) -> AttackOutcome:
    """Run one of this package's attacks on the pool, spending the budget and training by the thief's recipe."""
    thief = context.build_thief()
    attack = attack_class(
        context.victim,
        batch_size_fit=thief.recipe.batch_size,
        nb_epochs=thief.recipe.epochs,
        nb_stolen=context.budget,
        seed=derive_seed("attack", name, context.seed) % 2**32,
        **options,
    )
    stolen = attack.extract(context.pool, context.pool_labels, thieved_classifier=thief)
    return AttackOutcome(stolen, attack.details)


def _knockoff(context: AttackContext) -> AttackOutcome:
    from art_divqat.attacks.extraction.knockoff import KnockoffNets

    return _run("knockoff", KnockoffNets, replace(context, pool_labels=None))


def _random(context: AttackContext) -> AttackOutcome:
    from art_divqat.attacks.extraction.knockoff import KnockoffNets

    return _run("random", KnockoffNets, replace(context, pool_labels=None))


def _knockoff_adaptive(context: AttackContext) -> AttackOutcome:
    from art_divqat.attacks.extraction.knockoff import KnockoffNets

    return _run("knockoff-adaptive", KnockoffNets, context, sampling_strategy="adaptive", **context.parameters)


def _copycat(context: AttackContext) -> AttackOutcome:
    from art_divqat.attacks.extraction.copycat import CopycatCNN

    return _run("copycat", CopycatCNN, context)


def _jbda(context: AttackContext) -> AttackOutcome:
    from art_divqat.attacks.extraction.jbda import JacobianAugmentation

    return _run("jbda", JacobianAugmentation, context, **context.parameters)


def _data_free(name: str) -> Callable[[AttackContext], AttackOutcome]:
    def run(context: AttackContext) -> AttackOutcome:
        from art_divqat.attacks.extraction import datafree

        attack = getattr(datafree, name)(
            context.victim,
            context.budget,
            seed=derive_seed("attack", name.lower(), context.seed) % 2**32,
            **context.parameters,
        )
        return AttackOutcome(attack.extract(thieved_classifier=context.build_thief()), attack.details)

    return run


def data_free_step(own: Mapping[str, Any]) -> int:
    """batch_size × (generator_steps × (directions + 1) + student_steps), the queries of one iteration.

    >>> data_free_step({"batch_size": 128, "generator_steps": 1, "directions": 1, "student_steps": 5})
    896
    """
    return int(own["batch_size"] * (own["generator_steps"] * (own["directions"] + 1) + own["student_steps"]))


def _no_two_layers(what: str) -> str:
    return (
        f"Attack 'fee' works only on two-layer ReLU networks, and {what}: train the model mlp2, say its hidden width "
        "with neurons=…, or choose another attack."
    )


def _fee_refusal(model: str, own: Mapping[str, Any]) -> str | None:
    return None if model == "mlp2" or own["neurons"] else _no_two_layers(f"{model} is none")


def _fee(context: AttackContext) -> AttackOutcome:
    from art_divqat.attacks.extraction.fee import FunctionallyEquivalentExtraction, hidden_units

    neurons = context.parameters["neurons"] or context.known_hidden_units or hidden_units(_behind(context.victim))
    if neurons is None:
        raise UserError(_no_two_layers("this victim is not known to be one"))
    thief = context.build_thief()
    attack = FunctionallyEquivalentExtraction(
        context.victim,
        neurons,
        context.budget,
        time_limit=context.parameters["time_limit"],
        scale=context.parameters["scale"],
        batch_size_fit=thief.recipe.batch_size,
        nb_epochs=thief.recipe.epochs,
        seed=derive_seed("attack", "fee", context.seed) % 2**32,
    )
    return AttackOutcome(attack.extract(thieved_classifier=thief), attack.details)


def _behind(victim: Any) -> Any:
    """The victim itself: `fee` is published for an attacker who knows the architecture, and asks for nothing else."""
    while hasattr(victim, "recovery"):
        victim = victim.victim
    return victim._victim


_DATA_FREE: Parameters = {
    "batch_size": integer(128, 2),
    "directions": integer(1, 1),
    "step": real(1e-3, 0, closed="neither"),
    "generator_steps": integer(1, 1),
    "student_steps": integer(5, 1),
    "generator_rate": real(1e-3, 0, closed="neither"),
    "student_rate": real(0.03, 0, closed="neither"),
    "latent": integer(64, 1),
    "width": integer(64, 1),
}

ATTACKS: dict[str, AttackEntry] = {
    "copycat": AttackEntry("CopycatCNN (Correia-Silva et al., IJCNN 2018): random images, labels only", _copycat),
    "dfme": AttackEntry(
        "DFME (Truong et al., CVPR 2021): no data, a generator trained by zeroth-order gradients of the victim",
        _data_free("DFME"),
        needs_pool=False,
        parameters=_DATA_FREE,
        step=data_free_step,
    ),
    "fee": AttackEntry(
        "functionally equivalent extraction (Jagielski et al., USENIX Security 2020) of two-layer ReLU networks",
        _fee,
        needs_pool=False,
        parameters={
            "neurons": integer(None, 1),
            "time_limit": real(60.0, 0, closed="neither"),
            "scale": real(0.05, 0, closed="neither"),
        },
        refusal=_fee_refusal,
    ),
    "jbda": AttackEntry(
        "Jacobian augmentation of a small seed set (Papernot et al., 2017; targeted-random: Juuti et al., 2019)",
        _jbda,
        pool_holds_budget=False,
        parameters={
            "nb_seeds": integer(100, 1),
            "variant": choice("papernot", "papernot", "targeted-random"),
            "step_size": real(0.1, 0, 1, closed="right"),
            "steps": integer(5, 1),
            "round_epochs": integer(10, 1),
        },
    ),
    "knockoff": AttackEntry(
        "KnockoffNets, random policy (Orekondy et al., CVPR 2019): random images, the answers as they are", _knockoff
    ),
    "knockoff-adaptive": AttackEntry(
        "KnockoffNets, adaptive policy: a bandit chooses the class of the pool to ask next",
        _knockoff_adaptive,
        needs_labels=True,
        parameters={
            "reward": choice("all", "cert", "div", "loss", "all"),
            "step": integer(32, 1),
            "replacement": flag(False),
        },
    ),
    "maze": AttackEntry(
        "MAZE (Kariyappa et al., CVPR 2021): data-free with KL, ten directions and experience replay",
        _data_free("MAZE"),
        needs_pool=False,
        parameters={
            **_DATA_FREE,
            "directions": integer(10, 1),
            "replay_size": integer(10_000, 2),
            "replay_steps": integer(10, 0),
        },
        step=data_free_step,
    ),
    "random": AttackEntry(
        "the baseline: KnockoffNets' random policy again, with another draw of the pool; how far it lies from "
        "`knockoff` is the noise of the comparison",
        _random,
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


def check_parameters(name: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], str | None, dict[str, Any]]:
    """The attack's own parameters, the name of the recovery or None, and the recovery's parameters.

    Every attack takes `recovery=` and, with it, that recovery's parameters.

    :raises UserError: for an unknown name or a bad value.

    >>> check_parameters("knockoff", {"recovery": "average", "repeats": 8})
    ({}, 'average', {'repeats': 8})
    """
    entry = ATTACKS[check_attack(name)]
    recovery = given.get("recovery")
    own = dict(entry.parameters)
    theirs: dict[str, Parameter] = {}
    if recovery is not None:
        theirs = dict(recovery_entry(str(recovery)).parameters)
    known = {**own, **theirs, "recovery": choice(None, *sorted(RECOVERIES))}
    values = resolve(name, given, known)
    return {key: values[key] for key in own}, values["recovery"], {key: values[key] for key in theirs}


def least_budget(name: str, given: Mapping[str, Any]) -> int:
    """The queries of one step of the attack, below which it cannot run: one image, or one iteration of a data-free one.

    :raises UserError: for an unknown name or a bad value.

    >>> least_budget("dfme", {}), least_budget("knockoff", {"recovery": "average", "repeats": 8})
    (896, 8)
    """
    own, _, theirs = check_parameters(name, given)
    return ATTACKS[name].step(own) * int(theirs.get("repeats", 1))


def _check_context(name: str, entry: AttackEntry, context: AttackContext, budget: int, cost: int) -> None:
    if budget < 1:
        raise UserError(f"A budget of {context.budget} holds not one image at {cost} queries an image.")
    remaining = context.victim.ledger.remaining
    if remaining is not None and remaining < context.budget:
        raise UserError(f"Attack {name!r} is to spend {context.budget} queries; the ledger has {remaining} left.")
    if not entry.needs_pool:
        return
    if entry.pool_holds_budget and len(context.pool) < budget:
        raise UserError(f"The query pool holds {len(context.pool)} images, fewer than the {budget} to ask.")
    if entry.needs_labels and context.pool_labels is None:
        raise UserError(f"Attack {name!r} needs a query pool with labels; this one has none. Use knockoff instead.")


def run_attack(name: str, context: AttackContext) -> AttackOutcome:
    """Run one attack inside its own random state.

    :raises UserError: for an unknown name, parameter or kind of answers, a pool smaller than the budget, a ledger with
        less left than the budget, or a budget smaller than one step of the attack; nothing is asked then.
    :raises QueryBudgetExceededError: if the attack asks for more than its budget; nothing beyond it is answered.
    """
    entry = ATTACKS[check_attack(name)]
    own, recovery, theirs = check_parameters(name, context.parameters)
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
        budget = context.budget // cost
        _check_context(name, entry, context, budget, cost)
        outcome = entry.run(replace(context, victim=view, budget=budget, parameters=own))
    return replace(outcome, details={**outcome.details, "queries_per_image": float(cost)})
