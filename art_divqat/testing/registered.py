"""`check("my-attack")`: the checks that fit a name of any registry, built in or plugged in."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from art_divqat.attacks.extraction.registry import ATTACKS, attack_spec, run_attack
from art_divqat.attacks.recovery.registry import RECOVERIES
from art_divqat.data.pools import POOLS
from art_divqat.data.sources import DATASETS
from art_divqat.defences.registry import DEFENCES, DefenceContext, apply_defence, build_postprocessors, parse_defence
from art_divqat.errors import UserError, unknown_name
from art_divqat.models.registry import MODELS
from art_divqat.registry import Registry
from art_divqat.specs import Spec, parse_spec
from art_divqat.testing._common import require, small_digits, undisturbed
from art_divqat.testing.architecture import check_architecture
from art_divqat.testing.images import check_dataset, check_pool
from art_divqat.testing.recovery import check_recovery
from art_divqat.testing.victim import check_victim
from art_divqat.victims.registry import VICTIMS

if TYPE_CHECKING:
    from art_divqat.attacks.extraction import AttackContext, AttackOutcome
    from art_divqat.defences.registry import DefenceSpec
    from art_divqat.estimators import RecipeClassifier

_BUDGET = 100


def check(text: str, kind: str | None = None) -> None:
    """Run the checks of its kind on a registered name; parameters may follow it as on the command line.

    Everything is trained and asked on a few images of scikit-learn's digits, in seconds to a minute.

    :param text: `NAME` or `NAME:parameter=value,…`.
    :param kind: a group of entry points: attacks, recoveries, defences, victims, models, datasets or pools; needed
        where several have the name.
    :raises AssertionError: naming what was broken.
    :raises UserError: for an unknown kind, name or parameter, and for a name that several kinds have.

    >>> check("noise")
    >>> check("labels")
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: The name 'labels' is in recoveries and defences: say which, as in \
check('labels', 'recoveries').
    """
    spec = parse_spec(text)
    known: Mapping[str, tuple[Registry[Any], Callable[[str, Spec], None]]] = {
        "attacks": (ATTACKS, _attack),
        "recoveries": (RECOVERIES, lambda name, spec: check_recovery(RECOVERIES[name], spec.as_dict)),
        "defences": (DEFENCES, _defence),
        "victims": (VICTIMS, lambda name, spec: check_victim(VICTIMS[name], str(Spec(name, spec.parameters)))),
        "models": (MODELS, lambda name, spec: check_architecture(MODELS[_bare(name, spec)])),
        "datasets": (DATASETS, lambda name, spec: check_dataset(DATASETS[_bare(name, spec)])),
        "pools": (POOLS, lambda name, spec: check_pool(POOLS[_bare(name, spec)])),
    }
    if kind is not None and kind not in known:
        raise unknown_name("kind of name", kind, known)
    having = [each for each, (registry, _) in known.items() if kind in (None, each) and spec.name in registry]
    if len(having) > 1:
        raise UserError(
            f"The name {spec.name!r} is in {' and '.join(having)}: say which, as in "
            f"check({spec.name!r}, {having[0]!r})."
        )
    if not having:
        names = [name for each, (registry, _) in known.items() if kind in (None, each) for name in registry]
        raise unknown_name("name" if kind is None else known[kind][0].kind, spec.name, names)
    registry, run = known[having[0]]
    run(registry.canonical(spec.name), spec)


def _bare(name: str, spec: Spec) -> str:
    if spec.parameters:
        raise UserError(f"{name!r} takes no parameters. Got {str(spec)!r}.")
    return name


def _attack(name: str, spec: Spec) -> None:
    from art_divqat.testing.attack import check_attack

    attack = attack_spec(name, spec.as_dict)
    budget = max(_BUDGET, attack.least_budget) if attack.asks_victim else 0
    refusals = {model: attack.entry.refusal(model, attack.own) for model in ("small-cnn", "mlp2")}
    model = next((model for model, refusal in refusals.items() if refusal is None), "small-cnn")
    needed = attack.pool_needed(budget)
    refusal = ""

    def run(context: AttackContext) -> AttackOutcome:
        nonlocal refusal
        try:
            return run_attack(name, context)
        except UserError as error:
            refusal = str(error)
            raise

    def context(budget: int, seed: int) -> AttackContext:
        return _attack_context(model, budget, seed, spec.as_dict, needed)

    require(check_attack(run, context, budget), f"The attack {name!r}", f"refused a plain context: {refusal}")


def _attack_context(model: str, budget: int, seed: int, parameters: Mapping[str, Any], needed: int) -> AttackContext:
    from art_divqat.attacks.extraction import AttackContext
    from art_divqat.attacks.extraction.fee import hidden_units
    from art_divqat.estimators import MeteredClassifier, QueryLedger, RecipeClassifier, TrainingRecipe
    from art_divqat.models import build_model

    victim, dataset = _served(model), small_digits()
    shape, classes = dataset.input_shape, dataset.nb_classes
    rows = np.arange(max(300, needed)) % len(dataset.x_pool)

    def thief() -> RecipeClassifier:
        return RecipeClassifier(
            build_model("lenet5", shape, classes, seed=seed), shape, classes, TrainingRecipe(epochs=1)
        )

    return AttackContext(
        victim=MeteredClassifier(victim, QueryLedger(budget)),
        pool=dataset.x_pool[rows],
        build_thief=thief,
        budget=budget,
        answers="soft",
        seed=seed,
        pool_labels=dataset.y_pool[rows],
        parameters=parameters,
        known_defence=build_postprocessors(parse_defence("rounding:decimals=2"), 0)[0],
        known_hidden_units=hidden_units(victim),
        own_images=dataset.x_validation,
        own_labels=dataset.y_validation,
    )


@functools.cache
def _served(model: str) -> RecipeClassifier:
    """A network trained for a moment, which answers with probabilities."""
    from art_divqat.defences.postprocessor import Softmax
    from art_divqat.estimators import RecipeClassifier, TrainingRecipe
    from art_divqat.models import build_model

    dataset = small_digits()
    shape, classes = dataset.input_shape, dataset.nb_classes
    network = build_model(model, shape, classes, seed=0)
    recipe = TrainingRecipe(epochs=3, learning_rate=3e-3)
    victim = RecipeClassifier(network, shape, classes, recipe, postprocessing_defences=[Softmax()])
    victim.fit(dataset.x_train, dataset.y_train)
    return victim


def _defence(name: str, spec: Spec) -> None:
    from art_divqat.testing.postprocessors import check_postprocessor

    chain = parse_defence(str(Spec(name, spec.parameters)))
    if chain.is_postprocessor:
        check_postprocessor(build_postprocessors(chain, 0)[0])
    else:
        _served_defence(chain)


def _served_defence(chain: DefenceSpec) -> None:
    """A defence that needs more than the answer: what it serves, with one seed twice."""
    from art_divqat.estimators import TrainingRecipe

    subject, dataset = f"The defence {str(chain)!r}", small_digits()
    x, recipe = dataset.x_test[:32], TrainingRecipe(epochs=1)
    victim = _served("small-cnn")
    context = DefenceContext(dataset.x_train, dataset.y_train, dataset.x_validation, recipe)
    clean, served = victim.predict(x), []
    for _ in range(2):
        with undisturbed(subject):
            rows = apply_defence(victim, chain, seed=0, context=context).predict(x)
        require(rows.shape == clean.shape, subject, f"serves rows of shape {rows.shape}: expected {clean.shape}")
        off = float(np.abs(rows.sum(axis=1) - 1).max())
        require(bool(np.isfinite(rows).all()) and rows.min() >= 0 and off < 1e-4, subject, "serves no probabilities")
        served.append(rows)
    require(np.allclose(served[0], served[1], atol=1e-5), subject, "serves other answers for the same seed")
    require(np.array_equal(victim.predict(x), clean), subject, "changed the victim")
