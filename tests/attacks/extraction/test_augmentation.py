"""Augmentation: variants stay images of the same range, follow the seed, and use every image as often as any other."""

from __future__ import annotations

import numpy as np
import pytest
from support.digits_victim import digits

from art_divqat.attacks.extraction.augmentation import augmented
from art_divqat.errors import UserError


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 11), (1, 2, 2), (2, 28, 20)])
def test_variants_are_images_of_the_same_shape_and_range(shape: tuple[int, int, int]) -> None:
    images = np.random.default_rng(0).random((3, *shape), np.float32)
    variants, of = augmented(images, 10, seed=4)
    assert variants.shape == (10, *shape)
    assert variants.dtype == np.float32
    assert variants.min() >= 0
    assert variants.max() <= 1
    assert sorted(of[:3]) == [0, 1, 2]
    assert np.array_equal(variants[:3], images[of[:3]])
    assert sorted(np.bincount(of)) == [3, 3, 4]


def test_variants_differ_from_the_image_and_stay_nearer_to_it_than_to_others() -> None:
    images = digits()[0][:40]
    variants, of = augmented(images, 200, seed=0)
    later, parents = variants[40:], of[40:]
    distance = np.sqrt(((later[:, None] - images[None]) ** 2).sum(axis=(2, 3, 4)))
    assert (distance[np.arange(160), parents] > 0).all()
    # a nearest neighbour among 40 would be the parent once in 40 by chance
    assert (distance.argmin(axis=1) == parents).mean() > 0.2


def test_fewer_variants_are_a_prefix_of_more_and_the_seed_decides() -> None:
    images = digits()[0][:7]
    many, of_many = augmented(images, 30, seed=1)
    few, of_few = augmented(images, 11, seed=1)
    assert np.array_equal(few, many[:11])
    assert np.array_equal(of_few, of_many[:11])
    assert not np.array_equal(augmented(images, 30, seed=2)[0], many)


def test_only_flips_mirror() -> None:
    # a bright left half: a variant whose right half is brighter was mirrored
    image = np.zeros((1, 1, 20, 20), np.float32)
    image[..., :10] = 1

    def mirrored(flips: bool) -> float:
        variants = augmented(image, 101, seed=0, flips=flips)[0][1:]
        return float((variants[..., 10:].sum(axis=(1, 2, 3)) > variants[..., :10].sum(axis=(1, 2, 3))).mean())

    assert mirrored(False) == 0
    assert 0.3 < mirrored(True) < 0.7


def test_nothing_to_augment_is_refused() -> None:
    with pytest.raises(UserError, match="no image to augment"):
        augmented(np.zeros((0, 1, 4, 4), np.float32), 5, seed=0)
