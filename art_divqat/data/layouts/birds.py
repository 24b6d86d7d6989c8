"""CUB-200-2011: 200 kinds of birds, with the authors' split."""

from __future__ import annotations

from pathlib import Path

from art_divqat.data.layouts.tree import Archive
from art_divqat.data.listing import Part, PictureList
from art_divqat.data.pictures import ImageForm

_LISTS, _CLASSES, _LABELS, _SPLIT = "images.txt", "classes.txt", "image_class_labels.txt", "train_test_split.txt"
_ARCHIVE = Archive("cub200", "CUB_200_2011.tgz", ("CUB_200_2011",), (_LISTS, _LABELS, _SPLIT), 200, 11_788)


def cub200(root: Path, download: bool) -> PictureList:
    """List the training and the test pictures; class ids are those of classes.txt, from 0.

    :raises UserError: if the set is not in `root`, or its tables and pictures do not fit together.
    """
    place = _ARCHIVE.find(root, download)
    paths = _table(place, _LISTS)
    classes = _table(place, _CLASSES)
    labels = _table(place, _LABELS)
    split = _table(place, _SPLIT)
    ids = {number: label for label, number in enumerate(classes)}
    for table, values, known in ((_LABELS, labels, ids), (_SPLIT, split, {"0": 0, "1": 1})):
        silent = [number for number in paths if number not in values]
        if silent:
            raise _ARCHIVE.damaged(
                place, f"says nothing in {table} of {len(silent):,} pictures of {_LISTS}, the first {paths[silent[0]]}"
            )
        unknown = next((number for number in paths if values[number] not in known), None)
        if unknown is not None:
            expected = f"a class of {_CLASSES}" if known is ids else "0 or 1"
            raise _ARCHIVE.damaged(place, f"has {values[unknown]} for {paths[unknown]} in {table}, not {expected}")
    files = {number: place / "images" / path for number, path in paths.items()}
    _ARCHIVE.check_there(place, list(files.values()), _LISTS)
    names = tuple(name.partition(".")[2] or name for name in classes.values())
    parts = []
    for side, what in (("1", "training "), ("0", "test ")):
        numbers = [number for number in paths if split[number] == side]
        parts.append(Part([files[number] for number in numbers], [ids[labels[number]] for number in numbers]))
        _ARCHIVE.check_every_class(place, parts[-1], names, what)
    train, test = parts
    return PictureList(
        _ARCHIVE.name,
        names,
        train,
        test=test,
        notes=(*_ARCHIVE.completeness(len(names), train, test), "whole pictures, not cut to their bounding boxes"),
        usual_form=ImageForm((224, 224), 3),
    )


def _table(place: Path, table: str) -> dict[str, str]:
    return dict(_ARCHIVE.rows(place, table, 2))
