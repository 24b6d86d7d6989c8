"""Preflight: everything that a run refuses, refused before anything is trained, written or paid for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from art_divqat.attacks.extraction.registry import ATTACKS, check_parameters, least_budget, pool_needed
from art_divqat.errors import UserError
from art_divqat.plan.config import ResolvedConfig
from art_divqat.specs import parse_spec
from art_divqat.victims.external.settings import is_external

if TYPE_CHECKING:
    from art_divqat.audit.bench import Bench


def preflight(bench: Bench, *, read_model: bool = True) -> dict[str, Any]:
    """Refuse what the configuration asks and cannot be done, and describe the data if all can.

    :param bench: of the run; it loads its data.
    :param read_model: also read a model of somebody else's, which a plan alone leaves alone. An endpoint is never
        asked here.
    :return: `dataset` and `pool` as they describe themselves, and the number of `evasion_images`.
    :raises UserError: for defences, networks, attacks or budgets that do not fit the data or each other, and a model
        that cannot be read.
    """
    from art_divqat.defences.registry import check_defence, parse_defence
    from art_divqat.models.registry import check_model

    config = bench.config
    for defence in config.defences:
        check_defence(parse_defence(defence), bench.dataset.input_shape)
    for model in (config.model, config.thief_model):
        check_model(model, bench.dataset.input_shape)
    check_evasion(bench)
    data = {
        "dataset": bench.dataset.describe(),
        "pool": {**bench.pool.describe(), "overlap": bench.pool_overlap},
        "evasion_images": len(bench.evasion_rows),
    }
    check_attacks(config, data)
    if read_model and config.external is not None and not config.external.is_remote:
        bench.victims.external(next(victim for victim in config.victims if is_external(victim)))
    return data


def check_evasion(bench: Bench) -> None:
    """Refuse an evasion attack that the data has too few classes for.

    :raises UserError: for AutoAttack on fewer than four classes.
    """
    from art_divqat.attacks.evasion import check_autoattack

    if bench.config.evasion.autoattack and len(bench.evasion_rows):
        remedy = "leave evasion.autoattack out, for PGD; every victim meets Square too"
        check_autoattack(bench.dataset.nb_classes, remedy)


def check_attacks(config: ResolvedConfig, data: dict[str, Any]) -> None:
    """Refuse attacks that cannot run on this pool, these budgets or these victims, before anything is written.

    :raises UserError: for a pool without the labels or the images that an attack needs, a budget smaller than one step
        of an attack, or `fee` on a network that is not of its kind.
    """
    specs = {attack: parse_spec(attack) for attack in config.attacks}
    entries = {attack: ATTACKS[spec.name] for attack, spec in specs.items()}
    for attack, spec in specs.items():
        least = least_budget(spec.name, spec.as_dict)
        if config.budgets[0] < least:
            raise UserError(
                f"One step of attack {attack!r} asks {least} queries, more than the budget of {config.budgets[0]}: "
                "raise --budget, or give the attack a smaller step."
            )
        own, _, _ = check_parameters(spec.name, spec.as_dict)
        # what is behind a model of somebody else's is not known here
        if config.external is None and (refusal := entries[attack].refusal(config.model, own)) is not None:
            raise UserError(refusal)
    for attack, entry in entries.items():
        if entry.needs_labels and not data["pool"]["labelled"]:
            raise UserError(
                f"Attack {attack!r} needs a query pool with labels, and {config.query_pool!r} has none: give "
                "--query-pool a data set, or in-distribution."
            )
    available = data["pool"]["images"]
    for attack, spec in specs.items():
        needed = pool_needed(spec.name, spec.as_dict, config.budgets[-1])
        if needed > available:
            raise UserError(
                f"Budget {config.budgets[-1]} is beyond the query pool {config.query_pool!r}, which holds {available} "
                f"images: attack {attack!r} needs {needed}; lower --budget or choose a larger --query-pool."
            )
