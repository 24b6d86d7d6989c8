"""Victims as values: a name and parameters, read once, with what follows from them.

Importing this module imports neither torch nor ART.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from art_divqat.errors import UserError, unknown_name
from art_divqat.models.registry import MODELS
from art_divqat.parameters import checked
from art_divqat.specs import Spec, Value, parse_spec, read_spec
from art_divqat.victims.external.settings import EXTERNAL, is_external, same_external
from art_divqat.victims.registry import AUXILIARY_MIXTURE, VICTIMS, VictimEntry

# families that a mixture leaves out, by the pool that draws such pictures; silhouettes are cut from the photographs
MIXTURES: dict[str, tuple[str, ...] | None] = {
    "all": (),
    "without-photos": ("photographs", "silhouettes"),
    "without-noise": ("noise",),
    "without-strokes": ("strokes",),
    "without-walks": ("walks",),
    "without-glyphs": ("glyphs",),
    "without-letters": ("glyphs",),
    "without-shapes": ("shapes",),
    "without-silhouettes": ("photographs", "silhouettes"),
    "without-smooth-noise": ("smooth-noise",),
    "none": None,
}


@dataclass(frozen=True)
class VictimSpec(Spec):
    """A victim by its name in the table, with the parameters that decide how it is trained.

    >>> victim = read_victim("robust-divqat:auxiliary=mixture,epsilon=0.2")
    >>> victim.entry.quantized, str(victim.parent), victim.is_external
    (True, 'robust:epsilon=0.2', False)
    """

    @property
    def entry(self) -> VictimEntry:
        """Its entry in the table.

        :raises UserError: if it is not known here.
        """
        return VICTIMS[self.name]

    @property
    def is_external(self) -> bool:
        """Whether it is a model of somebody else's, which is read and never trained."""
        return self.name == EXTERNAL

    @property
    def parent(self) -> VictimSpec | None:
        """The full-precision victim that a quantized one starts from, or None."""
        parent = self.entry.parent
        return None if parent is None else self.of_same_radius(parent)

    def of_same_radius(self, name: str) -> VictimSpec:
        """Another kind of victim, trained with the radius of this one if both have one."""
        radius = self.as_dict.get("epsilon") if "epsilon" in VICTIMS[name].parameters else None
        return VictimSpec(name, () if radius is None else (("epsilon", radius),))


def read_victim(text: str) -> VictimSpec:
    """A victim as results name it, whose text it keeps; one that is not known here is no fault.

    >>> str(read_victim("gone:depth=3"))
    'gone:depth=3'
    """
    spec = read_spec(text)
    return VictimSpec(spec.name, spec.parameters, spec.text)


def parse_victim(text: str, *, epsilon: float, query_pool: str) -> VictimSpec:
    """Read a victim and add the radius and the auxiliary images that it will be trained with.

    :param query_pool: the attacker's pool, which the auxiliary images of DivQAT must not be.
    :raises UserError: for an unknown name or parameter, or a value out of range.

    >>> str(parse_victim("Robust", epsilon=0.2, query_pool="photos"))
    'robust:epsilon=0.2'
    """
    if is_external(text):
        external = same_external(text)
        return VictimSpec(external.name, external.parameters)
    spec = parse_spec(text)
    name = VICTIMS.canonical(spec.name)
    if name == EXTERNAL:
        raise UserError(f"{text!r} is no model: give file:PATH or an http(s) address.")
    known = VICTIMS[name].parameters
    given = spec.as_dict
    if "epsilon" in known:
        given.setdefault("epsilon", epsilon)
    if "auxiliary" in known:
        given.setdefault("auxiliary", AUXILIARY_MIXTURE)
    values = checked("victim", name, given, known)
    decided: dict[str, Value] = {}
    if "epsilon" in known:
        decided["epsilon"] = values["epsilon"]
    if "auxiliary" in known:
        decided |= _canonical_auxiliary(Spec(name, spec.parameters), query_pool)
    # the others as they were written: the text is what the store finds a victim by
    return VictimSpec(name, spec.with_parameters(decided).parameters)


def _canonical_auxiliary(spec: Spec, query_pool: str) -> dict[str, Value]:
    """`auxiliary`, and where it names images, `mixture`: what of the mixture they join.

    A defender does not hold the attacker's own images: neither may be named, and the mixture leaves its family out.
    """
    from art_divqat.data.pools import canonical_pool

    name = str(spec.as_dict.get("auxiliary", AUXILIARY_MIXTURE))
    named, _, variant = name.partition("-")
    if named != AUXILIARY_MIXTURE:
        canonical = canonical_pool(name)
        if canonical == query_pool:
            raise UserError(
                f"The auxiliary images of DivQAT ({canonical}) are the attacker's own pool: choose another of the two."
            )
        mixture = str(spec.as_dict.get("mixture", "all"))
        if mixture not in MIXTURES:
            raise unknown_name("mixture", mixture, MIXTURES)
        return {"auxiliary": canonical, "mixture": _less_pool(mixture, query_pool)}
    if "mixture" in spec.as_dict:
        raise UserError(
            f"{spec.name}:mixture= says what the images of auxiliary=NAME join, and none are named: name a data set or "
            f"pool, or write auxiliary={AUXILIARY_MIXTURE}-without-noise."
        )
    mixtures = {f"{AUXILIARY_MIXTURE}-{key}": key for key, families in MIXTURES.items() if families}
    if variant and name not in mixtures:
        raise unknown_name("auxiliary mixture", name, [AUXILIARY_MIXTURE, *mixtures])
    mixture = _less_pool(variant or "all", query_pool)
    return {"auxiliary": AUXILIARY_MIXTURE if mixture == "all" else f"{AUXILIARY_MIXTURE}-{mixture}"}


def _less_pool(mixture: str, query_pool: str) -> str:
    """The mixture without the family that the attacker's pool is made from."""
    other = f"without-{query_pool}"
    if other not in MIXTURES or mixture in ("none", other):
        return mixture
    if mixture != "all":
        raise UserError(f"The mixture {mixture} holds the attacker's own pool ({query_pool}): it must be {other}.")
    return other


def auxiliary_sources(spec: Spec) -> tuple[str | None, tuple[str, ...] | None]:
    """What DivQAT's auxiliary images are, by its canonical specification: a pool's name or None, and the families that
    the mixture leaves out, None for no mixture.

    >>> auxiliary_sources(parse_spec("divqat:auxiliary=cifar100,mixture=without-noise"))
    ('cifar100', ('noise',))
    """
    name = str(spec.as_dict["auxiliary"])
    if name.partition("-")[0] == AUXILIARY_MIXTURE:
        return None, MIXTURES[name.removeprefix(AUXILIARY_MIXTURE).removeprefix("-") or "all"]
    # without its mixture the text is of a version in which the images stood alone, and nothing of it is served
    return name, MIXTURES[str(spec.as_dict["mixture"])]


def has_mixture(spec: Spec) -> bool:
    """Whether a victim is trained on the mixture of auxiliary images, alone or beside others.

    >>> [has_mixture(parse_spec(text)) for text in ("standard", "divqat:auxiliary=mixture-without-noise")]
    [False, True]
    """
    return "auxiliary" in spec.as_dict and auxiliary_sources(spec)[1] is not None


def has_mixture_alone(spec: Spec) -> bool:
    """Whether a victim's auxiliary images are the mixture, with no image of a name or mixtures of features beside it.

    >>> texts = ("standard", "divqat:auxiliary=mixture", "divqat:auxiliary=cifar100,mixture=all")
    >>> [has_mixture_alone(parse_spec(text)) for text in texts]
    [False, True, False]
    """
    given = spec.as_dict
    return "auxiliary" in given and auxiliary_sources(spec)[0] is None and not given.get("alpha_mixtures")


def with_baselines(victims: Sequence[VictimSpec]) -> tuple[VictimSpec, ...]:
    """The victims, with the baseline of each before it unless one of its kind is asked for already.

    >>> [str(victim) for victim in with_baselines([read_victim("robust:epsilon=0.2")])]
    ['standard', 'robust:epsilon=0.2']
    """
    wanted: list[VictimSpec] = []
    names = {victim.name for victim in victims}
    for victim in victims:
        baseline = victim.entry.baseline
        if baseline is not None and baseline not in names:
            names.add(baseline)
            wanted.append(victim.of_same_radius(baseline))
        wanted.append(victim)
    return tuple(wanted)


def plugin_origins(victim: VictimSpec, model: str) -> dict[str, dict[str, str]]:
    """What the plug-ins behind a victim add to its identity in the store: where each comes from, with its version.

    :param model: the architecture.
    :return: `{"plugins": {"victim NAME": "DISTRIBUTION VERSION", …}}`, of the victim, its parent, its auxiliary images
        and the architecture; empty where none of them is plugged in.

    >>> plugin_origins(read_victim("divqat:auxiliary=mixture"), "small-cnn")
    {}
    """
    from art_divqat.data.pools import pool_origin

    found: dict[str, str | None] = {f"model {model}": MODELS.origin(model)}
    ancestor: VictimSpec | None = victim
    while ancestor is not None:
        found[f"victim {ancestor.name}"] = VICTIMS.origin(ancestor.name)
        auxiliary = ancestor.as_dict.get("auxiliary")
        if isinstance(auxiliary, str):
            found[f"pool {auxiliary}"] = pool_origin(auxiliary)
        ancestor = ancestor.parent
    origins = {name: origin for name, origin in sorted(found.items()) if origin is not None}
    return {"plugins": origins} if origins else {}
