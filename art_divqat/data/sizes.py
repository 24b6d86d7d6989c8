"""The size of a data set's images, looked up without reading them where that can be: networks are chosen by it."""

from __future__ import annotations

import zipfile
from pathlib import Path

from art_divqat._files import default_data_root
from art_divqat.data.archives import array_header
from art_divqat.data.listing import size_of
from art_divqat.data.pictures import ImageForm
from art_divqat.data.sources import DATASETS, has_pictures, list_pictures, load_raw
from art_divqat.errors import UserError


def smaller_side(name: str, form: ImageForm, data_root: Path | None = None, download: bool = False) -> int | None:
    """The smaller side of the images of a data set in pixels; None where nothing says it before they are read.

    :param name: the canonical name.
    :param form: what the images are to become.
    :param download: whether pictures whose size nothing else says may be downloaded for it, as a run does after it.
    """
    if form.size is not None:
        return min(form.size)
    entry = DATASETS.find(name)
    if entry is not None and (entry.side is not None or DATASETS.origin(name) is None):
        return entry.side
    try:
        if has_pictures(name):
            listing = list_pictures(name, data_root=data_root, download=download)
            return min(listing.usual_form.size or size_of(listing.files))
        if name.startswith("npz:"):
            path = Path(name.partition(":")[2]).expanduser()
            below = (data_root or default_data_root()) / path
            return _of_archive(below if below.is_file() and not path.exists() else path)
        # of a plug-in that does not say it
        return min(load_raw(name, data_root=data_root).x.shape[2:])
    except (OSError, ValueError, KeyError, UserError, zipfile.BadZipFile):
        # whoever reads it says what is wrong with it
        return None


def _of_archive(path: Path) -> int | None:
    with zipfile.ZipFile(path) as archive:
        key = "x" if "x.npy" in archive.namelist() else "x_train"
        with archive.open(f"{key}.npy") as file:
            shape = array_header(file)[0]
    if len(shape) == 3:
        return min(shape[1:])
    # channels first or last
    return None if len(shape) != 4 else min(shape[2:] if shape[1] in (1, 3) else shape[1:3])
