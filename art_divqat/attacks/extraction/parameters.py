"""Parameters of the extraction attacks: declared once for registry and classes, and the queries that follow from them.

Importing this module imports neither torch nor ART.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from art_divqat.errors import UserError
from art_divqat.models.registry import MODELS
from art_divqat.parameters import Parameters, choice, flag, integer, real, text

# what a class takes beside the parameters that the attack's name takes
SEED: Parameters = {"seed": integer(0, 0, 2**32 - 1)}
TRAINING: Parameters = {"batch_size_fit": integer(64, 1), "nb_epochs": integer(10, 1)}
POOL_QUERIES: Parameters = {**TRAINING, "batch_size_query": integer(512, 1), "nb_stolen": integer(1000, 1), **SEED}

# of every attack whose thief may see smaller images than the victim: their smaller side
IMAGE_SIZE: Parameters = {"image_size": integer(None, 1)}

# in place of names: every pool that a program makes
EVERY_GENERATOR = "generated"

KNOCKOFF_ADAPTIVE: Parameters = {
    "reward": choice("all", "cert", "div", "loss", "all"),
    "step": integer(32, 1),
    "replacement": flag(False),
}
JBDA: Parameters = {
    "nb_seeds": integer(100, 1),
    "variant": choice("papernot", "papernot", "targeted-random"),
    "step_size": real(0.1, 0, 1, closed="right"),
    "steps": integer(5, 1),
    "round_epochs": integer(10, 1),
}
SCOUT: Parameters = {
    "share": real(0.2, 0, 1, closed="right"),
    "rounds": integer(6, 1),
    "power": real(4.0, 0),
    "pools": text(EVERY_GENERATOR),
}
JBDA_SEEDS: Parameters = {"seeds": choice("pool", "pool", "own")}
FLIPS: Parameters = {"flips": flag(False)}
OWN_IMAGES: Parameters = {"variants": integer(8_000, 1), **FLIPS}
SEMI_SUPERVISED: Parameters = {"label_weight": real(0.5, 0, 1), "pool_share": real(0.0, 0, 1), **FLIPS}
DFME: Parameters = {
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
MAZE: Parameters = {
    **DFME,
    "directions": integer(10, 1),
    "replay_size": integer(10_000, 2),
    "replay_steps": integer(10, 0),
}
FEE: Parameters = {
    "neurons": integer(None, 1),
    "time_limit": real(60.0, 0, closed="neither"),
    "scale": real(0.05, 0, closed="neither"),
}


def one_image(own: Mapping[str, Any]) -> int:
    """The step of an attack that can ask for one image."""
    del own
    return 1


def data_free_step(own: Mapping[str, Any]) -> int:
    """batch_size × (generator_steps × (directions + 1) + student_steps), the queries of one iteration.

    >>> data_free_step({"batch_size": 128, "generator_steps": 1, "directions": 1, "student_steps": 5})
    896
    """
    return int(own["batch_size"] * (own["generator_steps"] * (own["directions"] + 1) + own["student_steps"]))


def whole_budget(images: int, own: Mapping[str, Any]) -> int:
    """The pool that an attack needs which asks every image of it once at most: one for each that it asks."""
    del own
    return images


def seeds_only(images: int, own: Mapping[str, Any]) -> int:
    """The pool that an attack needs which makes the rest of its queries from `nb_seeds` images.

    >>> seeds_only(1000, {"nb_seeds": 100}), seeds_only(60, {"nb_seeds": 100})
    (100, 60)
    """
    return min(images, int(own["nb_seeds"]))


def pool_seeds(images: int, own: Mapping[str, Any]) -> int:
    """The pool that `jbda` needs: its seeds, unless they are the attacker's own images.

    >>> pool_seeds(1000, {"nb_seeds": 100, "seeds": "pool"}), pool_seeds(1000, {"nb_seeds": 100, "seeds": "own"})
    (100, 0)
    """
    return 0 if seeds_are_own(own) else seeds_only(images, own)


def seeds_are_own(own: Mapping[str, Any]) -> bool:
    """Whether `jbda` starts from images of the attacker's own."""
    return bool(own["seeds"] == "own")


def pool_part(images: int, own: Mapping[str, Any]) -> int:
    """The pool that `semi-supervised` needs."""
    return round(images * float(own["pool_share"]))


def always(own: Mapping[str, Any]) -> bool:
    """What is so whatever the parameters are."""
    del own
    return True


def unless_replaced(images: int, own: Mapping[str, Any]) -> int:
    """The pool that an attack needs which may ask an image again if `replacement` says so."""
    return 1 if own["replacement"] else whole_budget(images, own)


def named_pools(own: Mapping[str, Any]) -> tuple[str, ...]:
    """The pools that `pools=NAME+NAME…` names; `generated`, alone or among them, stands for all that programs make.

    >>> named_pools({"pools": "walks+mnist"}), named_pools({"pools": "none"})
    (('walks', 'mnist'), ())
    >>> "letters" in named_pools({"pools": "generated"})
    True
    """
    from art_divqat.data.pools import canonical_pool, generated_pools

    names: dict[str, None] = {}
    for name in str(own["pools"]).split("+"):
        if name == EVERY_GENERATOR:
            names |= dict.fromkeys(generated_pools())
        elif name != "none":
            names[canonical_pool(name)] = None
    return tuple(names)


def no_pool(images: int, own: Mapping[str, Any]) -> int:
    """The pool that an attack needs which has others too."""
    del images, own
    return 0


def check_pool(available: int, needed: int) -> None:
    """Refuse a query pool that is too small for an attack.

    :param held: images in the pool.
    :param needed: images that the attack needs, by one of the functions above.
    :raises UserError: saying both numbers.
    """
    if available < needed:
        raise UserError(
            f"The query pool holds {available} images, fewer than the {needed} needed: spend fewer queries, or give a "
            "larger pool."
        )


def no_two_layers(what: str) -> str:
    """Why `fee` does not run, as a sentence."""
    return (
        f"Attack 'fee' works only on two-layer ReLU networks, and {what}: train the model mlp2, say its hidden width "
        "with neurons=…, or choose another attack."
    )


def fee_refusal(model: str, own: Mapping[str, Any]) -> str | None:
    """Why `fee` does not run on a network of this name."""
    known = MODELS.find(model)
    if own["neurons"] or (known is not None and known.two_layers):
        return None
    return no_two_layers(f"{model} is none")
