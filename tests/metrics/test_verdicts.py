"""Verdicts by Holm's correction, and the number of seeds that would decide the others."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from art_divqat.metrics.estimator import Effect, Parts, differences, over_seeds, ratios
from art_divqat.metrics.verdicts import MOST_SEEDS, POWER, holm, judge, seeds_needed
from evaluations.benchmarks.coverage.run import Case, hits


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=8))
@settings(deadline=None)
def test_holm_is_what_it_says(p_values: list[float | None]) -> None:
    """Hypotheses are refused from the least p value on, while it is below the level over the number that are left."""
    known = [p for p in p_values if p is not None]
    refused = 0
    for number, p_value in enumerate(sorted(known)):
        if p_value >= 0.05 / (len(known) - number) * (1 - 1e-12):
            break
        refused += 1
    corrected = [p for p in holm(p_values) if p is not None]
    assert abs(sum(p < 0.05 for p in corrected) - refused) <= sum(p == pytest.approx(0.05) for p in corrected)
    assert [p is None for p in holm(p_values)] == [p is None for p in p_values]


def test_a_verdict_needs_a_test() -> None:
    assert judge([Effect(2.0, None, None, None)], 1.0) == ["cannot tell"]
    assert judge([over_seeds([0.5])], 0.0) == ["cannot tell"]
    assert judge([over_seeds([0.5, 0.51, 0.49])], 0.0) == ["higher"]


def test_a_verdict_at_a_stricter_level_needs_more() -> None:
    effect = Effect(0.1, 0.01, 0.19, 0.03)
    assert judge([effect], 0.0) == ["higher"]
    assert judge([effect], 0.0, 0.01) == ["cannot tell"]


PARTS = st.builds(
    Parts,
    st.floats(1e-4, 1),
    st.floats(1e-8, 0.1),
    st.one_of(st.just(0.0), st.floats(1e-9, 0.01)),
    st.integers(50, 10**4),
)


@given(PARTS, st.floats(1.01, 10))
@settings(deadline=None)
def test_what_is_harder_to_tell_needs_no_fewer_seeds(parts: Parts, factor: float) -> None:
    harder = [
        parts._replace(distance=parts.distance / factor),
        parts._replace(of_seeds=parts.of_seeds * factor),
        parts._replace(of_images=parts.of_images * factor),
    ]
    (needed,) = seeds_needed([parts])
    assert 2 <= needed <= MOST_SEEDS or math.isinf(needed)
    assert all(more >= needed - 1e-9 for more in seeds_needed(harder)[:2])
    (corrected,) = seeds_needed([parts], 0.05 / 7)
    assert corrected >= needed
    # the scale is no part of it
    scaled = Parts(2 * parts.distance, 4 * parts.of_seeds, 4 * parts.of_images, parts.images)
    assert seeds_needed([scaled]) == [needed]


@given(st.integers(0, 10**6), st.integers(2, 6), st.floats(-0.1, 0.1))
@settings(deadline=None, max_examples=50)
def test_what_cannot_be_told_needs_more_seeds_than_it_has(seed: int, seeds: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    rates = 0.7 + 0.05 * rng.standard_normal((2, seeds, 1)) + np.array([shift, 0]).reshape(2, 1, 1)
    sets = (rng.random((2, seeds, 200)) < rates)[None]
    for neutral, (effect,) in ((0.0, differences(sets)), (1.0, ratios(sets))):
        assert effect.parts is not None
        (needed,) = seeds_needed([effect.parts])
        if judge([effect], neutral) == ["cannot tell"]:
            assert needed > seeds


def test_no_effect_and_one_behind_its_images_are_too_small() -> None:
    assert seeds_needed([Parts(0.0, 0.01, 0.0, 100), Parts(0.0, 0.0, 0.0, 100)]) == [math.inf] * 2
    assert seeds_needed([Parts(0.05, 1e-6, 0.03**2, 500)]) == [math.inf]
    assert seeds_needed([]) == []


def test_one_seed_says_nothing_of_more() -> None:
    one = np.random.default_rng(0).random((1, 2, 1, 100)) < 0.5
    assert differences(one)[0].parts is None
    assert ratios(one)[0].parts is None
    assert over_seeds([0.5]).parts is None


@pytest.mark.parametrize(("rate", "other", "spread", "images"), [(0.9, 0.86, 0.04, 300), (0.6, 0.52, 0.08, 200)])
def test_the_planned_number_has_about_the_power(rate: float, other: float, spread: float, images: int) -> None:
    """The parts come from many seeds, as those of a few are uncertain themselves."""
    rng = np.random.default_rng(0)
    many = hits(rng, Case(100, images, rate, spread, 0.5), (rate, other), 8)
    known = np.array([effect.parts for effect in differences(many)])
    truth = Parts(rate - other, *known.mean(axis=0)[1:3].tolist(), images)
    (planned,) = seeds_needed([truth])
    assert 4 <= planned <= 40
    found = differences(hits(rng, Case(int(planned), images, rate, spread, 0.5), (rate, other), 500))
    told = np.mean([judge([effect], 0.0) == ["higher"] for effect in found])
    assert POWER - 0.07 <= told <= POWER + 0.1
