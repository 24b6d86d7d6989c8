"""The gate: conditions under which a build fails, decided once, above all formats."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from art_divqat.errors import UserError, unknown_name
from art_divqat.metrics.table import METRICS, RATES
from art_divqat.results.flags import place
from art_divqat.results.schema import Gate, GateCondition, Results, SummaryRow

_BOUNDS = ("mean", "low", "high")
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_FORM = re.compile(r"\s*([A-Za-z_]\w*)(?:\.(\w+))?\s*(>=|<=|>|<)\s*(\S+)\s*")


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

    def value(self, row: SummaryRow) -> float | None:
        """What the condition is about in one row; None if it was not measured there, or has no interval."""
        estimate = row.metrics.get(self.metric)
        value = None if estimate is None else getattr(estimate, self.bound)
        return None if value is None or math.isnan(value) else float(value)

    def met_by(self, row: SummaryRow) -> bool:
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


def evaluate_gate(results: Results, conditions: Iterable[str]) -> Gate:
    """Try every condition on every row of the summary; the gate fails if any condition is true anywhere.

    :raises UserError: for a condition that :func:`parse_condition` refuses, or whose metric (or interval) no row has: a
        gate that never looked at anything must not pass.
    """
    decided = []
    for text in conditions:
        condition = parse_condition(text)
        if all(condition.value(row) is None for row in results.summary):
            raise UserError(f"The condition {text!r} cannot be decided: {_missing(condition, results)}")
        where = [
            f"{place(row)}: {condition.value(row):.4g}" for row in results.summary if condition.met_by(row)
        ]  # fmt: skip
        decided.append(GateCondition(condition=str(condition), failed=bool(where), where=where))
    return Gate(passed=not any(c.failed for c in decided), conditions=decided)


def _missing(condition: Condition, results: Results) -> str:
    measured = sorted({name for row in results.summary for name in row.metrics})
    if not measured:
        return "no cell has finished."
    if condition.metric in measured:
        return f"{condition.metric} has no interval in this run; more seeds give it one."
    return f"this run did not measure {condition.metric}; it measured {', '.join(measured)}."
