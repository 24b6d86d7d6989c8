"""Live ART classifiers as they are built elsewhere: other pixel ranges, single answers, scikit-learn, black boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from art.estimators.classification import BlackBoxClassifier, PyTorchClassifier, SklearnClassifier
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from torch import nn

from art_divqat._rng import isolated_random_state
from art_divqat.attacks.evasion import craft
from art_divqat.defences.postprocessor import Softmax
from art_divqat.defences.trainer import quantize_post_training
from art_divqat.errors import UserError
from art_divqat.models import build_model
from art_divqat.victims.external.adapter import probe
from art_divqat.victims.external.live import adapt
from art_divqat.victims.external.load import load_external
from art_divqat.victims.external.settings import ExternalModel

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return (x[order] / 16).astype(np.float32).reshape(-1, *SHAPE), y[order].astype(np.int64)


def network(width: int = 10, tail: nn.Module | None = None) -> nn.Module:
    with isolated_random_state("net"):
        layers = [nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, width)]
        return nn.Sequential(*layers, *([] if tail is None else [tail]))


def fitted(module: nn.Module, loss: nn.Module, x: np.ndarray, y: np.ndarray, classes: int = 10, **options) -> Any:
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    classifier = PyTorchClassifier(module, loss, SHAPE, classes, optimizer, device_type="cpu", **options)
    with isolated_random_state("fit"):
        classifier.fit(x.astype(np.float32), y, batch_size=32, nb_epochs=10)
    return classifier


SCALED = {"grey levels": ((0, 255), 255, 0), "signed": ((-1, 1), 2, -1), "unit": ((0, 1), 1, 0), "none": (None, 1, 0)}


@pytest.mark.parametrize("name", SCALED)
def test_any_range_of_pixels_is_seen_to_and_has_gradients(name: str, digits) -> None:
    x, y = digits
    clip_values, factor, low = SCALED[name]
    model = fitted(network(), nn.CrossEntropyLoss(), factor * x[:800] + low, y[:800], clip_values=clip_values)
    victim = probe(adapt(model, SHAPE, 10), x[1000:1128], y[1000:1128], "auto")
    assert victim.capabilities.probe.right > 110
    white_box = victim.capabilities.white_box
    assert white_box is model
    crafted = craft(white_box, x[1000:1060], y[1000:1060], epsilon=0.2, steps=5)
    assert crafted.min() >= 0
    assert crafted.max() <= 1
    assert np.mean(victim.classifier.predict(crafted).argmax(1) == y[1000:1060]) < 0.5


@pytest.mark.parametrize(
    ("loss", "tail", "postprocessors", "outputs"),
    [
        (nn.BCEWithLogitsLoss(), None, None, "logits"),
        (nn.BCEWithLogitsLoss(), None, [Softmax()], "probabilities"),
        (nn.BCELoss(), nn.Sigmoid(), None, "probabilities"),
    ],
)
def test_a_single_answer_is_two_classes(loss, tail, postprocessors, outputs: str, digits) -> None:
    x, y = digits[0], digits[1] % 2
    model = fitted(network(1, tail), loss, x[:800], y[:800], 2, postprocessing_defences=postprocessors)
    victim = probe(adapt(model, SHAPE, 2), x[1000:1128], y[1000:1128], "auto")
    answers = victim.classifier.predict(x[1000:1128])
    assert answers.shape == (128, 2)
    assert victim.capabilities.outputs == outputs
    assert np.mean(answers.argmax(1) == y[1000:1128]) > 0.9
    if outputs == "probabilities":
        np.testing.assert_allclose(answers.sum(axis=1), 1, atol=1e-5)
    crafted = craft(victim.capabilities.white_box, x[1000:1060], y[1000:1060], epsilon=0.2, steps=5)
    assert np.mean(victim.classifier.predict(crafted).argmax(1) == y[1000:1060]) < 0.5


def test_classifiers_of_other_libraries(digits) -> None:
    x, y = digits
    rows = x.reshape(len(x), -1)
    forest = RandomForestClassifier(30, random_state=0).fit(255 * rows[:800], y[:800])
    regression = LogisticRegression(max_iter=300).fit(rows[:800], y[:800] % 2)
    models = [
        (SklearnClassifier(forest, clip_values=(0, 255)), 10),
        (BlackBoxClassifier(forest.predict_proba, (64,), 10, clip_values=(0, 255)), 10),
        (
            BlackBoxClassifier(
                lambda z: forest.predict_proba(z.reshape(len(z), -1)), (8, 8, 1), 10, clip_values=(0, 255)
            ),
            10,
        ),
        (SklearnClassifier(regression), 2),
    ]
    for model, classes in models:
        victim = probe(adapt(model, SHAPE, classes), x[1000:1128], y[1000:1128] % classes, "auto")
        assert victim.capabilities.probe.right > 105
        assert victim.capabilities.white_box is None
        with pytest.raises(UserError, match="gives no gradients"):
            craft(model, x[:4], y[:4] % classes, epsilon=0.1)
        crafted = craft(model, x[1000:1040], y[1000:1040] % classes, attack="square", epsilon=0.3, steps=60)
        assert np.mean(victim.classifier.predict(crafted).argmax(1) == y[1000:1040] % classes) < 0.6


def test_a_saved_classifier_of_grey_levels_is_audited_in_them(digits, tmp_path) -> None:
    x, y = digits
    with isolated_random_state("net"):
        module = build_model("lenet5", SHAPE, 10, seed=0)
    model = fitted(module, nn.CrossEntropyLoss(), 255 * x[:800], y[:800], clip_values=(0, 255))
    int8 = quantize_post_training(model, 255 * x[:300], architecture="lenet5")
    int8.save("victim", tmp_path)
    loaded = load_external(ExternalModel(source=str(tmp_path / "victim")), SHAPE, 10)
    for classifier in (adapt(int8, SHAPE, 10), loaded):
        answers = classifier.predict(x[1000:])
        np.testing.assert_array_equal(answers, int8.predict(255 * x[1000:]))
        assert np.mean(answers.argmax(1) == y[1000:]) > 0.8


class Described(nn.Module):
    """Gives a dictionary, as many a library's networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.linear(x.flatten(1))}


def test_a_network_that_gives_a_dict_is_one_sentence() -> None:
    model = PyTorchClassifier(Described(), nn.CrossEntropyLoss(), SHAPE, 10, device_type="cpu")
    with pytest.raises(UserError, match=r"gives a dict of 'logits': .* returns network\(x\)\['logits'\]"):
        adapt(model, SHAPE, 10)
