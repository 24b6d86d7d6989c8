"""CUB-200-2011: the authors' split, and one sentence for every damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.picture_trees import cub200, write

from art_divqat.data import load_raw
from art_divqat.data.pictures import ImageForm
from art_divqat.data.sources import list_pictures
from art_divqat.errors import UserError


def test_the_split_and_the_classes(tmp_path: Path) -> None:
    place = cub200(tmp_path)
    listing = list_pictures("cub200", data_root=tmp_path)
    assert listing.class_names == ("Black_footed_Albatross", "Laysan_Albatross", "Red_winged_Blackbird")
    assert listing.test is not None
    for part, each in ((listing.train, 8), (listing.test, 2)):
        assert np.bincount(part.labels).tolist() == [each] * 3
        # the folder of a picture is its class
        folders = ("001.", "002.", "010.")
        assert all(file.parent.name.startswith(folders[label]) for file, label in zip(*part, strict=True))
    assert not set(listing.train.files) & set(listing.test.files)
    assert listing.notes == (
        "3 classes and 30 pictures, where the whole set has 200 and 11,788",
        "whole pictures, not cut to their bounding boxes",
    )
    raw = load_raw("cub200", data_root=place, form=ImageForm((8, 8)))
    assert any("1 of 30 pictures of grey turned to RGB" in note for note in raw.notes)


def test_the_order_of_lines_does_not_matter_and_boxes_are_not_needed(tmp_path: Path) -> None:
    place = cub200(tmp_path)
    before = list_pictures("cub200", data_root=tmp_path)
    for table in ("image_class_labels.txt", "train_test_split.txt"):
        lines = (place / table).read_text().splitlines()
        write(place / table, lines[::-1])
    (place / "bounding_boxes.txt").unlink()
    assert list_pictures("cub200", data_root=tmp_path) == before


def drop(table: str) -> Callable[[Path], None]:
    return lambda place: (place / table).unlink()


def last_line(table: str, line: str | None) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        lines = (place / table).read_text().splitlines()[:-1]
        write(place / table, lines if line is None else [*lines, line])

    return change


def no_test_pictures_of_the_last(place: Path) -> None:
    write(place / "train_test_split.txt", [f"{number} {int(number > 20 or number % 2)}" for number in range(1, 31)])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop("images.txt"), "lacks images.txt: unpack CUB_200_2011.tgz again"),
        (drop("classes.txt"), "lacks classes.txt"),
        (drop("image_class_labels.txt"), "lacks image_class_labels.txt"),
        (drop("train_test_split.txt"), "lacks train_test_split.txt"),
        (
            lambda place: shutil.rmtree(place / "images" / "002.Laysan_Albatross"),
            r"lacks 10 of the 30 pictures that images.txt lists, the first images/002\.Laysan_Albatross/Laysan",
        ),
        (lambda place: shutil.rmtree(place / "images"), "lacks 30 of the 30 pictures"),
        (
            last_line("train_test_split.txt", None),
            r"says nothing in train_test_split.txt of 1 pictures of images.txt, the first 010\.Red",
        ),
        (
            last_line("image_class_labels.txt", "30 201"),
            r"has 201 for 010.*1030\.jpg in image_class_labels.txt, not a class of classes.txt",
        ),
        (last_line("train_test_split.txt", "30 2"), "has 2 for .* in train_test_split.txt, not 0 or 1"),
        (last_line("images.txt", "30"), "has 1 of 2 columns in line 30 of images.txt"),
        (
            last_line("classes.txt", "3 010.Red_winged_Blackbird\n4 011.Rusty_Blackbird"),
            "has no training pictures of 1 of 4 classes, Rusty_Blackbird",
        ),
        (no_test_pictures_of_the_last, "has no test pictures of 1 of 3 classes, Red_winged_Blackbird"),
    ],
)
def test_damaged_trees(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(cub200(tmp_path))
    with pytest.raises(UserError, match=message) as caught:
        list_pictures("cub200", data_root=tmp_path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"Data set 'cub200' in {tmp_path / 'CUB_200_2011'} ")
