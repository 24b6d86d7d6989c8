"""Parts of ImageNet whose classes are WordNet ids: Tiny ImageNet and Imagenette."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from art_divqat.data.layouts.tree import Archive, flat_pictures, folder_names
from art_divqat.data.listing import Part, PictureList, few, skipped
from art_divqat.data.pictures import ImageForm

_ANNOTATIONS = "val/val_annotations.txt"
_TINY = Archive(
    "tiny_imagenet", "tiny-imagenet-200.zip", ("tiny-imagenet-200",), ("wnids.txt", _ANNOTATIONS), 200, 110_000
)
_IMAGENETTE_CLASSES = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
_IMAGENETTE = Archive(
    "imagenette",
    "imagenette2.tgz, imagenette2-320.tgz or imagenette2-160.tgz",
    ("imagenette2", "imagenette2-320", "imagenette2-160"),
    tuple(f"{side}/{wnid}" for side in ("train", "val") for wnid in _IMAGENETTE_CLASSES),
    10,
    13_394,
    "Imagenette",
    {"size": "320px"},
)


def tiny_imagenet(root: Path, download: bool) -> PictureList:
    """List the training pictures, and those of val as test pictures; classes in the order of their WordNet ids.

    :raises UserError: if the set is not in `root`, or its tables and pictures do not fit together.
    """
    place = _TINY.find(root, download)
    wnids = sorted({wnid for (wnid,) in _TINY.rows(place, "wnids.txt", 1)})
    words = dict(_TINY.rows(place, "words.txt", 2, "\t"))
    nameless = [wnid for wnid in wnids if wnid not in words]
    if nameless:
        raise _TINY.damaged(place, f"has no words for {few(nameless)} in words.txt")
    names = _distinct([words[wnid].split(",")[0] for wnid in wnids], wnids)
    train, strays = _folders(_TINY, place, "train", wnids, "images")
    _TINY.check_every_class(place, train, names, "training ")
    test = _annotated(place, wnids)
    _TINY.check_every_class(place, test, names, "validation ")
    unlisted = set(flat_pictures(place / "val" / "images")[0]) - set(test.files)
    return PictureList(
        _TINY.name,
        names,
        train,
        test=test,
        notes=(
            *_TINY.completeness(len(names), train, test),
            "the test images are those of val: those of test have no labels",
        ),
        left_out=(
            *((f"{len(unlisted):,} pictures left out, which {_ANNOTATIONS} does not name",) if unlisted else ()),
            *skipped(strays, place, why="no picture of a class"),
        ),
        usual_form=ImageForm((64, 64), 3),
    )


def imagenette(root: Path, download: bool) -> PictureList:
    """List the training pictures, and those of val as test pictures, in the largest size that is there.

    :raises UserError: if the set is not in `root`, or a class is empty.
    """
    place = _IMAGENETTE.find(root, download)
    wnids = [wnid for wnid in _IMAGENETTE_CLASSES if (place / "train" / wnid).is_dir()]
    if len(wnids) < 2:
        raise _IMAGENETTE.damaged(place, f"has {len(wnids)} class folders in train")
    names = tuple(_IMAGENETTE_CLASSES[wnid] for wnid in wnids)
    train, strays = _folders(_IMAGENETTE, place, "train", wnids)
    test, more = _folders(_IMAGENETTE, place, "val", wnids)
    _IMAGENETTE.check_every_class(place, train, names, "training ")
    _IMAGENETTE.check_every_class(place, test, names, "validation ")
    return PictureList(
        _IMAGENETTE.name,
        names,
        train,
        test=test,
        notes=(
            *_IMAGENETTE.completeness(len(names), train, test),
            f"read from {place.name}",
            "the test images are those of val",
        ),
        left_out=skipped([*strays, *more], place, why="no picture of a class"),
        usual_form=ImageForm((224, 224), 3),
    )


def _folders(
    archive: Archive, place: Path, side: str, wnids: Sequence[str], below: str = ""
) -> tuple[Part, list[Path]]:
    """The pictures of a part with one folder a class, and the other files there.

    :raises UserError: for folders that are no classes.
    """
    unknown = sorted(set(folder_names(place / side)) - set(wnids))
    if unknown:
        raise archive.damaged(place, f"has folders in {side} that are no classes, {few(unknown)}")
    files: list[Path] = []
    labels: list[int] = []
    others: list[Path] = []
    for label, wnid in enumerate(wnids):
        pictures, strays = flat_pictures(place / side / wnid / below)
        files += pictures
        labels += [label] * len(pictures)
        others += strays
    return Part(files, labels), others


def _annotated(place: Path, wnids: Sequence[str]) -> Part:
    ids = {wnid: label for label, wnid in enumerate(wnids)}
    # the box behind the class is of no use here
    rows = [(picture, rest.split()[0]) for picture, rest in _TINY.rows(place, _ANNOTATIONS, 2)]
    for picture, wnid in rows:
        if wnid not in ids:
            raise _TINY.damaged(place, f"has {wnid} for {picture} in {_ANNOTATIONS}, not a class of wnids.txt")
    files = [place / "val" / "images" / picture for picture, _ in rows]
    _TINY.check_there(place, files, _ANNOTATIONS)
    return Part(files, [ids[wnid] for _, wnid in rows])


def _distinct(names: Sequence[str], wnids: Sequence[str]) -> tuple[str, ...]:
    """Names of classes, with the WordNet id after those that are not alone.

    >>> _distinct(["crane", "tench", "crane"], ["n1", "n2", "n3"])
    ('crane (n1)', 'tench', 'crane (n3)')
    """
    counts = Counter(names)
    return tuple(f"{name} ({wnid})" if counts[name] > 1 else name for name, wnid in zip(names, wnids, strict=True))
