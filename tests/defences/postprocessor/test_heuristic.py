"""The heuristic perturbation against its formula, its guarantees, and its form as a module."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import scipy.special
import torch
from art.estimators.classification import PyTorchClassifier, SklearnClassifier
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from art_divqat.defences.postprocessor import HeuristicPerturbation, Softmax

VARIANTS = ("exact", "released")


def formula(y: Any, beta: float, gamma: float, variant: str, nu: float = 1000.0) -> Any:
    """The formula in float64 by SciPy's stable functions, with β as the answers' precision holds it."""
    beta = float(np.asarray(y).dtype.type(beta))
    y = np.asarray(y, dtype=np.float64)
    alpha = scipy.special.expit(nu * (beta - y.max(axis=1, keepdims=True)))
    logit = scipy.special.logit(y)
    if variant == "released":
        with np.errstate(divide="ignore"):
            logit = np.log(np.clip(y / (1 - y), 1e-12, 1 - 1e-12))
    t = np.maximum(y - alpha * beta * (scipy.special.expit(gamma * logit) - 0.5), 0)
    return t / t.sum(axis=1, keepdims=True)


def dirichlet(n: int, c: int, dtype: Any = np.float64, concentration: float = 0.3, seed: int = 0) -> Any:
    return np.random.default_rng(seed).dirichlet(np.full(c, concentration), n).astype(dtype)


@st.composite
def rows_with_ties(draw: st.DrawFn) -> Any:
    """Rows from few distinct weights, so that ties, zeros and ones are common; float32 or float64."""
    n, c = draw(st.integers(1, 5)), draw(st.integers(2, 30))
    weights = draw(
        hnp.arrays(np.float64, (n, c), elements=st.sampled_from([0.0, 1e-30, 1e-6, 0.1, 0.3, 1.0, 1.0000001]))
    )
    weights[:, draw(st.integers(0, c - 1))] += 0.5
    return (weights / weights.sum(axis=1, keepdims=True)).astype(draw(st.sampled_from([np.float32, np.float64])))


PARAMETERS = {
    "beta": st.one_of(st.sampled_from([0.0, 0.5, 0.9, 1.0, 1.5]), st.floats(0, 20)),
    "gamma": st.one_of(st.sampled_from([0.1, 0.2, 1.0]), st.floats(0.01, 20)),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("beta", [0.1, 0.5, 0.9, 1.0, 1.2, 1.5])
@pytest.mark.parametrize("c", [2, 10, 100, 1000])
def test_the_formula_in_both_precisions(variant: str, beta: float, c: int) -> None:
    for dtype, tolerance in ((np.float32, 3e-6), (np.float64, 1e-12)):
        y = dirichlet(40, c, dtype)
        y[0], y[1] = 0, 1 / c
        y[0, -1] = 1
        served = HeuristicPerturbation(beta, 0.2, variant=variant)(y)
        np.testing.assert_allclose(served, formula(y, beta, 0.2, variant), rtol=0, atol=tolerance)


@given(rows=rows_with_ties(), variant=st.sampled_from(VARIANTS), preserve=st.booleans(), **PARAMETERS)
@settings(max_examples=300, deadline=None)
def test_always_on_the_simplex(rows: Any, variant: str, preserve: bool, beta: float, gamma: float) -> None:
    served = HeuristicPerturbation(beta, gamma, variant=variant, preserve_label=preserve)(rows)
    assert np.isfinite(served).all()
    assert served.min() >= 0
    np.testing.assert_allclose(served.sum(axis=1), 1, atol=1e-5)


@given(rows=rows_with_ties(), variant=st.sampled_from(VARIANTS), **PARAMETERS)
@settings(max_examples=500, deadline=None)
def test_preserve_label_never_changes_the_top_class(rows: Any, variant: str, beta: float, gamma: float) -> None:
    served = HeuristicPerturbation(beta, gamma, variant=variant, preserve_label=True)(rows)
    np.testing.assert_array_equal(served.argmax(axis=1), rows.argmax(axis=1))


@given(rows=rows_with_ties(), variant=st.sampled_from(VARIANTS), **PARAMETERS)
@settings(max_examples=200, deadline=None)
def test_preserve_label_changes_the_top_entry_only_and_only_as_much_as_it_must(
    rows: Any, variant: str, beta: float, gamma: float
) -> None:
    plain = HeuristicPerturbation(beta, gamma, variant=variant)(rows).astype(np.float64)
    kept = HeuristicPerturbation(beta, gamma, variant=variant, preserve_label=True)(rows).astype(np.float64)
    at = (np.arange(len(rows)), rows.argmax(axis=1))
    rivals = plain.copy()
    rivals[at] = 0
    # the smallest admissible top entry before normalising, in units of the plain answer
    plain[at] = np.maximum(plain[at], rivals.max(axis=1))
    np.testing.assert_allclose(kept, plain / plain.sum(axis=1, keepdims=True), atol=5e-6)


@pytest.mark.parametrize(
    ("beta", "flipped", "kept"),
    [
        (0.5, [0.21, 0.2, 0.2, 0.2, 0.19, 0.0], [0.22, 0.2, 0.2, 0.2, 0.18, 0.0]),
        (0.9, [0.43, 0.3, 0.27, 0.0], [0.44, 0.3, 0.26, 0.0]),
        (1.0, [0.49, 0.3, 0.21, 0.0], [0.5, 0.3, 0.2, 0.0]),
    ],
)
def test_plain_form_flips_labels_where_the_theory_says(beta: float, flipped: list[float], kept: list[float]) -> None:
    """A class of probability 0 overtakes the top one where m < β σ(γ logit m): for m below .216, .438 and .5."""
    post = HeuristicPerturbation(beta, 0.2)
    assert post(np.array([flipped])).argmax() != 0
    assert post(np.array([kept])).argmax() == 0


def test_above_one_the_exact_form_can_flip_any_answer_and_the_released_form_those_below_three_quarters() -> None:
    exact, released = (HeuristicPerturbation(1.5, 0.2, variant=variant) for variant in VARIANTS)
    for m, overtaken in ((0.74, True), (0.75, False), (0.99, False)):
        y = np.array([[m, 1 - m, 0.0]])
        assert exact(y).argmax() == 2
        assert (released(y).argmax() != 0) == overtaken


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_confident_answers_pass_bit_for_bit(dtype: Any) -> None:
    y = np.array([[0.95, 0.03, 0.02], [0.4, 0.3, 0.3]], dtype=dtype)
    served = HeuristicPerturbation(0.5, 0.2)(y)
    np.testing.assert_array_equal(served[0], y[0])
    assert np.abs(served[1] - y[1]).max() > 0.005


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_binary_column_is_the_second_of_two(dtype: Any) -> None:
    p = np.linspace(0, 1, 101, dtype=dtype)[:, None]
    both = np.concatenate([1 - p, p], axis=1)
    for preserve in (False, True):
        post = HeuristicPerturbation(1.2, 0.2, preserve_label=preserve)
        np.testing.assert_array_equal(post(p), post(both)[:, 1:])
    kept = HeuristicPerturbation(20, 5, preserve_label=True)(p)
    np.testing.assert_array_equal(kept > 0.5, p > 0.5)


def test_zero_beta_changes_nothing() -> None:
    y = dirichlet(20, 10, np.float32)
    np.testing.assert_array_equal(HeuristicPerturbation(0, 0.2)(y), y)


def test_row_sums_a_little_above_one_are_no_logits() -> None:
    y = np.array([[1.0005, 0.0, 0.0]], dtype=np.float32)
    assert np.isfinite(HeuristicPerturbation(1.5, 0.2)(y)).all()


@given(
    rows=rows_with_ties(), variant=st.sampled_from(VARIANTS), preserve=st.booleans(), near=st.booleans(), **PARAMETERS
)
@settings(max_examples=500, deadline=None)
def test_an_answer_is_the_same_alone_and_in_any_batch_bit_for_bit(
    rows: Any, variant: str, preserve: bool, near: bool, beta: float, gamma: float
) -> None:
    if near:  # the threshold at the first row's top, where α is neither 0 nor 1
        beta = float(rows[0].max())
    post = HeuristicPerturbation(beta, gamma, variant=variant, preserve_label=preserve)
    alone = np.concatenate([post(rows[i : i + 1]) for i in range(len(rows))])
    for batch in (rows, np.tile(rows, (9, 1))):
        np.testing.assert_array_equal(post(batch)[: len(rows)], alone)


@pytest.mark.parametrize("c", [2, 3, 7, 64, 100, 1000])
def test_an_ordinary_answer_is_the_same_alone_bit_for_bit(c: int) -> None:
    """As above, for answers without zeros and ties, which a single row takes the short way."""
    for dtype in (np.float32, np.float64):
        rows = dirichlet(64, c, dtype, concentration=2.0)
        for beta, gamma in ((0.5, 0.1), (0.9, 0.2), (1.0, 0.2), (1.2, 0.1), (2.0, 1.0), (3.0, 5.0), (1.5, 1e-6)):
            for variant in VARIANTS:
                for preserve in (False, True):
                    post = HeuristicPerturbation(beta, gamma, variant=variant, preserve_label=preserve)
                    alone = np.concatenate([post(rows[i : i + 1]) for i in range(len(rows))])
                    np.testing.assert_array_equal(post(rows), alone)


def test_parameters_changed_later_count_at_once() -> None:
    y = dirichlet(1, 10, np.float32, concentration=2.0)
    post = HeuristicPerturbation(1.2, 0.2)
    first = post(y)
    post.set_params(beta=1.5, gamma=0.1)
    np.testing.assert_array_equal(post(y), HeuristicPerturbation(1.5, 0.1)(y))
    assert not np.array_equal(post(y), first)


@pytest.mark.parametrize("gamma", [1e-12, 1e-6, 1e-3, 0.01])
@pytest.mark.parametrize("beta", [1.2, 2.0, 7.0])
def test_the_smallest_gamma_keeps_its_noise(beta: float, gamma: float) -> None:
    for dtype, tolerance in ((np.float32, 1e-6), (np.float64, 1e-14)):
        y = np.array([[1e-9, 1 - 1e-9, 0], [1e-9, 0.5, 0.5 - 1e-9], [0.2, 0.5, 0.3]], dtype=dtype)
        served = HeuristicPerturbation(beta, gamma)(y)
        np.testing.assert_allclose(served, formula(y, beta, gamma, "exact"), rtol=0, atol=tolerance)


# --- logits ---------------------------------------------------------------------------------------------------------


def test_logits_are_refused_with_the_remedy_or_taken_when_named() -> None:
    logits = np.random.default_rng(0).normal(0, 4, (30, 10)).astype(np.float32)
    for input_type in ("auto", "probabilities"):
        with pytest.raises(ValueError, match="input_type='logits'"):
            HeuristicPerturbation(0.5, 0.2, input_type=input_type)(logits)
    by_type = HeuristicPerturbation(0.9, 0.2, input_type="logits")(logits)
    np.testing.assert_array_equal(by_type, HeuristicPerturbation(0.9, 0.2)(Softmax()(logits)))


def test_softmax_agrees_with_scipy_and_never_overflows() -> None:
    logits = np.random.default_rng(0).normal(0, 300, (50, 20))
    np.testing.assert_allclose(Softmax()(logits), scipy.special.softmax(logits, axis=1), atol=1e-15)
    huge = np.array([[3e38, -3e38]], dtype=np.float32)
    np.testing.assert_array_equal(Softmax()(huge), [[1, 0]])
    column = np.array([[-1000.0], [0.0], [1000.0], [0.3]])
    np.testing.assert_allclose(Softmax()(column), scipy.special.expit(column), atol=1e-16)


# --- bad input ------------------------------------------------------------------------------------------------------

BAD_ROWS = {
    "nan": (np.array([[0.5, np.nan]]), "finite"),
    "inf": (np.array([[0.5, np.inf]]), "finite"),
    "negative": (np.array([[0.5, 0.6, -0.1]]), "none negative.*-0.1"),
    "sum": (np.array([[0.5, 0.2]]), "sum to 1 but row 0 sums to 0.7"),
    "vector": (np.array([0.5, 0.5]), "1D"),
    "cube": (np.full((1, 2, 2), 0.5), "3D"),
    "no class": (np.empty((3, 0)), "no class"),
    "column": (np.array([[0.2], [1.4]]), r"\[0, 1\] but row 1 is 1.4"),
    "integers": (np.eye(3, dtype=np.int64), "int64"),
    "half": (np.eye(3, dtype=np.float16), "float16"),
    "strings": (np.array([["a", "b"]]), "float32"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows(case: str) -> None:
    rows, message = BAD_ROWS[case]
    with pytest.raises(ValueError, match=message):
        HeuristicPerturbation(0.5, 0.2)(rows)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("beta", -0.1),
        ("beta", float("nan")),
        ("beta", float("inf")),
        ("beta", "0.5"),
        ("beta", None),
        ("beta", True),
        ("gamma", 0),
        ("gamma", -1.0),
        ("gamma", float("nan")),
        ("gamma", "big"),
        ("variant", "approximate"),
        ("preserve_label", 1),
        ("input_type", "logit"),
        ("nu", 0),
    ],
)
def test_bad_parameters_at_construction_and_later(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"'{name}' parameter of HeuristicPerturbation must be .* Got"):
        HeuristicPerturbation(**{"beta": 0.5, "gamma": 0.2, name: value})
    post = HeuristicPerturbation(0.5, 0.2)
    before = post.get_params()
    with pytest.raises(ValueError, match="Got"):
        post.set_params(**{"nu": 7.0, name: value})
    assert post.get_params() == before


def test_unknown_parameter_is_refused_with_the_near_one() -> None:
    with pytest.raises(ValueError, match="did you mean beta"):
        HeuristicPerturbation(0.5, 0.2).set_params(betta=1.0)


# --- budgets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("c", "gamma"), [(10, 0.2), (100, 0.1)])
@pytest.mark.parametrize("l1", [0.05, 0.4, 0.8])
def test_fit_to_an_l1_budget(c: int, gamma: float, l1: float) -> None:
    answers = dirichlet(400, c, np.float32)
    post = HeuristicPerturbation(0.1, gamma)
    fit = post.fit_to_budget(answers, l1=l1)
    assert fit.beta == post.beta
    assert fit.n_answers == 400
    measured = np.abs(post(answers) - answers).sum(axis=1).mean()
    assert fit.l1 == pytest.approx(measured, abs=1e-6)
    assert fit.l1 == pytest.approx(l1, abs=1e-3)


def test_fit_copes_with_the_jump_at_one() -> None:
    """Saturated answers (m = 1): nothing happens below β = 1 and nearly everything above."""
    answers = np.eye(10, dtype=np.float64)[np.arange(50) % 10]
    fit = HeuristicPerturbation(0.5, 0.2).fit_to_budget(answers, l1=0.3)
    assert fit.l1 == pytest.approx(0.3, abs=1e-6)
    assert 0.98 < fit.beta < 1.01


def test_fit_to_label_flips() -> None:
    answers = dirichlet(500, 100, np.float32)
    post = HeuristicPerturbation(0.5, 0.1)
    for bound in (0.0, 0.05, 0.3):
        fit = post.fit_to_budget(answers, max_label_flips=bound)
        assert fit.label_flip_rate == np.mean(post(answers).argmax(1) != answers.argmax(1)) <= bound
        above = HeuristicPerturbation(fit.beta + 0.03, 0.1)(answers)
        assert np.mean(above.argmax(1) != answers.argmax(1)) > bound


def test_fit_on_a_binary_column_and_with_preserved_labels() -> None:
    column = np.random.default_rng(0).uniform(0, 1, (300, 1)).astype(np.float32)
    fit = HeuristicPerturbation(0.5, 0.2).fit_to_budget(column, l1=0.2)
    assert fit.l1 == pytest.approx(0.2, abs=1e-3)
    fit = HeuristicPerturbation(0.5, 0.2, preserve_label=True).fit_to_budget(column, max_label_flips=0.0)
    assert (fit.beta, fit.label_flip_rate) == (2.0, 0.0)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({}, "exactly one"),
        ({"l1": 0.1, "max_label_flips": 0.1}, "exactly one"),
        ({"l1": 1.99}, "1.99 cannot be met.*the most"),
        ({"l1": -1}, "must be a float in"),
        ({"l1": "lots"}, "must be a float in"),
        ({"max_label_flips": 1.5}, "must be a float in"),
    ],
)
def test_budgets_that_cannot_be_met(budget: dict[str, Any], message: str) -> None:
    post = HeuristicPerturbation(0.5, 0.2)
    with pytest.raises(ValueError, match=message):
        post.fit_to_budget(dirichlet(20, 5), **budget)
    assert post.beta == 0.5
    with pytest.raises(ValueError, match="empty batch"):
        post.fit_to_budget(np.empty((0, 5)), l1=0.1)


# --- as a module ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("preserve", [False, True])
@pytest.mark.parametrize("input_type", ["auto", "logits"])
def test_module_agrees_and_scripts(variant: str, preserve: bool, input_type: Any) -> None:
    for beta in (0.0, 0.5, 0.9, 1.0, 1.5, 4.0):
        post = HeuristicPerturbation(beta, 0.2, variant=variant, preserve_label=preserve, input_type=input_type)
        module = post.as_module()
        scripted = torch.jit.script(module)
        for c in (1, 2, 10, 1000):
            y = dirichlet(30, max(c, 2), np.float32)
            y[0] = np.eye(max(c, 2))[0]
            y = y[:, :1] if c == 1 else y
            expected = post(y)
            for candidate in (module, scripted):
                got = candidate(torch.from_numpy(y)).numpy()
                assert got.dtype == np.float32
                np.testing.assert_allclose(got, expected, rtol=0, atol=2e-6)


def test_module_in_float64_keeps_labels() -> None:
    y = dirichlet(200, 50, np.float64)
    post = HeuristicPerturbation(1.2, 0.1, preserve_label=True)
    got = post.as_module()(torch.from_numpy(y)).numpy()
    np.testing.assert_allclose(got, post(y), atol=1e-12)
    np.testing.assert_array_equal(got.argmax(1), y.argmax(1))


@pytest.mark.parametrize("preserve", [False, True])
def test_module_exports_to_onnx_inside_a_model(preserve: bool) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    post = HeuristicPerturbation(0.9, 0.2, preserve_label=preserve, input_type="logits")
    model = torch.nn.Sequential(torch.nn.Linear(8, 10), post.as_module()).eval()
    x = torch.randn(16, 8)
    buffer = io.BytesIO()
    batch = torch.export.Dim("batch")
    torch.onnx.export(model, (x,), buffer, dynamo=True, dynamic_shapes=({0: batch},), verbose=False)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    for rows in (x, x[:5]):
        (got,) = session.run(None, {session.get_inputs()[0].name: rows.numpy()})
        np.testing.assert_allclose(got, model(rows).detach().numpy(), atol=2e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_module_moves_to_cuda() -> None:
    y = dirichlet(64, 100, np.float32)
    post = HeuristicPerturbation(0.9, 0.1, preserve_label=True)
    got = post.as_module().cuda()(torch.from_numpy(y).cuda())
    assert got.is_cuda
    np.testing.assert_allclose(got.cpu().numpy(), post(y), atol=2e-6)


# --- in ART's classifiers -------------------------------------------------------------------------------------------


def test_in_pytorch_and_scikit_learn_classifiers() -> None:
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)
    post = HeuristicPerturbation(0.9, 0.2)
    fitted = LogisticRegression(max_iter=300).fit(x[:500], y[:500])
    clean = SklearnClassifier(fitted).predict(x[500:600])
    defended = SklearnClassifier(fitted, postprocessing_defences=[post]).predict(x[500:600])
    np.testing.assert_array_equal(defended, post(clean))

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(64, 10))

    def classifier(*defences: Any) -> Any:
        return PyTorchClassifier(
            network,
            torch.nn.CrossEntropyLoss(),
            (64,),
            10,
            postprocessing_defences=list(defences) or None,
            device_type="cpu",
        )

    logits = classifier().predict(x[:50])
    chained = classifier(Softmax(), post)
    np.testing.assert_array_equal(chained.predict(x[:50]), post(Softmax()(logits)))
    with pytest.raises(ValueError, match="Softmax"):
        classifier(post).predict(x[:50])
    labels = np.eye(10, dtype=np.float32)[y[:50]]
    np.testing.assert_array_equal(chained.loss_gradient(x[:50], labels), classifier().loss_gradient(x[:50], labels))
