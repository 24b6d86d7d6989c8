"""Parameters that an attack or a recovery takes by name: defaults, checks, and a word on misspelt ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from art_divqat._validation import check_bool, check_choice, check_float, check_int
from art_divqat.errors import UserError, suggest


@dataclass(frozen=True)
class Parameter:
    """A default, and a check that returns the value or raises `UserError`."""

    default: Any
    check: Callable[[object, str, Any], Any]


Parameters = Mapping[str, Parameter]


def integer(default: int | None, low: int, high: int | None = None) -> Parameter:
    """An int in [low, high]."""
    return Parameter(default, lambda owner, name, value: check_int(owner, name, value, low, high))


def real(default: float | None, low: float, high: float = float("inf"), closed: str = "both") -> Parameter:
    """A float in the interval."""
    return Parameter(default, lambda owner, name, value: check_float(owner, name, value, low, high, closed=closed))


def choice(default: str | None, *choices: str) -> Parameter:
    """One of a few words."""
    return Parameter(default, lambda owner, name, value: check_choice(owner, name, value, choices))


def flag(default: bool) -> Parameter:
    """True or False."""
    return Parameter(default, check_bool)


def resolve(owner: str, given: Mapping[str, Any], known: Parameters) -> dict[str, Any]:
    """Every parameter's value: the given ones checked, the others at their default (which is not checked).

    :raises UserError: for an unknown name or a bad value.

    >>> resolve("knockoff", {"step": 8}, {"step": integer(32, 1)})
    {'step': 8}
    >>> resolve("knockoff", {"stpe": 8}, {"step": integer(32, 1)})
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: Attack 'knockoff' has no parameter 'stpe': did you mean step?
    """
    for name in given:
        if name not in known:
            hint = suggest(name, known) if known else "it takes none."
            raise UserError(f"Attack {owner!r} has no parameter {name!r}: {hint}")
    return {
        name: parameter.check(owner, name, given[name]) if name in given else parameter.default
        for name, parameter in known.items()
    }
