"""Data by name: what is accepted, and one clear line for everything that is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from art_divqat.data import adapt_images, load_dataset, load_pool, load_raw, split_dataset
from art_divqat.data.pools import canonical_pool, default_pool
from art_divqat.data.sources import canonical_dataset
from art_divqat.errors import UserError


def arrays(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    good: dict[str, Any] = {
        "x_train": rng.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8),
        "y_train": np.arange(60) % 3,
        "x_test": rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8),
        "y_test": np.arange(12) % 3,
    }
    return {key: value for key, value in {**good, **changes}.items() if value is not None}


def test_npz_round_trip(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays(class_names=np.array(["cat", "dog", "owl"])))
    raw = load_raw(f"npz:{tmp_path / 'a.npz'}")
    assert raw.x.shape == (60, 3, 8, 8)
    assert raw.class_names == ("cat", "dog", "owl")
    dataset = split_dataset(raw)
    assert dataset.x_train.dtype == np.float32
    assert dataset.x_train.max() <= 1
    assert dataset.input_shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "lacks the array y_test"),
        ({"x_train": None, "x_test": None}, "lacks the arrays x_train, x_test"),
        ({"x_train": np.zeros((60, 8))}, "images have shape"),
        ({"x_train": np.zeros((60, 8, 8, 5))}, "with 1 or 3 channels"),
        ({"x_train": np.zeros((0, 8, 8))}, "at least one image"),
        ({"x_train": np.zeros((60, 8, 8, 3), np.int32)}, "dtype int32"),
        ({"x_train": np.full((60, 8, 8, 3), np.nan)}, "NaN"),
        ({"x_train": np.full((60, 8, 8, 3), 1.001)}, "values from 1.001 to 1.001"),
        ({"x_train": np.full((60, 8, 8, 3), 200.0)}, "values from 200 to 200"),
        ({"x_train": np.zeros((60, 8, 8))}, "x_train holds images of"),
        ({"y_train": np.arange(59) % 3}, "labels have shape"),
        ({"y_train": np.arange(60) % 3 - 1}, "labels run from -1"),
        ({"y_train": np.linspace(0, 1, 60)}, "not whole numbers"),
        ({"y_train": np.zeros(60, np.int64), "y_test": np.zeros(12, np.int64)}, "single class"),
        ({"y_train": np.arange(60) % 3 * 2}, "y_test holds class 1, of which y_train has no image"),
        ({"y_test": np.arange(12)}, "y_test holds class 3, of which y_train has no image"),
        ({"y_train": np.array([{}] * 60, dtype=object)}, "cannot be read as an .npz archive of plain arrays"),
    ],
)
def test_bad_npz(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays(**changes))
    with pytest.raises(UserError, match=message):
        load_raw(f"npz:{tmp_path / 'bad.npz'}")


def test_npz_that_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(UserError, match="cannot be read"):
        load_raw(f"npz:{tmp_path / 'text.npz'}")
    with pytest.raises(UserError, match="There is no file"):
        load_raw("npz:/nowhere/at/all.npz")


def make_pictures(root: Path, classes: int = 2, count: int = 10, size: int = 8, mode: str = "RGB") -> None:
    rng = np.random.default_rng(1)
    for label in range(classes):
        (root / f"class{label}").mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(root / f"class{label}" / f"{number}.png")


def test_folder(tmp_path: Path) -> None:
    make_pictures(tmp_path / "flat")
    raw = load_raw(f"folder:{tmp_path / 'flat'}")
    assert raw.x.shape == (20, 3, 8, 8)
    assert raw.x_test is None
    make_pictures(tmp_path / "split" / "train", mode="L")
    make_pictures(tmp_path / "split" / "test", mode="L", count=3)
    raw = load_raw(f"folder:{tmp_path / 'split'}")
    assert raw.x.shape == (20, 1, 8, 8)
    assert raw.x_test is not None
    assert len(raw.x_test) == 6


def test_folder_of_several_sizes_is_resized_and_says_so(tmp_path: Path) -> None:
    make_pictures(tmp_path)
    Image.new("RGB", (50, 20)).save(tmp_path / "class0" / "wide.png")
    raw = load_raw(f"folder:{tmp_path}")
    assert raw.x.shape[2:] == (32, 32)
    assert "resized to 32×32" in raw.notes[0]


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no folder"):
        load_raw(f"folder:{tmp_path / 'none'}")
    with pytest.raises(UserError, match="holds 0 class folders"):
        load_raw(f"folder:{tmp_path}")
    make_pictures(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no pictures"):
        load_raw(f"folder:{tmp_path}")
    (tmp_path / "empty" / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match=r"broken\.png cannot be read as a picture"):
        load_raw(f"folder:{tmp_path}")


def test_missing_and_unknown_sets(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="add --download, or point --data-root"):
        load_raw("mnist", data_root=tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="did you mean fashion_mnist"):
        canonical_dataset("fashion_mnst")
    with pytest.raises(UserError, match="did you mean photos"):
        canonical_pool("photo")


def test_splits_are_disjoint_stratified_and_seeded() -> None:
    raw = load_raw("digits")
    dataset = split_dataset(raw, seed=3)
    parts = (dataset.x_train, dataset.x_validation, dataset.x_pool, dataset.x_test)
    images = [{image.tobytes() for image in part} for part in parts]
    assert sum(map(len, images)) == len(set().union(*images))
    assert set(np.unique(dataset.y_train)) == set(range(10))
    counts = np.bincount(dataset.y_test)
    assert counts.max() - counts.min() <= 3
    assert split_dataset(raw, seed=3).checksum == dataset.checksum
    assert split_dataset(raw, seed=4).checksum != dataset.checksum


def test_a_copy_of_a_training_image_never_reaches_the_pool() -> None:
    raw = load_raw("digits")
    twice = type(raw)(raw.name, np.repeat(raw.x, 2, 0), np.repeat(raw.y, 2), None, None, raw.class_names)
    dataset = split_dataset(twice)
    train = {image.tobytes() for image in dataset.x_train}
    assert len(dataset.x_pool) > 0
    assert not any(image.tobytes() in train for image in dataset.x_pool)


def test_limit_keeps_classes_even() -> None:
    dataset = load_dataset("digits", limit=100)
    assert len(dataset.x_train) == len(dataset.x_test) == 100
    assert np.bincount(dataset.y_train).tolist() == [10] * 10


def test_too_few_images_a_class() -> None:
    raw = load_raw("digits")
    tiny = type(raw)(raw.name, raw.x[:11], raw.y[:11], None, None, raw.class_names)
    with pytest.raises(UserError, match="too few images"):
        split_dataset(tiny)


@pytest.mark.parametrize("name", ["photos", "noise", "in-distribution"])
def test_pools_have_the_victims_shape(name: str) -> None:
    dataset = load_dataset("digits")
    pool = load_pool(name, dataset)
    assert pool.x.shape[1:] == dataset.input_shape
    assert pool.x.dtype == np.float32
    assert 0 <= pool.x.min() <= pool.x.max() <= 1
    assert pool.checksum == load_pool(name, dataset).checksum


def test_the_set_itself_as_a_pool_is_its_held_out_part() -> None:
    dataset = load_dataset("digits")
    assert load_pool("digits", dataset).name == "in-distribution"
    assert default_pool("npz:mine.npz") == "photos"


def test_adaptation_against_pillow() -> None:
    x = np.random.default_rng(0).integers(0, 256, (3, 3, 32, 32), dtype=np.uint8)
    grey, words = adapt_images(x, (1, 32, 32))
    reference = np.stack([np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L")) for image in x])
    assert np.abs(grey[:, 0] * 255 - reference).max() <= 1.0
    assert words == "32×32×3 to 32×32×1: luma"
    small, _ = adapt_images(x, (3, 8, 8))
    resized = [np.asarray(Image.fromarray(i.transpose(1, 2, 0)).resize((8, 8), Image.Resampling.BILINEAR)) for i in x]
    assert np.abs(small.transpose(0, 2, 3, 1) * 255 - np.stack(resized)).max() <= 1.5
    assert np.array_equal(adapt_images(x, (3, 32, 32))[0], x / np.float32(255))


@pytest.mark.data
def test_real_mnist(data_root: Path) -> None:
    dataset = load_dataset("mnist", data_root=data_root, limit=1000)
    assert dataset.input_shape == (1, 28, 28)
    assert len(dataset.x_train) == 1000
    pool = load_pool("fashion_mnist", dataset, data_root=data_root)
    assert len(pool.x) == 60_000
    cifar = load_pool(f"npz:{data_root / 'cifar10-small.npz'}", dataset)
    assert cifar.x.shape == (10_000, 1, 28, 28)
    assert cifar.adaptation == "32×32×3 to 28×28×1: luma, bilinear"
