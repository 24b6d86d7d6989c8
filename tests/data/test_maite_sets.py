"""Data sets and models of MAITE's are audited as the arrays and answers that they hold, with and without MAITE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from art_divqat import api
from art_divqat.data import load_dataset
from art_divqat.data.maite_sets import as_array, follows_maite, maite_arrays
from art_divqat.errors import UserError
from art_divqat.victims.external.adapter import probe
from art_divqat.victims.external.live import adapt
from art_divqat.victims.external.settings import ExternalModel

NAMES = {number: f"digit {number}" for number in range(10)}


class Digits:
    """As MAITE's documentation builds one: no iteration, no slices."""

    def __init__(self, x: np.ndarray, y: np.ndarray, names: dict[int, str] | None = None) -> None:
        self.x, self.targets = x, np.eye(10)[y]
        self.metadata = {"id": "digits"} | ({"index2label": names} if names else {})

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int, /) -> tuple[Any, Any, dict[str, Any]]:
        if not 0 <= row < len(self.x):
            raise KeyError(row)
        return torch.tensor(self.x[row]), self.targets[row], {"id": row}


class Reader:
    """A model that gives tensors with gradients, and takes nothing but a list of images."""

    def __init__(self, names: dict[int, str] | None = None, order: Sequence[int] = range(10)) -> None:
        x, y = load_digits(return_X_y=True)
        self._fitted = LogisticRegression(max_iter=500).fit(x[:900] / 16, y[:900])
        self._order = list(order)
        self.metadata = {"id": "reader"} | ({"index2label": names} if names else {})

    def __call__(self, batch: Sequence[Any], /) -> list[torch.Tensor]:
        assert isinstance(batch, list)
        assert batch[0].shape == (1, 8, 8)
        rows = self._fitted.predict_proba(np.stack(batch).reshape(len(batch), -1))[:, self._order]
        return [torch.tensor(row, requires_grad=True) for row in rows]


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(np.float32).reshape(-1, 1, 8, 8), y.astype(np.int64)


def test_they_follow_the_protocols_of_maite(digits: Any) -> None:
    generic = pytest.importorskip("maite.protocols.generic")
    assert isinstance(Digits(*digits), generic.Dataset)
    assert isinstance(Reader(), generic.Model)
    assert not isinstance(LogisticRegression(), generic.Model)


def test_only_what_has_their_metadata_is_one_of_theirs() -> None:
    for other in (LogisticRegression(), torch.nn.Flatten(), {"metadata": {"id": 1}}, [1, 2], "digits"):
        assert not follows_maite(other)


def test_images_labels_and_names_are_those_of_the_set(digits: Any) -> None:
    x, y = digits
    images, labels, names = maite_arrays(Digits(x[:50], y[:50], dict(reversed(NAMES.items()))))
    assert np.array_equal(images, x[:50])
    assert np.array_equal(labels, y[:50])
    assert names == tuple(NAMES.values())
    assert maite_arrays(Digits(x[:50], y[:50]))[2] == ()


def test_what_does_not_fit_is_one_sentence(digits: Any) -> None:
    x, y = digits
    with pytest.raises(UserError, match="The data set digits is empty"):
        maite_arrays(Digits(x[:0], y[:0]))
    soft = Digits(x[:20], y[:20])
    soft.targets = soft.targets * 0.9 + 0.01
    with pytest.raises(UserError, match="The targets of digits are not one-hot rows"):
        maite_arrays(soft)
    several = Digits(x[:20], y[:20])
    several.x = [x[0], np.zeros((1, 8, 9), np.float32)]  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"images of the shapes \(1, 8, 8\), \(1, 8, 9\): expected one"):
        maite_arrays(several)
    with pytest.raises(UserError, match="index2label of digits numbers 2 classes from 1 to 2: expected 0 to 1"):
        maite_arrays(Digits(x[:20], y[:20], {1: "one", 2: "two"}))


def test_a_tensor_with_gradients_is_an_array() -> None:
    assert as_array(torch.ones(2, requires_grad=True)).tolist() == [1, 1]


def test_one_set_is_split_and_two_are_training_and_test(
    digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    x, y = digits
    train, test = Digits(x[:900], y[:900], NAMES), Digits(x[900:1000], y[900:1000], NAMES)
    pair = load_dataset(api._kept((train, test)))
    assert np.array_equal(pair.x_test, x[900:1000])
    assert pair.class_names == tuple(NAMES.values())
    alone = load_dataset(api._kept(train))
    assert len(alone.x_test) == 180
    assert alone.class_names == pair.class_names
    # the same pixels and labels are the same data, from whatever they come
    assert api._kept(Digits(x[:900], y[:900])) == api._kept((x[:900], y[:900]))


def test_classes_are_found_by_name_and_else_by_number(digits: Any) -> None:
    x, y = digits[0][1000:1128], digits[1][1000:1128]
    names = tuple(NAMES.values())
    turned = Reader({number: NAMES[9 - number] for number in range(10)}, range(9, -1, -1))
    for model, class_names in ((Reader(), names), (Reader({n: f"other {n}" for n in range(10)}), names)):
        assert probe(adapt(model, (1, 8, 8), 10, class_names), x, y, "auto").capabilities.probe.right > 100
    victim = probe(adapt(turned, (1, 8, 8), 10, names), x, y, "auto")
    assert victim.capabilities.probe.right > 100
    with pytest.raises(UserError, match="has to standardise its images itself"):
        adapt(Reader(), (1, 8, 8), 10, settings=ExternalModel(mean=(0.5,), std=(0.5,)))


@pytest.mark.slow
def test_an_audit_of_both(digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    x, y = digits
    options = {"attacks": ["knockoff"], "answers": ["soft"], "budgets": [60], "seeds": 1, "jobs": 1, "control": False}
    result = api.audit_model(
        Reader(NAMES),
        (Digits(x[900:1500], y[900:1500], NAMES), Digits(x[1500:], y[1500:], NAMES)),
        output=tmp_path / "run",
        store=tmp_path / "store",
        query_pool="in-distribution",
        limit=300,
        **options,
    )
    row = next(row for row in result.summary if row.attack == "knockoff")
    assert row.metrics["victim_accuracy"].mean > 0.8
    assert row.budget == 60
