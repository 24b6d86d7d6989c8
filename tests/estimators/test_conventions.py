"""Conventions of ART classifiers: pixel ranges, single values as two classes, losses, networks that give no tensor."""

from __future__ import annotations

from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch
from art.estimators.classification import BlackBoxClassifier, PyTorchClassifier
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn
from torch.nn import functional

from art_divqat.errors import UserError
from art_divqat.estimators.conventions import (
    check_answers,
    class_logits,
    cross_entropy_like,
    from_unit,
    pixel_range,
    to_unit,
    two_columns,
    unit_predict,
)

SHAPE = (3, 4, 5)


class Answering(nn.Module):
    """Gives what `make` makes of one linear layer's answer."""

    def __init__(self, width: int = 3, make=lambda z: z) -> None:
        super().__init__()
        self.linear, self.make = nn.Linear(60, width), make

    def forward(self, x: torch.Tensor):
        return self.make(self.linear(x.flatten(1)))


def classifier(network: nn.Module, loss=None, classes: int = 3, **options) -> PyTorchClassifier:
    loss = nn.CrossEntropyLoss() if loss is None else loss
    return PyTorchClassifier(network, loss, SHAPE, classes, device_type="cpu", **options)


@pytest.mark.parametrize("bounds", [(0, 255), (-1, 1), (-2.5, 0.5), (0, 1)])
@given(images=arrays(np.float32, (2, *SHAPE), elements=st.floats(0, 1, width=32)))
@settings(max_examples=20, deadline=None)
def test_a_range_and_back(bounds, images) -> None:
    known = pixel_range(classifier(Answering(), clip_values=bounds))
    moved = from_unit(images, known)
    assert moved.dtype == np.float32
    assert moved.min() >= bounds[0]
    assert moved.max() <= bounds[1]
    np.testing.assert_allclose(to_unit(moved, known), images, atol=1e-6)


def test_no_range_and_a_range_by_pixel() -> None:
    assert pixel_range(classifier(Answering())) is None
    assert pixel_range(classifier(Answering(), clip_values=(np.zeros(SHAPE), np.ones(SHAPE)))) is None
    low, high = np.full(SHAPE, -1.0), np.arange(60.0).reshape(SHAPE)
    by_pixel = pixel_range(classifier(Answering(), clip_values=(low, high)))
    np.testing.assert_allclose(from_unit(np.ones((2, *SHAPE), np.float32), by_pixel), np.stack([high, high]))
    with pytest.raises(UserError, match="build it with finite ones"):
        pixel_range(classifier(Answering(), clip_values=(-np.inf, np.inf)))


@given(
    z=arrays(np.float32, (6, 1), elements=st.floats(-30, 30, width=32)),
    y=arrays(np.int64, 6, elements=st.integers(0, 1)),
)
@settings(max_examples=50, deadline=None)
def test_cross_entropy_of_two_columns_is_the_binary_one(z, y) -> None:
    logits, labels = torch.from_numpy(z), torch.from_numpy(y)
    for weight in (None, torch.tensor([3.0])):
        loss = nn.BCEWithLogitsLoss(pos_weight=weight)
        columns = class_logits(classifier(Answering(1), loss, 2))(logits)
        ours = functional.cross_entropy(columns, labels, weight=cross_entropy_like(loss).weight, reduction="sum")
        expected = functional.binary_cross_entropy_with_logits(
            logits[:, 0], labels.float(), pos_weight=weight, reduction="sum"
        )
        assert float(ours) == pytest.approx(float(expected), rel=1e-4, abs=1e-4)
    p = torch.sigmoid(logits)
    columns = class_logits(classifier(Answering(1, torch.sigmoid), nn.BCELoss(), 2))(p)
    inside = (p[:, 0] > 1e-5) & (p[:, 0] < 1 - 1e-5)
    torch.testing.assert_close(columns.softmax(1)[inside, 1:], p[inside], atol=1e-5, rtol=1e-3)


def test_a_certain_probability_has_finite_logits_and_gradients() -> None:
    p = torch.tensor([[0.0], [1.0]], requires_grad=True)
    columns = class_logits(classifier(Answering(1), nn.BCELoss(), 2))(p)
    functional.cross_entropy(columns, torch.tensor([1, 0])).backward()
    assert torch.isfinite(columns).all()
    assert torch.isfinite(p.grad).all()


def test_losses_keep_their_weights_and_smoothing() -> None:
    weight = torch.tensor([1.0, 2.0, 5.0])
    logits, labels = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 3
    for loss, answers in (
        (nn.CrossEntropyLoss(weight=weight, label_smoothing=0.3), logits),
        (nn.CrossEntropyLoss(label_smoothing=0.1), logits),
        (nn.NLLLoss(weight=weight), logits.log_softmax(1)),
        (nn.NLLLoss(), logits.log_softmax(1)),
    ):
        torch.testing.assert_close(cross_entropy_like(loss)(answers, labels), loss(answers, labels))
    for other in (nn.MSELoss(), functional.cross_entropy, nn.MultiMarginLoss(), nn.BCEWithLogitsLoss()):
        assert cross_entropy_like(other).weight is None


def test_predict_on_unit_images() -> None:
    x = np.random.default_rng(0).random((5, *SHAPE), dtype=np.float32)
    network = Answering(1)
    inside = classifier(network, nn.BCEWithLogitsLoss(), 2, clip_values=(0, 255))
    answers = unit_predict(inside)(x)
    np.testing.assert_array_equal(answers[:, 0], 0)
    np.testing.assert_allclose(answers[:, 1:], inside.predict(255 * x), rtol=1e-5)
    served = BlackBoxClassifier(lambda images: np.full((len(images), 2), 0.5), SHAPE, 2)
    assert unit_predict(served)(x).shape == (5, 2)
    np.testing.assert_allclose(two_columns(np.array([[0.25]]), probability=True), [[0.75, 0.25]])


Heads = namedtuple("Heads", ["logits", "aux"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda z: {"logits": z, "hidden": z},
            r"gives a dict of 'logits', 'hidden': .* returns network\(x\)\['logits'\]",
        ),
        (lambda z: OrderedDict(out=z), r"gives a OrderedDict of 'out': .* returns network\(x\)\['out'\]"),
        (lambda z: {"scores": z}, r"returns network\(x\)\['scores'\]"),
        (lambda z: (z, z), r"gives a tuple of 2: .* returns network\(x\)\[0\]"),
        (lambda z: [z], r"gives a list of 1"),
        (lambda z: Heads(z, z), r"gives a Heads of 2"),
        (lambda z: None, "gives a NoneType"),
        (lambda z: z[:, 0], r"shape \(2, 3\) for two images.*gives shape \(2,\)"),
        (lambda z: z[:, :2], r"nb_classes=3. Answering gives shape \(2, 2\)"),
        (lambda z: z[:, :1], "gives one value an image: build the classifier with nb_classes=2"),
        (lambda z: z.view(3, 3), r"cannot run Answering on images of the classifier's input_shape \(3, 4, 5\)"),
    ],
)
def test_other_answers_are_one_sentence(make, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        check_answers("Trainer", classifier(Answering(3, make)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("loss", [nn.BCEWithLogitsLoss(), nn.BCELoss()])
def test_a_binary_loss_wants_one_value_and_two_classes(loss: nn.Module) -> None:
    check_answers("Trainer", classifier(Answering(1), loss, 2))
    for width, classes in ((3, 3), (2, 2), (1, 3)):
        with pytest.raises(UserError, match="one value"):
            check_answers("Trainer", classifier(Answering(width), loss, classes))


def test_the_check_leaves_modes_and_random_state() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(60, 3), nn.BatchNorm1d(3), nn.Dropout())
    network[2].eval()
    state, before = torch.get_rng_state(), network.state_dict()["2.running_mean"].clone()
    check_answers("Trainer", classifier(network))
    assert [module.training for module in network] == [True, True, False, True]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(network.state_dict()["2.running_mean"], before)
