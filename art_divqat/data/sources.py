"""Where images come from: scikit-learn, torchvision's classification sets, `npz:PATH` and `folder:PATH`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._files import default_data_root, first_line
from art_divqat.data.checks import as_nchw, check_images, check_labels
from art_divqat.errors import UserError, unknown_name


@dataclass(frozen=True)
class RawImages:
    """Images as they were stored, channels first: uint8 in 0–255, or float32 in [0, 1].

    :param x: (N, C, H, W).
    :param y: class ids (N,), int64, from 0.
    :param x_test: the source's own test images, or None if it has none.
    :param class_names: one name a class.
    :param notes: what was done to the images on the way in, for the report.
    """

    name: str
    x: NDArray[Any]
    y: NDArray[np.int64]
    x_test: NDArray[Any] | None
    y_test: NDArray[np.int64] | None
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _TorchvisionSource:
    summary: str
    dataset_class: str
    read: Callable[[Any, bool, Path, bool], tuple[NDArray[Any], Any]]
    folder: str
    notes: tuple[str, ...] = ()


def _plain(dataset: Any, train: bool, root: Path, download: bool) -> tuple[NDArray[Any], Any]:
    part = dataset(str(root), train=train, download=download)
    return np.asarray(part.data), part.targets


def _by_split(dataset: Any, train: bool, root: Path, download: bool) -> tuple[NDArray[Any], Any]:
    part = dataset(str(root), split="train" if train else "test", download=download)
    return np.asarray(part.data), part.labels


def _emnist(dataset: Any, train: bool, root: Path, download: bool) -> tuple[NDArray[Any], Any]:
    part = dataset(str(root), split="balanced", train=train, download=download)
    # EMNIST stores its pictures mirrored along the diagonal
    return np.asarray(part.data).transpose(0, 2, 1), part.targets


def _gtsrb(dataset: Any, train: bool, root: Path, download: bool) -> tuple[NDArray[Any], Any]:
    from PIL import Image

    part = dataset(str(root), split="train" if train else "test", download=download)
    images, labels = [], []
    for index in range(len(part)):
        image, label = part[index]
        images.append(np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)))
        labels.append(label)
    return np.stack(images), labels


_TORCHVISION: dict[str, _TorchvisionSource] = {
    "mnist": _TorchvisionSource("handwritten digits, 28×28 grey, 10 classes", "MNIST", _plain, "MNIST/raw"),
    "fashion_mnist": _TorchvisionSource(
        "articles of clothing, 28×28 grey, 10 classes", "FashionMNIST", _plain, "FashionMNIST/raw"
    ),
    "kmnist": _TorchvisionSource("cursive Japanese characters, 28×28 grey, 10 classes", "KMNIST", _plain, "KMNIST/raw"),
    "emnist": _TorchvisionSource(
        "letters and digits, balanced split, 28×28 grey, 47 classes", "EMNIST", _emnist, "EMNIST/raw"
    ),
    "cifar10": _TorchvisionSource("natural images, 32×32 colour, 10 classes", "CIFAR10", _plain, "cifar-10-batches-py"),
    "cifar100": _TorchvisionSource("natural images, 32×32 colour, 100 classes", "CIFAR100", _plain, "cifar-100-python"),
    "svhn": _TorchvisionSource("house numbers, 32×32 colour, 10 classes", "SVHN", _by_split, "train_32x32.mat"),
    "gtsrb": _TorchvisionSource(
        "German traffic signs, colour, 43 classes", "GTSRB", _gtsrb, "gtsrb", ("resized to 32×32, bilinear",)
    ),
    "stl10": _TorchvisionSource("natural images, 96×96 colour, 10 classes", "STL10", _by_split, "stl10_binary"),
}


def list_datasets() -> dict[str, str]:
    """Every data set that has a name of its own, with one line on it.

    >>> "digits" in list_datasets()
    True
    """
    return {"digits": "scikit-learn's handwritten digits, 8×8 grey, 10 classes; embedded"} | {
        name: source.summary for name, source in _TORCHVISION.items()
    }


def canonical_dataset(name: str) -> str:
    """Return the canonical form of a data set's name, or say which are near.

    :raises UserError: for a name that is neither known nor `npz:PATH` nor `folder:PATH`.

    >>> canonical_dataset("Fashion-MNIST")
    'fashion_mnist'
    """
    if name.startswith(("npz:", "folder:")):
        return name
    canonical = name.strip().lower().replace("-", "_")
    if canonical not in list_datasets():
        raise unknown_name("data set", name, [*list_datasets(), "npz:PATH", "folder:PATH"])
    return canonical


def load_raw(name: str, *, data_root: Path | None = None, download: bool = False) -> RawImages:
    """Read a data set by name; the network is used only with `download`.

    :param name: a name of :func:`list_datasets`, `npz:PATH` or `folder:PATH`.
    :param data_root: the folder in torchvision's layout; :func:`default_data_root` if not given. A relative `npz:PATH`
        that is not in the working folder is looked for there too.
    :raises UserError: for an unknown name, a set that is not there, or one whose content cannot be used.

    >>> load_raw("digits").x.shape
    (1797, 1, 8, 8)
    """
    canonical = canonical_dataset(name)
    if canonical == "digits":
        return _digits()
    if canonical.startswith("npz:"):
        path = Path(canonical[4:]).expanduser()
        below = (data_root or default_data_root()) / path
        return replace(_npz(below if below.is_file() and not path.exists() else path), name=canonical)
    if canonical.startswith("folder:"):
        from art_divqat.data.folders import read_folder

        return read_folder(Path(canonical[7:]).expanduser())
    return _torchvision(canonical, data_root or default_data_root(), download)


def _digits() -> RawImages:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = (bunch.images.astype(np.float32) / 16.0)[:, None]
    return RawImages("digits", x, bunch.target.astype(np.int64), None, None, tuple("0123456789"))


def _torchvision(name: str, root: Path, download: bool) -> RawImages:
    import torchvision

    source = _TORCHVISION[name]
    dataset_class = getattr(torchvision.datasets, source.dataset_class)
    try:
        if download:
            root.mkdir(parents=True, exist_ok=True)
        x, y = source.read(dataset_class, True, root, download)
        x_test, y_test = source.read(dataset_class, False, root, download)
    except Exception as error:
        # torchvision's readers of damaged files raise whatever their format's parser does, AssertionError among it
        if download:
            raise UserError(f"Data set {name!r} could not be downloaded to {root}: {first_line(error)}") from error
        raise UserError(
            f"Data set {name!r} is not in {root}, or not whole: add --download, or point --data-root at the folder "
            f"that holds {source.folder}."
        ) from error
    labels, test_labels = (np.asarray(part, dtype=np.int64) for part in (y, y_test))
    classes = int(labels.max()) + 1
    return RawImages(
        name,
        as_nchw(x, name),
        labels,
        as_nchw(x_test, name),
        test_labels,
        tuple(map(str, range(classes))),
        source.notes,
    )


def _npz(path: Path) -> RawImages:
    wanted = ("x_train", "y_train", "x_test", "y_test")
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in wanted if key not in archive.files]
            if missing:
                raise UserError(
                    f"{path} lacks the array{'s' if len(missing) > 1 else ''} {', '.join(missing)}; it holds "
                    f"{', '.join(archive.files) or 'none'}. Save x_train, y_train, x_test and y_test."
                )
            # numpy gives a member that is no .npy as the bytes it is
            raw = [key for key in wanted if not isinstance(archive[key], np.ndarray)]
            if raw:
                raise UserError(f"{path}: {raw[0]} is no array of numpy's: the archive is damaged.")
            x, y, x_test, y_test = (archive[key] for key in wanted)
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
