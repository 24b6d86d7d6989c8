"""The short form of evaluations/benchmarks/coverage/verdicts.py: verdicts are seldom false where nothing differs."""

from __future__ import annotations

import json

import numpy as np
import pytest

from evaluations.benchmarks.coverage import verdicts
from evaluations.benchmarks.coverage.verdicts import CORRELATIONS, MOST, SPREADS, families, sequential

EXPERIMENTS = 150
_MOST_FALSE = 0.05 + 3 * np.sqrt(0.05 * 0.95 / EXPERIMENTS)


@pytest.mark.parametrize(("spread", "correlation"), [(0.0, 0.9), (0.1, 0.0)])
def test_adding_seeds_until_decided_keeps_its_error_rate(spread: float, correlation: float) -> None:
    found = sequential(spread, correlation, 20, EXPERIMENTS)
    assert found["split"] <= _MOST_FALSE
    assert found["split"] <= found["uncorrected"]
    assert 15 < found["seeds"] <= 20


def test_a_family_holds_a_false_verdict_seldom_and_smaller_families_often() -> None:
    found = families(0.03, 0.9, EXPERIMENTS, 5)
    assert found["one family"] <= _MOST_FALSE < found["a family a defence"] <= found["uncorrected"]


def test_the_committed_tables_show_what_the_text_says() -> None:
    written = json.loads((verdicts.HERE / "verdicts.json").read_text())
    assert (verdicts.HERE / "verdicts.md").read_text() == verdicts.table(written)
    assert len(written["sequential"]) == len(SPREADS) * len(CORRELATIONS) * len(MOST) == 18
    assert max(row["split"] for row in written["sequential"]) <= 0.05
    for seeds, most in ((3, 0.1), (5, 0.05)):
        assert max(row["one family"] for row in written["families"] if row["seeds"] == seeds) <= most
    assert min(row["a family a defence"] for row in written["families"]) > 0.2
