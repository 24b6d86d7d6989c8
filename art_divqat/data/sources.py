"""Data sets by name: scikit-learn's, torchvision's, sets of pictures, `npz:`, `folder:`, `hf:` and plug-ins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._files import default_data_root
from art_divqat.data.checks import as_nchw, check_images, check_labels
from art_divqat.data.listing import PictureList, decode_list
from art_divqat.data.pictures import OWN_FORM, ImageForm
from art_divqat.data.raw import RawImages
from art_divqat.data.torchvision_sets import TorchvisionSet, by_split, by_train, emnist, gtsrb
from art_divqat.errors import UserError
from art_divqat.registry import Registry, load_target

DATASET_FORMS = ("npz:PATH", "folder:PATH", "hf:PATH")
# up to here networks are those of small images
_SMALL_SIDE = 64
_PREFIXES = ("npz:", "folder:", "hf:")
_LAYOUTS = "art_divqat.data.layouts"


@dataclass(frozen=True)
class DatasetEntry:
    """One data set: a line on it, its code, and what it is attacked with.

    :param read: a function or `package.module:function`; called with the folder of data sets and whether it may
        download, it gives :class:`RawImages`, or with `pictures` a :class:`PictureList`.
    :param pool: the query pool that goes with it unless another is asked for.
    :param epsilon: the L∞ radius, in units of [0, 1] pixels, that robustness on it is usually measured at.
    :param simple: whether a small network and a few thousand queries are enough for it, as for grey characters.
    :param victim_epochs: how long its victims train in every preset but the paper's, where that is not as usual.
    :param inner_steps: steps of the attack in adversarial training, where fewer than usual are enough.
    :param pictures: whether it is of picture files, which may have any size, and no arrays of one.
    :param side: the smaller side of its images in pixels, where that is above 64 unless another is asked for:
        networks are chosen by it.
    """

    summary: str
    read: str | Callable[[Path, bool], RawImages | PictureList]
    pool: str = "photos"
    epsilon: float = 8 / 255
    simple: bool = False
    victim_epochs: int | None = None
    inner_steps: int | None = None
    pictures: bool = False
    side: int | None = None


def _digits(root: Path, download: bool) -> RawImages:
    del root, download
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = (bunch.images.astype(np.float32) / 16.0)[:, None]
    return RawImages("digits", x, bunch.target.astype(np.int64), None, None, tuple("0123456789"))


# The pairs of the papers, victim ← queries; natural-image sets stand in for ImageNet, which cannot be downloaded.
DATASETS = Registry(
    "data set",
    "datasets",
    DatasetEntry,
    {
        "digits": DatasetEntry(
            "scikit-learn's handwritten digits, 8×8 grey, 10 classes; embedded",
            _digits,
            epsilon=0.2,
            simple=True,
            victim_epochs=20,
            # as robust as with seven, in half the time
            inner_steps=3,
        ),
        "mnist": DatasetEntry(
            "handwritten digits, 28×28 grey, 10 classes",
            TorchvisionSet("mnist", "MNIST", "MNIST/raw", by_train),
            "fashion_mnist",
            epsilon=0.3,
            simple=True,
        ),
        "fashion_mnist": DatasetEntry(
            "articles of clothing, 28×28 grey, 10 classes",
            TorchvisionSet("fashion_mnist", "FashionMNIST", "FashionMNIST/raw", by_train),
            "mnist",
            epsilon=0.1,
            simple=True,
        ),
        "kmnist": DatasetEntry(
            "cursive Japanese characters, 28×28 grey, 10 classes",
            TorchvisionSet("kmnist", "KMNIST", "KMNIST/raw", by_train),
            "fashion_mnist",
            epsilon=0.3,
            simple=True,
        ),
        "emnist": DatasetEntry(
            "letters and digits, balanced split, 28×28 grey, 47 classes",
            TorchvisionSet("emnist", "EMNIST", "EMNIST/raw", emnist),
            "fashion_mnist",
            epsilon=0.3,
            simple=True,
        ),
        "cifar10": DatasetEntry(
            "natural images, 32×32 colour, 10 classes",
            TorchvisionSet("cifar10", "CIFAR10", "cifar-10-batches-py", by_train),
            "cifar100",
        ),
        "cifar100": DatasetEntry(
            "natural images, 32×32 colour, 100 classes",
            TorchvisionSet("cifar100", "CIFAR100", "cifar-100-python", by_train),
            "cifar10",
        ),
        "svhn": DatasetEntry(
            "house numbers, 32×32 colour, 10 classes",
            TorchvisionSet("svhn", "SVHN", "train_32x32.mat", by_split),
            "cifar10",
        ),
        "gtsrb": DatasetEntry(
            "German traffic signs, colour, 43 classes",
            TorchvisionSet(
                "gtsrb",
                "GTSRB",
                "gtsrb",
                gtsrb,
                (
                    "resized to 32×32, bilinear",
                    "training images are frames of the same signs, which the splits of them take apart",
                ),
            ),
            "cifar10",
        ),
        "stl10": DatasetEntry(
            "natural images, 96×96 colour, 10 classes",
            TorchvisionSet("stl10", "STL10", "stl10_binary", by_split),
            "cifar100",
            side=96,
        ),
        "tiny_imagenet": DatasetEntry(
            "photographs, 64×64 colour, 200 classes of ImageNet",
            f"{_LAYOUTS}.wordnet:tiny_imagenet",
            "caltech256",
            pictures=True,
        ),
        "imagenette": DatasetEntry(
            "photographs, 224×224 colour, 10 classes of ImageNet",
            f"{_LAYOUTS}.wordnet:imagenette",
            "caltech256",
            epsilon=4 / 255,
            pictures=True,
            side=224,
        ),
        "caltech101": DatasetEntry(
            "photographs, 224×224 colour, 101 classes of things",
            f"{_LAYOUTS}.caltech:caltech101",
            "imagenette",
            epsilon=4 / 255,
            pictures=True,
            side=224,
        ),
        "caltech256": DatasetEntry(
            "photographs, 224×224 colour, 256 classes of things",
            f"{_LAYOUTS}.caltech:caltech256",
            "imagenette",
            epsilon=4 / 255,
            pictures=True,
            side=224,
        ),
        "cub200": DatasetEntry(
            "photographs, 224×224 colour, 200 kinds of birds, CUB-200-2011",
            f"{_LAYOUTS}.birds:cub200",
            "caltech256",
            epsilon=4 / 255,
            pictures=True,
            side=224,
        ),
        "indoor67": DatasetEntry(
            "photographs, 224×224 colour, 67 kinds of rooms",
            f"{_LAYOUTS}.indoor:indoor67",
            "caltech256",
            epsilon=4 / 255,
            pictures=True,
            side=224,
        ),
    },
    also=DATASET_FORMS,
)


def list_datasets() -> dict[str, str]:
    """Every data set that has a name of its own, with one line on it.

    >>> "digits" in list_datasets()
    True
    """
    return DATASETS.summaries()


def canonical_dataset(name: str) -> str:
    """Return the canonical form of a data set's name, or say which are near.

    :raises UserError: for a name that is neither known nor one of `npz:PATH`, `folder:PATH` and `hf:PATH`.

    >>> canonical_dataset("Fashion-MNIST")
    'fashion_mnist'
    """
    return name if name.startswith(_PREFIXES) else DATASETS.canonical(name)


def dataset_entry(name: str) -> DatasetEntry:
    """What is known of a data set by its name; of images of the user's own, what holds for natural images.

    >>> dataset_entry("digits").simple, dataset_entry("folder:photographs").simple
    (True, False)
    """
    return DATASETS.find(name) or DatasetEntry("images of the user's own", "")


def is_dataset(name: str) -> bool:
    """Whether this is the name of a data set, or one of `npz:`, `folder:` and `hf:` with a path."""
    return name.startswith(_PREFIXES) or name in DATASETS


def has_pictures(name: str) -> bool:
    """Whether a data set is of picture files, which may have any size, and no arrays of one."""
    if name.startswith(_PREFIXES):
        return not name.startswith("npz:")
    entry = DATASETS.find(name)
    return entry is not None and entry.pictures


def load_raw(
    name: str,
    *,
    data_root: Path | None = None,
    download: bool = False,
    form: ImageForm = OWN_FORM,
) -> RawImages:
    """Read a data set by name; the network is used only with `download`.

    :param name: a name of :func:`list_datasets`, `npz:PATH`, `folder:PATH`, `hf:PATH` or `hf:NAME`.
    :param data_root: the folder in torchvision's layout; :func:`default_data_root` if not given. A relative `npz:PATH`
        that is not in the working folder is looked for there too.
    :param form: the size and the channels that the images are to have, where those are not their own.
    :raises UserError: for an unknown name, a set that is not there, or one whose content cannot be used.

    >>> load_raw("digits").x.shape
    (1797, 1, 8, 8)
    """
    canonical = canonical_dataset(name)
    root = data_root or default_data_root()
    if has_pictures(canonical):
        return decode_list(list_pictures(canonical, data_root=root, download=download), form)
    raw = _read_arrays(canonical, root, download)
    if form == OWN_FORM:
        return raw
    from art_divqat.data.adapt import in_form

    return in_form(raw, form)


def list_pictures(name: str, *, data_root: Path | None = None, download: bool = False) -> PictureList:
    """List the picture files of a data set that is of pictures, without reading one.

    :param name: see :func:`has_pictures`; the others as for :func:`load_raw`.
    :raises UserError: for a set that is not there, or not as it was published.
    """
    canonical = canonical_dataset(name)
    root = data_root or default_data_root()
    try:
        if canonical.startswith("folder:"):
            from art_divqat.data.folders import list_folder

            root = Path(canonical[7:]).expanduser()
            return list_folder(root)
        if canonical.startswith("hf:"):
            from art_divqat.data.hugging_face import list_hugging_face

            return list_hugging_face(canonical[3:], root, download)
        listing = load_target(DATASETS[canonical].read)(root, download)
    except OSError as error:
        raise UserError(f"The folder {root} cannot be read: {error}.") from error
    return checked_list(listing, canonical)


def _read_arrays(canonical: str, root: Path, download: bool) -> RawImages:
    if canonical.startswith("npz:"):
        from art_divqat.data.archives import read_archive

        path = Path(canonical[4:]).expanduser()
        below = root / path
        return replace(read_archive(below if below.is_file() and not path.exists() else path), name=canonical)
    raw = load_target(DATASETS[canonical].read)(root, download)
    if DATASETS.origin(canonical) is None:
        return raw
    raw = checked_raw(raw, canonical)
    height, width = raw.x.shape[2:]
    if DATASETS[canonical].side is not None or min(height, width) <= _SMALL_SIDE:
        return raw
    unsaid = f"images of {height}×{width}: the data set's entry does not say its side, so that it is read before"
    return replace(raw, notes=(*raw.notes, f"{unsaid} networks are chosen"))


def checked_list(listing: object, name: str) -> PictureList:
    """What the `read` of a data set of pictures gave, with the name that the data set goes by.

    :raises UserError: if it is no list, has no pictures to train on, or its labels do not fit them or the classes.
    """
    if not isinstance(listing, PictureList):
        raise UserError(
            f"The data set {name!r} gave a {type(listing).__name__}: expected art_divqat.data.PictureList, as its "
            "entry says that it is of pictures."
        )
    for part in (listing.train, listing.validation, listing.test):
        if part is not None:
            if not part.files:
                raise UserError(f"The data set {name!r} lists a part without pictures: expected None in its place.")
            check_labels(np.asarray(part.labels), len(part.files), f"{name}: labels", len(listing.class_names))
    return replace(listing, name=name)


def checked_raw(raw: object, name: str) -> RawImages:
    """What a plug-in's `read` gave, in the form that it was to have, with the name that the data set goes by.

    :raises UserError: if it cannot be brought into it.

    >>> raw = RawImages("?", np.zeros((8, 5, 5)), np.arange(8) % 2, None, None, ("a", "b"))
    >>> checked_raw(raw, "mine").x.shape
    (8, 1, 5, 5)
    """
    if not isinstance(raw, RawImages):
        raise UserError(f"The data set {name!r} gave a {type(raw).__name__}: expected art_divqat.data.RawImages.")
    notes = list(raw.notes)
    largest = 0

    def checked(x: Any, y: Any, what: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
        nonlocal largest
        if x is None or y is None:
            raise UserError(f"The data set {name!r} gave {what} or their labels alone: give both, or None for both.")
        images = check_images(as_nchw(np.asarray(x), name), name, notes)
        labels = check_labels(np.asarray(y), len(images), f"{name}: labels")
        largest = max(largest, int(labels.max()))
        return images, labels

    def checked_if_any(x: Any, y: Any, what: str) -> tuple[NDArray[Any] | None, NDArray[np.int64] | None]:
        return (None, None) if x is None and y is None else checked(x, y, what)

    x, y = checked(raw.x, raw.y, "images")
    x_test, y_test = checked_if_any(raw.x_test, raw.y_test, "test images")
    x_validation, y_validation = checked_if_any(raw.x_validation, raw.y_validation, "validation images")
    classes = len(raw.class_names)
    if largest >= classes:
        raise UserError(f"The data set {name!r} names {classes} classes and its labels run to {largest}: name each.")
    return RawImages(
        name,
        x,
        y,
        x_test,
        y_test,
        tuple(raw.class_names),
        tuple(dict.fromkeys(notes)),
        x_validation,
        y_validation,
        tuple(raw.class_numbers),
    )
