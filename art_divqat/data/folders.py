"""List the pictures of `folder:PATH`: one sub-folder of pictures a class, or `train/`, `val/` and `test/` over such."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from art_divqat.data.listing import Part, PictureList, classes_without, few, kinds, skipped
from art_divqat.data.pictures import SUFFIXES
from art_divqat.errors import UserError

# what a part of a data set may be called, in any capitals
PARTS = {
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


def list_folder(path: Path) -> PictureList:
    """List the pictures in a folder, classes in the order of their folders' names.

    Files that are no pictures are skipped; the notes count and name them.

    :raises UserError: for a folder that is missing, empty, laid out in another way or of fewer than two classes, and
        for classes of test images that have none for training.
    """
    layout = _layout(path)
    names = _class_folders(layout.train)
    if len(names) < 2:
        inner = [entry.name for entry in entries(layout.train / names[0]) if entry.is_dir()] if names else []
        hint = f"; if the classes are the {len(inner)} folders in {names[0]!r}, name that folder" if inner else ""
        raise UserError(
            f"{layout.train} holds {len(names)} class folders; expected at least two, one a class, or train and test "
            f"over them{hint}."
        )
    train, left_out = _pictures(layout.train, names)
    _check_every_class(layout.train, train, left_out, names)
    notes = list(layout.notes)
    held_out: dict[str, Part] = {}
    for name, root in (("validation", layout.validation), ("test", layout.test)):
        if root is not None:
            held_out[name], others = _pictures(root, names)
            notes += _absent(root, held_out[name], names)
            left_out += others
    return PictureList(
        f"folder:{path}",
        tuple(names),
        train,
        held_out.get("validation"),
        held_out.get("test"),
        notes=tuple(notes),
        left_out=skipped(left_out, path, why="no picture in a class folder"),
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
    folders = [entry for entry in entries(path) if entry.is_dir()]
    named = [folder for folder in folders if folder.name.casefold() in PARTS]
    # a class may be called train, and holds pictures then
    if not any(inner.is_dir() for folder in named for inner in entries(folder)):
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
        part = PARTS[folder.name.casefold()]
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
    return sorted(entry.name for entry in entries(root) if entry.is_dir())


def _pictures(root: Path, names: Sequence[str]) -> tuple[Part, list[Path]]:
    """The pictures of every class that has a folder here, and all files that are none.

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
    files: list[Path] = []
    labels: list[int] = []
    others = [entry for entry in entries(root) if not entry.is_dir()]
    for name in found:
        for file in sorted(files_below(root / name)):
            if file.suffix.lower() in SUFFIXES:
                files.append(file)
                labels.append(ids[unicodedata.normalize("NFC", name)])
            else:
                others.append(file)
    return Part(files, labels), others


def entries(root: Path) -> Iterator[Path]:
    """What is in a folder, but for what systems and archivers leave behind."""
    return (entry for entry in root.iterdir() if not _is_left_behind(entry.name))


def _is_left_behind(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _LEFT_BEHIND


def files_below(root: Path) -> Iterator[Path]:
    """Every file below a folder, through links to folders too, each folder once."""
    seen = set()
    for folder, inner, files in os.walk(root, onerror=_refuse, followlinks=True):
        place = Path(folder)
        seen.add(place.resolve())
        inner[:] = [name for name in inner if not _is_left_behind(name) and (place / name).resolve() not in seen]
        yield from (place / name for name in files if not _is_left_behind(name))


def _refuse(error: OSError) -> None:
    raise error


def _check_every_class(root: Path, train: Part, others: Sequence[Path], names: Sequence[str]) -> None:
    for name in classes_without(train, names):
        folder = root / name
        unread = kinds([file for file in others if folder in file.parents])
        has = f", but {unread}: convert them to PNG or JPEG" if unread else ": remove it, or fill it"
        raise UserError(f"{folder} holds no pictures{has}.")


def _absent(root: Path, part: Part, names: Sequence[str]) -> Iterator[str]:
    """A note on a part, besides training, that lacks a class."""
    absent = classes_without(part, names)
    if len(absent) == len(names):
        raise UserError(f"{root} holds no pictures: move it away, or fill it.")
    if absent:
        yield f"{root.name} has no pictures of {len(absent):,} of {len(names):,} classes: {few(absent)}"


def _listed(folders: Sequence[Path]) -> str:
    return few([repr(folder.name) for folder in sorted(folders)])
