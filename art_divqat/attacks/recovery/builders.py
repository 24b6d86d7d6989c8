"""Builders of this package's recoveries, one function each; the registry names them."""

from __future__ import annotations

from typing import Any

from art_divqat.attacks.recovery.answers import AverageRepeats, Complement, Labels, Recentre, Recovery, TopK
from art_divqat.attacks.recovery.contract import RecoveryRequest
from art_divqat.attacks.recovery.invert import InvertHeuristic, KnownHeuristic
from art_divqat.attacks.recovery.learned import LearnedRestorer, PartialBayes
from art_divqat.errors import UserError


def labels(request: RecoveryRequest) -> Recovery:
    """Build `labels`."""
    del request
    return Labels()


def top_k(request: RecoveryRequest) -> Recovery:
    """Build `top-k`."""
    return TopK(**request.values)


def average(request: RecoveryRequest) -> Recovery:
    """Build `average`."""
    return AverageRepeats(**request.values)


def recentre(request: RecoveryRequest) -> Recovery:
    """Build `recentre`."""
    return Recentre(**request.values)


def complement(request: RecoveryRequest) -> Recovery:
    """Build `complement`."""
    del request
    return Complement()


def invert(request: RecoveryRequest) -> Recovery:
    """Build `invert` from the known heuristic; what the request gives comes before what is known.

    :raises UserError: if beta is neither given nor known.
    """
    known = request.known_defence
    numbers: dict[str, Any] = {}
    if isinstance(known, KnownHeuristic):
        numbers = {"beta": known.beta, "gamma": known.gamma, "variant": known.variant, "nu": known.nu}
    numbers |= {name: value for name, value in request.values.items() if value is not None}
    if "beta" not in numbers:
        raise UserError(
            "Recovery 'invert' needs the heuristic perturbation, and this victim is not known to use it: "
            "add beta=… to the attack, or use another recovery."
        )
    return InvertHeuristic(**numbers)


def dae(request: RecoveryRequest) -> Recovery:
    """Build `dae`.

    :raises UserError: if the thief knows no defence.
    """
    return LearnedRestorer(request.defence("dae"), request.nb_classes, seed=request.seed, **request.values)


def bayes(request: RecoveryRequest) -> Recovery:
    """Build `bayes`.

    :raises UserError: if the thief knows no defence.
    """
    return PartialBayes(request.defence("bayes"), request.nb_classes, seed=request.seed, **request.values)
