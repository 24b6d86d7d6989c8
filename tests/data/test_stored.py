"""Images in a file are the images that they were in memory, whatever is done with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from art_divqat.attacks.extraction._base import allocate_images
from art_divqat.audit.probe import ProbedThief
from art_divqat.data import adapt_images, listing, load_dataset, load_pool, load_raw, split_dataset, stored
from art_divqat.data.adapt import adapt_source, in_form
from art_divqat.data.archives import read_archive
from art_divqat.data.copies import shared_part
from art_divqat.data.pictures import ImageForm
from art_divqat.data.pools import LARGEST_POOL
from art_divqat.data.raw import RawImages, to_float
from art_divqat.data.splits import checksum
from art_divqat.data.stored import ImageFile, StoredImages, answers_to, as_bytes, is_large, keep, take
from art_divqat.errors import UserError
from art_divqat.estimators import RecipeClassifier, TrainingRecipe
from art_divqat.estimators.public import Features, PublicClassifier
from art_divqat.estimators.training_set import TrainingSet
from art_divqat.models import build_model

SHAPE = (1, 8, 8)


def pictures(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stored, "MOST_VALUES", 0)
    monkeypatch.setattr(stored, "_CHUNK_BYTES", 4 * 64 * 7)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def kept(images: Any) -> StoredImages:
    file = ImageFile(SHAPE, len(images), dtype=images.dtype)
    for row, image in enumerate(images):
        file.write(row, image)
    return StoredImages(file)


@given(
    count=st.integers(0, 9),
    bytes_=st.booleans(),
    keys=st.lists(
        st.one_of(
            st.slices(9), st.lists(st.integers(0, 8), max_size=5), st.lists(st.booleans(), min_size=9, max_size=9)
        ),
        max_size=3,
    ),
)
def test_indexing_gives_what_an_array_gives(count: int, bytes_: bool, keys: list[Any]) -> None:
    images = pictures(count)
    images = images if bytes_ else (images / 255).astype(np.float32)
    array, file = to_float(images), kept(images)
    for key in keys:
        if isinstance(key, list):
            key = np.array(key[: len(array)] if len(key) == 9 else [row for row in key if row < len(array)], dtype=None)
            key = key.astype(bool) if key.dtype == bool and len(key) == len(array) else key.astype(np.int64)
        np.testing.assert_array_equal(file[key], array[key])
        array, file = array[key], take(file, key)
        assert file.shape == array.shape
        np.testing.assert_array_equal(np.asarray(file), array)
        assert [image.tobytes() for image in file] == [image.tobytes() for image in array]


def test_an_image_is_made_once_and_anew_where_its_bytes_do_not_match(tmp_path: Path) -> None:
    made: list[int] = []

    def make(row: int) -> Any:
        made.append(row)
        return pictures(1, row)[0]

    path = tmp_path / "images.bytes"
    first = StoredImages(ImageFile(SHAPE, 4, make, path=path))
    expected = first[[2, 0, 2]]
    assert made == [2, 0]
    again = StoredImages(ImageFile(SHAPE, 4, make, path=path))
    np.testing.assert_array_equal(again[[2, 0, 2]], expected)
    assert made == [2, 0]
    damaged = bytearray(path.read_bytes())
    damaged[2 * 64 + 5] ^= 1
    path.write_bytes(damaged)
    np.testing.assert_array_equal(StoredImages(ImageFile(SHAPE, 4, make, path=path))[[2, 0, 2]], expected)
    assert made == [2, 0, 2]
    path.write_bytes(b"")
    np.testing.assert_array_equal(StoredImages(ImageFile(SHAPE, 4, make, path=path))[[2, 0, 2]], expected)
    assert ImageFile(SHAPE, 4, make, path=path).missing().tolist() == [1, 3]


def test_without_a_maker_damage_is_said_and_a_full_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ImageFile(SHAPE, 2, path=tmp_path / "x.bytes")
    file.write(0, pictures(1)[0])
    with pytest.raises(UserError, match=r"x\.bytes are damaged"):
        StoredImages(file)[1]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot keep the images"):
        ImageFile(SHAPE, 2, path=tmp_path / "file" / "x.bytes")


def test_what_is_large() -> None:
    assert not is_large(10**5, SHAPE)
    assert is_large(1, (3, 65, 64))
    assert is_large(200_000, (3, 32, 32))
    assert isinstance(keep(np.zeros((2, 3, 65, 64), np.uint8)), StoredImages)
    small = pictures(3)
    assert keep(small) is small


def test_written_images_are_rounded_and_read_back(everything_is_large: None) -> None:
    images = allocate_images(4, SHAPE)
    values = np.random.default_rng(1).random((2, *SHAPE)).astype(np.float32)
    images[1:3] = values
    images[3] = values[0]
    np.testing.assert_array_equal(images[1:3], to_float(as_bytes(values)))
    np.testing.assert_array_equal(images[3], images[1])
    assert np.abs(images[1:3] - values).max() <= 0.5 / 255 + 1e-7


def test_splits_and_shared_parts_are_those_of_arrays(everything_is_large: None) -> None:
    x, y = pictures(120), np.arange(120) % 3
    x[50] = x[10]  # a copy
    in_memory = RawImages("?", x, y, None, None, ("a", "b", "c"))
    in_a_file = RawImages("?", kept(x), y, None, None, ("a", "b", "c"))
    for seed in range(3):
        first, second = (split_dataset(raw, seed=seed, limit=30) for raw in (in_memory, in_a_file))
        for name in ("train", "validation", "pool", "test"):
            np.testing.assert_array_equal(getattr(first, f"x_{name}"), getattr(second, f"x_{name}"))
            np.testing.assert_array_equal(getattr(first, f"y_{name}"), getattr(second, f"y_{name}"))
        assert first.notes == second.notes
        assert split_dataset(in_a_file, seed=seed, limit=30).checksum == second.checksum
    a, b = x[:30], np.concatenate([x[20:25], 255 - x[:10]])
    assert shared_part(kept(a), kept(b)) == shared_part(to_float(a), to_float(b)) == 5 / 30
    assert shared_part(kept(a), to_float(b)) == 5 / 30
    assert checksum(kept(a)) != checksum(kept(b))


def test_forms_of_stored_images_are_those_of_arrays(everything_is_large: None) -> None:
    x, y = pictures(12), np.arange(12) % 2
    form = ImageForm((5, 7), 3)
    raw = in_form(RawImages("?", x, y, x[:3], y[:3], ("a", "b")), form)
    from_file = in_form(RawImages("?", kept(x), y, kept(x[:3]), y[:3], ("a", "b")), form)
    assert raw.notes == from_file.notes
    assert "rounded to 8 bits" in raw.notes[-1]
    for a, b in ((raw.x, from_file.x), (raw.x_test, from_file.x_test)):
        assert a is not None
        assert b is not None
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    rows = round((8 - 8 * 5 / 7) / 2)
    exact = adapt_images(x[:, :, rows : 8 - rows], (3, 5, 7))[0]
    assert np.abs(np.asarray(raw.x) - exact).max() <= 0.5 / 255 + 1e-6


def test_large_images_become_small_ones_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    x = pictures(9)
    monkeypatch.setattr(stored, "_CHUNK_BYTES", 4 * 64 * 2)
    images, words = adapt_source(kept(x), (3, 4, 4))
    expected, same_words = adapt_images(x, (3, 4, 4))
    assert isinstance(images, np.ndarray)
    np.testing.assert_allclose(images, expected, atol=1e-6)
    assert words == same_words


def test_a_generated_pool_is_the_same_at_an_index_and_is_not_made_before(everything_is_large: None) -> None:
    dataset = load_dataset("digits", limit=20)
    for name in ("photos", "walks", "noise"):
        pool, again = (load_pool(name, dataset) for _ in range(2))
        assert len(pool.x) == LARGEST_POOL
        assert len(pool.x.file.missing()) == LARGEST_POOL
        rows = np.array([59_999, 3])
        np.testing.assert_array_equal(pool.x[rows], again.x[np.array([3, 59_999])][::-1])
        assert not np.array_equal(pool.x[3], pool.x[4])
        assert pool.checksum == again.checksum != load_pool(name, dataset, seed=1).checksum
        assert shared_part(pool.x, dataset.x_train) == 0
        assert len(pool.x.file.missing()) == LARGEST_POOL - 3
        assert "rounded to 8 bits" in pool.adaptation


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "NHW"])
@pytest.mark.parametrize("floats", [False, True])
def test_a_large_archive_is_read_in_parts_and_kept(
    everything_is_large: None, tmp_path: Path, layout: str, floats: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = pictures(40), np.arange(40) % 4
    laid = {"NCHW": x, "NHWC": x.transpose(0, 2, 3, 1), "NHW": x[:, 0]}[layout]
    laid = (laid / 255).astype(np.float64) if floats else laid
    path = tmp_path / "x.npz"
    np.savez_compressed(path, x_train=laid, y_train=y, x_test=laid[:8], y_test=y[:8])
    raw = read_archive(path)
    assert isinstance(raw.x, StoredImages)
    np.testing.assert_array_equal(np.asarray(raw.x), to_float(x))
    assert raw.x_test is not None
    np.testing.assert_array_equal(np.asarray(raw.x_test), to_float(x[:8]))
    monkeypatch.setattr(ImageFile, "write", None)  # a second time nothing is written
    np.testing.assert_array_equal(np.asarray(read_archive(path).x), to_float(x))


def test_large_archives_are_refused_as_small_ones_are(everything_is_large: None, tmp_path: Path) -> None:
    y = np.arange(40) % 4
    for bad, message in (
        (pictures(40).astype(np.int32), "dtype int32"),
        (pictures(40).astype(np.float32), r"must lie in \[0, 1\]"),
        (np.full((40, 8, 8), np.nan), "not finite"),
    ):
        np.savez(tmp_path / "bad.npz", x=bad, y=y)
        with pytest.raises(UserError, match=message):
            read_archive(tmp_path / "bad.npz")
    np.savez(tmp_path / "cut.npz", x=pictures(40), y=y)
    data = bytearray((tmp_path / "cut.npz").read_bytes())
    data[500] ^= 255
    (tmp_path / "cut.npz").write_bytes(data)
    with pytest.raises(UserError, match=r"cannot be read as an \.npz archive"):
        read_archive(tmp_path / "cut.npz")


@pytest.mark.parametrize("augmentation", ["none", "flip", "crop-flip"])
def test_a_network_learns_the_same_from_a_file(augmentation: str) -> None:
    x, y = pictures(50), np.arange(50) % 3
    recipe = TrainingRecipe(epochs=2, batch_size=16, augmentation=augmentation)
    answers = []
    for images in (to_float(x), kept(x)):
        network = build_model("lenet5", SHAPE, 3, seed=0)
        classifier = RecipeClassifier(network, SHAPE, 3, recipe)
        classifier.fit(images, np.tile(y, 2)[:70], rows=np.arange(70) % 50)
        answers.append(answers_to(classifier.predict, images))
    np.testing.assert_array_equal(*answers)
    assert len(answers_to(classifier.predict, kept(x[:0]))) == 0


def test_a_training_set_of_floats_in_a_file() -> None:
    x = np.random.default_rng(0).random((6, *SHAPE), np.float32)
    data = TrainingSet(kept(x), torch.arange(6), None, torch.device("cpu"))
    ((images, labels),) = data.epoch(torch.tensor([3, 1, 5]), 3)
    np.testing.assert_array_equal(images.numpy(), x[labels.numpy()])


def test_large_pictures_are_decoded_once(
    everything_is_large: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "pictures"
    for row, image in enumerate(pictures(12)):
        for part in ("train", "test"):
            (root / part / "ab"[row % 2]).mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(image[0]).resize((8 + row % 2, 9))
            picture.convert("RGBA" if row == 3 else "L").save(root / part / "ab"[row % 2] / f"{row}.png")
    form = ImageForm((8, 8))
    first = load_raw(f"folder:{root}", form=form)
    assert isinstance(first.x, StoredImages)
    assert first.x_test is not None
    monkeypatch.setattr(stored, "MOST_VALUES", 10**6)
    in_memory = load_raw(f"folder:{root}", form=form)
    assert in_memory.notes == first.notes
    monkeypatch.setattr(stored, "MOST_VALUES", 0)
    monkeypatch.setattr(listing, "read_header", None)
    monkeypatch.setattr(listing, "read_picture", None)
    again = load_raw(f"folder:{root}", form=form)
    for images, expected in ((first.x, in_memory.x), (again.x, in_memory.x), (again.x_test, in_memory.x_test)):
        assert isinstance(expected, np.ndarray)
        np.testing.assert_array_equal(np.asarray(images), to_float(expected))
    assert again.notes == first.notes
    monkeypatch.undo()
    monkeypatch.setattr(stored, "MOST_VALUES", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (root / "train" / "a" / "0.png").write_bytes(b"not a picture")
    (root / "test" / "b" / "3.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"a/0\.png cannot be read .* So it is with 1 more"):
        load_raw(f"folder:{root}", form=form)


@pytest.mark.parametrize("kind", [RecipeClassifier, ProbedThief, PublicClassifier])
def test_no_classifier_makes_one_array_of_stored_images(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, recipe = kept(pictures(20)), TrainingRecipe(epochs=1, batch_size=8)
    monkeypatch.setattr(stored, "_CHUNK_BYTES", 4 * 64 * 5)
    monkeypatch.setattr(stored, "MOST_VALUES", 0)
    largest = 0
    read = ImageFile.read

    def noted(file: ImageFile, rows: Any) -> Any:
        nonlocal largest
        largest = max(largest, len(rows))
        return read(file, rows)

    monkeypatch.setattr(ImageFile, "read", noted)
    if kind is PublicClassifier:
        body = torch.nn.Sequential(torch.nn.Flatten())
        classifier = PublicClassifier(Features(body, 64, SHAPE), 3, recipe)
    else:
        classifier = kind(build_model("lenet5", SHAPE, 3, seed=0), SHAPE, 3, recipe)
    classifier.fit(x, np.eye(3, dtype=np.float32)[np.arange(20) % 3])
    classifier.fit(x=x, y=np.arange(20) % 3)
    classifier.fit(x, np.eye(3, dtype=np.float32)[np.arange(19) % 3], rows=np.arange(19))
    assert 0 < largest <= 8
