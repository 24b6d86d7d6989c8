"""Stored images: keep pictures as bytes in a file, and give float32 a batch at a time."""

from __future__ import annotations

import hashlib
import math
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._files import cache_folder
from art_divqat._types import Images, Shape
from art_divqat.data.raw import to_float
from art_divqat.errors import UserError

_DIGEST = 16
_CHUNK_BYTES = 8 * 2**20
# larger images, or all together more than so many bytes as float32, are not held in memory
MOST_VALUES = 3 * 64 * 64
MOST_BYTES = 2 * 2**30

Make = Callable[[int], NDArray[Any]]


def is_large(count: int, shape: tuple[int, ...]) -> bool:
    """Whether so many images of (C, H, W) are kept in a file and not in memory.

    >>> is_large(60_000, (1, 28, 28)), is_large(10, (3, 224, 224))
    (False, True)
    """
    values = math.prod(shape)
    return values > MOST_VALUES or 4 * count * values > MOST_BYTES


class ImageFile:
    """Images of one shape and type in a file, each made when it is first asked for, each with the hash of its bytes.

    What is read is checked against its hash once by every process, and made anew if it does not match.

    :param shape: (C, H, W).
    :param count: how many there are.
    :param make: gives an image by its number, of the shape and `dtype`; None where all are written by :meth:`write`.
    :param recipe: all that decides what `make` gives, where that is a program: the images are then known by it.
    :param path: of the file, which is kept for the next who asks for the same images; the hashes lie beside it. None
        for a file without a name that is gone with the object.
    :raises UserError: if the file cannot be made.
    """

    def __init__(
        self,
        shape: Shape,
        count: int,
        make: Make | None = None,
        *,
        recipe: str | None = None,
        path: Path | None = None,
        dtype: Any = np.uint8,
    ) -> None:
        self.shape = shape
        self.count = count
        self.dtype = np.dtype(dtype)
        self.path = path
        self.recipe = recipe
        self._make = make
        self._row = math.prod(shape) * self.dtype.itemsize
        self._checked = np.zeros(count, bool)
        self._lock = threading.Lock()
        try:
            if path is None:
                self._file: Any = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (closed with the object)
                self._digests: NDArray[np.uint8] = np.zeros((count, _DIGEST), np.uint8)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
                self._file = path.open("r+b", buffering=0)
                hashes = path.with_suffix(".hashes")
                with hashes.open("ab") as file:
                    file.truncate(count * _DIGEST)
                self._digests = np.memmap(hashes, np.uint8, "r+", shape=(count, _DIGEST))
            # no blocks are taken for what was not written
            self._file.truncate(count * self._row)
        except OSError as error:
            raise _not_kept(path, error) from None
        weakref.finalize(self, self._file.close)

    def read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """The images of these numbers, (n, C, H, W), in the type that they are kept in."""
        images = np.empty((len(rows), *self.shape), self.dtype)
        for image, row in zip(images, rows.tolist(), strict=True):
            if not self._read(image, row):
                image[:] = self._made(row)
        return images

    def digests(self, rows: NDArray[np.int64]) -> list[bytes]:
        """The hash of each image's bytes; those that are not there yet are made."""
        for row in rows[~self._digests[rows].any(axis=1)].tolist():
            self._made(row)
        return [bytes(digest) for digest in self._digests[rows]]

    def write(self, row: int, image: NDArray[Any]) -> None:
        """Keep an image.

        :raises UserError: if the disk is full.
        """
        data = np.ascontiguousarray(image, self.dtype)
        try:
            with self._lock:
                self._file.seek(row * self._row)
                self._file.write(data.reshape(-1).view(np.uint8).data)
        except OSError as error:
            raise _not_kept(self.path, error) from None
        # the hash comes last: an image without one is not there
        self._digests[row] = np.frombuffer(_digest(data), np.uint8)
        self._checked[row] = True

    def missing(self) -> NDArray[np.int64]:
        """The numbers of the images that are not there yet."""
        return np.flatnonzero(~self._digests.any(axis=1))

    def _read(self, image: NDArray[Any], row: int) -> bool:
        known = bytes(self._digests[row])
        if not any(known):
            return False
        with self._lock:
            self._file.seek(row * self._row)
            if self._file.readinto(image.reshape(-1).view(np.uint8).data) != self._row:
                return False
        if not self._checked[row]:
            if _digest(image) != known:
                return False
            self._checked[row] = True
        return True

    def _made(self, row: int) -> NDArray[Any]:
        if self._make is None:
            raise UserError(f"The images that were kept in {self.path or 'a temporary file'} are damaged: start again.")
        image = self._make(row)
        self.write(row, image)
        return image


class StoredImages:
    """float32 images (N, C, H, W) in [0, 1] that lie in a file: a batch of them is an array, all of them are not.

    Indexed as an array is, it gives arrays; `numpy.asarray` gives one of all, which takes memory for all of them.

    :param file: where they lie.
    :param rows: which of its images, in which order; all if not given.

    >>> file = ImageFile((1, 2, 2), 3, make=lambda row: np.full((1, 2, 2), 51 * row, np.uint8))
    >>> images = StoredImages(file)
    >>> images.shape, images[1:].shape, round(float(images[2].max()), 3)
    ((3, 1, 2, 2), (2, 1, 2, 2), 0.4)
    >>> images.take(np.array([2, 0])).bytes_of(slice(None))[:, 0, 0, 0].tolist()
    [102, 0]
    """

    dtype = np.dtype(np.float32)
    ndim = 4

    def __init__(self, file: ImageFile, rows: NDArray[np.int64] | None = None) -> None:
        self.file = file
        self.rows: NDArray[np.int64] = np.arange(file.count) if rows is None else np.asarray(rows, np.int64)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return (len(self.rows), *self.file.shape)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: Any) -> Images:
        chosen = self.rows[key]
        if np.ndim(chosen) == 0:
            return to_float(self.file.read(np.asarray([chosen])))[0]
        return to_float(self.file.read(chosen))

    def __setitem__(self, key: Any, images: Any) -> None:
        """Write images, rounded to 8 bits where they are kept as such: what is read afterwards is what counts."""
        rows = np.atleast_1d(self.rows[key])
        values = np.broadcast_to(np.asarray(images, np.float32), (len(rows), *self.file.shape))
        for row, image in zip(rows.tolist(), values, strict=True):
            self.file.write(row, as_bytes(image) if self.file.dtype == np.uint8 else image)

    def __iter__(self) -> Iterator[Images]:
        return (self[row] for row in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        del copy
        return self[:].astype(dtype or np.float32, copy=False)

    def take(self, rows: NDArray[Any] | slice) -> StoredImages:
        """Some of the images, by number, mask or slice, without reading one."""
        return StoredImages(self.file, self.rows[rows])

    def bytes_of(self, key: Any) -> NDArray[Any]:
        """Images as they are kept: uint8 in 0–255, or float32."""
        return self.file.read(self.rows[key])

    def digests(self) -> list[bytes]:
        """The hash of each image, equal for equal pixels; those that are not there yet are made."""
        return self.file.digests(self.rows)

    def fingerprint(self) -> bytes:
        """What tells these images from others, without making one that a program makes."""
        if self.file.recipe is not None:
            return self.file.recipe.encode() + self.rows.tobytes()
        return b"".join(self.digests())


ImageSet = NDArray[Any] | StoredImages


def take(images: ImageSet, rows: NDArray[Any] | slice) -> Any:
    """Some of the images: `images[rows]` of an array, no more than their numbers of stored ones."""
    return images.take(rows) if isinstance(images, StoredImages) else images[rows]


def keep(images: NDArray[Any]) -> ImageSet:
    """Images in memory, or, if they are large, in a file: uint8 or float32, (N, C, H, W)."""
    if not is_large(len(images), images.shape[1:]):
        return images
    channels, height, width = images.shape[1:]
    file = ImageFile((channels, height, width), len(images), dtype=images.dtype)
    for row, image in enumerate(images):
        file.write(row, image)
    return StoredImages(file)


def kept_images(*names: object) -> Path:
    """Where the images that these names decide are kept for the next run: in the user's cache folder."""
    key = hashlib.sha256("\x1f".join(map(str, names)).encode()).hexdigest()[:32]
    return cache_folder() / "images" / f"{key}.bytes"


def answers_to(predict: Callable[[Images], NDArray[Any]], images: ImageSet) -> NDArray[Any]:
    """What `predict` gives for images, in one call for an array, and some at a time for stored ones.

    >>> answers_to(lambda x: x.mean(axis=(2, 3)), np.ones((2, 1, 4, 4), np.float32)).tolist()
    [[1.0], [1.0]]
    """
    if not isinstance(images, StoredImages):
        return predict(images)
    step = chunk_of(images.shape[1:])
    parts = [predict(images[start : start + step]) for start in range(0, len(images), step)]
    return np.concatenate(parts) if parts else predict(images[:0])


def as_bytes(images: Images) -> NDArray[np.uint8]:
    """The nearest of 256 grey levels.

    >>> as_bytes(np.array([0, 0.5, 1], np.float32)).tolist()
    [0, 128, 255]
    """
    levels = np.rint(np.clip(images, 0, 1, dtype=np.float32) * np.float32(255))
    return levels.astype(np.uint8)


def image_key(image: NDArray[Any]) -> bytes:
    """The hash that a float32 image has where it is stored, if it is of 8 bits, or else one of its pixels.

    >>> file = ImageFile((1, 1, 2), 1, make=lambda row: np.array([[[7, 200]]], np.uint8))
    >>> images = StoredImages(file)
    >>> images.digests() == [image_key(images[0])], image_key(images[0]) == image_key(images[0] + np.float32(1e-3))
    (True, False)
    """
    image = np.ascontiguousarray(image, np.float32)
    levels = as_bytes(image)
    return _digest(levels if np.array_equal(to_float(levels), image) else image)


def chunk_of(shape: tuple[int, ...], most: int = 2048) -> int:
    """How many images of (C, H, W) to hold as float32 at once: `most`; of large ones what takes 8 MiB, at least one.

    What a network makes of them on its way takes many times as much.

    >>> chunk_of((1, 28, 28), 4096), chunk_of((3, 224, 224), 4096)
    (4096, 13)
    """
    values = math.prod(shape)
    return most if values <= MOST_VALUES else max(1, min(most, _CHUNK_BYTES // (4 * values)))


def _digest(image: NDArray[Any]) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=_DIGEST).digest()


def _not_kept(path: Path | None, error: OSError) -> UserError:
    where = path or Path(tempfile.gettempdir())
    return UserError(f"{where} cannot keep the images: {error.strerror or error}. Make room there, or use fewer.")
