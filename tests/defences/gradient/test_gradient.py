"""MAD, GRAD² and adaptive misinformation against their definitions computed the slow way."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from art.attacks.evasion import FastGradientMethod
from art.estimators.classification import BlackBoxClassifier, PyTorchClassifier
from sklearn.datasets import load_digits

from art_divqat.defences.gradient import (
    GRAD2,
    MAD,
    AdaptiveMisinformation,
    train_misinformation,
    train_surrogate,
    untrained_surrogate,
)
from art_divqat.defences.postprocessor import Softmax
from art_divqat.estimators import TrainingRecipe

C = 5
SHAPE = (1, 4, 4)


def network(seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    module = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(16, 12), torch.nn.ReLU(), torch.nn.Linear(12, C)
    ).double()
    for parameter in module.parameters():
        parameter.data.normal_(0, 0.5, generator=generator)
    return module.float()


def queries(n: int = 20) -> Any:
    return np.random.default_rng(1).uniform(0, 1, (n, *SHAPE)).astype(np.float32)


def answers(n: int = 20, c: int = C) -> Any:
    return np.random.default_rng(2).dirichlet(np.full(c, 0.5), n)


def jacobian(module: torch.nn.Module, x: Any, parameters: list[torch.Tensor]) -> Any:
    """G for one query by C backward passes: ∂ log softmax_j / ∂θ, one row for each class."""
    log_p = torch.log_softmax(module(torch.from_numpy(x[None])), dim=1)[0]
    rows = [torch.autograd.grad(log_p[j], parameters, retain_graph=True) for j in range(C)]
    return np.array([np.concatenate([g.flatten().numpy() for g in row]) for row in rows], dtype=np.float64)


def one_minus_cosine(a: Any, b: Any) -> float:
    return float(1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


@pytest.mark.parametrize("preserve", [False, True])
def test_mad_takes_the_corner_that_backward_passes_find(preserve: bool) -> None:
    module, x, y = network(), queries(), answers()
    served = MAD(module, 0.6, preserve_label=preserve).perturb(x, y)
    for query, clean, got in zip(x, y, served, strict=True):
        g = jacobian(module, query, list(module[3].parameters()))
        eye, top = np.eye(C), clean.argmax()
        corners = (eye + eye[top]) / 2 if preserve else eye
        best = corners[np.argmax([one_minus_cosine(g.T @ v, g.T @ clean) for v in corners])]
        share = min(1, 0.6 / np.abs(clean - best).sum())
        np.testing.assert_allclose(got, clean + share * (best - clean), atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0, 2.0])
def test_mad_keeps_the_label_when_told_to(epsilon: float) -> None:
    x, y = queries(200), answers(200).astype(np.float32)
    y[:5] = 1 / C
    y[5] = np.eye(C)[2]
    served = MAD(network(), epsilon, preserve_label=True).perturb(x, y)
    np.testing.assert_array_equal(served.argmax(1), y.argmax(1))
    for preserve in (False, True):
        served = MAD(network(), epsilon, preserve_label=preserve).perturb(x, y)
        assert served.dtype == np.float32
        assert served.min() >= -1e-7
        np.testing.assert_allclose(served.sum(1), 1, atol=1e-5)
        assert np.abs(served - y).sum(1).max() <= epsilon + 1e-5


def test_grad2_scores_are_the_sums_of_the_jacobian() -> None:
    module, x = network(), queries(6)
    scores = GRAD2(module, 0.5).gradient_scores(torch.from_numpy(x))
    expected = [jacobian(module, query, list(module.parameters())).sum(axis=1) for query in x]
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-3)


def linear_program(scores: Any, y: Any, epsilon: float) -> float:
    c = len(y)
    rows = np.vstack([np.hstack([-np.eye(c), np.eye(c)]), np.ones((1, 2 * c))])
    result = scipy.optimize.linprog(
        np.concatenate([-scores, scores]),
        A_ub=rows,
        b_ub=np.concatenate([y, [epsilon]]),
        A_eq=np.concatenate([np.ones(c), -np.ones(c)])[None],
        b_eq=[0.0],
    )
    return float(scores @ y - result.fun)


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 1.2, 2.0])
@pytest.mark.parametrize("target", ["ones", "clean"])
def test_grad2_is_the_linear_programs_optimum(target: Any, epsilon: float) -> None:
    module, x, y = network(), queries(8), answers(8)
    served = GRAD2(module, epsilon, target=target).perturb(x, y)
    assert np.abs(served - y).sum(1).max() <= epsilon + 1e-9
    for query, clean, got in zip(x, y, served, strict=True):
        last = list(module[3].parameters())
        g = jacobian(module, query, list(module.parameters()) if target == "ones" else last)
        scores = g.sum(axis=1) if target == "ones" else g @ -(g.T @ clean)
        assert float(scores @ got) == pytest.approx(linear_program(scores, clean, epsilon), rel=1e-4, abs=1e-4)


def test_grad2_on_the_packages_networks_in_batches() -> None:
    surrogate = untrained_surrogate((1, 8, 8), C, seed=0)
    x = np.random.default_rng(0).uniform(0, 1, (10, 1, 8, 8)).astype(np.float32)
    whole = GRAD2(surrogate, 0.5).perturb(x, answers(10))
    parts = GRAD2(surrogate, 0.5, batch_size=3).perturb(x, answers(10))
    np.testing.assert_allclose(whole, parts, atol=1e-6)
    assert all(parameter.grad is None for parameter in surrogate.parameters())


def test_adaptive_misinformation_mixes_where_the_answer_is_unsure() -> None:
    module, x = network(), queries(3)
    y = np.array([[0.9, 0.1, 0, 0, 0], [0.3, 0.3, 0.2, 0.1, 0.1], [0.5, 0.5, 0, 0, 0]])
    wrong = torch.softmax(module(torch.from_numpy(x)), dim=1).detach().numpy()
    served = AdaptiveMisinformation(module, tau=0.5).perturb(x, y)
    np.testing.assert_allclose(served[0], y[0], rtol=0, atol=1e-100)
    np.testing.assert_allclose(served[1], wrong[1], atol=1e-6)
    np.testing.assert_allclose(served[2], (y[2] + wrong[2]) / 2, atol=1e-6)


def test_misinformation_is_trained_to_be_wrong_and_a_surrogate_to_agree() -> None:
    digits, labels = load_digits(return_X_y=True)
    x = (digits / 16).astype(np.float32).reshape(-1, 1, 8, 8)[:600]
    labels = labels[:600].astype(np.int64)
    recipe = TrainingRecipe(epochs=4)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    wrong = train_misinformation(x, labels, 10, recipe=recipe, seed=0)
    right = train_surrogate(x, np.eye(10, dtype=np.float32)[labels], recipe=recipe, seed=0)
    assert np.array_equal(before[0], np.random.get_state()[1])
    assert torch.equal(before[1], torch.get_rng_state())
    with torch.no_grad():
        p_wrong = torch.softmax(wrong(torch.from_numpy(x)), dim=1).numpy()[np.arange(600), labels]
        agrees = right(torch.from_numpy(x)).argmax(dim=1).numpy() == labels
    assert p_wrong.mean() < 0.02
    assert agrees.mean() > 0.9
    again = train_misinformation(x, labels, 10, recipe=recipe, seed=0)
    assert all(torch.equal(a, b) for a, b in zip(wrong.state_dict().values(), again.state_dict().values(), strict=True))


# --- as classifiers -------------------------------------------------------------------------------------------------


def victim() -> Any:
    return PyTorchClassifier(
        network(7),
        torch.nn.CrossEntropyLoss(),
        SHAPE,
        C,
        clip_values=(0, 1),
        postprocessing_defences=[Softmax()],
        device_type="cpu",
    )


def test_defended_classifier_defends_predict_and_delegates_the_rest() -> None:
    clean, x = victim(), queries()
    mad = MAD(network(), 0.8)
    defended = mad.defend(clean)
    assert isinstance(defended, PyTorchClassifier)
    before = clean.predict(x)
    np.testing.assert_array_equal(defended.predict(x), mad.perturb(x, before))
    # a matrix product of three rows may round otherwise than one of twenty: the victim's own answers say how
    in_threes = clean.predict(x, batch_size=3)
    np.testing.assert_array_equal(defended.predict(x, batch_size=3), mad.perturb(x, in_threes))
    np.testing.assert_array_equal(clean.predict(x), before)
    labels = np.eye(C, dtype=np.float32)[np.arange(20) % C]
    np.testing.assert_array_equal(defended.loss_gradient(x, labels), clean.loss_gradient(x, labels))
    np.testing.assert_array_equal(
        FastGradientMethod(defended, eps=0.1).generate(x, labels),
        FastGradientMethod(clean, eps=0.1).generate(x, labels),
    )
    assert type(mad.defend(clean)) is type(defended)


def test_defences_stack_and_survive_a_pickle() -> None:
    clean, x = victim(), queries()
    mad, grad2 = MAD(network(), 0.4), GRAD2(network(3), 0.4)
    both = grad2.defend(mad.defend(clean))
    expected = grad2.perturb(x, mad.perturb(x, clean.predict(x)))
    np.testing.assert_array_equal(both.predict(x), expected)
    np.testing.assert_array_equal(mad.defend(clean).predict(x), mad.perturb(x, clean.predict(x)))
    copied = pickle.loads(pickle.dumps(both))  # noqa: S301
    np.testing.assert_allclose(copied.predict(x), expected, atol=1e-6)


def test_black_box_classifiers_and_binary_answers() -> None:
    x = queries(6)
    column = np.array([[0.2], [0.5], [0.9], [0.6], [0.0], [1.0]], dtype=np.float32)
    torch.manual_seed(0)
    two = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    clean = BlackBoxClassifier(lambda batch: np.hstack([1 - column, column])[: len(batch)], SHAPE, 2)
    for defence in (MAD(two, 0.4, preserve_label=True), GRAD2(two, 0.4), AdaptiveMisinformation(two, 0.7)):
        both = defence.defend(clean).predict(x)
        assert both.shape == (6, 2)
        served = defence.perturb(x, column)
        np.testing.assert_allclose(served, both[:, 1:], atol=1e-6)
        assert served.dtype == np.float32
        assert ((served >= -1e-7) & (served <= 1 + 1e-6)).all()
    kept = MAD(two, 2.0, preserve_label=True).perturb(x, column)
    np.testing.assert_array_equal(kept > 0.5, column > 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MAD(network(), 2.5), "epsilon.*Got 2.5"),
        (lambda: MAD(network(), 0.5, preserve_label="yes"), "preserve_label.*Got 'yes'"),
        (lambda: MAD("resnet"), "torch.nn.Module but got str"),
        (lambda: GRAD2(network(), target="zeros"), "target.*Got 'zeros'"),
        (lambda: GRAD2(network(), float("nan")), "epsilon.*Got nan"),
        (lambda: AdaptiveMisinformation(network(), tau=1.5), "tau.*Got 1.5"),
        (lambda: MAD(network(), batch_size=0), "batch_size.*Got 0"),
        (lambda: MAD(network()).perturb(queries(3), answers(4)), "got 3 and 4"),
        (lambda: MAD(network()).perturb(queries(3), answers(3, 7)), "5 classes but the answers have 7"),
        (lambda: GRAD2(network()).perturb(queries(3), answers(3, 7)), "5 classes but the answers have 7"),
        (lambda: MAD(network()).perturb(queries(3), np.full((3, C), 4.0)), "sum to 1 but row 0 sums to 20"),
        (lambda: MAD(network()).defend("victim"), "ART classifier.*str"),
        (lambda: train_surrogate(np.zeros((3, 4)), answers(3), seed=0), "2D"),
        (lambda: train_misinformation(queries(3), np.zeros(2), 2, seed=0), "Got 3 and 2"),
    ],
)
def test_bad_input(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_an_empty_batch() -> None:
    served = MAD(network()).perturb(np.empty((0, *SHAPE), np.float32), np.empty((0, C), np.float32))
    assert served.shape == (0, C)
