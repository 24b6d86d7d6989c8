"""SVHN and GTSRB as their archives lay them out: small files of exactly that form."""

from __future__ import annotations

import csv
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torchvision
from PIL import Image

from art_divqat.data import load_raw
from art_divqat.errors import UserError

SIGNS = 43


@pytest.fixture
def svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Matlab files with the pictures along the last axis, and 10 for the digit 0."""
    rng, listed = np.random.default_rng(0), {}
    for split, count in (("train", 30), ("test", 20)):
        path = tmp_path / f"{split}_32x32.mat"
        digits = (np.arange(count) % 10 + 1).astype(np.uint8)
        pictures = rng.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        pictures[0, 1, 2, :] = digits
        scipy.io.savemat(path, {"X": pictures, "y": digits[:, None]})
        # torchvision compares the checksum of the whole files
        listed[split] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", listed)
    return tmp_path


def test_svhn(svhn: Path) -> None:
    raw = load_raw("svhn", data_root=svhn)
    assert raw.x.shape == (30, 3, 32, 32)
    assert raw.x_test is not None
    assert raw.x_test.shape == (20, 3, 32, 32)
    assert raw.x.dtype == np.uint8
    np.testing.assert_array_equal(raw.y, (np.arange(30) + 1) % 10)
    # the row, the column and the channel are where they were
    np.testing.assert_array_equal(raw.x[:, 2, 0, 1] % 10, raw.y)


def test_a_damaged_svhn(svhn: Path) -> None:
    path = svhn / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"'svhn' is not in .* or not whole: add --download"):
        load_raw("svhn", data_root=svhn)


@pytest.fixture
def gtsrb(tmp_path: Path) -> Path:
    """Folders of PPM files of many sizes by class, with their CSV beside them; test pictures with one CSV for all."""
    base, rng = tmp_path / "gtsrb", np.random.default_rng(0)

    def picture(path: Path, sign: int) -> None:
        width, height = rng.integers(15, 60, 2)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((height, width, 3), sign, np.uint8)).save(path)

    for sign in range(SIGNS):
        folder = base / "GTSRB" / "Training" / f"{sign:05d}"
        for frame in range(2):
            picture(folder / f"00000_{frame:05d}.ppm", sign)
        (folder / f"GT-{sign:05d}.csv").write_text("Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n")
    rows = [(f"{number:05d}.ppm", int(sign)) for number, sign in enumerate(rng.permutation(SIGNS))]
    for name, sign in rows:
        picture(base / "GTSRB" / "Final_Test" / "Images" / name, sign)
    (base / "GTSRB" / "Final_Test" / "Images" / "GT-final_test.test.csv").write_text("Filename;Width;Height\n")
    with (base / "GT-final_test.csv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["Filename", "Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId"])
        writer.writerows([name, 30, 30, 5, 5, 25, 25, sign] for name, sign in rows)
    return tmp_path


def test_gtsrb(gtsrb: Path) -> None:
    raw = load_raw("gtsrb", data_root=gtsrb)
    assert raw.x.shape == (2 * SIGNS, 3, 32, 32)
    assert raw.x_test is not None
    assert raw.x_test.shape == (SIGNS, 3, 32, 32)
    assert raw.y_test is not None
    # every pixel of a picture says which sign it shows
    np.testing.assert_array_equal(raw.x[:, 0, 0, 0], raw.y)
    np.testing.assert_array_equal(raw.x_test[:, 2, 31, 31], raw.y_test)
    assert len(raw.class_names) == SIGNS
    assert "resized to 32×32" in " ".join(raw.notes)


@pytest.mark.parametrize("lost", ["GTSRB/Training/00007", "GT-final_test.csv", "GTSRB/Final_Test/Images/00003.ppm"])
def test_a_gtsrb_that_is_not_whole(gtsrb: Path, lost: str) -> None:
    """Without a folder torchvision would number all signs after it otherwise than the test labels do."""
    path = gtsrb / "gtsrb" / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=r"'gtsrb' is not in .* or not whole"):
        load_raw("gtsrb", data_root=gtsrb)
