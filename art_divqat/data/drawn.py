"""Pictures that a program draws, without any data: pen walks, curves, glyphs of fonts, filled shapes.

A model that was trained on drawings, characters or signs answers such pictures as if they were its own. An attacker
makes them in a minute; a defender should have seen their kind.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from art_divqat._rng import numpy_generator
from art_divqat._types import Images, Shape
from art_divqat.errors import UserError

if TYPE_CHECKING:
    from PIL import Image as Pictures

# pictures are drawn so many times larger and reduced, so that edges are soft
LARGER = 4
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
NUMERALS = "0123456789"
SIGNS = "!#$%&()*+/<=>?@[]^{|}~§±µ¶¿ÆØßæøΓΔΘΛΞΠΣΦΨΩαβγδεζηθλμξπσφψωЖЯд"
# families of fonts that matplotlib installs with itself
_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSansMono",
    "STIXGeneral",
    "STIXGeneralBol",
    "STIXGeneralItalic",
)


def walks(shape: Shape, count: int, seed: int) -> Images:
    """Walks of a thick pen whose direction drifts at random: one or two of them, bright on black.

    :return: (count, C, H, W), float32 in [0, 1], the same in every channel.

    >>> walks((1, 28, 28), 2, 0).shape
    (2, 1, 28, 28)
    """
    rng = numpy_generator("walks", seed)
    side = min(shape[1:])

    def draw(pen: Any, width: int, height: int) -> None:
        thickness = LARGER * side * rng.uniform(0.05, 0.16)
        for _ in range(1 + (rng.random() < 0.35)):
            steps = int(rng.integers(6, 30))
            length = LARGER * side * rng.uniform(0.04, 0.12)
            heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(rng.normal(0, 0.15), 0.45, steps))
            path = np.cumsum(length * np.stack([np.cos(heading), np.sin(heading)], axis=1), axis=0)
            centre = rng.uniform(0.42, 0.58, 2) * (width, height)
            path = _inside(path - (path.min(axis=0) + path.max(axis=0)) / 2, 0.38 * np.array([width, height])) + centre
            stroke(pen, path, thickness)

    return drawn(shape, count, draw, rng)


def strokes(shape: Shape, count: int, seed: int) -> Images:
    """One to four smooth curves through a few points, of every width from a hair to a brush.

    :return: (count, C, H, W), float32 in [0, 1], bright on black, the same in every channel.

    >>> strokes((3, 8, 8), 2, 0).shape
    (2, 3, 8, 8)
    """
    rng = numpy_generator("strokes of all widths", seed)
    side = min(shape[1:])

    def draw(pen: Any, width: int, height: int) -> None:
        thickness = LARGER * side * float(np.exp(rng.uniform(np.log(0.03), np.log(0.2))))
        margin = rng.uniform(0.1, 0.3)
        for _ in range(rng.integers(1, 5)):
            knots = rng.uniform(margin, 1 - margin, (int(rng.integers(2, 7)), 2)) * (width, height)
            closed = len(knots) > 2 and rng.random() < 0.3
            straight = rng.random() < 0.25
            stroke(pen, _polygon(knots, closed) if straight else smooth_curve(knots, closed), thickness)

    return drawn(shape, count, draw, rng)


def glyphs(shape: Shape, count: int, seed: int, characters: str = LETTERS + SIGNS) -> Images:
    """Characters in the fonts that come with matplotlib, turned, slanted, of many sizes, bright on black.

    :param characters: what is drawn from, each as often as another.
    :return: (count, C, H, W), float32 in [0, 1], the same in every channel.
    :raises UserError: for no characters.

    >>> glyphs((1, 28, 28), 2, 0, "A").shape
    (2, 1, 28, 28)
    """
    from PIL import Image, ImageDraw

    if not characters:
        raise UserError("There are no glyphs to draw: give at least one character.")
    rng = numpy_generator("glyphs", seed)
    channels, height, width = shape
    images = np.empty((count, height, width), np.float32)
    for index in range(count):
        picture = Image.new("L", (LARGER * width, LARGER * height))
        size = round(LARGER * min(height, width) * rng.uniform(0.6, 1.05))
        font = _font(int(rng.integers(len(_FONTS))), size)
        centre = (LARGER * width / 2, LARGER * height / 2)
        character = characters[int(rng.integers(len(characters)))]
        bold = int(rng.integers(0, 1 + round(LARGER * min(height, width) * 0.03)))
        ImageDraw.Draw(picture).text(centre, character, 255, font, anchor="mm", stroke_width=bold, stroke_fill=255)
        images[index] = rng.uniform(0.7, 1) * reduced(_warped(picture, rng), width, height)
    return np.repeat(images[:, None], channels, axis=1)


def letters(shape: Shape, count: int, seed: int) -> Images:
    """:func:`glyphs` of the Latin alphabet, no digit among them.

    >>> letters((1, 28, 28), 2, 0).shape
    (2, 1, 28, 28)
    """
    return glyphs(shape, count, seed, LETTERS)


def numerals(shape: Shape, count: int, seed: int) -> Images:
    """:func:`glyphs` of the ten digits.

    >>> numerals((1, 28, 28), 2, 0).shape
    (2, 1, 28, 28)
    """
    return glyphs(shape, count, seed, NUMERALS)


def stroke(pen: Any, path: NDArray[np.float64], thickness: float) -> None:
    """Draw a path with a round pen on a `PIL.ImageDraw`."""
    points = [(float(x), float(y)) for x, y in path]
    pen.line(points, fill=255, width=max(1, round(thickness)), joint="curve")
    radius = thickness / 2
    for x, y in (points[0], points[-1]):
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)


def drawn(shape: Shape, count: int, draw: Any, rng: np.random.Generator) -> Images:
    """`count` pictures, each by one call of `draw` with a pen and the size of a picture larger than `shape`."""
    from PIL import Image, ImageDraw

    channels, height, width = shape
    images = np.empty((count, height, width), np.float32)
    for index in range(count):
        picture = Image.new("L", (LARGER * width, LARGER * height))
        draw(ImageDraw.Draw(picture), *picture.size)
        images[index] = rng.uniform(0.6, 1) * reduced(picture, width, height)
    return np.repeat(images[:, None], channels, axis=1)


def reduced(picture: Pictures.Image, width: int, height: int) -> Any:
    """A picture at its size, (height, width), in [0, 1]."""
    from PIL import Image

    return np.asarray(picture.resize((width, height), Image.Resampling.BOX), np.float32) / 255


def smooth_curve(knots: NDArray[np.float64], closed: bool, pieces: int = 8) -> NDArray[np.float64]:
    """The Catmull-Rom curve through points in the plane: at each knot it runs parallel to the line of its neighbours.

    :param knots: (N, 2), at least two.
    :param closed: whether the last is joined to the first.
    :return: (pieces × (knots − 1) + 1, 2), or so many for one knot more if closed.

    >>> smooth_curve(np.array([[0.0, 0.0], [1.0, 1.0]]), closed=False, pieces=2).tolist()
    [[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]
    """
    path = _polygon(knots, closed)
    before, after = (path[-2], path[1]) if closed else (path[0], path[-1])
    around = np.vstack([before[None], path, after[None]])
    slopes = (around[2:] - around[:-2]) / 2
    t = (np.arange(pieces) / pieces)[None, :, None]
    start, end, leaving, arriving = path[:-1, None], path[1:, None], slopes[:-1, None], slopes[1:, None]
    curve = (
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * leaving
        + (3 * t**2 - 2 * t**3) * end
        + (t**3 - t**2) * arriving
    )
    return np.vstack([curve.reshape(-1, 2), path[-1:]])


def _polygon(knots: NDArray[np.float64], closed: bool) -> NDArray[np.float64]:
    return np.vstack([knots, knots[:1]]) if closed else knots


def _inside(path: NDArray[np.float64], half: NDArray[np.float64]) -> NDArray[np.float64]:
    """A path about the origin, made smaller where it leaves the box."""
    return path / max(1.0, float((np.abs(path) / half).max()))


def _warped(picture: Pictures.Image, rng: np.random.Generator) -> Pictures.Image:
    from PIL import Image

    width, height = picture.size
    angle, slant = rng.normal(0, 0.15), rng.normal(0, 0.15)
    cosine, sine = np.cos(angle), np.sin(angle)
    matrix = np.array([[cosine, sine + slant], [-sine, cosine]]) / rng.uniform(0.85, 1.05)
    centre = np.array([width / 2, height / 2])
    shift = centre - matrix @ (centre + rng.uniform(-0.06, 0.06, 2) * (width, height))
    rows = (matrix[0, 0], matrix[0, 1], shift[0], matrix[1, 0], matrix[1, 1], shift[1])
    return picture.transform(picture.size, Image.Transform.AFFINE, rows, Image.Resampling.BILINEAR)


@functools.lru_cache(maxsize=512)
def _font(index: int, size: int) -> Any:
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/{_FONTS[index]}.ttf", size)
