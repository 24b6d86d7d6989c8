"""Auxiliary images for DivQAT: draw a mixture of families that needs no download.

DivQAT teaches a network to answer differently on images that are not its training distribution. Which images an
attacker will ask is not known, so the default is a mixture of families that differ from each other as much as they can.
Images that somebody gives join it: alone they protect against attackers with such images and hardly any others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._rng import derive_seed, numpy_generator
from art_divqat._types import Images, Shape
from art_divqat._validation import check_int
from art_divqat.data import drawn
from art_divqat.data.photos import photo_patches
from art_divqat.data.stored import ImageSet, StoredImages, is_large
from art_divqat.errors import UserError

AUXILIARY_IMAGES = 6000
# of images that one does not hold many of: 900 of 3×224×224 are half a gigabyte
_LARGE_AUXILIARY_IMAGES = 900
_TRAINING_IMAGES_TO_MIX = 300
FAMILIES = (
    "photographs",
    "silhouettes",
    "smooth-noise",
    "noise",
    "shapes",
    "strokes",
    "walks",
    "glyphs",
    "mixed-training",
)


def default_auxiliary(
    input_shape: Shape,
    n: int,
    *,
    seed: int = 0,
    training_images: NDArray[np.float32] | None = None,
    families: tuple[str, ...] | None = None,
) -> Images:
    """`n` images in equal parts from each family, in random order: float32 of shape (n, C, H, W) in [0, 1].

    `photographs`: patches of scikit-learn's two sample photographs, at many scales. `silhouettes`: such patches cut out
    by smooth random masks, on black or white. `smooth-noise`: Gaussian-filtered noise of many widths, stretched, half
    of it hardened to black and white. `noise`: uniform noise, dense or sparse. `shapes`: filled polygons, ellipses and
    lines. `strokes`, `walks`, `glyphs`: curves of all widths, walks of a pen, and letters and signs of fonts, on an
    empty ground (:mod:`art_divqat.data.drawn`). `mixed-training`: training images blended, laid over each other,
    inverted, or cut into tiles that are shuffled; only where training images are given.

    :param input_shape: (channels, height, width), 1 or 3 channels.
    :param training_images: (N, C, H, W) in [0, 1], or None to leave their family out.
    :param families: a selection of :data:`FAMILIES`; None takes all that can be made.
    :raises UserError: for an unknown family, other channels, or `mixed-training` without training images.

    >>> default_auxiliary((1, 8, 8), 12, seed=1).shape
    (12, 1, 8, 8)
    """
    n = check_int("default_auxiliary", "n", n, 1)
    if len(input_shape) != 3 or input_shape[0] not in (1, 3):
        raise UserError(f"Auxiliary images can be made with 1 or 3 channels, (C, H, W). Got {tuple(input_shape)}.")
    if families is None:
        families = FAMILIES if training_images is not None else FAMILIES[:-1]
    parts = []
    for index, family in enumerate(families):
        if family not in FAMILIES:
            raise UserError(f"Unknown family of auxiliary images {family!r}: known are {', '.join(FAMILIES)}.")
        count = n // len(families) + (index < n % len(families))
        if count == 0:
            continue
        own_seed = derive_seed("auxiliary", family, seed)
        if family == "mixed-training":
            if training_images is None or len(training_images) == 0:
                raise UserError("The family 'mixed-training' needs training_images.")
            parts.append(_mixed(np.asarray(training_images, np.float32), count, own_seed))
        else:
            parts.append(_MAKERS[family](input_shape, count, own_seed))
    images = np.concatenate(parts)
    return np.clip(images[numpy_generator("auxiliary order", seed).permutation(len(images))], 0, 1, dtype=np.float32)


def compose_auxiliary(
    input_shape: Shape,
    given: Images | None = None,
    *,
    seed: int = 0,
    training_images: ImageSet | None = None,
    left_out: tuple[str, ...] | None = (),
    value_range: tuple[Any, Any] = (0.0, 1.0),
) -> Images:
    """:data:`AUXILIARY_IMAGES` images of the mixture, and the given ones as one more family beside its own.

    Of images of more than 3×64×64 values there are 900, because all of them are held.

    No image counts more than another. Of more given images than each family of the mixture has, so many are drawn by
    the seed, so that they do not crowd the mixture out; fewer are all taken.

    :param input_shape: (channels, height, width); 1 or 3 channels where there is a mixture.
    :param given: (N, C, H, W) in `value_range`, or None for the mixture alone.
    :param training_images: (N, C, H, W) in `value_range`, for the family `mixed-training`; None leaves it out.
    :param left_out: families of :data:`FAMILIES` that the mixture goes without; None makes no mixture.
    :param value_range: the least and the greatest pixel, numbers or arrays that broadcast against the images.
    :return: (M, C, H, W), float32, the given images first; where they are alone at most as many as the mixture has.
    :raises UserError: where :func:`default_auxiliary` does, and for neither given images nor a mixture.

    >>> from art_divqat.data.photos import photo_patches
    >>> len(compose_auxiliary((1, 8, 8), photo_patches(10, (1, 8, 8)), left_out=("photographs", "silhouettes")))
    6010
    """
    families: tuple[str, ...] = ()
    if left_out is not None:
        possible = FAMILIES if training_images is not None else FAMILIES[:-1]
        families = tuple(family for family in possible if family not in left_out)
    parts = []
    total = _LARGE_AUXILIARY_IMAGES if is_large(1, input_shape) else AUXILIARY_IMAGES
    if given is not None:
        share = total // max(1, len(families))
        parts.append(given[numpy_generator("auxiliary", seed).permutation(len(given))[:share]])
    if families:
        if isinstance(training_images, StoredImages):
            training_images = training_images[:: max(1, len(training_images) // _TRAINING_IMAGES_TO_MIX)]
        low, high = (np.asarray(end, np.float32) for end in value_range)
        in_units = bool((low == 0).all() and (high == 1).all())
        if training_images is not None and not in_units:
            training_images = (training_images - low) / (high - low)
        mixture = default_auxiliary(input_shape, total, seed=seed, training_images=training_images, families=families)
        parts.append(mixture if in_units else low + (high - low) * mixture)
    if not parts:
        raise UserError("There are no auxiliary images: give some, or let the mixture be made.")
    return np.concatenate(parts)


def _photographs(shape: Shape, count: int, seed: int) -> Images:
    return photo_patches(count, shape, seed=seed)


def _smooth(shape: Shape, count: int, seed: int) -> Images:
    """Filtered noise in [0, 1]; the width of the filter is log-uniform from half a pixel to a third of the side."""
    from scipy.ndimage import gaussian_filter

    rng = numpy_generator("smooth", seed)
    channels, height, width = shape
    images = np.empty((count, *shape), np.float32)
    for image in images:
        sigma = float(np.exp(rng.uniform(np.log(0.5), np.log(max(1.0, min(height, width) / 3)))))
        field = rng.standard_normal((channels, height, width)).astype(np.float32)
        if channels > 1 and rng.random() < 0.5:
            field[:] = field[:1]
        field = gaussian_filter(field, (0, sigma, sigma), mode="reflect")
        low, high = field.min(), field.max()
        image[:] = (field - low) / max(high - low, 1e-6)
    return images


def smooth_noise(shape: Shape, count: int, seed: int) -> Images:
    """Filtered noise of many widths, stretched to [0, 1], half of it hardened to black and white; (count, C, H, W)."""
    images = _smooth(shape, count, seed)
    rng = numpy_generator("harden", seed)
    hard = rng.random(count) < 0.5
    threshold = rng.uniform(0.3, 0.7, (count, 1, 1, 1)).astype(np.float32)
    images[hard] = images[hard] > threshold[hard]
    return images


def _noise(shape: Shape, count: int, seed: int) -> Images:
    rng = numpy_generator("noise", seed)
    images = rng.random((count, *shape), dtype=np.float32)
    density = rng.choice(np.array([0.05, 0.2, 0.5, 1.0, 1.0]), (count, 1, 1, 1))
    return images * (rng.random((count, 1, *shape[1:])) < density).astype(np.float32)


def silhouettes(shape: Shape, count: int, seed: int) -> Images:
    """Patches of scikit-learn's photographs cut out by smooth random masks, on black or white; (count, C, H, W)."""
    textures = photo_patches(count, shape, seed=derive_seed("texture", seed))
    rng = numpy_generator("silhouettes", seed)
    _, height, width = shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    radius = np.hypot((rows - (height - 1) / 2) / height, (columns - (width - 1) / 2) / width)
    field = _smooth((1, height, width), count, derive_seed("mask", seed)) - 1.5 * radius
    cover = rng.uniform(0.2, 0.7, count)
    threshold = np.array([np.quantile(part, 1 - share) for part, share in zip(field, cover, strict=True)])
    mask = field > threshold[:, None, None, None]
    # half of the silhouettes are symmetric about the vertical axis, as things that are photographed often are
    mirrored = rng.random(count) < 0.5
    mask[mirrored] |= mask[mirrored][..., ::-1]
    background = (rng.random((count, 1, 1, 1)) < 0.2).astype(np.float32)
    gain = rng.uniform(0.5, 1.5, (count, 1, 1, 1)).astype(np.float32)
    lift = rng.uniform(0, 0.6, (count, 1, 1, 1)).astype(np.float32)
    return np.where(mask, np.clip(lift + gain * textures, 0, 1), background).astype(np.float32)


def shapes(shape: Shape, count: int, seed: int) -> Images:
    """Filled polygons, ellipses and lines, one to four of them, on black; (count, C, H, W)."""
    from PIL import Image, ImageDraw

    rng = numpy_generator("shapes", seed)
    channels, height, width = shape
    scale = drawn.LARGER
    mode = "L" if channels == 1 else "RGB"
    images = np.empty((count, height, width, channels), np.float32)

    def colour() -> int | tuple[int, ...]:
        if channels == 1:
            return int(rng.integers(64, 256))
        return tuple(int(value) for value in rng.integers(0, 256, channels))

    for index in range(count):
        picture = Image.new(mode, (scale * width, scale * height))
        draw = ImageDraw.Draw(picture)
        for _ in range(rng.integers(1, 5)):
            kind, corners = rng.integers(3), int(rng.integers(3, 7))
            points = [
                (float(a), float(b))
                for a, b in zip(
                    rng.uniform(0, scale * width, corners), rng.uniform(0, scale * height, corners), strict=True
                )
            ]
            if kind == 0:
                draw.polygon(points, fill=colour())
            elif kind == 1:
                (left, top), (right, bottom) = points[:2]
                draw.ellipse([min(left, right), min(top, bottom), max(left, right), max(top, bottom)], fill=colour())
            else:
                draw.line(points, fill=colour(), width=int(rng.integers(scale, 4 * scale + 1)), joint="curve")
        reduced = picture.resize((width, height), Image.Resampling.BOX)
        images[index] = np.asarray(reduced, np.float32).reshape(height, width, channels) / 255
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _mixed(training: Images, count: int, seed: int) -> Images:
    rng = numpy_generator("mixed", seed)
    height, width = training.shape[2:]

    def draw() -> Images:
        picked: Images = training[rng.integers(len(training), size=count)]
        return picked

    first, second, third = draw(), draw(), draw()
    images = np.empty_like(first)
    kinds = rng.integers(5, size=count)
    weights = rng.dirichlet([2.0, 2.0, 2.0], count).astype(np.float32)
    cells = max(2, min(height, width) // 7)
    edges_y, edges_x = (np.linspace(0, side, cells + 1).astype(int) for side in (height, width))
    for index, kind in enumerate(kinds):
        a, b, c = first[index], second[index], third[index]
        if kind == 0:  # a blend of three
            images[index] = weights[index, 0] * a + weights[index, 1] * b + weights[index, 2] * c
        elif kind == 1:  # three on top of each other
            images[index] = np.maximum(np.maximum(a, b), c)
        elif kind == 2:
            images[index] = 1 - a
        elif kind == 3:  # tiles, each from a random place of one of two
            for y0, y1 in itertools.pairwise(edges_y):
                for x0, x1 in itertools.pairwise(edges_x):
                    top, left = rng.integers(height - (y1 - y0) + 1), rng.integers(width - (x1 - x0) + 1)
                    source = a if rng.random() < 0.5 else b
                    images[index, :, y0:y1, x0:x1] = source[:, top : top + y1 - y0, left : left + x1 - x0]
        else:  # the difference of two, rolled apart
            shift = (int(rng.integers(height)), int(rng.integers(width)))
            images[index] = np.abs(a - np.roll(b, shift, axis=(1, 2)))
    return images


_MAKERS: dict[str, Callable[[Shape, int, int], Images]] = {
    "photographs": _photographs,
    "silhouettes": silhouettes,
    "smooth-noise": smooth_noise,
    "noise": _noise,
    "shapes": shapes,
    "strokes": drawn.strokes,
    "walks": drawn.walks,
    "glyphs": drawn.glyphs,
}
