"""What every layout needs: find the unpacked archive, read its tables, and say in one sentence what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from art_divqat._files import first_line
from art_divqat.data.folders import entries, files_below
from art_divqat.data.listing import Part, classes_without, few
from art_divqat.data.pictures import SUFFIXES
from art_divqat.errors import UserError


@dataclass(frozen=True)
class Archive:
    """A published data set, unpacked.

    :param name: as the registry of data sets has it.
    :param unpack: the archives to unpack, in words.
    :param folders: where they unpack to below the data root, the best first; the data root itself is looked at last.
    :param landmarks: what such a folder holds; any one of them tells it from others.
    :param classes: how many classes the published set has, and
    :param pictures: how many pictures of those.
    :param downloader: the class of torchvision's that downloads it, where there is one, and its options.
    """

    name: str
    unpack: str
    folders: tuple[str, ...]
    landmarks: tuple[str, ...]
    classes: int
    pictures: int
    downloader: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def find(self, root: Path, download: bool) -> Path:
        """The folder of the set, downloaded into `root` first if it is not there and `download` says so.

        :raises UserError: if it is not there, or the download fails.
        """
        place = self._place(root)
        if place is None and download and self.downloader is not None:
            self._download(root)
            place = self._place(root)
        if place is not None:
            return place
        why = f"is not in {root}, and cannot be downloaded" if download else f"is not in {root}"
        ask = "" if download or self.downloader is None else "add --download, or "
        raise UserError(
            f"Data set {self.name!r} {why}: {ask}unpack {self.unpack} there, or point --data-root at the folder that "
            f"holds {self.folders[0]}."
        )

    def _place(self, root: Path) -> Path | None:
        places = (*(root / folder for folder in self.folders), root)
        return next((place for place in places if any((place / mark).exists() for mark in self.landmarks)), None)

    def _download(self, root: Path) -> None:
        import torchvision

        assert self.downloader is not None
        try:
            root.mkdir(parents=True, exist_ok=True)
            getattr(torchvision.datasets, self.downloader)(str(root), download=True, **self.options)
        except Exception as error:
            # whatever the connection, the disk or the archive's parser raises
            raise UserError(f"Data set {self.name!r} could not be downloaded to {root}: {first_line(error)}") from error

    def damaged(self, place: Path, what: str) -> UserError:
        """The error that says what is wrong with the tree, and to unpack it again."""
        return UserError(f"Data set {self.name!r} in {place} {what}: unpack {self.unpack} again.")

    def rows(self, place: Path, table: str, columns: int, separator: str | None = None) -> Iterator[list[str]]:
        """The first columns of a table of text, the last of which may hold separators; empty lines are passed over.

        :raises UserError: if there is no such file, it is empty, or a line has too few columns.
        """
        file = place / table
        if not file.is_file():
            raise self.damaged(place, f"lacks {table}")
        lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        filled = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
        if not filled:
            raise self.damaged(place, f"has an empty {table}")
        for number, line in filled:
            row = [value.strip() for value in line.split(separator, columns - 1)]
            if len(row) < columns:
                raise self.damaged(place, f"has {len(row)} of {columns} columns in line {number} of {table}")
            yield row

    def check_there(self, place: Path, files: Sequence[Path], table: str) -> None:
        """Refuse a table that lists pictures which are not there.

        :raises UserError: naming the first, and how many.
        """
        missing = [file for file in files if not file.is_file()]
        if missing:
            first = missing[0].relative_to(place)
            raise self.damaged(
                place, f"lacks {len(missing):,} of the {len(files):,} pictures that {table} lists, the first {first}"
            )

    def check_every_class(self, place: Path, part: Part, class_names: Sequence[str], what: str) -> None:
        """Refuse a part without pictures of a class.

        :raises UserError: naming the first classes, and how many.
        """
        absent = classes_without(part, class_names)
        if absent:
            raise self.damaged(
                place, f"has no {what}pictures of {len(absent):,} of {len(class_names):,} classes, {few(absent)}"
            )

    def completeness(self, classes: int, *parts: Part) -> tuple[str, ...]:
        """A note on a tree that is consistent in itself and not the whole published set."""
        pictures = sum(len(part.files) for part in parts)
        if (classes, pictures) == (self.classes, self.pictures):
            return ()
        return (
            f"{classes:,} classes and {pictures:,} pictures, where the whole set has {self.classes:,} and "
            f"{self.pictures:,}",
        )


def flat_pictures(folder: Path) -> tuple[list[Path], list[Path]]:
    """The pictures that lie directly in a folder, and every other file below it; none of a folder that is not there."""
    if not folder.is_dir():
        return [], []
    pictures: list[Path] = []
    others: list[Path] = []
    for file in sorted(files_below(folder)):
        is_picture = file.parent == folder and file.suffix.lower() in SUFFIXES
        (pictures if is_picture else others).append(file)
    return pictures, others


def folder_names(root: Path) -> list[str]:
    """The names of the folders in a folder, sorted; none of a folder that is not there."""
    return sorted(entry.name for entry in entries(root) if entry.is_dir()) if root.is_dir() else []
