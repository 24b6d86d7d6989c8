"""Conditions: read exactly, decided on every row, never passed for want of a number."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import make_results

from art_divqat.errors import UserError
from art_divqat.metrics.table import RATES
from art_divqat.plan.conditions import parse_condition
from art_divqat.results.gate import evaluate_gate
from art_divqat.results.schema import Results


def flat(**fields: float) -> Results:
    values = {"agreement": 0.8, "thief_accuracy": 0.7, **fields}
    return make_results(lambda *_: values, victims=("standard", "robust"), baseline=None, noise=0.0, seeds=1)


@given(
    st.sampled_from(RATES),
    st.sampled_from(["", ".mean", ".low", ".high"]),
    st.sampled_from([">", ">=", "<", "<="]),
    st.floats(0, 1),
    st.sampled_from(["", " ", "  "]),
)
def test_a_condition_is_read_as_it_is_written(metric: str, bound: str, symbol: str, number: float, space: str) -> None:
    condition = parse_condition(f"{space}{metric}{bound}{space}{symbol}{space}{number!r}{space}")
    assert (condition.metric, condition.operator, condition.threshold) == (metric, symbol, number)
    assert condition.bound == (bound.lstrip(".") or "mean")


@given(st.sampled_from([">", ">=", "<", "<="]), st.floats(0, 1), st.floats(0, 1))
def test_it_is_decided_as_python_decides_it(symbol: str, value: float, threshold: float) -> None:
    compare = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}[symbol]
    results = make_results(
        lambda *_: {"agreement": value, "thief_accuracy": 0.5},
        victims=("standard",), baseline=None, budgets=(10,), answers=("soft",), seeds=1, noise=0.0,
    )  # fmt: skip
    gate = evaluate_gate(results, [f"agreement{symbol}{threshold!r}"])
    assert gate.conditions[0].failed == compare(value, threshold) == (not gate.passed)


def test_every_row_where_it_is_true_is_named() -> None:
    results = make_results(
        lambda v, d, a, b: {"agreement": 0.95 if (a, b) == ("soft", 1000) else 0.5, "thief_accuracy": 0.5},
        baseline=None, noise=0.0,
    )  # fmt: skip
    gate = evaluate_gate(results, ["agreement>0.9", "thief_accuracy>0.9"])
    assert not gate.passed
    assert gate.conditions[0].where == [
        "standard, none, knockoff, soft, 1000: 0.95",
        "robust:epsilon=0.2, none, knockoff, soft, 1000: 0.95",
    ]
    assert [c.failed for c in gate.conditions] == [True, False]


def test_bounds_are_bounds() -> None:
    results = make_results(lambda *_: {"agreement": 0.8, "thief_accuracy": 0.7}, baseline=None, noise=0.01)
    row = results.summary[0].metrics["agreement"]
    assert row.low is not None
    assert row.high is not None
    between = (row.mean + row.high) / 2
    one = results.model_copy(update={"summary": results.summary[:1]})
    assert evaluate_gate(one, [f"agreement>{between}"]).passed
    assert not evaluate_gate(one, [f"agreement.high>{between}"]).passed
    assert evaluate_gate(one, [f"agreement.low>{row.mean}"]).passed


def test_no_condition_passes() -> None:
    assert evaluate_gate(flat(), []).passed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agreement", "is not metric>number"),
        ("", "is not metric>number"),
        ("agreement>0.9>1", "does not end in a number"),
        ("agreement==0.9", "is not metric>number"),
        ("agrement>0.9", "did you mean agreement"),
        ("agreement.hgih>0.9", "did you mean high"),
        ("agreement>ninety", "does not end in a number"),
        ("agreement>nan", "does not end in a number"),
        ("agreement>inf", "does not end in a number"),
        ("agreement>90", "fraction in \\[0, 1\\]"),
    ],
)
def test_what_cannot_be_read_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        evaluate_gate(flat(), [text])
    assert "\n" not in str(raised.value)


def test_a_metric_or_an_interval_that_no_row_has_is_no_pass() -> None:
    with pytest.raises(UserError, match="did not measure label_flip_rate; it measured agreement, thief_accuracy"):
        evaluate_gate(flat(), ["label_flip_rate>0.1"])
    with pytest.raises(UserError, match="no interval in this run"):
        evaluate_gate(flat(), ["agreement.high>0.9"])
    with pytest.raises(UserError, match="no cell has finished"):
        evaluate_gate(make_results(victims=(), baseline=None), ["agreement>0.9"])
