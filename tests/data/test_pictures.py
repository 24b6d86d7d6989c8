"""Picture files are read as they are meant, or refused by name."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from art_divqat.data.pictures import centred_box, read_header, read_picture
from art_divqat.errors import UserError

RAMP = (np.arange(64) * 1040).astype(np.uint16).reshape(8, 8)
GREY = Image.fromarray((RAMP // 257).astype(np.uint8))
DEEP = "of 16-bit grey: scaled to 8 bits"
WHITE = "with transparent pixels: put on white"
FRAMES = "of several frames or pages: the first is used"
TURNED = "turned as their EXIF orientation says"


def read(file: Path, **options: Any) -> tuple[NDArray[np.uint8], set[str]]:
    header, done = read_header(file), Counter[str]()
    x = read_picture(file, header[:2], grey=header.grey, done=done, **options)
    assert x.dtype == np.uint8
    assert x.shape == (1 if header.grey else 3, header.height, header.width)
    assert set(done.values()) <= {1}
    return x, set(done)


def tiff(values: NDArray[Any], bits: int, *extra: tuple[int, int]) -> bytes:
    """An uncompressed grey TIFF of any depth; `extra` are short tags."""
    height, width = values.shape
    text = "".join(format(int(value), f"0{bits}b") for value in values.ravel()) if bits == 12 else ""
    data = bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8)) if text else values.tobytes()
    tags = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: 1,
        273: 8,
        277: 1,
        278: height,
        279: len(data),
        **dict(extra),
    }
    head = b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags))
    return head + b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags)) + bytes(4)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("deep.png", lambda file: Image.fromarray(RAMP).save(file)),
        ("deep.TIF", lambda file: Image.fromarray(RAMP).save(file, format="TIFF")),
        ("deep.pgm", lambda file: Image.fromarray(RAMP).save(file)),
        ("inverted.tif", lambda file: file.write_bytes(tiff(65535 - RAMP, 16, (262, 0)))),
    ],
)
def test_sixteen_bits_are_scaled_and_not_cut_off(tmp_path: Path, name: str, make: Callable[[Path], None]) -> None:
    make(tmp_path / name)
    x, did = read(tmp_path / name)
    np.testing.assert_allclose(x[0], RAMP / 257, atol=0.51)
    assert did == {DEEP}


def test_other_depths_have_white_where_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "twelve.tif").write_bytes(tiff(np.arange(64).reshape(8, 8) * 65, 12))
    x, did = read(tmp_path / "twelve.tif")
    assert (x.min(), x.max(), did) == (0, 255, {"of 12-bit grey: scaled to 8 bits"})
    Image.fromarray(RAMP // 16).save(tmp_path / "dark.png")
    x, did = read(tmp_path / "dark.png")
    assert x.max() == 16
    assert any("without a value above 4,095 of 65,535" in what for what in did)
    Image.fromarray((RAMP / 65520).astype(np.float32)).save(tmp_path / "float.tiff")
    x, did = read(tmp_path / "float.tiff")
    assert (x.min(), x.max(), did) == (0, 255, {"of float pixels in [0, 1]: scaled to 8 bits"})
    GREY.convert("1").save(tmp_path / "one.png")
    assert set(np.unique(read(tmp_path / "one.png")[0])) <= {0, 255}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda f: Image.fromarray(RAMP.astype(np.float32)).save(f, "TIFF"),
            "float pixels from 0 to 65520",
        ),
        (lambda f: Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(f, "TIFF"), "float pixels from nan"),
        (lambda f: Image.fromarray(RAMP.astype(np.int32)).save(f, "TIFF"), "32-bit pixels from 0 to 65520"),
        (lambda f: f.write_bytes(tiff(np.arange(16, dtype="<i2").reshape(4, 4), 16, (339, 2))), "signed 16-bit"),
        (lambda f: f.write_bytes(tiff(np.zeros((4, 4), "<f8"), 64, (339, 3))), "no picture, or of a kind"),
        (lambda f: f.write_bytes(b""), "it is empty"),
        (lambda f: f.write_text("<html>not found</html>"), "no picture, or of a kind"),
        (lambda f: f.symlink_to("nowhere"), "a link to nothing"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    file = tmp_path / "odd ü.png"
    make(file)
    with pytest.raises(UserError, match=message) as caught:
        read(file)
    assert "odd ü.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_jpeg_is_named(tmp_path: Path) -> None:
    file = tmp_path / "cut.jpg"
    Image.effect_noise((64, 64), 90).save(file)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"cut\.jpg cannot be read as a picture"):
        read(file)


def test_transparent_pixels_are_white_and_grey_stays_grey(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    alpha = GREY.convert("LA")
    alpha.putpixel((0, 0), (0, 0))
    alpha.putpixel((7, 7), (0, 128))
    alpha.save(file)
    x, did = read(file)
    assert (x.shape[0], x[0, 0, 0], x[0, 7, 7], did) == (1, 255, 127, {WHITE})
    np.testing.assert_array_equal(x[0, 1:7], np.asarray(GREY)[1:7])
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 200, 10, 10])
    palette.putpixel((0, 0), 0)
    for name in ("p.png", "p.gif"):
        palette.save(tmp_path / name, transparency=0)
        x, did = read(tmp_path / name)
        assert (x[:, 0, 0].tolist(), x[:, 1, 1].tolist(), did) == ([255] * 3, [200, 10, 10], {WHITE})
    GREY.save(file, transparency=0)
    assert read(file)[0][0, 0, 0] == 255
    Image.fromarray(RAMP).save(file, transparency=0)
    x, did = read(file)
    assert (x[0, 0, 0], x[0, 0, 1], did) == (255, 4, {WHITE, DEEP, })  # fmt: skip
    GREY.convert("RGB").convert("RGBA").save(file)
    assert read(file)[1] == set(), "opaque pictures lose nothing"


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
def test_exif_turns_pictures(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    picture = Image.new("RGB", (16, 8))
    picture.paste((255, 255, 255), (0, 0, 16, 4))
    exif = Image.Exif()
    exif[274] = 6
    picture.save(file, exif=exif, **({"quality": 95} if name != "a.tif" else {}))
    x, did = read(file)
    assert x.shape == (3, 16, 8)
    assert did == {TURNED}
    assert x[:, :, 5:].min() > 200, "what was the top is on the right"
    assert x[:, :, :3].max() < 60


def test_of_several_frames_the_first_is_used(tmp_path: Path) -> None:
    first, *more = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime"))
    for name in ("a.gif", "a.png", "a.tif", "a.webp"):
        options = {"lossless": True} if name == "a.webp" else {}
        first.save(tmp_path / name, save_all=True, append_images=more, **options)
        x, did = read(tmp_path / name)
        assert (x[:, 4, 4].tolist(), did) == ([255, 0, 0], {FRAMES})


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (250, 5, 5)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    x, did = read(tmp_path / "a.jpg")
    assert abs(x[:, 4, 4].astype(int) - (250, 5, 5)).max() < 12
    assert any("CMYK" in what for what in did)


def test_a_crop_is_the_middle_and_a_squash_is_all(tmp_path: Path) -> None:
    picture = Image.new("L", (40, 20), 100)
    picture.paste(255, (0, 0, 10, 20))
    picture.paste(255, (30, 0, 40, 20))
    picture.save(tmp_path / "wide.png")
    crop, squash = (
        read_picture(tmp_path / "wide.png", (10, 10), grey=True, fit=fit, done=Counter()) for fit in ("crop", "squash")
    )
    as_usual = picture.resize((20, 10), Image.Resampling.BILINEAR).crop((5, 0, 15, 10))
    np.testing.assert_array_equal(crop[0], np.asarray(as_usual))
    assert (crop[0, :, 1:-1] == 100).all()
    assert squash[0, 5, 0] == 255
    assert centred_box((30, 60), (10, 10)) == (0, 15, 30, 45)
    assert centred_box((20, 10), (10, 5)) == (0, 0, 20, 10)


@given(
    width=st.integers(1, 5000), height=st.integers(1, 5000), target=st.tuples(st.integers(1, 600), st.integers(1, 600))
)
def test_no_size_puts_an_edge_of_the_box_outside_the_picture(width: int, height: int, target: tuple[int, int]) -> None:
    left, top, right, bottom = centred_box((width, height), target)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_colours_that_would_come_out_wrong_are_refused(tmp_path: Path) -> None:
    Image.new("LAB", (8, 8), (200, 20, 0)).save(tmp_path / "lab.tiff")
    with pytest.raises(
        UserError, match=r"lab\.tiff cannot be read as a picture: it is in CIELAB colours; save it as RGB"
    ):
        read(tmp_path / "lab.tiff")
