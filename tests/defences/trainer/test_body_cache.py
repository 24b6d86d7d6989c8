"""A body that stays as it is: run once for trainers that share it, to the same network, and never trusted unread."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from art_divqat.defences.trainer import DivQATTrainer, QATTrainer
from art_divqat.defences.trainer._body_cache import kept_tensors
from art_divqat.errors import UserError


@pytest.fixture
def runs(monkeypatch) -> list[int]:
    """How many images passed a body, a number a pass."""
    from art_divqat.defences.trainer import _student

    passed: list[int] = []

    def counted(folder, body, batches, make):
        def run():
            found = make()
            passed.append(len(found["features of the body"]))
            return found

        return kept_tensors(folder, body, batches, run)

    monkeypatch.setattr(_student, "kept_tensors", counted)
    return passed


def trained(teacher, x, y, folder, *, seed=0, backend="fx", kind=DivQATTrainer, **options):
    if kind is DivQATTrainer:
        options = {"alpha_auxiliary": 0, "alpha_mixtures": 0.1, "head": "hidden"} | options
    trainer = kind(teacher, train_body=False, body_cache=folder, seed=seed, backend=backend, tolerance=None, **options)
    trainer.fit(x[:100], y[:100], validation_data=(x[100:130], y[100:130]), nb_epochs=2, batch_size=32)
    return trainer.get_classifier().predict(x[200:300])


@pytest.mark.parametrize("backend", ["fx", "pt2e"])
def test_it_gives_the_network_that_there_is_without_it(digits, lenet_teacher, tmp_path, runs, backend: str) -> None:
    if backend == "pt2e":
        pytest.importorskip("torchao")
    x, y = digits
    expected = trained(lenet_teacher, x, y, None, backend=backend)
    assert runs == [100, 100, 30], "calibration, training and validation images"
    np.testing.assert_array_equal(trained(lenet_teacher, x, y, tmp_path, backend=backend), expected)
    runs.clear()
    np.testing.assert_array_equal(trained(lenet_teacher, x, y, tmp_path, backend=backend), expected)
    assert runs == []


def test_other_seeds_and_weights_share_it_other_images_and_cuts_do_not(digits, lenet_teacher, tmp_path, runs) -> None:
    x, y = digits
    trained(lenet_teacher, x, y, tmp_path)
    runs.clear()
    trained(lenet_teacher, x, y, tmp_path, seed=1)
    trained(lenet_teacher, x, y, tmp_path, alpha_mixtures=0.4)
    assert runs == []
    trained(lenet_teacher, 1 - x, y, tmp_path)
    assert runs == [100, 100, 30]
    runs.clear()
    trained(lenet_teacher, x, y, tmp_path, kind=QATTrainer)
    assert runs == [100, 100, 30], "without a hidden layer the head begins earlier"


@pytest.mark.parametrize("damage", ["cut short", "turned", "another's"])
def test_a_damaged_file_is_made_anew(digits, lenet_teacher, tmp_path, runs, damage: str) -> None:
    x, y = digits
    expected = trained(lenet_teacher, x, y, tmp_path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    contents = [file.read_bytes() for file in files]
    for file, content, other in zip(files, contents, contents[1:] + contents[:1], strict=True):
        if damage == "cut short":
            file.write_bytes(content[: len(content) // 2])
        elif damage == "turned":
            file.write_bytes(content[:-4] + bytes([content[-4] ^ 255]) + content[-3:])
        else:
            file.write_bytes(other)
    runs.clear()
    np.testing.assert_array_equal(trained(lenet_teacher, x, y, tmp_path), expected)
    assert runs == [100, 100, 30]


def test_a_folder_that_cannot_be_written_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    body = torch.nn.Linear(2, 2)
    with pytest.raises(UserError, match="file"):
        kept_tensors(tmp_path / "file", body, [torch.ones(1, 2)], lambda: {"features": torch.ones(1, 2)})


def test_what_would_fill_the_disk_is_not_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("art_divqat.defences.trainer._body_cache._MOST_BYTES", 7)
    found = kept_tensors(tmp_path, torch.nn.Linear(2, 2), [torch.ones(1, 2)], lambda: {"features": torch.ones(1, 2)})
    assert found["features"].shape == (1, 2)
    assert list(tmp_path.iterdir()) == []
