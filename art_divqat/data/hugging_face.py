"""List the pictures of `hf:PATH`, which Hugging Face `datasets` saved, and of `hf:NAME`, downloaded on request."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from art_divqat._files import first_line
from art_divqat.data.folders import PARTS
from art_divqat.data.listing import Part, PictureList, classes_without, few
from art_divqat.errors import MissingExtraError, UserError

# of the Hub: NAME or OWNER/NAME
_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_SAVE = "save it again with Dataset.save_to_disk"


@dataclass(frozen=True)
class RowPicture:
    """The picture in a row of a split, as the bytes that its file had.

    :param rows: the split, with its pictures not decoded.
    :param known: tells the split from any other, and from what its folder held before.
    """

    rows: Any = field(repr=False, compare=False)
    where: str
    column: str
    row: int
    known: str

    @property
    def identity(self) -> tuple[object, ...]:
        """The split and the row."""
        return (self.known, self.row)

    def read(self) -> bytes:
        """The bytes; a picture that the set only refers to is read from its file, never from the network.

        :raises ValueError: if the row holds no picture.
        """
        held = self.rows[self.row][self.column]
        if held is None or not (held["bytes"] or held["path"]):
            raise ValueError("it is empty")
        return held["bytes"] or Path(held["path"]).read_bytes()

    def __str__(self) -> str:
        return f"Row {self.row} of {self.where}"


def list_hugging_face(name: str, root: Path, download: bool) -> PictureList:
    """List the pictures of a set, those of the column that holds images, with the labels of the one of class labels.

    :param name: a folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote, in the working folder or in
        `root`; or a name of the Hub. What is downloaded is kept in `root/hf/NAME`, where it is found without.
    :raises MissingExtraError: without `datasets`.
    :raises UserError: for a set that is not there or cannot be read, has not one column of each kind, no split `train`,
        or classes without training pictures.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(
            "hf: data sets need the datasets extra, which is not installed: pip install 'art-divqat[datasets]'."
        ) from None
    place = Path(name).expanduser()
    kept = root / "hf" / place
    found = next((path for path in (place, root / place, kept) if path.exists()), None)
    if found is None:
        if not (download and _NAME.fullmatch(name)):
            raise UserError(
                f"There is no folder {name}: expected one that Dataset.save_to_disk wrote, or a name of the Hugging "
                "Face Hub and --download."
            )
        _download(name, kept)
        found = kept
    try:
        stored = datasets.load_from_disk(str(found))
    except Exception as error:
        # whatever Arrow and JSON readers raise for damaged files
        raise UserError(
            f"{found} cannot be read as a data set of Dataset.save_to_disk: {first_line(error, 300).rstrip('.')}."
        ) from error
    splits = dict(stored) if isinstance(stored, Mapping) else {"train": stored}
    return _listing(f"hf:{name}", splits)


def _download(name: str, kept: Path) -> None:
    import datasets

    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".") as folder:
            whole = Path(folder) / "whole"
            datasets.load_dataset(name).save_to_disk(str(whole))
            whole.replace(kept)
    except Exception as error:
        raise UserError(
            f"Data set {name!r} could not be downloaded to {kept}: {first_line(error, 300).rstrip('.')}. A set of "
            "several configurations: download one with datasets, save_to_disk, and say hf:PATH."
        ) from error


def _listing(name: str, splits: Mapping[str, Any]) -> PictureList:
    parts: dict[str, str] = {}
    for split in splits:
        part = PARTS.get(split.casefold())
        if part in parts:
            raise UserError(f"{name} has the splits {parts[part]} and {split}, which are the same part: keep one.")
        if part is not None:
            parts[part] = split
    if "train" not in parts:
        raise UserError(f"{name} has the splits {few(list(splits), 8)} and no train: name one so, and {_SAVE}.")
    features = splits[parts["train"]].features
    image = _only(name, features, "Image", "of images", "cast_column(NAME, Image()), or make an .npz of arrays")
    label = _only(name, features, "ClassLabel", "of class labels", "class_encode_column(NAME) makes one")
    names = tuple(features[label].names)
    notes = [f"the images are the column {image}, the labels {label}"]
    left_out = [split for split in splits if split not in parts.values()]
    if left_out:
        notes.append(f"splits that are neither train, validation nor test are left out: {few(left_out, 8)}")
    held: dict[str, Part] = {}
    for part, split in parts.items():
        if splits[split].features != features:
            raise UserError(
                f"{name}: the split {split} has other columns or classes than {parts['train']}: give both the same."
            )
        labels = list(splits[split].with_format(None)[label])
        if part != "train" and all(each in (None, -1) for each in labels):
            notes.append(f"the split {split} has no labels and is left out")
            continue
        if any(each in (None, -1) for each in labels):
            raise UserError(f"{name}: rows of the split {split} have no label: filter them out, and {_SAVE}.")
        held[part] = _part(name, split, splits[split], image, labels)
    empty = classes_without(held["train"], names)
    if empty:
        raise UserError(
            f"{name} has no pictures of {few([repr(each) for each in empty])} in {parts['train']}: expected some of "
            f"each of its {len(names):,} classes; cast_column the labels to the classes that are there, and {_SAVE}."
        )
    if "test" not in held:
        if "validation" in held:
            held["test"] = held.pop("validation")
            notes.append(f"the test images are those of {parts['validation']}")
        else:
            notes.append(f"no test split beside {parts['train']}: test images are cut off it")
    return PictureList(name, names, held["train"], held.get("validation"), held.get("test"), tuple(notes))


def _only(name: str, features: Mapping[str, Any], kind: str, words: str, remedy: str) -> str:
    """The one column of a kind of feature."""
    found = [column for column, feature in features.items() if type(feature).__name__ == kind]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{name} has the columns {few(found, 8)} {words}: remove_columns all but one, and {_SAVE}.")
    raise UserError(f"{name} has the columns {few(list(features), 8)}, none {words}: {remedy}; then {_SAVE}.")


def _part(name: str, split: str, stored: Any, image: str, labels: list[int]) -> Part:
    import datasets

    rows = stored.with_format(None).select_columns([image]).cast_column(image, datasets.Image(decode=False))
    # the fingerprint of a set that code made is that of the code
    files = [Path(file["filename"]) for file in stored.cache_files]
    state = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    known = hashlib.sha256(f"{stored._fingerprint} {state}".encode()).hexdigest()
    where = f"{name}, split {split}"
    return Part([RowPicture(rows, where, image, row, known) for row in range(len(labels))], labels)
