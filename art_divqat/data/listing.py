"""The pictures of a data set as a list of files with their classes, and the one place that decodes such a list."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from art_divqat.data.pictures import OWN_FORM, Header, ImageForm, Size, read_header, read_picture
from art_divqat.data.raw import RawImages
from art_divqat.errors import UserError

_MIXED_SIDE = 32


class Part(NamedTuple):
    """The pictures of one part with their class ids, from 0."""

    files: Sequence[Path]
    labels: Sequence[int]


@dataclass(frozen=True)
class PictureList:
    """A data set of picture files, none of which has been read yet.

    :param train: what its victims are trained on.
    :param validation: the source's own validation pictures, or None if it has none.
    :param test: the source's own test pictures, or None if it has none.
    :param notes: what was decided on the way, for the plan and the report.
    :param left_out: which files are not among the pictures, for the same; said last.
    :param usual_form: what the pictures become where nobody asks for another form. Where this does not say the size
        either, pictures of one size keep it, and of several become 32×32; where it does not say the channels, they
        stay grey if all are grey, and become RGB otherwise.
    """

    name: str
    class_names: tuple[str, ...]
    train: Part
    validation: Part | None = None
    test: Part | None = None
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    usual_form: ImageForm = OWN_FORM


def decode_list(listing: PictureList, form: ImageForm = OWN_FORM) -> RawImages:
    """Decode every picture of a list.

    Read as they are meant: turned as EXIF says, deep grey scaled, transparent pixels over white.

    :param form: what they become, where it says so.
    :raises UserError: for pictures that cannot be read.
    """
    parts = [part for part in (listing.train, listing.validation, listing.test) if part is not None]
    x, done = _decode([file for part in parts for file in part.files], form, listing.usual_form)
    cuts = np.cumsum([len(part.files) for part in parts])[:-1]
    images = iter(np.split(x, cuts))

    def of(part: Part | None) -> tuple[NDArray[np.uint8], NDArray[np.int64]] | tuple[None, None]:
        return (None, None) if part is None else (next(images), np.array(part.labels, dtype=np.int64))

    (x_train, y_train), (x_validation, y_validation), (x_test, y_test) = map(
        of, (listing.train, listing.validation, listing.test)
    )
    assert x_train is not None
    assert y_train is not None
    return RawImages(
        listing.name,
        x_train,
        y_train,
        x_test,
        y_test,
        listing.class_names,
        (*listing.notes, *done, *listing.left_out),
        x_validation,
        y_validation,
    )


def _decode(files: Sequence[Path], asked: ImageForm, usual: ImageForm) -> tuple[NDArray[np.uint8], Iterator[str]]:
    """All pictures as (N, C, H, W), and what was done, in words.

    :raises UserError: naming the first that cannot be read, and how many more.
    """
    headers: list[Header] = []
    broken: list[UserError] = []
    for file in files:
        try:
            headers.append(read_header(file))
        except UserError as error:
            broken.append(error)
    _check_unbroken(broken)
    form = replace(asked, size=asked.size or usual.size, channels=asked.channels or usual.channels)
    sizes = sorted({(header.height, header.width) for header in headers})
    grey = form.channels == 1 if form.channels else all(header.grey for header in headers)
    height, width = form.size or (sizes[0] if len(sizes) == 1 else (_MIXED_SIDE, _MIXED_SIDE))
    x = np.empty((len(files), 1 if grey else 3, height, width), dtype=np.uint8)
    done: Counter[str] = Counter()
    for row, file in enumerate(files):
        try:
            x[row] = read_picture(file, (height, width), grey=grey, fit=form.fit, done=done)
        except UserError as error:
            broken.append(error)
    _check_unbroken(broken)
    return x, _notes(sizes, (height, width), asked, done, len(files))


def _check_unbroken(broken: Sequence[UserError]) -> None:
    if len(broken) > 1:
        raise UserError(f"{broken[0]} So it is with {len(broken) - 1:,} more.")
    if broken:
        raise broken[0]


def _notes(sizes: Sequence[Size], size: Size, asked: ImageForm, done: Counter[str], total: int) -> Iterator[str]:
    if list(sizes) != [size]:
        several = f"pictures of {len(sizes):,} sizes" if len(sizes) > 1 else f"pictures of {sizes[0][0]}×{sizes[0][1]}"
        how = "squashed" if asked.fit == "squash" else "centre crop"
        other = "; --image-size gives another size" if asked.size is None else ""
        yield f"{several} resized to {size[0]}×{size[1]}, bilinear, {how}{other}"
    for what, count in sorted(done.items()):
        yield f"{count:,} of {total:,} pictures {what}"


def classes_without(part: Part, class_names: Sequence[str]) -> list[str]:
    """The classes of which a part has no picture.

    >>> classes_without(Part([Path("a.png")], [1]), ["cat", "dog", "owl"])
    ['cat', 'owl']
    """
    return [class_names[label] for label in sorted(set(range(len(class_names))) - set(part.labels))]


def skipped(files: Sequence[Path], root: Path, *, why: str) -> tuple[str, ...]:
    """The note on files below `root` that were left out, if there are any."""
    if not files:
        return ()
    return (f"{len(files):,} files skipped, {why}: {kinds(files)}; the first is {min(files).relative_to(root)}",)


def kinds(files: Sequence[Path]) -> str:
    """The kinds of files by their endings, the most frequent first.

    >>> kinds([Path("a.heic"), Path("b.HEIC"), Path("c"), Path("d.txt")])
    '2 .heic, 1 .txt, 1 without an ending'
    """
    counts = Counter(file.suffix.lower() or "without an ending" for file in sorted(files, key=lambda f: not f.suffix))
    return few([f"{count:,} {kind}" for kind, count in counts.most_common()], 5)


def few(texts: Sequence[str], most: int = 3) -> str:
    """The first of many, and how many more.

    >>> few(["ant", "bee", "cat", "dog"], 2)
    'ant, bee and 2 more'
    """
    return ", ".join(texts[:most]) + (f" and {len(texts) - most:,} more" if len(texts) > most else "")
