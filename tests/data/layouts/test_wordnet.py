"""Tiny ImageNet and Imagenette: classes by WordNet id, annotations, sizes, and one sentence for every damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.picture_trees import NETTE, WNIDS, imagenette, picture, tiny_imagenet, write

from art_divqat.data.sources import list_pictures
from art_divqat.errors import UserError

ANNOTATIONS = "val/val_annotations.txt"


def test_tiny_imagenet(tmp_path: Path) -> None:
    tiny_imagenet(tmp_path)
    listing = list_pictures("tiny-imagenet", data_root=tmp_path)
    # as ImageFolder sorts the folders of train, which is not the order of wnids.txt
    assert listing.class_names == ("goldfish", "Egyptian cat", "reel")
    wnids = sorted(WNIDS)
    assert [file.parents[1].name for file in listing.train.files] == [wnids[label] for label in listing.train.labels]
    assert np.bincount(listing.train.labels).tolist() == [8] * 3
    assert listing.test is not None
    assert [file.name for file in listing.test.files] == [f"val_{number}.JPEG" for number in range(6)]
    assert listing.test.labels == [1, 0, 2] * 2
    assert listing.notes == (
        "3 classes and 30 pictures, where the whole set has 200 and 110,000",
        "the test images are those of val: those of test have no labels",
    )
    assert listing.left_out == ()


def test_pictures_that_no_annotation_names_are_counted(tmp_path: Path) -> None:
    place = tiny_imagenet(tmp_path)
    lines = (place / ANNOTATIONS).read_text().splitlines()
    write(place / ANNOTATIONS, lines[:-2])
    (note,) = list_pictures("tiny_imagenet", data_root=tmp_path).left_out
    assert note == "2 pictures left out, which val/val_annotations.txt does not name"


def test_two_classes_of_one_name(tmp_path: Path) -> None:
    place = tiny_imagenet(tmp_path)
    write(
        place / "words.txt",
        [f"{wnid}\tcrane, {text}" if wnid > "n02" else f"{wnid}\t{text}" for wnid, text in WNIDS.items()],
    )
    names = list_pictures("tiny_imagenet", data_root=tmp_path).class_names
    assert names == ("goldfish", "crane (n02124075)", "crane (n04067472)")


def annotate(line: str) -> Callable[[Path], None]:
    def change(place: Path) -> None:
        lines = (place / ANNOTATIONS).read_text().splitlines()
        write(place / ANNOTATIONS, [*lines[:-1], line])

    return change


def one_class_only(place: Path) -> None:
    lines = [f"val_{number}.JPEG\tn04067472\t0\t0\t9\t9" for number in range(6)]
    write(place / ANNOTATIONS, lines)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda place: (place / "wnids.txt").unlink(), "lacks wnids.txt: unpack tiny-imagenet-200.zip again"),
        (lambda place: (place / "words.txt").unlink(), "lacks words.txt"),
        (lambda place: (place / ANNOTATIONS).unlink(), r"lacks val/val_annotations\.txt"),
        (
            lambda place: write(place / "words.txt", ["n1\tentity"]),
            "has no words for n01443537, n02124075, n04067472 in",
        ),
        (lambda place: write(place / "words.txt", ["n1 entity"]), "has 1 of 2 columns in line 1 of words.txt"),
        (
            lambda place: shutil.rmtree(place / "train"),
            "has no training pictures of 3 of 3 classes, goldfish, Egyptian",
        ),
        (
            lambda place: shutil.rmtree(place / "train" / "n04067472"),
            "has no training pictures of 1 of 3 classes, reel: unpack",
        ),
        (
            lambda place: picture(place / "train" / "n99999999" / "images" / "a.JPEG", 1),
            "has folders in train that are no classes, n99999999",
        ),
        (
            lambda place: shutil.rmtree(place / "val" / "images"),
            "lacks 6 of the 6 pictures that val/val_annotations.txt",
        ),
        (annotate("val_9.JPEG\tn04067472\t0\t0\t9\t9"), "lacks 1 of the 6 .* the first val/images/val_9.JPEG"),
        (
            annotate("val_5.JPEG\tn07777777\t0\t0\t9\t9"),
            r"has n07777777 for val_5\.JPEG in val/val_annotations\.txt, not a class of wnids\.txt",
        ),
        (annotate("val_5.JPEG"), r"has 1 of 2 columns in line 6 of val/val_annotations\.txt"),
        (one_class_only, "has no validation pictures of 2 of 3 classes, goldfish, Egyptian cat"),
    ],
)
def test_damaged_tiny_imagenet(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(tiny_imagenet(tmp_path))
    with pytest.raises(UserError, match=message) as caught:
        list_pictures("tiny_imagenet", data_root=tmp_path)
    assert "\n" not in str(caught.value)


def test_imagenette(tmp_path: Path) -> None:
    imagenette(tmp_path)
    listing = list_pictures("imagenette", data_root=tmp_path)
    assert listing.class_names == ("tench", "chain saw", "parachute")
    assert listing.test is not None
    for part, side, each in ((listing.train, "train", 8), (listing.test, "val", 2)):
        assert np.bincount(part.labels).tolist() == [each] * 3
        assert [file.parent.name for file in part.files] == [NETTE[label] for label in part.labels]
        assert {file.parents[1].name for file in part.files} == {side}
    assert "read from imagenette2-160" in listing.notes
    # the table of noisy labels is beside the parts, and no picture of a class
    assert listing.left_out == ()


def test_the_largest_size_is_read(tmp_path: Path) -> None:
    for folder in ("imagenette2-160", "imagenette2-320", "imagenette2"):
        imagenette(tmp_path, folder=folder)
        assert f"read from {folder}" in list_pictures("imagenette", data_root=tmp_path).notes


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda place: shutil.rmtree(place / "val"),
            "has no validation pictures of 3 of 3 classes, tench, chain saw, par",
        ),
        (lambda place: shutil.rmtree(place / "train"), "has 0 class folders in train: unpack imagenette2.tgz, imagen"),
        (
            lambda place: shutil.rmtree(place / "val" / "n03000684"),
            "has no validation pictures of 1 of 3 classes, chain saw",
        ),
        (
            lambda place: [file.unlink() for file in (place / "train" / "n03888257").iterdir()],
            "has no training pictures of 1 of 3 classes, parachute",
        ),
        (
            lambda place: picture(place / "val" / "n02086240" / "a.JPEG", 1),
            "has folders in val that are no classes, n02086240",
        ),
    ],
)
def test_damaged_imagenette(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(imagenette(tmp_path))
    with pytest.raises(UserError, match=message) as caught:
        list_pictures("imagenette", data_root=tmp_path)
    assert "\n" not in str(caught.value)
