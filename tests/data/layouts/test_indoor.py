"""MIT Indoor-67: the authors' lists, wherever they lie, and one sentence for every damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.picture_trees import indoor67

from art_divqat.data.sources import list_pictures
from art_divqat.errors import UserError

LISTS = ("TrainImages.txt", "TestImages.txt")


@pytest.mark.parametrize("folder", ["indoorCVPR_09", "indoor67", ""])
def test_the_split(tmp_path: Path, folder: str) -> None:
    indoor67(tmp_path, folder=folder)
    listing = list_pictures("indoor67", data_root=tmp_path)
    assert listing.class_names == ("airport_inside", "inside_bus", "tv_studio")
    assert listing.test is not None
    for part, each in ((listing.train, 8), (listing.test, 2)):
        assert np.bincount(part.labels).tolist() == [each] * 3
        named = [listing.class_names[label] for label in part.labels]
        assert [file.parent.name for file in part.files] == named
    assert not set(listing.train.files) & set(listing.test.files)
    assert listing.notes == ("3 classes and 30 pictures, where the whole set has 67 and 6,700",)
    assert listing.left_out == ("9 pictures left out, which the split does not name",)


def test_the_lists_may_lie_beside_the_folder(tmp_path: Path) -> None:
    place = indoor67(tmp_path)
    before = list_pictures("indoor67", data_root=tmp_path)
    for table in LISTS:
        (place / table).rename(tmp_path / table)
    assert list_pictures("indoor67", data_root=tmp_path) == before


def add(table: str, line: str) -> Callable[[Path], None]:
    return lambda place: (place / table).write_text((place / table).read_text() + f"\n{line}") and None


def remove_listed(place: Path) -> None:
    for file in (place / "Images" / "tv_studio").glob("* 00_*"):
        file.unlink()


def rest_of(table: str, room: str) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        lines = (place / table).read_text().splitlines()
        (place / table).write_text("\n".join(line for line in lines if not line.startswith(room)))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda place: (place / LISTS[0]).unlink(), r"in .*indoorCVPR_09 lacks TrainImages\.txt: unpack indoorCVPR_09"),
        (lambda place: (place / LISTS[1]).unlink(), r"in .*indoorCVPR_09 lacks TestImages\.txt"),
        (lambda place: (place / LISTS[1]).write_text(""), "has an empty TestImages.txt"),
        (add(LISTS[0], "bakery/b1.jpg"), "has no folder in Images for bakery/b1.jpg, which TrainImages.txt lists"),
        (add(LISTS[1], "tv_studio/b1.jpg"), "lacks 1 of the 7 pictures that TestImages.txt lists, the first Images/tv"),
        (remove_listed, "lacks 1 of the 6 pictures that TestImages.txt lists"),
        (rest_of(LISTS[0], "inside_bus"), "has no training pictures of 1 of 3 classes, inside_bus"),
        (rest_of(LISTS[1], "inside_bus"), "has no test pictures of 1 of 3 classes, inside_bus"),
        (lambda place: (place / "Images" / "zoo").mkdir(), "has no training pictures of 1 of 4 classes, zoo"),
        (lambda place: [shutil.rmtree(f) for f in (place / "Images").iterdir()], "has 0 class folders in Images"),
    ],
)
def test_damaged_trees(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(indoor67(tmp_path))
    with pytest.raises(UserError, match=message) as caught:
        list_pictures("indoor67", data_root=tmp_path)
    assert "\n" not in str(caught.value)
