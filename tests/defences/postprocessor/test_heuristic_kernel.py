"""The fast kernel of the heuristic perturbation against the plain formula of its class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from art_divqat.defences.postprocessor import HeuristicPerturbation
from art_divqat.defences.postprocessor._heuristic_kernel import perturb_row, perturb_rows
from art_divqat.defences.postprocessor._rows import LIFT_SPACINGS, raise_top, row_tops

# γ from where float32 holds the noise of the smallest entries; β up to where the renormalisation magnifies no rounding
PARAMETERS = {
    "beta": st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0, 1.5]), st.floats(0, 1.5)),
    "gamma": st.one_of(st.sampled_from([1e-6, 0.1, 0.2, 1.0]), st.floats(0.01, 1)),
    "variant": st.sampled_from(["exact", "released"]),
    "preserve": st.booleans(),
}


@st.composite
def float32_rows(draw: st.DrawFn) -> Any:
    """None, one or some rows; zeros, ones, ties and rows that sum to a little over one are common."""
    shape = draw(st.sampled_from([0, 1, 1, 2, 5])), draw(st.sampled_from([1, 2, 3, 10, 100, 1000]))
    entries = st.one_of(st.sampled_from([0.0, 1e-30, 1e-6, 0.1, 0.3, 1.0, 50.0]), st.floats(1e-6, 1))
    weights = draw(hnp.arrays(np.float64, shape, elements=entries))
    if shape[1] == 1:
        return np.minimum(weights, 1).astype(np.float32)
    weights[:, draw(st.integers(0, shape[1] - 1))] += draw(st.sampled_from([1e-3, 0.5, 1e6]))
    total = draw(st.sampled_from([1.0, 1.0, 1.0005]))
    return (weights / weights.sum(axis=1, keepdims=True) * total).astype(np.float32)


@given(rows=float32_rows(), **PARAMETERS)
@example(rows=np.float32([[0, 1], [1, 0], [0.5, 0.5]]), beta=1.5, gamma=0.2, variant="exact", preserve=True)
@example(rows=np.eye(1, 1000, dtype=np.float32), beta=1.0, gamma=0.1, variant="exact", preserve=False)
@example(rows=np.full((1, 1000), 1e-3, np.float32), beta=0.9, gamma=0.1, variant="released", preserve=True)
@example(rows=np.zeros((0, 2), np.float32), beta=0.9, gamma=0.1, variant="exact", preserve=True)
@settings(max_examples=400, deadline=None)
def test_what_is_served_is_the_formula(rows: Any, beta: float, gamma: float, variant: Any, preserve: bool) -> None:
    post = HeuristicPerturbation(beta, gamma, variant=variant, preserve_label=preserve)
    served, expected = post(rows), post.formula(rows)
    assert served.dtype == np.float32
    assert served.shape == expected.shape == rows.shape
    np.testing.assert_allclose(served, expected, rtol=0, atol=5e-6)


@given(rows=float32_rows(), nu=st.sampled_from([1.0, 30.0, 1000.0]), offset=st.floats(-0.2, 0.2))
@settings(max_examples=200, deadline=None)
def test_a_gate_that_is_half_open_is_the_formula_too(rows: Any, nu: float, offset: float) -> None:
    threshold = float(np.clip(rows.max(initial=0) + offset, 0, 1.5))
    post = HeuristicPerturbation(threshold, 0.2, nu=nu)
    np.testing.assert_allclose(post(rows), post.formula(rows), rtol=0, atol=5e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("preserve", [False, True])
def test_the_short_way_takes_ordinary_rows_only_and_gives_the_same_bits(dtype: Any, preserve: bool) -> None:
    post = HeuristicPerturbation(0.9, 0.2, preserve_label=preserve)
    ordinary = np.array([[0.5, 0.3, 0.2]], dtype=dtype)
    short = perturb_row(post, ordinary)
    assert short is not None
    np.testing.assert_array_equal(short, perturb_rows(post, ordinary))
    for other in ([[0.5, 0.5, 0.0]], [[1.0, 0.0, 0.0]], [[0.5, 0.3, 0.1]], [[0.9, 0.06, 0.04]], [[np.nan, 0.5, 0.5]]):
        assert perturb_row(post, np.array(other, dtype=dtype)) is None
    assert perturb_row(post, np.array([[1, 0, 0]])) is None
    assert perturb_row(post, np.array([[0.5]], dtype=dtype)) is None


@given(
    rows=hnp.arrays(
        st.sampled_from([np.float32, np.float64]), (5, 4), elements=st.floats(0, 1, width=32, allow_subnormal=False)
    )
)
@settings(max_examples=200, deadline=None)
def test_one_row_is_raised_as_it_is_among_others(rows: Any) -> None:
    together, alone = rows.copy(), rows.copy()
    tops = row_tops(rows[:, ::-1].copy())[0]  # not the largest: something is there to raise
    raise_top(together, tops)
    for i in range(len(rows)):
        raise_top(alone[i : i + 1], tops[i : i + 1] - i * rows.shape[1])
    np.testing.assert_array_equal(together, alone)
    raised = together.ravel()[tops]
    others = together.copy()
    others.ravel()[tops] = 0
    assert (raised >= others.max(axis=1) * (1 + (LIFT_SPACINGS - 1) * np.finfo(rows.dtype).eps)).all()
