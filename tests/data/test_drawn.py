"""Drawn pictures: of every shape, the same for the same seed, none empty, none like another."""

from __future__ import annotations

import numpy as np
import pytest

from art_divqat.data import drawn
from art_divqat.data.pools import generate, generated_pools
from art_divqat.errors import UserError


@pytest.mark.parametrize("name", generated_pools())
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 20, 36)])
def test_pictures_are_images_that_the_seed_decides(name: str, shape: tuple[int, int, int]) -> None:
    images, again, other = (generate(name, shape, 12, seed) for seed in (1, 1, 2))
    assert images.shape == (12, *shape)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
    np.testing.assert_array_equal(images, again)
    assert not np.array_equal(images, other)


@pytest.mark.parametrize("draw", [drawn.walks, drawn.strokes, drawn.glyphs, drawn.letters, drawn.numerals])
def test_no_picture_is_empty_and_ink_is_bright_on_black(draw: object) -> None:
    images = draw((1, 28, 28), 200, 0)  # type: ignore[operator]
    assert (images.max(axis=(1, 2, 3)) > 0.3).all()
    assert (images[:, :, 0, 0] < 0.1).mean() > 0.9
    assert 0.03 < images.mean() < 0.3
    assert len(np.unique(images.reshape(200, -1), axis=0)) == 200


def test_strokes_have_every_width() -> None:
    ink = (drawn.strokes((1, 28, 28), 400, 0) > 0.3).mean(axis=(1, 2, 3))
    assert np.quantile(ink, 0.95) > 4 * np.quantile(ink, 0.05)


def test_glyphs_are_of_the_characters_asked_for_and_every_one_can_be_drawn() -> None:
    # a character that a font lacks is drawn as a box, which all of them would share
    for characters in (drawn.LETTERS, drawn.NUMERALS, drawn.SIGNS):
        pictures = {drawn.glyphs((1, 28, 28), 1, 5, character).tobytes() for character in characters}
        assert len(pictures) >= 0.9 * len(set(characters))
    assert not set(drawn.NUMERALS) & set(drawn.LETTERS + drawn.SIGNS)
    with pytest.raises(UserError, match="at least one character"):
        drawn.glyphs((1, 28, 28), 1, 0, "")


@pytest.mark.parametrize("closed", [True, False])
def test_a_smooth_curve_passes_through_its_points(closed: bool) -> None:
    knots = np.random.default_rng(0).random((5, 2))
    path = drawn.smooth_curve(knots, closed, pieces=4)
    np.testing.assert_allclose(path[::4][:5], knots, atol=1e-12)
    assert len(path) == 4 * (4 + closed) + 1
    np.testing.assert_allclose(path[-1], knots[0] if closed else knots[-1])
