"""Read data sets from `npz:PATH`, one archive of numpy arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from art_divqat._files import first_line
from art_divqat.data.checks import as_nchw, check_images, check_labels
from art_divqat.data.raw import RawImages
from art_divqat.errors import UserError


def read_archive(path: Path) -> RawImages:
    """Read x_train, y_train, x_test, y_test and, if it is there, class_names from an .npz archive.

    :raises UserError: if the file is missing, is no such archive, or holds arrays that are no images or labels.
    """
    required = ("x_train", "y_train", "x_test", "y_test")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in required if key not in archive.files]
            if missing:
                raise UserError(
                    f"{path} lacks the array{'s' if len(missing) > 1 else ''} {', '.join(missing)}; it holds "
                    f"{', '.join(archive.files) or 'none'}. Save x_train, y_train, x_test and y_test."
                )
            # numpy gives a member that is no .npy as the bytes it is
            raw = [key for key in required if not isinstance(archive[key], np.ndarray)]
            if raw:
                raise UserError(f"{path}: {raw[0]} is no array of numpy's: the archive is damaged.")
            x, y, x_test, y_test = (archive[key] for key in required)
            names = archive["class_names"] if "class_names" in archive.files else None
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}: expected an .npz archive.") from error
    except UserError:
        raise
    except Exception as error:
        # zipfile, zlib, the .npy header parser and the pickle guard each fail in their own way on a damaged archive
        raise UserError(f"{path} cannot be read as an .npz archive of plain arrays: {first_line(error)}") from error
    images, test_images = (check_images(as_nchw(part, str(path)), str(path)) for part in (x, x_test))
    if images.shape[1:] != test_images.shape[1:]:
        raise UserError(f"{path}: x_train holds images of {images.shape[1:]}, x_test of {test_images.shape[1:]}.")
    labels = check_labels(y, len(images), f"y_train of {path}: labels")
    test_labels = check_labels(y_test, len(test_images), f"y_test of {path}: labels")
    classes = int(labels.max()) + 1
    if int(test_labels.max()) >= classes:
        raise UserError(f"{path}: y_test holds class {int(test_labels.max())}, y_train only 0 to {classes - 1}.")
    absent = sorted(set(range(classes)) - set(labels.tolist()))
    if absent or classes < 2:
        what = f"no image of class {absent[0]}" if absent else "images of a single class"
        raise UserError(f"{path}: y_train has {what}; expected ids 0 to K - 1, K ≥ 2, each with images.")
    class_names = tuple(map(str, names)) if names is not None and len(names) == classes else None
    return RawImages(
        str(path), images, labels, test_images, test_labels, class_names or tuple(map(str, range(classes)))
    )
