"""The estimator against sums written out, at the edges, and against what it must not depend on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from art_divqat.metrics.estimator import (
    best_of,
    crossed_error,
    differences,
    margin,
    query_fraction,
    rates,
    ratios,
)
from art_divqat.metrics.verdicts import judge

BUDGETS = [100, 200, 400]


@st.composite
def tables(draw: st.DrawFn, sets: int = 2, least: int = 1) -> np.ndarray:
    """Hits of (sets, seeds, images), at rates from nothing to all."""
    seeds, images = draw(st.integers(least, 5)), draw(st.integers(least, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.lists(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]), min_size=sets, max_size=sets))
    return rng.random((sets, seeds, images)) < np.array(levels)[:, None, None]


def brute_force(table: np.ndarray) -> tuple[float, float]:
    """The standard error and its degrees of freedom, from the sums of a two-way table, one cell at a time."""
    seeds, images = table.shape
    grand = sum(table[s, i] for s in range(seeds) for i in range(images)) / (seeds * images)
    rows = [sum(table[s]) / images for s in range(seeds)]
    columns = [sum(table[:, i]) / seeds for i in range(images)]
    ms_seeds = images * sum((r - grand) ** 2 for r in rows) / (seeds - 1)
    ms_images = seeds * sum((c - grand) ** 2 for c in columns) / (images - 1)
    left = sum((table[s, i] - rows[s] - columns[i] + grand) ** 2 for s in range(seeds) for i in range(images))
    ms_cells = left / ((seeds - 1) * (images - 1))
    of_seeds, of_images = max(ms_seeds, ms_cells / 20), max(ms_images - ms_cells, 0.0)
    total = of_seeds + of_images
    if total < 1e-20:
        return 0.0, seeds - 1
    share = of_seeds / total
    return float(np.sqrt(total / (seeds * images))), 1 / (share / (seeds - 1) + (1 - share) / (images - 1))


@given(tables(least=2))
@settings(deadline=None, max_examples=60)
def test_the_error_is_that_of_a_two_way_table(sets: np.ndarray) -> None:
    table = sets[0].astype(float) - sets[1]
    error = crossed_error(table[None])
    standard, freedom = brute_force(table)
    assert error.standard[0] == pytest.approx(standard, abs=1e-9)
    assert error.freedom[0] == pytest.approx(freedom)
    assert margin(error)[0] == pytest.approx(stats.t.ppf(0.975, freedom) * standard, rel=1e-5)


@given(tables(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=60)
def test_the_order_of_seeds_and_images_does_not_matter(sets: np.ndarray, random: Any) -> None:
    seeds, images = (random.sample(range(size), size) for size in sets.shape[1:])
    other = sets[:, seeds][:, :, images]
    for estimate in (differences, ratios):
        (one,), (two,) = estimate(sets[None]), estimate(other[None])
        assert [each is None for each in one] == [each is None for each in two]
        known = [(a, b) for a, b in zip(one, two, strict=True) if a is not None and b is not None]
        assert all(a == pytest.approx(b, rel=1e-6, abs=1e-9) for a, b in known)


@given(tables())
@settings(deadline=None, max_examples=60)
def test_intervals_stay_in_their_bounds_and_around_their_means(sets: np.ndarray) -> None:
    for rate in rates(sets):
        assert rate.low is not None
        assert rate.high is not None
        assert 0 <= rate.low <= rate.mean + 1e-12
        assert rate.mean - 1e-12 <= rate.high <= 1
    (difference,), (ratio,) = differences(sets[None]), ratios(sets[None])
    assert -1 <= difference.low <= difference.mean <= difference.high <= 1
    if ratio.low is not None:
        assert 0 <= ratio.low <= ratio.mean * (1 + 1e-12) <= ratio.high * (1 + 1e-9)
        assert (ratio.p_value < 0.05) == (not ratio.low <= 1 <= ratio.high) or ratio.p_value == pytest.approx(
            0.05, 1e-4
        )
    else:
        assert not sets.any(axis=(1, 2)).all() or sets[0].size == 1


@given(tables(sets=1))
@settings(deadline=None, max_examples=40)
def test_a_pair_of_the_same_is_no_effect(hits: np.ndarray) -> None:
    same = np.concatenate([hits, hits])[None]
    assert differences(same)[0].mean == 0
    assert judge(differences(same), 0.0) == judge(ratios(same), 1.0) == ["cannot tell"]
    if hits.any() and hits.size > 1:
        assert ratios(same)[0][:3] == pytest.approx((1, 1, 1))


def test_of_all_hits_or_none_the_images_alone_can_tell() -> None:
    for seeds in (1, 3):
        none, every = rates(np.stack([np.zeros((seeds, 50), bool), np.ones((seeds, 50), bool)]))
        assert none.low == 0 < none.high < 0.1
        assert none.high == pytest.approx(1 - every.low)


def test_one_seed_has_the_interval_of_its_images() -> None:
    rng = np.random.default_rng(0)
    sets = rng.random((2, 1, 400)) < np.array([0.6, 0.5])[:, None, None]
    expected = stats.ttest_rel(sets[0, 0].astype(float), sets[1, 0].astype(float))
    (effect,) = differences(sets[None])
    assert effect.p_value == pytest.approx(expected.pvalue)
    assert (effect.low, effect.high) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-5)


def test_one_image_has_the_interval_of_its_seeds() -> None:
    sets = np.array([[[1], [1], [0], [1]], [[0], [1], [0], [0]]], bool)
    expected = stats.ttest_1samp([1.0, 0.0, 0.0, 1.0], 0.0)
    assert differences(sets[None])[0].p_value == pytest.approx(expected.pvalue)


def test_one_cell_says_nothing() -> None:
    (ratio,) = ratios(np.ones((1, 2, 1, 1), bool))
    assert (ratio.low, ratio.high) == (None, None)


def test_a_ratio_of_ratios_has_the_interval_of_its_four_parts() -> None:
    """Where all images count in the parts that are added, it is the ratio of the others."""
    rng = np.random.default_rng(1)
    first, second = rng.random((2, 3, 200)) < 0.6
    every = np.ones_like(first)
    two, four = ratios(np.stack([[first, second]])), ratios(np.stack([[first, every, second, every]]))
    assert two[0][:4] == pytest.approx(four[0][:4])


@given(tables(sets=4), st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_a_query_fraction_is_within_its_interval(sets: np.ndarray, target: int) -> None:
    found = query_fraction(sets[:3], sets[target], BUDGETS)
    if found.mean is None:
        assert (found.low, found.high) == (None, None)
    else:
        assert BUDGETS[0] / BUDGETS[-1] <= found.low <= found.mean
        assert found.high is None or found.mean <= found.high <= 1
    assert 0 <= found.p_value <= 1


def test_a_query_fraction_is_where_the_difference_cannot_be_told_from_zero() -> None:
    """At both ends of the interval, the thief at that budget and the target are just told apart."""
    rng = np.random.default_rng(0)
    draws = rng.random((3, 2_000))
    curve, target = np.stack([draws < 0.4, draws < 0.6, draws < 0.9]), rng.random((3, 2_000)) < 0.7
    found = query_fraction(curve, target, BUDGETS)
    for fraction in (found.low, found.high):
        place = fraction * BUDGETS[-1]
        after = 1 if place < BUDGETS[1] else 2
        share = (place - BUDGETS[after - 1]) / (BUDGETS[after] - BUDGETS[after - 1])
        table = (1 - share) * curve[after - 1] + share * curve[after] - target
        assert abs(table.mean()) == pytest.approx(margin(crossed_error(table[None]))[0], rel=0.05)


def test_a_rate_that_is_never_reached_has_no_fraction() -> None:
    rng = np.random.default_rng(0)
    curve = rng.random((3, 3, 300)) < 0.3
    assert query_fraction(curve, rng.random((3, 300)) < 0.9, BUDGETS).mean is None
    beyond, near = (query_fraction(curve, rng.random((3, 300)) < rate, BUDGETS) for rate in (0.9, 0.34))
    assert judge([beyond], 1.0) == ["higher"]
    assert judge([near], 1.0) == ["cannot tell"]


def test_the_best_attacker_is_its_own_where_it_is_always_chosen() -> None:
    rng = np.random.default_rng(0)
    sets = rng.random((4, 3, 200)) < np.array([0.2, 0.3, 0.8, 0.1])[:, None, None]
    (alone,) = rates(sets[2:3])
    for found in (best_of(sets), best_of(sets[2:3])):
        assert found == pytest.approx(alone)
