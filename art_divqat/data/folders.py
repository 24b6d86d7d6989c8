"""Read data sets from `folder:PATH`: one sub-folder of pictures a class, or `train/` and `test/` over such."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat.data.raw import RawImages
from art_divqat.errors import UserError

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
_MIXED_SIDE = 32


def read_folder(path: Path) -> RawImages:
    """Read pictures from a folder, classes in the order of their folders' names.

    Pictures of one size keep it; of several sizes, all become 32×32. If all are grey they stay grey, else all are RGB.

    :raises UserError: if the folder is missing or empty, holds fewer than two classes, or a picture cannot be read.
    """
    if not path.is_dir():
        raise UserError(f"There is no folder {path}: expected one sub-folder a class, or train and test over them.")
    has_test = (path / "train").is_dir() and (path / "test").is_dir()
    train_root = path / "train" if has_test else path
    classes = sorted(entry.name for entry in train_root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(classes) < 2:
        raise UserError(f"{train_root} holds {len(classes)} class folders; expected at least two, one a class.")
    train = _list_pictures(train_root, classes)
    test = _list_pictures(path / "test", classes) if has_test else []
    pictures = [_open(file) for file, _ in [*train, *test]]
    x, notes = _stack(pictures)
    y = np.array([label for _, label in [*train, *test]], dtype=np.int64)
    cut = len(train)
    return RawImages(
        f"folder:{path}",
        x[:cut],
        y[:cut],
        x[cut:] if has_test else None,
        y[cut:] if has_test else None,
        tuple(classes),
        notes,
    )


def _list_pictures(root: Path, classes: list[str]) -> list[tuple[Path, int]]:
    pictures: list[tuple[Path, int]] = []
    for label, name in enumerate(classes):
        files = sorted(f for f in (root / name).rglob("*") if f.suffix.lower() in _SUFFIXES and f.is_file())
        if not files:
            raise UserError(f"{root / name} holds no pictures; expected {', '.join(sorted(_SUFFIXES))} files.")
        pictures += [(file, label) for file in files]
    return pictures


def _open(file: Path) -> Any:
    from PIL import Image

    try:
        with Image.open(file) as picture:
            picture.load()
            return picture.convert("L" if picture.mode in ("1", "L", "I;16") else "RGB")
    except Exception as error:
        # Pillow's decoders raise whatever their format's parser does
        raise UserError(f"{file} cannot be read as a picture: {error}. Remove it or replace it.") from error


def _stack(pictures: list[Any]) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    from PIL import Image

    notes: list[str] = []
    if len({picture.mode for picture in pictures}) > 1:
        pictures = [picture.convert("RGB") for picture in pictures]
        notes.append("grey pictures among coloured ones turned to RGB")
    if len({picture.size for picture in pictures}) > 1:
        side = _MIXED_SIDE
        pictures = [picture.resize((side, side), Image.Resampling.BILINEAR) for picture in pictures]
        notes.append(f"pictures of several sizes resized to {side}×{side}, bilinear")
    x = np.stack([np.asarray(picture, dtype=np.uint8) for picture in pictures])
    return (x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2)), tuple(notes)
