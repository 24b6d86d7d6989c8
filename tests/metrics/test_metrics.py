"""Each metric against an independent reference, and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from sklearn.metrics import accuracy_score

from art_divqat.errors import UserError
from art_divqat.metrics import (
    accuracy,
    agreement,
    extraction_ratio,
    kl_divergence,
    l1_distortion,
    label_flip_rate,
    mean_interval,
    queries_to_reach,
    transfer_attack_success,
    wilson_interval,
)


@st.composite
def pairs_of_rows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    rows, classes = draw(st.integers(1, 20)), draw(st.sampled_from([2, 3, 10, 1000]))
    seed = draw(st.integers(0, 2**32 - 1))
    sharpness = draw(st.sampled_from([0.01, 1.0, 100.0]))
    rng = np.random.default_rng(seed)
    first, second = (rng.dirichlet(np.full(classes, 1 / sharpness), rows).astype(np.float32) for _ in range(2))
    return np.nan_to_num(first, nan=1 / classes), np.nan_to_num(second, nan=1 / classes)


@given(pairs_of_rows())
@settings(max_examples=60, deadline=None)
def test_against_scikit_learn_and_scipy(pair: tuple[np.ndarray, np.ndarray]) -> None:
    p, q = pair
    labels = q.argmax(axis=1)
    assert accuracy(p, labels) == pytest.approx(accuracy_score(labels, p.argmax(axis=1)))
    assert agreement(p, q) == agreement(q, p) == pytest.approx(1 - label_flip_rate(p, q))
    assert l1_distortion(p, q) == pytest.approx(np.mean([np.abs(a - b).sum() for a, b in zip(p, q, strict=True)]), 1e-5)
    assert 0 <= l1_distortion(p, q) <= 2.001
    mixed = (0.9 * q.astype(np.float64) + 0.1 / q.shape[1]).astype(np.float32)
    expected = np.mean(
        [stats.entropy(a / a.sum(), b) for a, b in zip(p.astype(float), mixed.astype(float), strict=True)]
    )
    assert kl_divergence(p, mixed) == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert kl_divergence(p, p) == 0


def test_kl_is_finite_where_a_likely_class_is_served_as_zero() -> None:
    assert kl_divergence(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])) == pytest.approx(np.log(1e12))


def test_bad_shapes() -> None:
    for call in (
        lambda: accuracy(np.zeros((0, 2)), np.zeros(0)),
        lambda: accuracy(np.zeros((2, 2)), np.zeros(3)),
        lambda: agreement(np.zeros((2, 2)), np.zeros((2, 3))),
        lambda: l1_distortion(np.zeros((2, 2)), np.zeros((3, 2))),
    ):
        with pytest.raises(UserError, match="Expected answers"):
            call()


def test_ratio_and_transfer_edges() -> None:
    assert extraction_ratio(0.5, 0.0) is None
    assert transfer_attack_success(np.eye(2), np.eye(2), np.array([1, 0])) is None
    assert transfer_attack_success(np.eye(3), np.eye(3)[[1, 1, 2]], np.array([0, 1, 1])) == 0.5


@given(st.integers(0, 50), st.integers(1, 50))
@settings(deadline=None)
def test_wilson_against_its_formula(hits: int, images: int) -> None:
    hits = min(hits, images)
    p, z = hits / images, stats.norm.ppf(0.975)
    centre = (p + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * np.sqrt(p * (1 - p) / images + z**2 / (4 * images**2))
    interval = wilson_interval(p, images)
    reference = stats.binomtest(hits, images).proportion_ci(method="wilson")
    assert (interval.low, interval.high) == pytest.approx((reference.low, reference.high), abs=1e-12)
    assert interval.low == pytest.approx(max(0, centre - half), abs=1e-9)
    assert interval.high == pytest.approx(min(1, centre + half), abs=1e-9)


@given(hnp.arrays(np.float64, st.integers(2, 8), elements=st.floats(0, 1)))
@settings(deadline=None)
def test_mean_interval_against_scipy(values: np.ndarray) -> None:
    interval = mean_interval(values.tolist(), None)
    if values.std() > 1e-9:
        low, high = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
        assert (interval.low, interval.high) == pytest.approx((low, high))
    assert mean_interval([0.3]).low is None


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_wilson_refuses_what_is_no_rate(rate: float) -> None:
    with pytest.raises(UserError, match="'rate' parameter"):
        wilson_interval(rate, 10)


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=6),
    st.floats(0, 1),
)
def test_queries_to_reach_is_the_first_crossing(values: list[float], target: float) -> None:
    budgets = [100.0 * (index + 1) for index in range(len(values))]
    reached = queries_to_reach(target, budgets, values)
    grid = np.union1d(np.linspace(budgets[0], budgets[-1], 5001), budgets)  # peaks are at budgets
    above = grid[np.interp(grid, budgets, values) >= target]
    if reached is None:
        assert len(above) == 0
    elif len(above):
        assert reached == pytest.approx(above[0], abs=(budgets[-1] - budgets[0]) / 5000 + 1e-6)
