"""Preflight: refuse an invalid run before anything is trained, written or paid for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from art_divqat.audit.external_model import describe_model, model_kind
from art_divqat.errors import UserError
from art_divqat.plan.config import ResolvedConfig

if TYPE_CHECKING:
    from art_divqat.audit.bench import Bench


def preflight(bench: Bench) -> dict[str, Any]:
    """Refuse what the configuration asks and cannot be done, and describe the data if all can.

    :param bench: of the run; it loads its data.
    :return: `dataset` and `pool` as they describe themselves, the number of `evasion_images`, the size of the images
        that thieves see where an attack says so, and the `model` of somebody else's, which is read and tried. An
        endpoint is never asked here.
    :raises UserError: for defences, networks, attacks or budgets that do not fit the data or each other, and a model
        that cannot be read.
    """
    from art_divqat.data.pools import IN_DISTRIBUTION
    from art_divqat.defences.registry import check_defence
    from art_divqat.models.registry import check_model
    from art_divqat.models.weights import describe_weights, weights_file

    config = bench.config
    for model, source in ((config.model, config.weights), (config.thief_model, config.thief_weights)):
        if source is not None:
            # before the data are read
            weights_file(model, source, download=config.download)
    for defence in config.defences:
        check_defence(defence, bench.dataset.input_shape)
    shape, weights = bench.dataset.input_shape, {}
    thieves_see = bench.thieves_see
    for of, model, source, training, shapes in (
        ("victim", config.model, config.weights, config.training, [shape]),
        ("thief", config.thief_model, config.thief_weights, config.thief_training, thieves_see.values()),
    ):
        for seen in dict.fromkeys(shapes):
            check_model(model, seen)
            if source is not None:
                described = describe_weights(model, source, seen, download=config.download)
                weights[of] = {**described, "training": training}
    check_evasion(bench)
    if config.control and len(set(bench.dataset.y_train.tolist())) < 2:
        raise UserError(
            f"No control can be trained on {config.dataset!r}: its training images are of one class. Leave it out with "
            "--no-control; a model that is not stolen is then rated inconclusive."
        )
    own, held_out = config.attacker_images, len(bench.dataset.x_pool)
    if own > held_out:
        raise UserError(
            f"The attacker cannot have {own} images of their own: {config.dataset!r} holds {held_out} that the victim "
            "was not trained or tested on. Lower --attacker-images."
        )
    data: dict[str, Any] = {
        "dataset": {**bench.dataset.describe(), "test_overlap": bench.test_overlap},
        "pool": {**bench.pool.describe(), "overlap": bench.pool_overlap},
        "evasion_images": len(bench.evasion_rows),
    }
    if own and bench.pool.name == IN_DISTRIBUTION:
        data["pool"]["images"] -= own
    check_attacks(config, data)
    for attack in config.attacks:
        for name in attack.entry.other_pools(attack.own):
            bench.other_pool(name)  # reads a data set, or says why it cannot
    if weights:
        data["weights"] = weights
    if smaller := {str(attack): list(seen[1:]) for attack, seen in thieves_see.items() if seen != shape}:
        data["thief_images"] = smaller
    kind = model_kind(config)
    if kind is not None:
        data["model"] = {"kind": kind} if kind == "endpoint" else describe_model(bench)
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
        of an attack, images asked several times where that is free, or `fee` on a network that is not of its kind.
    """
    for attack in config.attacks:
        attack.check_own(config.attacker_images, config.attacker_labels)
        if config.budgets[0] < attack.least_budget:
            raise UserError(
                f"One step of attack {str(attack)!r} asks {attack.least_budget} queries, more than the budget of "
                f"{config.budgets[0]}: raise --budget, or give the attack a smaller step."
            )
        if config.repeat_queries == "free" and attack.queries_per_image > 1:
            raise UserError(
                f"Attack {str(attack)!r} asks every image {attack.queries_per_image} times, and learns nothing by it: "
                "with --repeat-queries free an image asked again is answered from memory. Use --repeat-queries paid."
            )
        # what is behind a model of somebody else's is not known here
        if config.external is None and (refusal := attack.entry.refusal(config.model, attack.own)) is not None:
            raise UserError(refusal)
    for attack in config.attacks:
        if attack.entry.needs_labels and not data["pool"]["labelled"]:
            raise UserError(
                f"Attack {str(attack)!r} needs a query pool with labels, and {config.query_pool!r} has none: give "
                "--query-pool a data set, or in-distribution."
            )
    available = data["pool"]["images"]
    for attack in config.attacks:
        needed = attack.pool_needed(config.budgets[-1])
        if needed > available:
            raise UserError(
                f"Budget {config.budgets[-1]} is beyond the query pool {config.query_pool!r}, which holds {available} "
                f"images: attack {str(attack)!r} needs {needed}; lower --budget or choose a larger --query-pool."
            )
