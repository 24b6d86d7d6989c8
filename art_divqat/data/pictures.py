"""Picture files: read the size and the kind from the header, the pixels as uint8, and count what was done to them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from art_divqat._files import first_line
from art_divqat.errors import UserError

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff")
)
Fit = Literal["crop", "squash"]
Size = tuple[int, int]
_GREY = ("1", "L", "LA", "La", "I", "F")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT, _ORIENTATION = 258, 262, 339, 274
_ROUNDING = 1e-4


@dataclass(frozen=True)
class ImageForm:
    """What images are to become.

    :param size: (height, width); None for their own.
    :param channels: 1 for grey, 3 for RGB; None for their own.
    :param fit: how they come to the size: `crop` takes the largest centred part of its proportions, `squash` all.
    """

    size: Size | None = None
    channels: int | None = None
    fit: Fit = "crop"


OWN_FORM = ImageForm()


class Header(NamedTuple):
    """What a picture's header says: its size as it is to be seen, and whether it has no colour."""

    height: int
    width: int
    grey: bool


class TablePicture(Protocol):
    """A picture in a row of a table, which is no file of its own: its text says where it is."""

    @property
    def identity(self) -> tuple[object, ...]:
        """What tells it from other pictures without reading it, and from what was in its place before."""

    def read(self) -> bytes:
        """The bytes of the picture file."""


Picture: TypeAlias = Path | TablePicture


def read_header(file: Picture) -> Header:
    """The size, turned upright, and the kind of a picture, without decoding it.

    :raises UserError: if it is no picture.
    """
    try:
        with _open(file) as picture:
            width, height = picture.size
            # a TIFF turns its own size, and a PNG's EXIF may stand behind its pixels
            if "exif" in picture.info and picture.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8):
                width, height = height, width
            return Header(height, width, _is_grey(picture))
    except Exception as error:
        raise _unreadable(file, error) from error


def read_picture(file: Picture, size: Size, *, grey: bool, fit: Fit = "crop", done: Counter[str]) -> NDArray[np.uint8]:
    """The pixels of a picture as (C, H, W), uint8, C being 1 if `grey` and else 3.

    Turned as EXIF says; 16-bit grey and floats in [0, 1] scaled to 0–255; transparent pixels over white; resized by
    antialiased bilinear interpolation.

    :param size: (H, W).
    :param done: is told what was done to the picture, a count for each kind.
    :raises UserError: if it cannot be decoded, or nothing says which of its values is white.
    """
    from PIL import Image, ImageOps

    did: set[str] = set()
    try:
        with _open(file) as picture:
            # phones keep a preview behind the picture (MPO)
            if getattr(picture, "is_animated", False) and picture.format != "MPO":
                did.add("of several frames or pages: the first is used")
            if picture.getexif().get(_ORIENTATION, 1) in range(2, 9):
                did.add("turned as their EXIF orientation says")
            tags = dict(getattr(picture, "tag_v2", {}))
            plain = _eight_bits(ImageOps.exif_transpose(picture), tags, did)
            if not grey and plain.mode == "L":
                did.add("of grey turned to RGB")
            elif grey and plain.mode == "RGB":
                did.add("of RGB turned to grey, by luma")
            plain = plain.convert("L" if grey else "RGB")
            height, width = size
            if plain.size != (width, height):
                box = centred_box(plain.size, (width, height)) if fit == "crop" else None
                plain = plain.resize((width, height), Image.Resampling.BILINEAR, box=box)
    except Exception as error:
        # Pillow's decoders raise whatever their format's parser does
        raise _unreadable(file, error) from error
    done.update(did)
    pixels = np.asarray(plain, dtype=np.uint8)
    return pixels[None] if grey else pixels.transpose(2, 0, 1)


def centred_box(size: Size, target: Size) -> tuple[float, float, float, float]:
    """The largest centred part, (left, top, right, bottom), with the proportions of the target; sizes as (W, H).

    >>> centred_box((400, 300), (32, 32))
    (50.0, 0.0, 350.0, 300.0)
    """
    width, height = size
    scale = min(width / target[0], height / target[1])
    # rounding must not move an edge out of the picture, which Pillow refuses
    left, top = max(0.0, (width - target[0] * scale) / 2), max(0.0, (height - target[1] * scale) / 2)
    return left, top, width - left, height - top


@contextmanager
def _open(file: Picture) -> Iterator[Any]:
    from PIL import Image

    if not isinstance(file, Path):
        with Image.open(io.BytesIO(file.read())) as picture:
            yield picture
        return
    if file.stat().st_size == 0:
        raise ValueError("it is empty")
    # given a name, Pillow maps an uncompressed TIFF into memory, with height and width exchanged if it is to be turned
    with file.open("rb") as stream, Image.open(stream) as picture:
        yield picture


def _is_grey(picture: Any) -> bool:
    return picture.mode in _GREY or picture.mode.startswith("I;16")


def _eight_bits(picture: Any, tags: Mapping[int, Any], did: set[str]) -> Any:
    """The picture as mode L or RGB.

    :param tags: of a TIFF; empty for any other.
    """
    from PIL import Image

    mode = picture.mode
    grey = _is_grey(picture)
    if mode == "F" or mode.startswith("I"):
        return _scaled(picture, tags, did)
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("LA" if mode == "La" else "RGBA").convert("RGBA")
        if picture.getextrema()[3][0] < 255:
            did.add("with transparent pixels: put on white")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    elif mode == "LAB":
        # Pillow takes the three values for others
        raise ValueError("it is in CIELAB colours; save it as RGB")
    elif mode == "CMYK":
        did.add("of CMYK turned to RGB, without their colour profile")
    return picture.convert("L" if grey else "RGB")


def _scaled(picture: Any, tags: Mapping[int, Any], did: set[str]) -> Any:
    """Grey of more than eight bits, with black and white where the file says that they are."""
    from PIL import Image

    values = np.asarray(picture)
    least, most = float(values.min()), float(values.max())
    if picture.mode == "F":
        if not (least >= -_ROUNDING and most <= 1 + _ROUNDING):
            raise ValueError(
                f"it has float pixels from {least:g} to {most:g}, and nothing says which value is white; save it with "
                "8 or 16 bits, or as floats in [0, 1]"
            )
        white = 1
        did.add("of float pixels in [0, 1]: scaled to 8 bits")
    else:
        bits = int(tags.get(_BITS_PER_SAMPLE, (16,))[0])
        signed = tags.get(_SAMPLE_FORMAT, (1,))[0] == 2
        white = 2**bits - 1
        if bits > 16 or signed or least < 0 or most > white:
            raise ValueError(
                f"it has {'signed ' if signed else ''}{bits}-bit pixels from {least:g} to {most:g}, and nothing says "
                "which value is white; save it with 8 or 16 bits, black being 0"
            )
        did.add(f"of {bits}-bit grey: scaled to 8 bits")
        if most < 2 ** (bits - 4):
            did.add(
                f"nearly black, without a value above {2 ** (bits - 4) - 1:,} of {white:,}: scale them if that is white"
            )
    scaled = np.rint(np.clip(values.astype(np.float64) / white, 0, 1) * 255).astype(np.uint8)
    # 0 is white there, which Pillow sees to up to eight bits
    if tags.get(_PHOTOMETRIC, 1) == 0:
        scaled = 255 - scaled
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int) and (values == transparent).any():
        did.add("with transparent pixels: put on white")
        scaled = np.where(values == transparent, 255, scaled).astype(np.uint8)
    return Image.fromarray(scaled)


def _unreadable(file: Picture, error: Exception) -> UserError:
    from PIL import UnidentifiedImageError

    reason = first_line(error)
    if isinstance(error, UnidentifiedImageError):
        reason = "it is no picture, or of a kind that is not read"
    elif isinstance(error, FileNotFoundError):
        reason = "it is a link to nothing"
    return UserError(f"{file} cannot be read as a picture: {reason.rstrip('.')}. Remove it or replace it.")
