"""Serving: answer with the probabilities of a victim, through its defences."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from art.estimators.classification import BlackBoxClassifierNeuralNetwork

from art_divqat._rng import derive_seed
from art_divqat._types import Rows
from art_divqat.defences.postprocessor import Softmax
from art_divqat.defences.registry import DefenceContext, DefenceSpec, apply_defence, build_postprocessors
from art_divqat.victims.victim import Victim


def answering(victim: Victim) -> Any:
    """An ART black box that answers with the probabilities of a victim, whose classifier is not changed."""
    classifier, logits = victim.classifier, victim.capabilities.outputs == "logits"
    return BlackBoxClassifierNeuralNetwork(
        predict_fn=classifier.predict,
        input_shape=classifier.input_shape,
        nb_classes=classifier.nb_classes,
        clip_values=classifier.clip_values,
        postprocessing_defences=[Softmax()] if logits else [],
    )


def serve(victim: Victim, defence: DefenceSpec, *, seed: int, context: DefenceContext) -> Any:
    """An ART classifier that answers with probabilities through a chain of defences, which may be empty.

    White-box attacks on the victim itself go on seeing its logits.

    :param seed: decides every draw and every network of the defences.
    :param context: what defences that need more than the answer may use.
    """
    return apply_defence(answering(victim), defence, seed=derive_seed("defence", seed), context=context)


def known_to_the_attacker(defence: DefenceSpec, served: Any, seed: int) -> Callable[[Rows], Rows] | None:
    """The defence as somebody who knows its name and parameters can rebuild it, with random draws of their own.

    None if there is none, or if it needs more than the answer.
    """
    if not defence.links or not defence.rebuildable:
        return None
    if defence.is_postprocessor:
        steps = build_postprocessors(defence, derive_seed("the attacker's copy", seed))
    else:
        # fitted to a budget: what it was fitted to is public as well
        steps = copy.deepcopy([step for step in served.postprocessing_defences if not isinstance(step, Softmax)])
    if len(steps) == 1:
        only: Callable[[Rows], Rows] = steps[0]
        return only

    def chain(rows: Rows) -> Rows:
        for step in steps:
            rows = step(rows)
        return rows

    return chain
