"""Classifiers as ART's users build them, in every trainer: pixel ranges, single logits, losses, labels, networks."""

from __future__ import annotations

import contextlib
import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from art.attacks.evasion import ProjectedGradientDescent
from art.defences.postprocessor import Rounded
from art.defences.preprocessor import GaussianAugmentation
from art.estimators.classification import PyTorchClassifier
from support.trainer_helpers import SHAPE
from torch import nn
from torch.nn import functional

from art_divqat._rng import isolated_random_state
from art_divqat.attacks.evasion import craft, craft_worst_case, robustness_curve
from art_divqat.defences.postprocessor import Softmax
from art_divqat.defences.trainer import (
    DivQATTrainer,
    MadryPGDTrainer,
    PGDAdversary,
    QATTrainer,
    TradesTrainer,
    quantize_post_training,
    select_alpha,
)
from art_divqat.errors import LossMismatchWarning, UserError
from art_divqat.estimators import QuantizedPyTorchClassifier
from art_divqat.estimators.conventions import unit_predict


class Net(nn.Module):
    """A small network; `tail` ends it, and `heads` adds an auxiliary head in training mode, as GoogLeNet has it."""

    def __init__(self, width: int = 10, tail: nn.Module | None = None, heads: str = "") -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
        self.last, self.tail, self.heads = nn.Linear(512, width), tail, heads

    def forward(self, x: torch.Tensor):
        z = self.last(self.body(x))
        z = z if self.tail is None else self.tail(z)
        if self.heads == "always" or (self.heads == "training" and self.training):
            return z, 2 * z
        return {"logits": z} if self.heads == "dict" else z


def build(loss: Any = None, classes: int = 10, *, seed: int = 0, **options) -> Callable[..., PyTorchClassifier]:
    """A function that builds the classifier anew from the network's arguments."""

    def made(*arguments: Any, **more: Any) -> PyTorchClassifier:
        with isolated_random_state("net", seed):
            network = Net(*arguments)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
        settings = {"clip_values": (0, 1), **options, **more}
        criterion = nn.CrossEntropyLoss() if loss is None else loss
        return PyTorchClassifier(network, criterion, SHAPE, classes, optimizer, device_type="cpu", **settings)

    return made


@pytest.fixture(autouse=True)
def small_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("art_divqat.data.auxiliary.AUXILIARY_IMAGES", 90)


def right(classifier: Any, x: np.ndarray, y: np.ndarray) -> float:
    """Accuracy of an ART classifier whose single value, if it has one, is a logit."""
    answers = np.asarray(classifier.predict(x))
    top = answers[:, 0] > 0 if answers.shape[1] == 1 else answers.argmax(axis=1)
    return float(np.mean(top == y))


def trained(trainer: Any, x: np.ndarray, y: np.ndarray, **options) -> Any:
    settings = {} if isinstance(trainer, MadryPGDTrainer | TradesTrainer) else {"batch_size": 32, "nb_epochs": 3}
    trainer.fit(x, y, **settings, **options)
    return trainer.get_classifier()


def fit(classifier: PyTorchClassifier, x: np.ndarray, y: np.ndarray) -> None:
    """ART's own training, whose batches come from the global random state."""
    with isolated_random_state("fit"):
        classifier.fit(x, y, batch_size=32, nb_epochs=4)


TRAINERS: dict[str, Callable[[PyTorchClassifier], Any]] = {
    "qat": QATTrainer,
    "qat of adversarial examples": lambda c: QATTrainer(c, adversary=PGDAdversary(eps=0.05, steps=1)),
    "divqat": DivQATTrainer,
    "madry": lambda c: MadryPGDTrainer(c, epsilon=0.05, nb_epochs=3, max_iter=1, batch_size=32),
    "trades": lambda c: TradesTrainer(c, epsilon=0.05, beta=1.0, nb_epochs=3, max_iter=1, batch_size=32),
}
RANGES: dict[str, tuple[Any, Callable[[np.ndarray], np.ndarray], dict[str, Any]]] = {
    "0-255": ((0, 255), lambda x: 255 * x, {}),
    "uint8": ((0, 255), lambda x: np.round(255 * x).astype(np.uint8), {}),
    "uint8, standardised": ((0, 255), lambda x: np.round(255 * x).astype(np.uint8), {"preprocessing": (40.0, 80.0)}),
    "-1-1": ((-1, 1), lambda x: 2 * x - 1, {}),
    "by pixel": ((np.zeros(SHAPE), np.full(SHAPE, 255.0)), lambda x: 255 * x, {}),
}


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("name", RANGES)
def test_every_range_of_pixels_trains_as_well_as_the_unit_one(name: str, trainer: str, digits) -> None:
    x, y = digits
    clip_values, scaled, options = RANGES[name]
    classifier = build(clip_values=clip_values, **options)()
    fit(classifier, scaled(x[:600]).astype(np.float32), y[:600])
    images = scaled(x)
    result = trained(
        TRAINERS[trainer](classifier), images[:600], y[:600], validation_data=(images[600:700], y[600:700])
    )
    assert right(result, images[1000:], y[1000:]) > 0.85
    assert result.clip_values is not None


def test_the_same_network_in_another_range_is_trained_alike(digits) -> None:
    """0-255 with a division in the preprocessing is the network on [0, 1]: adversary, mixture and answers included."""
    x, y = digits
    mine = np.clip(1 - x[700:760], 0, 1)
    answers = []
    for scale, options in ((1, {}), (255, {"preprocessing": (0.0, 255.0)})):
        classifier = build(clip_values=(0, scale), **options)()
        trainer = DivQATTrainer(classifier, auxiliary=scale * mine, adversary=PGDAdversary(eps=0.1, steps=2), seed=3)
        answers.append(trained(trainer, scale * x[:200], y[:200]).predict(scale * x[700:800]))
    assert float(np.mean(answers[0].argmax(1) == answers[1].argmax(1))) >= 0.97
    assert float(np.abs(answers[0] - answers[1]).mean()) < 0.1 * answers[0].std()


def test_art_pgd_settings_are_in_the_units_of_its_classifier() -> None:
    for scale in (1, 255):
        classifier = build(clip_values=(0, scale))()
        attack = ProjectedGradientDescent(classifier, eps=0.1 * scale, eps_step=0.03 * scale, max_iter=4, verbose=False)
        adversary = QATTrainer(classifier, adversary=attack).adversary
        assert adversary is not None
        assert (adversary.eps, adversary.step) == (pytest.approx(0.1), pytest.approx(0.03))
    by_pixel = build(clip_values=(np.zeros(SHAPE), 1 + np.arange(64.0).reshape(SHAPE)))()
    with pytest.raises(UserError, match="give a PGDAdversary instead"):
        QATTrainer(by_pixel, adversary=ProjectedGradientDescent(by_pixel, eps=0.1, eps_step=0.05, verbose=False))


@pytest.mark.parametrize("subject", ["images", "auxiliary"])
def test_unit_images_for_a_classifier_of_grey_levels_are_refused(subject: str, digits) -> None:
    x, y = digits
    classifier = build(clip_values=(0, 255))()
    trainer = QATTrainer(classifier)
    with pytest.raises(UserError, match=r"lie in \[0, 1\], the classifier's clip_values reach 255"):
        DivQATTrainer(classifier, auxiliary=x[:50]) if subject == "auxiliary" else trainer.fit(x[:50], y[:50])


def test_robust_training_needs_finite_clip_values() -> None:
    with pytest.raises(UserError, match="finite"):
        MadryPGDTrainer(build(clip_values=(-np.inf, np.inf))(), epsilon=0.1)


def test_crafting_shows_a_classifier_images_in_its_range(digits) -> None:
    """The same network on [0, 1] and behind a division on 0-255: the examples are the same."""
    x, y = digits
    plain = build()()
    fit(plain, x[:600], y[:600])
    grey = PyTorchClassifier(
        plain.model,
        nn.CrossEntropyLoss(),
        SHAPE,
        10,
        clip_values=(0, 255),
        preprocessing=(0.0, 255.0),
        device_type="cpu",
    )
    crafted = [craft(c, x[600:640], y[600:640], epsilon=0.1, steps=4) for c in (plain, grey)]
    assert np.mean(np.abs(crafted[0] - crafted[1]) < 1e-5) > 0.98
    assert right(plain, crafted[1], y[600:640]) < right(plain, x[600:640], y[600:640]) - 0.2
    curves = [
        robustness_curve(c, x[600:640], y[600:640], epsilons=[0, 0.1], predict=c.predict, steps=4)
        for c in (plain, grey)
    ]
    assert curves[0] == pytest.approx(curves[1], abs=0.05)
    int8 = quantize_post_training(grey, 255 * x[:200])
    worst, _ = craft_worst_case(int8, x[600:620], y[600:620], epsilon=0.1, parent=grey, steps=4, square_queries=20)
    before, after = (np.mean(unit_predict(int8)(z).argmax(1) == y[600:620]) for z in (x[600:620], worst))
    assert after < before - 0.2


@pytest.mark.parametrize(
    ("shape", "clip_values", "message"),
    [((2, 8, 8), (0, 1), "1 or 3 channels"), ((1, 8, 8), (0, np.inf), "finite clip_values")],
)
def test_a_mixture_that_cannot_be_made_is_refused_at_construction(shape, clip_values, message: str) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), 3))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    classifier = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), shape, 3, optimizer, clip_values=clip_values, device_type="cpu"
    )
    with pytest.raises(UserError, match=message):
        DivQATTrainer(classifier)
    DivQATTrainer(classifier, auxiliary=np.full((4, *shape), 0.5), auxiliary_mixture=False)


SINGLE: dict[str, tuple[nn.Module, nn.Module | None]] = {
    "logit": (nn.BCEWithLogitsLoss(), None),
    "weighted logit": (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([2.0])), None),
    "probability": (nn.BCELoss(), nn.Sigmoid()),
}


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("name", SINGLE)
def test_a_single_value_is_two_classes(name: str, trainer: str, digits) -> None:
    x, y = digits[0], (digits[1] % 2).astype(np.int64)
    loss, tail = SINGLE[name]
    classifier = build(loss, 2)(1, tail)
    fit(classifier, x[:600], y[:600])
    labels = {"qat": y, "divqat": y[:, None].astype(np.float32)}.get(trainer, np.eye(2, dtype=np.float32)[y])
    result = trained(
        TRAINERS[trainer](classifier), x[:600], labels[:600], validation_data=(x[600:700], labels[600:700])
    )
    answers = result.predict(x[1000:])
    assert answers.shape == (len(x) - 1000, 1)
    assert np.mean((answers[:, 0] > (0.5 if name == "probability" else 0)) == y[1000:]) > 0.85


def test_an_int8_classifier_of_a_single_logit_is_an_art_classifier(digits, tmp_path) -> None:
    x, y = digits[0], (digits[1] < 5).astype(np.int64)
    classifier = build(nn.BCEWithLogitsLoss(), 2, postprocessing_defences=[Softmax()])(1)
    fit(classifier, x[:600], y[:600])
    int8 = quantize_post_training(classifier, x[:300], architecture=lambda: Net(1))
    served = int8.predict(x[1000:])
    assert served.shape == (797, 1)
    assert np.mean((served[:, 0] > 0.5) == y[1000:]) > 0.85
    assert int8.predict(x[:0]).shape == (0, 1)
    assert 0.9 < int8.agreement_with_twin(x[1000:]) <= 1
    for labels in (y[:5], np.eye(2, dtype=np.float32)[y[:5]], torch.from_numpy(np.eye(2, dtype=np.float32)[y[:5]])):
        images = torch.from_numpy(x[:5]) if isinstance(labels, torch.Tensor) else x[:5]
        assert np.abs(np.asarray(int8.loss_gradient(images, labels))).max() > 0
    assert int8.class_gradient(x[:5]).shape == (5, 1, *SHAPE)
    with pytest.raises(UserError, match="leave label out"):
        int8.class_gradient(x[:5], label=1)
    assert int8.compute_loss(x[:5], y[:5]).shape == (5, 1)
    attack = ProjectedGradientDescent(int8, eps=0.2, eps_step=0.05, max_iter=5, verbose=False)
    with isolated_random_state("pgd"):
        adversarial = attack.generate(x[1000:1060], np.eye(2, dtype=np.float32)[y[1000:1060]])
    assert np.mean((int8.predict(adversarial)[:, 0] > 0.5) == y[1000:1060]) < 0.5
    for name in ("pgd", "square"):
        crafted = craft(int8, x[1000:1060], y[1000:1060], attack=name, epsilon=0.2, steps=20)
        assert np.mean((int8.predict(crafted)[:, 0] > 0.5) == y[1000:1060]) < 0.8
    int8.save("one", tmp_path)
    loaded = QuantizedPyTorchClassifier.load(
        tmp_path / "one", architecture=lambda: Net(1), postprocessing_defences=[Softmax()]
    )
    assert isinstance(loaded.loss, nn.BCEWithLogitsLoss)
    np.testing.assert_array_equal(loaded.predict(x[:50]), int8.predict(x[:50]))
    report = int8.export(tmp_path / "one.pt", "torchscript", softmax=True)
    assert report.agreement == 1
    with torch.no_grad():
        exported = torch.jit.load(tmp_path / "one.pt")(torch.from_numpy(x[:50])).numpy()
    np.testing.assert_allclose(exported, int8.predict(x[:50]), atol=1e-5)


def test_the_weight_of_a_network_of_a_single_logit_can_be_chosen(digits) -> None:
    x, y = digits[0], (digits[1] % 2).astype(np.int64)
    classifier = build(nn.BCEWithLogitsLoss(), 2)(1)
    fit(classifier, x[:600], y[:600])
    found = select_alpha(
        classifier, x[:300], y[:300], (x[600:800], y[600:800, None]), 1 - x[:100], candidates=[(0.0, 0.5)],
        fit_options={"nb_epochs": 2},
    )  # fmt: skip
    assert found.plain_accuracy > 0.85
    assert len({candidate.agreement for candidate in found.candidates}) == 2


LOSSES: dict[str, tuple[Any, nn.Module | None]] = {
    "label smoothing": (nn.CrossEntropyLoss(label_smoothing=0.2), None),
    "class weights": (nn.CrossEntropyLoss(weight=torch.linspace(0.5, 2, 10)), None),
    "negative log-likelihood": (nn.NLLLoss(), nn.LogSoftmax(dim=1)),
    "softmax last": (nn.CrossEntropyLoss(), nn.Softmax(dim=1)),
    "class indices": (nn.MultiMarginLoss(), None),
    "squares": (nn.MSELoss(), None),
    "a function": (functional.cross_entropy, None),
}
_QUANTIZING = ("qat", "divqat")


@pytest.mark.parametrize("trainer", [*_QUANTIZING, "madry"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_labels(name: str, trainer: str, digits) -> None:
    x, y = digits
    loss, tail = LOSSES[name]
    classifier = build(loss)(10, tail)
    with contextlib.suppress(RuntimeError):
        fit(classifier, x[:600], np.eye(10, dtype=np.float32)[y[:600]])
    given = y if trainer == "qat" else np.eye(10, dtype=np.float32)[y]
    if trainer == "madry" and not isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)):
        with pytest.raises(UserError, match=r"needs a classifier whose loss is .*CrossEntropyLoss"):
            TRAINERS[trainer](classifier)
        return
    result = trained(TRAINERS[trainer](classifier), x[:600], given[:600])
    assert right(result, x[1000:], y[1000:]) > 0.8


_REPLACED = {"class indices": "MultiMarginLoss", "squares": "MSELoss"}


class FunctionalSoftmax(nn.Module):
    """A softmax that no module shows."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return functional.softmax(z, dim=1)


@pytest.mark.parametrize("trainer", _QUANTIZING)
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_that_is_another_one_than_the_classifiers_is_named(name: str, trainer: str) -> None:
    loss, tail = LOSSES[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        TRAINERS[trainer](build(loss)(10, tail))
    messages = [str(each.message) for each in caught if each.category is LossMismatchWarning]
    if name == "softmax last":
        assert len(messages) == 1
        assert "answers of Net for logits, and they are probabilities" in messages[0]
    elif name in _REPLACED:
        assert len(messages) == 1
        assert f"trains by cross-entropy, not by the classifier's {_REPLACED[name]}:" in messages[0]
    else:
        assert messages == []


@pytest.mark.parametrize("trainer", ["qat", "divqat", "madry", "trades"])
def test_probabilities_are_seen_in_the_answers_whatever_makes_them(trainer: str) -> None:
    with pytest.warns(LossMismatchWarning, match="they are probabilities"):
        TRAINERS[trainer](build()(10, FunctionalSoftmax()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # positive logits are no probabilities, nor is one probability the class of two
        TRAINERS[trainer](build()(10, nn.Softplus()))
        TRAINERS[trainer](build(nn.BCEWithLogitsLoss(), 2)(1))


def test_class_weights_decide_what_is_learnt(digits) -> None:
    """A class of weight 0 is not learnt, by any trainer that takes the weights over."""
    x, y = digits
    weight = torch.ones(10)
    weight[3] = 0
    for name in (*_QUANTIZING, "madry"):
        classifier = build(nn.CrossEntropyLoss(weight=weight))()
        fit(classifier, x[:600], y[:600])
        result = trained(TRAINERS[name](classifier), x[:600], y[:600])
        recall = [np.mean(result.predict(x[y == k]).argmax(1) == k) for k in (3, 4)]
        assert recall[0] < 0.2 < 0.8 < recall[1], name


def test_preprocessing_and_postprocessing_of_art_stay(digits) -> None:
    x, y = digits
    classifier = build(
        preprocessing=(np.array([0.3]), np.array([0.4])),
        preprocessing_defences=GaussianAugmentation(
            sigma=0.05, augmentation=False, apply_fit=True, apply_predict=False
        ),
        postprocessing_defences=[Softmax(), Rounded(decimals=2)],
    )()
    fit(classifier, x[:600], y[:600])
    for trainer in (QATTrainer(classifier), DivQATTrainer(classifier)):
        answers = trained(trainer, x[:600], y[:600]).predict(x[1000:])
        assert np.mean(answers.argmax(1) == y[1000:]) > 0.85
        np.testing.assert_allclose(answers, answers.round(2), atol=1e-6)


HEADS = {
    "dict": r"gives a dict of 'logits': wrap it in a module whose forward returns network\(x\)\['logits'\]",
    "always": r"gives a tuple of 2: wrap it in a module whose forward returns network\(x\)\[0\]",
}


@pytest.mark.parametrize("kind", HEADS)
def test_networks_that_give_no_tensor_are_refused_at_construction(kind: str, digits) -> None:
    classifier = build()(10, None, kind)
    makers = [*TRAINERS.values(), lambda c: quantize_post_training(c, digits[0][:10])]
    makers.append(lambda c: craft(c, digits[0][:2], digits[1][:2], epsilon=0.1))
    for make in makers:
        with pytest.raises(UserError, match=HEADS[kind]):
            make(classifier)


PT2E = pytest.param(
    "pt2e", marks=[pytest.mark.slow, pytest.mark.skipif(not importlib.util.find_spec("torchao"), reason="torchao")]
)


@pytest.mark.parametrize("backend", ["fx", PT2E])
def test_auxiliary_heads_of_training_mode(digits, backend: str) -> None:
    """ART answers with such a network. It is trained by its logits, as if it had no such heads."""
    x, y = digits
    robust = trained(TRAINERS["madry"](build()(10, None, "training")), x[:600], y[:600])
    assert right(robust, x[1000:], y[1000:]) > 0.85
    first, second = (
        trained(QATTrainer(build()(10, None, heads), backend=backend), x[:600], y[:600]) for heads in ("training", "")
    )
    assert np.array_equal(first.predict(x[1000:]), second.predict(x[1000:]))


def test_torchvision_auxiliary_heads_work() -> None:
    models = pytest.importorskip("torchvision.models")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = models.googlenet(weights=None, aux_logits=True, num_classes=4, init_weights=False)
    shape = (3, 64, 64)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    classifier = PyTorchClassifier(network, nn.CrossEntropyLoss(), shape, 4, optimizer, device_type="cpu")
    x, y = np.random.default_rng(0).random((4, *shape), dtype=np.float32), np.arange(4)
    trainer = QATTrainer(classifier)
    trainer.fit(x, y, nb_epochs=1)
    assert trainer.predict(x).shape == (4, 4)
