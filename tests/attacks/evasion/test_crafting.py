"""Evasion: references are torchattacks' own PGD and FGSM, and a linear network whose optimum is known."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn

from art_divqat.attacks.evasion import (
    craft,
    craft_worst_case,
    gradient_norms,
    linf_bounds,
    robustness_curve,
    worst_case,
)
from art_divqat.attacks.evasion.networks import differentiable_preprocessing
from art_divqat.errors import UserError
from art_divqat.estimators import RecipeClassifier, TrainingRecipe
from art_divqat.models import build_model

Data = tuple[NDArray[np.float32], NDArray[np.int64]]


def _accuracy(network: nn.Module, x: NDArray[np.float32], y: NDArray[np.int64]) -> float:
    with torch.no_grad():
        return float((network(torch.from_numpy(x)).argmax(1).numpy() == y).mean())


@pytest.fixture(scope="module")
def digits() -> Data:
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float32).reshape(-1, 1, 8, 8), y.astype(np.int64)


@pytest.fixture(scope="module")
def classifier(digits: Data) -> RecipeClassifier:
    x, y = digits
    network = build_model("small-cnn", (1, 8, 8), 10, seed=0)
    classifier = RecipeClassifier(network, (1, 8, 8), 10, TrainingRecipe(epochs=5))
    classifier.fit(x[:800], y[:800])
    network.eval()
    return classifier


@pytest.fixture(scope="module")
def held_out(digits: Data) -> Data:
    return digits[0][1000:1064], digits[1][1000:1064]


@given(
    epsilon=st.floats(0, 1),
    pixels=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20),
)
def test_bounds_are_exact_and_tight(epsilon: float, pixels: list[float]) -> None:
    x = np.array(pixels, np.float32)
    low, high = linf_bounds(x, epsilon)
    for bound in (low, high):
        assert (np.abs(bound.astype(float) - x.astype(float)) <= epsilon).all()
        assert ((bound >= 0) & (bound <= 1)).all()
    wider = np.nextafter(high, np.float32(2))
    assert ((wider.astype(float) > x.astype(float) + epsilon) | (wider > 1)).all()


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "autoattack", "square"])
def test_examples_stay_in_the_ball_and_fool(classifier: RecipeClassifier, held_out: Data, attack: str) -> None:
    x, y = held_out
    x, y = x[:12], y[:12]
    before = x.copy()
    steps = 60 if attack == "square" else None
    crafted = craft(classifier, x, y, attack=attack, epsilon=0.2, steps=steps, seed=1)
    assert crafted.dtype == np.float32
    assert (np.abs(crafted.astype(float) - x.astype(float)) <= 0.2).all()
    assert crafted.min() >= 0
    assert crafted.max() <= 1
    assert np.array_equal(x, before)
    clean, robust = _accuracy(classifier.model, x, y), _accuracy(classifier.model, crafted, y)
    assert robust <= clean - 0.25


@pytest.mark.parametrize("attack", ["pgd", "autoattack", "square"])
def test_one_seed_one_answer_and_no_trace(classifier: RecipeClassifier, held_out: Data, attack: str) -> None:
    x, y = held_out[0][:6], held_out[1][:6]
    epsilon = 0.5 if attack == "autoattack" else 0.15  # so large that its first part is enough: it is slow
    network = classifier.model
    network.train()
    network.features[0][1].eval()  # a frozen batch norm, which torchattacks would wake
    modes = [module.training for module in network.modules()]
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    states = np.random.get_state()[1].copy(), torch.get_rng_state().clone(), random.getstate()
    first = craft(network, x, y, attack=attack, epsilon=epsilon, steps=30, seed=3)
    torch.rand(5)
    again = craft(network, x, y, attack=attack, epsilon=epsilon, steps=30, seed=3)
    other = craft(network, x, y, attack=attack, epsilon=epsilon, steps=30, seed=4)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    assert all(parameter.requires_grad for parameter in network.parameters())
    torch.set_rng_state(states[1])
    craft(network, x, y, attack=attack, epsilon=epsilon, steps=5, seed=3)
    assert np.array_equal(np.random.get_state()[1], states[0])
    assert torch.equal(torch.get_rng_state(), states[1])
    assert random.getstate() == states[2]
    network.eval()


def test_no_gradient_is_left_in_the_parameters(held_out: Data) -> None:
    network = build_model("small-cnn", (1, 8, 8), 10, seed=1)
    craft(network, held_out[0][:4], held_out[1][:4], attack="autoattack", epsilon=0.02, seed=0)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_fgsm_agrees_with_torchattacks(classifier: RecipeClassifier, held_out: Data) -> None:
    import torchattacks

    x, y = held_out
    reference = torchattacks.FGSM(classifier.model, eps=0.1)(torch.from_numpy(x), torch.from_numpy(y)).numpy()
    assert np.abs(craft(classifier, x, y, attack="fgsm", epsilon=0.1) - reference).max() < 1e-6


def test_pgd_is_as_strong_as_torchattacks(classifier: RecipeClassifier, held_out: Data) -> None:
    import torchattacks

    x, y = held_out
    attack = torchattacks.PGD(classifier.model, eps=0.1, alpha=0.0125, steps=20)
    survivors = np.ones(len(y), bool)
    # the worst of several random starts: one start alone differs from another by a few images of these 64
    for seed in range(5):
        torch.manual_seed(seed)
        reference = attack(torch.from_numpy(x), torch.from_numpy(y)).numpy()
        survivors &= classifier.predict(reference).argmax(1) == y
    ours = craft(classifier, x, y, epsilon=0.1, steps=20, step_size=0.0125, restarts=5)
    assert _accuracy(classifier.model, ours, y) <= survivors.mean() + 1 / len(y)


def test_early_stop_fools_the_same_examples(classifier: RecipeClassifier, held_out: Data) -> None:
    x, y = held_out

    def fooled(early_stop: bool, restarts: int) -> NDArray[np.bool_]:
        crafted = craft(classifier, x, y, epsilon=0.07, early_stop=early_stop, restarts=restarts, seed=5)
        return classifier.predict(crafted).argmax(1) != y

    for restarts in (1, 3):
        assert np.array_equal(fooled(True, restarts), fooled(False, restarts))
    assert 0.1 < fooled(True, 1).mean() < 0.95, "the comparison needs examples of both kinds"
    assert (fooled(True, 3) >= fooled(True, 1)).all()


def test_early_stop_asks_the_network_less(classifier: RecipeClassifier, held_out: Data) -> None:
    requested: list[int] = []
    hook = classifier.model.register_forward_pre_hook(lambda _module, inputs: requested.append(len(inputs[0])))
    craft(classifier, *held_out, epsilon=0.3, early_stop=False)
    full = sum(requested)
    requested.clear()
    craft(classifier, *held_out, epsilon=0.3, early_stop=True)
    hook.remove()
    assert sum(requested) < full / 2


def test_batch_size_does_not_enter_pgd(classifier: RecipeClassifier, held_out: Data) -> None:
    x, y = held_out
    whole = craft(classifier, x, y, epsilon=0.05, restarts=2, seed=2)
    parts = craft(classifier, x, y, epsilon=0.05, restarts=2, seed=2, batch_size=7)
    # convolutions of other batch sizes may round otherwise, and a sign then flips; not in many pixels
    assert (np.abs(whole - parts) > 1e-6).mean() < 0.02


@settings(max_examples=15, deadline=None)
@given(epsilon=st.floats(0.01, 0.5), seed=st.integers(0, 100))
def test_linear_network_is_attacked_optimally(epsilon: float, seed: int) -> None:
    """Two classes of a linear network: the worst point is x − ε · sign(w_true − w_other), cut to [0, 1]."""
    generator = np.random.default_rng(seed)
    weight = generator.normal(size=(2, 9)).astype(np.float32)
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, 2, bias=False))
    network[1].weight.data = torch.from_numpy(weight.copy())
    x = generator.random((5, 1, 3, 3)).astype(np.float32)
    y = generator.integers(0, 2, 5)
    direction = np.sign(weight[y] - weight[1 - y]).reshape(5, 1, 3, 3)
    optimum = np.clip(x - epsilon * direction, 0, 1)
    for attack in ("fgsm", "pgd"):
        assert np.allclose(craft(network, x, y, attack=attack, epsilon=epsilon, seed=seed), optimum, atol=1e-5)


class _NoGradient(nn.Module):
    """A network whose kernels have no gradients, and that has no parameters, as int8 ones."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.answer = [network]

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return (self.answer[0](x) * 4).round() / 4


def test_worst_case_of_a_victim_without_gradients(classifier: RecipeClassifier, held_out: Data) -> None:
    x, y = held_out[0][:24], held_out[1][:24]
    victim = _NoGradient(classifier.model)
    worst, each = craft_worst_case(
        victim, x, y, epsilon=0.1, twin=classifier.model, parent=classifier, square_queries=80
    )
    assert set(each) == {"twin", "parent", "square"}
    survives = np.stack([_logits(victim, crafted).argmax(1) == y for crafted in each.values()]).all(axis=0)
    assert np.array_equal(_logits(victim, worst).argmax(1) == y, survives)
    assert survives.mean() < 0.9


def _logits(network: nn.Module, x: NDArray[np.float32]) -> NDArray[np.float32]:
    return network(torch.from_numpy(x)).detach().numpy()


def test_a_twin_is_used_for_gradients_and_the_int8_network_for_scores(
    classifier: RecipeClassifier, held_out: Data
) -> None:
    class Quantized:
        """As QuantizedPyTorchClassifier: `model` is the twin, and only `predict` asks the int8 network."""

        model = twin = classifier.model
        requested = 0

        def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
            self.requested += 1
            return _logits(_NoGradient(classifier.model), x)

    x, y = held_out
    quantized = Quantized()
    crafted = craft(quantized, x, y, epsilon=0.1, seed=1)
    assert quantized.requested == 0
    assert np.array_equal(crafted, craft(classifier, x, y, epsilon=0.1, seed=1))
    craft(quantized, x[:4], y[:4], attack="square", epsilon=0.01, steps=5)
    assert quantized.requested > 3
    assert set(craft_worst_case(quantized, x[:4], y[:4], epsilon=0.1, square_queries=5)[1]) == {"twin", "square"}


def test_square_attacks_a_function(classifier: RecipeClassifier, held_out: Data) -> None:
    x, y = held_out[0][:12], held_out[1][:12]
    crafted = craft(classifier.predict, x, y, attack="square", epsilon=0.2, steps=80)
    assert _accuracy(classifier.model, crafted, y) < _accuracy(classifier.model, x, y)


def test_worst_case_loses_no_success() -> None:
    generator = np.random.default_rng(0)
    candidates = [generator.random((30, 1, 2, 2)).astype(np.float32) for _ in range(3)]
    weight, y = generator.normal(size=(4, 5)), generator.integers(0, 5, 30)

    def predict(x: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.round(x.reshape(len(x), 4) @ weight, 0)  # coarse, so that ties occur

    right = np.stack([predict(candidate).argmax(1) == y for candidate in candidates])
    worst, chosen = worst_case(predict, candidates, y)
    assert np.array_equal(predict(worst).argmax(1) == y, right.all(axis=0))
    assert set(chosen) <= {0, 1, 2}


def test_curve_starts_at_clean_accuracy_and_falls(classifier: RecipeClassifier, held_out: Data) -> None:
    x, y = held_out
    calls: list[tuple[int, int]] = []
    curve = robustness_curve(
        classifier,
        x,
        y,
        epsilons=[0, 0.05, 0.3],
        predict=classifier.predict,
        progress=lambda done, total: calls.append((done, total)),
        early_stop=True,
    )
    assert curve[0.0] == _accuracy(classifier.model, x, y)
    assert curve[0.0] > curve[0.05] > curve[0.3]
    assert curve[0.3] < 0.1
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_zero_gradients_are_seen(held_out: Data) -> None:
    x, y = held_out
    dead = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    dead[1].weight.data *= 0
    assert (gradient_norms(dead, x, y) == 0).all()
    assert (gradient_norms(build_model("lenet5", (1, 8, 8), 10, seed=0), x, y) > 0).all()


def test_epsilon_zero_is_a_copy(classifier: RecipeClassifier, held_out: Data) -> None:
    crafted = craft(classifier, *held_out, epsilon=0)
    assert np.array_equal(crafted, held_out[0])
    assert crafted is not held_out[0]


def test_one_hot_labels_are_true_labels(classifier: RecipeClassifier, held_out: Data) -> None:
    x, y = held_out[0][:8], held_out[1][:8]
    assert np.array_equal(craft(classifier, x, y, epsilon=0.1), craft(classifier, x, np.eye(10)[y], epsilon=0.1))


def test_preprocessing_of_the_classifier_is_seen(held_out: Data) -> None:
    from art.estimators.classification import PyTorchClassifier

    network = build_model("lenet5", (1, 8, 8), 10, seed=0)
    art = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0, 1), preprocessing=(0.5, 0.25), device_type="cpu"
    )

    class Normalised(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return network((x - 0.5) / 0.25)

    x, y = held_out
    assert np.abs(craft(art, x, y, epsilon=0.1) - craft(Normalised(), x, y, epsilon=0.1)).max() < 1e-5


@pytest.mark.parametrize(
    ("preprocessing", "is_left_out"),
    [(None, True), ((0, 1), True), (([0.0], [1.0]), True), ((0, 2), False), ((0.5, 1), False)],
)
def test_preprocessing_that_does_nothing_is_left_out(preprocessing: object, is_left_out: bool) -> None:
    """ART stands a standardisation by 0 and 1 before every network; a GPU would be waited for in each call."""
    from art.estimators.classification import PyTorchClassifier

    network = build_model("lenet5", (1, 8, 8), 10, seed=0)
    art = PyTorchClassifier(
        network,
        nn.CrossEntropyLoss(),
        (1, 8, 8),
        10,
        clip_values=(0, 1),
        preprocessing=preprocessing,
        device_type="cpu",
    )
    assert (differentiable_preprocessing(art) is None) == is_left_out


def test_bad_input_is_one_sentence(classifier: RecipeClassifier, held_out: Data) -> None:
    x, y = held_out[0][:4], held_out[1][:4]
    three = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    bad = [
        ({"epsilon": 8}, "8 / 255"),
        ({"epsilon": -0.1}, r"\[0, 1\]"),
        ({"epsilon": True}, "'epsilon'"),
        ({"epsilon": 0.05, "steps": 4, "step_size": 2 / 255}, "never the edge of the ball"),
        ({"epsilon": 0.1, "attack": "psd"}, "'attack'"),
    ]
    for arguments, message in bad:
        with pytest.raises(UserError, match=message):
            craft(classifier, x, y, **arguments)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="true labels"):
        craft(classifier, x, None, epsilon=0.1)
    with pytest.raises(UserError, match="one-hot"):
        craft(classifier, x, np.full((4, 10), 0.1), epsilon=0.1)
    with pytest.raises(UserError, match="0–255"):
        craft(classifier, x * 255, y, epsilon=0.1)
    with pytest.raises(UserError, match="3 classes"):
        craft(three, x, np.array([0, 1, 2, 3]), epsilon=0.1)
    with pytest.raises(UserError, match="APGD-CE, FAB-T and Square apply"):
        craft(three, x, y % 3, attack="autoattack", epsilon=0.1)
    for attack in ("pgd", "autoattack"):
        with pytest.raises(UserError, match="needs gradients"):
            craft(_NoGradient(classifier.model), x, y, attack=attack, epsilon=0.1)
    with pytest.raises(UserError, match="gives no gradients"):
        craft(classifier.predict, x, y, epsilon=0.1)


@pytest.mark.parametrize("attack", ["pgd", "fgsm"])
@pytest.mark.parametrize("form", ["module", "ART classifier", "log-softmax"])
def test_probabilities_are_not_taken_for_logits(
    attack: str, form: str, classifier: RecipeClassifier, held_out: Data
) -> None:
    from art.estimators.classification import PyTorchClassifier

    x, y = held_out
    settings_of = (
        {"attack": attack, "epsilon": 0.1, "steps": 5} if attack == "pgd" else {"attack": attack, "epsilon": 0.1}
    )
    last = nn.LogSoftmax(dim=1) if form == "log-softmax" else nn.Softmax(dim=1)
    network = nn.Sequential(classifier.model, last).eval()
    target = (
        PyTorchClassifier(network, nn.NLLLoss(), (1, 8, 8), 10, clip_values=(0, 1), device_type="cpu")
        if form == "ART classifier"
        else network
    )
    plain = craft(classifier.model, x[:24], y[:24], **settings_of)
    behind = craft(target, x[:24], y[:24], **settings_of)
    # the same optimum, to rounding: a softmax of a softmax would hardly be climbed
    assert abs(_accuracy(classifier.model, plain, y[:24]) - _accuracy(classifier.model, behind, y[:24])) <= 0.05
    if attack == "fgsm":
        # where a softmax is rounded to 1, its logarithm has no gradient
        assert float((plain != behind).mean()) < 0.2


def test_gradient_norms_of_a_softmax_are_those_of_its_logits(classifier: RecipeClassifier, held_out: Data) -> None:
    x, y = held_out
    network = nn.Sequential(classifier.model, nn.Softmax(dim=1)).eval()
    plain, behind = gradient_norms(classifier.model, x, y), gradient_norms(network, x, y)
    assert np.allclose(plain, behind, rtol=0.05, atol=1e-3)


def test_one_image_of_many_without_probabilities_is_not_enough() -> None:
    class Bounded(nn.Module):
        """Logits of which those to a black image happen to be a row of probabilities."""

        def forward(self, x: Tensor) -> Tensor:
            brightness = x.flatten(1).mean(1, keepdim=True)
            return torch.cat([0.5 + brightness, 0.5 + 2 * brightness], dim=1)

    x = np.linspace(0, 1, 8, dtype=np.float32)[:, None, None, None] * np.ones((8, 1, 4, 4), np.float32)
    found = gradient_norms(Bounded(), x, np.zeros(8, np.int64))
    assert np.allclose(found, [1 / 16 * float(torch.sigmoid(torch.tensor(b))) for b in x[:, 0, 0, 0]], rtol=1e-3)
