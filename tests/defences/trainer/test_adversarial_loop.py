"""Robust trainers: they make networks robust, from one seed, through ART's interface, and refuse nonsense."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn

from art_divqat.attacks.evasion import craft
from art_divqat.errors import UserError
from art_divqat.estimators import RecipeClassifier, TrainingRecipe, training_set
from art_divqat.models import build_model
from art_divqat.victims.registry import VICTIMS, robust_trainer

Data = tuple[NDArray[np.float32], NDArray[np.int64]]
NAMES = [name for name in VICTIMS if VICTIMS[name].trainer is not None]


@pytest.fixture(scope="module")
def digits() -> Data:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return (x[order] / 16).astype(np.float32).reshape(-1, 1, 8, 8), y[order].astype(np.int64)


def _fresh(model: str = "lenet5", epochs: int = 20, seed: int = 0) -> RecipeClassifier:
    network = build_model(model, (1, 8, 8), 10, seed=seed)
    return RecipeClassifier(network, (1, 8, 8), 10, TrainingRecipe(epochs=epochs, learning_rate=2e-3), seed=seed)


def _rates(classifier: Any, x: NDArray[np.float32], y: NDArray[np.int64], epsilon: float) -> tuple[float, float]:
    crafted = craft(classifier, x, y, epsilon=epsilon, steps=20)
    clean, robust = ((classifier.predict(z).argmax(1) == y).mean() for z in (x, crafted))
    return float(clean), float(robust)


@pytest.fixture(scope="module")
def standard(digits: Data) -> tuple[float, float]:
    classifier = _fresh("small-cnn", epochs=8)
    classifier.fit(digits[0][:600], digits[1][:600])
    return _rates(classifier, digits[0][1200:1400], digits[1][1200:1400], 0.15)


@pytest.mark.parametrize("name", ["robust", "robust-trades", "robust-awp", "robust-fast"])
def test_training_makes_robust(digits: Data, standard: tuple[float, float], name: str) -> None:
    x, y = digits
    classifier = _fresh("small-cnn", epochs=8)
    calls: list[tuple[int, int]] = []
    trainer = robust_trainer(name).build(
        classifier, epsilon=0.15, epochs=8, progress=lambda done, total: calls.append((done, total))
    )
    trainer.fit(x[:600], y[:600])
    clean, robust = _rates(classifier, x[1200:1400], y[1200:1400], 0.15)
    assert clean > 0.9
    assert robust > standard[1] + 0.15
    assert calls == [(step + 1, 80) for step in range(80)]
    assert len(trainer.history) == 8
    assert trainer.history[-1]["loss"] < trainer.history[0]["loss"]
    assert not classifier.model.training


def test_static_resists_its_own_examples_only(digits: Data) -> None:
    x, y = digits
    natural, static = _fresh(), _fresh()
    natural.fit(x[:800], y[:800])
    calls: list[tuple[int, int]] = []
    trainer = robust_trainer("robust-static").build(
        static, epsilon=0.15, epochs=10, progress=lambda done, total: calls.append((done, total))
    )
    trainer.fit(x[:800], y[:800])
    x_test, y_test = x[1200:1400], y[1200:1400]
    replayed = craft(natural, x_test, y_test, epsilon=0.15)
    accuracy = (static.predict(replayed).argmax(1) == y_test).mean()
    assert accuracy > (natural.predict(replayed).argmax(1) == y_test).mean() + 0.3
    assert _rates(static, x_test, y_test, 0.15)[1] < accuracy - 0.2
    assert calls[-1] == (10 * 13 + 10 * 25, 10 * 13 + 10 * 25)
    assert [done for done, _ in calls] == list(range(1, len(calls) + 1))


def test_static_keeps_its_progress_as_it_is_while_it_trains(digits: Data) -> None:
    seen: list[bool] = []

    def progress(done: int, total: int) -> None:
        seen.append(trainer.progress is progress)

    trainer = robust_trainer("robust-static").build(_fresh(), epsilon=0.1, epochs=1, progress=progress)
    trainer.fit(digits[0][:32], digits[1][:32])
    assert seen == [True, True]


@pytest.mark.parametrize("name", NAMES)
def test_one_seed_one_network_and_no_trace(digits: Data, name: str) -> None:
    x, y = digits[0][:96], digits[1][:96]
    before = x.copy(), y.copy()
    states = np.random.get_state()[1].copy(), torch.get_rng_state().clone()

    def weights(seed: int) -> torch.Tensor:
        torch.rand(3)
        classifier = _fresh("small-cnn", epochs=1)
        robust_trainer(name).build(classifier, epsilon=0.1, seed=seed, epochs=1, batch_size=32).fit(x, y)
        return torch.cat([value.flatten().float() for value in classifier.model.state_dict().values()])

    first = weights(1)
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))
    torch.set_rng_state(states[1])
    classifier = _fresh("small-cnn", epochs=1)
    robust_trainer(name).build(classifier, epsilon=0.1, epochs=1, batch_size=32).fit(x, np.eye(10)[y])
    assert np.array_equal(np.random.get_state()[1], states[0])
    assert torch.equal(torch.get_rng_state(), states[1])
    assert np.array_equal(x, before[0])
    assert np.array_equal(y, before[1])


@pytest.mark.parametrize("name", NAMES)
def test_art_classifier_sequential_and_scheduler(digits: Data, name: str) -> None:
    """What breaks ART's own trainers: convolutional Sequential, class ids, a scheduler of torch 2."""
    from art.defences.trainer import Trainer
    from art.estimators.classification import PyTorchClassifier

    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    classifier = PyTorchClassifier(
        network, nn.CrossEntropyLoss(), (1, 8, 8), 10, optimizer=optimizer, clip_values=(0, 1), device_type="cpu"
    )
    trainer = robust_trainer(name).build(classifier, epsilon=0.1)
    assert isinstance(trainer, Trainer)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    trainer.fit(digits[0][:64], digits[1][:64], nb_epochs=2, batch_size=32, scheduler=scheduler)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.025)
    assert trainer.predict(digits[0][:3]).shape == (3, 10)
    assert trainer.get_classifier() is classifier


def test_validation_keeps_the_most_robust_epoch(digits: Data) -> None:
    x, y = digits
    classifier = _fresh(epochs=6)
    trainer = robust_trainer("robust").build(classifier, epsilon=0.15, epochs=6)
    held_out = x[1000:1100], y[1000:1100]
    trainer.fit(x[:300], y[:300], validation_data=held_out)
    rates = [epoch["validation_robust_accuracy"] for epoch in trainer.history]
    assert trainer._validate(*trainer._validation(held_out))[1] == pytest.approx(max(rates), abs=1e-6)


def test_generator_trains_as_arrays_do(digits: Data) -> None:
    from art.data_generators import NumpyDataGenerator

    x, y = digits[0][:100], digits[1][:100]
    trainer = robust_trainer("robust").build(_fresh(epochs=2), epsilon=0.1, epochs=2)
    trainer.fit_generator(NumpyDataGenerator(x, y, batch_size=32))
    assert trainer.history[1]["loss"] < trainer.history[0]["loss"]
    with pytest.raises(UserError, match="all images"):
        robust_trainer("robust-static").build(_fresh(), epsilon=0.1).fit_generator(None)


def _still() -> RecipeClassifier:
    classifier = _fresh("small-cnn", epochs=1)
    classifier.recipe = TrainingRecipe(epochs=1, learning_rate=1e-30, weight_decay=0)
    return classifier


def test_awp_moves_weights_and_puts_them_back(digits: Data) -> None:
    """With a learning rate of zero nothing may remain of the perturbation, in weights or running statistics' count."""
    classifier = _still()
    before = [value.detach().clone() for value in classifier.model.parameters()]
    counts = classifier.model.features[0][1].num_batches_tracked
    trainer = robust_trainer("robust-awp").build(classifier, epsilon=0.1, epochs=1, batch_size=32, awp_warm_up=0.0)
    trainer.fit(digits[0][:64], digits[1][:64])
    after = list(classifier.model.parameters())
    # atol: even so small a step moves a bias that is zero
    assert all(torch.allclose(a, b, rtol=0, atol=1e-20) for a, b in zip(before, after, strict=True))
    assert int(counts) == 2
    plain = robust_trainer("robust").build(_still(), epsilon=0.1, epochs=1, batch_size=32)
    plain.fit(digits[0][:64], digits[1][:64])
    assert trainer.history[0]["loss"] > plain.history[0]["loss"] + 1e-3, "the loss is that at the worse weights"


def test_lower_precision_of_the_attack_makes_as_robust(digits: Data) -> None:
    x, y = digits
    rates = {}
    for precision in ("float32", "bfloat16"):
        classifier = _fresh("small-cnn", epochs=6)
        settings = {"epsilon": 0.15, "epochs": 6, "inner_precision": precision}
        robust_trainer("robust").build(classifier, **settings).fit(x[:500], y[:500])
        assert {value.dtype for value in classifier.model.parameters()} == {torch.float32}
        assert all(value.is_contiguous() for value in classifier.model.parameters())
        rates[precision] = _rates(classifier, x[1200:1400], y[1200:1400], 0.15)[1]
    assert abs(rates["float32"] - rates["bfloat16"]) < 0.12


def test_bad_input_is_one_sentence(digits: Data) -> None:
    build = robust_trainer("robust").build
    for arguments, message in [
        ({"epsilon": 8}, "8 / 255"),
        ({"epsilon": 0}, r"\(0, 1\]"),
        ({"epsilon": 0.1, "max_iter": 2, "eps_step": 0.01}, "never the edge"),
        ({"epsilon": 0.1, "epochs": 0}, "'nb_epochs'"),
        ({"epsilon": 0.1, "warm_up": 2}, "'warm_up'"),
        ({"epsilon": 0.1, "inner_precision": "float16"}, "'inner_precision'"),
    ]:
        with pytest.raises(UserError, match=message):
            build(_fresh(), **arguments)
    with pytest.raises(UserError, match="PyTorchClassifier"):
        build(object(), epsilon=0.1)
    with pytest.raises(UserError, match="did you mean"):
        robust_trainer("robust-trade")
    with pytest.raises(UserError, match="'quantized' has no adversarial trainer"):
        robust_trainer("quantized")
    trainer = build(_fresh(), epsilon=0.1, epochs=1)
    with pytest.raises(UserError, match="0–255"):
        trainer.fit(digits[0][:8] * 255, digits[1][:8])
    with pytest.raises(UserError, match="step"):
        trainer.fit(digits[0][:8], digits[1][:8], scheduler=3)
    with pytest.raises(UserError, match="'epochs'"):
        trainer.fit(digits[0][:8], digits[1][:8], epochs=3)
    with pytest.raises(UserError, match="at least one image"):
        trainer.fit(digits[0][:0], digits[1][:0])


@pytest.mark.parametrize("name", NAMES)
def test_a_recipes_later_options_are_those_of_robust_training_too(
    digits: Data, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = digits[0][:50], digits[1][:50]
    seen, moved, real = set(), [], training_set.crop_and_flip

    def trained(**options: Any) -> tuple[RecipeClassifier, list[dict[str, float]]]:
        recipe = TrainingRecipe(learning_rate=1e-3, **options)
        classifier = RecipeClassifier(build_model("lenet5", (1, 8, 8), 10, seed=0), (1, 8, 8), 10, recipe)

        def watch(module: nn.Module, given: Any, answer: torch.Tensor) -> None:
            seen.add((module.training, answer.dtype))

        classifier.model.register_forward_hook(watch)
        trainer = robust_trainer(name).build(
            classifier, epsilon=0.1, epochs=2, batch_size=25, inner_precision="float32"
        )
        trainer.fit(x, y)
        return classifier, trainer.history

    def counted(*given: Any) -> torch.Tensor:
        moved.append(real(*given))
        return moved[-1]

    monkeypatch.setattr(training_set, "crop_and_flip", counted)
    _, plain = trained()
    assert not moved
    assert {kind for training, kind in seen if training} == {torch.float32}
    seen.clear()
    one, history = trained(augmentation="crop-flip", label_smoothing=0.1, precision="bfloat16", warm_up=0.3)
    two, again = trained(augmentation="crop-flip", label_smoothing=0.1, precision="bfloat16", warm_up=0.3)
    # two runs of two epochs of two batches; the static trainer then trains on twice as many images as well
    assert len(moved) == (24 if name == "robust-static" else 8)
    assert {kind for training, kind in seen if training} == {torch.bfloat16}
    assert history == again != plain
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)
