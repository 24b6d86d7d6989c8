"""The other postprocessors against ART where ART is right, and against SciPy's linear programs."""

from __future__ import annotations

from typing import Any

import art.defences.postprocessor as art_postprocessors
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from art_divqat.defences.postprocessor import (
    ClassLabels,
    GaussianNoise,
    HighConfidence,
    ModelGuard,
    RandomPerturbation,
    ReverseSigmoid,
    Rounding,
    TopK,
)


def answers(n: int = 50, c: int = 10, concentration: float = 0.5, dtype: Any = np.float64) -> Any:
    return np.random.default_rng(c).dirichlet(np.full(c, concentration), n).astype(dtype)


@pytest.mark.parametrize(("beta", "gamma"), [(0.3, 0.1), (1.0, 0.2), (2.0, 0.5)])
def test_reverse_sigmoid_is_arts_where_art_does_not_clip(beta: float, gamma: float) -> None:
    y = np.clip(answers(), 1e-6, None)
    y /= y.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        ReverseSigmoid(beta, gamma)(y), art_postprocessors.ReverseSigmoid(beta, gamma)(y), atol=1e-12
    )
    column = np.linspace(0.01, 0.99, 21)[:, None]
    np.testing.assert_allclose(
        ReverseSigmoid(beta, gamma)(column), art_postprocessors.ReverseSigmoid(beta, gamma)(column), atol=1e-12
    )


def test_class_labels_is_arts_on_single_rows() -> None:
    y = answers(20)
    one_by_one = np.concatenate([art_postprocessors.ClassLabels()(row[None]) for row in y])
    np.testing.assert_array_equal(ClassLabels()(y), one_by_one)
    column = np.array([[0.2], [0.5], [0.7]])
    np.testing.assert_array_equal(ClassLabels()(column), art_postprocessors.ClassLabels()(column))


def test_high_confidence_is_arts_divided_by_its_sum() -> None:
    y = answers(100, 5)
    theirs = art_postprocessors.HighConfidence(0.3)(y)
    some = theirs.sum(axis=1) > 0
    ours = HighConfidence(0.3)(y)
    np.testing.assert_allclose(ours[some], theirs[some] / theirs[some].sum(axis=1, keepdims=True))
    assert not some.all()
    np.testing.assert_array_equal(ours[~some], np.eye(5)[y[~some].argmax(axis=1)])


@given(
    st.integers(1, 6),
    st.integers(2, 200),
    st.integers(0, 2**31),
    st.sampled_from([np.float32, np.float64]),
)
@settings(max_examples=150, deadline=None)
def test_rounding_stays_on_the_grid_and_moves_less_than_a_unit(decimals: int, c: int, seed: int, dtype: Any) -> None:
    y = np.random.default_rng(seed).dirichlet(np.full(c, 0.3), 4).astype(dtype)
    served = Rounding(decimals)(y).astype(np.float64)
    units = served * 10**decimals
    np.testing.assert_allclose(units, np.rint(units), rtol=0, atol=10**decimals * 1e-7)
    assert (np.rint(units).sum(axis=1) == 10**decimals).all()
    assert np.abs(served - y).max() < 10.0**-decimals + 1e-6
    if decimals < 6:  # a grid that float32 resolves
        np.testing.assert_array_equal(Rounding(decimals)(served.astype(dtype)), served.astype(dtype))


def test_top_k() -> None:
    y = answers(30)
    served = TopK(3)(y)
    assert ((served > 0).sum(axis=1) == 3).all()
    np.testing.assert_array_equal(served.argmax(axis=1), y.argmax(axis=1))
    np.testing.assert_array_equal(TopK(1)(y), ClassLabels()(y))
    np.testing.assert_array_equal(TopK(99)(y), y)
    np.testing.assert_array_equal(TopK(1)(np.full((1, 4), 0.25)), [[1, 0, 0, 0]])


def test_random_perturbation_spares_the_top_class_and_is_uniform_over_the_others() -> None:
    y = np.tile([0.1, 0.6, 0.2, 0.1], (30_000, 1))
    served = RandomPerturbation(0.5, seed=3)(y)
    moved = served - 0.75 * y
    np.testing.assert_allclose(moved.max(axis=1), 0.25)
    counts = np.bincount(moved.argmax(axis=1), minlength=4)
    assert counts[1] == 0
    assert scipy.stats.chisquare(counts[[0, 2, 3]]).pvalue > 1e-4
    assert np.abs(served - y).sum(axis=1).max() <= 0.5


@pytest.mark.parametrize("make", [lambda s: GaussianNoise(0.1, seed=s), lambda s: RandomPerturbation(1.0, seed=s)])
def test_seeds(make: Any) -> None:
    y = answers(20)
    first = make(1)
    a, b = first(y), first(y)
    assert not np.array_equal(a, b)
    np.testing.assert_array_equal(a, make(1)(y))
    assert not np.array_equal(a, make(2)(y))
    first.set_params(seed=2)
    np.testing.assert_array_equal(first(y), make(2)(y))
    again = make(1)
    again(y)
    again.set_params(seed=1)
    np.testing.assert_array_equal(again(y), b)


@pytest.mark.parametrize(
    ("make", "name", "bad"),
    [
        (RandomPerturbation, "epsilon", 2.1),
        (RandomPerturbation, "seed", 1.5),
        (GaussianNoise, "scale", 0),
        (GaussianNoise, "seed", -1),
        (TopK, "k", 0),
        (TopK, "k", 1.0),
        (Rounding, "decimals", 0),
        (Rounding, "decimals", "2"),
        (HighConfidence, "cutoff", 1.5),
        (ReverseSigmoid, "beta", float("nan")),
        (ReverseSigmoid, "gamma", 0.0),
        (ModelGuard, "epsilon", -0.1),
    ],
)
def test_parameters_out_of_range(make: Any, name: str, bad: object) -> None:
    with pytest.raises(ValueError, match=f"'{name}' parameter of {make.__name__} must be .* Got"):
        make(**{name: bad})


# --- ModelGuard-W against linear programs ---------------------------------------------------------------------------


def linear_program(y: Any, epsilon: float) -> float:
    """The least Σ ỹ_k log y_k by SciPy's solver, over ỹ = y + p − q with p, q ≥ 0."""
    c, top = len(y), int(np.argmax(y))
    cost = np.log(np.maximum(y, np.finfo(np.float64).tiny))
    eye = np.eye(c)
    stays_top = np.delete(eye - eye[top], top, axis=0)
    nonnegative = np.hstack([-eye, eye])
    inequalities = np.vstack([nonnegative, np.hstack([stays_top, -stays_top]), np.ones((1, 2 * c))])
    bounds = np.concatenate([y, -(stays_top @ y), [epsilon]])
    result = scipy.optimize.linprog(
        np.concatenate([cost, -cost]),
        A_ub=inequalities,
        b_ub=bounds,
        A_eq=np.concatenate([np.ones(c), -np.ones(c)])[None],
        b_eq=[0.0],
    )
    assert result.success
    return float(result.fun + cost @ y)


@pytest.mark.parametrize("epsilon", [0.05, 0.3, 0.7, 1.0, 1.4, 2.0])
@pytest.mark.parametrize("c", [2, 3, 5, 12])
def test_modelguard_is_the_linear_programs_optimum(c: int, epsilon: float) -> None:
    for concentration in (0.3, 1.0, 5.0):
        y = answers(12, c, concentration)
        y = np.maximum(y, 1e-9)
        y /= y.sum(axis=1, keepdims=True)
        served = ModelGuard(epsilon)(y)
        assert np.abs(served - y).sum(axis=1).max() <= epsilon + 1e-9
        np.testing.assert_array_equal(served.argmax(axis=1), y.argmax(axis=1))
        for row, got in zip(y, served, strict=True):
            assert float(got @ np.log(row)) == pytest.approx(linear_program(row, epsilon), abs=1e-6)


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.3, 1.0]), min_size=2, max_size=9).filter(lambda w: sum(w) > 0),
    st.floats(0, 2),
    st.sampled_from([np.float32, np.float64]),
)
@settings(max_examples=200, deadline=None)
def test_modelguard_with_ties_and_zeros(weights: list[float], epsilon: float, dtype: Any) -> None:
    y = (np.array([weights]) / sum(weights)).astype(dtype)
    served = ModelGuard(epsilon)(y)
    assert served.argmax() == y.argmax()
    assert served.min() >= 0
    assert served.sum() == pytest.approx(1, abs=1e-5)
    assert np.abs(served - y).sum() <= epsilon + 1e-5
