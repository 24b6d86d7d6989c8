"""Registry of defences, in chains: `parse_defence("heuristic:beta=0.5+rounding:decimals=2")`.

Importing this module imports neither torch nor ART; building does.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from art_divqat._rng import derive_seed
from art_divqat.defences import parameters as declared
from art_divqat.defences._clone import clone_classifier
from art_divqat.errors import UserError
from art_divqat.models.registry import check_model
from art_divqat.parameters import Parameter, Parameters, checked, integer
from art_divqat.registry import Registry, folded, load_target
from art_divqat.specs import Spec, parse_spec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from art_divqat._types import Shape
    from art_divqat.estimators import TrainingRecipe

NO_DEFENCE = "none"
# A plus that starts a name; the one in 1e+3 does not.
_LINK = re.compile(r"\+(?=\s*[A-Za-z])")


@dataclass(frozen=True)
class DefenceEntry:
    """One defence: a one-line description, its code, its parameters, and what it needs.

    :param build: a class, or `package.module:Class`. Called with the parameters by name, and with `seed` if `seeded`,
        it gives an ART postprocessor on probabilities; where `needs` says so, with a network before them, an
        :class:`~art_divqat.defences.gradient.InputDefence`.
    :param needs: `nothing` (a postprocessor), or the network that it wraps: `untrained`, trained on the victim's
        `answers`, or trained to miss the `labels`. `model` and `epochs` among its parameters are then that network's.
    :param seeded: whether it draws.
    :param budgets: those of its parameters that are not `build`'s: `fit_to_budget` gets one of them, with the victim's
        answers.
    :param fitted: the parameter that a budget decides.
    :param invertible: whether the clean answer can be solved for, given its parameters.
    :param misinforms: whether it answers some images from a network that was trained to be wrong.
    """

    summary: str
    build: str | Callable[..., Any]
    parameters: Parameters = field(default_factory=dict)
    needs: Literal["nothing", "untrained", "answers", "labels"] = "nothing"
    seeded: bool = False
    budgets: tuple[str, ...] = ()
    fitted: str = ""
    invertible: bool = False
    misinforms: bool = False


# the architecture and the epochs of the network that a defence wraps; by default the victim's, and the recipe's
_NETWORK: Parameters = {"model": Parameter(None, lambda owner, name, value: check_model(str(value)))}
_TRAINED: Parameters = {**_NETWORK, "epochs": integer(None, 1)}
_POSTPROCESSORS = "art_divqat.defences.postprocessor"
_GRADIENT = "art_divqat.defences.gradient"

DEFENCES = Registry(
    "defence",
    "defences",
    DefenceEntry,
    {
        "heuristic": DefenceEntry(
            "reverse-sigmoid noise behind a gate on the top probability (Khaled et al., 2023)",
            f"{_POSTPROCESSORS}:HeuristicPerturbation",
            {**declared.HEURISTIC, **declared.HEURISTIC_BUDGETS},
            budgets=tuple(declared.HEURISTIC_BUDGETS),
            fitted="beta",
            invertible=True,
        ),
        "reverse-sigmoid": DefenceEntry(
            "reverse-sigmoid noise on every answer (Lee et al., 2019)",
            f"{_POSTPROCESSORS}:ReverseSigmoid",
            declared.REVERSE_SIGMOID,
        ),
        "random": DefenceEntry(
            "half of epsilon of the mass to a random other class",
            f"{_POSTPROCESSORS}:RandomPerturbation",
            declared.RANDOM,
            seeded=True,
        ),
        "gaussian-noise": DefenceEntry(
            "Gaussian noise, cut and renormalised",
            f"{_POSTPROCESSORS}:GaussianNoise",
            declared.GAUSSIAN_NOISE,
            seeded=True,
        ),
        "top-k": DefenceEntry("only the k largest probabilities", f"{_POSTPROCESSORS}:TopK", declared.TOP_K),
        "rounding": DefenceEntry("answers on a grid of 10^-decimals", f"{_POSTPROCESSORS}:Rounding", declared.ROUNDING),
        "high-confidence": DefenceEntry(
            "only probabilities of at least cutoff", f"{_POSTPROCESSORS}:HighConfidence", declared.HIGH_CONFIDENCE
        ),
        "labels": DefenceEntry("the label and nothing else", f"{_POSTPROCESSORS}:ClassLabels"),
        "modelguard": DefenceEntry(
            "the least likely answer within an L1 budget, label kept (Tang et al., 2024)",
            f"{_POSTPROCESSORS}:ModelGuard",
            declared.MODELGUARD,
        ),
        "adaptive-misinformation": DefenceEntry(
            "unsure answers from a network trained to be wrong (Kariyappa and Qureshi, 2020)",
            f"{_GRADIENT}:AdaptiveMisinformation",
            {**declared.ADAPTIVE_MISINFORMATION, **_TRAINED},
            needs="labels",
            misinforms=True,
        ),
        "mad": DefenceEntry(
            "the answer whose gradient points away from the clean one (Orekondy et al., 2020)",
            f"{_GRADIENT}:MAD",
            {**declared.MAD, **_NETWORK},
            needs="untrained",
        ),
        "grad2": DefenceEntry(
            "the answer that redirects the thief's gradient (Mazeika et al., 2022)",
            f"{_GRADIENT}:GRAD2",
            {**declared.GRAD2, **_TRAINED},
            needs="answers",
        ),
    },
    also=(NO_DEFENCE,),
)


@dataclass(frozen=True)
class DefenceSpec:
    """A chain of defences, applied from left to right; `str` gives its one canonical form.

    :param text: what `str` gives instead, for one that was read as somebody else wrote it.

    >>> str(parse_defence("Rounding:decimals=2 + heuristic:gamma=0.20,beta=1"))
    'rounding:decimals=2+heuristic:beta=1.0,gamma=0.2'
    """

    links: tuple[Spec, ...] = ()
    text: str = ""

    @property
    def entries(self) -> tuple[DefenceEntry, ...]:
        """The entry of each link.

        :raises UserError: for one that is not known here.
        """
        return tuple(DEFENCES[link.name] for link in self.links)

    @property
    def rebuildable(self) -> bool:
        """Whether an attacker who knows the chain can run it offline: no link needs the query or a network."""
        return all(entry.needs == "nothing" for entry in self.entries)

    @property
    def is_postprocessor(self) -> bool:
        """True where no link needs the query, training images or held-out answers."""
        return self.rebuildable and not any(_budget(link) for link in self.links)

    def __str__(self) -> str:
        return self.text or "+".join(map(str, self.links)) or NO_DEFENCE


@dataclass(frozen=True)
class DefenceContext:
    """The context of defences that are not mere postprocessors: training images, held-out images and networks.

    :param x: the victim's training images, (N, C, H, W), float32 in [0, 1].
    :param y: their class ids, (N,).
    :param x_held_out: images the victim was not trained on, to fit budgets on; `x` where there are none.
    :param recipe: how networks are trained; ten epochs by default. A link's `epochs` overrides its number of epochs.
    :param model: architecture of these networks; a link's `model` overrides it.
    :param device: `cpu` or `cuda:i`.
    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    x_held_out: npt.NDArray[np.float32] | None = None
    recipe: TrainingRecipe | None = None
    model: str = "small-cnn"
    device: str = "cpu"


def list_defences() -> dict[str, str]:
    """Every name that :func:`parse_defence` knows, with one line on it.

    >>> list_defences()["none"]
    'no defence'
    """
    return {NO_DEFENCE: "no defence", **dict(sorted(DEFENCES.summaries().items()))}


def parse_defence(text: str) -> DefenceSpec:
    """Read `NAME[:param=value,…]`, chained with `+`; names, parameters and their ranges are checked.

    :raises UserError: for an unknown name or parameter, with the near ones; for a value of the wrong type or out of
        range; for `none` in a chain; and for two values of β's kind at once.

    >>> parse_defence("heuristic:beta=0.5").links[0].as_dict
    {'beta': 0.5}
    >>> parse_defence("heuristik")
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: Unknown defence 'heuristik': did you mean heuristic?
    """
    if not isinstance(text, str):
        raise UserError(f"A defence is written as text, such as 'heuristic:beta=0.5', but got {type(text).__name__}.")
    links = [_parse_link(part) for part in _LINK.split(text)]
    if any(folded(link.name) == NO_DEFENCE for link in links):
        if len(links) > 1 or links[0].parameters:
            raise UserError(f"'none' stands alone and takes no parameters, but got {text!r}.")
        return DefenceSpec()
    return DefenceSpec(tuple(links))


def read_defence(text: str) -> DefenceSpec:
    """A chain as named in results, with its text kept; an unknown chain becomes one link with that name.

    >>> str(read_defence("gone:depth=3+rounding")), read_defence("rounding:decimals=2").links[0].as_dict
    ('gone:depth=3+rounding', {'decimals': 2})
    """
    try:
        defence = parse_defence(text)
    except UserError:
        return DefenceSpec((Spec(text),))
    return defence if str(defence) == text else DefenceSpec(defence.links, text)


def check_defence(spec: DefenceSpec, input_shape: Shape | None = None) -> None:
    """Check every parameter of a chain, and with a shape that its networks take such images; nothing is built.

    :param input_shape: (channels, height, width) of the victim's images.
    :raises UserError: for a value out of range, an unknown model, or one that images of this shape are too small for.

    >>> check_defence(DefenceSpec((Spec("top-k", (("k", 0),)),)))
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: The 'k' parameter of defence 'top-k' must be an int of at least 1. Got 0 instead.
    """
    for link in spec.links:
        _checked_link(link)
        if DEFENCES[link.name].needs != "nothing" and "model" in link.as_dict:
            check_model(str(link.as_dict["model"]), input_shape)


def build_postprocessors(spec: DefenceSpec, seed: int) -> list[Any]:
    """The chain as ART postprocessors on probabilities (put `Softmax()` before them where the victim gives logits).

    :param seed: seeds the links that draw, each with a stream of its own.
    :raises UserError: for a value out of range, and for links that need more than the answer.
    """
    for link in spec.links:
        if not DefenceSpec((link,)).is_postprocessor:
            raise UserError(
                f"{str(link)!r} needs more than the answer, so it is no postprocessor: "
                f"use apply_defence with a DefenceContext."
            )
    return [_postprocessor(link, derive_seed(seed, index)) for index, link in enumerate(spec.links)]


def apply_defence(classifier: Any, spec: DefenceSpec, *, seed: int, context: DefenceContext | None = None) -> Any:
    """An ART classifier that serves like `classifier`, which must answer with probabilities, through the chain.

    The classifier itself is not changed; the network is shared, not copied.

    :param seed: decides every draw and every network of the chain.
    :param context: needed by `mad`, `grad2`, `adaptive-misinformation`, and a heuristic that is fitted to a budget.
    :param spec: as :func:`parse_defence` gives it, which has checked it.
    :raises UserError: for a value out of range, or no context where one is needed.
    """
    for index, link in enumerate(spec.links):
        link_seed = derive_seed(seed, index)
        if DEFENCES[link.name].needs != "nothing":
            defence = _input_defence(link, classifier, link_seed, _needed(context, link))
            classifier = defence.defend(classifier)
            continue
        post = _postprocessor(link, link_seed)
        budget = _budget(link)
        if budget:
            given = _needed(context, link)
            post.fit_to_budget(classifier.predict(given.x if given.x_held_out is None else given.x_held_out), **budget)
        classifier = _with_postprocessor(classifier, post)
    return classifier


def _with_postprocessor(classifier: Any, post: Any) -> Any:
    if getattr(classifier, "_defence_stages", ()):
        from art_divqat.defences.gradient._base import with_stages

        return with_stages(classifier, [lambda x, answers: post(answers)])
    return clone_classifier(classifier, postprocessing_defences=[*(classifier.postprocessing_defences or []), post])


def _input_defence(link: Spec, classifier: Any, seed: int, context: DefenceContext) -> Any:
    import dataclasses

    from art_divqat.defences import gradient
    from art_divqat.estimators import TrainingRecipe

    given = link.as_dict
    model, recipe = str(given.get("model", context.model)), context.recipe or TrainingRecipe(epochs=10)
    if "epochs" in given:
        recipe = dataclasses.replace(recipe, epochs=int(given["epochs"]))
    nb_classes = classifier.nb_classes
    needs = DEFENCES[link.name].needs
    training: dict[str, Any] = {"model": model, "recipe": recipe, "seed": seed, "device": context.device}
    if needs == "labels":
        network = gradient.train_misinformation(context.x, context.y, nb_classes, **training)
    elif needs == "answers":
        network = gradient.train_surrogate(context.x, classifier.predict(context.x), **training)
    else:
        channels, height, width = context.x.shape[1:]
        network = gradient.untrained_surrogate((channels, height, width), nb_classes, model=model, seed=seed)
        network.to(context.device)
    return _build(link, network)


def _needed(context: DefenceContext | None, link: Spec) -> DefenceContext:
    if context is None:
        raise UserError(f"{str(link)!r} needs the victim's training images but got no context: pass a DefenceContext.")
    return context


def _postprocessor(link: Spec, seed: int) -> Any:
    return _build(link, seed=seed) if DEFENCES[link.name].seeded else _build(link)


def _build(link: Spec, *network: Any, **arguments: Any) -> Any:
    entry = DEFENCES[link.name]
    apart = {*entry.budgets, *(_TRAINED if entry.needs != "nothing" else ())}
    own = {key: value for key, value in link.parameters if key not in apart}
    return load_target(entry.build)(*network, **own, **arguments)


def _budget(link: Spec) -> dict[str, Any]:
    budgets = DEFENCES[link.name].budgets
    return {key: value for key, value in link.parameters if key in budgets}


def _parse_link(text: str) -> Spec:
    raw = parse_spec(text)
    return raw if folded(raw.name) == NO_DEFENCE else _checked_link(raw)


def _checked_link(link: Spec) -> Spec:
    name = DEFENCES.canonical(link.name)
    entry = DEFENCES[name]
    values = checked("defence", name, link.as_dict, entry.parameters)
    rivals = (entry.fitted, *entry.budgets)
    if len(values.keys() & set(rivals)) > 1:
        raise UserError(f"{str(link)!r} gives more than one of {', '.join(rivals[:-1])} and {rivals[-1]}: choose one.")
    return Spec(name, tuple(sorted(values.items())))
