"""Mutation of images: small random moves, and two images laid over each other."""

from __future__ import annotations

import numpy as np
import torch

from art_divqat._types import Images


def moved(
    images: Images, rng: np.random.Generator, *, turn: float = 0.25, scale: float = 0.2, shift: float = 0.1
) -> Images:
    """Each image turned, stretched, slanted and moved at random about its middle; what comes in from outside is black.

    :param images: (N, C, H, W), float32 in [0, 1]; left as they are.
    :param turn: largest angle and slant, in radians.
    :param scale: largest relative change of the size.
    :param shift: largest move, as a share of the side.

    >>> still = moved(np.ones((2, 1, 8, 8), np.float32), np.random.default_rng(0), turn=0, scale=0, shift=0)
    >>> float(still.min())
    1.0
    """
    count = len(images)
    if count == 0:
        return images.copy()
    angle, slant = rng.uniform(-turn, turn, count), rng.uniform(-turn, turn, count)
    size = np.exp(rng.uniform(-scale, scale, (count, 2)))
    matrix = np.empty((count, 2, 3), np.float32)
    matrix[:, 0, 0], matrix[:, 0, 1] = np.cos(angle) * size[:, 0], (np.sin(angle) + slant) * size[:, 0]
    matrix[:, 1, 0], matrix[:, 1, 1] = -np.sin(angle) * size[:, 1], np.cos(angle) * size[:, 1]
    matrix[:, :, 2] = rng.uniform(-2 * shift, 2 * shift, (count, 2))
    grid = torch.nn.functional.affine_grid(torch.from_numpy(matrix), list(images.shape), align_corners=False)
    out = torch.nn.functional.grid_sample(torch.from_numpy(np.ascontiguousarray(images)), grid, align_corners=False)
    return out.clamp(0, 1).numpy()


def mutated(first: Images, second: Images, rng: np.random.Generator) -> Images:
    """The first images moved; a third of them with the second laid over by maximum, mean, or a random half.

    :param first, second: (N, C, H, W), float32 in [0, 1]; left as they are.

    >>> x = np.random.default_rng(0).random((6, 1, 8, 8), np.float32)
    >>> mutated(x, x[::-1], np.random.default_rng(1)).shape
    (6, 1, 8, 8)
    """
    images = moved(first, rng)
    kinds = rng.integers(9, size=len(images))
    other = moved(second, rng) if len(images) else second
    half = np.zeros(images.shape[2:], bool)
    half[:, : half.shape[1] // 2] = True
    for index, kind in enumerate(kinds):
        if kind == 0:
            images[index] = np.maximum(images[index], other[index])
        elif kind == 1:
            images[index] = (images[index] + other[index]) / 2
        elif kind == 2:
            mask = half if rng.random() < 0.5 else half.T if half.shape[0] == half.shape[1] else half
            images[index] = np.where(mask, images[index], other[index])
    return images
