"""Serving: answer with the probabilities of a victim, through its defences."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from art.estimators.classification import BlackBoxClassifierNeuralNetwork

from art_divqat._rng import derive_seed
from art_divqat._types import Rows
from art_divqat.defences.postprocessor import Softmax
from art_divqat.defences.registry import (
    DEFENCES,
    DefenceContext,
    DefenceSpec,
    apply_defence,
    build_postprocessors,
    parse_defence,
)
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


def serve(victim: Victim, defence: str, *, seed: int, context: DefenceContext) -> Any:
    """An ART classifier that answers with probabilities through the named defences.

    White-box attacks on the victim itself go on seeing its logits.

    :param defence: `none`, or a chain such as `heuristic:beta=0.5+rounding:decimals=2`.
    :param seed: decides every draw and every network of the defences.
    :param context: what defences that need more than the answer may use.
    """
    return apply_defence(answering(victim), parse_defence(defence), seed=derive_seed("defence", seed), context=context)


def known_to_the_attacker(defence: str, served: Any, seed: int) -> Callable[[Rows], Rows] | None:
    """The defence as somebody who knows its name and parameters can rebuild it, with random draws of their own.

    None if there is none, or if it needs more than the answer.
    """
    spec: DefenceSpec = parse_defence(defence)
    if not spec.links or any(DEFENCES[link.name].needs != "nothing" for link in spec.links):
        return None
    if spec.is_postprocessor:
        steps = build_postprocessors(spec, derive_seed("the attacker's copy", seed))
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
