"""Auxiliary images: given ones join the mixture and never crowd it out, in whatever range the pixels are."""

from __future__ import annotations

import numpy as np
import pytest

from art_divqat.data import auxiliary
from art_divqat.data.auxiliary import FAMILIES, compose_auxiliary, default_auxiliary
from art_divqat.errors import UserError

SHAPE = (1, 8, 8)
MIXTURE = 80


@pytest.fixture(autouse=True)
def small_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auxiliary, "AUXILIARY_IMAGES", MIXTURE)


def numbered(count: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Images of one grey each, no two alike and none that a mixture makes."""
    return np.broadcast_to(np.linspace(0.1, 0.9, count, dtype=np.float32).reshape(-1, 1, 1, 1), (count, *shape))


def test_the_mixture_by_itself_is_the_default_one_bit_for_bit() -> None:
    training = np.random.default_rng(0).random((20, *SHAPE)).astype(np.float32)
    for images in (training, None):
        expected = default_auxiliary(SHAPE, MIXTURE, seed=3, training_images=images)
        np.testing.assert_array_equal(compose_auxiliary(SHAPE, seed=3, training_images=images), expected)


@pytest.mark.parametrize("shape", [SHAPE, (3, 8, 8)])
def test_few_given_images_join_the_whole_mixture(shape: tuple[int, int, int]) -> None:
    images = compose_auxiliary(shape, numbered(10, shape), seed=3)
    assert images.shape == (10 + MIXTURE, *shape)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(np.sort(images[:10, 0, 0, 0]), numbered(10)[:, 0, 0, 0])
    np.testing.assert_array_equal(images[10:], default_auxiliary(shape, MIXTURE, seed=3))


@pytest.mark.parametrize(("left_out", "share"), [((), 10), (("photographs", "silhouettes"), 13), (None, MIXTURE)])
def test_of_many_given_images_as_many_as_a_family_has_are_drawn(left_out: tuple[str, ...] | None, share: int) -> None:
    given = numbered(1000)
    first, again, other = (compose_auxiliary(SHAPE, given, seed=seed, left_out=left_out) for seed in (3, 3, 4))
    assert len(first) == share + (0 if left_out is None else MIXTURE)
    np.testing.assert_array_equal(first, again)
    greys = [set(images[:share, 0, 0, 0].tolist()) for images in (first, other)]
    assert [len(each) for each in greys] == [share, share]
    assert greys[0] != greys[1]
    assert min(greys[0]) < 0.3 < 0.7 < max(greys[0]), "not the first of them alone"


def test_families_are_left_out_and_so_is_the_whole_mixture() -> None:
    left_out = ("photographs", "silhouettes")
    images = compose_auxiliary(SHAPE, numbered(10), seed=3, left_out=left_out)
    rest = tuple(family for family in FAMILIES[:-1] if family not in left_out)
    np.testing.assert_array_equal(images[10:], default_auxiliary(SHAPE, MIXTURE, seed=3, families=rest))
    assert len(compose_auxiliary(SHAPE, numbered(10), left_out=None)) == 10
    with pytest.raises(UserError, match="no auxiliary images: give some"):
        compose_auxiliary(SHAPE, None, left_out=None)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 255), (-1.0, 1.0), (np.array([-2, -1, 0]).reshape(3, 1, 1), np.full((3, 1, 1), 2.5))]
)
def test_the_mixture_fills_the_range_of_the_given_images(low, high) -> None:
    shape = (3, 8, 8)
    training, given = np.random.default_rng(0).random((2, 20, *shape)).astype(np.float32)
    in_units = compose_auxiliary(shape, given, seed=3, training_images=training)
    images = compose_auxiliary(
        shape,
        low + (high - low) * given,
        seed=3,
        training_images=(low + (high - low) * training).astype(np.float32),
        value_range=(low, high),
    )
    np.testing.assert_allclose((images - low) / (high - low), in_units, atol=1e-5)
