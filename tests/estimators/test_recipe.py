"""The training loop: as good as ART's `fit`, from its own seed, without copying its images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from art.estimators.classification import PyTorchClassifier
from support.digits_victim import SHAPE, digits, thief
from torch import nn

from art_divqat.errors import UserError
from art_divqat.estimators import RecipeClassifier, TrainingRecipe, recipe, training_set
from art_divqat.models import build_model


def accuracy(classifier: PyTorchClassifier) -> float:
    images, labels = digits()
    return float((classifier.predict(images[1300:]).argmax(1) == labels[1300:]).mean())


def test_trains_as_well_as_art_fit() -> None:
    images, labels = digits()
    ours, arts = [], []
    for seed in range(3):
        recipe = TrainingRecipe(epochs=8, learning_rate=3e-3, schedule="constant")
        loop = RecipeClassifier(build_model("lenet5", SHAPE, 10, seed=seed), SHAPE, 10, recipe, seed=seed)
        loop.fit(images[:600], labels[:600])
        ours.append(accuracy(loop))
        network = build_model("lenet5", SHAPE, 10, seed=seed)
        classifier = PyTorchClassifier(
            network, nn.CrossEntropyLoss(), SHAPE, 10, recipe.build_optimizer(network), device_type="cpu"
        )
        classifier.fit(images[:600], labels[:600], batch_size=64, nb_epochs=8)
        arts.append(accuracy(classifier))
    assert min(ours) > 0.7
    assert abs(np.mean(ours) - np.mean(arts)) < 0.05  # the spread between seeds is about .02


def weights(classifier: RecipeClassifier) -> list[torch.Tensor]:
    return [p.detach().clone() for p in classifier.model.parameters()]


def test_rows_train_as_their_copy_would_and_memory_maps_work(tmp_path: Path) -> None:
    images, labels = digits()
    rows = np.array([5, 3, 3, 900, 17, 42, 8])
    on_disk = np.lib.format.open_memmap(tmp_path / "pool.npy", "w+", np.float32, images.shape)
    on_disk[:] = images
    on_disk.flush()
    copied, picked, mapped = thief(2), thief(2), thief(2)
    copied.fit(images[rows], labels[rows], batch_size=3)
    picked.fit(images, labels[rows], batch_size=3, rows=rows)
    mapped.fit(np.load(tmp_path / "pool.npy", mmap_mode="r"), labels[rows], batch_size=3, rows=rows)
    for a, b, c in zip(weights(copied), weights(picked), weights(mapped), strict=True):
        # the memory's alignment may change the last bit of a convolution
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-5)


def test_one_hot_rows_and_class_ids_are_the_same_labels() -> None:
    images, labels = digits()
    ids, rows = thief(1), thief(1)
    ids.fit(images[:64], labels[:64])
    rows.fit(images[:64], np.eye(10, dtype=np.float32)[labels[:64]])
    assert ids.training_losses == pytest.approx(rows.training_losses, rel=1e-5)


def test_fit_is_decided_by_its_seed_and_leaves_the_global_state_alone() -> None:
    images, labels = digits()
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one, two, other = thief(1), thief(1), thief(1)
    other.seed = 1
    for classifier in (one, two, other):
        classifier.fit(images[:100], labels[:100])
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(two), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((0, *SHAPE)), np.zeros(0, int), "at least one. Got 0 and 0"),
        (np.zeros((2, *SHAPE)), np.zeros(3, int), "as many labels as images"),
        (np.zeros((2, 3, 8, 8)), np.zeros(2, int), r"takes images of shape \(1, 8, 8\). Got \(3, 8, 8\)"),
        (np.zeros((2, *SHAPE)), np.zeros((2, 7)), "rows of 10 values"),
        (np.zeros((2, *SHAPE)), np.array([0, 10]), "class ids from 0 to 9"),
        (np.full((2, *SHAPE), np.nan), np.zeros(2, int), "Training diverged"),
    ],
)
def test_bad_training_sets(x: np.ndarray, y: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        thief(1).fit(x, y)


def test_is_never_cloned() -> None:
    with pytest.raises(UserError, match="Build a fresh network"):
        thief().clone_for_refitting()


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_schedules_never_rise(schedule: str) -> None:
    recipe = TrainingRecipe(schedule=schedule)
    rates = [recipe.learning_rate_at(i / 20) for i in range(20)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == recipe.learning_rate
    assert min(rates) > 0


def test_last_batch_is_never_one_image() -> None:
    images, labels = digits()
    classifier = thief(1, name="small-cnn")
    classifier.fit(images[:65], labels[:65], batch_size=64)
    assert len(classifier.training_losses) == 1


def test_predict_casts_and_takes_no_images() -> None:
    assert thief().predict(np.zeros((2, *SHAPE), np.float64)).dtype == np.float32
    assert thief().predict(np.zeros((0, *SHAPE))).shape == (0, 10)
    assert thief().logits(np.zeros((0, *SHAPE))).shape == (0, 10)


class _Viewing(nn.Module):
    """A network that runs only in the contiguous layout."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3, padding=1)
        self.output = nn.Linear(256, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.output(torch.relu(self.convolution(x)).view(len(x), -1))


@pytest.mark.parametrize("network", [_Viewing(), build_model("small-cnn", SHAPE, 10, seed=0)])
def test_weights_are_contiguous_after_training_whatever_the_layout_was(network: nn.Module) -> None:
    images, labels = digits()
    RecipeClassifier(network, SHAPE, 10, TrainingRecipe(epochs=1)).fit(images[:64], labels[:64])
    assert all(p.is_contiguous() for p in network.parameters())
    assert not network.training


def test_predict_leaves_the_global_state_alone_and_agrees_with_art() -> None:
    images, _ = digits()
    classifier = thief()
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    ours = classifier.predict(images[:50], batch_size=20)
    assert torch.equal(before, torch.random.get_rng_state())
    np.testing.assert_allclose(ours, PyTorchClassifier.predict(classifier, images[:50]), atol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_step_after_fit_is_the_same_whatever_layout_fit_trained_in(
    optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fused AdamW on the CPU goes through memory in order: weights and averages in two layouts would be mixed up."""
    images = np.random.default_rng(0).random((8, 3, 8, 8), np.float32)
    labels = np.arange(8) % 3

    def after_one_more_step() -> list[torch.Tensor]:
        network = torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.LazyLinear(3)
        )
        network(torch.zeros(1, 3, 8, 8))
        torch.manual_seed(0)
        for p in network.parameters():
            torch.nn.init.normal_(p, std=0.1)
        classifier = RecipeClassifier(network, (3, 8, 8), 3, TrainingRecipe(epochs=1, optimizer=optimizer))
        classifier.fit(images, labels)
        recipe.training_step(network, classifier.optimizer, torch.from_numpy(images), torch.from_numpy(labels))
        return weights(classifier)

    expected = after_one_more_step()
    monkeypatch.setattr(recipe, "probe_memory_format", lambda *given: torch.contiguous_format)
    for ours, plain in zip(expected, after_one_more_step(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-4)


OLD = {
    "epochs": 20,
    "batch_size": 64,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "weight_decay": 5e-4,
    "schedule": "cosine",
}


def test_later_options_are_written_down_only_where_they_are_used() -> None:
    assert TrainingRecipe().as_dict() == OLD
    used = {
        "augmentation": "flip",
        "warm_up": 0.1,
        "label_smoothing": 0.1,
        "precision": "bfloat16",
        "cuda_graphs": True,
    }
    assert TrainingRecipe(**used).as_dict() == OLD | used
    assert TrainingRecipe(**TrainingRecipe(warm_up=0.5).as_dict()) == TrainingRecipe(warm_up=0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"augmentation": "crop"},
        {"warm_up": 1.0},
        {"warm_up": -0.1},
        {"label_smoothing": 1.0},
        {"precision": "float16"},
        {"cuda_graphs": 1},
    ],
)
def test_bad_options_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(UserError, match=f"The '{next(iter(wrong))}' parameter of TrainingRecipe"):
        TrainingRecipe(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_the_rate_rises_linearly_and_then_follows_its_schedule(schedule: str) -> None:
    recipe = TrainingRecipe(schedule=schedule, warm_up=0.2, learning_rate=1.0)
    assert [recipe.learning_rate_at(f) for f in (0.0, 0.05, 0.1)] == [0.0, 0.25, 0.5]
    assert recipe.learning_rate_at(0.2) == 1.0
    expected = {"cosine": (0.5, 0.0), "step": (0.1, 0.01), "constant": (1.0, 1.0)}[schedule]
    assert (recipe.learning_rate_at(0.6), recipe.learning_rate_at(1.0)) == pytest.approx(expected)


def test_label_smoothing_is_that_of_the_targets() -> None:
    images, labels = digits()
    smoothed, given = thief(1), thief(1)
    smoothed.recipe = TrainingRecipe(epochs=1, label_smoothing=0.2)
    given.recipe = TrainingRecipe(epochs=1)
    smoothed.fit(images[:64], labels[:64])
    given.fit(images[:64], 0.8 * np.eye(10, dtype=np.float32)[labels[:64]] + 0.02)
    assert smoothed.training_losses == pytest.approx(given.training_losses, rel=1e-5)


def test_augmentation_comes_from_the_seed_and_is_another_each_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = digits()
    moved: list[torch.Tensor] = []
    real = training_set.crop_and_flip

    def watched(*given: object) -> torch.Tensor:
        moved.append(real(*given))  # type: ignore[arg-type]
        return moved[-1]

    monkeypatch.setattr(training_set, "crop_and_flip", watched)
    one, two, plain = thief(1), thief(1), thief(1)
    for classifier in (one, two):
        classifier.recipe = TrainingRecipe(epochs=2, augmentation="crop-flip")
        classifier.fit(images[:64], labels[:64])
    plain.recipe = TrainingRecipe(epochs=2)
    plain.fit(images[:64], labels[:64])
    assert len(moved) == 4
    assert torch.equal(moved[0], moved[2])
    assert torch.equal(moved[1], moved[3])
    assert not torch.equal(moved[0].sum((1, 2, 3)).sort().values, moved[1].sum((1, 2, 3)).sort().values)
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(two), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights(one), weights(plain), strict=True))


@pytest.mark.parametrize("options", [{"precision": "bfloat16"}, {"cuda_graphs": True}, {"augmentation": "flip"}])
@pytest.mark.parametrize("network", [_Viewing(), build_model("small-cnn", SHAPE, 10, seed=0)])
def test_whatever_the_options_networks_end_contiguous_in_float32(network: nn.Module, options: dict[str, Any]) -> None:
    images, labels = digits()
    classifier = RecipeClassifier(network, SHAPE, 10, TrainingRecipe(epochs=3, learning_rate=3e-3, **options))
    classifier.fit(images[:200], labels[:200])
    assert all(p.is_contiguous() and p.dtype == torch.float32 for p in network.parameters())
    assert classifier.training_losses[-1] < classifier.training_losses[0]
    assert classifier.predict(images[:3]).dtype == np.float32
