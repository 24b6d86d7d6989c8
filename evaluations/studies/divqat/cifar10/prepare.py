"""Write the archives that the studies at CIFAR-10's size name, from two data sets as archives of encoded pictures.

    python evaluations/studies/divqat/cifar10/prepare.py --source DIR --output images

DIR holds `cifar10-train-webp.npz`, `cifar10-test-webp.npz` and `tinyimagenet32-45k-webp.npz`; each has `blob`, pictures
of 32×32 pixels one after the other in any format that Pillow reads, `off`, where each begins, and `y`, their classes.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLASSES_OF_THE_DEFENDER = 100
_KEPT_FOR_TESTING = 200


def decoded(pictures: list[bytes]) -> NDArray[np.uint8]:
    """Pictures as one array (N, 3, H, W)."""
    return np.stack([np.asarray(Image.open(io.BytesIO(one)).convert("RGB")) for one in pictures]).transpose(0, 3, 1, 2)


def images(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """All pictures of an archive, and their classes."""
    with np.load(path, allow_pickle=False) as archive:
        blob, offsets, labels = archive["blob"].tobytes(), archive["off"].tolist(), archive["y"].astype(np.int64)
    pictures = [blob[start:end] for start, end in itertools.pairwise(offsets)]
    size = -(-len(pictures) // (4 * (os.cpu_count() or 1)))
    with ProcessPoolExecutor() as pool:
        parts = list(pool.map(decoded, (pictures[i : i + size] for i in range(0, len(pictures), size))))
    return np.concatenate(parts), labels


def main() -> None:
    """Read, divide Tiny ImageNet by class, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("images"))
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    x_train, y_train = images(given.source / "cifar10-train-webp.npz")
    x_test, y_test = images(given.source / "cifar10-test-webp.npz")
    np.savez(given.output / "cifar10.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    x, y = images(given.source / "tinyimagenet32-45k-webp.npz")
    half = CLASSES_OF_THE_DEFENDER
    for name, first, last in (("tiny", 0, 2 * half), ("tiny-defender", 0, half), ("tiny-attacker", half, 2 * half)):
        own = (y >= first) & (y < last)
        pixels, labels = x[own], y[own] - first
        # a pool is x_train; the form wants test images too
        some = slice(0, _KEPT_FOR_TESTING)
        np.savez(given.output / f"{name}.npz", x_train=pixels, y_train=labels, x_test=pixels[some], y_test=labels[some])


if __name__ == "__main__":
    main()
