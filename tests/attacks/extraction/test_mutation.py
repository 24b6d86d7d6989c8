"""Mutated images stay images, and come from their parents."""

from __future__ import annotations

import numpy as np
import pytest
from support.digits_victim import SHAPE, digits

from art_divqat.attacks.extraction.mutation import moved, mutated

X = digits()[0][:40]


@pytest.mark.parametrize("shape", [SHAPE, (3, 7, 12), (1, 28, 28)])
def test_mutations_are_images_of_the_same_shape(shape: tuple[int, int, int]) -> None:
    x = np.random.default_rng(0).random((50, *shape), np.float32)
    before = x.copy()
    for out in (moved(x, np.random.default_rng(1)), mutated(x, x[::-1].copy(), np.random.default_rng(1))):
        assert out.shape == x.shape
        assert out.dtype == np.float32
        assert out.min() >= 0
        assert out.max() <= 1
    np.testing.assert_array_equal(x, before)


def test_no_move_is_no_change() -> None:
    still = moved(X, np.random.default_rng(0), turn=0, scale=0, shift=0)
    np.testing.assert_allclose(still, X, atol=1e-5)


def test_a_shift_moves_the_middle_of_the_mass_by_no_more_than_said() -> None:
    x = np.zeros((200, 1, 41, 41), np.float32)
    x[:, :, 18:23, 18:23] = 1
    out = moved(x, np.random.default_rng(0), turn=0, scale=0, shift=0.1)
    rows = np.arange(41)
    middle = (out.sum(axis=(1, 3)) * rows).sum(axis=1) / out.sum(axis=(1, 2, 3))
    assert np.abs(middle - 20).max() <= 0.1 * 41 + 0.1
    assert np.abs(middle - 20).max() > 3


def test_no_images_give_none() -> None:
    none = np.zeros((0, *SHAPE), np.float32)
    assert len(moved(none, np.random.default_rng(0))) == len(mutated(none, none, np.random.default_rng(0))) == 0
