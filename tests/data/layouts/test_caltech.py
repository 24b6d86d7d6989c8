"""Caltech-101 and Caltech-256: their classes, what is none, and one sentence for every damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.picture_trees import caltech101, caltech256

from art_divqat.data import load_raw
from art_divqat.data.pictures import ImageForm
from art_divqat.data.sources import list_pictures
from art_divqat.errors import UserError


@pytest.mark.parametrize("folder", ["caltech101", "caltech-101", "caltech101/caltech-101", ""])
def test_caltech101(tmp_path: Path, folder: str) -> None:
    caltech101(tmp_path, folder=folder)
    listing = list_pictures("caltech101", data_root=tmp_path)
    # as torchvision and ImageFolder sort them
    assert listing.class_names == ("Faces", "Faces_easy", "accordion", "airplanes")
    assert np.bincount(listing.train.labels).tolist() == [8] * 4
    assert (listing.test, listing.validation) == (None, None)
    assert listing.notes == (
        "4 classes and 32 pictures, where the whole set has 101 and 8,677",
        "the set has no split: test images are cut off it",
    )
    assert listing.left_out == ("BACKGROUND_Google left out, which is no class",)


@pytest.mark.parametrize("folder", ["caltech256", ""])
def test_caltech256(tmp_path: Path, folder: str) -> None:
    caltech256(tmp_path, folder=folder)
    raw = load_raw("caltech256", data_root=tmp_path, form=ImageForm((8, 8)))
    assert raw.class_names == ("ak47", "dog", "motorbikes-101", "spider")
    assert raw.y.tolist() == [0] * 8 + [1] * 8 + [2] * 8 + [3] * 8
    assert any("4 of 32 pictures of grey turned to RGB" in note for note in raw.notes)
    assert raw.notes[-2] == "257.clutter left out, which is no class"
    assert raw.notes[-1].startswith("1 files skipped, no picture of a class: 1 without an ending; the first is 256_Obj")


def test_a_tree_that_was_tidied_up_says_nothing_of_it(tmp_path: Path) -> None:
    place = caltech256(tmp_path) / "256_ObjectCategories"
    for name in ("257.clutter", "056.dog/greg"):
        shutil.rmtree(place / name)
    (place / "198.spider" / "RENAME2").unlink()
    assert list_pictures("caltech256", data_root=tmp_path).left_out == ()


@pytest.mark.parametrize(("name", "make"), [("caltech101", caltech101), ("caltech256", caltech256)])
def test_damaged_trees(tmp_path: Path, name: str, make: object) -> None:
    place = make(tmp_path)  # type: ignore[operator]
    (below,) = (entry for entry in place.iterdir() if entry.name.endswith("_ObjectCategories"))
    emptied = sorted(below.iterdir())[1]
    for file in emptied.glob("*.jpg"):
        file.unlink()
    called = emptied.name.removeprefix("056.")
    with pytest.raises(UserError, match=rf"has no pictures of 1 of 4 classes, {called}: unpack .* again\.$"):
        list_pictures(name, data_root=tmp_path)
    for folder in below.iterdir():
        shutil.rmtree(folder)
    with pytest.raises(UserError, match=rf"'{name}' in .* has 0 class folders in {below.name}"):
        list_pictures(name, data_root=tmp_path)


def test_a_picture_that_is_cut_off(tmp_path: Path) -> None:
    place = caltech101(tmp_path)
    file = place / "101_ObjectCategories" / "accordion" / "image_0003.jpg"
    file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(UserError, match=r"image_0003\.jpg cannot be read as a picture"):
        load_raw("caltech101", data_root=tmp_path)


def test_an_archive_that_is_unpacked_by_half(tmp_path: Path) -> None:
    (tmp_path / "caltech-101").mkdir()
    (tmp_path / "caltech-101" / "101_ObjectCategories.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(UserError, match=r"unpack caltech-101\.zip, and 101_ObjectCategories\.tar\.gz of it, there"):
        list_pictures("caltech101", data_root=tmp_path)
