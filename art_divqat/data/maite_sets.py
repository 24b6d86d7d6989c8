"""Arrays of a data set that follows MAITE's protocol for image classification; MAITE itself is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat.data.checks import is_one_hot
from art_divqat.errors import UserError


def follows_maite(thing: Any) -> bool:
    """Whether an object has what every component of MAITE's has: `metadata`, a mapping with an `id`.

    >>> follows_maite([1, 2])
    False
    """
    metadata = getattr(thing, "metadata", None)
    return isinstance(metadata, Mapping) and "id" in metadata


def label_names(thing: Any) -> tuple[str, ...]:
    """The classes' names by their numbers, as `index2label` of its metadata says them; empty where it does not.

    :raises UserError: if it leaves a number out.
    """
    names = thing.metadata.get("index2label") or {}
    if set(names) != set(range(len(names))):
        raise UserError(
            f"index2label of {thing.metadata['id']} numbers {len(names)} classes from {min(names)} to {max(names)}: "
            f"expected 0 to {len(names) - 1}, each once."
        )
    return tuple(str(names[number]) for number in range(len(names)))


def as_array(given: Any) -> NDArray[Any]:
    """An array of anything that MAITE calls array-like; a tensor of torch's may be on a GPU or have gradients."""
    return np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)


def maite_arrays(dataset: Any) -> tuple[NDArray[Any], NDArray[np.int64], tuple[str, ...]]:
    """Images (N, C, H, W), class ids (N,) from the one-hot targets, and the classes' names if it has some.

    :raises UserError: for an empty set, images of several shapes, or targets that are not one-hot.
    """
    name = dataset.metadata["id"]
    # iteration is no part of the protocol
    pairs = [dataset[row][:2] for row in range(len(dataset))]
    if not pairs:
        raise UserError(f"The data set {name} is empty: expected images.")
    images = [as_array(image) for image, _ in pairs]
    shapes = sorted({image.shape for image in images})
    if len(shapes) != 1 or len(shapes[0]) != 3:
        raise UserError(
            f"The data set {name} has images of the shapes {', '.join(map(str, shapes[:3]))}: expected one, (channels, "
            "height, width): resize them."
        )
    targets = [as_array(target) for _, target in pairs]
    if len({target.shape for target in targets}) != 1 or not is_one_hot(np.stack(targets)):
        raise UserError(
            f"The targets of {name} are not one-hot rows of as many numbers as there are classes: expected those of "
            "MAITE's image classification."
        )
    return np.stack(images), np.stack(targets).argmax(axis=1), label_names(dataset)
