"""Types of an extraction attack: its context, its outcome, its registry entry; a plug-in's author imports them.

Importing this module imports neither torch nor ART.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from art_divqat.attacks.extraction.parameters import one_image, whole_budget
from art_divqat.parameters import Parameters
from art_divqat.registry import load_target

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from art_divqat._types import Images
    from art_divqat.attacks.recovery.contract import Defence
    from art_divqat.estimators import MeteredClassifier, RecipeClassifier

    # images, or a function of (number, seed) that makes them: (N, C, H, W), float32 in [0, 1]
    ImageSource = Callable[[int, int], Images] | Images


@dataclass(frozen=True)
class AttackContext:
    """All that an attacker has.

    :param victim: the metered victim; its ledger holds the budget.
    :param pool: images to query with, (N, C, H, W), float32 in [0, 1]; data-free attacks leave it alone.
    :param pool_labels: class ids of the pool's own data set, (N,), or None; only adaptive attacks use them.
    :param build_thief: makes a fresh, untrained thief that trains by the one recipe of the comparison; called with
        `image_size` where the name of the attack says that.
    :param budget: queries the attacker may spend.
    :param answers: `soft` uses the probabilities, `hard` only the highest class, `top-k` (`top-3`) the k highest.
    :param seed: decides every draw of the attack.
    :param parameters: what the attack's name was given, such as `{"reward": "all", "recovery": "labels"}`.
    :param known_defence: the defence as the attacker can rebuild it: clean rows in, served rows out; None if there is
        none, or none that depends on the answer alone. The recoveries `dae`, `bayes` and `invert` use it.
    :param own_images: images of the victim's own kind that the attacker has, as `pool`, (N, C, H, W); None for none.
        The victim was not trained on them.
    :param own_labels: their true labels, (N,); None if the attacker does not know them.
    :param known_hidden_units: width of the hidden layer of a victim that is linear, ReLU, linear; None for any other.
        Only `fee` uses it: its published attacker knows the architecture.
    :param pools: other pools that the attack's name asks for, by name: functions that make images, or images. Only
        `scout` uses them.
    """

    victim: MeteredClassifier
    pool: NDArray[np.float32]
    build_thief: Callable[..., RecipeClassifier]
    budget: int
    answers: str
    seed: int
    pool_labels: NDArray[np.int64] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    known_defence: Defence | None = None
    known_hidden_units: int | None = None
    pools: Mapping[str, ImageSource] = field(default_factory=dict)
    own_images: NDArray[np.float32] | None = None
    own_labels: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class AttackOutcome:
    """What an attack leaves: an ART classifier that gives logits, and numbers of its own worth keeping."""

    thief: Any
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class AttackEntry:
    """One attack: a line on it, its code, its parameters, and what it needs and does.

    The functions among the fields are given the attack's own parameters, every one with a value.

    :param summary: one line.
    :param run: `"package.module:function"`, imported at first use, or the function: of a context whose `victim` answers
        as the attacker sees it, whose `budget` counts images, and whose `parameters` are the attack's own, every one.
    :param parameters: the attack's own; `recovery=` and a recovery's parameters come by themselves.
    :param needs_pool: whether it looks at the query pool at all.
    :param needs_labels: whether it uses the pool's own labels.
    :param asks_victim: whether it asks the victim anything; one that does not is run once a seed, on a budget of 0.
    :param needs_own_images: whether it needs images of the attacker's own.
    :param needs_own_labels: whether it needs their true labels too.
    :param queries_at_random: whether it asks images of the pool at random, and so is a baseline for those that choose.
    :param pool_needed: how many images of the pool it needs to ask a number of images.
    :param step: the images of one step; the attack cannot run on fewer.
    :param refusal: why the attack cannot run on a network of this name; None if it can.
    :param other_pools: the pools by name that it asks beside the query pool.
    :param may_shrink: whether its thief may see smaller images than the victim, for which its name takes `image_size`.

    >>> entry = AttackEntry("asks for nothing", lambda context: AttackOutcome(context.build_thief()), needs_pool=False)
    >>> entry.needs_labels, entry.step({})
    (False, 1)
    """

    summary: str
    run: str | Callable[[AttackContext], AttackOutcome]
    parameters: Parameters = field(default_factory=dict)
    needs_pool: bool = True
    needs_labels: bool = False
    asks_victim: bool = True
    needs_own_images: Callable[[Mapping[str, Any]], bool] = lambda own: False
    needs_own_labels: bool = False
    queries_at_random: bool = False
    pool_needed: Callable[[int, Mapping[str, Any]], int] = whole_budget
    step: Callable[[Mapping[str, Any]], int] = one_image
    refusal: Callable[[str, Mapping[str, Any]], str | None] = lambda model, own: None
    other_pools: Callable[[Mapping[str, Any]], tuple[str, ...]] = lambda own: ()
    may_shrink: bool = True

    def load(self) -> Callable[[AttackContext], AttackOutcome]:
        """The attack's code; imported now if it is named."""
        code: Callable[[AttackContext], AttackOutcome] = load_target(self.run)
        return code
