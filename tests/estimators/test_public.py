"""Classifiers that begin from a public network see each image once, and their heads are the best there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression

from art_divqat.data.known_rows import forgetting
from art_divqat.data.stored import ImageFile, StoredImages
from art_divqat.errors import UserError
from art_divqat.estimators import TrainingRecipe
from art_divqat.estimators.public import Features, PublicClassifier, begun_publicly, fit_head, public_features
from art_divqat.models import build_model

SHAPE = (3, 8, 8)
RECIPE = TrainingRecipe(epochs=3, batch_size=16)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("public") / "public.safetensors"
    save_file(build_model("small-cnn", SHAPE, 21, seed=77).state_dict(), path)
    return str(path)


@pytest.fixture
def features(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Features:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    public_features.cache_clear()
    return public_features("small-cnn", weights, SHAPE)


def pictures(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def counted(features: Features, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seen: list[int] = []
    computed = features.computed
    monkeypatch.setattr(features, "computed", lambda images: (seen.append(len(images)), computed(images))[1])
    return seen


def test_each_image_passes_once_whoever_asks(features: Features, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = counted(features, monkeypatch)
    x = (pictures(80) / np.float32(255)).astype(np.float32)
    first = features(x)
    # 80, in batches of 32 of which the last is filled up
    assert sum(seen) == 96
    np.testing.assert_array_equal(features(x[[5, 3, 5]]), first[[5, 3, 5]])
    assert sum(seen) == 96
    classifier = PublicClassifier(features, 4, RECIPE)
    classifier.fit(x, np.arange(80) % 4)
    classifier.predict(x[:7])
    assert sum(seen) == 96
    assert features(x[:0]).shape == (0, features.width)
    twice = np.concatenate([pictures(3, 5), pictures(3, 5)])
    features((twice / np.float32(255)).astype(np.float32))
    assert sum(seen) == 128


def test_how_long_it_takes_is_measured_of_images_that_are_computed(
    features: Features, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = (pictures(20) / np.float32(255)).astype(np.float32)
    classifier = PublicClassifier(features, 4, RECIPE)
    classifier.fit(x, np.arange(20) % 4)
    known, seen = classifier.predict(x), counted(features, monkeypatch)
    with forgetting(classifier):
        np.testing.assert_array_equal(classifier.predict(x), known)
        classifier.predict(x)
    assert len(seen) == 2
    classifier.predict(x)
    assert len(seen) == 2


def test_stored_images_have_the_features_of_arrays(features: Features) -> None:
    x = pictures(9)
    file = ImageFile(SHAPE, 9)
    for row, image in enumerate(x):
        file.write(row, image)
    array = (x / np.float32(255)).astype(np.float32)
    np.testing.assert_allclose(features(StoredImages(file)), features(array), atol=1e-6)


def test_predictions_are_those_of_the_whole_network(features: Features) -> None:
    x = (pictures(30) / np.float32(255)).astype(np.float32)
    classifier = PublicClassifier(features, 3, RECIPE)
    classifier.fit(x, np.arange(30) % 3)
    with torch.no_grad():
        whole = classifier.model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(classifier.predict(x), whole, rtol=1e-4, atol=1e-4)
    assert (classifier.predict(x).argmax(1) == np.arange(30) % 3).mean() > 0.6
    x = torch.from_numpy(x).requires_grad_()  # type: ignore[assignment]
    classifier.model(x).square().sum().backward()
    assert float(x.grad.abs().sum()) > 0  # type: ignore[attr-defined]


def test_nothing_that_is_trained_around_it_moves_the_public_body(features: Features) -> None:
    before = {name: value.clone() for name, value in features.body.state_dict().items()}
    x = (pictures(40) / np.float32(255)).astype(np.float32)
    first, second = (PublicClassifier(features, 4, RECIPE, seed=seed) for seed in range(2))
    first.fit(x, np.arange(40) % 4)
    second.model.train()
    optimizer = RECIPE.build_optimizer(second.model)
    torch.nn.functional.cross_entropy(second.model(torch.from_numpy(x)), torch.arange(40) % 4).backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in features.body.state_dict().items())
    assert first.model[0].body is second.model[0].body


def test_a_tuned_one_begins_from_the_head_and_leaves_the_shared_body_alone(features: Features, weights: str) -> None:
    before = {name: value.clone() for name, value in features.body.state_dict().items()}
    x, y = (pictures(60) / np.float32(255)).astype(np.float32), np.arange(60) % 4
    tuned = begun_publicly("small-cnn", weights, SHAPE, 4, RECIPE, tuned=True, seed=1)
    tuned.fit(x, y)
    probe = PublicClassifier(features, 4, RECIPE)
    probe.fit(x, y)
    assert tuned.probe is not None
    np.testing.assert_allclose(tuned.probe.predict(x), probe.predict(x), atol=1e-5)
    assert len(tuned.training_losses) == RECIPE.epochs
    assert not np.allclose(tuned.predict(x), probe.predict(x), atol=1e-2)
    assert all(torch.equal(value, before[name]) for name, value in features.body.state_dict().items())
    assert probe.probe is None


def test_a_tuned_one_keeps_the_statistics_that_its_head_was_fitted_to(weights: str) -> None:
    def state(classifier: PublicClassifier) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in classifier.model.state_dict().items()}

    tuned = begun_publicly("small-cnn", weights, SHAPE, 4, RECIPE, tuned=True, seed=1)
    before = state(tuned)
    tuned.fit((pictures(60) / np.float32(255)).astype(np.float32), np.arange(60) % 4)
    after = state(tuned)
    kept = [name for name in before if "running" in name]
    assert kept
    assert all(torch.equal(before[name], after[name]) for name in kept)
    moved = [name for name in before if name.endswith(".weight") and not torch.equal(before[name], after[name])]
    assert len(moved) > len(kept) / 2


@given(
    count=st.integers(2, 40),
    width=st.integers(1, 6),
    classes=st.integers(2, 5),
    seed=st.integers(0, 99),
    hard=st.booleans(),
)
def test_the_head_is_the_minimum_of_its_loss(count: int, width: int, classes: int, seed: int, hard: bool) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((count, width)) * rng.uniform(0.1, 9) + rng.uniform(-5, 5)).astype(np.float32)
    x[:, 0] = 3.0  # a dead feature
    targets = rng.integers(0, classes, count) if hard else rng.dirichlet(np.ones(classes), count)
    head = fit_head(x, targets, classes, 0.1)
    z = torch.from_numpy(x).double()
    std = z.std(0, correction=0)
    std[std <= 1e-6] = 1
    weight = (head.weight.detach().double().T * std[:, None]).requires_grad_()
    bias = (head.bias.detach().double() + z.mean(0) @ (weight.detach() / std[:, None])).requires_grad_()
    y = torch.eye(classes, dtype=torch.float64)[torch.from_numpy(targets)] if hard else torch.from_numpy(targets)
    logits = (z - z.mean(0)) / std @ weight + bias
    loss = -(y * torch.log_softmax(logits, 1)).sum(1).mean() + 0.05 * weight.square().sum()
    gradients = torch.autograd.grad(loss, (weight, bias))
    assert max(float(gradient.abs().max()) for gradient in gradients) < 2e-3


def test_the_head_is_scikit_learns(features: Features) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 5)).astype(np.float32)
    x = (x - x.mean(0)) / x.std(0)
    y = (x[:, 0] + 0.5 * rng.standard_normal(200) > 0).astype(np.int64) + 2 * (x[:, 1] > 1)
    ours = fit_head(x, y, 4, 0.01)
    # its C is 1 / (λ n)
    theirs = LogisticRegression(C=1 / (0.01 * 200), tol=1e-8, max_iter=1000).fit(x, y)
    with torch.no_grad():
        probabilities = torch.softmax(ours(torch.from_numpy(x)), 1).numpy()
    np.testing.assert_allclose(probabilities[:, theirs.classes_], theirs.predict_proba(x), atol=2e-3)


def test_bad_training_sets_are_refused(features: Features, tmp_path: Path) -> None:
    classifier = PublicClassifier(features, 3, RECIPE)
    x = np.zeros((4, *SHAPE), np.float32)
    with pytest.raises(UserError, match="as many labels as images"):
        classifier.fit(x, np.zeros(3, np.int64))
    with pytest.raises(UserError, match="from 0 to 2"):
        classifier.fit(x, np.full(4, 3))
    with pytest.raises(UserError, match="takes images of shape"):
        classifier.fit(x[:, :, :4], np.zeros(4, np.int64))
    with pytest.raises(UserError, match="are not there"):
        begun_publicly("small-cnn", str(tmp_path / "none.pt"), SHAPE, 3, RECIPE, tuned=False)


def test_a_balanced_head_takes_the_frequencies_of_labels_away_and_nothing_of_probabilities() -> None:
    rng = np.random.default_rng(1)
    y = np.repeat([0, 1, 2], [300, 40, 10])
    x = (np.eye(3)[y] + 0.8 * rng.standard_normal((350, 3))).astype(np.float32)
    plain, balanced = (fit_head(x, y, 4, balanced=flag) for flag in (False, True))
    assert torch.equal(plain.weight, balanced.weight)
    shift = (plain.bias - balanced.bias).detach().numpy()
    np.testing.assert_allclose(shift, np.log(np.array([300, 40, 10, 0.5]) / 350), atol=1e-5)
    rows = fit_head(x, np.eye(4, dtype=np.float32)[y], 4, balanced=True)
    np.testing.assert_allclose(rows.bias.detach().numpy(), balanced.bias.detach().numpy(), atol=1e-5)
    even = np.arange(300) % 3
    test = torch.from_numpy((np.eye(3)[even] + 0.8 * rng.standard_normal((300, 3))).astype(np.float32))
    right = [(head(test).argmax(1).numpy() == even).mean() for head in (plain, balanced)]
    assert right[1] > right[0] + 0.05
    soft = 0.9 * np.eye(4, dtype=np.float32)[y] + 0.025
    assert torch.equal(fit_head(x, soft, 4, balanced=True).bias, fit_head(x, soft, 4).bias)
