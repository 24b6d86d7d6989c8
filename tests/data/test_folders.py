"""Folders of pictures: layouts, what is skipped, sizes, and one line for what cannot be used."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from art_divqat.data import RawImages, load_dataset, load_pool, load_raw, split_dataset
from art_divqat.data.adapt import in_form
from art_divqat.data.pictures import ImageForm
from art_divqat.errors import UserError


def fill(root: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 10, seed: int = 0, side: int = 8) -> Path:
    rng = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING"])
@pytest.mark.parametrize("held_out", ["val", "valid", "Validation", "test", "TEST"])
def test_train_and_one_held_out_part(tmp_path: Path, train: str, held_out: str) -> None:
    fill(tmp_path / train)
    fill(tmp_path / held_out, count=4, seed=1)
    raw = load_raw(f"folder:{tmp_path}")
    assert raw.class_names == ("cat", "dog")
    assert raw.x_test is not None
    assert raw.y_test is not None
    assert (len(raw.x), raw.y_test.tolist(), raw.x_validation) == (20, [0] * 4 + [1] * 4, None)
    assert any(f"the test images are those of {held_out}" in note for note in raw.notes) == ("val" in held_out.lower())


def test_three_parts_are_kept_apart(tmp_path: Path) -> None:
    for seed, part in enumerate(("Train", "Val", "Test")):
        fill(tmp_path / part, seed=seed)
    raw = load_raw(f"folder:{tmp_path}")
    assert raw.x_validation is not None
    assert raw.x_test is not None
    dataset = split_dataset(raw)
    assert (len(dataset.x_train), len(dataset.x_validation), len(dataset.x_pool), len(dataset.x_test)) == (
        14,
        20,
        6,
        20,
    )
    np.testing.assert_array_equal(dataset.x_validation, raw.x_validation / np.float32(255))
    np.testing.assert_array_equal(dataset.x_test, raw.x_test / np.float32(255))
    assert split_dataset(raw, limit=4).y_validation.tolist() == [0, 0, 1, 1]


def test_train_alone_has_its_test_images_cut_off(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    raw = load_raw(f"folder:{tmp_path}")
    assert (raw.class_names, raw.x_test) == (("cat", "dog"), None)
    assert "test images are cut off" in raw.notes[0]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    fill(tmp_path, ("train", "bus", "plane"))
    assert load_raw(f"folder:{tmp_path}").class_names == ("bus", "plane", "train")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("train", "val", "extra"), r"beside, 'extra'; expected train with val, test or both"),
        (("train", "cat"), "beside, 'cat'"),
        (("val", "test"), "'test', 'val' and no train"),
        (("test",), "'test' and no train"),
        (("train", "val", "valid"), "the same part: keep one"),
        (("train", "Train"), "the same part: keep one"),
    ],
)
def test_other_layouts_are_refused(tmp_path: Path, parts: tuple[str, ...], message: str) -> None:
    for part in parts:
        fill(tmp_path / part)
    with pytest.raises(UserError, match=message) as caught:
        load_raw(f"folder:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_test_images_without_class_folders_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    shutil.move(fill(tmp_path / "flat", ("cat",)) / "cat", tmp_path / "test")
    shutil.rmtree(tmp_path / "flat")
    with pytest.raises(UserError, match="test holds no class folders"):
        load_raw(f"folder:{tmp_path}")


def test_classes_of_the_test_images(tmp_path: Path) -> None:
    fill(tmp_path / "train", ("ant", "bee", "cat"))
    fill(tmp_path / "test", ("ant", "cat"))
    raw = load_raw(f"folder:{tmp_path}")
    assert raw.y_test is not None
    assert set(raw.y_test) == {0, 2}
    assert raw.notes == ("test has no pictures of 1 of 3 classes: bee",)
    fill(tmp_path / "test", ("Bee", "eel"))
    with pytest.raises(UserError, match="test holds 'Bee', 'eel', which train has not"):
        load_raw(f"folder:{tmp_path}")


def test_letters_written_in_two_ways_are_one_class(tmp_path: Path) -> None:
    fill(tmp_path / "train", ("caf\u00e9", "\u732b"))
    fill(tmp_path / "test", ("cafe\u0301", "\u732b"))
    raw = load_raw(f"folder:{tmp_path}")
    assert raw.y_test is not None
    assert np.bincount(raw.y_test).tolist() == [10, 10]


def test_what_systems_leave_behind_is_skipped_and_the_rest_is_counted_and_named(tmp_path: Path) -> None:
    fill(tmp_path)
    expected = load_raw(f"folder:{tmp_path}")
    assert expected.notes == ()
    fill(tmp_path / "__MACOSX", ("cat",))
    fill(tmp_path / "cat" / "@eaDir", ("x",))
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / "cat" / name).write_bytes(b"\0")
        (tmp_path / name).write_bytes(b"\0")
    assert load_raw(f"folder:{tmp_path}").notes == ()
    for name in ("a.heic", "b.HEIC", "c.avif", "notes"):
        (tmp_path / "dog" / name).write_bytes(b"\0")
    (tmp_path / "labels.csv").write_text("a,b")
    raw = load_raw(f"folder:{tmp_path}")
    np.testing.assert_array_equal(raw.x, expected.x)
    (note,) = raw.notes
    assert note.startswith("5 files skipped, no picture in a class folder: 2 .heic, ")
    assert all(part in note for part in ("1 .avif", "1 .csv", "1 without an ending", "dog/a.heic"))


def test_a_class_of_nothing_that_can_be_read_is_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "eel").mkdir()
    (tmp_path / "eel" / "a.heic").write_bytes(b"\0")
    with pytest.raises(UserError, match=r"eel holds no pictures, but 1 \.heic: convert them"):
        load_raw(f"folder:{tmp_path}")


def test_every_broken_picture_counts(tmp_path: Path) -> None:
    fill(tmp_path)
    for number in range(3):
        (tmp_path / "dog" / f"broken{number}.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"broken0\.jpg cannot be read .* it is empty\..* So it is with 2 more\."):
        load_raw(f"folder:{tmp_path}")


def test_links_and_folders_inside_classes_are_followed_once(tmp_path: Path) -> None:
    elsewhere = fill(tmp_path / "elsewhere", ("cat", "dog"))
    data = fill(tmp_path / "data", ("cat",), seed=1)
    (data / "cat" / "2020").symlink_to(elsewhere / "cat")
    (data / "cat" / "loop").symlink_to(data / "cat")
    (data / "dog").symlink_to(elsewhere / "dog")
    (elsewhere / "dog" / "0.png").rename(elsewhere / "dog" / "0.PNG")
    raw = load_raw(f"folder:{data}")
    assert np.bincount(raw.y).tolist() == [20, 10]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: fill(root, ("only",)), "holds 1 class folders; expected at least two"),
        (lambda root: fill(root / "photos"), "if the classes are the 2 folders in 'photos', name that folder"),
        (lambda root: root.write_bytes(b"PK\x03\x04"), "is a file; expected a folder .*: unpack it"),
        (lambda root: None, "There is no folder"),
    ],
)
def test_what_is_no_set_of_classes(tmp_path: Path, make: object, message: str) -> None:
    make(tmp_path / "data")  # type: ignore[operator]
    with pytest.raises(UserError, match=message):
        load_raw(f"folder:{tmp_path / 'data'}")


def test_sizes(tmp_path: Path) -> None:
    fill(tmp_path, side=24)
    Image.new("RGB", (50, 20)).save(tmp_path / "cat" / "wide.png")
    name = f"folder:{tmp_path}"
    raw = load_raw(name)
    assert raw.x.shape[2:] == (32, 32)
    assert raw.notes == (
        "pictures of 2 sizes resized to 32×32, bilinear, centre crop; --image-size gives another size",
    )
    raw = load_raw(name, form=ImageForm((24, 12), fit="squash"))
    assert raw.x.shape[2:] == (24, 12)
    assert raw.notes == ("pictures of 2 sizes resized to 24×12, bilinear, squashed",)
    first = np.asarray(Image.open(tmp_path / "cat" / "0.png")).transpose(2, 0, 1)
    np.testing.assert_array_equal(load_raw(name, form=ImageForm((24, 24))).x[0], first)


def test_arrays_of_one_size_are_resized_where_that_is_asked(tmp_path: Path) -> None:
    dataset = load_dataset("digits", form=ImageForm((16, 12)))
    assert dataset.input_shape == (1, 16, 12)
    assert dataset.notes == ("8×6×1 to 16×12×1: bilinear, of the centre of images of 8×8",)
    assert load_dataset("digits", form=ImageForm((8, 8))).notes == ()
    middle = np.zeros((1, 1, 4, 8), np.float32)
    middle[..., 2:6] = 1
    raw = RawImages("wide", middle, np.zeros(1, np.int64), None, None, ("a", "b"))
    assert in_form(raw, ImageForm((2, 2))).x.min() == 1
    assert in_form(raw, ImageForm((2, 2), fit="squash")).x.min() < 1


def test_a_folder_of_pictures_as_a_pool_comes_straight_to_the_victims_size(tmp_path: Path) -> None:
    fill(tmp_path, side=24)
    Image.new("RGB", (50, 20)).save(tmp_path / "cat" / "wide.png")
    pool = load_pool(f"folder:{tmp_path}", load_dataset("digits", form=ImageForm((24, 24))))
    assert pool.x.shape == (21, 1, 24, 24)
    assert pool.describe()["notes"] == ["pictures of 2 sizes resized to 24×24, bilinear, centre crop"]
    assert pool.adaptation == "24×24×3 to 24×24×1: luma"
    assert "notes" not in load_pool("noise", load_dataset("digits", limit=100)).describe()


@pytest.mark.data
def test_real_photographs(data_root: Path) -> None:
    if not (data_root / "photographs").is_dir():
        pytest.skip("there are no photographs")
    dataset = load_dataset(f"folder:{data_root / 'photographs' / 'objects'}", form=ImageForm((24, 24)))
    assert (dataset.input_shape, dataset.nb_classes, len(dataset.x_test)) == ((3, 24, 24), 24, 479)
    assert any("turned to RGB" in note for note in dataset.notes)
