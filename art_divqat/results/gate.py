"""Gate: decide once, for all formats, whether a build fails on its conditions."""

from __future__ import annotations

from collections.abc import Iterable

from art_divqat.errors import UserError
from art_divqat.plan.conditions import Condition, parse_condition
from art_divqat.results.flag_evidence import group_label
from art_divqat.results.schema import Gate, GateCondition, Results
from art_divqat.victims.registry import is_control


def evaluate_gate(results: Results, conditions: Iterable[str]) -> Gate:
    """Try every condition on every row of what was audited; the gate fails if any condition is true anywhere.

    :raises UserError: for a condition that :func:`parse_condition` refuses, or whose metric (or interval) no row has: a
        gate that never looked at anything must not pass.
    """
    decided = []
    rows = [row for row in results.summary if not is_control(row.victim, results.config)]
    for text in conditions:
        condition = parse_condition(text)
        if all(condition.value(row) is None for row in rows):
            raise UserError(f"The condition {text!r} cannot be decided: {_missing(condition, results)}")
        where = [
            f"{group_label(row)}: {condition.value(row):.4g}" for row in rows if condition.met_by(row)
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
