"""MIT Indoor-67: 67 kinds of rooms, with the authors' split, which uses fewer than half of the pictures."""

from __future__ import annotations

from pathlib import Path

from art_divqat.data.layouts.tree import Archive, flat_pictures, folder_names
from art_divqat.data.listing import Part, PictureList
from art_divqat.data.pictures import ImageForm

_ARCHIVE = Archive(
    "indoor67",
    "indoorCVPR_09.tar, with TrainImages.txt and TestImages.txt beside its Images,",
    ("indoor67", "indoorCVPR_09"),
    ("Images",),
    67,
    6_700,
)


def indoor67(root: Path, download: bool) -> PictureList:
    """List the pictures of the split, classes in the order of their folders' names.

    :raises UserError: if the set is not in `root`, or its tables and pictures do not fit together.
    """
    place = _ARCHIVE.find(root, download)
    names = tuple(folder_names(place / "Images"))
    if len(names) < 2:
        raise _ARCHIVE.damaged(place, f"has {len(names)} class folders in Images")
    train, test = (_part(place, table, names) for table in ("TrainImages.txt", "TestImages.txt"))
    _ARCHIVE.check_every_class(place, train, names, "training ")
    _ARCHIVE.check_every_class(place, test, names, "test ")
    listed = {*train.files, *test.files}
    unlisted = sum(file not in listed for name in names for file in flat_pictures(place / "Images" / name)[0])
    return PictureList(
        _ARCHIVE.name,
        names,
        train,
        test=test,
        notes=_ARCHIVE.completeness(len(names), train, test),
        left_out=(f"{unlisted:,} pictures left out, which the split does not name",) if unlisted else (),
        usual_form=ImageForm((224, 224), 3),
    )


def _part(place: Path, table: str, names: tuple[str, ...]) -> Part:
    ids = {name: label for label, name in enumerate(names)}
    # they are published beside the archive, and lie in it or beside it
    home = place if (place / table).is_file() else place.parent
    if not (home / table).is_file():
        home = place
    paths = [path for (path,) in _ARCHIVE.rows(home, table, 1)]
    for path in paths:
        if path.partition("/")[0] not in ids:
            raise _ARCHIVE.damaged(place, f"has no folder in Images for {path}, which {table} lists")
    files = [place / "Images" / path for path in paths]
    _ARCHIVE.check_there(place, files, table)
    return Part(files, [ids[path.partition("/")[0]] for path in paths])
