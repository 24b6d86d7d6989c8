"""Parameter checks: raise one form of message, after scikit-learn's.

"The 'alpha' parameter of DivQATTrainer must be a float in [0, inf). Got -1 instead."
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, TypeVar

from art_divqat.errors import UserError

T = TypeVar("T")


def parameter_error(owner: object, name: str, expected: str, value: object) -> UserError:
    """The error for one bad parameter; `owner` is the object, its class, or a name."""
    if not isinstance(owner, str):
        owner = owner.__name__ if isinstance(owner, type) else type(owner).__name__
    return UserError(f"The {name!r} parameter of {owner} must be {expected}. Got {value!r} instead.")


def check_float(
    owner: object,
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    closed: str = "both",
) -> float:
    """Return `value` as a Python float in the interval, or raise.

    :param closed: which ends belong to the interval: `both`, `left`, `right` or `neither`. An infinite end never does.
    :raises UserError: for a bool, a string, NaN, an infinity or anything outside the interval.

    >>> check_float("Demo", "alpha", 1, 0)
    1.0
    >>> check_float("Demo", "alpha", -1, 0)
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: The 'alpha' parameter of Demo must be a float in [0, inf). Got -1 instead.
    """
    low_closed = closed in ("both", "left") and math.isfinite(low)
    high_closed = closed in ("both", "right") and math.isfinite(high)
    expected = f"a float in {'[' if low_closed else '('}{low:g}, {high:g}{']' if high_closed else ')'}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise parameter_error(owner, name, expected, value)
    number = float(value)
    above = number >= low if low_closed else number > low
    below = number <= high if high_closed else number < high
    if not (math.isfinite(number) and above and below):
        raise parameter_error(owner, name, expected, value)
    return number


def check_int(owner: object, name: str, value: Any, low: int | None = None, high: int | None = None) -> int:
    """Return `value` as a Python int between `low` and `high` (both allowed), or raise.

    :raises UserError: for a bool, a float, a string or anything outside the range.

    >>> check_int("Demo", "epochs", 3, 1)
    3
    """
    if low is None and high is None:
        expected = "an int"
    elif high is None:
        expected = f"an int of at least {low}"
    elif low is None:
        expected = f"an int of at most {high}"
    else:
        expected = f"an int from {low} to {high}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise parameter_error(owner, name, expected, value)
    number = int(value)
    if (low is not None and number < low) or (high is not None and number > high):
        raise parameter_error(owner, name, expected, value)
    return number


def check_bool(owner: object, name: str, value: Any) -> bool:
    """Return `value` if it is a bool, or raise."""
    if not isinstance(value, bool):
        raise parameter_error(owner, name, "True or False", value)
    return value


def check_choice(owner: object, name: str, value: T, choices: Sequence[T]) -> T:
    """Return `value` if it is one of `choices`, or raise.

    >>> check_choice("Demo", "backend", "gx", ["fx", "pt2e"])
    Traceback (most recent call last):
    ...
    art_divqat.errors.UserError: The 'backend' parameter of Demo must be one of 'fx', 'pt2e'. Got 'gx' instead.
    """
    if value not in choices:
        raise parameter_error(owner, name, f"one of {', '.join(map(repr, choices))}", value)
    return value
