"""Labels with gaps are the numbers of a model's classes, whatever the classes are called beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from support.external_models import export_onnx

from art_divqat import audit_model
from art_divqat.data import Dataset, load_dataset
from art_divqat.victims.external import ExternalModel
from art_divqat.victims.external.adapter import probe
from art_divqat.victims.external.classes import match_classes
from art_divqat.victims.external.live import adapt
from art_divqat.victims.external.open import external_victim
from art_divqat.victims.victim import Victim

OPTIONS: dict[str, Any] = {
    "budgets": [20, 40],
    "seeds": 1,
    "answers": ["soft"],
    "attacks": ["knockoff"],
    "query_pool": "in-distribution",
    "thief_model": "lenet5",
    "thief_recipe": {"epochs": 1},
    "evasion": {"images": 0},
    "control": False,
}
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])


class Linear(torch.nn.Module):
    """A linear classifier of all ten digits."""

    def __init__(self) -> None:
        super().__init__()
        x, y = digits()
        fitted = LogisticRegression(max_iter=200).fit(x[:900].reshape(900, -1), y[:900])
        self.linear = torch.nn.Linear(64, 10)
        weights = {"weight": fitted.coef_.astype(np.float32), "bias": fitted.intercept_.astype(np.float32)}
        self.linear.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1))


def digits() -> tuple[np.ndarray, np.ndarray]:
    bunch = load_digits()
    return (bunch.images / 16).astype("float32")[:, None], bunch.target


def some(classes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Images of these digits alone, which the model was not fitted on, labelled by what they show."""
    x, y = digits()
    rows = np.flatnonzero(np.isin(y, classes) & (np.arange(len(y)) >= 900))
    return x[rows], y[rows]


def archive(folder: Path, named: str, classes: tuple[int, ...]) -> Dataset:
    x, y = some(classes)
    names = {"all": NAMES[: classes[-1] + 1], "some": NAMES[list(classes)]}.get(named)
    more = {} if names is None else {"class_names": names}
    np.savez(folder / "a.npz", x_train=x[::2], y_train=y[::2], x_test=x[1::2], y_test=y[1::2], **more)
    return load_dataset(f"npz:{folder / 'a.npz'}")


def accuracy(victim: Victim, dataset: Dataset) -> float:
    """As a cell counts it."""
    ids = victim.capabilities.class_ids
    assert ids is not None
    wanted = np.array(ids or range(dataset.nb_classes))[dataset.y_test]
    return float((victim.classifier.predict(dataset.x_test).argmax(axis=1) == wanted).mean())


@pytest.mark.parametrize("classes", [(0, 2, 5), (0, 1, 2, 3, 4, 5, 6, 7, 9), (4, 6), (7, 8, 9)])
@pytest.mark.parametrize("named", ["all", "some", "none"])
def test_every_class_is_found_by_its_number(named: str, classes: tuple[int, ...], tmp_path: Path) -> None:
    dataset = archive(tmp_path, named, classes)
    network, (x, y) = Linear().eval(), some(classes)
    truth = pytest.approx(float((network(torch.from_numpy(x[1::2])).argmax(1).numpy() == y[1::2]).mean()))
    model = export_onnx(network, tmp_path / "m.onnx", dynamic_axes={"image": {0: "n"}})
    asked = ExternalModel(source=str(model))
    onnx = external_victim("m", asked, dataset)
    assert accuracy(onnx, dataset) == truth
    estimator = LogisticRegression(max_iter=200).fit(x.reshape(len(x), -1), y)
    flat = x[1::2].reshape(len(x[1::2]), -1)
    for live, right in ((network, truth), (estimator, pytest.approx(estimator.score(flat, y[1::2])))):
        given = (dataset.input_shape, dataset.nb_classes, dataset.class_names)
        classifier = adapt(live, *given, numbers=dataset.class_numbers)
        victim = probe(classifier, dataset.x_test, dataset.y_test, "auto", numbers=dataset.class_numbers)
        assert accuracy(victim, dataset) == right


def test_an_audit_measures_accuracy_on_classes_with_gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    x, y = some((0, 2, 5))
    data = {"x_train": x[::2], "y_train": y[::2], "x_test": x[1::2], "y_test": y[1::2], "class_names": NAMES}
    results = audit_model(Linear().eval(), data, output=tmp_path / "run", store=tmp_path / "s", **OPTIONS)
    assert results.data["model"]["classes_matched"]
    assert results.cells[0].metrics["victim_accuracy"] > 0.9  # type: ignore[operator]


def test_what_answers_are_right_by_most_often_counts() -> None:
    y = np.arange(400) % 5
    rows = np.eye(10, dtype=np.float32)[np.array([0, 1, 2, 3, 9])[y]]
    # by their place four of five would be right
    for names in (("0", "1", "2", "3", "9"), ("a", "b", "c", "d", "e")):
        found = match_classes(rows, y, names, numbers=(0, 1, 2, 3, 9))
        assert (found.ids, found.right) == ((0, 1, 2, 3, 9), 400)
    # and numbers that are not the model's are no better than the place
    assert match_classes(np.eye(10, dtype=np.float32)[y], y, numbers=(4, 5, 6, 7, 9)).ids == ()
    assert match_classes(np.eye(5, dtype=np.float32)[y], y, numbers=(0, 1, 2, 3, 9)).ids == ()
