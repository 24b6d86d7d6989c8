"""The short form of evaluations/benchmarks/coverage: intervals hold the truth about as often as they say."""

from __future__ import annotations

import json

import numpy as np
import pytest

from evaluations.benchmarks.coverage import run
from evaluations.benchmarks.coverage.run import Case, bias, covers, hits

# where even the percentile bootstrap of three seeds cannot hold it more than three times in four, and a few others
CASES = [Case(3, 200, 0.9, 0.05, 0.0), Case(3, 200, 0.5, 0.0, 0.9), Case(5, 200, 0.9, 0.01, 0.9)]
EXPERIMENTS = 400
_NOISE = 3 * np.sqrt(0.05 * 0.95 / EXPERIMENTS)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_intervals_hold_the_truth(case: Case) -> None:
    for kind, cover in covers(case, EXPERIMENTS).items():
        highest = 1.0 if kind == "query fraction" else run.HIGHEST + _NOISE
        assert run.LOWEST - _NOISE <= cover <= highest, kind


def test_the_best_of_equal_attackers_is_not_above_the_truth() -> None:
    found = bias(Case(3, 200, 0.9, 0.05, 0.0), 8, 300)
    assert found["largest"] > 0.02
    assert abs(found["corrected"]) < 3.5 * found["error"]


def test_simulated_seeds_differ_as_they_should() -> None:
    case = Case(200, 2_000, 0.9, 0.05, 0.9)
    (sets,) = hits(np.random.default_rng(0), case, (0.9, 0.85), 1)
    of_seeds = sets.mean(axis=2)
    assert of_seeds.mean(axis=1) == pytest.approx([0.9, 0.85], abs=0.015)
    assert of_seeds.std(axis=1) == pytest.approx([0.05, 0.05], abs=0.01)
    assert np.corrcoef(of_seeds)[0, 1] > 0.8


def test_the_committed_table_is_of_these_cases() -> None:
    found = json.loads((run.HERE / "results.json").read_text())["cover"]
    assert [Case(*(row[name] for name in Case._fields)) for row in found] == run.cases()
