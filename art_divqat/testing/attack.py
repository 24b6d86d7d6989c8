"""Conformance check of extraction attacks: test your own against the contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from art_divqat.errors import UserError
from art_divqat.testing._common import random_states, require, same_states

if TYPE_CHECKING:
    from art_divqat.attacks.extraction import AttackContext, AttackOutcome

RunAttack = Callable[["AttackContext"], "AttackOutcome"]


def check_attack(run: RunAttack, build_context: Callable[[int, int], AttackContext], budget: int = 200) -> bool:
    """Run an attack twice on small contexts and check what every attack must keep; True if it attacked.

    The budget is never exceeded, on a budget of 0 nothing is asked, and the ledger agrees with what the victim's log
    has seen; pool and labels are unchanged; the same seed gives the same thief; the global random states of Python,
    numpy and torch are left alone; the thief is an ART classifier of the victim's classes that gives finite answers,
    and neither shares memory with the victim's weights nor holds a copy of one of them. An attack may refuse its
    context with one `UserError` sentence, and must then have asked nothing.

    :param run: `lambda context: run_attack("knockoff", context)`, or anything with that contract.
    :param build_context: makes a fresh context, its meter included, from (budget, seed).
    :param budget: queries of each run.
    :return: False if the attack refused the context.
    :raises AssertionError: naming what was broken.

    >>> from art.estimators.classification import BlackBoxClassifier
    >>> from art_divqat.attacks.extraction import AttackContext, run_attack
    >>> from art_divqat.estimators import MeteredClassifier, QueryLedger, RecipeClassifier, TrainingRecipe
    >>> from art_divqat.models import build_model
    >>> shape, recipe = (1, 8, 8), TrainingRecipe(epochs=1)
    >>> victim = BlackBoxClassifier(lambda x: np.full((len(x), 3), 1 / 3, np.float32), shape, 3)
    >>> def context(budget, seed):
    ...     pool = np.random.default_rng(seed).random((50, *shape), np.float32)
    ...     thief = lambda: RecipeClassifier(build_model("lenet5", shape, 3, seed=seed), shape, 3, recipe)
    ...     return AttackContext(MeteredClassifier(victim, QueryLedger(budget)), pool, thief, budget, "soft", seed)
    >>> check_attack(lambda case: run_attack("knockoff", case), context, budget=20)
    True
    """
    seen: list[int] = []
    outcomes = []
    for _ in range(2):
        context = build_context(budget, 0)
        seen.clear()
        inner = context.victim._log

        def log(images: Any, answers: Any, inner: Any = inner) -> None:
            seen.append(len(images))
            if inner is not None:
                inner(images, answers)

        context.victim._log = log
        pool = None if context.pool is None else np.array(context.pool)
        labels = None if context.pool_labels is None else np.array(context.pool_labels)
        states = random_states()
        try:
            outcome = run(context)
        except UserError as error:
            text = str(error)
            _require(context.victim.ledger.requested == 0, f"refused its context after asking: {text}")
            _require("\n" not in text and text.endswith("."), f"must refuse with one sentence, not {text!r}")
            return False
        _require(same_states(states, random_states()), "disturbed the global random state")
        _require(pool is None or np.array_equal(pool, context.pool), "changed the pool")
        _require(labels is None or np.array_equal(labels, np.array(context.pool_labels)), "changed the pool's labels")
        _check_ledger(context, sum(seen), budget)
        _check_thief(outcome.thief, context)
        outcomes.append(outcome.thief.predict(_probe(context)))
    _require(np.allclose(outcomes[0], outcomes[1], atol=1e-5), "gave two thieves from one seed")
    return True


def _require(holds: bool, broken: str) -> None:
    require(holds, "The attack", broken)


def _probe(context: AttackContext) -> Any:
    return np.random.default_rng(0).random((8, *context.victim.input_shape), np.float32)


def _check_ledger(context: AttackContext, seen: int, budget: int) -> None:
    ledger = context.victim.ledger
    _require(min(budget, 1) <= ledger.charged <= budget, f"spent {ledger.charged} of a budget of {budget}")
    _require(seen <= budget, f"put {seen} images to the victim on a budget of {budget}")
    _require(ledger.repeats == "free" or seen == ledger.charged, f"paid {ledger.charged} queries for {seen} answers")


def _check_thief(thief: Any, context: AttackContext) -> None:
    from art.estimators.classification.classifier import ClassifierMixin

    _require(isinstance(thief, ClassifierMixin), f"returned a {type(thief).__name__}, not an ART classifier")
    _require(thief.nb_classes == context.victim.nb_classes, f"returned a thief of {thief.nb_classes} classes")
    answers = thief.predict(_probe(context))
    _require(answers.shape == (8, thief.nb_classes), f"returned a thief that answers with shape {answers.shape}")
    _require(bool(np.isfinite(answers).all()), "returned a thief whose answers are not finite")
    ours, theirs = _weights(thief), _weights(context.victim._victim)
    shared = {_address(weight) for weight in ours} & {_address(weight) for weight in theirs}
    _require(not shared, "returned a thief that shares weights with the victim")
    for weight in ours:
        # a layer of ones or zeros, as many start, is nobody's secret
        copied = weight.unique().numel() > 1 and any(_equal(weight, other) for other in theirs)
        _require(not copied, "returned a thief that holds a copy of the victim's weights")


def _weights(classifier: Any) -> list[Any]:
    """A network's parameters and buffers; none for a victim without a network, or of a converted int8 one."""
    network: Any = getattr(classifier, "model", None)
    if not hasattr(network, "parameters"):
        return []
    tensors = [*network.parameters(), *network.buffers()]
    return [tensor.detach() for tensor in tensors if tensor.numel() > 0 and not tensor.is_quantized]


def _address(weight: Any) -> int:
    return int(weight.untyped_storage().data_ptr())


def _equal(weight: Any, other: Any) -> bool:
    import torch

    return weight.shape == other.shape and bool(torch.equal(weight.cpu(), other.cpu()))
