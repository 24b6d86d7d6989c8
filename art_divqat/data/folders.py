"""Read data sets from `folder:PATH`: one sub-folder of pictures a class, or `train/`, `val/` and `test/` over such."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from art_divqat.data.pictures import OWN_FORM, SUFFIXES, Header, ImageForm, Size, read_header, read_picture
from art_divqat.data.raw import RawImages
from art_divqat.errors import UserError

_MIXED_SIDE = 32
_PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
# what systems and archivers leave behind, besides all that begins with a dot
_LEFT_BEHIND = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information"}


class _Layout(NamedTuple):
    """Folders of classes: for training, and for validation and test where the source has such."""

    train: Path
    validation: Path | None = None
    test: Path | None = None
    notes: tuple[str, ...] = ()


class _Part(NamedTuple):
    """The pictures of one part with their class ids, and the files in it that are none."""

    files: list[Path]
    labels: list[int]
    skipped: list[Path]


def read_folder(path: Path, form: ImageForm = OWN_FORM) -> RawImages:
    """Read pictures from a folder, classes in the order of their folders' names.

    Read as they are meant: turned as EXIF says, deep grey scaled, transparent pixels over white. Files that are no
    pictures are skipped; the notes count and name them.

    :param form: what they become. Where it does not say the size, pictures of one size keep it, and of several become
        32×32; where it does not say the channels, they stay grey if all are grey, and become RGB otherwise.
    :raises UserError: for a folder that is missing, empty, laid out in another way or of fewer than two classes, for
        classes of test images that have none for training, and for pictures that cannot be read.
    """
    layout = _layout(path)
    names = _class_folders(layout.train)
    if len(names) < 2:
        inner = [entry.name for entry in _entries(layout.train / names[0]) if entry.is_dir()] if names else []
        hint = f"; if the classes are the {len(inner)} folders in {names[0]!r}, name that folder" if inner else ""
        raise UserError(
            f"{layout.train} holds {len(names)} class folders; expected at least two, one a class, or train and test "
            f"over them{hint}."
        )
    parts = [_pictures(root, names) for root in (layout.train, layout.validation, layout.test) if root is not None]
    _check_every_class(layout.train, parts[0], names)
    notes = [*layout.notes, *_absent(layout, parts, names)]
    x, done = _decode([file for part in parts for file in part.files], form)
    notes += [*done, *_skipped(path, [file for part in parts for file in part.skipped])]
    cuts = np.cumsum([len(part.files) for part in parts])[:-1]
    arrays = dict(
        zip(
            [name for name, root in layout._asdict().items() if name != "notes" and root is not None],
            zip(np.split(x, cuts), (np.array(part.labels, dtype=np.int64) for part in parts), strict=True),
            strict=True,
        )
    )
    (x_train, y_train), none = arrays["train"], (None, None)
    x_test, y_test = arrays.get("test", none)
    x_validation, y_validation = arrays.get("validation", none)
    return RawImages(
        f"folder:{path}", x_train, y_train, x_test, y_test, tuple(names), tuple(notes), x_validation, y_validation
    )


def _layout(path: Path) -> _Layout:
    """Where the classes are.

    :raises UserError: for a path that is no folder, parts without training images, and other folders beside the parts.
    """
    if path.is_file():
        raise UserError(
            f"{path} is a file; expected a folder with one sub-folder a class: unpack it if it is an archive."
        )
    if not path.is_dir():
        raise UserError(f"There is no folder {path}: expected one sub-folder a class, or train and test over them.")
    folders = [entry for entry in _entries(path) if entry.is_dir()]
    named = [folder for folder in folders if folder.name.casefold() in _PARTS]
    # a class may be called train, and holds pictures then
    if not any(inner.is_dir() for folder in named for inner in _entries(folder)):
        if len(named) < 2:
            return _Layout(path)
        raise UserError(
            f"{named[0]} holds no class folders; expected one sub-folder a class in each of {_listed(named)}."
        )
    others = [folder for folder in folders if folder not in named]
    if others:
        raise UserError(
            f"{path} holds {_listed(named)} and, beside, {_listed(others)}; expected train with val, test or both, and "
            "nothing else: move the others away."
        )
    parts: dict[str, Path] = {}
    for folder in named:
        part = _PARTS[folder.name.casefold()]
        if part in parts:
            raise UserError(f"{path} holds {parts[part].name} and {folder.name}, which are the same part: keep one.")
        parts[part] = folder
    if "train" not in parts:
        raise UserError(f"{path} holds {_listed(named)} and no train: expected train with val, test or both.")
    notes = []
    if "test" not in parts:
        held_out = parts.pop("validation", None)
        if held_out is None:
            notes.append(f"no test folder beside {parts['train'].name}: test images are cut off it")
        else:
            parts["test"] = held_out
            notes.append(f"the test images are those of {held_out.name}")
    return _Layout(**parts, notes=tuple(notes))


def _class_folders(root: Path) -> list[str]:
    return sorted(entry.name for entry in _entries(root) if entry.is_dir())


def _pictures(root: Path, names: Sequence[str]) -> _Part:
    """The pictures of every class that has a folder here, and all that is not one.

    :raises UserError: for folders that are no classes.
    """
    # systems write the same letters in two ways
    ids = {unicodedata.normalize("NFC", name): label for label, name in enumerate(names)}
    found = _class_folders(root)
    if not found:
        raise UserError(f"{root} holds no class folders; expected those of train, or move it away.")
    unknown = [name for name in found if unicodedata.normalize("NFC", name) not in ids]
    if unknown:
        raise UserError(
            f"{root} holds {_listed([root / name for name in unknown])}, which train has not; expected the same "
            "classes, by the same names."
        )
    part = _Part([], [], [entry for entry in _entries(root) if not entry.is_dir()])
    for name in found:
        for file in sorted(_files(root / name)):
            if file.suffix.lower() in SUFFIXES:
                part.files.append(file)
                part.labels.append(ids[unicodedata.normalize("NFC", name)])
            else:
                part.skipped.append(file)
    return part


def _entries(root: Path) -> Iterator[Path]:
    return (entry for entry in root.iterdir() if not _is_left_behind(entry.name))


def _is_left_behind(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _LEFT_BEHIND


def _files(root: Path) -> Iterator[Path]:
    """Every file below a folder, through links to folders too, each folder once."""
    seen = set()
    for folder, inner, files in os.walk(root, onerror=_refuse, followlinks=True):
        place = Path(folder)
        seen.add(place.resolve())
        inner[:] = [name for name in inner if not _is_left_behind(name) and (place / name).resolve() not in seen]
        yield from (place / name for name in files if not _is_left_behind(name))


def _refuse(error: OSError) -> None:
    raise error


def _check_every_class(root: Path, part: _Part, names: Sequence[str]) -> None:
    for label in sorted(set(range(len(names))) - set(part.labels)):
        folder = root / names[label]
        kinds = _kinds([file for file in part.skipped if folder in file.parents])
        has = f", but {kinds}: convert them to PNG or JPEG" if kinds else ": remove it, or fill it"
        raise UserError(f"{folder} holds no pictures{has}.")


def _absent(layout: _Layout, parts: Sequence[_Part], names: Sequence[str]) -> Iterator[str]:
    """A note on each part, besides training, that lacks a class."""
    roots = [root for root in (layout.train, layout.validation, layout.test) if root is not None]
    for root, part in list(zip(roots, parts, strict=True))[1:]:
        absent = [names[label] for label in sorted(set(range(len(names))) - set(part.labels))]
        if len(absent) == len(names):
            raise UserError(f"{root} holds no pictures: move it away, or fill it.")
        if absent:
            yield f"{root.name} has no pictures of {len(absent):,} of {len(names):,} classes: {_few(absent)}"


def _decode(files: Sequence[Path], form: ImageForm) -> tuple[NDArray[np.uint8], Iterator[str]]:
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
    return x, _notes(sizes, (height, width), form, done, len(files))


def _check_unbroken(broken: Sequence[UserError]) -> None:
    if len(broken) > 1:
        raise UserError(f"{broken[0]} So it is with {len(broken) - 1:,} more.")
    if broken:
        raise broken[0]


def _notes(sizes: Sequence[Size], size: Size, form: ImageForm, done: Counter[str], total: int) -> Iterator[str]:
    if list(sizes) != [size]:
        several = f"pictures of {len(sizes):,} sizes" if len(sizes) > 1 else f"pictures of {sizes[0][0]}×{sizes[0][1]}"
        how = "squashed" if form.fit == "squash" else "centre crop"
        other = "; --image-size gives another size" if form.size is None else ""
        yield f"{several} resized to {size[0]}×{size[1]}, bilinear, {how}{other}"
    for what, count in sorted(done.items()):
        yield f"{count:,} of {total:,} pictures {what}"


def _skipped(path: Path, files: Sequence[Path]) -> Iterator[str]:
    if files:
        first = min(files).relative_to(path)
        yield f"{len(files):,} files skipped, no picture in a class folder: {_kinds(files)}; the first is {first}"


def _kinds(files: Sequence[Path]) -> str:
    """The kinds of files by their endings, the most frequent first.

    >>> _kinds([Path("a.heic"), Path("b.HEIC"), Path("c"), Path("d.txt")])
    '2 .heic, 1 .txt, 1 without an ending'
    """
    counts = Counter(file.suffix.lower() or "without an ending" for file in sorted(files, key=lambda f: not f.suffix))
    return _few([f"{count:,} {kind}" for kind, count in counts.most_common()], 5)


def _few(texts: Sequence[str], most: int = 3) -> str:
    return ", ".join(texts[:most]) + (f" and {len(texts) - most:,} more" if len(texts) > most else "")


def _listed(folders: Sequence[Path]) -> str:
    return _few([repr(folder.name) for folder in sorted(folders)])
