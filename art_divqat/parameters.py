"""Parameters by name: declare defaults and checks once, resolve given values, and refuse misspelt names.

What is declared is read by the registries and by the classes' own checks. Importing this module imports neither torch
nor ART.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from art_divqat._validation import check_bool, check_choice, check_float, check_int, parameter_error
from art_divqat.errors import UserError, suggest


@dataclass(frozen=True)
class Parameter:
    """A default, and a check that returns the value or raises `UserError`.

    :param convert: applied to a given value before the check, such as one spelling of a name to another.
    """

    default: Any
    check: Callable[[object, str, Any], Any]
    convert: Callable[[Any], Any] | None = None

    def value(self, owner: object, name: str, given: Any) -> Any:
        """A given value, converted and checked.

        :param owner: the object, its class, or a name, for the message.
        :raises UserError: for a bad value.
        """
        return self.check(owner, name, given if self.convert is None else self.convert(given))


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


def text(default: str | None) -> Parameter:
    """Any text that is not empty."""

    def check(owner: object, name: str, value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise parameter_error(owner, name, "text", value)
        return value

    return Parameter(default, check)


def refuse_unknown(owner: str, given: Iterable[str], known: Iterable[str], kind: str = "Attack") -> None:
    """Refuse parameters that the named thing does not have.

    :param kind: what the owner is, for the message; empty if its name says enough.
    :raises UserError: for the first unknown name, with those that are near.

    >>> refuse_unknown("robust", ["epsilno"], ["epsilon"], kind="Victim")
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: Victim 'robust' has no parameter 'epsilno': did you mean epsilon?
    """
    known = list(known)
    for name in given:
        if name not in known:
            hint = suggest(name, known) if known else "it takes none."
            raise UserError(f"{kind} {owner!r} has no parameter {name!r}: {hint}".lstrip())


def resolve(owner: str, given: Mapping[str, Any], known: Parameters, kind: str = "Attack") -> dict[str, Any]:
    """Every parameter's value: the given ones checked, the others at their default (which is not checked).

    :param kind: what the owner is, for the message.
    :raises UserError: for an unknown name or a bad value.

    >>> resolve("knockoff", {"step": 8}, {"step": integer(32, 1)})
    {'step': 8}
    >>> resolve("knockoff", {"stpe": 8}, {"step": integer(32, 1)})
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: Attack 'knockoff' has no parameter 'stpe': did you mean step?
    """
    refuse_unknown(owner, given, known, kind)
    return {
        name: parameter.value(owner, name, given[name]) if name in given else parameter.default
        for name, parameter in known.items()
    }


def check_attributes(owner: object, known: Parameters) -> None:
    """Check an object's attributes of these names; nothing is converted or set.

    :raises UserError: for the first bad value, naming the object's class.
    """
    for name, parameter in known.items():
        parameter.check(owner, name, getattr(owner, name))


def checked(kind: str, owner: str, given: Mapping[str, Any], known: Parameters) -> dict[str, Any]:
    """The given values alone, each as its declaration has it; messages name kind and owner.

    :raises UserError: for an unknown name or a bad value.

    >>> checked("victim", "robust", {"steps": 0}, {"steps": integer(7, 1)})
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: The 'steps' parameter of victim 'robust' must be an int of at least 1. Got 0 instead.
    """
    refuse_unknown(owner, given, known, kind.capitalize())
    return {name: known[name].value(f"{kind} {owner!r}", name, value) for name, value in given.items()}
