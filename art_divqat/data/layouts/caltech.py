"""Caltech-101 and Caltech-256: a folder of pictures a class, without a split, and one of pictures of no class."""

from __future__ import annotations

from pathlib import Path

from art_divqat.data.layouts.tree import Archive, flat_pictures, folder_names
from art_divqat.data.listing import Part, PictureList, skipped
from art_divqat.data.pictures import ImageForm

_CALTECH101 = Archive(
    "caltech101",
    "caltech-101.zip, and 101_ObjectCategories.tar.gz of it,",
    ("caltech101", "caltech-101", "caltech101/caltech-101"),
    ("101_ObjectCategories",),
    101,
    8_677,
    "Caltech101",
)
_CALTECH256 = Archive(
    "caltech256",
    "256_ObjectCategories.tar",
    ("caltech256", "caltech-256"),
    ("256_ObjectCategories",),
    256,
    29_780,
    "Caltech256",
)


def caltech101(root: Path, download: bool) -> PictureList:
    """List the pictures of the classes, in the order of their names.

    :raises UserError: if the set is not in `root`, or a class is empty.
    """
    return _classes(_CALTECH101, _CALTECH101.find(root, download), "BACKGROUND_Google")


def caltech256(root: Path, download: bool) -> PictureList:
    """List the pictures of the classes, in the order of their numbers.

    :raises UserError: if the set is not in `root`, or a class is empty.
    """
    return _classes(_CALTECH256, _CALTECH256.find(root, download), "257.clutter")


def _classes(archive: Archive, place: Path, background: str) -> PictureList:
    below = archive.landmarks[0]
    folders = [name for name in folder_names(place / below) if name != background]
    if len(folders) < 2:
        raise archive.damaged(place, f"has {len(folders)} class folders in {below}")
    names = tuple(_after_number(name) for name in folders)
    files: list[Path] = []
    labels: list[int] = []
    others: list[Path] = []
    for label, name in enumerate(folders):
        pictures, strays = flat_pictures(place / below / name)
        files += pictures
        labels += [label] * len(pictures)
        others += strays
    train = Part(files, labels)
    archive.check_every_class(place, train, names, "")
    has_background = (place / below / background).is_dir()
    return PictureList(
        archive.name,
        names,
        train,
        notes=(*archive.completeness(len(names), train), "the set has no split: test images are cut off it"),
        left_out=(
            *((f"{background} left out, which is no class",) if has_background else ()),
            *skipped(others, place, why="no picture of a class"),
        ),
        usual_form=ImageForm((224, 224), 3),
    )


def _after_number(name: str) -> str:
    """The name of a class without the number before it.

    >>> _after_number("001.ak47"), _after_number("car_side")
    ('ak47', 'car_side')
    """
    number, dot, rest = name.partition(".")
    return rest if dot and number.isdecimal() else name
