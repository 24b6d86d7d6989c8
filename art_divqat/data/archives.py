"""Read data sets from `npz:PATH`, one archive of numpy arrays."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from art_divqat._files import first_line
from art_divqat._types import Shape
from art_divqat.data.checks import as_nchw, check_images, check_labels
from art_divqat.data.raw import RawImages
from art_divqat.data.stored import ImageFile, ImageSet, StoredImages, chunk_of, is_large, kept_images
from art_divqat.errors import UserError

_SPLIT = ("x_train", "y_train", "x_test", "y_test")
_WHOLE = ("x", "y")
_KEPT_VERSION = 1
_NAMES = ", and save the names as class_names"


def read_archive(path: Path) -> RawImages:
    """Read x_train, y_train, x_test, y_test, or x and y alone, and, if it is there, class_names from an .npz archive.

    :raises UserError: if the file is missing, is no such archive, or holds arrays that are no images or labels.
    """
    arrays = _arrays(path)
    notes: list[str] = []
    whole = "x" in arrays
    x, y = (arrays[key] for key in (_WHOLE if whole else _SPLIT)[:2])
    suffix = "" if whole else "_train"
    images = _images(x, path, f"x{suffix}", notes)
    labels = check_labels(y, len(images), f"y{suffix} of {path}: labels", remedy=_NAMES)
    ids = np.unique(labels)
    test_images = test_labels = None
    if whole:
        notes.append("x and y alone: test images are cut off them")
    else:
        test_images = _images(arrays["x_test"], path, "x_test", notes)
        test_labels = check_labels(arrays["y_test"], len(test_images), f"y_test of {path}: labels", remedy=_NAMES)
        if images.shape[1:] != test_images.shape[1:]:
            raise UserError(f"{path}: x_train holds images of {images.shape[1:]}, x_test of {test_images.shape[1:]}.")
        if len(unknown := np.setdiff1d(test_labels, ids)):
            raise UserError(f"{path}: y_test holds class {unknown[0]}, of which y_train has no image.")
        test_labels = np.searchsorted(ids, test_labels)
    if len(ids) < 2:
        raise UserError(f"{path}: y{suffix} has images of a single class; expected two classes or more.")
    class_names = _class_names(ids, arrays.get("class_names"), path)
    numbers: tuple[int, ...] = ()
    if len(ids) <= ids[-1]:
        numbers = tuple(ids.tolist())
        notes.append(f"{len(ids):,} classes with labels from {ids[0]} to {ids[-1]}, numbered in their order")
    return RawImages(
        str(path),
        images,
        np.searchsorted(ids, labels),
        test_images,
        test_labels,
        class_names,
        tuple(dict.fromkeys(notes)),
        class_numbers=numbers,
    )


def _images(x: Any, path: Path, key: str, notes: list[str]) -> ImageSet:
    if isinstance(x, _LargeMember):
        return x.keep(notes)
    return check_images(as_nchw(x, str(path)), f"{key} of {path}", notes)


class _LargeMember(NamedTuple):
    """Images of an archive that are too large for the memory: they are copied to a file, some at a time."""

    archive: Path
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def image_shape(self) -> Shape:
        """(C, H, W)."""
        rows: NDArray[Any] = np.broadcast_to(np.zeros((), np.uint8), self.shape)
        channels, height, width = as_nchw(rows, str(self.archive)).shape[1:]
        return channels, height, width

    def keep(self, notes: list[str]) -> StoredImages:
        """The images, from an earlier copy if the archive is as it was."""
        subject = f"{self.key} of {self.archive}"
        check_images(np.zeros(0, self.dtype), subject)
        shape = self.image_shape
        kept_as = np.uint8 if self.dtype == np.uint8 else np.float32
        known = self.archive.stat()
        name = (self.archive.resolve(), known.st_size, known.st_mtime_ns, self.key, _KEPT_VERSION)
        file = ImageFile(shape, self.shape[0], path=kept_images(*name), dtype=kept_as)
        missing = set(file.missing().tolist())
        if not missing:
            return StoredImages(file)
        row, told = 0, list[str]()
        for chunk in self._chunks(chunk_of(shape)):
            for image in check_images(as_nchw(chunk, str(self.archive)), subject, told):
                file.write(row, image)
                row += 1
        if told:
            notes.append("values just outside [0, 1] clipped to it, as rounding leaves them")
        return StoredImages(file)

    def _chunks(self, count: int) -> Iterator[NDArray[Any]]:
        row = math.prod(self.shape[1:]) * self.dtype.itemsize
        with zipfile.ZipFile(self.archive) as archive, archive.open(f"{self.key}.npy") as stream:
            array_header(stream)
            for start in range(0, self.shape[0], count):
                rows = min(count, self.shape[0] - start)
                data = stream.read(rows * row)
                yield np.frombuffer(data, self.dtype).reshape(rows, *self.shape[1:])
            # to the end, where the archive says what all of it adds up to
            stream.read(1)


def _large_member(path: Path, key: str) -> _LargeMember | None:
    with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as stream:
        shape, fortran, dtype = array_header(stream)
    if fortran or len(shape) not in (3, 4) or dtype.hasobject or not is_large(shape[0], shape[1:]):
        return None
    return _LargeMember(path, key, shape, dtype)


def array_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and type; as numpy's public readers of its format give them."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(stream)


def _class_names(ids: NDArray[np.int64], names: NDArray[np.generic] | None, path: Path) -> tuple[str, ...]:
    """The name of each class that has images, by its id or in its order; where there are none, its id."""
    if names is not None and len(names) <= ids[-1] and len(names) != len(ids):
        raise UserError(
            f"{path}: class_names holds {len(names)} names; expected {len(ids)}, one for each class that has images, "
            f"or {ids[-1] + 1}, one for each number."
        )
    if names is not None and len(names) == ids[-1] + 1:
        return tuple(str(names[each]) for each in ids)
    return tuple(map(str, names if names is not None and len(names) == len(ids) else ids))


def _arrays(path: Path) -> dict[str, Any]:
    """The arrays of an archive that are read: x and y, or the four of a split, and class_names if it has them."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; expected an .npz archive: for a folder of pictures, say folder:{path}.")
    try:
        archive = np.load(path, allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise UserError(f"{path} holds one array; expected an .npz archive with x and y, as numpy.savez makes it.")
        with archive:
            required = _WHOLE if set(_WHOLE) <= set(archive.files) and not set(_SPLIT) & set(archive.files) else _SPLIT
            missing = [key for key in required if key not in archive.files]
            if missing:
                held = ", ".join(archive.files[:8]) + (", …" if len(archive.files) > 8 else "")
                raise UserError(
                    f"{path} lacks the array{'s' if len(missing) > 1 else ''} {', '.join(missing)}; it holds "
                    f"{held or 'none'}. Save x_train, y_train, x_test and y_test, or x and y."
                )
            arrays = {}
            for key in (*required, "class_names"):
                if key in archive.files:
                    large = _large_member(path, key) if key.startswith("x") else None
                    arrays[key] = archive[key] if large is None else large
            # numpy gives a member that is no .npy as the bytes it is
            raw = [key for key in required if not isinstance(arrays[key], np.ndarray | _LargeMember)]
            if raw:
                raise UserError(f"{path}: {raw[0]} is no array of numpy's: the archive is damaged.")
            return arrays
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}: expected an .npz archive.") from error
    except UserError:
        raise
    except Exception as error:
        # zipfile, zlib, the .npy header parser and the pickle guard each fail in their own way on a damaged archive
        raise UserError(f"{path} cannot be read as an .npz archive of plain arrays: {first_line(error)}") from error
