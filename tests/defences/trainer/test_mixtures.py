"""Mixtures of features, and the training that uses them or leaves the body alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from art.data_generators import PyTorchDataGenerator
from hypothesis import given, settings
from hypothesis import strategies as st
from support.trainer_helpers import SHAPE

from art_divqat.data.stored import ImageFile, StoredImages
from art_divqat.defences.trainer import DivQATTrainer, PGDAdversary, QATTrainer
from art_divqat.defences.trainer._student import Student
from art_divqat.defences.trainer.mixtures import mixed
from art_divqat.errors import UserError
from art_divqat.estimators import RecipeClassifier, TrainingRecipe


@given(labels=st.lists(st.integers(0, 3), max_size=12), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_mixture_is_of_a_row_and_rows_of_other_classes(labels: list[int], seed: int) -> None:
    ids = torch.tensor(labels, dtype=torch.int64)
    # a coordinate of its own for every row tells which rows a mixture holds, and how much of each
    found = mixed(torch.eye(len(ids), dtype=torch.float64), ids, torch.Generator().manual_seed(seed))
    has_other = [row for row, label in enumerate(labels) if any(other != label for other in labels)]
    assert len(found) == len(has_other)
    for row, value in zip(has_other, found, strict=True):
        held = value.nonzero().flatten().tolist()
        assert len(held) <= 3
        assert all(other == row or labels[other] != labels[row] for other in held)
        # a coordinate that is taken from another row than the one it belongs to is 0
        assert float(value.sum()) == pytest.approx(1) or set(value.tolist()) <= {0.0, 1.0}


def test_all_kinds_of_mixtures_come() -> None:
    """Of two rows of eight coordinates each: half and half, three, and coordinates from either."""
    features = torch.repeat_interleave(torch.eye(40, dtype=torch.float64), 8, dim=1)
    found = mixed(features, torch.arange(40), torch.Generator().manual_seed(0)).reshape(40, 40, 8)
    halves = [row for row in found if set(row.unique().tolist()) == {0.0, 0.5}]
    coins = [row for row in found if set(row.unique().tolist()) == {0.0, 1.0}]
    threes = [row for row in found if int((row.amax(1) > 0).sum()) == 3]
    assert min(len(halves), len(coins), len(threes)) >= 6


def test_rows_of_probabilities_count_by_their_top_class() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8]])
    found = mixed(torch.tensor([[0.0], [0.0], [10.0]]), rows, generator)
    assert len(found) == 3
    ids = mixed(torch.tensor([[0.0], [0.0], [10.0]]), torch.tensor([0, 0, 1]), torch.Generator().manual_seed(0))
    assert torch.equal(found, ids)


def test_no_gradient_reaches_the_features() -> None:
    features = torch.rand(4, 3, requires_grad=True)
    assert not mixed(features, torch.tensor([0, 1, 0, 1]), torch.Generator()).requires_grad


def test_they_flatten_what_lies_between_the_classes(digits, lenet_teacher) -> None:
    """Of pairs of test images, as the trained head sees half of each, the answers say less; of images they do not."""
    x, y = digits
    found = {}
    for weight in (0.0, 0.1):
        trainer = DivQATTrainer(lenet_teacher, alpha_auxiliary=0, alpha_mixtures=weight, tolerance=None)
        trainer.fit(x[:600], y[:600], nb_epochs=8, batch_size=64)
        record, quantized = trainer.history[-1], trainer.get_classifier()
        answers = torch.from_numpy(quantized.predict(x[600:1000])).softmax(1)
        found[weight] = record, float((answers.argmax(1).numpy() == y[600:1000]).mean())
    assert found[0.0][0].divergence_mixtures == 0
    assert found[0.1][0].confidence_mixtures < 2
    assert found[0.1][1] > found[0.0][1] - 0.08


def test_a_body_that_is_not_trained_stays_as_it_was(digits, lenet_teacher) -> None:
    x, y = digits
    trainer = QATTrainer(lenet_teacher, train_body=False, tolerance=None)
    trainer.fit(x[:300], y[:300], validation_data=(x[300:400], y[300:400]), nb_epochs=6, batch_size=32)
    quantized = trainer.get_classifier()
    kept, trained = lenet_teacher.model.state_dict(), dict(quantized.twin.network.named_parameters())
    same = {name: torch.equal(value, kept[name]) for name, value in trained.items() if name in kept}
    body = {name: equal for name, equal in same.items() if name.startswith("features")}
    assert body
    assert all(body.values())
    assert not same["classifier.4.weight"]
    accuracy = (quantized.predict(x[400:]).argmax(1) == y[400:]).mean()
    assert accuracy > (lenet_teacher.predict(x[400:]).argmax(1) == y[400:]).mean() - 0.03


def test_every_image_passes_a_body_that_is_not_trained_once(digits, lenet_teacher, monkeypatch) -> None:
    x, y = digits
    passed = []
    seen = Student.seen
    monkeypatch.setattr(Student, "seen", lambda self, images: (passed.append(len(images)), seen(self, images))[1])
    trainer = DivQATTrainer(
        lenet_teacher, auxiliary=1 - x[:50], auxiliary_mixture=False, train_body=False, tolerance=None
    )
    trainer.fit(x[:100], y[:100], validation_data=(x[100:120], y[100:120]), nb_epochs=3, batch_size=32)
    assert passed == [50, 100, 20]


@pytest.mark.parametrize("train_body", [True, False])
@pytest.mark.parametrize("backend", ["fx", "pt2e"])
def test_mixtures_in_both_backends(digits, lenet_teacher, backend: str, train_body: bool) -> None:
    if backend == "pt2e":
        pytest.importorskip("torchao")
    x, y = digits
    trainer = DivQATTrainer(
        lenet_teacher,
        alpha=0.01,
        auxiliary=1 - x[:50],
        auxiliary_mixture=False,
        alpha_mixtures=0.3,
        train_body=train_body,
        backend=backend,
        tolerance=None,
    )
    trainer.fit(x[:200], y[:200], nb_epochs=4, batch_size=50)
    first, last = trainer.history[0], trainer.history[-1]
    assert last.confidence_mixtures < first.confidence_mixtures
    assert last.divergence_auxiliary > 0
    assert last.divergence > 0
    assert trainer.get_classifier().agreement_with_twin(x[200:300]) > 0.9


def test_the_same_seed_gives_the_same_network(digits, lenet_teacher) -> None:
    x, y = digits
    answers = []
    for _ in range(2):
        trainer = DivQATTrainer(lenet_teacher, alpha_auxiliary=0, alpha_mixtures=0.5, tolerance=None, seed=4)
        trainer.fit(x[:100], y[:100], nb_epochs=2, batch_size=32)
        answers.append(trainer.predict(x[:20]))
    np.testing.assert_array_equal(*answers)


def test_a_generator_trains_the_head_as_well(digits, lenet_teacher) -> None:
    x, y = digits
    data = torch.utils.data.TensorDataset(torch.from_numpy(x[:64]), torch.from_numpy(y[:64]))
    generator = PyTorchDataGenerator(torch.utils.data.DataLoader(data, batch_size=16), size=64, batch_size=16)
    trainer = DivQATTrainer(
        lenet_teacher,
        alpha=0.01,
        alpha_auxiliary=0,
        alpha_mixtures=0.2,
        train_body=False,
        tolerance=None,
    )
    trainer.fit_generator(generator, nb_epochs=2)
    assert trainer.history[-1].divergence > 0
    assert trainer.predict(x[:3]).shape == (3, 10)


def test_stored_images_are_trained_on_a_batch_at_a_time(digits, lenet_teacher) -> None:
    """The very numbers that arrays give."""
    x = np.rint(digits[0] * 255).astype(np.uint8).astype(np.float32) / np.float32(255)
    y = digits[1]
    found = []
    for images in (x[:128], keep_in_a_file(x[:128])):
        trainer = QATTrainer(lenet_teacher, tolerance=None)
        trainer.fit(images, y[:128], validation_data=(images, y[:128]), nb_epochs=2, batch_size=32)
        found.append((trainer.predict(x[:20]), str(trainer.comparison)))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def keep_in_a_file(x: np.ndarray):
    file = ImageFile(x.shape[1:], len(x))
    for row, image in enumerate(x):
        file.write(row, np.rint(image * 255).astype(np.uint8))
    return StoredImages(file)


def test_what_does_not_go_together_is_refused(lenet_teacher) -> None:
    with pytest.raises(UserError, match="train_body"):
        QATTrainer(lenet_teacher, train_body=False, adversary=PGDAdversary(eps=0.1))
    with pytest.raises(UserError, match="alpha_mixtures"):
        DivQATTrainer(lenet_teacher, alpha_mixtures=-1)


def test_a_network_that_cannot_be_cut_says_so(digits) -> None:
    x, y = digits
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    classifier = RecipeClassifier(network, SHAPE, 10, TrainingRecipe())
    with pytest.raises(UserError, match="no place with 2 layers after it"):
        DivQATTrainer(classifier, alpha_mixtures=0.5).fit(x[:32], y[:32], nb_epochs=1)
