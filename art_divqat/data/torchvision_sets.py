"""Data sets of torchvision: read them, and download them on request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._files import first_line
from art_divqat.data.checks import as_nchw
from art_divqat.data.raw import RawImages
from art_divqat.errors import UserError

# classes of GTSRB
_TRAFFIC_SIGNS = 43

Part = Callable[[Any, bool, Path, bool], tuple[NDArray[Any], Any]]


@dataclass(frozen=True)
class TorchvisionSet:
    """A data set of torchvision's: called with a folder and whether to download, it gives the images.

    :param dataset_class: the name of torchvision's class.
    :param folder: what the folder holds once the set is there.
    :param part: reads the training or the test images with that class.
    """

    name: str
    dataset_class: str
    folder: str
    part: Part
    notes: tuple[str, ...] = ()

    def __call__(self, root: Path, download: bool) -> RawImages:
        """Read both parts.

        :raises UserError: if the set is not in `root`, or cannot be read or downloaded.
        """
        import torchvision

        name, dataset_class = self.name, getattr(torchvision.datasets, self.dataset_class)
        try:
            if download:
                root.mkdir(parents=True, exist_ok=True)
            x, y = self.part(dataset_class, True, root, download)
            x_test, y_test = self.part(dataset_class, False, root, download)
        except Exception as error:
            # torchvision's readers of damaged files raise whatever their format's parser does, AssertionError among it
            if download:
                raise UserError(f"Data set {name!r} could not be downloaded to {root}: {first_line(error)}") from error
            raise UserError(
                f"Data set {name!r} is not in {root}, or not whole: add --download, or point --data-root at the folder "
                f"that holds {self.folder}."
            ) from error
        labels, test_labels = (np.asarray(part, dtype=np.int64) for part in (y, y_test))
        classes = tuple(map(str, range(int(labels.max()) + 1)))
        return RawImages(name, as_nchw(x, name), labels, as_nchw(x_test, name), test_labels, classes, self.notes)


def by_train(dataset: Any, train: bool, root: Path, download: bool) -> tuple[NDArray[Any], Any]:
    part = dataset(str(root), train=train, download=download)
    return np.asarray(part.data), part.targets


def by_split(dataset: Any, train: bool, root: Path, download: bool) -> tuple[NDArray[Any], Any]:
    part = dataset(str(root), split="train" if train else "test", download=download)
    return np.asarray(part.data), part.labels


def emnist(dataset: Any, train: bool, root: Path, download: bool) -> tuple[NDArray[Any], Any]:
    part = dataset(str(root), split="balanced", train=train, download=download)
    # EMNIST stores its pictures mirrored along the diagonal
    return np.asarray(part.data).transpose(0, 2, 1), part.targets


def gtsrb(dataset: Any, train: bool, root: Path, download: bool) -> tuple[NDArray[Any], Any]:
    from PIL import Image

    part = dataset(str(root), split="train" if train else "test", download=download)
    images, labels = [], []
    for index in range(len(part)):
        image, label = part[index]
        images.append(np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR)))
        labels.append(label)
    if set(labels) != set(range(_TRAFFIC_SIGNS)):
        # torchvision numbers the folders that are there, and the file of the test labels numbers signs
        raise UserError(f"{len(set(labels))} of {_TRAFFIC_SIGNS} classes are there.")
    return np.stack(images), labels
