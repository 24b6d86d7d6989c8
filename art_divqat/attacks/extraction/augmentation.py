"""Augmentation: many random variants of an attacker's few images, by torchvision's transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms import v2

from art_divqat._rng import isolated_random_state
from art_divqat.attacks.extraction._base import allocate_images
from art_divqat.data.stored import ImageSet
from art_divqat.errors import UserError

# small enough that a 6 stays a 6
_DEGREES = 15
_SHIFT = 0.1
_SCALE = (0.8, 1.15)
_SHEAR = 10


def augmented(images: ImageSet, count: int, seed: int, *, flips: bool = False) -> tuple[Any, NDArray[np.int64]]:
    """x′ = crop(A pad(x)), A a random rotation, shear, scaling and shift: `count` variants of a few images.

    The images themselves come first, in random order; then each in turn as often as any other. With one seed, fewer
    variants are a prefix of more.

    :param images: (N, C, H, W) in [0, 1], at least one.
    :param count: how many variants, those that change nothing included.
    :param seed: decides every draw.
    :param flips: also mirror half of them, left to right; not for characters.
    :return: float32 variants, (count, C, H, W), stored ones of large images, and which image each is of, (count,).
    :raises UserError: for no images.

    >>> variants, of = augmented(np.ones((2, 1, 8, 8), np.float32), 5, seed=0)
    >>> variants.shape, np.bincount(of).max()
    ((5, 1, 8, 8), np.int64(3))
    """
    if not len(images):
        raise UserError("There is no image to augment: the attacker needs at least one.")
    height, width = images.shape[2:]
    variants = allocate_images(count, images.shape[1:])
    with isolated_random_state("augmentation", seed):
        turns = [np.random.permutation(len(images)) for _ in range(-(-count // len(images)))]
        of = np.concatenate([np.zeros(0, np.int64), *turns])[:count]
        change = v2.Compose(
            [
                # what comes in from beyond the edge continues the image
                v2.Pad([width // 4, height // 4], padding_mode="reflect"),
                v2.RandomAffine(_DEGREES, (_SHIFT, _SHIFT), _SCALE, _SHEAR, v2.InterpolationMode.BILINEAR),
                v2.CenterCrop([height, width]),
                v2.RandomHorizontalFlip(0.5 if flips else 0.0),
            ]
        )
        for place, row in enumerate(of):
            image = np.array(images[row], np.float32)
            if place >= len(images):
                image = change(torch.from_numpy(image)).clamp(0, 1).numpy()
            variants[place] = image
    return variants, of
