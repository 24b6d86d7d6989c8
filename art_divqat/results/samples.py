"""Samples: pack which test images were right, one bit an image; paired intervals are made from them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from art_divqat.errors import UserError


def pack(hits: NDArray[np.bool_]) -> str:
    """A boolean per image as text: their number, a colon, and the bits in base64.

    >>> unpack(pack(np.array([True, False, True])))
    array([ True, False,  True])
    """
    return f"{len(hits)}:{base64.b64encode(np.packbits(hits).tobytes()).decode()}"


def curve_sample(metric: str, radius: float) -> str:
    """The key, among a journal line's samples, of one point of a curve over ε.

    >>> curve_sample("thief_robust_accuracy", 0.05)
    'thief_robust_accuracy@0.05'
    """
    return f"{metric}@{float(radius)!r}"


def number_of_images(texts: Iterable[str]) -> int | None:
    """Of how many images the texts are, without unpacking them; None if they differ, or there are none.

    >>> number_of_images([pack(np.ones(3, bool)), pack(np.zeros(3, bool))])
    3
    """
    numbers = {text.partition(":")[0] for text in texts}
    return int(numbers.pop()) if len(numbers) == 1 else None


def unpack(text: str) -> NDArray[np.bool_]:
    """What :func:`pack` packed.

    :raises UserError: for any other text.
    """
    return unpack_all([text])[0]


def unpack_all(texts: Sequence[str]) -> list[NDArray[np.bool_]]:
    """What :func:`pack` packed, many texts at once.

    :raises UserError: for any other text.

    >>> unpack_all([pack(np.array([True, False])), pack(np.array([True]))])
    [array([ True, False]), array([ True])]
    """
    found: list[NDArray[np.bool_]] = []
    try:
        split = [text.partition(":") for text in texts]
        for count, run in groupby(split, key=lambda parts: int(parts[0])):
            size = -(-count // 8)
            bits = [base64.b64decode(text, validate=True) for _, _, text in run]
            if count < 0 or any(len(each) != size for each in bits):
                raise ValueError(f"not the bits of {count} images")
            rows = np.frombuffer(b"".join(bits), np.uint8).reshape(len(bits), size)
            found += list(np.unpackbits(rows, axis=1, count=count).view(np.bool_))
    except (AttributeError, ValueError, TypeError) as error:
        raise UserError(f"The journal holds samples that cannot be read: {error}.") from None
    return found
