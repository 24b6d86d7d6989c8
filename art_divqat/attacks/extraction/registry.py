"""Registry of extraction attacks: `run_attack("knockoff", context)` spends a budget and returns a thief.

Importing this module imports neither torch nor ART; running an attack does.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from art_divqat._rng import derive_seed, isolated_random_state
from art_divqat.attacks.extraction import parameters as declared
from art_divqat.attacks.extraction.contract import AttackContext, AttackEntry, AttackOutcome
from art_divqat.attacks.recovery.registry import RECOVERIES, attackers_view, undoes_a_defence
from art_divqat.errors import UserError
from art_divqat.parameters import Parameter, refuse_unknown, resolve
from art_divqat.registry import Registry
from art_divqat.specs import Spec, parse_spec, read_spec

if TYPE_CHECKING:
    from art_divqat.attacks.recovery.contract import RecoveryEntry

_RUNNERS = "art_divqat.attacks.extraction.runners"
_OWN = "art_divqat.attacks.extraction.own_images"

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
            may_shrink=False,
        ),
        "fee": AttackEntry(
            "functionally equivalent extraction (Jagielski et al., USENIX Security 2020) of two-layer ReLU networks",
            f"{_RUNNERS}:fee",
            declared.FEE,
            needs_pool=False,
            refusal=declared.fee_refusal,
            may_shrink=False,
        ),
        "jbda": AttackEntry(
            "Jacobian augmentation of a small seed set (Papernot et al., 2017; targeted-random: Juuti et al., 2019)",
            f"{_RUNNERS}:jbda",
            {**declared.JBDA_SEEDS, **declared.JBDA},
            needs_own_images=declared.seeds_are_own,
            pool_needed=declared.pool_seeds,
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
            may_shrink=False,
        ),
        "own-and-pool": AttackEntry(
            "images of the attacker's own, then random ones of the pool",
            f"{_OWN}:own_and_pool",
            needs_own_images=declared.always,
        ),
        "own-augmented": AttackEntry(
            "variants of images of the attacker's own, as many as the budget allows",
            f"{_OWN}:own_augmented",
            declared.FLIPS,
            needs_pool=False,
            needs_own_images=declared.always,
        ),
        "own-images": AttackEntry(
            "no query: a thief trained on images of the attacker's own with their true labels; no defence of answers "
            "takes it away",
            f"{_OWN}:own_images",
            declared.OWN_IMAGES,
            needs_pool=False,
            asks_victim=False,
            needs_own_images=declared.always,
            needs_own_labels=True,
        ),
        "random": AttackEntry(
            "the baseline: KnockoffNets' random policy again, with another draw of the pool; how far it lies from "
            "`knockoff` is the noise of the comparison",
            f"{_RUNNERS}:random",
            queries_at_random=True,
        ),
        "scout": AttackEntry(
            "tries many pools and generators with a part of the budget, and spends the rest where the answers tell the "
            "classes apart",
            f"{_RUNNERS}:scout",
            declared.SCOUT,
            pool_needed=declared.no_pool,
            other_pools=declared.named_pools,
        ),
        "semi-supervised": AttackEntry(
            "variants of images of the attacker's own, learned from their true labels and from the answers together",
            f"{_OWN}:semi_supervised",
            declared.SEMI_SUPERVISED,
            needs_own_images=declared.always,
            needs_own_labels=True,
            pool_needed=declared.pool_part,
        ),
    },
)


def list_attacks() -> dict[str, str]:
    """Every attack with one line on it."""
    return dict(sorted(ATTACKS.summaries().items()))


@dataclass(frozen=True)
class AttackSpec(Spec):
    """An attack by its name in the table and its parameters as they were written, with what they come to.

    Two are the same if their names and parameters are; all else follows from these. One that only results of others
    hold and that is not known here has neither own parameters nor a recovery.

    :param own: the attack's own parameters, every one with a value.
    :param recovery: the name of the recovery in its table, or None.
    :param theirs: the recovery's parameters, every one with a value.
    :param image_size: the smaller side of the images that its thief sees, where these are not the victim's.

    >>> attack = parse_attack("Knockoff_Adaptive: reward=cert, recovery=Top_K")
    >>> str(attack), attack.own["reward"], attack.recovery, attack.theirs
    ('knockoff-adaptive:recovery=top-k,reward=cert', 'cert', 'top-k', {'k': 3})
    """

    own: Mapping[str, Any] = field(default_factory=dict, compare=False)
    recovery: str | None = field(default=None, compare=False)
    theirs: Mapping[str, Any] = field(default_factory=dict, compare=False)
    image_size: int | None = field(default=None, compare=False)

    @property
    def entry(self) -> AttackEntry:
        """Its entry in the table.

        :raises UserError: if it is not known here.
        """
        return ATTACKS[self.name]

    @property
    def recovery_entry(self) -> RecoveryEntry | None:
        """The entry of its recovery, or None."""
        return None if self.recovery is None else RECOVERIES[self.recovery]

    @property
    def undoes_a_defence(self) -> bool:
        """Whether its recovery does something about a defence."""
        return undoes_a_defence(self.as_dict.get("recovery"))

    @property
    def without_recovery(self) -> AttackSpec:
        """The attack as it is where it has no defence to undo: its name and its own parameters.

        >>> str(read_attack("knockoff:recovery=dae,pairs=500").without_recovery)
        'knockoff'
        """
        recovery = self.as_dict.get("recovery")
        entry = None if recovery is None else RECOVERIES.find(str(recovery))
        if entry is None:
            return self
        undone = {"recovery", *entry.parameters}
        kept = tuple(each for each in self.parameters if each[0] not in undone)
        return AttackSpec(self.name, kept, own=self.own, image_size=self.image_size)

    @property
    def queries_per_image(self) -> int:
        """What one image costs the attacker."""
        entry = self.recovery_entry
        return 1 if entry is None else entry.repeats(self.theirs)

    @property
    def least_budget(self) -> int:
        """The queries of one step, below which it cannot run: one image, or one iteration of a data-free attack.

        >>> parse_attack("dfme").least_budget, parse_attack("knockoff:recovery=average,repeats=8").least_budget
        (896, 8)
        """
        return self.entry.step(self.own) * self.queries_per_image

    @property
    def asks_victim(self) -> bool:
        """Whether it asks the victim anything; one that is not known here is taken to.

        >>> parse_attack("own-images").asks_victim, parse_attack("jbda").asks_victim
        (False, True)
        """
        entry = ATTACKS.find(self.name)
        return entry is None or entry.asks_victim

    def check_own(self, images: int, labelled: bool) -> None:
        """Refuse an attacker who has fewer images of their own than the attack needs.

        :param labelled: whether they know the true labels of these.
        :raises UserError: naming the option that gives them.

        >>> parse_attack("jbda:seeds=own").check_own(0, True)
        Traceback (most recent call last):
        ...
        art_divqat.errors.UserError: Attack 'jbda:seeds=own' needs images of the attacker's own: say how many \
with --attacker-images.
        """
        if not images and self.entry.needs_own_images(self.own):
            raise UserError(
                f"Attack {str(self)!r} needs images of the attacker's own: say how many with --attacker-images."
            )
        if not labelled and self.entry.needs_own_labels:
            raise UserError(
                f"Attack {str(self)!r} needs the true labels of the attacker's own images: leave out "
                "--no-attacker-labels, or use own-augmented instead."
            )

    def pool_needed(self, budget: int) -> int:
        """How many images the query pool must hold for the attack to spend a budget; 0 if it looks at no pool.

        >>> [parse_attack(name).pool_needed(1000) for name in ("knockoff", "knockoff:recovery=average", "jbda", "dfme")]
        [1000, 250, 100, 0]
        """
        entry = self.entry
        return entry.pool_needed(budget // self.queries_per_image, self.own) if entry.needs_pool else 0


def attack_spec(name: str, given: Mapping[str, Any]) -> AttackSpec:
    """An attack by name and parameters, with its name, and its recovery's, as the tables have them.

    Every attack takes `recovery=` and, with it, that recovery's parameters, and most `image_size=`; a parameter of the
    attack's own comes before another of that name.

    :raises UserError: for an unknown name or a bad value.

    >>> attack_spec("knockoff", {"recovery": "average", "repeats": 8}).queries_per_image
    8
    """
    name = ATTACKS.canonical(name)
    own = ATTACKS[name].parameters
    written, recovery, theirs = dict(given), None, dict[str, Parameter]()
    if given.get("recovery") is not None:
        written["recovery"] = recovery = RECOVERIES.canonical(str(given["recovery"]))
        theirs = dict(RECOVERIES[recovery].parameters)
    common = declared.IMAGE_SIZE if ATTACKS[name].may_shrink and "image_size" not in own else {}
    refuse_unknown(name, given, [*own, *theirs, *common, *(["recovery"] if ATTACKS[name].asks_victim else [])])
    return AttackSpec(
        name,
        tuple(sorted(written.items())),
        own=resolve(name, {key: given[key] for key in given if key in own}, own),
        recovery=recovery,
        theirs=resolve(name, {key: given[key] for key in given if key in theirs and key not in own}, theirs),
        image_size=resolve(name, {key: given[key] for key in given if key in common}, common).get("image_size"),
    )


def parse_attack(text: str) -> AttackSpec:
    """Read `NAME[:parameter=value,…]`; names, parameters and their ranges are checked.

    :raises UserError: for an unknown name or a bad value.

    >>> parse_attack("knockof")
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: Unknown attack 'knockof': did you mean knockoff?
    """
    spec = parse_spec(text)
    return attack_spec(spec.name, spec.as_dict)


def read_attack(text: str) -> AttackSpec:
    """An attack as results name it, whose text it keeps; one that is not known here is no fault.

    >>> attack = read_attack("gone:depth=3")
    >>> str(attack), attack.own, ATTACKS.find(attack.name)
    ('gone:depth=3', {}, None)
    """
    spec = read_spec(text)
    try:
        attack = attack_spec(spec.name, spec.as_dict)
    except UserError:
        return AttackSpec(spec.name, spec.parameters, spec.text)
    return replace(attack, name=spec.name, parameters=spec.parameters, text=spec.text)


def _check_context(attack: AttackSpec, context: AttackContext, cost: int) -> None:
    name, entry = attack.name, attack.entry
    attack.check_own(0 if context.own_images is None else len(context.own_images), context.own_labels is not None)
    if not entry.asks_victim:
        return
    if context.budget < cost:
        raise UserError(f"A budget of {context.budget} holds not one image at {cost} queries an image.")
    remaining = context.victim.ledger.remaining
    if remaining is not None and remaining < context.budget:
        raise UserError(f"Attack {name!r} is to spend {context.budget} queries; the ledger has {remaining} left.")
    if not entry.needs_pool:
        return
    declared.check_pool(len(context.pool), attack.pool_needed(context.budget))
    if entry.needs_labels and context.pool_labels is None:
        raise UserError(f"Attack {name!r} needs a query pool with labels; this one has none. Use knockoff instead.")


def _check_build_thief(attack: AttackSpec, build_thief: Callable[..., Any]) -> None:
    try:
        inspect.signature(build_thief).bind(image_size=attack.image_size)
    except TypeError:
        raise UserError(
            f"Attack {str(attack)!r} asks for a thief that sees smaller images, and build_thief takes no image_size: "
            "write build_thief(image_size=None), whose network shrinks its images, or leave image_size out of the name."
        ) from None
    except ValueError:
        return  # of a function written in C nothing is known


def run_attack(attack: str | AttackSpec, context: AttackContext) -> AttackOutcome:
    """Run one attack inside its own random state.

    :param attack: its name, with `context.parameters`; or a value that says both, and then it alone counts.
    :raises UserError: for an unknown name, parameter or kind of answers, a `build_thief` without `image_size` where the
        name has one, a pool smaller than the attack needs, a ledger
        with less left than the budget, or a budget smaller than one step of the attack; nothing is asked then.
    :raises QueryBudgetExceededError: if the attack asks for more than its budget; nothing beyond it is answered.
    """
    if isinstance(attack, str):
        attack = attack_spec(attack, context.parameters)
    run = attack.entry.load()
    with isolated_random_state("attack", attack.name, context.seed):
        view = attackers_view(
            context.victim,
            context.answers if attack.entry.asks_victim else "soft",
            attack.recovery,
            attack.theirs,
            context.known_defence,
            derive_seed("recovery", context.seed),
        )
        cost = getattr(view, "queries_per_image", 1)
        _check_context(attack, context, cost)
        build_thief = context.build_thief
        if attack.image_size is not None:
            _check_build_thief(attack, build_thief)
            build_thief = partial(build_thief, image_size=attack.image_size)
        budget = context.budget // cost
        outcome = run(replace(context, victim=view, budget=budget, parameters=attack.own, build_thief=build_thief))
    return replace(outcome, details={**outcome.details, "queries_per_image": float(cost)})
