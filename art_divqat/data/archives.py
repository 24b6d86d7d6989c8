"""Read data sets from `npz:PATH`, one archive of numpy arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from art_divqat._files import first_line
from art_divqat.data.checks import as_nchw, check_images, check_labels
from art_divqat.data.raw import RawImages
from art_divqat.errors import UserError

_SPLIT = ("x_train", "y_train", "x_test", "y_test")
_WHOLE = ("x", "y")
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
    images = check_images(as_nchw(x, str(path)), f"x{suffix} of {path}", notes)
    labels = check_labels(y, len(images), f"y{suffix} of {path}: labels", remedy=_NAMES)
    ids = np.unique(labels)
    test_images = test_labels = None
    if whole:
        notes.append("x and y alone: test images are cut off them")
    else:
        test_images = check_images(as_nchw(arrays["x_test"], str(path)), f"x_test of {path}", notes)
        test_labels = check_labels(arrays["y_test"], len(test_images), f"y_test of {path}: labels", remedy=_NAMES)
        if images.shape[1:] != test_images.shape[1:]:
            raise UserError(f"{path}: x_train holds images of {images.shape[1:]}, x_test of {test_images.shape[1:]}.")
        if len(unknown := np.setdiff1d(test_labels, ids)):
            raise UserError(f"{path}: y_test holds class {unknown[0]}, of which y_train has no image.")
        test_labels = np.searchsorted(ids, test_labels)
    if len(ids) < 2:
        raise UserError(f"{path}: y{suffix} has images of a single class; expected two classes or more.")
    class_names = _class_names(ids, arrays.get("class_names"))
    if len(ids) <= ids[-1]:
        notes.append(f"{len(ids):,} classes with labels from {ids[0]} to {ids[-1]}, numbered in their order")
    return RawImages(
        str(path),
        images,
        np.searchsorted(ids, labels),
        test_images,
        test_labels,
        class_names,
        tuple(dict.fromkeys(notes)),
    )


def _class_names(ids: NDArray[np.int64], names: NDArray[np.generic] | None) -> tuple[str, ...]:
    """The name of each class that has images, by its id or in its order; where there are none, its id."""
    if names is not None and len(names) == ids[-1] + 1:
        return tuple(str(names[each]) for each in ids)
    return tuple(map(str, names if names is not None and len(names) == len(ids) else ids))


def _arrays(path: Path) -> dict[str, NDArray[np.generic]]:
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
            # numpy gives a member that is no .npy as the bytes it is
            raw = [key for key in required if not isinstance(archive[key], np.ndarray)]
            if raw:
                raise UserError(f"{path}: {raw[0]} is no array of numpy's: the archive is damaged.")
            return {key: archive[key] for key in (*required, "class_names") if key in archive.files}
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}: expected an .npz archive.") from error
    except UserError:
        raise
    except Exception as error:
        # zipfile, zlib, the .npy header parser and the pickle guard each fail in their own way on a damaged archive
        raise UserError(f"{path} cannot be read as an .npz archive of plain arrays: {first_line(error)}") from error
