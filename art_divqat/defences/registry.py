"""`parse_defence("heuristic:beta=0.5+rounding:decimals=2")`: defences by name, in chains.

Importing this module imports neither torch nor ART; building does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from art_divqat._rng import derive_seed
from art_divqat._validation import check_int
from art_divqat.defences._clone import clone_classifier
from art_divqat.errors import UserError, unknown_name
from art_divqat.specs import Spec, Value, check_parameters, parse_spec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from art_divqat.estimators import TrainingRecipe

NO_DEFENCE = "none"
# A plus that starts a name; the one in 1e+3 does not.
_LINK = re.compile(r"\+(?=\s*[A-Za-z])")


@dataclass(frozen=True)
class DefenceEntry:
    """One defence: a line on it, its class, its parameters with the type each has, and what it must be given.

    :param needs: `nothing` (a postprocessor), `untrained`, `answers` or `labels`: the network it wraps.
    """

    summary: str
    class_name: str
    parameters: Mapping[str, type]
    needs: str = "nothing"
    seeded: bool = False


_NETWORK: dict[str, type] = {"model": str}
_TRAINED: dict[str, type] = {**_NETWORK, "epochs": int}
# Of the heuristic only: budgets to which β is fitted on the victim's answers.
_BUDGETS = ("l1", "max_label_flips")

DEFENCES: dict[str, DefenceEntry] = {
    "heuristic": DefenceEntry(
        "reverse-sigmoid noise behind a gate on the top probability (Khaled et al., 2023)",
        "HeuristicPerturbation",
        {
            "beta": float,
            "gamma": float,
            "variant": str,
            "preserve_label": bool,
            "nu": float,
            "l1": float,
            "max_label_flips": float,
        },
    ),
    "reverse-sigmoid": DefenceEntry(
        "reverse-sigmoid noise on every answer (Lee et al., 2019)", "ReverseSigmoid", {"beta": float, "gamma": float}
    ),
    "random": DefenceEntry(
        "half of epsilon of the mass to a random other class", "RandomPerturbation", {"epsilon": float}, seeded=True
    ),
    "gaussian-noise": DefenceEntry(
        "Gaussian noise, cut and renormalised", "GaussianNoise", {"scale": float}, seeded=True
    ),
    "top-k": DefenceEntry("only the k largest probabilities", "TopK", {"k": int}),
    "rounding": DefenceEntry("answers on a grid of 10^-decimals", "Rounding", {"decimals": int}),
    "high-confidence": DefenceEntry("only probabilities of at least cutoff", "HighConfidence", {"cutoff": float}),
    "labels": DefenceEntry("the label and nothing else", "ClassLabels", {}),
    "modelguard": DefenceEntry(
        "the least likely answer within an L1 budget, label kept (Tang et al., 2024)", "ModelGuard", {"epsilon": float}
    ),
    "adaptive-misinformation": DefenceEntry(
        "unsure answers from a network trained to be wrong (Kariyappa and Qureshi, 2020)",
        "AdaptiveMisinformation",
        {"tau": float, "nu": float, **_TRAINED},
        needs="labels",
    ),
    "mad": DefenceEntry(
        "the answer whose gradient points away from the clean one (Orekondy et al., 2020)",
        "MAD",
        {"epsilon": float, "preserve_label": bool, **_NETWORK},
        needs="untrained",
    ),
    "grad2": DefenceEntry(
        "the answer that redirects the thief's gradient (Mazeika et al., 2022)",
        "GRAD2",
        {"epsilon": float, "target": str, **_TRAINED},
        needs="answers",
    ),
}


@dataclass(frozen=True)
class DefenceSpec:
    """A chain of defences, applied from left to right; `str` gives its one canonical form.

    >>> str(parse_defence("Rounding:decimals=2 + heuristic:gamma=0.20,beta=1"))
    'rounding:decimals=2+heuristic:beta=1.0,gamma=0.2'
    """

    links: tuple[Spec, ...] = ()

    @property
    def is_postprocessor(self) -> bool:
        """True where no link needs the query, training images or held-out answers."""
        return all(_entry(link.name).needs == "nothing" and not _budget(link) for link in self.links)

    def __str__(self) -> str:
        return "+".join(map(str, self.links)) or NO_DEFENCE


@dataclass(frozen=True)
class DefenceContext:
    """What defences that are more than postprocessors are given.

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
    return {NO_DEFENCE: "no defence", **{name: entry.summary for name, entry in sorted(DEFENCES.items())}}


def parse_defence(text: str) -> DefenceSpec:
    """Read `NAME[:param=value,…]`, chained with `+`; names, parameters and their types are checked, ranges are not.

    :raises UserError: for an unknown name or parameter, with the near ones; for a value of the wrong type; for `none`
        in a chain; and for two values of β's kind at once.

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
    if any(link.name == NO_DEFENCE for link in links):
        if len(links) > 1 or links[0].parameters:
            raise UserError(f"'none' stands alone and takes no parameters, but got {text!r}.")
        return DefenceSpec()
    return DefenceSpec(tuple(links))


def check_defence(spec: DefenceSpec) -> None:
    """Check the range of every parameter, without training anything.

    :raises UserError: for a value out of range, or an unknown model.
    """
    from torch import nn

    from art_divqat.models.registry import check_model

    for link in spec.links:
        if _entry(link.name).needs == "nothing":
            post = _postprocessor(link, 0)
            if budget := _budget(link):
                post.check_budget(**budget)
        else:
            _class_of(link)(nn.Identity(), **_own_parameters(link))
            check_model(str(link.as_dict.get("model", "small-cnn")))
            check_int(link.name, "epochs", link.as_dict.get("epochs", 1), 1)


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
    :raises UserError: for a value out of range, or no context where one is needed.
    """
    check_defence(spec)
    for index, link in enumerate(spec.links):
        link_seed = derive_seed(seed, index)
        if _entry(link.name).needs != "nothing":
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
    needs = _entry(link.name).needs
    training: dict[str, Any] = {"model": model, "recipe": recipe, "seed": seed, "device": context.device}
    if needs == "labels":
        network = gradient.train_misinformation(context.x, context.y, nb_classes, **training)
    elif needs == "answers":
        network = gradient.train_surrogate(context.x, classifier.predict(context.x), **training)
    else:
        channels, height, width = context.x.shape[1:]
        network = gradient.untrained_surrogate((channels, height, width), nb_classes, model=model, seed=seed)
        network.to(context.device)
    return _class_of(link)(network, **_own_parameters(link))


def _needed(context: DefenceContext | None, link: Spec) -> DefenceContext:
    if context is None:
        raise UserError(f"{str(link)!r} needs the victim's training images but got no context: pass a DefenceContext.")
    return context


def _postprocessor(link: Spec, seed: int) -> Any:
    arguments = _own_parameters(link)
    if _entry(link.name).seeded:
        arguments["seed"] = seed
    return _class_of(link)(**arguments)


def _class_of(link: Spec) -> Any:
    from art_divqat.defences import gradient, postprocessor

    entry = _entry(link.name)
    return getattr(postprocessor if entry.needs == "nothing" else gradient, entry.class_name)


def _own_parameters(link: Spec) -> dict[str, Any]:
    return {key: value for key, value in link.parameters if key not in (*_BUDGETS, *_TRAINED)}


def _budget(link: Spec) -> dict[str, Any]:
    return {key: value for key, value in link.parameters if key in _BUDGETS}


def _entry(name: str) -> DefenceEntry:
    if name not in DEFENCES:
        raise unknown_name("defence", name, [*DEFENCES, NO_DEFENCE])
    return DEFENCES[name]


def _parse_link(text: str) -> Spec:
    raw = parse_spec(text)
    name = raw.name.lower().replace("_", "-")
    if name == NO_DEFENCE:
        return Spec(name, raw.parameters)
    entry = _entry(name)
    check_parameters(Spec(name, raw.parameters), entry.parameters)
    link = Spec(name, tuple((key, _typed(name, key, value, entry.parameters[key])) for key, value in raw.parameters))
    if len({"beta", *_BUDGETS} & link.as_dict.keys()) > 1:
        raise UserError(f"{text.strip()!r} gives more than one of beta, l1 and max_label_flips: choose one.")
    return link


def _typed(name: str, key: str, value: Value, kind: type) -> Value:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        expected = {float: "a number", int: "an integer", bool: "true or false", str: "a word"}[kind]
        raise UserError(f"Parameter {key!r} of {name!r} must be {expected}. Got {value!r} instead.")
    return value
