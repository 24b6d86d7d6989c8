"""The pictures of a data set as a list of files with their classes, and the one place that decodes such a list."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from art_divqat._files import write_text_whole
from art_divqat._types import Shape
from art_divqat.data.pictures import OWN_FORM, Fit, Header, ImageForm, Picture, Size, read_header, read_picture
from art_divqat.data.raw import RawImages
from art_divqat.data.stored import ImageFile, ImageSet, StoredImages, is_large, kept_images, take
from art_divqat.errors import UserError

# what pictures of several sizes may become: sides that networks are built for
_USUAL_SIDES = (32, 64, 96, 128, 224)
_LOOKED_AT = 1000
# 2: pictures of several sizes are no longer all 32×32
_KEPT_VERSION = 2


class Part(NamedTuple):
    """The pictures of one part with their class ids, from 0."""

    files: Sequence[Picture]
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
        either, pictures of one size keep it, and those of several get the side of :func:`usual_side`; where it does
        not say the channels, they stay grey if all are grey, and become RGB otherwise.
    """

    name: str
    class_names: tuple[str, ...]
    train: Part
    validation: Part | None = None
    test: Part | None = None
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    usual_form: ImageForm = OWN_FORM

    @property
    def files(self) -> list[Picture]:
        """The pictures of all its parts."""
        return [file for part in (self.train, self.validation, self.test) if part is not None for file in part.files]


def usual_side(smaller_sides: Sequence[int]) -> int:
    """The largest of 32, 64, 96, 128 and 224 pixels that half of the pictures have on their smaller side, else 32.

    >>> usual_side([180, 300, 500]), usual_side([60, 100, 300]), usual_side([20, 25])
    (224, 96, 32)
    """
    half = sorted(smaller_sides, reverse=True)[(len(smaller_sides) - 1) // 2]
    return max((side for side in _USUAL_SIDES if side <= half), default=_USUAL_SIDES[0])


def size_of(files: Sequence[Picture]) -> Size:
    """The size of all pictures, or, where these have several, the square that they are brought to.

    :raises UserError: for a file that is no picture.
    """
    first = files[:: max(1, len(files) // _LOOKED_AT)]
    seen = {file: read_header(file)[:2] for file in first}
    sizes = set(seen.values())
    # that all are alike takes a look at all
    sizes |= {read_header(file)[:2] for file in files if len(sizes) == 1}
    if len(sizes) == 1:
        return sizes.pop()
    side = usual_side([min(size) for size in seen.values()])
    return side, side


def decode_list(listing: PictureList, form: ImageForm = OWN_FORM) -> RawImages:
    """Decode every picture of a list.

    Read as they are meant: turned as EXIF says, deep grey scaled, transparent pixels over white.

    :param form: what they become, where it says so.
    :raises UserError: for pictures that cannot be read.
    """
    parts = [part for part in (listing.train, listing.validation, listing.test) if part is not None]
    x, done = _decode(listing.files, form, listing.usual_form)
    ends = np.cumsum([len(part.files) for part in parts]).tolist()
    images = iter([take(x, slice(start, end)) for start, end in zip([0, *ends], ends, strict=False)])

    def of(part: Part | None) -> tuple[ImageSet, NDArray[np.int64]] | tuple[None, None]:
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


@dataclass(frozen=True)
class _Decoding:
    """What pictures become, and what is done to them on the way.

    :param sizes: those that they have, each once.
    :param done: how many of them something was done to, by what it is.
    """

    sizes: list[Size]
    size: Size
    grey: bool
    fit: Fit
    done: dict[str, int]

    @property
    def shape(self) -> Shape:
        """(C, H, W)."""
        return (1 if self.grey else 3, *self.size)


def _decode(files: Sequence[Picture], asked: ImageForm, usual: ImageForm) -> tuple[ImageSet, Iterator[str]]:
    """All pictures as (N, C, H, W), and what was done, in words; large ones are kept for the next run.

    :raises UserError: naming the first that cannot be read, and how many more.
    """
    form = replace(asked, size=asked.size or usual.size, channels=asked.channels or usual.channels)
    path = _where_kept(files, form)
    record = path.with_suffix(".json")
    decoding = _recorded(record) if record.is_file() else _decoding(files, form)
    if not is_large(len(files), decoding.shape):
        x = np.empty((len(files), *decoding.shape), dtype=np.uint8)
        _read_all(files, decoding, x.__setitem__)
        return x, _notes(decoding, asked, len(files))
    file = ImageFile(decoding.shape, len(files), lambda row: _pixels(files[row], decoding, Counter()), path=path)
    if not record.is_file():
        _read_all(files, decoding, file.write)
        write_text_whole(record, json.dumps(asdict(decoding)))
    return StoredImages(file), _notes(decoding, asked, len(files))


def _where_kept(files: Sequence[Picture], form: ImageForm) -> Path:
    """Other pictures, another form or another decoder are kept elsewhere."""
    import PIL

    return kept_images("pictures", _KEPT_VERSION, PIL.__version__, form, [_identity(file) for file in files])


def _identity(file: Picture) -> tuple[object, ...]:
    if not isinstance(file, Path):
        return file.identity
    stat = _stat(file)
    return (file.absolute(), stat.st_size, stat.st_mtime_ns)


def _stat(file: Path) -> os.stat_result:
    try:
        return file.stat()
    except OSError:
        # a link to nothing, which reading it will say
        return file.lstat()


def _recorded(record: Path) -> _Decoding:
    values = json.loads(record.read_text(encoding="utf-8"))
    height, width = values.pop("size")
    return _Decoding(**{**values, "sizes": [tuple(size) for size in values["sizes"]], "size": (height, width)})


def _decoding(files: Sequence[Picture], form: ImageForm) -> _Decoding:
    headers: list[Header] = []
    broken: list[UserError] = []
    for file in files:
        try:
            headers.append(read_header(file))
        except UserError as error:
            broken.append(error)
    _check_unbroken(broken)
    sizes = sorted({(header.height, header.width) for header in headers})
    grey = form.channels == 1 if form.channels else all(header.grey for header in headers)
    size = form.size or size_of(files)
    return _Decoding(sizes, size, grey, form.fit, {})


def _pixels(file: Picture, decoding: _Decoding, done: Counter[str]) -> NDArray[np.uint8]:
    return read_picture(file, decoding.size, grey=decoding.grey, fit=decoding.fit, done=done)


def _read_all(files: Sequence[Picture], decoding: _Decoding, keep: Callable[[int, NDArray[np.uint8]], object]) -> None:
    """Decode every picture, on all cores: decoders let go of Python's lock."""

    def read(row: int) -> UserError | Counter[str]:
        done: Counter[str] = Counter()
        try:
            keep(row, _pixels(files[row], decoding, done))
        except UserError as error:
            return error
        return done

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        outcomes = list(threads.map(read, range(len(files))))
    _check_unbroken([outcome for outcome in outcomes if isinstance(outcome, UserError)])
    decoding.done.clear()
    for outcome in outcomes:
        assert isinstance(outcome, Counter)
        for what, count in outcome.items():
            decoding.done[what] = decoding.done.get(what, 0) + count


def _check_unbroken(broken: Sequence[UserError]) -> None:
    if len(broken) > 1:
        raise UserError(f"{broken[0]} So it is with {len(broken) - 1:,} more.")
    if broken:
        raise broken[0]


def _notes(decoding: _Decoding, asked: ImageForm, total: int) -> Iterator[str]:
    sizes, size, done = decoding.sizes, decoding.size, decoding.done
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
