"""Which test images counted, one bit an image: what paired intervals are made from."""

from __future__ import annotations

import base64

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


def unpack(text: str) -> NDArray[np.bool_]:
    """What :func:`pack` packed.

    :raises UserError: for any other text.
    """
    try:
        count, _, bits = text.partition(":")
        unpacked = np.unpackbits(np.frombuffer(base64.b64decode(bits, validate=True), np.uint8), count=int(count))
    except (ValueError, TypeError) as error:
        raise UserError(f"The journal holds samples that cannot be read: {error}.") from None
    return unpacked.astype(bool)
