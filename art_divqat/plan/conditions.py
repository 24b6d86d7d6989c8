"""Gate conditions: parse `metric>number`, and test it on one row of a summary."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from art_divqat.errors import UserError, unknown_name
from art_divqat.metrics.table import METRICS, RATES

_BOUNDS = ("mean", "low", "high")
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_FORM = re.compile(r"\s*([A-Za-z_]\w*)(?:\.(\w+))?\s*(>=|<=|>|<)\s*(\S+)\s*")


class Row(Protocol):
    """Anything that has metrics by name, each with a mean and the bounds of its interval."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Estimates by metric."""


@dataclass(frozen=True)
class Condition:
    """`metric.bound operator threshold`; where it is true, the gate fails."""

    metric: str
    bound: str
    operator: str
    threshold: float

    def __str__(self) -> str:
        bound = "" if self.bound == "mean" else f".{self.bound}"
        return f"{self.metric}{bound}{self.operator}{self.threshold:g}"

    def value(self, row: Row) -> float | None:
        """What the condition is about in one row; None if it was not measured there, or has no interval."""
        estimate = row.metrics.get(self.metric)
        value = None if estimate is None else getattr(estimate, self.bound)
        return None if value is None or math.isnan(value) else float(value)

    def met_by(self, row: Row) -> bool:
        """Whether the condition is true for a row; a row without a value meets nothing."""
        value = self.value(row)
        return value is not None and _OPERATORS[self.operator](value, self.threshold)


def parse_condition(text: str) -> Condition:
    """Read `metric>number`, or `metric.low`, `metric.high` for a bound of the 95 % interval; > >= < <=.

    It needs no results, so that a mistake is found before a run is paid for.

    :raises UserError: for another form, an unknown metric or bound, or a threshold of a rate outside [0, 1].

    >>> str(parse_condition("agreement.high > 0.90"))
    'agreement.high>0.9'
    """
    form = _FORM.fullmatch(text)
    if form is None:
        raise UserError(f"The condition {text!r} is not metric>number: expected one such as 'agreement.high>0.9'.")
    metric, bound, symbol, number = form.groups()
    if metric not in METRICS:
        raise unknown_name("metric", metric, METRICS)
    if bound is not None and bound not in _BOUNDS:
        raise unknown_name("bound", bound, _BOUNDS)
    try:
        threshold = float(number)
    except ValueError:
        threshold = math.nan
    if not math.isfinite(threshold):
        raise UserError(f"The condition {text!r} does not end in a number: got {number!r}.")
    if metric in RATES and not 0 <= threshold <= 1:
        raise UserError(f"The condition {text!r} can never matter: {metric} is a fraction in [0, 1], not a percentage.")
    return Condition(metric, bound or "mean", symbol, threshold)
