"""QATTrainer: an int8 classifier comes out, and nothing that went in has changed."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import random

import numpy as np
import pytest
import torch
from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
from art.data_generators import NumpyDataGenerator
from art.estimators.classification import BlackBoxClassifier, PyTorchClassifier
from support.trainer_helpers import SHAPE, fresh_classifier
from torch import nn

from art_divqat._rng import isolated_random_state
from art_divqat.defences.trainer import DivQATTrainer, PGDAdversary, QATTrainer, quantize_post_training
from art_divqat.errors import UserError
from art_divqat.estimators import QuantizedPyTorchClassifier
from art_divqat.models import build_model
from art_divqat.quantization.backend import FrozenNetwork

PT2E = pytest.param(
    "pt2e", marks=[pytest.mark.slow, pytest.mark.skipif(not importlib.util.find_spec("torchao"), reason="")]
)


def accuracy(classifier, x, y) -> float:
    return float(np.mean(classifier.predict(x).argmax(1) == y))


def state(classifier) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in classifier.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("backend", ["fx", PT2E])
def test_int8_accuracy_and_untouched_inputs(backend: str, digits, teacher) -> None:
    x, y = digits
    x_train, y_train = x[:1000].copy(), y[:1000].copy()
    weights, mode = state(teacher), teacher.model.training
    optimizer = copy.deepcopy(teacher.optimizer.state_dict())
    trainer = QATTrainer(teacher, backend=backend, seed=1)
    trainer.fit(x_train, y_train, nb_epochs=4, validation_data=(x[1000:1300], y[1000:1300]))
    assert accuracy(trainer.get_classifier(), x[1300:], y[1300:]) >= accuracy(teacher, x[1300:], y[1300:]) - 0.01
    assert isinstance(trainer.get_classifier(), QuantizedPyTorchClassifier)
    np.testing.assert_array_equal(trainer.predict(x[:9]), trainer.get_classifier().predict(x[:9]))
    assert trainer.classifier is teacher
    assert same(weights, state(teacher))
    assert teacher.model.training == mode
    assert str(teacher.optimizer.state_dict()) == str(optimizer)
    np.testing.assert_array_equal(x_train, x[:1000])
    np.testing.assert_array_equal(y_train, y[:1000])


def test_history_and_progress(digits, lenet_teacher) -> None:
    x, y = digits
    calls = []
    trainer = QATTrainer(lenet_teacher)
    trainer.fit(x[:300], y[:300], (x[1000:1100], y[1000:1100]), 100, 4, progress=lambda *step: calls.append(step))
    assert [record.epoch for record in trainer.history] == [1, 2, 3, 4]
    assert [record.frozen for record in trainer.history] == [False, False, False, True]
    assert calls[0] == (1, 12, "epoch 1/4")
    assert calls[-2:] == [(12, 12, "epoch 4/4"), (12, 12, "int8 network")]
    best = max(record.validation_accuracy for record in trainer.history if record.frozen)
    twin = trainer.get_classifier().twin
    with torch.no_grad():
        kept = (twin(torch.from_numpy(x[1000:1100])).argmax(1).numpy() == y[1000:1100]).mean()
    assert kept == pytest.approx(best)


def test_same_seed_same_bits_and_no_global_randomness(digits, lenet_teacher) -> None:
    x, y = digits
    answers = []
    for seed, disturbance in ((3, 0), (3, 1), (4, 0)):
        random.seed(disturbance), np.random.seed(disturbance), torch.manual_seed(disturbance)
        before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
        trainer = QATTrainer(lenet_teacher, seed=seed, adversary=PGDAdversary(eps=0.05, steps=1))
        trainer.fit(x[:200], y[:200], nb_epochs=2)
        assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
        answers.append(trainer.predict(x[:50]))
    np.testing.assert_array_equal(answers[0], answers[1])
    assert not np.array_equal(answers[0], answers[2])


def test_fitting_twice_starts_again(digits, lenet_teacher) -> None:
    x, y = digits
    trainer = QATTrainer(lenet_teacher)
    trainer.fit(x[:200], y[:200], nb_epochs=1)
    first = trainer.predict(x[:50])
    trainer.fit(x[:200], y[:200], nb_epochs=1)
    np.testing.assert_array_equal(first, trainer.predict(x[:50]))
    assert len(trainer.history) == 1


def test_one_hot_and_class_ids_agree_and_soft_labels_count(digits, lenet_teacher) -> None:
    x, y = digits
    rows = np.eye(10, dtype=np.float32)[y[:200]]
    answers = []
    for labels in (y[:200], rows, 0.5 * rows + 0.05):
        trainer = QATTrainer(lenet_teacher)
        trainer.fit(x[:200], labels, nb_epochs=1)
        answers.append(trainer.predict(x[:50]))
    np.testing.assert_array_equal(answers[0], answers[1])
    assert not np.array_equal(answers[0], answers[2])


def test_preprocessing_is_applied_once(digits, lenet_teacher) -> None:
    """A classifier of standardised images must give what the same network gives on images standardised by hand."""
    x, y = digits
    mean, std = np.float32(0.25), np.float32(0.5)
    standardised = ((x - mean) / std).astype(np.float32)

    def wrapped(**options) -> PyTorchClassifier:
        network = build_model("lenet5", SHAPE, 10, seed=0)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
        return PyTorchClassifier(network, nn.CrossEntropyLoss(), SHAPE, 10, optimizer, device_type="cpu", **options)

    inside = QATTrainer(wrapped(preprocessing=(mean, std), clip_values=(0, 1)))
    by_hand = QATTrainer(wrapped())
    inside.fit(x[:200], y[:200], (x[200:250], y[200:250]), nb_epochs=2)
    by_hand.fit(standardised[:200], y[:200], (standardised[200:250], y[200:250]), nb_epochs=2)
    np.testing.assert_allclose(inside.predict(x[:50]), by_hand.predict(standardised[:50]), atol=1e-5)
    assert [r.validation_accuracy for r in inside.history] == [r.validation_accuracy for r in by_hand.history]


def test_generator_trains_like_fit_would(digits, lenet_teacher) -> None:
    x, y = digits
    trainer = QATTrainer(lenet_teacher)
    with isolated_random_state("generator"):
        generator = NumpyDataGenerator(x[:300], np.eye(10)[y[:300]], batch_size=50, shuffle=True)
        trainer.fit_generator(generator, nb_epochs=4)
    assert accuracy(trainer.get_classifier(), x[1300:], y[1300:]) > accuracy(lenet_teacher, x[1300:], y[1300:]) - 0.05
    assert len(trainer.history) == 4


@pytest.mark.parametrize("kind", ["bound", "function", "plateau"])
def test_schedulers_act_on_the_new_optimizer_and_are_given_back(kind: str, digits, lenet_teacher) -> None:
    x, y = digits
    schedule = torch.optim.lr_scheduler
    if kind == "bound":
        scheduler = schedule.StepLR(lenet_teacher.optimizer, 1, gamma=0.1)
    elif kind == "function":
        scheduler = lambda optimizer: schedule.StepLR(optimizer, 1, gamma=0.1)  # noqa: E731
    else:
        scheduler = schedule.ReduceLROnPlateau(lenet_teacher.optimizer, patience=0, factor=0.1, threshold=1e6)
    before = lenet_teacher.optimizer.param_groups[0]["lr"]
    trainer = QATTrainer(lenet_teacher)
    trainer.fit(x[:100], y[:100], nb_epochs=3, scheduler=scheduler)
    rates = [record.learning_rate for record in trainer.history]
    assert rates[-1] == pytest.approx(rates[0] * (0.1 if kind == "plateau" else 0.01))
    assert lenet_teacher.optimizer.param_groups[0]["lr"] == before
    if kind != "function":
        assert scheduler.optimizer is lenet_teacher.optimizer


def test_last_batch_of_one_with_batch_norm(digits, teacher) -> None:
    x, y = digits
    trainer = QATTrainer(teacher)
    trainer.fit(x[:33], y[:33], batch_size=16, nb_epochs=1)
    assert np.isfinite(trainer.predict(x[:5])).all()


def test_adversary_makes_the_int8_network_robust(digits, teacher) -> None:
    x, y = digits
    robust_accuracy = {}
    for name, adversary in (("plain", None), ("robust", PGDAdversary(eps=0.2, steps=5))):
        trainer = QATTrainer(teacher, adversary=adversary)
        trainer.fit(x[:1000], y[:1000], nb_epochs=4)
        attack = ProjectedGradientDescent(trainer.get_classifier(), eps=0.2, eps_step=0.04, max_iter=10, verbose=False)
        with isolated_random_state("pgd"):
            adversarial = attack.generate(x[1500:1600], np.eye(10, dtype=np.float32)[y[1500:1600]])
        robust_accuracy[name] = accuracy(trainer.get_classifier(), adversarial, y[1500:1600])
    assert robust_accuracy["robust"] > robust_accuracy["plain"] + 0.2


def test_adversary_stays_in_the_ball_in_pixel_units(digits) -> None:
    x, y = digits
    mean, std = np.float32(0.2), np.float32(0.4)
    network = build_model("lenet5", SHAPE, 10, seed=0)
    classifier = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), SHAPE, 10, torch.optim.SGD(network.parameters(), lr=0.01),
        clip_values=(0, 1), preprocessing=(mean, std), device_type="cpu",
    )  # fmt: skip
    trainer = QATTrainer(classifier, adversary=ProjectedGradientDescent(classifier, eps=0.1, eps_step=0.03, max_iter=4))
    assert trainer.adversary == PGDAdversary(eps=0.1, step=0.03, steps=4, random_start=False)
    images, labels = torch.from_numpy((x[:20] - mean) / std), torch.from_numpy(y[:20])
    perturbed = trainer.adversary.perturb(network.eval(), images, labels, torch.Generator(), trainer._bounds)
    pixels = (perturbed * std + mean).numpy()
    assert np.abs(pixels - x[:20]).max() == pytest.approx(0.1, abs=1e-5)
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6
    with torch.no_grad():
        losses = [nn.functional.cross_entropy(network(z), labels) for z in (images, perturbed)]
    assert losses[1] > losses[0]


def test_post_training_quantization(digits, teacher) -> None:
    x, y = digits
    weights = state(teacher)
    classifier = quantize_post_training(teacher, x[:500], architecture="small-cnn")
    assert accuracy(classifier, x[1300:], y[1300:]) >= accuracy(teacher, x[1300:], y[1300:]) - 0.01
    assert same(weights, state(teacher))
    with pytest.raises(UserError, match="at least one batch"):
        quantize_post_training(teacher, x[:0])


class Damaged(nn.Module):
    """An int8 network that conversion has made into another one."""

    def __init__(self, network: nn.Module, damage) -> None:
        super().__init__()
        self.network, self.damage = network, damage

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.damage(self.network(x))


DAMAGE = {
    "random": (lambda h: nn.functional.dropout(h, 0.3), "int8 network is not a function: two answers to the same"),
    "by batch": (lambda h: h - h.mean(0), "int8 network is not a function of the image.*neighbours in the batch"),
    "other classes": (lambda h: h.roll(1, dims=1), "int8 network's accuracy is 0.* where the fake-quantized network"),
    "not finite": (lambda h: h / 0, "int8 network answers with values that are not finite"),
    "cannot be run": (lambda h: h @ torch.ones(7, 1), "int8 network cannot be run .*try the other backend"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_what_conversion_gives_is_checked_before_it_is_returned(kind: str, digits, lenet_teacher, monkeypatch) -> None:
    x, y = digits
    damage, message = DAMAGE[kind]
    backend = importlib.import_module("art_divqat.quantization.fx").Backend
    convert = backend.convert
    monkeypatch.setattr(backend, "convert", lambda self, prepared: Damaged(convert(self, prepared), damage))
    for trainer in (QATTrainer(lenet_teacher), DivQATTrainer(lenet_teacher, auxiliary=x[1300:1400])):
        with pytest.raises(UserError, match=message):
            trainer.fit(x[:300], y[:300], nb_epochs=2)
        with pytest.raises(UserError, match="call fit first"):
            trainer.get_classifier()
    # without labels it is the answers that are compared
    with pytest.raises(UserError, match=message if kind != "other classes" else "root mean square"):
        quantize_post_training(lenet_teacher, x[:300])


def test_the_fake_quantized_network_is_checked_too(digits, lenet_teacher, monkeypatch) -> None:
    x, y = digits
    forward, damage = FrozenNetwork.forward, DAMAGE["random"][0]
    monkeypatch.setattr(FrozenNetwork, "forward", lambda self, images: damage(forward(self, images)))
    with pytest.raises(UserError, match="fake-quantized network is not a function"):
        QATTrainer(lenet_teacher).fit(x[:300], y[:300], nb_epochs=1)


class NonFinite(nn.Module):
    """Gives NaN once its weight has left its start: a training that diverges after its first epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1)) * 1e20


def test_divergence_is_a_sentence(digits) -> None:
    x, y = digits
    network = NonFinite()
    classifier = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), SHAPE, 10, torch.optim.SGD(network.parameters(), lr=1e30), device_type="cpu"
    )
    trainer = QATTrainer(classifier)
    with pytest.raises(UserError, match=r"Training stopped in epoch \d of 5: the loss is not finite"):
        trainer.fit(x[:100], y[:100], nb_epochs=5, batch_size=50)
    with pytest.raises(UserError, match="call fit first"):
        trainer.get_classifier()


def test_divergence_keeps_the_best_validation_state(digits, lenet_teacher) -> None:
    x, y = digits

    class Explode:
        def __init__(self, optimizer) -> None:
            self.group, self.epochs = optimizer.param_groups[0], 0

        def step(self) -> None:
            self.epochs += 1
            if self.epochs == 2:
                self.group["lr"] = float("nan")

    trainer = QATTrainer(lenet_teacher)
    with pytest.raises(UserError, match="the best validation state so far was kept"):
        trainer.fit(x[:300], y[:300], (x[1000:1300], y[1000:1300]), nb_epochs=8, scheduler=Explode)
    assert len(trainer.history) == 2
    with torch.no_grad():
        kept = trainer.get_classifier().twin(torch.from_numpy(x[1000:1300])).argmax(1).numpy() == y[1000:1300]
    assert kept.mean() == pytest.approx(max(record.validation_accuracy for record in trainer.history))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1)) if x.mean() > 0 else self.linear(-x.flatten(1))


def with_network(network: nn.Module, **options) -> PyTorchClassifier:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    return PyTorchClassifier(network, nn.CrossEntropyLoss(), SHAPE, 10, optimizer, device_type="cpu", **options)


X, Y = np.zeros((4, *SHAPE), np.float32), np.arange(4)
BAD = {
    "black box": (lambda: QATTrainer(BlackBoxClassifier(lambda x: x, SHAPE, 10)), "PyTorchClassifier. Got 'BlackBox"),
    "no optimizer": (
        lambda: QATTrainer(PyTorchClassifier(NonFinite(), nn.CrossEntropyLoss(), SHAPE, 10, device_type="cpu")),
        "with an optimizer",
    ),
    "backend": (lambda: QATTrainer(fresh_classifier(), backend="gptq"), "one of 'fx', 'pt2e'"),
    "engine": (lambda: QATTrainer(fresh_classifier(), engine="cuda"), "choose one of"),
    "learning rate": (lambda: QATTrainer(fresh_classifier(), learning_rate=0), "learning_rate"),
    "adversary": (lambda: QATTrainer(fresh_classifier(), adversary="pgd"), "PGDAdversary"),
    "other attack": (
        lambda: QATTrainer(fresh_classifier(), adversary=FastGradientMethod(fresh_classifier())),
        "ProjectedGradientDescent",
    ),
    "norm": (
        lambda: QATTrainer(
            fresh_classifier(), adversary=ProjectedGradientDescent(fresh_classifier(), norm=2, verbose=False)
        ),
        "L∞",
    ),
    "no clip values": (lambda: QATTrainer(with_network(NonFinite()), adversary=PGDAdversary()), "clip_values"),
    "untraceable": (lambda: QATTrainer(with_network(Branching())).fit(X, Y), "cannot trace Branching at .*x.mean"),
    "batch of one": (lambda: QATTrainer(fresh_classifier()).fit(X, Y, batch_size=1), "batches of one"),
    "one image": (lambda: QATTrainer(fresh_classifier()).fit(X[:1], Y[:1]), "batches of one"),
    "no images": (lambda: QATTrainer(fresh_classifier()).fit(X[:0], Y[:0]), "at least one"),
    "fewer labels": (lambda: QATTrainer(fresh_classifier()).fit(X, Y[:3]), "as many labels"),
    "shape": (lambda: QATTrainer(fresh_classifier()).fit(X[..., 1:], Y), r"shape \(N, 1, 8, 8\). Got \(4, 1, 8, 7\)"),
    "range": (lambda: QATTrainer(fresh_classifier()).fit(255 * (X + 1), Y), r"lie in \[0, 1\]"),
    "nan": (lambda: QATTrainer(fresh_classifier()).fit(X * np.nan, Y), "not finite"),
    "label": (lambda: QATTrainer(fresh_classifier()).fit(X, Y + 9), "from 0 to 9"),
    "label row": (lambda: QATTrainer(fresh_classifier()).fit(X, np.eye(4)), "rows of 10 values"),
    "epochs": (lambda: QATTrainer(fresh_classifier()).fit(X, Y, nb_epochs=0), "nb_epochs"),
    "scheduler": (lambda: QATTrainer(fresh_classifier()).fit(X, Y, scheduler=3), r"must have step\(\)"),
    "validation": (lambda: QATTrainer(fresh_classifier()).fit(X, Y, validation_data=(X,)), "a pair, images and labels"),
    "unfitted": (lambda: QATTrainer(fresh_classifier()).predict(X), "call fit first"),
    "ptq": (lambda: quantize_post_training(None, X), "PyTorchClassifier"),
    "eps": (lambda: PGDAdversary(eps=0), "eps"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence(name: str) -> None:
    call, message = BAD[name]
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
