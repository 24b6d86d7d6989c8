"""Runners of this package's extraction attacks, one function each; the registry names them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from art_divqat._rng import derive_seed
from art_divqat.attacks.extraction.contract import AttackContext, AttackOutcome
from art_divqat.attacks.extraction.copycat import CopycatCNN
from art_divqat.attacks.extraction.datafree import DFME, MAZE
from art_divqat.attacks.extraction.fee import FunctionallyEquivalentExtraction
from art_divqat.attacks.extraction.jbda import JacobianAugmentation
from art_divqat.attacks.extraction.knockoff import KnockoffNets
from art_divqat.attacks.extraction.parameters import no_two_layers
from art_divqat.attacks.extraction.scout import PoolScout
from art_divqat.errors import UserError


def _seed(name: str, context: AttackContext) -> int:
    return derive_seed("attack", name, context.seed) % 2**32


def _run(name: str, attack_class: type[Any], context: AttackContext, **options: Any) -> AttackOutcome:
    """Run an attack on the pool, spending the budget and training by the thief's recipe."""
    thief = context.build_thief()
    attack = attack_class(
        context.victim,
        batch_size_fit=thief.recipe.batch_size,
        nb_epochs=thief.recipe.epochs,
        nb_stolen=context.budget,
        seed=_seed(name, context),
        **options,
    )
    stolen = attack.extract(context.pool, context.pool_labels, thieved_classifier=thief)
    return AttackOutcome(stolen, attack.details)


def knockoff(context: AttackContext) -> AttackOutcome:
    """Run KnockoffNets with the random policy."""
    return _run("knockoff", KnockoffNets, replace(context, pool_labels=None))


def random(context: AttackContext) -> AttackOutcome:
    """Run KnockoffNets with the random policy, on another draw of the pool."""
    return _run("random", KnockoffNets, replace(context, pool_labels=None))


def knockoff_adaptive(context: AttackContext) -> AttackOutcome:
    """Run KnockoffNets with the adaptive policy."""
    return _run("knockoff-adaptive", KnockoffNets, context, sampling_strategy="adaptive", **context.parameters)


def copycat(context: AttackContext) -> AttackOutcome:
    """Run CopycatCNN."""
    return _run("copycat", CopycatCNN, context)


def jbda(context: AttackContext) -> AttackOutcome:
    """Run Jacobian augmentation, of random images of the pool or of all images of the attacker's own."""
    options = dict(context.parameters)
    if options.pop("seeds") == "own":
        assert context.own_images is not None, "run_attack refuses an attack that needs own images and has none"
        context = replace(context, pool=context.own_images, pool_labels=None)
        options["nb_seeds"] = len(context.pool)
    return _run("jbda", JacobianAugmentation, context, **options)


def scout(context: AttackContext) -> AttackOutcome:
    """Run the scout on the pool and those that its name asks for."""
    options = {name: value for name, value in context.parameters.items() if name != "pools"}
    return _run("scout", PoolScout, context, sources=context.pools, **options)


def dfme(context: AttackContext) -> AttackOutcome:
    """Run DFME."""
    return _data_free("dfme", DFME, context)


def maze(context: AttackContext) -> AttackOutcome:
    """Run MAZE."""
    return _data_free("maze", MAZE, context)


def _data_free(name: str, attack_class: type[Any], context: AttackContext) -> AttackOutcome:
    attack = attack_class(context.victim, context.budget, seed=_seed(name, context), **context.parameters)
    return AttackOutcome(attack.extract(thieved_classifier=context.build_thief()), attack.details)


def fee(context: AttackContext) -> AttackOutcome:
    """Run functionally equivalent extraction on a victim whose hidden width is given or known.

    :raises UserError: if it is neither.
    """
    neurons = context.parameters["neurons"] or context.known_hidden_units
    if neurons is None:
        raise UserError(no_two_layers("this victim is not known to be one"))
    thief = context.build_thief()
    attack = FunctionallyEquivalentExtraction(
        context.victim,
        neurons,
        context.budget,
        time_limit=context.parameters["time_limit"],
        scale=context.parameters["scale"],
        batch_size_fit=thief.recipe.batch_size,
        nb_epochs=thief.recipe.epochs,
        seed=_seed("fee", context),
    )
    return AttackOutcome(attack.extract(thieved_classifier=thief), attack.details)
