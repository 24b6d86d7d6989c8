"""Copies are equal pixels, whatever type they came in, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from art_divqat.data import RawImages, load_pool, split_dataset
from art_divqat.data.copies import shared_part
from art_divqat.errors import UserError

RNG = np.random.default_rng(0)


def test_the_shared_part() -> None:
    x = RNG.integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)
    train = x[:30].astype(np.float32) / np.float32(255)
    test = (x[20:] / 255).astype(np.float32)
    assert shared_part(test, train) == 0.5
    assert shared_part(test, train[:1], train[20:22]) == 0.1
    assert shared_part(test[:0], train) == shared_part(test) == 0
    near = np.clip(test + np.float32(1 / 255), 0, 1)
    assert shared_part(near, train) == 0
    zero = np.zeros((1, 1, 2, 2), np.float32)
    assert shared_part(-zero, zero) == 1


def test_a_pool_of_nothing_but_twins_says_so() -> None:
    x = np.repeat(RNG.random((2, 1, 8, 8), dtype=np.float32), 30, axis=0)
    dataset = split_dataset(RawImages("twins", x, np.repeat([0, 1], 30), None, None, ("a", "b")))
    assert dataset.notes == ("14 of 14 images that an attacker could have had dropped, as copies of training images",)
    with pytest.raises(UserError, match="every image of twins that was kept for it has a copy among the training"):
        load_pool("in-distribution", dataset)
    assert len(load_pool("noise", dataset).x) > 0
